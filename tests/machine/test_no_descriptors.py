"""A process that may open no more files: named errors, nothing lost, and on once there are some."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import asyncio, json, os, resource, sys
from pathlib import Path
from moss_local import DocumentInfo, MossClient, MossError, QueryOptions

folder, spare = Path(sys.argv[1]), int(sys.argv[2])
acknowledged, told, strange = [], [], []
QUERY = QueryOptions(embedding=[1.0, 2.0])

def limit(soft):
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

def document(id):
    return DocumentInfo(id, "text of " + id, None, [1.0, float(len(acknowledged))])

async def tried(call):
    try:
        return await call
    except MossError as error:
        told.append(type(error).__name__)
    except Exception as error:
        strange.append(repr(error))

async def scene(client, turn):
    for name in ("s", "t"):
        session = await tried(client.session(name, "custom", auto_load_on_init=False))
        if session is None:
            continue
        for n in range(3):
            id = f"{turn}-{n}"
            if await tried(session.add_docs([document(id)])):
                acknowledged.append((name, id))
            await tried(session.query("text", QUERY))
        await tried(session.get_docs())
        await tried(session.push_index())
        await tried(session.pull())
        await session.close()

async def main():
    # What is imported when it is first needed is there already: it is the files that lack.
    async with MossClient("p", "k", store=folder / "store", data_dir=folder / "data") as client:
        await scene(client, "before")
    async with MossClient("p", "k", store=folder / "store", data_dir=folder / "data") as client:
        limit(max(int(each) for each in os.listdir("/proc/self/fd")) + 1 + spare)
        await scene(client, "without")
        limit(hard)
        assert not strange, strange
        told_then = list(told)
        await scene(client, "after")
        assert told == told_then, told
        for name in ("s", "t"):
            session = await client.session(name, "custom", auto_load_on_init=False)
            there = {each.id for each in await session.get_docs()}
            assert {id for of, id in acknowledged if of == name} <= there
            assert {f"after-{n}" for n in range(3)} <= there
            await session.close()
    print(json.dumps(told))

soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and RLIMIT_NOFILE")
@pytest.mark.parametrize("spare", [0, 1, 2, 3, 5, 8])
def test_without_descriptors_errors_are_named_and_nothing_is_lost(
    tmp_path: Path, spare: int
) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(spare)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    print(f"descriptors exhausted ({spare} left): {len(told)} calls refused, 0 lost")
    if spare == 0:
        assert told
