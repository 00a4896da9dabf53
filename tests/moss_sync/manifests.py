"""Manifests, names and states for tests of what is decided by them."""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b

from moss_sync import plan
from moss_sync.manifest import Entry, Inline, Manifest, tip_of
from moss_sync.packing import pack
from moss_sync.plan import Author
from moss_sync.record import VectorSpace
from moss_sync.replica import FIRST_LIFE, Life, Pending, ReplicaState, Seen
from tests.strategies import NAME_KEY, SID, new_name

A, B = b"device-A", b"device-B"
INC = b"incarn-1"
REPO = b"repository-id-16"
SPACE = VectorSpace("moss-minilm", "00ff", 384, "f2")


def hash_of(seq: int, branch: str = "main") -> bytes:
    """Return a hash for the manifest of a commit: one for each commit of each history."""
    return blake2b(f"{branch} {seq}".encode(), digest_size=32).digest()


def name(*, kind: str = "s", base: int = 0, dev: bytes = A, number: int = 1, token: int = 0) -> str:
    return str(
        new_name(
            NAME_KEY,
            SID,
            kind=kind,
            base=base,
            dev=dev,
            number=number,
            sealed=token.to_bytes(10, "big"),
        )
    )


def state(
    dev: bytes = A,
    *,
    n: int = 0,
    acked_n: int = 0,
    acked_seq: int = 0,
    applied_seq: int = 0,
    life: Life = FIRST_LIFE,
    seen: Seen | None = None,
    pending: Pending | None = None,
    space: VectorSpace | None = None,
) -> ReplicaState:
    return ReplicaState(
        name="conv-123",
        dev=dev,
        inc=INC,
        repo_id=REPO,
        n=n,
        acked_n=acked_n,
        acked_seq=acked_seq,
        life=life,
        applied_seq=applied_seq,
        seen=seen,
        pending=pending,
        space=space,
        dirty=0,
        hlc=0,
    )


def payload(size: int, *, plain: int | None = None) -> bytes:
    """Bytes of this size that say, as packed ones do, how many they were before."""
    return pack(bytes(size if plain is None else plain))[:18].ljust(size, b"\0")[:size]


def inline_push(n: int = 1, base: int = 0, body: bytes = b"body") -> Pending:
    return Pending(n, base, None, tip_of(body), body, 1, 0, 100, 5)


def segment_push(
    n: int = 1, base: int = 0, size: int = 9000, dev: bytes = A, epoch: int = 1
) -> Pending:
    full = name(base=base, dev=dev, number=n, token=n)
    # The head of a sealed blob, which says under which epoch it is.
    body = (b"XSEG\1\1\0\0" + epoch.to_bytes(4, "big")).ljust(size, b"\0")
    return Pending(n, base, f"prefix/{SID}/{full}", tip_of(full.encode()), body, 2, 1, size, 5)


def author(
    of: ReplicaState, *, parent: Manifest | None, now_ms: int = 1000, epoch: int = 1
) -> Author:
    prev = None if parent is None else hash_of(parent.seq)
    return Author(of, now_ms, prev, b"commit-id-of-16b", epoch)


def pushed(
    parent: Manifest | None, of: ReplicaState, pending: Pending, *, now_ms: int = 1000
) -> Manifest:
    return plan.with_push(
        parent, author(of, parent=parent, now_ms=now_ms), pending, repo_id=REPO, sid=SID
    )


def history(commits: int, dev: bytes = A) -> Manifest:
    """Return the manifest after that many inline pushes of one device."""
    current: Manifest | None = None
    for at in range(commits):
        done = replace(state(dev, n=at, acked_n=at, applied_seq=at))
        # Emptied each time, so that there is always room.
        current = replace(pushed(current, done, inline_push(at + 1, at)), inline=())
    assert current is not None
    return current


def entry(
    *,
    kind: str = "s",
    dev: bytes = A,
    lo: int,
    hi: int,
    lvl: int = 0,
    size: int = 9000,
    base: int = 0,
    bmin: int | None = None,
    token: int | None = None,
) -> Entry:
    return Entry(
        name(kind=kind, base=base, dev=dev, number=lvl or hi, token=hi if token is None else token),
        size,
        1,
        0,
        lo,
        hi,
        base if bmin is None else bmin,
        lvl,
        1000,
        epoch=1,
    )


def carrying(*sizes: int) -> Manifest:
    items = tuple(Inline(B, at + 1, 0, 1, 0, payload(size)) for at, size in enumerate(sizes))
    return replace(history(1, B), inline=items)
