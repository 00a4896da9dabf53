"""Two hundred sessions open in one client do not use up the process's descriptors."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from moss_local import MossClient, QueryOptions, SessionIndex
from moss_local.storage.file import MAX_OPEN_FILES
from tests.processes.documents import document, vector_of
from tests.processes.jobs import Where, client_at

SESSIONS = 200
PER_FILE = 6
"""A reader's and a writer's connection, each with its file and log, and the index they share."""


def open_descriptors() -> int:
    for listing in (Path("/proc/self/fd"), Path("/dev/fd")):  # Linux; the other Unixes
        if listing.is_dir():
            return len(os.listdir(listing))
    count = 0
    for descriptor in range(4096):
        try:
            os.fstat(descriptor)
        except OSError:
            continue
        count += 1
    return count


def test_two_hundred_open_sessions_keep_few_files_open_and_all_work(
    device: Callable[..., Where],
) -> None:
    async def main(client: MossClient) -> None:
        before = most = open_descriptors()
        sessions: list[SessionIndex] = []
        for number in range(SESSIONS):
            session = await client.session(f"s-{number}", "custom", auto_load_on_init=False)
            await session.add_docs([document(f"first.{number}")])
            sessions.append(session)
            most = max(most, open_descriptors())
        # And once more through all of them, those that were closed meanwhile too.
        for number, session in enumerate(sessions):
            await session.add_docs([document(f"second.{number}")])
            found = await session.query("", QueryOptions(embedding=vector_of(f"first.{number}")))
            assert found.docs[0].id == f"first.{number}"
            assert session.doc_count == 2
            most = max(most, open_descriptors())
        assert most - before > MAX_OPEN_FILES, "the count sees no files"
        assert most - before <= (MAX_OPEN_FILES + 1) * PER_FILE

    with client_at(device("laptop")) as client:
        before = open_descriptors()
        asyncio.run(main(client))
        asyncio.run(client.close())
        assert open_descriptors() <= before + PER_FILE


def test_many_tasks_over_more_sessions_than_may_be_open_lose_nothing(
    device: Callable[..., Where],
) -> None:
    async def work(client: MossClient, number: int) -> None:
        session = await client.session(f"s-{number}", "custom", auto_load_on_init=False)
        for each in range(3):
            await session.add_docs([document(f"doc.{each}")])
            assert session.doc_count == each + 1
            await asyncio.sleep(0)

    async def main(client: MossClient) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(MAX_OPEN_FILES + 40):
                tasks.create_task(work(client, number))

    with client_at(device("laptop")) as client:
        asyncio.run(main(client))
