"""After another device has rotated the key, this one goes on with what it has and says so."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from moss_local import (
    DocumentInfo,
    ErasureIncompleteError,
    KeyRotatedError,
    MossClient,
    QueryOptions,
    SessionIndex,
    UnauthorizedError,
)
from moss_local.settings import credentials_path, load_credentials
from tests.keys import KEY, NEW_KEY, OTHER_KEY
from tests.moss_local.cli_harness import Cli

VECTOR = [1.0, 0.0, 0.0, 0.0]


def client(root: Path, device: str, key: str = KEY) -> MossClient:
    return MossClient("acme", key, store=root / "store", data_dir=root / device)


async def add(session: SessionIndex, text: str) -> None:
    await session.add_docs([DocumentInfo(text, text, embedding=VECTOR)])


async def texts(session: SessionIndex) -> list[str]:
    return sorted(each.text for each in await session.get_docs())


async def rotated(root: Path) -> None:
    """Laptop and phone share "conv"; then the laptop rotates the key, and pushes under the new."""
    async with client(root, "laptop") as laptop, client(root, "phone") as phone:
        session = await laptop.session("conv", "custom")
        await add(session, "shared")
        await session.push_index()
        await (await phone.session("conv", "custom")).close()
        await laptop.rotate_key(NEW_KEY)
        await add(session, "under the new key")
        await session.push_index()


def assert_stopped(session: SessionIndex, *, pending: int) -> None:
    state = session.sync_state
    assert (state.status, state.code, state.pending) == ("stopped", "KEY_ROTATED", pending)
    assert "old key" in str(state.reason)
    assert "moss-local rotate-key --join" in str(state.hint)


def test_a_device_with_the_old_key_opens_shows_searches_and_adds_and_joins_without_a_loss(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        await rotated(tmp_path)
        found = QueryOptions(alpha=0.0, embedding=VECTOR)
        for round in range(2):  # the second one is a new process, which has heard of it before
            async with client(tmp_path, "phone") as phone:
                session = await phone.session("conv", "custom")
                assert_stopped(session, pending=round)
                assert "shared" in await texts(session)
                hits = (await session.query("shared", found)).docs
                assert "shared" in [each.id for each in hits]
                await add(session, f"written on the phone {round}")
                for exchange in (session.push_index, session.pull, session.sync):
                    with pytest.raises(KeyRotatedError):
                        await exchange()
                assert_stopped(session, pending=round + 1)
        async with client(tmp_path, "phone") as phone:
            session = await phone.session("conv", "custom", auto_load_on_init=False)
            assert_stopped(session, pending=2)
            (known,) = (await phone.local_sessions()).sessions
            assert (known.sync_state.status, known.sync_state.code) == ("stopped", "KEY_ROTATED")

        async with client(tmp_path, "phone", NEW_KEY) as phone:
            session = await phone.session("conv", "custom")
            await session.sync()
            assert session.sync_state.status == "synced"
            everything = [
                "shared",
                "under the new key",
                "written on the phone 0",
                "written on the phone 1",
            ]
            assert await texts(session) == everything
            (known,) = (await phone.local_sessions()).sessions
            assert known.sync_state.status == "synced"
        async with client(tmp_path, "fresh", NEW_KEY) as fresh:
            assert await texts(await fresh.session("conv", "custom")) == everything

    asyncio.run(scenario())


def test_a_new_session_begins_under_the_old_key_and_is_pushed_under_the_new_one(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        await rotated(tmp_path)
        async with client(tmp_path, "phone") as phone:
            session = await phone.session("a new thread", "custom")
            await add(session, "first")
            with pytest.raises(KeyRotatedError):
                await session.push_index()
            assert_stopped(session, pending=1)
            with pytest.raises(KeyRotatedError):
                await phone.session("not here", create=False)
            (failed, *_) = await phone.sync_sessions(["a new thread"], exchange="push")
            assert isinstance(failed.error, KeyRotatedError)
        async with client(tmp_path, "phone", NEW_KEY) as phone:
            await (await phone.session("a new thread", "custom")).sync()
        async with client(tmp_path, "fresh", NEW_KEY) as fresh:
            assert await texts(await fresh.session("a new thread", "custom")) == ["first"]

    asyncio.run(scenario())


def test_it_opens_offline_too_before_and_after_it_has_heard_of_the_rotation(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        await rotated(tmp_path)
        for heard in (False, True):
            (tmp_path / "store").rename(tmp_path / "away")
            async with client(tmp_path, "phone") as phone:
                session = await phone.session("conv", "custom")
                assert await texts(session) == ["shared"]
                assert session.sync_state.status == "offline"
            async with client(tmp_path, "phone") as phone:
                session = await phone.session("conv", "custom", auto_load_on_init=False)
                assert session.sync_state.status == ("stopped" if heard else "synced")
            (tmp_path / "away").rename(tmp_path / "store")
            async with client(tmp_path, "phone") as phone:
                assert_stopped(await phone.session("conv", "custom"), pending=0)

    asyncio.run(scenario())


def test_a_program_that_still_has_the_old_key_goes_on_where_another_one_has_joined(
    tmp_path: Path,
) -> None:
    """And a --join that was cut off between the store and the credentials locks nobody out."""

    async def scenario() -> None:
        await rotated(tmp_path)
        async with client(tmp_path, "phone", NEW_KEY) as joined:
            await joined.check_key()
        for _ in range(2):
            async with client(tmp_path, "phone") as outdated:
                session = await outdated.session("conv", "custom")
                assert_stopped(session, pending=0)
                assert "shared" in await texts(session)
                with pytest.raises(KeyRotatedError):
                    await outdated.check_key()
        async with client(tmp_path, "phone", NEW_KEY) as joined:
            session = await joined.session("conv", "custom")
            assert session.sync_state.status == "synced"

    asyncio.run(scenario())


def test_a_key_that_was_never_right_opens_nothing_after_a_rotation_either(tmp_path: Path) -> None:
    async def refused(device: str, key: str) -> None:
        for pull in (True, False):
            async with client(tmp_path, device, key) as wrong:
                with pytest.raises(UnauthorizedError) as caught:
                    await wrong.session("conv", "custom", auto_load_on_init=pull, create=pull)
                assert not isinstance(caught.value, KeyRotatedError)

    async def scenario() -> None:
        await rotated(tmp_path)
        await refused("phone", OTHER_KEY)
        await refused("new", KEY)  # where it never opened anything
        async with client(tmp_path, "phone") as phone:
            assert_stopped(await phone.session("conv", "custom"), pending=0)
        await refused("phone", OTHER_KEY)
        shutil.rmtree(tmp_path / "store")
        async with client(tmp_path, "phone", OTHER_KEY) as wrong:
            with pytest.raises(UnauthorizedError):
                await wrong.session("conv", "custom", auto_load_on_init=False)

    asyncio.run(scenario())


def test_the_background_stops_and_says_why(tmp_path: Path) -> None:
    async def scenario() -> None:
        await rotated(tmp_path)
        async with client(tmp_path, "phone") as phone:
            session = await phone.session("conv", "custom", auto_load_on_init=False, auto_sync=0.1)
            for _ in range(200):
                if session.sync_state.status == "stopped":
                    break
                await asyncio.sleep(0.05)
            assert_stopped(session, pending=0)
            await add(session, "later")
            end = await session.close()
            assert (end.status, end.code, end.pending) == ("stopped", "KEY_ROTATED", 1)

    asyncio.run(scenario())


def test_a_client_takes_the_new_key_over_where_it_is(tmp_path: Path) -> None:
    async def scenario() -> None:
        await rotated(tmp_path)
        async with client(tmp_path, "phone") as phone:
            session = await phone.session("conv", "custom")
            await add(session, "written before")
            assert await phone.rotate_key(NEW_KEY) == 2
            await session.sync()
            assert session.sync_state.status == "synced"
            assert await texts(session) == ["shared", "under the new key", "written before"]

    asyncio.run(scenario())


def test_an_index_is_served_as_it_was_last_seen_and_says_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        await rotated(tmp_path)
        async with client(tmp_path, "phone") as phone:
            assert await phone.load_index("conv") == "conv"
            assert await phone.was_served_stale("conv")
            found = await phone.query("conv", "", QueryOptions(embedding=VECTOR))
            assert "shared" in [each.id for each in found.docs]
            with pytest.raises(KeyRotatedError):
                await phone.load_index("never here")

    asyncio.run(scenario())


def test_what_is_forgotten_meanwhile_names_the_command_that_joins(tmp_path: Path) -> None:
    async def scenario() -> None:
        await rotated(tmp_path)
        async with client(tmp_path, "phone") as phone:
            session = await phone.session("conv", "custom")
            with pytest.raises(ErasureIncompleteError) as caught:
                await session.forget(["shared"])
            assert "moss-local rotate-key --join" in (caught.value.hint or "")
        async with client(tmp_path, "phone", NEW_KEY) as phone:
            session = await phone.session("conv", "custom")
            await session.forget(["shared"])
            assert await texts(session) == ["under the new key"]

    asyncio.run(scenario())


@pytest.fixture
def outdated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """A device whose credentials hold the key of before a rotation; it has not heard of it yet."""
    monkeypatch.chdir(tmp_path)
    cli, other = Cli(), Cli().on("other")
    cli("init", "--project", "acme", "--store", "./shared").ok()
    cli("add", "conv", "before the rotation").ok()
    cli("push", "conv").ok()
    other("pull", "conv").ok()
    before = credentials_path().read_bytes()
    cli("rotate-key").ok()
    cli("add", "conv", "after it").ok()
    cli("push", "conv").ok()
    saved = load_credentials()
    assert saved is not None
    (tmp_path / "new-key").write_text(saved.project_key)
    credentials_path().write_bytes(before)
    return other


def test_every_command_goes_on_with_what_is_here_and_names_the_one_that_joins(
    outdated: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in (
        ("show", "conv"),
        ("query", "conv", "rotation"),
        ("show", "conv", "--local"),
        ("query", "conv", "rotation", "--local"),
        ("add", "conv", "written meanwhile"),
        ("add", "another", "a thread of its own"),
        ("status",),
        ("status", "conv"),
        ("sessions",),
        ("history", "conv"),
    ):
        done = outdated(*command).ok()
        assert "moss-local rotate-key --join" in done.stderr, command
        assert "key epoch 2" in done.stderr, command
    shown = outdated("show", "conv", "--json").ok().json()["documents"]
    assert [each["text"] for each in shown] == ["before the rotation", "written meanwhile"]
    for command in (("push", "conv"), ("pull", "conv"), ("sync", "--all"), ("doctor",)):
        refused = outdated(*command)
        assert refused.code != 0, command
        assert "moss-local rotate-key --join" in refused.stdout + refused.stderr, command
    (another, conv) = outdated("status", "--json").ok().json()["sessions"]
    assert (another["state"], another["pending"]) == ("stopped", 1)
    assert (conv["state"], conv["pending"]) == ("stopped", 1)
    assert "old key" in conv["reason"]

    monkeypatch.setenv("MOSS_NEW_PROJECT_KEY", (tmp_path / "new-key").read_text())
    outdated("rotate-key", "--join").ok()
    outdated("sync", "--all").ok()
    states = json.loads(outdated("status", "--json").ok().stdout)["sessions"]
    assert [(each["state"], each["reason"]) for each in states] == [("synced", None)] * 2
    fresh = outdated.on("fresh")
    assert [each["text"] for each in fresh("show", "conv", "--json").ok().json()["documents"]] == [
        "before the rotation",
        "after it",
        "written meanwhile",
    ]
    fresh("show", "another").ok()
