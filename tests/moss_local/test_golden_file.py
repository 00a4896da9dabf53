"""A session file of every schema version opens, with its documents, its search and its sync state.

The archives were written once, by the code of their version (tests/golden/make_schema_1.py says
how). What they hold is written out here by hand. None of this may change.
"""

from __future__ import annotations

import asyncio
import hashlib
import zipfile
from pathlib import Path

import apsw
import pytest

from moss_local import GetDocumentsOptions, MossClient, QueryOptions, SessionIndex
from moss_local.storage.checkup import check_file
from moss_local.storage.connection import prepare
from moss_local.storage.file import open_session_file
from moss_local.storage.paths import session_path
from moss_local.storage.replica import SqliteReplica
from moss_local.storage.schema import DOCUMENT_ROOT, MIGRATIONS, PAGE_SIZE

ARCHIVE = Path(__file__).parent.parent / "golden" / "schema-1.zip"
PROJECT = "golden-project"
PROJECT_KEY = "a golden key, known to everybody"
SESSION = "conv-123 · Gespräch"
DEVICE = "cf5f3fcc9830665d"
IN_FLIGHT = "s/0000000000000003-cf5f3fcc9830665d-00000003-t3rktwcun6i2zi2ohz5l7hwkzi"


def noise(number: int) -> str:
    return hashlib.shake_256(bytes([number])).hexdigest(9000)


DOCUMENTS = {
    "turn-1": (
        "Customer reported a duplicate $49.99 charge.",
        {"channel": "voice", "tone": ""},
        '{"amount": 49.99}',
    ),
    "turn-2": ("Agent confirmed the refund: it is on its way.", None, None),
    "turn-5": (f"The laptop's own turn. {noise(5)}", None, None),
    "turn-6": (f"In flight. {noise(6)}", None, None),
    "turn-7": ("Written on a train, never pushed.", None, None),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Lay the archive out: the file where a client looks for it, and the store beside."""
    path = session_path(tmp_path / "phone", PROJECT, SESSION)
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(ARCHIVE) as archive:
        path.write_bytes(archive.read("session.sqlite3"))
        for name in archive.namelist():
            if name.startswith("store/"):
                archive.extract(name, tmp_path)
    return path


def client(tmp_path: Path, device: str) -> MossClient:
    return MossClient(PROJECT, PROJECT_KEY, store=tmp_path / "store", data_dir=tmp_path / device)


async def documents_of(session: SessionIndex) -> dict[str, tuple[str, object, object]]:
    found = await session.get_docs(GetDocumentsOptions())
    return {each.id: (each.text, each.metadata, each.payload) for each in found}


def test_the_golden_file_is_of_the_version_that_it_says(file: Path) -> None:
    conn = apsw.Connection(str(file))
    assert conn.pragma("user_version") == 1
    conn.close()


def test_a_file_of_version_1_becomes_a_whole_file_of_the_newest(file: Path) -> None:
    opened = open_session_file(file, session=SESSION)
    with opened.writing() as conn:
        assert conn.pragma("user_version") == len(MIGRATIONS)
        assert check_file(conn) == []
        root = conn.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'document'").get
        assert (root, conn.pragma("page_size")) == (DOCUMENT_ROOT, PAGE_SIZE)
    state = SqliteReplica(opened).state()
    assert (state.name, state.dev.hex(), state.n, state.acked_n) == (SESSION, DEVICE, 3, 2)
    assert (state.applied_seq, state.dirty) == (3, 4)
    assert state.repo_id is not None
    assert state.space is not None
    assert (state.space.id, state.space.dim, state.space.dtype) == ("moss-minilm", 384, "f2")
    assert state.seen is not None
    assert (state.seen.seq, state.seen.etag) == (3, "ea8e8a54013737e45029f77c183461f6")
    assert state.pending is not None
    assert (state.pending.n, state.pending.base, state.pending.docs) == (3, 3, 1)
    assert state.pending.key is not None
    assert state.pending.key.endswith("/" + IN_FLIGHT)
    # Byte for byte what the store was sent: a repetition must be the same blob.
    [sent] = file.parents[2].rglob(IN_FLIGHT.removeprefix("s/"))
    assert state.pending.body == sent.read_bytes()
    opened.close()


def test_a_migration_that_dies_leaves_the_file_as_it_was(file: Path) -> None:
    before = file.read_bytes()

    def dies(conn: apsw.Connection) -> None:
        conn.execute("DELETE FROM document")
        raise KeyboardInterrupt

    conn = apsw.Connection(str(file))
    with pytest.raises(KeyboardInterrupt):
        prepare(
            conn,
            file,
            session=SESSION,
            token=bytes,
            wait=lambda: False,
            migrations=(*MIGRATIONS[:-1], dies),
        )
    conn.close()
    assert file.read_bytes() == before
    opened = open_session_file(file, session=SESSION)
    assert SqliteReplica(opened).state().dirty == 4
    opened.close()


def test_documents_and_search_of_a_file_of_version_1_are_there(file: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with client(tmp_path, "phone") as phone:
            session = await phone.session(SESSION, auto_load_on_init=False)
            assert await documents_of(session) == DOCUMENTS
            assert (session.model_id, session.device_id) == ("moss-minilm", DEVICE)
            assert (session.sync_state.status, session.sync_state.pending) == ("pending", 4)
            meant = await session.query("has the money been sent back?", QueryOptions(top_k=1))
            assert [each.id for each in meant.docs] == ["turn-2"]
            said = await session.query("duplicate", QueryOptions(top_k=1, alpha=0.0))
            assert [each.id for each in said.docs] == ["turn-1"]
            gone = await session.query("Said twice by mistake.", QueryOptions(top_k=9))
            assert {"turn-3", "turn-4"}.isdisjoint(each.id for each in gone.docs)
            timeline = [each.id for each in await session.thread()]
            assert timeline == ["turn-1", "turn-5", "turn-6", "turn-2", "turn-7"]

    asyncio.run(scenario())
