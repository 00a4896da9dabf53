"""`commit="log"` as a user meets it: the client, the settings and the command line."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from moss_local import DocumentInfo, InvalidArgumentError, MossClient, NotInLogModeError
from tests.keys import KEY
from tests.moss_local.cli_harness import Cli


def client(tmp_path: Path, device: str, commit: str | None = "log") -> MossClient:
    return MossClient(
        "project",
        KEY,
        store=tmp_path / "shared",
        data_dir=tmp_path / device,
        commit=commit,  # type: ignore[arg-type]  # wrong ones too
    )


def document(id: str, text: str) -> DocumentInfo:
    return DocumentInfo(id, text, embedding=[1.0, 0.0])


def test_everything_that_a_session_does_works_the_same_by_log(tmp_path: Path) -> None:
    async def story() -> None:
        async with client(tmp_path, "one") as one, client(tmp_path, "two", None) as two:
            a = await one.session("conv-123", "custom")
            await a.add_docs([document("turn-1", "a duplicate charge")])
            assert a.sync_state.pending == 1
            result = await a.push_index()
            assert (result.status, result.doc_count, result.report.seq) == ("completed", 1, 1)
            assert a.sync_state.status == "synced"
            b = await two.session("conv-123", "custom", create=False)  # the store says which mode
            assert [known.id for known in await b.get_docs()] == ["turn-1"]
            await b.add_docs([document("turn-2", "a refund")])
            assert (await b.sync()).sent == 1
            assert (await a.pull()).received == 1
            stored = await two.stored_sessions()
            assert [session.name for session in stored.sessions] == ["conv-123"]
            assert stored.sessions[0].devices == 2
            assert a.last_report is not None
            assert a.last_report.waiting == ()

    asyncio.run(story())


def test_a_store_of_the_other_kind_is_refused_when_a_session_is_opened(tmp_path: Path) -> None:
    async def story() -> None:
        async with client(tmp_path, "one", None) as one:
            a = await one.session("conv-123", "custom")
            await a.push_index()
        before = sorted(path for path in (tmp_path / "shared").rglob("*") if path.is_file())
        async with client(tmp_path, "two") as two:
            with pytest.raises(InvalidArgumentError, match="commits by 'cas', not by 'log'"):
                await two.session("conv-123", "custom")
        after = sorted(path for path in (tmp_path / "shared").rglob("*") if path.is_file())
        assert after == before

    asyncio.run(story())


def test_a_way_to_commit_that_there_is_not_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidArgumentError, match="commit is 'replicated'"):
        client(tmp_path, "one", "replicated")
    monkeypatch.setenv("MOSS_COMMIT", "never")
    with pytest.raises(InvalidArgumentError, match="MOSS_COMMIT is 'never'"):
        client(tmp_path, "one", None)


def test_a_checkpoint_cannot_hold_a_log_to_anything(tmp_path: Path) -> None:
    async def story() -> None:
        async with client(tmp_path, "one") as one:
            a = await one.session("conv-123", "custom")
            await a.push_index()
        async with client(tmp_path, "two") as two:
            with pytest.raises(InvalidArgumentError, match="no checkpoints"):
                await two.session("conv-123", "custom", checkpoint=f"1-{'a' * 26}")

    asyncio.run(story())


def test_a_device_is_set_up_for_a_replicated_folder_once_and_remembers_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOSS_PROJECT_KEY", KEY)
    cli, shared = Cli(), str(tmp_path / "shared")
    done = cli("init", "--project", "p", "--store", shared, "--commit", "log").ok()
    assert "--commit log" in done.stderr  # what a second device is told
    cli("add", "conv", "hello").ok()
    cli("push", "conv").ok()
    checks = {
        check["name"]: check for check in json.loads(cli("doctor", "--json").ok().stdout)["checks"]
    }
    assert 'commit="log"' in checks["store: mode"]["detail"]
    assert checks["store"]["ok"]
    assert not any("race" in name for name in checks)
    [blob] = (tmp_path / "shared").glob("*/*/l/*")
    stray = blob.with_name(f"{blob.name} (conflicted copy)")
    stray.write_bytes(b"anything")
    told = cli("pull", "conv").ok()
    assert stray.name in told.stderr
    listed = json.loads(cli("sessions", "--json").ok().stdout)["sessions"]
    assert [(each["name"], each["commits"]) for each in listed] == [("conv", 1)]
    wrong = Cli()("init", "--force", "--commit", "sometimes")
    assert wrong.code == 2
    assert "--commit is 'sometimes'" in wrong.stderr


def test_what_a_log_cannot_do_is_refused_by_name_and_leaves_nothing_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli, shared = Cli(), str(tmp_path / "shared")
    cli("init", "--project", "p", "--store", shared, "--commit", "log").ok()
    cli("add", "conv", "hello").ok()
    cli("push", "conv").ok()
    refused = cli("rotate-key")
    assert refused.code == 8
    assert "this project commits by log" in refused.stderr
    checks = json.loads(cli("doctor", "--json", "--local").ok().stdout)["checks"]
    assert "key rotation" not in [check["name"] for check in checks]

    none = cli("status", "conv", "--checkpoint")
    assert none.code == 3
    assert "commits by log" in none.stderr
    assert "never exchanged" not in none.stderr

    async def story() -> None:
        async with MossClient() as one:
            session = await one.session("conv")
            with pytest.raises(NotInLogModeError, match="a checkpoint"):
                session.checkpoint()

    asyncio.run(story())
