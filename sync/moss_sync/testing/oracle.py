"""What must hold, checked at every commit, every change of a device's rows, and at the end.

The oracle reads the store behind everybody's back, at the very moment of each write. The truth is
what the commits say: every pushed record that a manifest has ever listed, and of each document the
highest version among them. Nobody may lose that, nobody may bring back what lost to it, and no
device may believe that something was committed which is not in it.

Each check has a name (see CHECKS) and the number of the invariant of SYNC-PROTOCOL 3 it stands for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from moss_sync import manifest, segment
from moss_sync.channel import manifest_identity
from moss_sync.errors import MossError
from moss_sync.hlc import stamp_limit
from moss_sync.keyring import Keys
from moss_sync.layout import base_of, parts_of
from moss_sync.manifest import Manifest
from moss_sync.merge import newest
from moss_sync.record import Record, Version
from moss_sync.seal import BlobIdentity, unseal
from moss_sync.setbacks import Setback, lowered, with_lowered
from moss_sync.testing.copies import Look, Row
from moss_sync.times import MAX_DRIFT_MS

CHECKS: Mapping[str, str] = {
    "no lost update": "1",
    "acknowledged is committed": "1, 7",
    "no resurrection": "2",
    "convergence": "3",
    "repetition changes nothing": "4",
    "no dangling reference": "5",
    "monotone": "6",
    "floors": "6",
    "once": "7",
    "success is true": "7",
    "cost": "8",
    "bounded": "8",
    "liveness": "9",
    "causality": "10",
    "whole after a crash": "11",
    "named errors": "12",
    "copies": "14",
    "adoption": "16",
}
"""Every check, and the invariants of SYNC-PROTOCOL 3 that it stands for."""


class ViolationError(AssertionError):
    """Something that must hold does not.

    Attributes:
        check: A key of CHECKS.
    """

    def __init__(self, check: str, message: str) -> None:
        super().__init__(f"{check} (invariant {CHECKS[check]}): {message}")
        self.check = check


def require(holds: bool, check: str, message: str | Callable[[], str]) -> None:
    """Raise ViolationError unless `holds`."""
    if not holds:
        raise ViolationError(check, message if isinstance(message, str) else message())


@dataclass(slots=True)
class Fact:
    """One committed version of one document.

    Attributes:
        seq: The commit that carried it.
        life: Of the session, when it did.
    """

    version: Version
    deleted: bool
    seq: int
    life: tuple[int, int]


class Oracle:
    """Knows what was committed to one session.

    Args:
        blob: Returns the bytes under a name of the session, or None.
    """

    def __init__(self, keys: Keys, sid: str, *, blob: Callable[[str], bytes | None]) -> None:
        self._keys = keys
        self._sid = sid
        self._blob = blob
        self._listed: dict[str, list[Record]] = {}
        self._inline: dict[tuple[bytes, int], list[Record]] = {}
        self._pushes: set[tuple[bytes, int]] = set()
        self._last_commit: dict[bytes, int] = {}
        self.current: Manifest | None = None
        self.sealed_bytes = 0
        self.facts: dict[str, dict[Version, Fact]] = {}
        self.newest: dict[str, Fact] = {}
        self.stats: Counter[str] = Counter()

    # -- the store -------------------------------------------------------------------------

    def committed(self, sealed: bytes) -> None:
        """The manifest was replaced: check the commit, and learn from it."""
        plain = unseal(
            self._keys.roots,
            manifest_identity(self._keys, self._sid),
            sealed,
            max_plain=manifest.MAX_PLAIN_BYTES,
        )
        after = manifest.decode(plain, what="the new manifest")
        before, self.current = self.current, after
        self.sealed_bytes = len(sealed)
        self.stats["commits"] += 1
        self._check_succession(before, after)
        if before is not None and after.setbacks != before.setbacks:
            self._fall(after)
        self._read_new_names(after)
        self._learn(before, after)
        self._check_devices(before, after)
        self._check_visible(after)

    def removed(self, name: str) -> None:
        """A blob of the session was deleted."""
        if self.current is not None:
            require(
                all(entry.name != name for entry in self.current.entries),
                "no dangling reference",
                f"{name} was deleted while listed in commit {self.current.seq}",
            )
        self.stats["blobs collected"] += 1

    def _check_succession(self, before: Manifest | None, after: Manifest) -> None:
        if before is None:
            require(after.seq == 1, "monotone", f"the first commit is {after.seq}")
            return
        require(
            after.seq == before.seq + 1 or after.repairs > before.repairs,
            "monotone",
            f"{after.seq} follows {before.seq}",
        )
        if after.repairs == before.repairs:
            require(after.ct > before.ct, "monotone", f"ct rose from {before.ct} to {after.ct}")
        for what, old, new in (
            ("gc_floor", before.gc_floor, after.gc_floor),
            ("tomb_floor.seq", before.tomb_seq, after.tomb_seq),
            (
                "tomb_floor.hlc",
                min(before.tomb_hlc, stamp_limit(after.ct)),
                after.tomb_hlc,
            ),
            ("gen", before.gen, after.gen),
            ("repairs", before.repairs, after.repairs),
        ):
            require(new >= old, "monotone", f"{what} fell from {old} to {new} at {after.seq}")
        require(
            after.tomb_seq <= after.gc_floor <= after.seq,
            "floors",
            f"tombstones {after.tomb_seq}, collection {after.gc_floor}, commit {after.seq}",
        )
        if after.gen > before.gen:
            self.stats["generations"] += 1
        elif after.repairs > before.repairs:
            self.stats["repairs"] += 1
        elif after.tomb_seq > before.tomb_seq:
            self.stats["purges"] += 1
            self._check_purge(before, after)

    def _check_purge(self, before: Manifest, after: Manifest) -> None:
        """What is left as it was must have been written by who had seen what is forgotten."""
        old = {entry.name for entry in before.entries}
        for entry in after.entries:
            require(
                entry.name not in old
                or (entry.bmin >= after.tomb_seq and entry.lo >= after.tomb_seq),
                "floors",
                f"{entry.name} (lo {entry.lo}, bmin {entry.bmin}) was kept below {after.tomb_seq}",
            )
        for item in after.inline:
            require(
                item.seq > after.tomb_seq and item.base >= after.tomb_seq,
                "floors",
                f"an inline push of base {item.base} was kept below {after.tomb_seq}",
            )

    def _fall(self, after: Manifest) -> None:
        """A repair has let time fall, and every stamp of before with it."""
        self.stats["setbacks"] += 1

        def fallen(records: list[Record]) -> list[Record]:
            return with_lowered(records, after.setbacks)

        self._listed = {name: fallen(records) for name, records in self._listed.items()}
        self._inline = {push: fallen(records) for push, records in self._inline.items()}
        for id, facts in self.facts.items():
            for version, fact in list(facts.items()):
                facts.setdefault(*_fallen(version, fact, after.setbacks))
            if id in self.newest:
                newest = self.newest[id]
                _, self.newest[id] = _fallen(newest.version, newest, after.setbacks)
        for id, record in self.visible().items():
            # Of versions that nobody had seen of each other, the later commit wins from now on.
            known = self.facts.get(id, {}).setdefault(
                record.version, Fact(record.version, record.deleted, after.seq, _life(after))
            )
            if id in self.newest and known.version > self.newest[id].version:
                self.newest[id] = known

    def _read_new_names(self, after: Manifest) -> None:
        listed: dict[str, list[Record]] = {}
        for entry in after.entries:
            known = self._listed.get(entry.name)
            if known is None:
                data = self._blob(entry.name)
                if data is None:
                    raise ViolationError(
                        "no dangling reference",
                        f"commit {after.seq} lists {entry.name}, which is not there",
                    )
                known = self._records(entry.name, data, entry.hi, entry.ct, lvl=entry.lvl)
            listed[entry.name] = known
        self._listed = listed

    def _records(self, name: str, data: bytes, seq: int, ct: int, *, lvl: int) -> list[Record]:
        place = BlobIdentity(self._keys.repo_id, self._sid, "segment", parts_of(name).stem)
        try:
            plain = unseal(self._keys.roots, place, data, max_plain=segment.MAX_PLAIN_BYTES)
            records = segment.decode(plain, what=name, commit_seq=seq).records
        except MossError as error:
            raise ViolationError("no lost update", f"{name} is unreadable: {error}") from error
        records = list(records) if lvl else self.as_committed(records, ct)
        return records if self.current is None else with_lowered(records, self.current.setbacks)

    def as_committed(self, records: Sequence[Record], ct: int) -> list[Record]:
        """Return records as everybody takes them from a commit of that time.

        Told once more here, and not asked of the program: no stamp is more than MAX_DRIFT_MS past
        it.
        """
        limit = (ct + MAX_DRIFT_MS) << 16
        return [
            record
            if record.version.hlc <= limit
            else replace(record, version=record.version._replace(hlc=limit))
            for record in records
        ]

    def _learn(self, before: Manifest | None, after: Manifest) -> None:
        """Learn which pushes are new, and that each is in once."""
        if before is not None and after.gen > before.gen:
            self.newest.clear()
        old = set() if before is None else {entry.name for entry in before.entries}
        floor = 0 if before is None else before.gc_floor
        outputs = 0
        carried: set[bytes] = set()
        for entry in after.entries:
            if entry.name in old:
                continue
            require(
                base_of(entry.name) >= floor,
                "adoption" if entry.name.startswith("s/") else "floors",
                f"{entry.name} was listed below the floor {floor} in commit {after.seq}",
            )
            if entry.lvl > 0:
                outputs += 1
                self._check_output(entry.name)
                continue
            _, dev, number, _ = entry.name[2:].split("-")
            carried.add(bytes.fromhex(dev))
            self._push(after, bytes.fromhex(dev), int(number, 16), self._listed[entry.name])
            require((entry.lo, entry.hi) == (after.seq - 1, after.seq), "once", entry.name)
        inline, self._inline = self._inline, {}
        for item in after.inline:
            records = inline.get((item.dev, item.n))
            if records is None:
                require(item.base >= floor, "floors", f"push {item.n} inline below {floor}")
                decoded = segment.decode(item.payload, what="inline", commit_seq=item.seq)
                records = self.as_committed(decoded.records, item.ct)
                carried.add(item.dev)
                self._push(after, item.dev, item.n, records)
            self._inline[item.dev, item.n] = records
        if outputs:
            self.stats["compactions"] += 1
        self.stats["adoptions"] += len(carried - {after.by})

    def _push(self, after: Manifest, dev: bytes, n: int, records: list[Record]) -> None:
        require(
            (dev, n) not in self._pushes,
            "once",
            f"push {n} of {dev.hex()} was committed again by {after.by.hex()} in {after.seq}",
        )
        self._pushes.add((dev, n))
        self._last_commit[dev] = after.seq
        self.stats["pushes committed"] += 1
        for record in records:
            fact = Fact(record.version, record.deleted, after.seq, _life(after))
            facts = self.facts.setdefault(record.id, {})
            known = self.newest.get(record.id)
            self._check_not_again(record, facts, known)
            facts.setdefault(record.version, fact)
            if known is None or record.version > known.version:
                self.newest[record.id] = fact

    def _check_not_again(
        self, record: Record, facts: Mapping[Version, Fact], newest: Fact | None
    ) -> None:
        """A document that was committed before must not come back over what has beaten it."""
        if record.deleted or newest is None or record.version <= newest.version:
            return
        for version in facts:
            require(
                version[1:] != record.version[1:] or version[1:] == newest.version[1:],
                "copies",
                f"{record.id!r} came back as {_stamp(record.version)}, after "
                f"{_stamp(version)} had lost to {_stamp(newest.version)}",
            )

    def _check_output(self, name: str) -> None:
        for record in self._listed[name]:
            require(
                record.version in self.facts.get(record.id, {}),
                "no lost update",
                f"compaction made up a version of {record.id!r}: {record.version}",
            )

    def _check_devices(self, before: Manifest | None, after: Manifest) -> None:
        for dev, device in after.devs.items():
            require(
                device.n == 0 or (dev, device.n) in self._pushes,
                "once",
                f"{dev.hex()} is said to have committed {device.n} at {after.seq}",
            )
        if before is None or after.repairs > before.repairs:
            return
        for dev, old in before.devs.items():
            new = after.devs.get(dev)
            if new is None:
                self.stats["retirements"] += 1
                last = self._last_commit.get(dev, 0)
                require(
                    after.gc_floor >= last,
                    "floors",
                    f"{dev.hex()} was retired, its last commit {last}, floor {after.gc_floor}",
                )
            else:
                require(new.n >= old.n, "monotone", f"{dev.hex()} fell from {old.n} to {new.n}")

    def _check_visible(self, after: Manifest) -> None:
        """A fresh device would read of every document the highest version ever committed."""
        visible = self.visible()
        for id, fact in self.newest.items():
            shown = visible.get(id)
            if shown is not None and shown.version == fact.version:
                continue
            gone = shown is None or shown.deleted
            require(
                fact.deleted or not gone,
                "no lost update",
                f"{id!r} is at {_short(shown)} after commit {after.seq}, "
                f"of which {_short_fact(fact)} was committed",
            )
            require(
                gone,
                "no resurrection" if fact.deleted else "no lost update",
                f"{id!r} shows {_short(shown)} after commit {after.seq}, "
                f"though {_short_fact(fact)} was committed",
            )
            require(
                fact.seq <= after.tomb_seq,
                "no lost update",
                f"the deletion of {id!r} in commit {fact.seq} is gone above {after.tomb_seq}",
            )

    def visible(self) -> dict[str, Record]:
        """Return what a fresh device would read: the newest listed version of every id."""
        return newest(
            record
            for records in (*self._listed.values(), *self._inline.values())
            for record in records
        )

    # -- the devices -----------------------------------------------------------------------

    def rows_changed(self, verb: str, before: Look, after: Look) -> None:
        """A verb of a replica has changed the rows of its copy."""
        old, new = before.rows, after.rows
        set_aside = after.set_aside - before.set_aside
        for id, row in old.items():
            found = new.get(id)
            if found is None:
                set_aside -= row.dirty
                if not row.dirty:
                    self._check_removed(verb, id, row)
            elif found != row:
                self._check_replaced(verb, id, row, found, before)
        require(set_aside >= 0, "no lost update", f"{verb} dropped {-set_aside} unpushed changes")
        for id, row in new.items():
            if id not in old:
                self._check_committed(verb, id, row)

    def _check_replaced(self, verb: str, id: str, old: Row, new: Row, seen: Look) -> None:
        same = new.version[1:] == old.version[1:]
        require(
            same or new.version > old.version,
            "no lost update",
            lambda: f"{verb} replaced {_of(id, old)} by the older {_of(id, new)}",
        )
        if not new.dirty:
            self._check_committed(verb, id, new)
            return
        require(same, "no lost update", f"{verb} made up a change of {id!r}")
        if old.dirty and verb != "start_life":  # where its stamps fall with those that it beats
            self._check_beats_seen(verb, id, new, seen)

    def _check_committed(self, verb: str, id: str, row: Row) -> None:
        require(
            row.dirty or row.version in self.facts.get(id, {}),
            "acknowledged is committed",
            lambda: f"{verb} made {_of(id, row)} clean, and no commit has carried it",
        )

    def _check_removed(self, verb: str, id: str, row: Row) -> None:
        """A clean row may only go when its document was deleted, or the whole session was."""
        require(
            verb == "start_life"
            or any(
                fact.deleted and fact.version >= row.version
                for fact in self.facts.get(id, {}).values()
            ),
            "no lost update",
            lambda: f"{verb} dropped {_of(id, row)}, which nobody has deleted",
        )

    def _check_beats_seen(self, what: str, id: str, row: Row, seen: Look) -> None:
        """A version that is yet to be pushed beats all that its device has seen."""
        for fact in self.facts.get(id, {}).values():
            require(
                fact.seq > seen.applied_seq
                or fact.life != seen.life
                or row.version > fact.version
                or row.version[1:] == fact.version[1:],
                "causality",
                lambda: (
                    f"{what}: {_of(id, row)} does not beat {_short_fact(fact)}, which was "  # noqa: B023
                    f"seen by a device that had applied {seen.applied_seq}"
                ),
            )

    def edited(self, what: str, id: str, before: Look, after: Look) -> None:
        """A device has written a document: its version must beat all that the device has seen."""
        old, new = before.rows.get(id), after.rows.get(id)
        if new is None or new == old:
            return  # an unknown id was deleted
        require(new.dirty, "no lost update", f"{what} of {id!r} is not marked to be pushed")
        require(
            old is None or new.version.hlc > old.version.hlc,
            "causality",
            f"{what}: {new} does not beat {old}",
        )
        self._check_beats_seen(what, id, new, before)


def _fallen(version: Version, fact: Fact, setbacks: Sequence[Setback]) -> tuple[Version, Fact]:
    fallen = version._replace(hlc=lowered(version.hlc, fact.seq, setbacks))
    return fallen, replace(fact, version=fallen)


def _life(manifest: Manifest) -> tuple[int, int]:
    return manifest.repairs, manifest.gen


def _of(id: str, row: Row) -> str:
    state = "dirty" if row.dirty else "clean"
    kind = "deletion" if row.deleted else "version"
    return f"the {state} {kind} {_stamp(row.version)} of {id!r}"


def _short(record: Record | None) -> str:
    if record is None:
        return "nothing"
    return f"{'a deletion' if record.deleted else 'a version'} {_stamp(record.version)}"


def _short_fact(fact: Fact) -> str:
    kind = "a deletion" if fact.deleted else "a version"
    return f"{kind} {_stamp(fact.version)} in commit {fact.seq}"


def _stamp(version: Version) -> str:
    return (
        f"{version.hlc >> 16}.{version.hlc & 0xFFFF}/{version.dev.hex()[:4]}"
        f"/{version.digest.hex()[:4]}"
    )
