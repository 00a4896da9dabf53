"""A session's file on a file system that is read-only: told by name, and goes on afterwards.

A real one, in a mount namespace of the test's own, where the system lets a user make one.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import asyncio, subprocess, sys
from pathlib import Path
from moss_local import DocumentInfo, MossClient, PermissionDeniedError

root = Path(sys.argv[1])

def mounted(how):
    subprocess.run(["mount", "-o", "remount," + how, str(root)], check=True)

def client():
    return MossClient("p", "k", store=root.parent / "store", data_dir=root / "data")

async def add(client, id):
    async with await client.session("s", "custom", warm_up=False) as session:
        await session.add_docs([DocumentInfo(id, "text", None, [1.0, 2.0])])
        await session.push_index()
        return [each.id for each in await session.get_docs()]

async def main():
    async with client() as one:
        print(await add(one, "a"))
    mounted("ro")
    async with client() as one:
        for name in ("s", "new"):
            try:
                await one.session(name, "custom", warm_up=False)
            except PermissionDeniedError as error:
                print(name, "read-only" in str(error).lower(), bool(error.hint))
        (error,) = (await one.local_sessions()).unreadable
        print("read-only" in str(error))
    mounted("rw")
    async with client() as one:
        print(await add(one, "b"))

asyncio.run(main())
"""

SPACE = ["unshare", "--user", "--map-root-user", "--mount"]


def run(folder: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    (folder / "disk").mkdir()
    script = 'mount -t tmpfs tmpfs "$0" && exec "$@"'
    return subprocess.run(
        [*SPACE, "sh", "-c", script, str(folder / "disk"), *command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_file_on_a_read_only_file_system_is_refused_by_name_and_goes_on_afterwards(
    tmp_path: Path,
) -> None:
    (tmp_path / "tried").mkdir()
    if shutil.which(SPACE[0]) is None or run(tmp_path / "tried", ["true"]).returncode:
        pytest.skip("this system lets nobody mount a file system of his own")
    done = run(tmp_path, [sys.executable, "-c", PROGRAM, str(tmp_path / "disk")])
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "['a']",
        "s True True",
        "new True True",
        "True",
        "['a', 'b']",
    ]
