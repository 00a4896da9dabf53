"""What was forgotten is in no byte of the device's directory and in no blob of the store."""

from __future__ import annotations

import asyncio
from pathlib import Path
from unittest.mock import patch

import pytest

from moss_local import (
    DocumentInfo,
    ErasureIncompleteError,
    InvalidArgumentError,
    MossClient,
    NetworkError,
    OutcomeUnknownError,
    SessionIndex,
)
from moss_sync.stores.folder import FolderStore
from tests.keys import KEY
from tests.moss_local.bucket import Bucket
from tests.moss_local.cli_harness import Cli
from tests.moss_sync.world import noise

VECTOR = [1.0, 0.0, 0.0, 0.0]


async def opened(client: MossClient, name: str = "conv") -> SessionIndex:
    return await client.session(name, "custom", auto_load_on_init=False)


async def add(session: SessionIndex, id: str, text: str) -> None:
    await session.add_docs([DocumentInfo(id, text, embedding=VECTOR)])


def remains(directory: Path, needle: str) -> list[str]:
    found = needle.lower().encode()
    return [p.name for p in directory.rglob("*") if p.is_file() and found in p.read_bytes().lower()]


def holding(texts: set[str], needle: str) -> list[str]:
    return [text for text in texts if needle in text]


def test_a_forgotten_document_is_in_no_blob_and_in_no_byte_here(
    bucket: Bucket, tmp_path: Path
) -> None:
    async def story() -> None:
        async with bucket.client(tmp_path / "one") as a, bucket.client(tmp_path / "two") as b:
            one, two = await opened(a), await opened(b)
            for number in range(3):
                await add(one, "x", f"zebrafish {number} {noise(number, 9000)}")
                await add(one, f"other-{number}", noise(number, 3000))
                await one.push_index()
            await add(one, "x", "zebrafish in the manifest itself")
            await one.push_index()
            await two.pull()
            await add(two, "x", "zebrafish, written elsewhere and not yet pulled here")
            await two.push_index()
            await add(one, "y", "stays")
            assert holding(await bucket.texts(a), "zebrafish")
            assert remains(tmp_path / "one", "zebrafish")

            done = await one.forget(["x", "never was"])
            assert (done.documents, done.versions) == (1, 5)
            assert holding(await bucket.texts(a), "zebrafish") == []
            assert remains(tmp_path / "one", "zebrafish") == []
            assert [doc.id for doc in await one.get_docs()] == [
                "other-0",
                "other-1",
                "other-2",
                "y",
            ]
            await two.sync()
            assert [doc.id for doc in await two.get_docs()] == [
                "other-0",
                "other-1",
                "other-2",
                "y",
            ]
            assert holding(await bucket.texts(a), "zebrafish") == []
            async with bucket.client(tmp_path / "fresh") as c:
                fresh = await opened(c)
                await fresh.pull()
                assert len(await fresh.get_docs()) == 4

    asyncio.run(story())


def test_what_was_deleted_long_ago_is_forgotten_too(bucket: Bucket, tmp_path: Path) -> None:
    async def story() -> None:
        async with bucket.client(tmp_path / "one") as a:
            one = await opened(a)
            await add(one, "x", f"zebrafish {noise(1, 9000)}")
            await one.push_index()
            await one.delete_docs(["x"])
            await one.push_index()
            assert holding(await bucket.texts(a), "zebrafish")
            done = await one.forget(["x"])
            assert (done.documents, done.versions) == (0, 1)
            assert await bucket.texts(a) == {""}
            assert remains(tmp_path / "one", "zebrafish") == []
            # And what is not there at all is no error.
            assert (await one.forget(["x"])).versions == 0

    asyncio.run(story())


