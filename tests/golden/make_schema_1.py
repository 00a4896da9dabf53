"""Writes the golden session file of schema version 1, with the store that it was exchanged with.

It takes the code of that version, the last commit of which is 526ba6e, and was run once:

    git worktree add ../version-1 526ba6e
    cd ../version-1
    PYTHONPATH=.:sync python <here>/tests/golden/make_schema_1.py <here>/tests/golden/schema-1.zip

The next schema version gets a script and an archive of its own in the same way, before the code
that writes it changes. The archive holds `session.sqlite3` as that code left it on disk, and the
folder store below `store/`. tests/moss_local/test_golden_file.py says by hand what is in there.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sys
import tempfile
import zipfile
from pathlib import Path

from moss_local import DocumentInfo, MossClient

PROJECT = "golden-project"
PROJECT_KEY = "a golden key, known to everybody"
SESSION = "conv-123 · Gespräch"


def noise(number: int) -> str:
    """Return text that does not compress, so that it takes a blob of its own."""
    return hashlib.shake_256(bytes([number])).hexdigest(9000)


async def write(directory: Path) -> None:
    """Lead the session's life: pushed, pulled, changed, deleted, and cut off in a push."""
    store = directory / "store"
    phone = MossClient(PROJECT, PROJECT_KEY, store=store, data_dir=directory / "phone")
    laptop = MossClient(PROJECT, PROJECT_KEY, store=store, data_dir=directory / "laptop")
    ours = await phone.session(SESSION)
    await ours.add_docs(
        [
            DocumentInfo(
                "turn-1",
                "Customer reported a duplicate $49.99 charge.",
                {"channel": "voice", "tone": ""},
                None,
                '{"amount": 49.99}',
            ),
            DocumentInfo("turn-2", "Agent confirmed a refund in 3-5 business days."),
            DocumentInfo("turn-3", "Said twice by mistake."),
            DocumentInfo("turn-4", "退款 \0 👍🏽", {}),
        ]
    )
    await ours.push_index()
    theirs = await laptop.session(SESSION)
    await theirs.add_docs([DocumentInfo("turn-5", f"The laptop's own turn. {noise(5)}")])
    await theirs.push_index()
    await laptop.close()
    await ours.pull()
    await ours.delete_docs(["turn-3"])
    await ours.push_index()

    # A push that is cut off: its bytes are kept until somebody knows what became of it.
    await ours.add_docs([DocumentInfo("turn-6", f"In flight. {noise(6)}")])
    real = phone._store

    class CutOff:
        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

        async def compare_and_swap(self, key: str, data: bytes, *, etag: object) -> object:
            raise KeyError("the process ends here")

    ours._engine._channel._store = CutOff()
    with contextlib.suppress(KeyError):
        await ours.push_index()
    # And what was written since.
    await ours.add_docs(
        [
            DocumentInfo("turn-2", "Agent confirmed the refund: it is on its way."),
            DocumentInfo("turn-7", "Written on a train, never pushed."),
        ]
    )
    await ours.delete_docs(["turn-4"])
    await phone.close()


def main(target: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        asyncio.run(write(directory))
        [file] = (directory / "phone").rglob("*.sqlite3")
        with zipfile.ZipFile(target, "x", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            archive.write(file, "session.sqlite3")
            for path in sorted((directory / "store").rglob("*")):
                if path.is_file() and ".moss" not in path.parts:
                    archive.write(path, str(path.relative_to(directory)))
            print(*(f"{each.file_size:8} {each.filename}" for each in archive.filelist), sep="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
