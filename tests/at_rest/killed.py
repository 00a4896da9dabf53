"""A writer of encrypted files that is killed in the middle; started by the tests as a program."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from tests.at_rest.devices import Device, document, opened


def kill_while_writing(root: Path, *, after: int) -> list[str]:
    """Start a writer, kill it after so many acknowledged writes; return their ids."""
    command = [sys.executable, "-m", "tests.at_rest.killed", str(root)]
    acknowledged = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for line in writer.stdout:
            acknowledged.append(line.strip())
            if len(acknowledged) == after:
                writer.kill()
                break
    return acknowledged


async def write_for_ever(root: Path) -> None:
    """Add a document at a time, and say each that is acknowledged."""
    async with Device(root).client(at_rest=True) as client:
        session = await opened(client, "conv")
        for n in range(100_000):
            await session.add_docs([document(f"marmalade-id-{n}", f"pomegranate {n}")])
            print(f"marmalade-id-{n}", flush=True)


if __name__ == "__main__":
    asyncio.run(write_for_ever(Path(sys.argv[1])))
