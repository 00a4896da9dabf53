"""Sessions in files: exported and taken over, saved and gone back to, by Python and by hand."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import uuid4

import numpy as np
import pytest

from moss_local import (
    DiskFullError,
    DocumentInfo,
    InvalidArgumentError,
    ModelMismatchError,
    ModelNotFoundError,
    MossClient,
    NotFoundError,
    PermissionDeniedError,
    QueryOptions,
    SessionIndex,
    SnapshotCorruptError,
)
from moss_local.snapshots import SNAPSHOT_FILE, folder_name, snapshot_path
from moss_local.storage.checkup import check_file
from moss_local.storage.connection import connect
from moss_local.storage.paths import file_name
from tests.keys import KEY
from tests.moss_local.cli_harness import Cli
from tests.tiny_model import write_tiny_model

DOCS = [
    DocumentInfo("b", "cat sat mat", {"who": "Ann", "n": "1"}, None, '{"x":1}'),
    DocumentInfo("a", "refund money ünï 返金", None),
    DocumentInfo("c", "kitten mat", {}, None, ""),
]


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "models"
    write_tiny_model(directory / "tiny")
    write_tiny_model(directory / "small", id="small", dim=4, graph_dim=4)
    monkeypatch.setenv("MOSS_MODELS_DIR", str(directory))
    return directory


def client(place: Path, **options: Any) -> MossClient:
    options = {"store": str(place.parent / "store")} | options
    return MossClient("p", KEY, data_dir=place, **options)


def elsewhere(place: Path) -> MossClient:
    """A device that meets nobody else."""
    return client(place, store=f"memory://{uuid4().hex}")


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


async def contents(session: SessionIndex) -> list[tuple[Any, ...]]:
    """Return what there is, in the order in which it was written."""
    return [(each.id, each.text, each.metadata, each.payload) for each in await session.thread()]


def own(id: str, *vector: float) -> DocumentInfo:
    return DocumentInfo(id, f"text of {id}", None, list(vector))


GIVEN = [(doc.id, doc.text, doc.metadata, doc.payload) for doc in DOCS]


# -- exports ---------------------------------------------------------------------------------


class NamedInBytes:
    """As an entry of os.scandir(b"...") is."""

    def __fspath__(self) -> bytes:
        return b"x"


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("", "is empty"),
        ("a\0b", r"'a\\x00b' holds a NUL character"),
        (Path("a\0b"), r"'a\\x00b' holds a NUL character"),
        (NamedInBytes(), "is of bytes"),
        ("/tmp/\ud800/x", r"'/tmp/\\ud800/x' holds half of a surrogate pair at character 5"),
        (b"x", "type bytes, not a path"),
        (3, "type int, not a path"),
        (None, "type NoneType, not a path"),
    ],
)
def test_a_path_that_is_none_is_refused_by_name(
    path: Any, named: str, tmp_path: Path, models: Path
) -> None:
    async def story() -> None:
        async with client(tmp_path / "one") as one:
            session = await one.session("conv", "tiny", warm_up=False)
            calls = [session.export, session.import_from, one.import_session]
            if path is not None:  # which there is the folder of the client
                calls += [session.save_to_disk, session.load_from_disk]
            for call in calls:
                with pytest.raises(InvalidArgumentError, match=named):
                    await call(path)

    run(story)


@pytest.mark.parametrize("path", ["/", ".", "..", "./", Path()])
def test_a_folder_is_no_file_to_write_or_read(
    path: Any, tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    async def story() -> None:
        async with client(tmp_path / "one") as one:
            session = await one.session("conv", "tiny", warm_up=False)
            for call in (session.export, session.import_from, one.import_session):
                with pytest.raises(InvalidArgumentError, match="is a folder") as refused:
                    await call(path)
                assert refused.value.hint == "name a file in it"

    run(story)


def test_a_missing_file_is_named_as_one(tmp_path: Path, models: Path) -> None:
    async def story() -> None:
        async with client(tmp_path / "one") as one:
            session = await one.session("conv", "tiny", warm_up=False)
            for call in (session.import_from, one.import_session):
                with pytest.raises(NotFoundError, match=r"there is no file .*nosuch") as missing:
                    await call(tmp_path / "nosuch.moss")
                assert "folder that is there" not in str(missing.value.hint)

    run(story)


def test_an_exported_session_is_the_same_elsewhere_in_the_same_order_without_the_model(
    tmp_path: Path, models: Path
) -> None:
    async def story() -> None:
        async with (
            client(tmp_path / "one") as one,
            elsewhere(tmp_path / "two") as b,
        ):
            session = await one.session("conv", "tiny", warm_up=False)
            await session.add_docs(DOCS)
            await session.delete_docs(["c"])
            await session.add_docs(DOCS[2:])
            done = await session.export(tmp_path / "conv.moss")
            assert (done.documents, done.path) == (3, str(tmp_path / "conv.moss"))
            assert done.size == (tmp_path / "conv.moss").stat().st_size
            os.rename(models / "tiny", models / "gone")
            taken = await b.import_session(tmp_path / "conv.moss")
            assert (taken.name, taken.model_id, await contents(taken)) == ("conv", "tiny", GIVEN)
            assert taken.unembedded == 0
            assert taken.sync_state.pending == 3
            os.rename(models / "gone", models / "tiny")
            [found] = (await taken.query("mat cat", QueryOptions(top_k=1))).docs
            assert (found.id, found.payload) == ("b", '{"x":1}')
            assert found.score == pytest.approx(
                (await session.query("mat cat", QueryOptions(top_k=1))).docs[0].score, abs=1e-3
            )

    run(story)
    assert stat.S_IMODE((tmp_path / "conv.moss").stat().st_mode) == 0o600


def test_vectors_of_one_s_own_travel_exactly(tmp_path: Path) -> None:
    vectors = np.random.default_rng(1).normal(size=(50, 6)).astype(np.float32)
    docs = [own(f"{n}", *map(float, vector)) for n, vector in enumerate(vectors)]

    async def story() -> None:
        async with (
            client(tmp_path / "one") as one,
            elsewhere(tmp_path / "two") as b,
        ):
            session = await one.session("conv", "custom")
            await session.add_docs(docs)
            await session.export(tmp_path / "x")
            await session.export(tmp_path / "x.jsonl", "jsonl")
            for path, name in ((tmp_path / "x", "whole"), (tmp_path / "x.jsonl", "lines")):
                taken = await b.session(name, "custom")
                assert await taken.import_from(path) == (50, 0)
                for place in (0, 49):
                    options = QueryOptions(embedding=vectors[place].tolist(), alpha=1.0, top_k=50)
                    mine, theirs = [await each.query("", options) for each in (session, taken)]
                    assert [(hit.id, hit.score) for hit in mine.docs] == [
                        (hit.id, hit.score) for hit in theirs.docs
                    ]

    run(story)


def test_taking_over_again_changes_nothing_and_replaces_what_differs(
    tmp_path: Path, models: Path
) -> None:
    async def story() -> None:
        async with client(tmp_path / "one") as one:
            session = await one.session("conv", "tiny", warm_up=False)
            await session.add_docs(DOCS)
            await session.export(tmp_path / "x")
            await session.push_index()
            assert await session.import_from(tmp_path / "x") == (0, 0)
            assert session.sync_state.pending == 0
            await session.add_docs([DocumentInfo("a", "edited"), DocumentInfo("d", "other")])
            await session.delete_docs(["b"])
            assert await session.import_from(tmp_path / "x") == (1, 1)
            assert sorted(await contents(session)) == sorted([*GIVEN, ("d", "other", None, None)])
            assert [v.text for v in await session.history("a")][1] == "edited"

    run(story)


def test_json_lines_are_what_people_and_add_docs_read(tmp_path: Path, models: Path) -> None:
    async def story() -> None:
        async with client(tmp_path / "one") as one:
            session = await one.session("conv", "tiny", warm_up=False)
            await session.add_docs(DOCS)
            await session.export(tmp_path / "x.jsonl", "jsonl")
            lines = (tmp_path / "x.jsonl").read_text("utf-8").splitlines()
            assert json.loads(lines[0]) == {
                "id": "b",
                "text": "cat sat mat",
                "metadata": {"who": "Ann", "n": "1"},
                "payload": '{"x":1}',
            }
            assert "返金" in lines[1]
            other = await one.session("other", "tiny", warm_up=False)
            assert await other.add_docs(tmp_path / "x.jsonl") == (3, 0)
            assert await contents(other) == GIVEN
            with pytest.raises(InvalidArgumentError, match="'csv'"):
                await session.export(tmp_path / "x.csv", "csv")
            assert not (tmp_path / "x.csv").exists()

    run(story)


def test_between_two_models_the_vectors_are_made_anew_and_own_ones_are_refused(
    tmp_path: Path, models: Path
) -> None:
    async def story() -> None:
        async with client(tmp_path / "one") as one:
            session = await one.session("conv", "tiny", warm_up=False)
            await session.add_docs(DOCS)
            await session.export(tmp_path / "x")
            small = await one.session("small", "small", warm_up=False)
            assert await small.import_from(tmp_path / "x") == (3, 0)
            assert (small.model_id, small.unembedded) == ("small", 0)
            [found] = (await small.query("kitten", QueryOptions(alpha=1.0, top_k=1))).docs
            assert found.score > 0.1

            mine = await one.session("mine", "custom")
            await mine.add_docs([own("1", 1.0, 0.0)])
            with pytest.raises(ModelMismatchError, match="'custom', not of 'tiny'"):
                await mine.import_from(tmp_path / "x")
            await mine.export(tmp_path / "y")
            with pytest.raises(ModelMismatchError, match="'small', not of 'custom'"):
                await small.import_from(tmp_path / "y")
            three = await one.session("three", "custom")
            await three.add_docs([own("1", 1.0, 0.0, 0.0)])
            with pytest.raises(InvalidArgumentError, match=r"2 dimensions.* has 3"):
                await three.import_from(tmp_path / "y")
            assert (mine.doc_count, small.doc_count, three.doc_count) == (1, 3, 1)

    run(story)


def test_where_vectors_must_be_made_and_the_model_is_not_here_nothing_is_written(
    tmp_path: Path, models: Path
) -> None:
    async def story() -> None:
        async with client(tmp_path / "one") as one:
            session = await one.session("conv", "tiny", warm_up=False)
            await session.add_docs(DOCS)
            await session.export(tmp_path / "x")
            small = await one.session("small", "small", warm_up=False)
            for file in (models / "small").iterdir():
                if file.name.endswith(".onnx"):
                    file.unlink()
            with pytest.raises(ModelNotFoundError):
                await small.import_from(tmp_path / "x")
            assert small.doc_count == 0

    run(story)


def test_a_damaged_file_changes_nothing_and_leaves_no_empty_session(
    tmp_path: Path, models: Path
) -> None:
    async def story() -> None:
        async with client(tmp_path / "one") as one:
            session = await one.session("conv", "tiny", warm_up=False)
            await session.add_docs(DOCS)
            await session.export(tmp_path / "x")
            good = (tmp_path / "x").read_bytes()
            await session.delete_docs(["a"])
            before = await contents(session)
            for place in range(20, len(good), 7):
                damaged = bytearray(good)
                damaged[place] ^= 0x40
                (tmp_path / "x").write_bytes(damaged)
                with pytest.raises(SnapshotCorruptError):
                    await session.import_from(tmp_path / "x")
            with pytest.raises(SnapshotCorruptError):
                await one.import_session(tmp_path / "x", "new")
            assert await contents(session) == before
            assert [row.name for row in (await one.local_sessions()).sessions] == ["conv"]
            with pytest.raises(NotFoundError, match="nowhere"):
                await session.import_from(tmp_path / "nowhere")
            with pytest.raises(NotFoundError, match="no-folder"):
                await session.export(tmp_path / "no-folder" / "x")

    run(story)


# -- snapshots -------------------------------------------------------------------------------


def test_going_back_to_a_snapshot_is_edits_that_are_pushed_and_kept_in_the_history(
    tmp_path: Path, models: Path
) -> None:
    async def story() -> None:
        async with client(tmp_path / "one") as a, client(tmp_path / "two") as b:
            one = await a.session("conv", "tiny", warm_up=False)
            await one.add_docs(DOCS)
            await one.push_index()
            await one.save_to_disk(tmp_path / "snapshots")
            await one.add_docs([DocumentInfo("a", "worse"), DocumentInfo("d", "more")])
            await one.delete_docs(["b"])
            await one.push_index()
            assert await one.load_from_disk(tmp_path / "snapshots") == 3
            assert sorted(await contents(one)) == sorted(GIVEN)
            assert [v.text for v in await one.history("a")][1] == "worse"
            assert one.sync_state.pending == 3  # two edits and a deletion; "c" has not changed
            await one.push_index()
            two = await b.session("conv", warm_up=False)
            assert sorted(await contents(two)) == sorted(GIVEN)

    run(story)
    assert (tmp_path / "snapshots" / "conv" / SNAPSHOT_FILE).is_file()


def test_a_session_that_nobody_else_has_takes_the_model_of_the_snapshot(
    tmp_path: Path, models: Path
) -> None:
    async def story() -> None:
        async with client(tmp_path / "one") as a, elsewhere(tmp_path / "two") as b:
            one = await a.session("conv", "small", warm_up=False)
            await one.add_docs(DOCS)
            await one.save_to_disk(tmp_path)
            two = await b.session("conv", warm_up=False)
            with patch.object(MossClient, "DEFAULT_MODEL_ID", "tiny"):
                await two.load_from_disk(tmp_path)
            assert (two.model_id, two.doc_count) == ("small", 3)
            await two.delete_docs(["a", "b", "c"])

        async with elsewhere(tmp_path / "three") as c:
            three = await c.session("conv", "tiny", warm_up=False)
            await three.add_docs([DocumentInfo("z", "cat")])
            await three.close()
            three = await c.session("conv", warm_up=False)  # no model named: it follows
            assert (three.model_id, (await three.query("cat")).docs[0].id) == ("tiny", "z")
            assert await three.load_from_disk(tmp_path) == 3
            assert (three.model_id, sorted(await contents(three))) == ("small", sorted(GIVEN))
            assert three.unembedded == 0
            [found] = (await three.query("cat sat", QueryOptions(alpha=1.0, top_k=1))).docs
            assert found.id == "b"

    run(story)
    for path in tmp_path.rglob("*.sqlite3"):
        conn = connect(path, durability="full", busy_ms=1000)
        assert check_file(conn) == []
        conn.close()


def test_missing_damaged_and_others_snapshots_are_named_and_change_nothing(
    tmp_path: Path, models: Path
) -> None:
    async def story() -> None:
        async with client(tmp_path / "one") as a:
            one = await a.session("conv", "tiny", warm_up=False)
            await one.add_docs(DOCS)
            with pytest.raises(SnapshotCorruptError, match="no snapshot of session 'conv'") as no:
                await one.load_from_disk(tmp_path)
            assert no.value.code == "DESERIALIZATION"
            await one.save_to_disk(tmp_path)
            path = snapshot_path(tmp_path, "conv")
            good = path.read_bytes()
            path.write_bytes(good[:-1])
            with pytest.raises(SnapshotCorruptError, match="ends too early"):
                await one.load_from_disk(tmp_path)
            path.write_bytes(good)
            other = await a.session("other", "tiny", warm_up=False)
            path.rename(path.with_name("aside"))
            await other.export(path)
            with pytest.raises(SnapshotCorruptError, match="'other', not of 'conv'"):
                await one.load_from_disk(tmp_path)
            with pytest.raises(InvalidArgumentError, match="snapshot of session 'other'"):
                await one.save_to_disk(tmp_path)
            assert sorted(await contents(one)) == sorted(GIVEN)
            await one.close()
            with pytest.raises(InvalidArgumentError, match="closed"):
                await one.save_to_disk(tmp_path)

    run(story)


def test_where_snapshots_lie_follows_the_call_then_the_client_then_the_environment(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        monkeypatch.chdir(tmp_path)
        for options, folder in (
            ({}, tmp_path / "one" / "snapshots" / "sessions" / "p"),
            ({"cache_path": tmp_path / "cache"}, tmp_path / "cache" / "sessions" / "p"),
        ):
            async with client(tmp_path / "one", **options) as a:
                one = await a.session("conv", "tiny", warm_up=False)
                await one.save_to_disk()
                assert (folder / "conv" / SNAPSHOT_FILE).is_file()
                await one.save_to_disk("~here")
                assert (tmp_path / "~here" / "conv" / SNAPSHOT_FILE).is_file()
        monkeypatch.setenv("MOSS_SESSION_CACHE_PATH", str(tmp_path / "named"))
        async with client(tmp_path / "one") as a:
            await (await a.session("conv", "tiny", warm_up=False)).save_to_disk()
        assert (tmp_path / "named" / "sessions" / "p" / "conv" / SNAPSHOT_FILE).is_file()

    run(story)


@pytest.mark.parametrize(
    "name", ["..", ".", "a/b", "/etc", "con", "NUL.txt", "a\\b", "a b", "é", "x" * 120, "a.", "\0"]
)
def test_a_name_that_is_no_folder_stays_below_the_root(name: str) -> None:
    folder = folder_name(name)
    assert folder == file_name(name)
    assert Path(folder).name == folder


def test_no_name_has_the_folder_of_another() -> None:
    assert folder_name("Conv-1.b_2") == "Conv-1.b_2"
    names = ["a b", file_name("a b"), "a-b", "a", file_name("é"), "é", file_name(file_name("é"))]
    assert len({folder_name(name) for name in names}) == len(names)


KILLED = """
import asyncio, itertools, sys
from moss_local import DocumentInfo, MossClient
from tests.keys import KEY

