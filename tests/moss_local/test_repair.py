"""A store that was emptied, rolled back or damaged, put together again by what devices hold."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from moss_local import (
    DocumentInfo,
    ManifestMissingError,
    MossClient,
    NetworkError,
    NotFoundError,
    SessionIndex,
    StaleReadError,
    StoreChangedError,
)
from tests.keys import KEY
from tests.moss_local.bucket import Bucket
from tests.moss_local.cli_harness import Cli
from tests.moss_sync.world import noise

VECTOR = [1.0, 0.0, 0.0, 0.0]
SESSION = 'it\'s a "name"'
COMMAND = "moss-local repair 'it'\"'\"'s a \"name\"'"


Device = Callable[[str], MossClient]


@pytest.fixture
def device(bucket: Bucket, tmp_path: Path) -> Device:
    return lambda name: bucket.client(tmp_path / name)


async def opened(client: MossClient) -> SessionIndex:
    return await client.session(SESSION, "custom", auto_load_on_init=False)


async def add(session: SessionIndex, *ids: str) -> None:
    await session.add_docs([DocumentInfo(id, f"text of {id}", embedding=VECTOR) for id in ids])


async def ids(session: SessionIndex) -> list[str]:
    return [doc.id for doc in await session.get_docs()]


def test_after_the_bucket_was_emptied_two_devices_put_back_all_that_either_holds(
    bucket: Bucket, device: Device
) -> None:
    async def story() -> None:
        async with device("one") as a, device("two") as b:
            one, two = await opened(a), await opened(b)
            await add(one, "a")
            await one.push_index()
            await two.pull()
            await add(two, "b")
            await two.push_index()
            await add(one, "only on one")
            await one.delete_docs(["a"])
            await add(two, "only on two")
            await bucket.restore({})

            with pytest.raises((ManifestMissingError, NetworkError)) as caught:
                await one.push_index()
            assert "moss-local repair" in (caught.value.hint or "")
            report = await one.repair()
            assert report.keys_restored
            assert report.rebuilt
            assert "has no manifest" in (report.trouble or "")
            # What it had not pulled it cannot put back; who has it does so without being asked.
            assert await ids(one) == ["only on one"]
            await two.sync()
            await one.sync()
            everything = ["b", "only on one", "only on two"]
            assert await ids(one) == await ids(two) == everything
            async with device("fresh") as c:
                fresh = await opened(c)
                await fresh.pull()
                assert await ids(fresh) == everything
            again = await two.repair()
            assert (again.trouble, again.rebuilt, again.keys_restored) == (None, False, False)

    asyncio.run(story())


def test_two_devices_that_both_repair_an_emptied_bucket_agree(
    bucket: Bucket, device: Device
) -> None:
    async def story() -> None:
        async with device("one") as a, device("two") as b:
            one, two = await opened(a), await opened(b)
            await add(one, "a")
            await one.push_index()
            await two.pull()
            await add(two, "b")
            await bucket.restore({})
            await asyncio.gather(one.repair(), two.repair())
            for session in (one, two, one):
                await session.sync()
            assert await ids(one) == await ids(two) == ["a", "b"]

    asyncio.run(story())


def test_a_bucket_of_yesterday_is_named_with_the_command_that_mends_it(
    bucket: Bucket, device: Device
) -> None:
    async def story() -> None:
        async with device("one") as a, device("two") as b:
            one, two = await opened(a), await opened(b)
            await add(one, "a")
            await one.push_index()
            yesterday = await bucket.backup()
            await two.pull()
            await add(two, "b")
            await two.push_index()
            await bucket.restore(yesterday)
            with pytest.raises(StaleReadError) as caught:
                await two.pull()
            assert COMMAND in (caught.value.hint or "")
            report = await two.repair()
            assert report.trouble is not None
            assert not report.keys_restored
            await one.pull()
            assert await ids(one) == ["a", "b"]

    asyncio.run(story())


def test_a_lost_manifest_is_made_again_with_what_it_listed(bucket: Bucket, device: Device) -> None:
    async def story() -> None:
        async with device("one") as a, device("two") as b:
            one, two = await opened(a), await opened(b)
            await one.add_docs([DocumentInfo("a", noise(1, 9000), embedding=VECTOR)])
            await one.push_index()
            await two.pull()
            held = await bucket.backup()
            await bucket.restore({key: data for key, data in held.items() if "/m/" not in key})
            with pytest.raises(ManifestMissingError) as caught:
                await two.pull()
            assert COMMAND in (caught.value.hint or "")
            report = await two.repair()
            assert (report.blobs, report.lost_blobs) == (1, 0)
            await one.pull()
            assert await ids(one) == ["a"]

    asyncio.run(story())


@pytest.mark.parametrize("what", ["/m/", "/fmt"])
def test_a_damaged_manifest_or_key_blob_is_replaced(
    bucket: Bucket, device: Device, what: str
) -> None:
    async def story() -> None:
        async with device("one") as a, device("two") as b:
            one, two = await opened(a), await opened(b)
            await add(one, "a")
            await one.push_index()
            await two.pull()
            held = await bucket.backup()
            await bucket.restore(
                {key: b"\0" * len(data) if what in key else data for key, data in held.items()}
            )
            report = await two.repair()
            assert report.keys_restored == (what == "/fmt")
            assert report.rebuilt == (what == "/m/")
            await add(one, "b")
            await one.sync()
            async with device("fresh") as c:
                fresh = await opened(c)
                await fresh.pull()
                assert await ids(fresh) == ["a", "b"]

    asyncio.run(story())


def test_a_device_that_never_used_the_store_says_so_and_writes_nothing(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        store = tmp_path / "store"
        async with MossClient("p", KEY, store=store, data_dir=tmp_path / "d") as client:
            session = await opened(client)
            await add(session, "a")
            with pytest.raises(NotFoundError, match="remembers no keys of the store") as caught:
                await session.repair()
            assert "moss-local repair --all" in (caught.value.hint or "")
            assert not store.exists()

    asyncio.run(story())


def test_a_store_that_was_set_up_anew_is_left_alone(tmp_path: Path) -> None:
    bucket = Bucket(str(tmp_path / "store"))

    def device(name: str) -> MossClient:
        return bucket.client(tmp_path / name)

    async def story() -> None:
        async with device("one") as a:
            one = await opened(a)
            await add(one, "a")
            await one.push_index()
            await bucket.restore({})
            async with device("another") as b:
                other = await opened(b)
                await add(other, "b")
                await other.push_index()
            before = await bucket.backup()
            with pytest.raises(StoreChangedError, match="another repository"):
                await one.repair()
            assert await bucket.backup() == before

    asyncio.run(story())


def test_all_sessions_of_a_device_are_repaired_and_a_broken_one_stands_in_nobodys_way(
    tmp_path: Path,
) -> None:
    bucket = Bucket(str(tmp_path / "store"))

    async def story() -> None:
        async with bucket.client(tmp_path / "d") as client:
            for name in ("one", "two"):
                async with await client.session(name, "custom") as session:
                    await add(session, name)
                    await session.push_index()
            paths = [each.path for each in (await client.local_sessions()).sessions]
            (paths[0].parent / "broken.sqlite3").write_bytes(b"no database" * 100)
            await bucket.restore({})
            done = await client.repair_sessions()
            assert [(each.session, each.report.rebuilt) for each in done[1:]] == [
                ("one", True),
                ("two", True),
            ]
            assert done[0].error is not None
            assert [each.report.keys_restored for each in done[1:]] == [True, False]
            assert [each.name for each in (await client.stored_sessions()).sessions] == [
                "one",
                "two",
            ]

    asyncio.run(story())


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.chdir(tmp_path)
    made = Cli()
    made("init", "--project", "acme", "--store", "./shared").ok()
    made("add", "conv", "first", "--id", "t1").ok()
    made("push", "conv").ok()
    made.on("other")("pull", "conv").ok()
    return made


def test_the_command_says_what_was_wrong_and_what_is_back(cli: Cli) -> None:
    import shutil

    shutil.rmtree("shared")
    refused = cli("pull", "conv")
    assert refused.code == 5
    assert "moss-local repair --all" in refused.stderr
    done = cli("repair", "--all").ok()
    first, second, third = done.stdout.splitlines()
    assert first == "conv: the store lacked the project's keys; they are back"
    assert second.startswith("conv: the store has no manifest of session 'conv'")
    assert third.startswith("conv: put together anew; ")
    assert "nothing was wrong" in cli("repair", "conv").ok().stdout
    [fields] = cli("repair", "conv", "--force", "--json").ok().json()["repairs"]
    assert (fields["rebuilt"], fields["trouble"], fields["error"]) == (True, None, None)
    other = cli.on("other")
    other("add", "conv", "second").ok()
    other("sync", "conv").ok()
    texts = [each["text"] for each in cli("show", "conv", "--json").ok().json()["documents"]]
    assert texts == ["first", "second"]


def test_the_command_needs_sessions_and_says_which_it_does_not_find(cli: Cli) -> None:
    assert cli("repair").code == 2
    assert cli("repair", "conv", "--all").code == 2
    missing = cli("repair", "unknown")
    assert missing.code == 3
    assert "there is no session 'unknown'" in missing.stderr
