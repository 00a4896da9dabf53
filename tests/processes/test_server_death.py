"""The S3 server killed while devices push to it: what it has acknowledged is there afterwards."""

from __future__ import annotations

import asyncio
import os
import random
import time
from pathlib import Path

import pytest

from moss_sync import NetworkError
from tests.processes.audit import assert_settled, replica_state
from tests.processes.documents import text_of
from tests.processes.jobs import Where, client_at
from tests.processes.ledger import read_account
from tests.processes.nursery import Nursery, Process
from tests.processes.racing import acquainted
from tests.seaweed import SeaweedServer

DEVICES = 3
DEATHS = 3
WAIT_S = 120.0


def test_what_a_server_acknowledged_outlives_its_deaths(
    nursery: Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = os.environ.get("MOSS_TEST_SEED") or str(random.SystemRandom().getrandbits(32))
    print(f"MOSS_TEST_SEED={seed}")
    chance = random.Random(seed)
    with SeaweedServer() as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        url, enough = server.url("test", "outages"), tmp_path / "enough"
        *wheres, onlooker = asyncio.run(
            acquainted(nursery, tmp_path / "devices", url, "thread", DEVICES + 1)
        )
        ledgers = [tmp_path / f"{i}.ledger" for i in range(DEVICES)]
        processes = [
            nursery.start(
                "push_through_outages",
                where=where,
                session="thread",
                tag=f"d{i}",
                ledger=ledger,
                enough=enough,
            )
            for i, (where, ledger) in enumerate(zip(wheres, ledgers, strict=True))
        ]
        for _ in range(DEATHS):
            everybody_pushes(ledgers, processes)
            time.sleep(chance.uniform(0, 0.3))
            server.kill()
            pushed = {id for path in ledgers for id in read_account(path).pushed or {}}
            server.start()
            # At once, before any device has repaired anything.
            found = asyncio.run(texts_at(onlooker))
            assert {id: text_of(id) for id in pushed}.items() <= found.items()
        everybody_pushes(ledgers, processes)
        enough.touch()
        for process in processes:
            process.finish(WAIT_S)
        accounts = [read_account(path) for path in ledgers]
        expected = {id: text_of(id) for account in accounts for id in account.acknowledged}
        expected["before"] = text_of("before")
        for where in (onlooker, *wheres):
            assert asyncio.run(texts_at(where)) == expected
        for where in wheres:
            assert_settled(replica_state(where, "thread"))
        outages = sum(process.log.read_text().count("push") for process in processes)
        print(f"{sum(len(a.pushes) for a in accounts)} pushes, {outages} refused")
        assert outages > 0, "no push has met a death"


def everybody_pushes(ledgers: list[Path], processes: list[Process]) -> None:
    """Return once every process has pushed once more than now."""
    before = [len(read_account(path).pushes) for path in ledgers]
    deadline = time.monotonic() + WAIT_S
    for number, path, process in zip(before, ledgers, processes, strict=True):
        while len(read_account(path).pushes) <= number:
            assert time.monotonic() < deadline, process.log.read_text()
            time.sleep(0.01)


async def texts_at(where: Where) -> dict[str, str]:
    """Return what a device has once it has pulled; a server that just came up may still refuse."""
    async with client_at(where) as client, asyncio.timeout(WAIT_S):
        index = await client.session("thread", "custom", auto_load_on_init=False)
        while True:
            try:
                await index.pull()
                break
            except NetworkError as error:
                print(f"a pull was refused: {error}")
                await asyncio.sleep(0.1)
        return {known.id: known.text for known in await index.get_docs()}
