"""What docs/security.md promises is held by tests that are there; secrets stay where they are."""

from __future__ import annotations

import asyncio
import logging
import re
import struct
from pathlib import Path

import pytest

from moss_local import DocumentInfo, MossClient, MossError, QueryOptions

ROOT = Path(__file__).parents[1]
KEY = "ekuh-zkcw-5hd2-the-project-key-7qvp"
TEXT = "Xylophone zebra quagmire 4471"
VECTOR = [0.123456789, 7.654321, 3.14159]


def test_every_test_that_the_page_names_is_there() -> None:
    page = (ROOT / "docs" / "security.md").read_text("utf-8")
    named = set(re.findall(r"`(test_\w+)`", page))
    assert len(named) >= 20
    tests = (ROOT / "tests").rglob("*.py")
    sources = [path.read_text("utf-8") for path in (*tests, *(ROOT / "sync").rglob("*.py"))]
    there = {name for source in sources for name in re.findall(r"def (test_\w+)\(", source)}
    assert named - there == set()


def secrets_in(text: str) -> list[str]:
    vector = struct.pack("<3f", *VECTOR)
    hidden = [KEY, TEXT, "Xylophone", str(VECTOR[0]), vector.hex(), repr(vector)[2:-1]]
    return [secret for secret in hidden if secret in text]


def test_keys_texts_and_vectors_are_in_no_log_no_error_and_no_representation(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    shown: list[str] = []

    def told(error: BaseException | None) -> None:
        while error is not None:
            if isinstance(error, MossError):
                shown.append(f"{error!r} {error} {error.hint} {error.detail}")
            error = error.__cause__

    async def story() -> None:
        store = str(tmp_path / "store")
        async with MossClient("p", KEY, store=store, data_dir=tmp_path / "a") as client:
            session = await client.session("conv", "custom")
            documents = [DocumentInfo("a", TEXT, {"k": TEXT}, VECTOR, TEXT)]
            await session.add_docs(documents)
            await session.push_index()
            options = QueryOptions(embedding=VECTOR)
            result = await session.query("quagmire", options)
            shown.extend(map(repr, (client, session, session.sync_state, client._settings)))
            assert result.docs[0].text == TEXT
            for bad in (
                session.add_docs([DocumentInfo("b", TEXT)]),
                session.add_docs([DocumentInfo("b", TEXT, None, [*VECTOR, 1.0])]),
                session.query("quagmire", QueryOptions(embedding=[1.0])),
                session.query("quagmire", QueryOptions(filter={"field": "k"})),
                session.load_from_disk(tmp_path),
                client.session("conv", "moss-minilm"),
                client.session(""),
            ):
                with pytest.raises(MossError) as caught:
                    await bad
                told(caught.value)
        async with MossClient("p", KEY + "!", store=store, data_dir=tmp_path / "b") as wrong:
            with pytest.raises(MossError) as refused:
                await wrong.session("conv")
            told(refused.value)
        away = "s3://bucket/x?endpoint_url=http://127.0.0.1:9"
        async with MossClient("p", KEY, store=away, data_dir=tmp_path / "c") as lonely:
            session = await lonely.session("conv", "custom")
            await session.add_docs([DocumentInfo("a", TEXT, None, VECTOR)])
            with pytest.raises(MossError) as unreachable:
                await session.push_index()
            told(unreachable.value)

    with caplog.at_level(logging.DEBUG):
        asyncio.run(story())
    assert len(shown) >= 13
    assert secrets_in("\n".join([*shown, caplog.text, *capfd.readouterr()])) == []
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".sqlite3" for path in files)
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []
    stored = [path for path in files if path.is_relative_to(tmp_path / "store")]
    assert stored
    assert [path for path in stored if TEXT.encode() in path.read_bytes()] == []
