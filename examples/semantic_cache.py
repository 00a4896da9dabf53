"""A cache that understands what was asked: python examples/semantic_cache.py

Answers of a slow model are kept by the meaning of their questions. `alpha=1.0` compares meaning
alone, and `min_score` says how near a question must be to count as the same: below it nothing is
returned, and the model is asked.
"""

from __future__ import annotations

import asyncio
import tempfile
from hashlib import sha256
from pathlib import Path

from moss_local import DocumentInfo, MossClient, QueryOptions, SessionIndex

SAME = QueryOptions(top_k=1, alpha=1.0, min_score=0.8)


class SemanticCache:
    """Answers to questions, found again by what a question means."""

    def __init__(self, session: SessionIndex) -> None:
        self._session = session
        self.asked = 0

    async def answer(self, question: str) -> str:
        found = await self._session.query(question, SAME)
        if found.docs:
            return found.docs[0].payload or ""
        self.asked += 1
        answer = ask_the_model(question)
        # The question is what is searched; the answer travels with it, unread (`payload`).
        name = sha256(question.encode()).hexdigest()[:16]
        await self._session.add_docs([DocumentInfo(name, question, payload=answer)])
        return answer


def ask_the_model(question: str) -> str:
    """Stand in for the model that costs seconds and money."""
    return "Open 9 to 5." if "open" in question.lower() else "In the menu, under Account."


async def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        async with MossClient(
            "bot", "a secret that only your devices know", store=root / "s", data_dir=root / "d"
        ) as client:
            cache = SemanticCache(await client.session("answers"))
            for question in (
                "When are you open?",
                "when are you open",
                "At what times are you open?",
                "How do I change my password?",
                "How can I change my password?",
            ):
                before = cache.asked
                answer = await cache.answer(question)
                print(f"{'model' if cache.asked > before else 'cache'}: {question} {answer}")


if __name__ == "__main__":
    asyncio.run(main())
