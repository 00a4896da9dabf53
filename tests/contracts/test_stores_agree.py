"""Two stores judge each other: whatever is asked of them, they must answer alike."""

from __future__ import annotations

import asyncio
import tempfile
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from moss_sync import MossError
from moss_sync.stores import Blob, BlobStore, ETag, FolderStore, MemoryStore, Swapped

keys = st.sampled_from(["fmt", "m/a", "m/a-1", "m/b", "m.x/a", "s/s/0f-x"])
bodies = st.sampled_from([b"", b"one", b"two", b"three"])
etags = st.integers(0, 3)
"""Which of the ETags seen so far, the newest first; past the last one: none."""

calls = st.one_of(
    st.tuples(st.just("get"), keys, etags),
    st.tuples(st.just("put"), keys, bodies),
    st.tuples(st.just("swap"), keys, bodies, etags),
    st.tuples(st.just("keys"), st.sampled_from(["m/", "s/", "none/"]), keys, st.integers(1, 4)),
    st.tuples(st.just("delete"), keys),
)


async def answers(store: BlobStore, asked: list[tuple[Any, ...]]) -> list[object]:
    """Return every answer with its ETag replaced by the content that it stands for."""
    named: dict[ETag, bytes] = {}
    given: list[object] = []

    def known(number: int) -> ETag | None:
        recent = list(reversed(named))
        return recent[number] if number < len(recent) else None

    for verb, key, *rest in asked:
        try:
            if verb == "get":
                found = await store.get(key, if_none_match=known(rest[0]))
                if isinstance(found, Blob):
                    named[found.etag] = found.data
                    given.append(found.data)
                else:
                    given.append("not modified")
            elif verb == "put":
                await store.put(key, rest[0])
                given.append("put")
            elif verb == "swap":
                answer = await store.compare_and_swap(key, rest[0], etag=known(rest[1]))
                if isinstance(answer, Swapped):
                    named[answer.etag] = rest[0]
                given.append(type(answer))
            elif verb == "keys":
                listed = await store.keys(key, start_after=rest[0], limit=rest[1])
                given.append([(item.key, item.size, named.get(item.etag)) for item in listed])
            else:
                await store.delete(key)
                given.append("deleted")
        except MossError as error:
            given.append(type(error))
    return given


@given(asked=st.lists(calls, max_size=25))
def test_a_folder_answers_as_memory_does(asked: list[tuple[Any, ...]]) -> None:
    async def main() -> None:
        with tempfile.TemporaryDirectory() as root:
            memory, folder = MemoryStore(), FolderStore(root)
            try:
                assert await answers(folder, asked) == await answers(memory, asked)
            finally:
                await folder.close()

    asyncio.run(main())
