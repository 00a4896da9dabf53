"""The cached graph: the expected one or built anew, whoever else writes it and wherever."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from moss_local.embedding.graph_cache import cached

CONTENT = bytes(range(256)) * 50
PINNED = sha256(CONTENT).hexdigest()


class Builder:
    """Builds the content and counts how often it was asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> bytes:
        self.calls += 1
        return CONTENT


def content_of(kept: Path | bytes) -> bytes:
    """The model that a caller gets."""
    return kept if isinstance(kept, bytes) else kept.read_bytes()


def never() -> bytes:
    pytest.fail("built although the file is whole")


def test_the_second_call_reads_what_the_first_one_wrote(tmp_path: Path) -> None:
    directory = tmp_path / "made" / "on demand"
    assert content_of(cached(directory, "a.onnx", PINNED, lambda: CONTENT)) == CONTENT
    assert content_of(cached(directory, "a.onnx", PINNED, never)) == CONTENT
    assert [path.name for path in directory.iterdir()] == ["a.onnx"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:10],
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: b"x" + data[1:],
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: b"planted" + sha256(b"planted").digest(),
    ],
    ids=["empty", "cut", "end cut", "longer", "first byte", "one bit", "planted"],
)
def test_a_damaged_file_is_reported_and_built_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: object
) -> None:
    assert callable(damage)
    cached(tmp_path, "a.onnx", PINNED, lambda: CONTENT)
    path = tmp_path / "a.onnx"
    path.write_bytes(damage(path.read_bytes()))
    builder = Builder()
    with caplog.at_level(logging.WARNING):
        assert content_of(cached(tmp_path, "a.onnx", PINNED, builder)) == CONTENT
    assert builder.calls == 1
    assert "damaged" in caplog.text
    assert str(path) in caplog.text
    assert content_of(cached(tmp_path, "a.onnx", PINNED, never)) == CONTENT


def test_a_graph_that_is_built_otherwise_than_pinned_is_used_and_not_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert cached(tmp_path, "a.onnx", PINNED, lambda: b"other") == b"other"
    assert "not kept" in caplog.text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="modes, and named pipes")
def test_the_folder_is_this_user_s_alone_whatever_the_umask(tmp_path: Path) -> None:
    folder = tmp_path / "above" / "cache"
    before = os.umask(0)
    try:
        cached(folder, "a.onnx", PINNED, lambda: CONTENT)
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "above").rglob("*")}
    assert modes == {folder: 0o700, folder / "a.onnx": 0o600}
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700


@pytest.mark.skipif(os.name != "posix", reason="modes, and named pipes")
def test_a_pipe_in_the_files_place_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.onnx")
    assert content_of(cached(tmp_path, "a.onnx", PINNED, lambda: CONTENT)) == CONTENT
    assert content_of(cached(tmp_path, "a.onnx", PINNED, never)) == CONTENT


def test_where_no_directory_can_be_made_the_graph_is_built_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"not a directory")
    builder = Builder()
    with caplog.at_level(logging.WARNING):
        assert content_of(cached(blocked / "cache", "a.onnx", PINNED, builder)) == CONTENT
        assert content_of(cached(blocked / "cache", "a.onnx", PINNED, builder)) == CONTENT
    assert builder.calls == 2
    assert "cannot be" in caplog.text
    assert blocked.read_bytes() == b"not a directory"


def test_a_full_disk_leaves_no_litter_and_still_gives_the_graph(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with caplog.at_level(logging.WARNING):
        assert content_of(cached(tmp_path, "a.onnx", PINNED, lambda: CONTENT)) == CONTENT
    assert "No space left" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_a_directory_in_the_files_place_is_survived(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.onnx").mkdir()
    with caplog.at_level(logging.WARNING):
        assert content_of(cached(tmp_path, "a.onnx", PINNED, lambda: CONTENT)) == CONTENT


PROGRAM = """
import stat
import sys
from hashlib import sha256
from pathlib import Path
from moss_local.embedding.models import open_embedder, resolve_model

embedder = open_embedder(resolve_model("moss-minilm"), cache_dir=Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
sys.stdout.write(embedder.embed(["refund"]).tobytes().hex())
"""


def test_processes_that_start_at_once_share_one_file_and_one_vector(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:  # all are ready: now all build
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = {process.communicate(timeout=120)[0] for process in processes}
    assert all(process.returncode == 0 for process in processes)
    assert len(answers) == 1
    assert len(bytes.fromhex(answers.pop())) == 384 * 4
    assert [path.suffix for path in tmp_path.iterdir()] == [".onnx"]
