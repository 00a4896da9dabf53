"""Rows read from a file's leaves are those that SQLite finds; any bytes give some or none."""

from __future__ import annotations

import random
from pathlib import Path

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moss_local.storage.leaves import Image
from moss_local.storage.wal import read_log

Row = tuple[int, int | str | bytes | None, str | None, float | None]


def database(path: Path, page_size: int, rows: int, rng: random.Random) -> bytes:
    conn = apsw.Connection(str(path))
    conn.execute(f"PRAGMA page_size = {page_size}")
    conn.execute("CREATE TABLE a (n INTEGER PRIMARY KEY, v, t TEXT, z); CREATE TABLE b (x, y)")
    conn.execute("CREATE INDEX v ON a (v, t, z)")
    numbers = [0, 1, -1, 127, -128, 2**15, -(2**23), 2**31, 2**40, -(2**47), 2**62, -(2**63)]
    for n in range(rows):
        # Lengths around those at which a record begins to overflow, and far past them.
        size = rng.choice([0, 3, page_size - 60 + n % 50, 3 * page_size + n, 70_000])
        value = rng.choice([None, rng.choice(numbers), rng.randbytes(size), "é" * (size // 2)])
        conn.execute("INSERT INTO a VALUES (?, ?, ?, ?)", (n * n, value, "x" * (n % 900), None))
        conn.execute("INSERT INTO b VALUES (?, ?)", (n, "not asked for"))
    conn.execute("DELETE FROM a WHERE n % 3 = 0")  # leaves pages that are free
    conn.close()
    return path.read_bytes()


@pytest.mark.parametrize("page_size", [512, 2048, 65_536])
def test_they_are_the_rows_that_sqlite_finds(tmp_path: Path, page_size: int) -> None:
    path = tmp_path / "x"
    image = Image(database(path, page_size, 300, random.Random(page_size)))
    assert image.whole_free_list
    found = sorted((rowid, *values[1:]) for rowid, values in image.records(4))
    conn = apsw.Connection(str(path))
    assert found == conn.execute("SELECT n, v, t, z FROM a ORDER BY n").fetchall()
    assert len(found) == 200
    assert len(list(image.records(2))) == 300


def test_a_broken_list_of_free_pages_is_told(tmp_path: Path) -> None:
    whole = bytearray(database(tmp_path / "x", 512, 300, random.Random(1)))
    trunk = int.from_bytes(whole[32:36])
    whole[(trunk - 1) * 512 : trunk * 512] = b"\xff" * 512
    assert not Image(bytes(whole)).whole_free_list


@given(st.data())
def test_any_bytes_give_some_records_or_none(data: st.DataObject) -> None:
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    image = bytearray(rng.randbytes(512 * data.draw(st.integers(0, 12))))
    if len(image) > 100:
        image[16:21] = b"\x02\x00\x01\x01" + bytes([data.draw(st.sampled_from([0, 32, 255]))])
    for page in range(1, len(image) // 512):
        if data.draw(st.booleans()):
            image[page * 512] = 0x0D
            image[page * 512 + 3 : page * 512 + 5] = data.draw(st.binary(min_size=2, max_size=2))
    for columns in (1, 2, 3):
        assert all(len(values) == columns for _, values in Image(bytes(image)).records(columns))


def test_pages_that_lead_back_to_themselves_end(tmp_path: Path) -> None:
    whole = bytearray(database(tmp_path / "x", 512, 30, random.Random(2)))
    for page in range(1, len(whole) // 512):
        if whole[page * 512] != 0x0D:
            whole[page * 512 : page * 512 + 4] = (page + 1).to_bytes(4)
    list(Image(bytes(whole)).records(4))


@pytest.mark.parametrize("page_size", [512, 2048, 65_536])
def test_the_leaves_of_one_table_are_reached_from_its_root_without_the_header(
    tmp_path: Path, page_size: int
) -> None:
    path = tmp_path / "x"
    data = database(path, page_size, 300, random.Random(page_size))
    conn = apsw.Connection(str(path))
    root = conn.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'b'").get
    headless = Image(bytes(page_size) + data[page_size:], page_size=page_size)
    leaves = headless.table(root)
    assert leaves is not None
    assert headless.rowids(leaves) == {row for (row,) in conn.execute("SELECT rowid FROM b")}
    assert len(list(headless.records(2, leaves))) == 300
    assert not headless.whole_free_list
    inner = data[(root - 1) * page_size] == 0x05
    for hurt in [*leaves, root]:
        changed = bytearray(data)
        changed[(hurt - 1) * page_size] = 0x0D if hurt == root and inner else 0
        image = Image(bytes(changed), page_size=page_size)
        reached = image.table(root)
        assert reached is None or image.rowids(reached) is None


def test_what_is_committed_in_a_log_is_what_sqlite_sees(tmp_path: Path) -> None:
    """Cut anywhere: what SQLite reads from file and log is what is read here."""
    path, log = tmp_path / "x", tmp_path / "x-wal"
    writer = apsw.Connection(str(path))
    writer.execute("PRAGMA page_size = 512; PRAGMA journal_mode = wal").fetchall()
    writer.execute("PRAGMA wal_autocheckpoint = 0; CREATE TABLE a (x)").fetchall()
    for n in range(30):
        writer.execute("BEGIN; INSERT INTO a VALUES (?); COMMIT", (f"{n} " * 100,))
        if n == 12:
            writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        if n == 20:  # the log is begun anew over what was in it before
            writer.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
    data, whole = path.read_bytes(), log.read_bytes()
    writer.close()
    rng = random.Random(3)
    seen = set()
    for cut in [len(whole), 0, 31, 32, *(rng.randrange(len(whole)) for _ in range(40))]:
        torn = bytearray(whole[:cut])
        if cut > 40 and rng.random() < 0.5:
            torn[rng.randrange(cut)] ^= 1
        copy = tmp_path / f"copy-{cut}"
        copy.write_bytes(data)
        Path(f"{copy}-wal").write_bytes(torn)
        reader = apsw.Connection(str(copy))
        expected = [text for (text,) in reader.execute("SELECT x FROM a ORDER BY rowid")]
        reader.close()
        written = read_log(bytes(torn))
        kept = data if written is None else data[: written.pages_after * 512]
        image = Image(kept, None if written is None else written.pages, page_size=512)
        leaves = image.table(2)
        assert leaves is not None
        found = [values[0] for _, values in sorted(image.records(1, leaves))]
        assert found == expected
        seen.add(len(found))
    assert len(seen) > 5


def test_pages_that_a_commit_in_the_log_gave_back_are_not_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "x"
    database(path, 512, 300, random.Random(7))
    conn = apsw.Connection(str(path))
    conn.execute("PRAGMA journal_mode = wal").fetchall()
    conn.execute("DELETE FROM a; DELETE FROM b WHERE x > 5; VACUUM").fetchall()
    data, log = path.read_bytes(), read_log(Path(f"{path}-wal").read_bytes())
    conn.close()
    assert log is not None
    assert log.pages_after < len(data) // 512
    image = Image(data[: log.pages_after * 512], log.pages, page_size=512)
    assert len(list(image.records(2))) == 6


@given(st.binary(max_size=2000))
def test_any_bytes_are_a_log_or_none(data: bytes) -> None:
    log = read_log(data)
    assert log is None or len(log.pages) * log.page_size <= len(data)
