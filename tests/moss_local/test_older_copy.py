"""A session's file that was put back from a backup is told, however it is opened."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from moss_local import DocumentInfo, MossClient, SyncReport
from tests.keys import KEY
from tests.moss_local.cli_harness import Cli

VECTOR = [1.0, 0.0, 0.0, 0.0]


def put_back(path: Path, data: bytes) -> None:
    for beside in path.parent.glob(f"{path.name}*"):
        beside.unlink()
    path.write_bytes(data)


@pytest.mark.parametrize("commit", ["cas", "log"])
@pytest.mark.parametrize("verb", ["open", "push"])
def test_an_older_copy_of_a_file_is_told_by_the_first_exchange(
    tmp_path: Path, commit: str, verb: str, caplog: pytest.LogCaptureFixture
) -> None:
    def client(device: str) -> MossClient:
        store = tmp_path / "store"
        return MossClient("p", KEY, store=store, data_dir=tmp_path / device, commit=commit)

    async def push(text: str) -> None:
        async with client("laptop") as laptop:
            session = await laptop.session("conv", "custom")
            await session.add_docs([DocumentInfo(text, text, embedding=VECTOR)])
            await session.push_index()

    async def first_exchange() -> SyncReport:
        async with client("laptop") as laptop:
            session = await laptop.session("conv", "custom", auto_load_on_init=verb == "open")
            if verb == "push":
                await session.add_docs([DocumentInfo("after", "after", embedding=VECTOR)])
                await session.push_index()
            report = session.last_report
            assert report is not None
            await session.pull()
            assert {"first", "second"} <= {each.id for each in await session.get_docs()}
            return report

    async def story() -> None:
        await push("first")
        (path,) = (tmp_path / "laptop").glob("p-*/*.sqlite3")
        yesterday = path.read_bytes()
        await push("second")
        assert "older copy" not in caplog.text
        put_back(path, yesterday)
        assert (await first_exchange()).older_copy
        assert "session 'conv': this device's file is an older copy" in caplog.text
        assert not (await first_exchange()).older_copy
        async with client("phone") as phone:
            session = await phone.session("conv", "custom")
            found = {each.id for each in await session.get_docs()}
            assert found == {"first", "second"} | ({"after"} if verb == "push" else set())

    asyncio.run(story())


@pytest.mark.parametrize("command", [("show", "conv"), ("pull", "conv"), ("sync", "--all")])
def test_the_command_line_tells_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    cli = Cli(("--data-dir", "data"))
    cli("init", "--project", "acme", "--store", "./shared").ok()
    cli("add", "conv", "first").ok()
    cli("push", "conv").ok()
    (path,) = Path("data").glob("acme-*/*.sqlite3")
    yesterday = path.read_bytes()
    cli("add", "conv", "second").ok()
    cli("push", "conv").ok()
    put_back(path, yesterday)
    assert "this device's file is an older copy" in cli(*command).ok().stderr
    assert "older copy" not in cli(*command).ok().stderr
