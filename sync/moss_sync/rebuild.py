"""Performing a repair: read what is left, sort it, write what is lost, and say what to commit.

What becomes of what is decided in `moss_sync.repair`. Nothing here changes the session: the blobs
that it writes are listed by the one swap that the engine makes afterwards, and what it sets aside
on this device is set aside however that ends; a crash leaves orphan blobs, which are collected.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from moss_sync import repair, tiers
from moss_sync.channel import Channel
from moss_sync.compaction import StandsFor, write_output
from moss_sync.history import Side, relate
from moss_sync.keyring import Keys
from moss_sync.manifest import Entry
from moss_sync.record import Record, VectorSpace
from moss_sync.repair import Foundation
from moss_sync.replica import Replica, ReplicaState
from moss_sync.report import RepairReport
from moss_sync.repository import Runner


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a repair's commit needs besides its foundation; as `repair.with_repair` takes it."""

    lost: frozenset[str]
    outputs: tuple[Entry, ...]


class Rebuilding:
    """One attempt of a repair, on one foundation."""

    def __init__(
        self,
        channel: Channel,
        keys: Keys,
        replica: Replica,
        run: Runner,
        *,
        state: ReplicaState,
        found: Foundation,
        known: Side | None,
        drop_unknown: bool = False,
    ) -> None:
        """Prepare it.

        Args:
            known: The newest state that this device has seen.
            drop_unknown: Leave out what only a newer version could read.
        """
        self._channel, self._keys = channel, keys
        self._replica, self._run = replica, run
        self._state, self._found, self._known = state, found, known
        self._drop_unknown = drop_unknown
        self._lost: dict[int, set[str]] = {}

    async def prepare(self, report: RepairReport) -> Prepared:
        """Read, sort and write; return what to commit.

        Raises:
            BlobNotFoundError: others have merged or collected meanwhile; begin again.
        """
        found = self._found
        for place, side in enumerate(found.sides):
            unreadable = await self._channel.unreadable(
                self._keys, side.manifest, drop_unknown=self._drop_unknown
            )
            self._lost[place] = set(unreadable)
            for damaged in unreadable.values():
                if damaged is not None:
                    await self._channel.set_aside(self._keys, report, "segment", damaged)
        lost = frozenset().union(*self._lost.values())
        report.blobs = len({entry.name for side in found.sides for entry in side.manifest.entries})
        report.lost_blobs = len(lost)
        if found.anew:
            written = await self._sorted(report)
        else:
            await self._leave_discarded(report)
            written = await self._missing() if lost else ()
        return Prepared(lost, await self._write(written))

    async def present(self) -> frozenset[tuple[str, bytes]]:
        """Return id and digest of each document and deletion that can be read of what is listed.

        Raises:
            BlobNotFoundError: as prepare, which comes before it.
        """
        found = self._found
        places = [at for at, side in enumerate(found.sides) if side in found.listed]
        records = [record for at in places for record in await self._read(at, since=0)]
        return frozenset((record.id, record.version.digest) for record in records)

    async def _sorted(self, report: RepairReport) -> Sequence[Record]:
        """Sort the records of sides that have parted; set aside what may have been deleted."""
        records = {
            place: await self._read(place, since=0) for place in range(len(self._found.sides))
        }
        if self._known is not None and self._knows_of([self._known]):
            mine = self._found.sides.index(self._known)
            records[mine] += await self._run(self._replica.records)
        result = repair.sort_out(self._found, records)
        report.quarantined += await self._run(self._replica.set_aside, result.aside)
        return result.kept

    async def _leave_discarded(self, report: RepairReport) -> None:
        """Set aside what somebody added who did not know that the session was deleted."""
        if self._found.discarded is not None:
            records = await self._read(1, since=self._found.joint)
            aside = repair.since_the_deletion(self._found, records)
            report.quarantined += await self._run(self._replica.set_aside, aside)

    async def _missing(self) -> Sequence[Record]:
        """Return what this device holds of what is lost, so that nobody sees the session without.

        Where it has missed deletions that are forgotten, it offers what it holds later, like every
        other device: by then it knows what the session has.
        """
        if not self._knows_of(self._found.listed):
            return ()
        readable: list[Record] = []
        for place, side in enumerate(self._found.sides):
            if side in self._found.listed:
                readable += await self._read(place, since=0)
        held: list[Record] = await self._run(self._replica.records)
        return repair.missing_of(held, readable)

    def _knows_of(self, sides: Iterable[Side]) -> bool:
        """Return whether this device has applied all deletions that these may have forgotten."""
        if self._known is None:
            return False
        applied = self._state.known_seq
        if self._known not in self._found.sides:
            applied = min(applied, relate(self._known, self._found.base).joint)
        return all(applied >= side.manifest.tomb_seq for side in sides)

    async def _read(self, place: int, *, since: int) -> list[Record]:
        """Return what can be read of a side and was committed after a commit."""
        current = self._found.sides[place].manifest
        segments = await self._channel.read_segments(
            self._keys,
            replace(current, space=self._space),
            tuple(
                entry
                for entry in current.entries
                if entry.hi > since and entry.name not in self._lost[place]
            ),
            tuple(item for item in current.inline if item.seq > since),
        )
        return [record for each in segments for record in each.records]

    @property
    def _space(self) -> VectorSpace | None:
        spaces = (side.manifest.space for side in self._found.sides)
        return next((space for space in spaces if space is not None), None)

    async def _write(self, records: Sequence[Record]) -> tuple[Entry, ...]:
        number = repair.next_number(self._found)
        # Named as by somebody who has applied everything: nobody collects such a name.
        author = replace(self._state, applied_seq=number - 1)
        ct = max(side.manifest.ct for side in self._found.sides)
        stands_for = StandsFor(0, number, 0, 1, ct, self._space)
        if self._space != self._state.space:
            records = [replace(record, vector=None) for record in records]
        return tuple(
            [
                await write_output(self._channel, self._keys, self._run, author, stands_for, part)
                for part in tiers.parts(records)
            ]
        )
