"""The generators of hypothesis examples besides the public ones of `moss_sync.testing.strategies`.

They keep the preconditions too: a manifest lists nothing that it has not reached.
"""

from __future__ import annotations

import random
from typing import Any

from hypothesis import strategies as st

from moss_sync.hlc import stamp_limit
from moss_sync.layout import MAX_PUSH, SegmentName, named, new_stem
from moss_sync.limits import MAX_SEQ
from moss_sync.manifest import Device, Entry, Inline, Manifest
from moss_sync.marks import marks_size
from moss_sync.record import VectorSpace
from moss_sync.seal import MAX_EPOCH
from moss_sync.testing.strategies import (
    SCRIPTS,
    devices,
    hashes,
    hlcs,
    ids,
    metadata,
    records,
    segments,
    session_names,
    spaces,
    texts,
    uints,
)
from moss_sync.times import latest

__all__ = [
    "SCRIPTS",
    "devices",
    "ids",
    "metadata",
    "records",
    "segments",
    "session_names",
    "texts",
]

NAME_KEY = bytes(range(32))
"""The name key of every generated session id, and the tag key of every segment name."""

SID = "s" * 26

pushes = st.integers(0, 9) | st.integers(0, MAX_PUSH)


def new_name(
    tag_key: bytes, sid: str, *, kind: str, base: int, dev: bytes, number: int, sealed: bytes = b""
) -> SegmentName:
    """Return the name of a blob of these bytes."""
    return named(tag_key, sid, new_stem(kind=kind, base=base, dev=dev, number=number), sealed)


unknown_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | texts | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
unknown = st.dictionaries(
    st.sampled_from(["zz_later", "zz_new", "zz_ключ"]), unknown_values, max_size=2
)
"""Keys that a later version may add; no known key begins with "zz"."""


@st.composite
def entries(draw: st.DrawFn, *, seq: int, commit_ms: int, epoch: int) -> Entry:
    """An entry of a manifest of this epoch that has reached `seq`, which must not be 0."""
    hi = draw(st.integers(1, seq))
    lo = draw(st.integers(0, hi - 1))
    kind = draw(st.sampled_from(["s", "b"]))
    level = 0 if kind == "s" else draw(st.integers(1, 15))
    base = draw(st.integers(0, lo))
    name = new_name(
        NAME_KEY,
        SID,
        kind=kind,
        base=base,
        dev=draw(devices),
        number=level or draw(st.integers(1, 9)),
        sealed=draw(st.binary(min_size=10, max_size=10)),
    )
    known = draw(st.booleans())
    return Entry(
        name=str(name),
        bytes=draw(uints),
        docs=draw(uints) if known else None,
        tombs=draw(uints) if known else None,
        lo=lo,
        hi=hi,
        bmin=base,
        lvl=level,
        ct=draw(st.integers(0, commit_ms)),
        plain=draw(uints) if known else None,
        hlc_max=draw(hlcs) if known else None,
        fp=draw(st.none() | st.just("00ff")),
        epoch=draw(st.integers(1, epoch)),
        extra={key: value for key, value in draw(unknown).items() if value is not None},
    )


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    """A manifest with unknown keys at every level that can have them."""
    seq = draw(st.integers(1, 9) | st.integers(1, MAX_SEQ))
    epoch = draw(st.integers(1, 3) | st.integers(1, MAX_EPOCH))
    counts = st.integers(0, seq)
    space = draw(st.none() | spaces)
    gc_floor = draw(st.integers(0, seq))
    commit_ms = draw(st.integers(0, latest(seq)))
    times = st.integers(0, commit_ms)
    listed = entries(seq=seq, commit_ms=commit_ms, epoch=epoch)
    inline = st.builds(
        Inline,
        dev=devices,
        n=pushes,
        base=st.integers(0, seq),
        seq=st.integers(1, seq),
        ct=times,
        payload=st.binary(max_size=20),
        extra=unknown,
    )
    known = st.builds(
        Device,
        n=pushes,
        acked_seq=counts,
        last_ct=times,
        seq=st.integers(1, seq),
        inc=st.binary(min_size=8, max_size=8),
        tip=st.binary(min_size=16, max_size=16),
        label=st.none() | session_names,
        extra=unknown,
    )
    extra = dict(draw(unknown))
    if draw(st.booleans()):
        extra["tomb_floor"] = {"zz_later": draw(unknown_values)}
    if draw(st.booleans()):
        extra["models"] = draw(models(space))
    return Manifest(
        repo_id=draw(st.binary(min_size=16, max_size=16)),
        sid=SID,
        name=draw(session_names),
        seq=seq,
        commit_id=draw(st.binary(min_size=16, max_size=16)),
        by=draw(devices),
        ct=commit_ms,
        prev=draw(hashes),
        marks=random.Random(seq).randbytes(marks_size(seq)),
        gen=draw(counts),
        deleted=draw(st.booleans()),
        entries=tuple(draw(st.lists(listed, max_size=3, unique_by=lambda entry: entry.name))),
        inline=tuple(draw(st.lists(inline, max_size=2))),
        devs=draw(st.dictionaries(devices, known, max_size=3)),
        gc_floor=gc_floor,
        tomb_seq=draw(st.integers(0, gc_floor)),
        tomb_hlc=draw(st.integers(0, stamp_limit(commit_ms))),
        tl=((seq, draw(times)),),
        space=space,
        epoch=epoch,
        features_w=tuple(draw(st.lists(texts, max_size=2))),
        extra=extra,
    )


