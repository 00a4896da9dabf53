"""Writes the seed corpora, fuzz/corpus/<target>/: python -m fuzz.seeds.

From real runs where there is a form to be got right: the golden files, a session's file, and texts
as people write them.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import zlib
from pathlib import Path

import apsw

from fuzz import fuzz_file, fuzz_keywords
from fuzz.fuzz_export import FRAME
from fuzz.shapes import unpacked
from moss_local import DocumentInfo, MossClient, portable
from moss_sync import keyring
from moss_sync.layout import session_id
from moss_sync.seal import BlobIdentity, unseal
from tests.golden.make import FOLDER, PROJECT_KEY, SESSION, files
from tests.keys import KEY

HERE = Path(__file__).parent
FILTERS = [
    {"field": "a", "condition": {"$eq": "5"}},
    {"field": "b", "condition": {"$in": ["5", 10], "$gte": "1"}},
    {"$and": [{"field": "", "condition": {"$exists": True}}]},
    {"$or": [{"$not": {"field": 'quo"te', "condition": {"$contains": "e"}}}]},
    {"field": "dot.ted", "condition": {"$near": "52.5219,13.4132,12000"}},
    {"field": "$[0]", "condition": {"$within": "2024-05", "$after": 1715941800}},
    {"field": "ключ", "condition": {"$ne": True, "$nin": []}},
]
URLS = [
    *("memory://a", "/a/folder", "file:///a/b", "s3://bucket/prefix?region=eu-central-1"),
    *("s3://b?endpoint_url=http://127.0.0.1:9&region=x", "ftp://x", "s3://user:hunter2secret@b/x"),
    *("file://host/x", "memory://", "s3://", "https://bucket", "C:\\x", "~/x", "."),
]
MARKDOWN = (
    "---\ntitle: x\n---\n# One\n\nText. More text!\n\n## Two\n\n```\n# code\n```\n返金。三日。\n"
)
LINES = '{"id": 1, "text": "one", "metadata": {"n": 1.5, "b": true}}\n{"id": "b", "text": ""}'


def corpora() -> dict[str, list[bytes]]:
    golden = files()
    fmt = keyring.decode(golden["fmt"])
    keys = keyring.unlock(fmt, keyring.derive_kek(PROJECT_KEY, fmt.kdf))
    sid = session_id(keys.names, SESSION)

    def opened(name: str) -> bytes:
        place = BlobIdentity(keys.repo_id, sid, "manifest", "m")
        return unseal(keys.roots, place, golden[name], max_plain=2**20)

    export = (FOLDER.parent / "export-1.moss").read_bytes()[len(portable.MAGIC) :]
    frames: list[bytes] = []
    while size := int.from_bytes(export[:4], "big"):
        frames.append(unpacked(export[4 : 4 + size]))
        export = export[4 + size :]
    texts = [text.encode() for text in fuzz_keywords.TEXTS]
    return {
        "segment": [unpacked(golden["inline"]), b"\1" + golden["inline"]],
        "manifest": [unpacked(opened(name)) for name in ("manifest", "manifest-floors")],
        "log": [unpacked(golden["inline"])],
        "seal": [b"\5hello", b"\0", b"\3abc\0\0\1\1"],
        "fmt": [golden["fmt"][5:-16], golden["fmt"], golden["fmt-rotated"][5:-16]],
        "names": [b"conv-123\x1fconv-124", b"../x\x1f/y", "é\x1fe\u0301".encode(), b"con\x1fCON"],
        "url": [url.encode() for url in URLS],
        "export": [FRAME.join(frames)],
        "inputs": [MARKDOWN.encode(), LINES.encode(), b'[{"id": "a", "text": "b"}]', *texts[:4]],
        "filters": [json.dumps(each, ensure_ascii=False).encode() for each in FILTERS],
        "keywords": texts,
        "search": [bytes(range(60)), bytes([200, 1, 9] * 20), b"\xff\xfe\xfd" * 9],
        "leaves": [small_database(), small_log()],
        "salvage": [
            bytes([0, 0, 0, 0, 0, 0, 0, 1, 100]) + bytes(100),
            bytes([0, 100, 0, 1]),
            bytes([0, 0, 0, 0, 0, 0, 20, 255, 0, 8, 0, 1, 20]) + bytes(range(20)),
        ],
        "file": [
            bytes(4),
            bytes([0, 9, 0, 1]),
            bytes([0, 0, 0, 0, 0, 0, 24, 1, 4, 1, 2, 3, 4]),
            bytes([0, 0, 0, 0, 0, 32, 3, 8, 0, 1, 0, 77, 255, 0]),
        ],
    }


def small_database() -> bytes:
    """Return one with leaves of the shape that `leaves` looks for, overflow and free pages."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        conn = apsw.Connection(str(path))
        columns = ", ".join(f"c{n}" for n in range(12))
        conn.execute(
            f"PRAGMA page_size = 512; CREATE TABLE a (x, y); CREATE TABLE b (n, {columns})"
        )
        for n in range(6):
            row = (
                n,
                "id",
                2**40,
                b"devdevde",
                b"digestdi",
                0,
                1,
                1,
                n,
                None,
                "é" * n * 90,
                None,
                1,
            )
            conn.execute("INSERT INTO a VALUES (?, ?)", (n, "t" * (n * 150)))
            conn.execute(f"INSERT INTO b VALUES ({', '.join('?' * 13)})", row)
        conn.execute("DELETE FROM a WHERE x = 4")
        conn.close()
        return path.read_bytes()


def small_log() -> bytes:
    """Return a write-ahead log with commits of several pages, one page twice."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        conn = apsw.Connection(str(path))
        conn.execute("PRAGMA page_size = 512; PRAGMA journal_mode = wal").fetchall()
        conn.execute("CREATE TABLE a (x, y)").fetchall()
        for n in range(3):
            conn.execute("INSERT INTO a VALUES (?, ?)", (n, "t" * 300)).fetchall()
        log = path.with_name("x-wal").read_bytes()
        conn.close()
        return log


async def session_file() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        async with MossClient("p", KEY, store="memory://seed", data_dir=Path(folder)) as client:
            session = await client.session("conv", "custom")
            docs = [
                DocumentInfo(
                    f"turn-{n}",
                    f"{who}: the refund of charge {n}",
                    {"who": who, "when": f"2026-03-0{n + 1}"},
                    [1.0, n / 3, -0.5, 2.0],
                    None if n % 2 else "{}",
                )
                for n, who in enumerate(["Ann", "Ben", "Ann", "Cy", "Ben", "Ann"])
            ]
            await session.add_docs(docs)
            await session.add_docs([DocumentInfo("turn-1", "edited", None, [0.0, 1.0, 0.0, 0.0])])
            await session.push_index()
            await session.delete_docs(["turn-2"])
        [path] = Path(folder).rglob("*.sqlite3")
        return path.read_bytes()


def main() -> None:
    if not fuzz_file.TEMPLATE.exists():
        fuzz_file.TEMPLATE.write_bytes(zlib.compress(asyncio.run(session_file()), 9))
    for target, seeds in corpora().items():
        folder = HERE / "corpus" / target
        folder.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(seeds):
            (folder / f"seed-{number:02}").write_bytes(seed)


if __name__ == "__main__":
    main()
