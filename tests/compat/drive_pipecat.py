"""pipecat-moss: a processor that adds what was found to a model's context."""

from __future__ import annotations

import asyncio

from pipecat.frames.frames import LLMContextFrame, MetricsFrame
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.tests.utils import run_test
from pipecat_moss import MossClient, MossRetrievalService

from tests.compat.facts import ASKED, CHANGED, FACTS, PROJECT, refused


async def answered(service: MossRetrievalService) -> str:
    """Send a user's question through the processor; return what it added to the context."""
    context = LLMContext([{"role": "user", "content": ASKED}])
    processor = service.query("faq", top_k=1, alpha=0.8)
    frames, _ = await run_test(
        processor,
        frames_to_send=[LLMContextFrame(context)],
        expected_down_frames=[LLMContextFrame],
        expected_up_frames=[],
    )
    assert isinstance(frames[-1], LLMContextFrame | MetricsFrame)
    added = context.get_messages()[1:]
    return str(added[0]["content"]) if added else ""


async def drive() -> None:
    client = MossClient(*PROJECT)
    await client.create_index("faq", FACTS)
    service = MossRetrievalService(project_id=PROJECT[0], project_key=PROJECT[1])
    await service.load_index("faq")
    told = await answered(service)
    assert f"1. {FACTS[0].text} (source=policy" in told, told
    assert FACTS[1].text not in told
    found = await service.query("faq").retrieve_documents(ASKED)
    assert type(found.time_taken_ms) is int
    await client.add_docs("faq", [CHANGED])
    await service.load_index("faq")
    assert CHANGED.text in await answered(service)
    await client.delete_docs("faq", ["refund"])
    await service.load_index("faq")
    assert CHANGED.text not in await answered(service)
    await client.delete_index("faq")
    with refused("faq"):
        await service.load_index("faq")


asyncio.run(drive())
print("pipeline processor: indexed, queried through frames, updated, deleted")
