"""Store URLs: a store, or an InvalidArgumentError; opening one makes no file and no connection, and
no secret that stands in a URL comes back in an error."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fuzz.shapes import scratch, text_of
from moss_sync import InvalidArgumentError
from moss_sync.stores import open_store


def one(data: bytes) -> None:
    url = text_of(data)
    before = sorted(Path(scratch()).iterdir())
    try:
        store = open_store(url)
    except InvalidArgumentError as error:
        assert "hunter2secret" not in str(error)
        return
    assert isinstance(store.url, str)
    asyncio.run(store.close())
    assert sorted(Path(scratch()).iterdir()) == before
