"""Files that are replaced whole, and have reached the disk when the call returns.

A power cut cannot be made here, so the order of the calls that survive one is looked at instead:
the file's bytes, then its name, then the folder that has the name.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import pytest

from moss_local.embedding.graph_cache import cached
from moss_local.settings import Credentials, save_credentials
from moss_local.snapshots import write_whole
from moss_local.storage.file_keys import KEY_FILE, KeyFile
from moss_local.storage.place import write_key_file
from moss_local.storage.project_cache import ProjectCache
from moss_sync.stores import durable
from moss_sync.stores.durable import replacing


def _credentials(root: Path) -> Path:
    return save_credentials(Credentials("p", "key-of-the-project"))


def _cache(root: Path) -> Path:
    ProjectCache(root).save("name", b"some")
    return root / "repository-name"


def _key_file(root: Path) -> Path:
    write_key_file(root, KeyFile(()))
    return root / KEY_FILE


def _snapshot(root: Path) -> Path:
    def put(out: BinaryIO) -> None:
        out.write(b"some")

    write_whole(root / "x.moss", put)
    return root / "x.moss"


def _graph(root: Path) -> Path:
    made = cached(root, "graph", sha256(b"some").hexdigest(), lambda: b"some")
    assert isinstance(made, Path)
    return made


def _plain(root: Path) -> Path:
    with replacing(root / "plain") as out:
        out.write(b"some")
    return root / "plain"


WRITERS = [_credentials, _cache, _key_file, _snapshot, _graph, _plain]


@pytest.mark.parametrize("write", WRITERS)
def test_what_is_written_is_on_the_disk_under_its_name_on_return(
    write: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[tuple[str, object]] = []
    sync_file, replace = durable.sync_file, os.replace

    def synced(fd: int) -> None:
        events.append(("sync", os.fstat(fd).st_ino))
        sync_file(fd)

    def replaced(source: str | Path, target: str | Path) -> None:
        events.append(("rename", os.fspath(target)))
        replace(source, target)

    monkeypatch.setattr(durable, "sync_file", synced)
    monkeypatch.setattr(os, "replace", replaced)
    path = write(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert events[-3:] == [
        ("sync", path.stat().st_ino),
        ("rename", str(path)),
        ("sync", path.parent.stat().st_ino),
    ]


@pytest.mark.parametrize("write", WRITERS[:-1])
@pytest.mark.parametrize("failing", ["open", "fsync", "replace"])
def test_a_disk_that_fails_leaves_what_was_there(
    write: Callable[[Path], Path], failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path)
    before = path.read_bytes()
    if write is _graph:
        path.write_bytes(before := b"damaged, so it is built anew")

    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, failing, full)
    if write is _graph:  # a convenience: without it the graph is built in memory
        expected = sha256(b"some").hexdigest()
        assert cached(tmp_path, "graph", expected, lambda: b"some") == b"some"
    else:
        with pytest.raises(Exception, match="No space left"):
            write(tmp_path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [left.name for left in path.parent.glob(".*.tmp")] == []


@pytest.mark.parametrize("write", WRITERS[:-1])
def test_a_folder_that_cannot_be_synced_at_all_is_taken_and_one_that_fails_is_told(
    write: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path)
    fsync, answer = os.fsync, errno.EINVAL

    def refused(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(answer, os.strerror(answer))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", refused)
    path.unlink()
    assert write(tmp_path) == path
    assert path.exists()
    answer = errno.EIO
    path.unlink()
    if write is _graph:  # a convenience: without it the graph is built in memory
        expected = sha256(b"some").hexdigest()
        assert cached(tmp_path, "graph", expected, lambda: b"some") == b"some"
    else:
        with pytest.raises(Exception, match="Input/output error"):
            write(tmp_path)
    assert path.exists()  # only its name may be gone after a power cut


@pytest.mark.parametrize("write", [_credentials, _key_file])
def test_a_secret_that_a_killed_writer_has_left_goes_with_the_next_write(
    write: Callable[[Path], Path], tmp_path: Path
) -> None:
    path = write(tmp_path)
    old, fresh = (path.with_name(f".{path.name}.{name}.tmp") for name in ("old", "fresh"))
    for left in (old, fresh):
        left.write_bytes(b"the key of before")
    hour_ago = old.stat().st_mtime - 3600
    os.utime(old, (hour_ago, hour_ago))
    write(tmp_path)
    assert (old.exists(), fresh.exists()) == (False, True)


def test_a_block_that_raises_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"before")

    def interrupted() -> None:
        with replacing(path) as out:
            out.write(b"half of it")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]
