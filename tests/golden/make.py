"""Writes the golden files: everything that a store may hold, from fixed keys, salts and names.

    python -m tests.golden.make

A file is written once, by the release that brought its format, and never again: rewriting one
would hide that an old repository no longer opens. So files that are there are left alone. A new
format gets a new folder beside `v1`.

The text of each is made here; what must come out is said again in tests/moss_sync/test_golden.py,
by hand, so that no mistake of this file can be repeated there.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

from moss_sync import keyring, layout, manifest, segment
from moss_sync.keyring import KdfParams
from moss_sync.layout import session_id
from moss_sync.manifest import UNKNOWN_INC, Device, Entry, Inline, Manifest
from moss_sync.packing import pack
from moss_sync.record import Record, VectorSpace, Version, content_digest
from moss_sync.seal import BlobIdentity, seal
from moss_sync.segment import Segment

FOLDER = Path(__file__).parent / "v1"
PROJECT_KEY = "zgq3-theh-3d4s-yfgb-i2cw-aqzv-xui2-psi3-6h2b"
ROTATED_KEY = "deo7-rosm-viog-gcn2-kebu-3n4x-p3w4-v3qg-n2hw"
SESSION = "conv-123 · Gespräch"
PHONE, LAPTOP = b"phone-01", b"laptop-1"
SPACE = VectorSpace("moss-minilm", "c0ffee", 2, "f2")
OWN = VectorSpace("custom", "5eed", 3, "f4")


CLOCK = 1_700_000_000_000 << 16


def salt(which: int) -> bytes:
    """Return 32 bytes that stand for random ones, others for each blob."""
    return bytes((which * 37 + at * 11) % 256 for at in range(32))


def record(
    id: str,
    text: str = "",
    *,
    hlc: int,
    dev: bytes,
    deleted: bool = False,
    metadata: dict[str, str] | None = None,
    payload: str | None = None,
    vector: bytes | None = None,
    own: bool = False,
    commit_seq: int | None = None,
) -> Record:
    """Return a record whose version is that of its content."""
    digest = content_digest(
        id,
        deleted=deleted,
        text=text,
        metadata=metadata,
        payload=payload,
        own_vector=vector if own else None,
    )
    return Record(
        id,
        Version(hlc, dev, digest),
        deleted,
        text,
        metadata,
        payload,
        vector,
        commit_seq,
    )


def files() -> dict[str, bytes]:
    """Return every golden file by its name."""
    kdf = KdfParams(b"golden-salt-16-b", memory_kib=8 * 1024, iterations=1, lanes=1)
    kek = keyring.derive_kek(PROJECT_KEY, kdf)
    fresh = bytes((at * 7 + 3) % 256 for at in range(keyring.FRESH_BYTES))
    fmt = keyring.create(kek, kdf, fresh=fresh)
    keys = keyring.unlock(fmt, kek)
    rotated_kdf = KdfParams(b"rotated-salt-16b", memory_kib=16 * 1024, iterations=2, lanes=2)
    rotated_kek = keyring.derive_kek(ROTATED_KEY, rotated_kdf)
    rotated = keyring.rotate(
        fmt,
        keys,
        rotated_kek,
        rotated_kdf,
        fresh=bytes((at * 13 + 5) % 256 for at in range(keyring.rotation_bytes(fmt))),
    )
    rotated = keyring.with_floor(rotated, rotated_kek, 2, nonce=b"golden-nonce")
    sid = session_id(keys.names, SESSION)

    def sealed(kind: str, name: str, plain: bytes, which: int) -> bytes:
        place = BlobIdentity(keys.repo_id, "" if kind == "probe" else sid, kind, name)
        return seal(keys.roots, place, plain, salt=salt(which))

    def segment_of(stem: str, plain: bytes, which: int) -> tuple[str, bytes]:
        blob = sealed("segment", stem, plain, which)
        return str(layout.named(keys.roots.tag_key(1), sid, stem, blob)), blob

    pushed = Segment(
        dev=PHONE,
        n=1,
        base=0,
        space=SPACE,
        prev_tip=b"",
        records=[
            record(
                "turn-1",
                "Customer reported a duplicate $49.99 charge.",
                hlc=CLOCK + 1,
                dev=PHONE,
                metadata={"channel": "voice", "tone": ""},
                payload='{"amount": 49.99}',
                vector=struct.pack("<2e", 0.6, 0.8),
            ),
            record("turn-2", "退款 \0 👍🏽", hlc=CLOCK, dev=PHONE, metadata={}),
            record("turn-0", hlc=CLOCK + 2, dev=PHONE, deleted=True),
        ],
    )
    merged = Segment(
        dev=LAPTOP,
        n=0,
        base=3,
        space=OWN,
        prev_tip=b"",
        records=[
            record(
                "a",
                "one",
                hlc=9,
                dev=PHONE,
                vector=struct.pack("<3f", 1, -2, 0.5),
                own=True,
                commit_seq=1,
            ),
            record("b", "two", hlc=7, dev=LAPTOP, payload="", commit_seq=3),
            record("c", hlc=2**62, dev=b"e-mail-1", deleted=True, commit_seq=2),
        ],
    )
    small = Segment(
        dev=LAPTOP,
        n=2,
        base=3,
        space=None,
        prev_tip=b"tip-of-16-bytes!",
        records=[record("turn-3", "ok", hlc=CLOCK + (2 << 16), dev=LAPTOP)],
    )
    push_stem = layout.new_stem(kind="s", base=0, dev=PHONE, number=1)
    base_stem = layout.new_stem(kind="b", base=3, dev=LAPTOP, number=1)
    payload = segment.encode(small)
    push_name, push_blob = segment_of(push_stem, segment.encode(pushed), 2)
    base_name, base_blob = segment_of(base_stem, segment.encode(merged), 3)
    listed = Manifest(
        repo_id=keys.repo_id,
        sid=sid,
        name=SESSION,
        seq=5,
        commit_id=b"golden-commit-16",
        by=LAPTOP,
        ct=1_700_000_000_000,
        prev=salt(9),
        marks=salt(9)[:8] + salt(7)[:8] + salt(5)[:8] + salt(3)[:8],
        entries=(
            Entry(base_name, len(base_blob), None, None, 0, 3, 0, 1, 1_699_999_999_000, 1),
            Entry(
                push_name,
                len(push_blob),
                2,
                1,
                3,
                4,
                0,
                0,
                1_700_000_000_000,
                1,
                CLOCK + 2,
                "c0ffee",
            ),
        ),
        inline=(Inline(LAPTOP, 2, 3, 5, 1_700_000_000_000, payload),),
        devs={
            PHONE: Device(
                1, 0, 1_700_000_000_000, b"phoneinc", manifest.tip_of(push_name.encode()), seq=4
            ),
            LAPTOP: Device(
                2, 3, 1_700_000_000_000, b"laptinc1", manifest.tip_of(payload), "work", 5
            ),
        },
        gc_floor=0,
        space=SPACE,
        features_w=(),
        extra={"zz_later": {"kept": [1, "two", b"three", None, True]}},
    )
    tidy = replace(
        listed,
        seq=9,
        commit_id=b"golden-commit-20",
        ct=1_700_000_500_000,
        marks=b"".join(salt(at)[:8] for at in range(12, 4, -1)),
        prev=salt(12),
        gen=1,
        inline=(),
        devs={
            PHONE: replace(listed.devs[PHONE], seq=4, inc=UNKNOWN_INC),
            LAPTOP: replace(listed.devs[LAPTOP], seq=8, acked_seq=8),
        },
        gc_floor=7,
        tomb_seq=6,
        tomb_hlc=CLOCK + 9,
        tl=((1, 1_699_999_000_000), (8, 1_700_000_400_000)),
        retired=3,
        repairs=2,
    )
    return {
        "fmt": fmt.raw,
        "fmt-rotated": rotated.raw,
        "manifest": sealed("manifest", "m", manifest.encode(listed), 1),
        "manifest-floors": sealed("manifest", "m", manifest.encode(tidy), 5),
        "segment": push_blob,
        "base": base_blob,
        "inline": payload,
        "probe": sealed("probe", "probe", pack({"v": 1, "etag_form": "bare", "long": False}), 4),
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, data in files().items():
        path = FOLDER / name
        if path.exists():
            print(f"kept     {path.name}")
        else:
            path.write_bytes(data)
            print(f"written  {path.name}  {len(data)} bytes")
