"""History and quarantine as their users meet them: the session, two devices, the command line."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import apsw
import numpy as np
import pytest

from moss_local import (
    DocumentInfo,
    DocumentVersion,
    GetDocumentsOptions,
    InvalidArgumentError,
    MossClient,
    NotFoundError,
    QueryOptions,
    SessionIndex,
    writer,
)
from moss_local.storage.documents import Document
from moss_local.storage.edits import put_documents
from moss_local.storage.file import open_session_file
from moss_local.storage.history import find_version, read_history
from moss_local.storage.replica import SqliteReplica
from moss_sync.stores.memory import MemoryStore
from tests.devices import SPACE, Device
from tests.keys import KEY
from tests.moss_local.cli_harness import Cli

Story = Callable[[SessionIndex], Coroutine[Any, Any, None]]


@pytest.fixture
def client(tmp_path: Path) -> MossClient:
    return MossClient("p", KEY, store=f"memory://{uuid4().hex}", data_dir=tmp_path)


def run(client: MossClient, story: Story, **options: Any) -> None:
    async def told() -> None:
        async with client, await client.session("conv-123", **options) as session:
            await story(session)

    asyncio.run(told())


def file_of(directory: Path) -> Path:
    [path] = directory.rglob("*.sqlite3")
    return path


def set_aside(path: Path, *edits: tuple[str, str, str | None, bytes | None]) -> None:
    """Put (reason, id, text or None for a deletion, vector) into a session's quarantine."""
    conn = apsw.Connection(str(path))
    for reason, id, text, vector in edits:
        conn.execute(
            "INSERT INTO quarantine (reason, id, hlc, dev, digest, deleted, text, metadata,"
            " payload, vector) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (reason, id, 1000 << 16, b"olddevic", b"digest-8", text is None, text or "")
            + ((None, None, None) if text is None else ('{"k":"v"}', "{}", vector)),
        )
    conn.close()


# -- the session -----------------------------------------------------------------------------


def test_a_replaced_version_is_read_and_restored_as_a_new_edit(client: MossClient) -> None:
    async def story(session: SessionIndex) -> None:
        first = DocumentInfo("a", "The refund was granted.", {"k": "v"}, payload="{}")
        await session.add_docs([first, DocumentInfo("b", "It rains in Lisbon.")])
        await session.add_docs([DocumentInfo("a", "Oops.")])
        now, before = await session.history("a")
        assert (now.text, now.current, now.reason) == ("Oops.", True, None)
        assert (before.text, before.metadata, before.payload) == (first.text, {"k": "v"}, "{}")
        assert (before.current, before.reason, before.deleted) == (False, "edited", False)
        assert before.device_id == session.device_id
        assert 0 < before.written_ms <= now.written_ms

        await session.restore("a", before.version)
        [back] = await session.get_docs(GetDocumentsOptions(["a"]))
        assert (back.text, back.metadata, back.payload) == (first.text, {"k": "v"}, "{}")
        assert [each.text for each in await session.history("a")][:2] == [first.text, "Oops."]
        # It was embedded anew, and is found by meaning again.
        found = await session.query("has the money been paid back?", QueryOptions(alpha=1.0))
        assert [doc.id for doc in found.docs] == ["a", "b"]
        assert session.sync_state.pending == 2

    run(client, story)


def test_a_deleted_document_is_listed_and_comes_back(client: MossClient) -> None:
    async def story(session: SessionIndex) -> None:
        await session.add_docs([DocumentInfo("a", "one"), DocumentInfo("b", "two")])
        await session.delete_docs(["a"])
        removed = [each.id for each in await session.history() if each.current and each.deleted]
        assert removed == ["a"]
        gone, before = await session.history("a")
        assert (gone.deleted, gone.text, before.reason) == (True, "", "deleted")
        await session.restore("a", before.version)
        assert session.doc_count == 2
        await session.restore("a", gone.version)
        assert session.doc_count == 1

    run(client, story)


def test_a_version_of_a_custom_session_comes_back_with_its_vector(client: MossClient) -> None:
    async def story(session: SessionIndex) -> None:
        await session.add_docs([DocumentInfo("a", "x", embedding=[1.0, 0.0])])
        await session.add_docs([DocumentInfo("a", "x", embedding=[0.0, 1.0])])
        query = QueryOptions(embedding=[1.0, 0.0], alpha=1.0)
        assert (await session.query("", query)).docs[0].score == 0.0
        await session.restore("a", (await session.history("a"))[1].version)
        assert (await session.query("", query)).docs[0].score == pytest.approx(1.0)

    run(client, story, model_id="custom")


