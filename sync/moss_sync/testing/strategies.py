"""Hypothesis strategies for what the protocol exchanges, and for schedules of its simulation.

They are small on purpose, so that ids and devices collide, and they keep the preconditions: one
write owns its version, a segment holds an id once, and all is within the limits. Texts are of every
script, with NUL, marks, joiners and what lies beyond 16 bits; never a lone surrogate, which no
UTF-8 can say.
"""

from __future__ import annotations

from typing import Literal

from hypothesis import strategies as st

from moss_sync.hlc import LAST_STAMP
from moss_sync.limits import vector_fault
from moss_sync.packing import MAX_UINT
from moss_sync.record import Record, VectorSpace, Version, content_digest
from moss_sync.segment import CUSTOM, Segment
from moss_sync.testing.schedule import PROFILES, Schedule, schedule_of

SCRIPTS = (
    "",
    " ",
    "\0",
    "a\0b",
    "Ünïcödé",
    "e\u0301 is not \u00e9",
    "Ελληνικά",
    "русский",
    "العربية",
    "עברית",
    "हिन्दी",
    "ไทย",
    "中文",
    "日本語",
    "한국어",
    "ქართული",
    "አማርኛ",
    "👩‍👩‍👧‍👦🏳️‍🌈",
    "𝔘𐍈",
    "\ufeff\u200b\u202e",
    "line\r\nline\u2028line",
    "../x",
    "a/b",
    "con",
)
"""Texts that have broken programs before, one of each kind."""

texts = st.sampled_from(SCRIPTS) | st.text(st.characters(codec="utf-8"), max_size=40)
session_names = texts.filter(bool)
ids = st.sampled_from(["a", "b", "turn-1"]) | session_names
metadata = st.none() | st.dictionaries(texts, texts, max_size=3)
devices = st.sampled_from([b"device-A", b"device-B"]) | st.binary(min_size=8, max_size=8)
uints = st.integers(0, 9) | st.integers(0, MAX_UINT)
hlcs = st.integers(0, 9) | st.integers(0, LAST_STAMP)
hashes = st.binary(min_size=32, max_size=32)
dtypes: st.SearchStrategy[Literal["f2", "f4"]] = st.sampled_from(["f2", "f4"])

spaces = st.builds(
    VectorSpace,
    id=st.sampled_from([CUSTOM, "moss-minilm"]) | session_names,
    fingerprint=st.sampled_from(["00ff", "1234"]),
    dim=st.integers(1, 5),
    dtype=dtypes,
)


def vectors(space: VectorSpace) -> st.SearchStrategy[bytes]:
    """Vectors of a space, of any bytes that have a cosine."""
    size = space.vector_bytes
    anything = st.binary(min_size=size, max_size=size)
    return anything.filter(lambda vector: vector_fault(vector, space.dtype) is None)


@st.composite
def versions(draw: st.DrawFn, digest: bytes) -> Version:
    """A version of the content that `digest` is of."""
    return Version(draw(hlcs), draw(devices), digest)


@st.composite
def records(
    draw: st.DrawFn,
    *,
    id: str | None = None,
    space: VectorSpace | None = None,
    committed: bool | None = None,
) -> Record:
    """A version of a document or of its deletion.

    Args:
        space: Where given, the record may hold a vector of it.
        committed: Whether it has a `commit_seq`; None: either.
    """
    name = draw(ids) if id is None else id
    seq = None if committed is False else draw(st.integers(1, 9))
    if committed is None and draw(st.booleans()):
        seq = None
    if draw(st.booleans()):
        digest = content_digest(name, deleted=True)
        return Record(name, draw(versions(digest)), deleted=True, commit_seq=seq)
    text, meta, payload = draw(texts), draw(metadata), draw(st.none() | texts)
    vector = None
    if space is not None:
        vector = draw(st.none() | vectors(space))
    digest = content_digest(
        name,
        deleted=False,
        text=text,
        metadata=meta,
        payload=payload,
        own_vector=vector if space is not None and space.id == CUSTOM else None,
    )
    return Record(
        name,
        draw(versions(digest)),
        text=text,
        metadata=meta,
        payload=payload,
        vector=vector,
        commit_seq=seq,
    )


@st.composite
def segments(draw: st.DrawFn, *, committed: bool | None = None) -> Segment:
    """A segment: none to a few records, each id once."""
    space = draw(st.none() | spaces)
    names = draw(st.lists(ids, max_size=5, unique=True))
    return Segment(
        dev=draw(devices),
        n=draw(uints),
        base=draw(uints),
        space=space,
        prev_tip=draw(st.just(b"") | st.binary(min_size=16, max_size=16)),
        records=[draw(records(id=name, space=space, committed=committed)) for name in names],
    )


@st.composite
def schedules(draw: st.DrawFn, *, profile: str | None = None) -> Schedule:
    """A schedule for `simulate`; it shrinks by leaving out steps.

    Args:
        profile: A kind of schedule (a key of `moss_sync.testing.schedule.PROFILES`); None: any.
    """
    kind = profile if profile is not None else draw(st.sampled_from(sorted(PROFILES)))
    schedule = schedule_of(draw(st.integers(0, 2**32)), kind)
    kept = draw(st.sets(st.sampled_from([step.number for step in schedule.steps])))
    return schedule.without(frozenset(step.number for step in schedule.steps) - kept)
