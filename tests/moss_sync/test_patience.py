"""Waiting for a store's first answer, and no longer: a silent store holds nobody up.

Where a time matters here, the test would last for minutes without what it tests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from moss_sync import NetworkError
from moss_sync.patience import Patience
from moss_sync.traffic import answered

SILENT_S = 0.05
FOR_EVER_S = 600.0


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(story, 60))


async def silent() -> None:
    await asyncio.sleep(FOR_EVER_S)


async def slow() -> str:
    """Answer at once, and take many times the patience to end."""
    answered()
    await asyncio.sleep(4 * SILENT_S)
    return "all of it"


def test_silence_is_given_up_by_name_and_not_waited_for_again() -> None:
    async def story() -> None:
        patience = Patience(SILENT_S, store="s3://bucket")
        for _ in range(2):
            with pytest.raises(NetworkError, match=r"no answer from s3://bucket within 0\.05 s"):
                await patience.until_answered(silent)
        with pytest.raises(NetworkError):
            await patience.until_answered(slow)  # not even begun

    run(story())


def test_after_the_first_answer_it_takes_as_long_as_it_takes() -> None:
    async def story() -> None:
        patience = Patience(SILENT_S, store="s3://bucket")
        assert await patience.until_answered(slow) == "all of it"

        async def later() -> str:
            await asyncio.sleep(4 * SILENT_S)
            return "more"

        assert await patience.until_answered(later) == "more"

    run(story())


def test_work_between_two_calls_takes_nothing_of_the_patience() -> None:
    async def story() -> None:
        patience = Patience(1.0, store="s3://bucket")

        async def nothing() -> str:
            return "done"

        await patience.until_answered(nothing)
        await asyncio.sleep(1.2)
        assert await patience.until_answered(nothing) == "done"

    run(story())


def test_an_error_of_the_work_is_its_own() -> None:
    async def story() -> None:
        patience = Patience(FOR_EVER_S, store="s3://bucket")

        async def fails() -> None:
            raise TimeoutError("its own")

        with pytest.raises(TimeoutError, match="its own"):
            await patience.until_answered(fails)

    run(story())


def test_cancelling_the_caller_is_no_silence() -> None:
    async def story() -> None:
        waiting = asyncio.ensure_future(
            Patience(FOR_EVER_S, store="s3://bucket").until_answered(silent)
        )
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    run(story())


def test_what_is_left_running_may_be_answered_later() -> None:
    async def story() -> None:
        left: list[asyncio.Task[None]] = []

        async def begins_more() -> None:
            async def more() -> None:
                await asyncio.sleep(0.01)
                answered()

            left.append(asyncio.ensure_future(more()))

        await Patience(FOR_EVER_S, store="s3://bucket").until_answered(begins_more)
        await left[0]

    run(story())