def test_a_version_that_is_not_there_is_an_error_that_says_where_to_look(
    client: MossClient,
) -> None:
    async def story(session: SessionIndex) -> None:
        await session.add_docs([DocumentInfo("a", "one")])
        for id in ("a", "b"):
            with pytest.raises(NotFoundError, match="no version '0000000000'") as error:
                await session.restore(id, "0000000000")
            assert "moss-local history" in str(error.value.hint)
        with pytest.raises(InvalidArgumentError):
            await session.history("")

    run(client, story)


def test_what_was_set_aside_is_restored_or_discarded_by_its_number(
    client: MossClient, tmp_path: Path
) -> None:
    async def story(session: SessionIndex) -> None:
        await session.add_docs([DocumentInfo("gone", "to be deleted")])
        set_aside(
            file_of(tmp_path),
            ("copy", "a", "The refund was granted.", b"of another encoding"),
            ("deleted", "b", "unwanted", None),
            ("copy", "gone", None, None),
        )
        listed = await session.quarantined()
        assert [(each.number, each.reason, each.id) for each in listed] == [
            (1, "copy", "a"),
            (2, "deleted", "b"),
            (3, "copy", "gone"),
        ]
        assert (listed[0].text, listed[0].metadata) == ("The refund was granted.", {"k": "v"})
        assert (listed[0].written_ms, listed[0].device_id) == (1000, b"olddevic".hex())
        assert [each.deleted for each in listed] == [False, False, True]

        await session.restore_quarantined(1)
        await session.discard_quarantined(2)
        await session.restore_quarantined(3)
        assert await session.quarantined() == []
        [back] = await session.get_docs()
        assert (back.id, back.text, back.payload) == ("a", "The refund was granted.", "{}")
        [new] = await session.history("a")
        assert new.device_id == session.device_id
        for act in (session.restore_quarantined, session.discard_quarantined):
            with pytest.raises(NotFoundError, match="number 1"):
                await act(1)
            with pytest.raises(NotFoundError):
                await act(2**64)
            for wrong in ("1", "\ud800", [1], True):
                with pytest.raises(InvalidArgumentError, match="by its number, an int, not"):
                    await act(wrong)  # type: ignore[arg-type]  # that is what is wrong

    run(client, story)


def test_a_change_that_the_exchange_set_aside_comes_back_with_its_vector(
    client: MossClient, tmp_path: Path
) -> None:
    async def story(session: SessionIndex) -> None:
        await session.add_docs([DocumentInfo("a", "x", {"k": "v"}, [3.0, 4.0], "{}")])
        was = bytes.fromhex(session.device_id)
        file = open_session_file(file_of(tmp_path))
        SqliteReplica(file).renew_identity(b"new-one!", b"new-one!", was=was, aside="dirty")
        file.close()
        assert session.doc_count == 0
        [edit] = await session.quarantined()
        assert (edit.reason, edit.device_id) == ("device", was.hex())
        await session.restore_quarantined(edit.number)
        [back] = await session.get_docs()
        assert (back.id, back.text, back.metadata, back.payload) == ("a", "x", {"k": "v"}, "{}")
        found = await session.query("", QueryOptions(embedding=[3.0, 4.0], alpha=1.0))
        assert found.docs[0].score == pytest.approx(1.0)
        assert await session.quarantined() == []

    run(client, story, model_id="custom")


