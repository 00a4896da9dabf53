"""One session, or one object in the bucket, stands in the way of no other session."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from moss_sync.commit import Commit
from moss_sync.directory import Known, find_session, list_sessions, survey
from moss_sync.stores import MemoryStore
from moss_sync.stores.base import Listed
from tests.devices import Device
from tests.moss_sync.hostile import Harm, manifests_harmed, packed_as_it_is


class VagueStore(MemoryStore):
    """Lists without saying what state and size things have."""

    async def keys(
        self, prefix: str, *, start_after: str = "", limit: int = 1000
    ) -> Sequence[Listed]:
        found = await super().keys(prefix, start_after=start_after, limit=limit)
        return [Listed(each.key, None, None) for each in found]  # type: ignore[arg-type]  # the point


async def pushed(store: MemoryStore, directory: Path, name: str, commit: Commit) -> Device:
    number = len(list(directory.iterdir()))
    device = Device(
        directory / f"{number}.sqlite3", store, seed=number, session=name, commit=commit
    )
    device.put("turn-1", f"hello {name}")
    await (device.engine if commit == "cas" else device.log).push()
    return device


def sets(**changes: Any) -> Harm:
    return lambda fields: fields.update(changes)


MANIFESTS: dict[str, Harm] = {
    "of an empty name": sets(name=""),
    "of a huge name": sets(name="x" * 1_000_000),
    "of a name that is half a pair": sets(name="\ud800"),
    "of no name": sets(name=None),
    "of another session's name": sets(name="one"),
    "of absurd times": sets(ct=2**63 - 1),
    "of times past every number": sets(ct=2**64 - 1),
    "of absurd numbers": sets(seq=2**63 - 1),
    "of another version": sets(v=2),
    "of an invented feature": sets(feat_r=["x" * 100_000]),
    "of nothing": lambda fields: fields.clear(),
    "of very much": sets(zz_later=bytes(2_000_000)),
}


@pytest.mark.parametrize("harm", MANIFESTS.values(), ids=MANIFESTS)
def test_a_manifest_that_cannot_be_read_is_told_by_its_id_and_hides_no_other(
    tmp_path: Path, harm: Harm
) -> None:
    async def story() -> None:
        store = MemoryStore()
        await pushed(store, tmp_path, "one", "cas")
        with manifests_harmed(harm):
            odd = await pushed(store, tmp_path, "odd", "cas")
        two = await pushed(store, tmp_path, "two", "cas")
        sid = odd.engine._channel.sid(await odd.repository.attach())
        found = await list_sessions(two.repository)
        assert [each.name for each in found.sessions] == ["one", "two"]
        [error] = found.unreadable
        assert sid in str(error)
        assert len(str(error)) < 500
        seen = await survey(two.repository, {"two": None})
        assert seen.elsewhere == ("one",)
        assert len(seen.unreadable) == 1

    asyncio.run(story())


STRAYS = ["readme.txt", "x", "a" * 25, "a" * 27, "a" * 26 + "-", "a/b", "0" * 26, "z" * 190]


@pytest.mark.parametrize("commit", ["cas", "log"])
def test_what_somebody_else_has_put_there_is_not_read_and_hides_nothing(
    tmp_path: Path, commit: Commit
) -> None:
    async def story() -> None:
        store = MemoryStore()
        one = await pushed(store, tmp_path, "one", commit)
        prefix = one.repository.layout.prefix
        sid = one.engine._channel.sid(await one.repository.attach())
        for stray in STRAYS:
            for place in ("", "m/", f"{sid}/", f"{sid}/s/", f"{sid}/b/", f"{sid}/l/"):
                await store.put(f"{prefix}{place}{stray}", b"of somebody else's")
        two = await pushed(store, tmp_path, "two", commit)
        found = await list_sessions(two.repository)
        assert [each.name for each in found.sessions] == ["one", "two"]
        assert len(found.unreadable) == (commit == "cas")
        again = one.engine if commit == "cas" else one.log
        one.put("turn-2", "goes on")
        await again.sync()
        await again.compact()
        fresh = await pushed(store, tmp_path, "one", commit)
        await (fresh.engine if commit == "cas" else fresh.log).pull()
        assert fresh.texts.keys() == {"turn-1", "turn-2"}

    asyncio.run(story())


@pytest.mark.parametrize("commit", ["cas", "log"])
def test_a_listing_without_states_and_sizes_lists_and_exchanges(
    tmp_path: Path, commit: Commit
) -> None:
    async def story() -> None:
        store = VagueStore()
        one = await pushed(store, tmp_path, "one", commit)
        two = await pushed(store, tmp_path, "two", commit)
        known: Known = {}
        for _ in range(2):
            found = await list_sessions(two.repository, known)
            assert [each.name for each in found.sessions] == ["one", "two"]
        one.put("turn-2", "more")
        exchange = one.engine if commit == "cas" else one.log
        await exchange.sync()
        assert (await find_session(two.repository, "one")) is not None
        commits = {
            each.name: each.commits
            for each in (await list_sessions(two.repository, known)).sessions
        }
        assert commits == {"one": 2, "two": 1}
        await exchange.compact()
        await exchange.sync()

    asyncio.run(story())


def test_a_session_whose_small_push_is_damaged_is_still_listed(tmp_path: Path) -> None:
    def harm(fields: dict[str, Any]) -> None:
        fields["inl"][-1]["payload"] = packed_as_it_is({})

    async def story() -> None:
        store = MemoryStore()
        with manifests_harmed(harm):
            one = await pushed(store, tmp_path, "one", "cas")
        found = await list_sessions(one.repository)
        assert [(each.name, each.documents) for each in found.sessions] == [("one", None)]

    asyncio.run(story())


HEADS: dict[str, dict[str, Any]] = {
    "of an empty name": {"name": ""},
    "of a huge name": {"name": "x" * 1_000_000},
    "of another session": {"name": "one"},
    "of absurd times": {"ct": 2**63 - 1},
    "of an absurd number": {"n": 2**63 - 1},
    "of a later version": {"v": 2},
    "of a huge floor": {"applied": {b"device-A": 2**63 - 1}},
}


@pytest.mark.parametrize("changes", HEADS.values(), ids=HEADS)
def test_a_head_that_cannot_be_read_hides_no_other_session(
    tmp_path: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from moss_sync import log_blob
    from moss_sync.packing import unpack

    async def story() -> None:
        store = MemoryStore()
        await pushed(store, tmp_path, "one", "log")
        shipped = log_blob.encode_head

        def encode_head(head: log_blob.Head) -> bytes:
            fields = unpack(shipped(head), max_bytes=log_blob.MAX_HEAD_BYTES, what="a head")
            return packed_as_it_is({**fields, **changes})

        with monkeypatch.context() as patch:
            patch.setattr(log_blob, "encode_head", encode_head)
            await pushed(store, tmp_path, "odd", "log")
        two = await pushed(store, tmp_path, "two", "log")
        found = await list_sessions(two.repository)
        assert [each.name for each in found.sessions] == ["one", "two"]
        assert len(found.unreadable) == 1
        assert len(str(found.unreadable[0])) < 500

    asyncio.run(story())
