"""Processes of devices that all push to one session at one moment, on a real S3 server.

Fifty of them, with times: `python -m benchmarks.bench_race`.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.processes.audit import assert_settled, replica_state
from tests.processes.documents import text_of
from tests.processes.jobs import Where, client_at
from tests.processes.nursery import Nursery
from tests.processes.racing import acquainted, race


@pytest.mark.parametrize("count", [2, 12])
def test_everybody_who_pushes_at_once_is_committed_once(
    count: int, nursery: Nursery, s3_url: str, tmp_path: Path
) -> None:
    wheres = asyncio.run(acquainted(nursery, tmp_path / "devices", s3_url, "thread", count))
    results = race(
        nursery,
        tmp_path / "race",
        "push_at_once",
        [{"where": w, "session": "thread", "id": f"turn-{i}"} for i, w in enumerate(wheres)],
        seconds=120,
    )
    assert [result["error"] for result in results] == [None] * count
    assert [result["sent"] for result in results] == [1] * count
    # Whoever did not win a compare-and-swap was committed by somebody who did.
    won = sum(result["won"] for result in results)
    assert won + sum(result["adopted"] for result in results) == count
    assert 1 <= won <= count

    late: Where = {**wheres[0], "data_dir": str(tmp_path / "late")}
    assert asyncio.run(texts_at(late)) == {
        id: text_of(id) for id in ["before", *(result["id"] for result in results)]
    }
    for where in wheres:
        assert_settled(replica_state(where, "thread"))


async def texts_at(where: Where) -> dict[str, str]:
    async with client_at(where) as client:
        index = await client.session("thread", "custom")
        return {known.id: known.text for known in await index.get_docs()}
