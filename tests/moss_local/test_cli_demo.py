"""The demo: on a folder and on a bucket, cleaning up, and never claiming what is not so."""

from __future__ import annotations

import asyncio
import re
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from moss_local.cli import demo as demo_module
from moss_local.cli import demo_story as story
from moss_local.cli.demo_cast import Agent
from moss_sync import MossError
from moss_sync.stores import open_store
from tests.moss_local.cli_harness import Cli


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for temporary files that the test can look into."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.chdir(tmp_path)
    return place


def test_the_demo_tells_the_whole_story_and_leaves_nothing(temporary: Path) -> None:
    told = Cli()("demo").ok().stdout
    assert [line[0] for line in told.splitlines() if re.match(r"\d  ", line)] == list("12345")
    assert "0 texts embedded" in told
    assert "NETWORK" in told
    assert "3 pending on disk" in told
    assert "1 superseded by others" in told
    ids = {turn[0] for turn in story.CALL + story.CHAT + story.CHAT_OFFLINE}
    ids |= {turn[0] for turn in story.VOICE_MEANWHILE + story.EMAIL}
    assert f"checked: {len(ids)} documents, the same on 3 devices" in told
    for id in ids:
        assert id in told
    assert list(temporary.iterdir()) == []


def test_the_demo_on_a_folder_of_the_users_leaves_it_as_it_was() -> None:
    Path("shared").mkdir()
    Path("shared/mine.txt").write_text("mine")
    Cli()("demo", "--store", "shared").ok()
    files = [path for path in Path("shared").rglob("*") if path.is_file()]
    assert [path for path in files if ".moss" not in path.parts] == [Path("shared/mine.txt")]


def test_the_demo_on_a_bucket_is_the_same_and_removes_its_blobs_alone(s3_url: str) -> None:
    prefix = urlsplit(s3_url).path.strip("/") + "/"
    store = open_store(s3_url.replace(prefix.rstrip("/"), "", 1))

    async def put() -> None:
        await store.put(f"{prefix}mine", b"mine")

    async def left() -> list[str]:
        try:
            return [listed.key for listed in await store.keys(prefix)]
        finally:
            await store.close()

    with asyncio.Runner() as runner:
        runner.run(put())
        told = Cli()("demo", "--store", s3_url).ok().stdout
        assert "1 superseded by others" in told
        assert "NETWORK, " in told
        assert "the same on 3 devices, word for word" in told
        assert runner.run(left()) == [f"{prefix}mine"]


def test_what_is_kept_can_be_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Cli()("demo", "--keep", "kept").ok().stdout
    command = told.splitlines()[-1]
    project = re.search(r"--project (\S+)", command)
    assert project is not None
    assert "MOSS_PROJECT_KEY=$(cat " in command
    monkeypatch.setenv("MOSS_PROJECT_KEY", Path("kept/key").read_text())
    before = ("--project", project[1], "--store", "kept/store", "--data-dir")
    threads = [
        [
            turn["text"]
            for turn in Cli((*before, f"kept/{name}"))("show", story.SESSION, "--json")
            .ok()
            .json()["documents"]
        ]
        for name in ("voice", "chat", "email")
    ]
    assert threads[0] == threads[1] == threads[2]
    assert Cli()("demo", "--keep", "kept").code == 2


def test_a_store_that_agents_cannot_share_is_refused() -> None:
    assert Cli()("demo", "--store", "memory://x").code == 2


class Scripted:
    """An agent that says it has this thread."""

    def __init__(self, name: str, thread: dict[str, Any]) -> None:
        self.name = name
        self.thread = thread

    def do(self, verb: str) -> dict[str, Any]:
        assert verb == "thread"
        return self.thread


def whole() -> dict[str, Any]:
    told = {turn[0]: turn for turn in story.CALL + story.CHAT + story.CHAT_OFFLINE}
    told |= {turn[0]: turn for turn in story.VOICE_MEANWHILE + story.EMAIL}
    return {"turns": [[*turn, "0" * 16, 1] for turn in told.values()], "pending": 0}


def check(*threads: dict[str, Any]) -> None:
    cast: list[Any] = [Scripted(f"agent {n}", thread) for n, thread in enumerate(threads)]
    demo_module._check(cast)


def test_the_demo_fails_if_anything_that_it_claims_is_not_so() -> None:
    check(whole(), whole(), whole())
    lost, changed, pending = whole(), whole(), whole()
    del lost["turns"][3]
    changed["turns"][3][2] = "other words"
    pending["pending"] = 1
    for one in (lost, changed, pending):
        with pytest.raises(MossError, match="check failed"):
            check(whole(), one, whole())
    with pytest.raises(MossError, match="missing: turn-04"):
        check(lost, lost, lost)
    with pytest.raises(MossError, match="as it was written"):
        check(changed, changed, changed)


def test_an_agent_that_dies_is_named(tmp_path: Path) -> None:
    hello = {
        "project": "p",
        "key": "k",
        "store": str(tmp_path / "store"),
        "data_dir": str(tmp_path / "data"),
        "session": "conv",
    }
    with Agent("voice agent", hello=hello) as agent:
        agent._process.kill()
        agent._process.wait()
        with pytest.raises(MossError, match="the voice agent ended unexpectedly"):
            agent.do("pull")