def test_a_restore_that_another_process_did_first_writes_nothing(
    client: MossClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(session: SessionIndex) -> None:
        set_aside(file_of(tmp_path), ("copy", "a", "text", None), ("copy", "b", None, None))
        find = writer.find_set_aside

        def found_and_then_taken(conn: Any, number: int) -> Any:
            found = find(conn, number)
            session._writer.discard_set_aside(number)
            return found

        monkeypatch.setattr(writer, "find_set_aside", found_and_then_taken)
        for number in (1, 2):
            with pytest.raises(NotFoundError):
                await session.restore_quarantined(number)
        assert session.doc_count == 0

    run(client, story)


# -- two devices -----------------------------------------------------------------------------


@contextmanager
def two_devices(tmp_path: Path) -> Iterator[tuple[Device, Device]]:
    store = MemoryStore()
    one = Device(tmp_path / "one.sqlite3", store, seed=1)
    two = Device(tmp_path / "two.sqlite3", store, seed=2)
    yield one, two
    one.close()
    two.close()


def reasons(device: Device, id: str) -> list[tuple[str, str | None]]:
    with device.file.reading() as conn:
        return [(each.text, each.reason) for each in read_history(conn, id)]


def restore(device: Device, id: str, text: str) -> None:
    with device.file.writing() as conn:
        [token] = [each.token for each in read_history(conn, id) if each.text == text]
        found = find_version(conn, SPACE, id, token)
        assert found is not None
        vector = np.frombuffer(found.vector or b"", "<f4")
        put_documents(
            conn,
            [Document(id, found.text, found.metadata, found.payload, vector)],
            space=SPACE,
            now_ms=device.clock.wall_ms(),
        )


def test_a_concurrent_edit_that_lost_is_kept_on_both_devices_and_restored_everywhere(
    tmp_path: Path,
) -> None:
    async def story(one: Device, two: Device) -> None:
        one.put("a", "both know this")
        await one.engine.push()
        await two.engine.pull()
        two.clock.now_ms += 10_000
        one.put("a", "one's")
        two.put("a", "two's, later")
        await one.engine.push()
        await two.engine.push()
        await two.engine.pull()
        await one.engine.pull()
        assert one.texts == two.texts == {"a": "two's, later"}
        # Two won before it had seen one's; one had pushed before it saw two's.
        assert reasons(two, "a") == [
            ("two's, later", None),
            ("one's", "lost"),
            ("both know this", "edited"),
        ]
        assert reasons(one, "a") == [
            ("two's, later", None),
            ("one's", "replaced"),
            ("both know this", "edited"),
        ]
        restore(two, "a", "one's")
        await two.engine.push()
        await one.engine.pull()
        assert one.texts == two.texts == {"a": "one's"}

    with two_devices(tmp_path) as (one, two):
        asyncio.run(story(one, two))


def test_an_edit_that_lost_before_it_was_pushed_is_kept_where_it_was_made(tmp_path: Path) -> None:
    async def story(one: Device, two: Device) -> None:
        two.clock.now_ms += 10_000
        one.put("a", "one's")
        two.put("a", "two's, later")
        await two.engine.push()
        await one.engine.pull()
        assert reasons(one, "a") == [("two's, later", None), ("one's", "lost")]
        restore(one, "a", "one's")
        await one.engine.push()
        await two.engine.pull()
        assert one.texts == two.texts == {"a": "one's"}
        assert reasons(two, "a") == [("one's", None), ("two's, later", "replaced")]

    with two_devices(tmp_path) as (one, two):
        asyncio.run(story(one, two))


def test_an_edit_that_lost_against_a_deletion_comes_back(tmp_path: Path) -> None:
    async def story(one: Device, two: Device) -> None:
        one.put("a", "both know this")
        await one.engine.push()
        await two.engine.pull()
        two.clock.now_ms += 10_000
        one.put("a", "one's")
        two.delete("a")
        await two.engine.push()
        await one.engine.pull()
        assert one.texts == {}
        assert ("one's", "lost") in reasons(one, "a")
        restore(one, "a", "one's")
        await one.engine.push()
        await two.engine.pull()
        assert one.texts == two.texts == {"a": "one's"}

    with two_devices(tmp_path) as (one, two):
        asyncio.run(story(one, two))


def test_nothing_of_the_history_reaches_the_store(tmp_path: Path) -> None:
    async def story(one: Device, two: Device) -> None:
        one.put("a", "never pushed")
        one.put("a", "pushed")
        await one.engine.push()
        await two.engine.pull()
        assert reasons(one, "a") == [("pushed", None), ("never pushed", "edited")]
        assert reasons(two, "a") == [("pushed", None)]

    with two_devices(tmp_path) as (one, two):
        asyncio.run(story(one, two))


# -- the command line ------------------------------------------------------------------------


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.chdir(tmp_path)
    made = Cli(("--data-dir", "here"))
    made("init", "--project", "acme", "--store", "./shared").ok()
    return made


def test_the_history_of_a_document_is_listed_and_a_version_restored(cli: Cli) -> None:
    cli("add", "conv", "one", "--id", "a", "--metadata", "k=v").ok()
    cli("add", "conv", "two\nlines", "--id", "a").ok()
    cli("add", "conv", "alone", "--id", "b").ok()
    now, before = cli("history", "conv", "a", "--local").ok().stdout.splitlines()
    assert re.fullmatch(r"\S+ \S+  this device  current  [0-9a-f]{10}  a  two lines", now)
    assert re.fullmatch(r"\S+ \S+  this device  edited   [0-9a-f]{10}  a  one", before)

    listed = cli("history", "conv", "--json").ok().json()
    assert listed["session"] == "conv"
    current, kept = listed["versions"]
    assert (kept["id"], kept["text"], kept["metadata"]) == ("a", "one", {"k": "v"})
    assert (kept["current"], kept["reason"], kept["deleted"]) == (False, "edited", False)
    assert (current["current"], current["reason"]) == (True, None)
    assert kept["device"] == listed["device"]
    assert kept["written_at"].endswith("Z")

    done = cli("history", "conv", "a", "--restore", kept["version"]).ok()
    assert done.stdout == "restored a\n"
    shown = cli("show", "conv", "--json").ok().json()["documents"]
    assert {each["id"]: each["text"] for each in shown} == {"a": "one", "b": "alone"}
    after = cli("history", "conv", "a", "--restore", current["version"], "--json").ok().json()
    assert after["versions"][0]["text"] == "two\nlines"


def test_a_deleted_document_is_shown_as_deleted(cli: Cli) -> None:
    cli("add", "conv", "one", "--id", "a").ok()

    async def delete() -> None:
        async with MossClient("acme", store="./shared", data_dir="here") as client:
            await (await client.session("conv")).delete_docs(["a"])

    asyncio.run(delete())
    now, before = cli("history", "conv").ok().stdout.splitlines()
    assert now.endswith("  a  [deleted]")
    assert before.split()[4] == "deleted"
    assert before.endswith("  a  one")


def test_a_history_of_nothing_says_so(cli: Cli) -> None:
    cli("add", "conv", "one", "--id", "a").ok()
    done = cli("history", "conv").ok()
    assert (done.stdout, done.stderr) == ("", "nothing was replaced here\n")
    assert [each["id"] for each in cli("history", "conv", "a", "--json").ok().json()["versions"]]
    for more in ([], ["--json"]):
        done = cli("history", "conv", "unknown", *more)
        assert (done.code, done.stdout) == (NotFoundError.exit_code, "")
        assert "session 'conv' has no document 'unknown'" in done.stderr
        assert "moss-local show conv" in done.stderr


def test_wrong_uses_of_history_and_quarantine_are_refused(cli: Cli) -> None:
    cli("add", "conv", "one", "--id", "a").ok()
    refused = cli("history", "conv", "--restore", "0000000000")
    assert refused.code == InvalidArgumentError.exit_code
    assert "--restore needs the document's id" in refused.stderr
    assert cli("history", "conv", "a", "--restore", "00").code == NotFoundError.exit_code
    assert cli("history", "nowhere").code == NotFoundError.exit_code
    refused = cli("quarantine", "conv", "--restore", "1", "--discard", "1")
    assert refused.code == InvalidArgumentError.exit_code
    assert cli("quarantine", "conv", "--discard", "1").code == NotFoundError.exit_code


def test_what_is_set_aside_is_listed_restored_and_discarded(cli: Cli, tmp_path: Path) -> None:
    cli("add", "conv", "one", "--id", "a").ok()
    done = cli("quarantine", "conv").ok()
    assert (done.stdout, done.stderr) == ("", "nothing is set aside\n")
    set_aside(
        file_of(tmp_path / "here"),
        ("copy", "b", "kept aside", None),
        ("copy", "c", "unwanted", None),
        ("copy", "a", None, None),
    )
    lines = cli("quarantine", "conv", "--local").ok().stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [["1", "copy"], ["2", "copy"], ["3", "copy"]]
    assert lines[0].endswith(f"  {b'olddevic'.hex()[:6]}  b  kept aside")
    assert lines[2].endswith("  a  [deleted]")
    listed = cli("quarantine", "conv", "--json").ok().json()["edits"]
    assert (listed[0]["text"], listed[0]["metadata"]) == ("kept aside", {"k": "v"})
    assert listed[0]["written_at"] == "1970-01-01T00:00:01.000Z"

    assert cli("quarantine", "conv", "--restore", "1").ok().stdout == "restored 1\n"
    left = cli("quarantine", "conv", "--restore", "3", "--json").ok().json()["edits"]
    assert [each["number"] for each in left] == [2]
    assert cli("quarantine", "conv", "--discard", "2").ok().stdout == "discarded 2\n"
    shown = cli("show", "conv", "--json").ok().json()["documents"]
    assert {each["id"]: each["text"] for each in shown} == {"b": "kept aside"}


def test_a_version_says_whether_it_is_current() -> None:
    fields = ("a", "text", None, None, 1, "00" * 8, False)
    assert DocumentVersion(*fields, None, "token").current
    assert not DocumentVersion(*fields, "lost", "token").current
