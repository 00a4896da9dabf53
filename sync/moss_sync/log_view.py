"""What a device remembers of a log: which blobs it has read, and what they told.

Rules of this file: values in, values out.
What holds (tests/moss_sync/test_log_blob.py): `decode(encode(x)) == x`.

Losing any of it loses no record: a blob that is not remembered is read again, and merging it again
changes nothing. So it is kept beside the records, in a transaction of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from moss_sync.coverage import Coverage, coverage_of, floor_fields, floor_of
from moss_sync.errors import BlobCorruptError
from moss_sync.log_blob import Since
from moss_sync.packing import (
    as_bytes,
    as_list,
    as_map,
    as_str,
    as_uint,
    pack,
    unpack,
)
from moss_sync.record import DEVICE_BYTES, VectorSpace
from moss_sync.segment import space_fields, space_of

VERSION = 1
MAX_VIEW_BYTES = 64 * 1024 * 1024

OWN_TIPS = 256
"""So many of the device's own pushes are known by their tip: another blob under one of those
numbers comes from a copy of this file."""


@dataclass(frozen=True, slots=True)
class Held:
    """A blob of the store whose records are here.

    Attributes:
        covers, replaces, whole: As in LogBlob.
        at_ms: When it was read here, by this machine's clock.
        bytes: Of the sealed blob; plain: of the segment before compression.
        docs, tombs: What is in it.
        oldest_tomb: The lowest stamp of a tombstone in it (hlc); 0 where there is none.
        fp: The space of its vectors; None where there are none.
    """

    covers: Coverage
    replaces: tuple[str, ...]
    whole: Mapping[bytes, int]
    at_ms: int
    bytes: int
    plain: int
    docs: int
    tombs: int
    oldest_tomb: int = 0
    fp: str | None = None


@dataclass(frozen=True, slots=True)
class Partial:
    """A file that was not wholly there when it was last looked at."""

    etag: str
    have: int
    size: int
    since_ms: int


class Unread(NamedTuple):
    """A blob that could not be read, in the state that the store had it in.

    Attributes:
        etag: Of that state; empty where the store does not say.
        reason: Why.
    """

    etag: str
    reason: str


@dataclass(frozen=True, slots=True)
class View:
    """What a device remembers of a session's log.

    Attributes:
        held: The blobs that the store had at the last look and whose records are here, by name.
        known: All pushes whose records were ever here.
        floors: What was said to be whole, as far as nothing says more.
        high: The highest stamp that is known to be in the store (hlc).
        own: The tips of this device's own last pushes, by number.
        head_ms, head_applied: When this device last wrote its head, and what stood there as
            applied; head_ms is None before the first.
        space, since: The session's vector space, and of when it is.
        aside: Blobs with vectors of another space, each with the id of that.
        partial: Files that were not wholly there.
        unread: Blobs that are damaged, or of a newer version, as they were last looked at.
    """

    held: Mapping[str, Held] = field(default_factory=dict)
    known: Coverage = field(default_factory=Coverage)
    floors: tuple[Mapping[bytes, int], ...] = ()
    high: int = 0
    own: Mapping[int, bytes] = field(default_factory=dict)
    head_ms: int | None = None
    head_applied: Mapping[bytes, int] = field(default_factory=dict)
    space: VectorSpace | None = None
    since: Since | None = None
    aside: Mapping[str, str] = field(default_factory=dict)
    partial: Mapping[str, Partial] = field(default_factory=dict)
    unread: Mapping[str, Unread] = field(default_factory=dict)

    @property
    def tip(self) -> bytes:
        """The tip of this device's last push; empty before the first."""
        return self.own[max(self.own)] if self.own else b""


def encode(view: View) -> bytes:
    """Return the view as bytes."""
    return pack(
        {
            "v": VERSION,
            "held": {name: _held_fields(held) for name, held in view.held.items()},
            "known": view.known.fields(),
            "floors": [floor_fields(floor) for floor in view.floors],
            "high": view.high,
            "own": dict(view.own),
            "head_ms": view.head_ms,
            "head_applied": floor_fields(view.head_applied),
            "space": None if view.space is None else space_fields(view.space),
            "since": None if view.since is None else list(view.since),
            "aside": dict(view.aside),
            "partial": {
                name: [each.etag, each.have, each.size, each.since_ms]
                for name, each in view.partial.items()
            },
            "unread": {name: list(each) for name, each in view.unread.items()},
        },
        max_bytes=MAX_VIEW_BYTES,
        what="what is remembered of a log",
    )


def decode(data: bytes | None) -> View:
    """Return the view of `encode`; None is one that knows nothing.

    Raises:
        BlobCorruptError: it is none.
    """
    if data is None:
        return View()
    what = "what is remembered of a log"
    fields = unpack(data, max_bytes=MAX_VIEW_BYTES, what=what)
    try:
        if as_uint(fields["v"]) != VERSION:
            # A newer version's memory: forgotten, which costs a reading of the log.
            return View()
        return View(
            held={as_str(name): _held(item) for name, item in as_map(fields["held"]).items()},
            known=coverage_of(fields["known"]),
            floors=tuple(floor_of(floor) for floor in as_list(fields["floors"])),
            high=as_uint(fields["high"]),
            own={as_uint(n): as_bytes(tip) for n, tip in as_map(fields["own"]).items()},
            head_ms=None if fields["head_ms"] is None else as_uint(fields["head_ms"]),
            head_applied=floor_of(fields["head_applied"]),
            space=None if fields["space"] is None else space_of(fields["space"]),
            since=None if fields["since"] is None else _since(fields["since"]),
            aside={as_str(k): as_str(v) for k, v in as_map(fields["aside"]).items()},
            partial={
                as_str(name): _partial(item) for name, item in as_map(fields["partial"]).items()
            },
            unread={as_str(name): _unread(item) for name, item in as_map(fields["unread"]).items()},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BlobCorruptError(f"{what} does not decode: {type(error).__name__}") from error


def _held_fields(held: Held) -> list[Any]:
    return [
        held.covers.fields(),
        list(held.replaces),
        floor_fields(held.whole),
        held.at_ms,
        held.bytes,
        held.plain,
        held.docs,
        held.tombs,
        held.oldest_tomb,
        held.fp,
    ]


def _held(item: Any) -> Held:
    covers, replaces, whole, at_ms, size, plain, docs, tombs, oldest, fp = as_list(item)
    return Held(
        coverage_of(covers),
        tuple(as_str(name) for name in as_list(replaces)),
        floor_of(whole),
        as_uint(at_ms),
        as_uint(size),
        as_uint(plain),
        as_uint(docs),
        as_uint(tombs),
        as_uint(oldest),
        None if fp is None else as_str(fp),
    )


def _since(item: Any) -> Since:
    ms, dev = as_list(item)
    return Since(as_uint(ms), as_bytes(dev, DEVICE_BYTES))


def _partial(item: Any) -> Partial:
    etag, have, size, since_ms = as_list(item)
    return Partial(as_str(etag), as_uint(have), as_uint(size), as_uint(since_ms))


def _unread(item: Any) -> Unread:
    etag, reason = as_list(item)
    return Unread(as_str(etag), as_str(reason))
