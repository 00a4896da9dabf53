"""Real chat messages to measure with: the chitchat-dataset package (258 000 messages, MIT)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path


def messages() -> Iterator[str]:
    """Yield messages that are not blank, in the order of the data set."""
    import chitchat_dataset

    path = Path(chitchat_dataset.__file__).parent / "dataset.json"
    for conversation in json.loads(path.read_text("utf-8")).values():
        for turn in conversation["messages"]:
            for message in turn:
                if message["text"].strip():
                    yield message["text"]


def first(count: int) -> list[str]:
    """Return the first `count` messages."""
    return list(islice(messages(), count))
