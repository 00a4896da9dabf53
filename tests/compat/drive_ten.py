"""ten-moss: a conversation's session."""

from __future__ import annotations

import asyncio

from ten_moss import DocumentInfo, MossSessionConfig, MossSessionManager

from tests.compat.facts import ASKED, CHANGED, FACTS, PROJECT


async def drive() -> None:
    config = MossSessionConfig(
        moss_project_id=PROJECT[0],
        moss_project_key=PROJECT[1],
        moss_index_name="call",
        moss_top_k=1,
    )
    manager = MossSessionManager.from_config(config)
    assert manager.doc_count == 0
    await manager.open()
    assert await manager.query_context(ASKED) == ""
    assert await manager.add_docs(FACTS) == (3, 0)
    assert manager.doc_count == 3
    context = await manager.query_context(ASKED)
    assert FACTS[0].text in context, context
    assert FACTS[1].text not in context
    assert isinstance(manager.last_time_taken_ms, int)
    assert await manager.add_docs([CHANGED]) == (0, 1)
    assert CHANGED.text in await manager.query_context(ASKED)
    assert await manager.delete_docs(["refund", "nobody"]) == 1
    assert [each.id for each in await manager.get_docs()] == ["hours", "phone"]
    pushed = await manager.push_index()
    assert (pushed.index_name, pushed.doc_count) == ("call", 2)

    resumed = MossSessionManager.from_config(config)
    await resumed.open()
    assert resumed.doc_count == 2
    await resumed.add_docs([DocumentInfo("turn-1", "hello")])
    assert resumed.doc_count == 3

    off = MossSessionManager.from_config(MossSessionConfig(enable_moss=False))
    await off.open()
    assert await off.query_context(ASKED) == ""


asyncio.run(drive())
print("session manager: opened, indexed, queried, updated, deleted, pushed, resumed")