async def main():
    async with MossClient("p", KEY, data_dir=sys.argv[1], store="memory://alone") as client:
        session = await client.session("conv", "custom")
        for n in itertools.count():
            docs = [DocumentInfo(f"{n}.{i}", "x" * 2000, None, [1.0, float(i)]) for i in range(200)]
            await session.add_docs(docs)
            await session.save_to_disk(sys.argv[1])
            print(n, flush=True)

asyncio.run(main())
"""


def test_whoever_is_killed_while_saving_leaves_a_whole_snapshot(tmp_path: Path) -> None:
    for kills in range(4):
        place = tmp_path / str(kills)
        place.mkdir()
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, str(place)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            saved = [process.stdout.readline() for _ in range(2 + kills)]
            process.send_signal(signal.SIGKILL)
        assert all(saved)

        async def story(place: Path = place, least: int = 200 * (2 + kills)) -> None:
            async with client(place) as a:
                one = await a.session("conv", "custom", auto_load_on_init=False)
                count = await one.load_from_disk(place)
                assert count >= least
                assert count % 200 == 0
                assert one.doc_count == count

        run(story)


def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path, models: Path) -> None:
    async def story() -> None:
        async with client(tmp_path / "one") as a:
            one = await a.session("conv", "tiny", warm_up=False)
            (tmp_path / "file").write_text("in the way")
            with pytest.raises((NotFoundError, PermissionDeniedError), match="file"):
                await one.save_to_disk(tmp_path / "file")
            refused = PermissionError(13, "Permission denied")
            with (
                patch("moss_sync.stores.durable.os.open", side_effect=refused),
                pytest.raises(PermissionDeniedError, match="Permission denied"),
            ):
                await one.export(tmp_path / "x")
            full = OSError(28, "No space left on device")
            await one.export(tmp_path / "x")
            before = (tmp_path / "x").read_bytes()
            await one.add_docs(DOCS)
            with (
                patch("moss_sync.stores.durable.sync_file", side_effect=full),
                pytest.raises(DiskFullError, match="No space left"),
            ):
                await one.export(tmp_path / "x")
            assert (tmp_path / "x").read_bytes() == before
            assert [path.name for path in tmp_path.glob(".x*")] == []

    run(story)


# -- by hand ---------------------------------------------------------------------------------


def test_the_command_line_carries_a_session_to_another_device(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with client(tmp_path / "one") as a:
            session = await a.session("conv", "tiny", warm_up=False)
            await session.add_docs(DOCS)

    run(story)
    monkeypatch.chdir(tmp_path)
    for name, value in (("STORE", str(tmp_path / "store")), ("PROJECT_ID", "p")):
        monkeypatch.setenv(f"MOSS_{name}", value)
    monkeypatch.setenv("MOSS_PROJECT_KEY", KEY)
    one, two = Cli().on(str(tmp_path / "one")), Cli().on(str(tmp_path / "two"))
    done = one("export", "conv", "x.moss", "--json").ok().json()
    assert (done["session"], done["documents"]) == ("conv", 3)
    refused = one("export", "conv", "x.moss")
    assert (refused.code, "--force" in refused.stderr) == (2, True)
    one("export", "conv", "x.moss", "--force").ok()
    one("export", "conv", "x.jsonl", "--jsonl").ok()
    taken = two("import", "x.moss", "--json").ok().json()
    assert taken == {"session": "conv", "added": 3, "updated": 0, "documents": 3}
    assert two("import", "x.moss", "--session", "copy").ok().stdout.startswith("copy: 3 added")
    nameless = two("import", "x.jsonl")
    assert (nameless.code, "--session" in nameless.stderr) == (2, True)
    (tmp_path / "x.moss").write_bytes((tmp_path / "x.moss").read_bytes()[:-5])
    cut = two("import", "x.moss", "--session", "other")
    assert (cut.code, "ends too early" in cut.stderr) == (6, True)
    listed = two("sessions", "--local", "--json").ok().json()["sessions"]
    assert [row["name"] for row in listed] == ["conv", "copy"]
