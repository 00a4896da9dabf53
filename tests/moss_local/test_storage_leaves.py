"""Rows read from a file's leaves are those that SQLite finds; any bytes give some or none."""

from __future__ import annotations

import random
from pathlib import Path

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moss_local.storage.leaves import Image

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