def test_without_the_store_it_is_gone_here_and_the_error_says_how_to_end_it(
    tmp_path: Path,
) -> None:
    bucket = Bucket(str(tmp_path / "store"))

    async def story() -> None:
        async with bucket.client(tmp_path / "one") as a:
            one = await opened(a)
            await add(one, "x y", "zebrafish small enough for the manifest")
            await add(one, "kept", "stays")
            await one.push_index()
            (tmp_path / "store").rename(tmp_path / "away")
            await add(one, "x y", "zebrafish again")
            with pytest.raises(ErasureIncompleteError, match="not yet from the store") as caught:
                await one.forget(["x y"])
            assert "moss-local forget conv 'x y'" in (caught.value.hint or "")
            assert caught.value.detail == "NETWORK"
            # Also not in the manifest that the device remembers.
            assert remains(tmp_path / "one", "zebrafish") == []
            assert [doc.id for doc in await one.get_docs()] == ["kept"]
            (tmp_path / "away").rename(tmp_path / "store")
            await one.push_index()  # goes on, and does not lose what was in that manifest
            async with bucket.client(tmp_path / "two") as b:
                two = await opened(b)
                await two.pull()
                assert [doc.id for doc in await two.get_docs()] == ["kept"]
            assert holding(await bucket.texts(a), "zebrafish")
            await one.forget(["x y"])
            assert holding(await bucket.texts(a), "zebrafish") == []

    asyncio.run(story())


def test_a_prepared_push_that_holds_it_is_prepared_anew(tmp_path: Path) -> None:
    """A push without an answer keeps its exact bytes in the file."""
    bucket = Bucket(str(tmp_path / "store"))

    async def lost(*_: object, **__: object) -> None:
        raise OutcomeUnknownError("no answer")

    async def story() -> None:
        async with bucket.client(tmp_path / "one") as a:
            one = await opened(a)
            await add(one, "first", "pushed")
            await one.push_index()
            await add(one, "x", "zebrafish")
            await add(one, "kept", "stays")
            with (
                patch.object(FolderStore, "compare_and_swap", lost),
                patch("moss_sync.exchange.MAX_ATTEMPTS", 1),
                pytest.raises(NetworkError),
            ):
                await one.push_index()
            assert remains(tmp_path / "one", "zebrafish")
            await one.forget(["x"])
            assert remains(tmp_path / "one", "zebrafish") == []
            assert holding(await bucket.texts(a), "zebrafish") == []
            assert {"pushed", "stays"} <= await bucket.texts(a)

    asyncio.run(story())


def test_a_session_that_was_never_pushed_forgets_as_well(tmp_path: Path) -> None:
    bucket = Bucket(str(tmp_path / "store"))

    async def story() -> None:
        async with bucket.client(tmp_path / "one") as a:
            one = await opened(a)
            await add(one, "x", "zebrafish")
            done = await one.forget(["x"])
            assert done.documents == 1
            assert remains(tmp_path, "zebrafish") == []

    asyncio.run(story())


def test_exports_and_snapshots_are_left_alone_and_bring_back_what_was_forgotten(
    tmp_path: Path,
) -> None:
    """As SECURITY.md says: they are files of their own, which only their owner deletes."""

    async def story() -> None:
        store, data = tmp_path / "store", tmp_path / "data"
        async with MossClient("p", KEY, store=store, data_dir=data) as client:
            session = await opened(client)
            await add(session, "x", "zebrafish")
            await session.push_index()
            await session.save_to_disk(tmp_path / "snapshots")
            await session.export(tmp_path / "copy.jsonl", "jsonl")
            await session.forget(["x"])
            assert remains(data, "zebrafish") == []
            await client.delete_session("conv")
            assert sorted(remains(tmp_path, "zebrafish")) == ["copy.jsonl", "session.moss"]
            again = await opened(client)
            await again.load_from_disk(tmp_path / "snapshots")
            assert again.doc_count == 1

    asyncio.run(story())


def test_a_wrong_id_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    async def story() -> None:
        async with MossClient("p", KEY, store="memory://wrong-id", data_dir=tmp_path) as client:
            session = await opened(client)
            await add(session, "x", "text")
            for ids in (["x", ""], "x"):
                with pytest.raises(InvalidArgumentError):
                    await session.forget(ids)
            assert session.doc_count == 1

    asyncio.run(story())


def test_the_command_asks_first_and_says_what_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cli = Cli()
    cli("init", "--project", "acme", "--store", "./shared").ok()
    cli("add", "conv", "zebrafish", "--id", "t1").ok()
    cli("push", "conv").ok()
    refused = cli("forget", "conv", "t1")
    assert (refused.code, "--yes" in refused.stderr) == (2, True)
    done = cli("forget", "conv", "t1", "--yes").ok()
    assert "no blob of the store holds them any more" in done.stdout
    again = cli("forget", "conv", "t1", "t2", "-y", "--json").ok().json()
    assert again == {"session": "conv", "documents": 0, "versions": 0, "moved_aside": 0}
    assert cli("forget", "unknown", "t1", "-y").code == 3