@st.composite
def models(draw: st.DrawFn, space: VectorSpace | None) -> list[dict[str, Any]]:
    """A table of models in the form that is kept: one of another space, or of a later version."""
    other = {"id": "later", "fp": "beef", "dim": 7, "dtype": "i8", "norm": True}
    if space is None:
        return [other]
    active = {
        "id": space.id,
        "fp": space.fingerprint,
        "dim": space.dim,
        "dtype": space.dtype,
        "zz_later": draw(unknown_values),
    }
    return draw(st.sampled_from([[active], [active, other], [other, active]]))


FIELDS = ("a", "b", "", 'quo"te', "back\\slash", "dot.ted", "$[0]", "a\0b", "ключ")
"""Names of metadata fields, those among them that a path in SQL would stumble over."""

VALUES = (
    *SCRIPTS,
    *("0", "-0", "5", "05", "5.0", "5.", "+5", "8", "10", "-10", "1e3", "10 ", "0.5", ".5", "true"),
    *("9007199254740992", "9007199254740993", "1" + "0" * 400, "-1" + "0" * 400, "0." + "1" * 40),
    *("1715941800", "1715941800000", "2024", "2024-05", "2024-05-17", "2024-05-17T10:30:00Z"),
    *("2024-05-17 12:30+02:00", "2024-02-30", "9999-12-31", "last 7 days"),
    *("52.5219,13.4132", "52.4846,13.2635", "0,180", "0,-180", "91,0", "1,2,3", "-90,0"),
)
"""Metadata values in which strings, numbers, times and places meet."""

values = st.sampled_from(VALUES) | st.integers(-12, 12).map(str) | texts
tagged = st.none() | st.dictionaries(st.sampled_from(FIELDS), values, max_size=4)
"""Metadata that filters below have something to find in."""

_TIMES = ("2024", "2024-05", "2024-05-17", "2024-05-17T10:30:00Z", "1715941800", 1715941800.5)
_bounds = values | st.integers(-12, 12) | st.floats(-1e6, 1e6) | st.booleans()
_moments = st.sampled_from(_TIMES) | st.integers(0, 2 * 10**9)
_nears = st.builds(
    "{},{}".format,
    st.sampled_from(["52.5219,13.4132", "0,180", "0,0", "-90,5"]),
    st.sampled_from([0, 10_000, 11_000, 12_000, 20_015_114, 20_015_115, 10**9]),
)
_operands: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("$eq", "$ne", "$gt", "$gte", "$lt", "$lte"), _bounds),
    **dict.fromkeys(("$in", "$nin"), st.lists(_bounds, max_size=4)),
    "$near": _nears,
    "$exists": st.booleans(),
    "$contains": values | st.sampled_from(["a", "0", "5", "E"]),
    **dict.fromkeys(("$after", "$before"), _moments),
    "$within": st.sampled_from(["2024", "2024-05-17", "last 7 days", "90m", [None, "2024-05-17"]])
    | st.tuples(_moments, st.none()).map(list),
}
_conditions = st.dictionaries(st.sampled_from(sorted(_operands)), st.none(), min_size=1).flatmap(
    lambda names: st.fixed_dictionaries({name: _operands[name] for name in names})
)


def filters() -> st.SearchStrategy[dict[str, Any]]:
    """Filters that are right, as a caller writes them."""
    one = st.fixed_dictionaries({"field": st.sampled_from(FIELDS), "condition": _conditions})
    return st.recursive(
        one,
        lambda inner: st.one_of(
            st.fixed_dictionaries({"$and": st.lists(inner, min_size=1, max_size=3)}),
            st.fixed_dictionaries({"$or": st.lists(inner, min_size=1, max_size=3)}),
            st.fixed_dictionaries({"$not": inner}),
        ),
        max_leaves=5,
    )
