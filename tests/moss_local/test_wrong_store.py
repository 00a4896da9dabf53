"""Another store is named than the one of a session: nothing is done, and nothing is promised.

Above all an empty one: it says nothing of itself, and a command that is typed without MOSS_STORE
meets the one in the data directory.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from moss_local import (
    DocumentInfo,
    ErasureIncompleteError,
    FileCorruptError,
    MossClient,
    MossError,
    NotInLogModeError,
    SessionIndex,
    StoreChangedError,
)
from tests.keys import KEY
from tests.moss_local.cli_harness import Cli


def client(root: Path, store: str, device: str = "one") -> MossClient:
    return MossClient("p", KEY, store=root / store, data_dir=root / device)


async def opened(client: MossClient) -> SessionIndex:
    return await client.session("conv", "custom", warm_up=False)


async def fill(root: Path, *, again: str = "") -> None:
    async with client(root, "shared") as one, await opened(one) as session:
        await session.add_docs([DocumentInfo("a", "first", None, [1.0, 2.0])])
        await session.push_index()
        await session.add_docs([DocumentInfo("b", "not pushed", None, [1.0, 2.0])])
    async with client(root, "shared", "two") as two, await opened(two) as session:
        await session.add_docs([DocumentInfo("a", "corrected by two", None, [1.0, 2.0])])
        await session.push_index()


async def texts(root: Path, device: str) -> dict[str, str]:
    async with client(root, "shared", device) as there, await opened(there) as session:
        await session.sync()
        return {each.id: each.text for each in await session.get_docs()}


@pytest.mark.parametrize("verb", ["pull", "push", "sync", "repair", "forget", "delete"])
def test_an_empty_store_is_refused_and_nothing_is_founded_in_it(tmp_path: Path, verb: str) -> None:
    asyncio.run(fill(tmp_path))

    async def refused() -> None:
        async with client(tmp_path, "typo") as one:
            session = await opened(one)
            assert session.sync_state.status in ("stopped", "pending")
            if verb == "repair":
                done = await one.repair_session("conv")
                assert done.error is not None
                raise done.error
            if verb == "delete":
                await session.close()
                await one.delete_session("conv")
            elif verb == "forget":
                await session.forget(["nosuch"])
            else:
                await {"pull": session.pull, "push": session.push_index, "sync": session.sync}[
                    verb
                ]()

    expected: type[MossError] = ErasureIncompleteError if verb == "forget" else MossError
    with pytest.raises(expected) as told:
        asyncio.run(refused())
    if verb != "repair":
        assert "another store" in str(told.value)
    assert not list((tmp_path / "typo").rglob("*"))
    everything = {"a": "corrected by two", "b": "not pushed"}
    assert asyncio.run(texts(tmp_path, "one")) == everything
    assert asyncio.run(texts(tmp_path, "two")) == everything


def test_doctor_says_so_and_a_copy_of_another_session_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cli = Cli(("--data-dir", "one"))
    cli("init", "--store", "./shared").ok()
    for name in ("conv", "other"):
        cli("add", name, "text").ok()
        cli("push", name).ok()
    checks = cli("doctor", "--json").ok().json()["checks"]
    assert {each["todo"] for each in checks} == {None}  # nothing is wrong
    monkeypatch.setenv("MOSS_STORE", str(tmp_path / "typo"))
    told = cli("doctor")
    assert told.code == 1
    assert told.stdout.count("has been exchanged with another store") == 2
    monkeypatch.delenv("MOSS_STORE")
    paths = {path.name.split("-")[0]: path for path in Path("one").rglob("*.sqlite3")}
    paths["conv"].write_bytes(paths["other"].read_bytes())
    assert "holds session 'other'" in cli("doctor", "--local").stdout
    status = cli("status", "--json").ok().json()
    assert [each["name"] for each in status["sessions"]] == ["other"]
    assert [each["code"] for each in status["unreadable"]] == ["DESERIALIZATION"]
    assert len(cli("sessions", "--json", "--local").ok().json()["unreadable"]) == 1


@pytest.mark.parametrize("what", ["key", "fmt", "probe"])
@pytest.mark.parametrize("damage", [b"", b"garbage", "a flipped bit"])
def test_what_is_remembered_of_a_store_is_asked_for_anew_where_it_is_damaged(
    tmp_path: Path, what: str, damage: bytes | str
) -> None:
    asyncio.run(fill(tmp_path))
    (path,) = (tmp_path / "one").rglob(f"repository-{what}*")
    whole = path.read_bytes()
    places = range(0, len(whole), 7) if damage == "a flipped bit" else [0]
    for place in places:
        changed = bytearray(whole)
        changed[place] ^= 1
        path.write_bytes(damage if isinstance(damage, bytes) else changed)
        held = asyncio.run(texts(tmp_path, "one"))
        assert held == {"a": "corrected by two", "b": "not pushed"}, place


def test_a_changed_text_is_found_and_travels_to_nobody(tmp_path: Path) -> None:
    asyncio.run(fill(tmp_path))
    (path,) = (tmp_path / "one").rglob("*.sqlite3")
    whole = bytearray(path.read_bytes())
    whole[whole.index(b"not pushed")] ^= 1
    path.write_bytes(whole)

    async def pushed() -> None:
        async with client(tmp_path, "shared") as one, await opened(one) as session:
            with pytest.raises(FileCorruptError, match="damaged"):
                await session.push_index()

    async def repaired() -> None:
        async with client(tmp_path, "shared") as one:
            done = await one.repair_session("conv")
            assert done.error is None
            assert done.salvage is not None
            assert done.salvage.trouble == ("not what was written: 1 document",)
            assert (done.salvage.written, done.salvage.unreadable) == (0, 1)

    asyncio.run(pushed())
    asyncio.run(repaired())
    assert asyncio.run(texts(tmp_path, "two")) == {"a": "corrected by two"}


def test_a_log_whose_key_file_has_not_arrived_yet_is_pushed_to(tmp_path: Path) -> None:
    """Its repository follows from the key: that the store does not show it says nothing."""

    def log() -> MossClient:
        return MossClient("p", KEY, store=tmp_path / "log", data_dir=tmp_path / "one", commit="log")

    async def story() -> None:
        async with log() as one, await opened(one) as session:
            await session.add_docs([DocumentInfo("a", "first", None, [1.0, 2.0])])
            await session.push_index()
            await session.add_docs([DocumentInfo("b", "second", None, [1.0, 2.0])])
        for path in [*(tmp_path / "one").rglob("repository-*"), *(tmp_path / "log").rglob("fmt")]:
            path.unlink()
        async with log() as one, await opened(one) as session:
            await session.push_index()
            assert session.sync_state.pending == 0

    asyncio.run(story())


def test_the_new_key_opens_also_where_what_is_remembered_is_damaged(tmp_path: Path) -> None:
    async def story() -> None:
        await fill(tmp_path)
        async with client(tmp_path, "shared", "two") as two:
            await two.rotate_key("new")
        (path,) = (tmp_path / "one").rglob("repository-fmt*")
        path.write_bytes(b"garbage")
        async with MossClient(
            "p", "new", store=tmp_path / "shared", data_dir=tmp_path / "one"
        ) as one:
            session = await opened(one)
            assert await session.sync()

    asyncio.run(story())


def test_forgetting_in_a_log_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    async def story() -> None:
        async with MossClient(
            "p", "k", store=tmp_path / "log", data_dir=tmp_path / "one", commit="log"
        ) as one:
            session = await opened(one)
            await session.add_docs([DocumentInfo("a", "first", None, [1.0, 2.0])])
            await session.push_index()
            with pytest.raises(NotInLogModeError):
                await session.forget(["a"])
            assert [each.id for each in await session.get_docs()] == ["a"]

    asyncio.run(story())


def test_what_nobody_can_tell_of_a_damaged_file_is_null(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cli = Cli(("--data-dir", "one"))
    cli("init", "--store", "./shared").ok()
    cli("add", "lonely", "text").ok()
    (path,) = Path("one").rglob("*.sqlite3")
    path.write_bytes(bytes(100) + path.read_bytes()[100:])
    done = cli("repair", "--all", "--json")
    assert done.json()["repairs"][0]["session"] is None
    assert "moss-local repair SESSION" in done.stderr
    assert cli("delete", "lonely", "--local-only", "-y", "--json").ok().json()["lost"] is None


@pytest.mark.parametrize("state", ["readable", "gone"])
def test_a_damaged_file_is_not_put_in_order_from_another_store(tmp_path: Path, state: str) -> None:
    asyncio.run(fill(tmp_path))
    (path,) = (tmp_path / "one").rglob("*.sqlite3")
    whole = bytearray(path.read_bytes())
    whole[:100] = bytes(100)
    if state == "gone":
        page = whole.index(b"conv") // 2048
        whole[page * 2048 : (page + 1) * 2048] = bytes(2048)
    path.write_bytes(whole)

    async def repair() -> MossError | None:
        async with client(tmp_path, "typo") as one:
            return (await one.repair_session("conv")).error

    error = asyncio.run(repair())
    if state == "readable":
        assert isinstance(error, StoreChangedError)
        assert path.read_bytes() == whole

        async def rightly() -> None:
            async with client(tmp_path, "shared") as one:
                assert (await one.repair_session("conv")).error is None

        asyncio.run(rightly())
        assert asyncio.run(texts(tmp_path, "one")) == {"a": "corrected by two", "b": "not pushed"}
        return

    async def held() -> tuple[set[str], set[str]]:
        async with client(tmp_path, "typo") as one:
            session = await one.session("conv", "custom", auto_load_on_init=False, warm_up=False)
            aside = {each.id for each in await session.quarantined()}
            return {each.id for each in await session.get_docs()}, aside

    # Whose it is cannot be told: what was pushed somewhere is not written again as if it were new.
    assert asyncio.run(held()) == ({"b"}, {"a"})
