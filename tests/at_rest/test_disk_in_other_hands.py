"""Encrypted files on a disk that somebody else can write to: what is put in their place is told."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from moss_local import FileCorruptError, KeyRotatedError, MossClient, UnauthorizedError
from moss_local.settings import credentials_path, load_credentials
from moss_local.storage.file_keys import KEY_FILE
from moss_local.storage.place import Secrets, find_place
from moss_local.storage.schema import PAGE_SIZE
from tests.at_rest.devices import Device, add, document, opened, texts
from tests.keys import KEY, NEW_KEY
from tests.moss_local.cli_harness import Cli


async def two_sessions(device: Device) -> tuple[Path, Path]:
    """Make two encrypted sessions of as many pages each; return their files."""
    for name in ("one", "two"):
        filled = [document(f"{name}-{n}", f"of {name}: " + "text " * 100) for n in range(40)]
        await add(device.client(at_rest=True), *filled, name=name)
    place = find_place(device.directory, Secrets(KEY))
    return place.path("one"), place.path("two")


async def read_all(device: Device, name: str) -> set[str]:
    """Return the texts of a session, or nothing where the file is found to be damaged."""
    from moss_local.storage.checkup import check_file

    place = find_place(device.directory, Secrets(KEY))
    try:
        file = place.open(name)
    except FileCorruptError:
        return set()
    try:
        with file.reading() as conn:
            found = {text for (text,) in conn.execute("SELECT text FROM document")}
            assert check_file(conn), "a page of another file stands in it, and nobody says so"
        return found
    except FileCorruptError:
        return set()
    finally:
        file.close()


def test_a_page_of_one_file_does_not_open_in_another(tmp_path: Path) -> None:
    device = Device(tmp_path)

    async def story() -> None:
        one, two = await two_sessions(device)
        whole, other = two.read_bytes(), one.read_bytes()
        pages = min(len(whole), len(other)) // PAGE_SIZE
        assert pages > 10
        for page in range(pages):
            start, end = page * PAGE_SIZE, (page + 1) * PAGE_SIZE
            two.write_bytes(whole[:start] + other[start:end] + whole[end:])
            assert not any("of one" in text for text in await read_all(device, "two")), page
        two.write_bytes(whole)
        assert len(await texts(device.client(), "two")) == 40

    asyncio.run(story())


def test_a_whole_file_or_log_in_the_place_of_another_does_not_open(tmp_path: Path) -> None:
    device = Device(tmp_path)

    async def story() -> None:
        one, two = await two_sessions(device)
        whole = two.read_bytes()
        shutil.copyfile(one, two)
        with pytest.raises(FileCorruptError, match="is damaged"):
            await texts(device.client(), "two")
        two.write_bytes(whole)
        async with device.client() as client, await opened(client, "one") as session:
            await session.add_docs([document("late", "of one, in the log")])
            log = one.with_name(one.name + "-wal").read_bytes()
        assert log
        two.with_name(two.name + "-wal").write_bytes(log)
        assert not any("of one" in text for text in await read_all(device, "two"))

    asyncio.run(story())


def test_a_session_that_is_made_anew_goes_by_its_own_name(tmp_path: Path) -> None:
    device = Device(tmp_path)

    async def story() -> None:
        one, two = await two_sessions(device)
        assert one.name.split("_")[:2] == two.name.split("_")[:2]
        assert one.name.startswith("enc_")
        async with device.client() as client:
            await client.decrypt_at_rest()
            await client.encrypt_at_rest()
        again = find_place(device.directory, Secrets(KEY)).path("one")
        assert again.name != one.name  # under a new key, and told from a file of before
        assert len(await texts(device.client(), "one")) == 40

    asyncio.run(story())


def removed(key_file: Path) -> None:
    key_file.unlink()


def emptied(key_file: Path) -> None:
    key_file.write_bytes(b"")


def cut(key_file: Path) -> None:
    key_file.write_bytes(key_file.read_bytes()[:100])


def of_another_device(key_file: Path) -> None:
    """Of the same project and key: it opens, and holds the key of other files."""
    other = Device(key_file.parents[2] / "another")
    asyncio.run(add(other.client(at_rest=True), document("a", "alpha")))
    shutil.copyfile(other.directory / KEY_FILE, key_file)


@pytest.mark.parametrize("spoil", [removed, emptied, cut, of_another_device])
@pytest.mark.parametrize("at_rest", [None, True])
def test_a_key_file_that_is_gone_damaged_or_of_others_is_an_error_and_nothing_is_begun_anew(
    tmp_path: Path, spoil: Callable[[Path], None], at_rest: bool | None
) -> None:
    device = Device(tmp_path)
    asyncio.run(two_sessions(device))
    key_file = device.directory / KEY_FILE
    right = key_file.read_bytes()
    spoil(key_file)
    before = {path: data for path, data in device.everything().items() if path.suffix != ".lock"}

    async def refused() -> None:
        async with device.client(at_rest=at_rest) as client:
            for attempt in (
                opened(client, "one"),
                opened(client, "a new one"),
                client.local_sessions(),
                client.encrypt_at_rest(),
                client.decrypt_at_rest(),
                client.change_at_rest_key("another key"),
            ):
                with pytest.raises(FileCorruptError, match=KEY_FILE) as caught:
                    await attempt
                assert "put it back from a backup" in (caught.value.hint or "")

    asyncio.run(refused())
    after = {path: data for path, data in device.everything().items() if path.suffix != ".lock"}
    assert after == before
    key_file.write_bytes(right)
    assert len(asyncio.run(texts(device.client(), "one"))) == 40


def test_what_repairs_have_left_does_not_open_without_the_key_file_either(tmp_path: Path) -> None:
    device = Device(tmp_path)
    one, two = asyncio.run(two_sessions(device))
    two.unlink()
    one.rename(one.with_name(one.name + ".damaged-1"))
    (device.directory / KEY_FILE).unlink()
    with pytest.raises(FileCorruptError, match="is gone"):
        asyncio.run(texts(device.client(), "one"))


def test_an_older_complete_copy_that_was_put_back_is_told_at_opening(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    device = Device(tmp_path)

    async def push(text: str) -> None:
        async with device.client(at_rest=True) as client, await opened(client) as session:
            await session.add_docs([document(text, text)])
            await session.push_index()

    async def story() -> None:
        await push("first")
        (path,) = device.session_files()
        yesterday = path.read_bytes()
        await push("second")
        async with device.client() as client, await opened(client) as session:
            await session.add_docs([document("only here", "only here")])
        for beside in path.parent.glob(path.name + "*"):
            beside.unlink()
        path.write_bytes(yesterday)
        async with device.client() as client, await client.session("conv", "custom") as session:
            report = session.last_report
            assert report is not None
            assert report.older_copy
            assert {each.id for each in await session.get_docs()} == {"first", "second"}
            assert not (await session.sync()).older_copy  # said once, by the exchange that saw it
        assert "is an older copy" in caplog.text

    asyncio.run(story())


def test_after_a_rotation_elsewhere_the_old_key_still_opens_the_files(tmp_path: Path) -> None:
    device = Device(tmp_path)

    async def story() -> None:
        await add(device.client(at_rest=True), document("a", "alpha"))
        async with device.client() as client, await opened(client) as session:
            await session.push_index()
        store = device.root / "store"
        async with MossClient(
            device.project, KEY, store=store, data_dir=tmp_path / "laptop"
        ) as laptop:
            await laptop.rotate_key(NEW_KEY)
            session = await laptop.session("conv", "custom")
            await session.add_docs([document("b", "beta")])
            await session.push_index()
        for _ in range(2):
            async with device.client() as client:
                session = await client.session("conv", "custom")
                assert session.sync_state.code == KeyRotatedError.default_code
                assert "a" in {each.id for each in await session.get_docs()}
                await session.add_docs([document("c", "gamma")])
        with pytest.raises(UnauthorizedError):
            await opened(device.client(NEW_KEY))  # the files have not heard of it yet
        async with device.client() as client:
            assert await client.rotate_key(NEW_KEY) == 2
        async with device.client(NEW_KEY) as client:
            session = await client.session("conv", "custom")
            await session.sync()
            assert session.sync_state.status == "synced"
            assert {each.id for each in await session.get_docs()} == {"a", "b", "c"}
        with pytest.raises(UnauthorizedError):
            await opened(device.client())

    asyncio.run(story())


def test_the_command_that_joins_takes_the_files_along_whenever_it_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cli, phone = Cli(), Cli().on("phone")
    cli("init", "--project", "insurance", "--store", "./shared").ok()
    cli("add", "conv", "shared").ok()
    cli("push", "conv").ok()
    phone("pull", "conv").ok()
    phone("at-rest", "on").ok()
    before = credentials_path().read_bytes()
    cli("rotate-key", "--rewrite-now").ok()
    saved = load_credentials()
    assert saved is not None
    credentials_path().write_bytes(before)
    assert "rotate-key --join" in phone("show", "conv").ok().stderr
    phone("add", "conv", "written meanwhile").ok()
    monkeypatch.setenv("MOSS_NEW_PROJECT_KEY", saved.project_key)
    for cut_at in ("moss_local.storage.place.rewrap", "moss_local.settings.save_credentials"):
        with monkeypatch.context() as crash:

            def dies(*_: object, **__: object) -> None:
                raise KeyboardInterrupt

            crash.setattr(cut_at, dies)
            assert phone("rotate-key", "--join").code != 0
        assert "rotate-key --join" in phone("show", "conv", "--local").ok().stderr
    phone("rotate-key", "--join").ok()
    phone("sync", "conv").ok()
    shown = phone("show", "conv", "--json").ok().json()["documents"]
    assert [each["text"] for each in shown] == ["shared", "written meanwhile"]
