"""Every stored format ever released opens, and says what it said when it was written.

The files were written once by tests/golden/make.py, under keys that everybody knows. What they
hold is written out here by hand. None of this may change while format 1 is promised to open.
"""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from moss_sync import UnauthorizedError, keyring, layout, manifest, segment
from moss_sync.keyring import KdfParams, Keys
from moss_sync.manifest import Device, Entry, Inline, Manifest
from moss_sync.packing import unpack
from moss_sync.record import Record, VectorSpace, Version
from moss_sync.seal import HEADER_BYTES, BlobIdentity, seal, unseal
from moss_sync.segment import Segment

FOLDER = Path(__file__).parent.parent / "golden" / "v1"

PROJECT_KEY = "zgq3-theh-3d4s-yfgb-i2cw-aqzv-xui2-psi3-6h2b"
ROTATED_KEY = "deo7-rosm-viog-gcn2-kebu-3n4x-p3w4-v3qg-n2hw"
KEK = bytes.fromhex("13a6ef2e2081aebee0f3aeffc4df1c08d1ebca2c754c3a2e352b0a03e5a847e4")
REPO_ID = bytes.fromhex("030a11181f262d343b424950575e656c")
ROOT = bytes.fromhex("737a81888f969da4abb2b9c0c7ced5dce3eaf1f8ff060d141b222930373e454c")
NAMES = bytes.fromhex("535a61686f767d848b9299a0a7aeb5bcc3cad1d8dfe6edf4fb020910171e252c")
SESSION = "conv-123 · Gespräch"
SID = "adteob6ggrbme5egckuxnoelot"
PUSH = "s/0000000000000000-70686f6e652d3031-00000001-mii73ql2vaiton573b5ozw43l4kzvbnfhrbcr6c2"
BASE = "b/0000000000000003-6c6170746f702d31-01-grs4cx3iu7fqdlh4mboxvkpxcsarfzzqw6fyfoes"
PHONE, LAPTOP = b"phone-01", b"laptop-1"
SPACE = VectorSpace("moss-minilm", "c0ffee", 2, "f2")
OWN = VectorSpace("custom", "5eed", 3, "f4")
CLOCK = 111_411_200_000_000_000

PUSHED = Segment(
    dev=PHONE,
    n=1,
    base=0,
    space=SPACE,
    prev_tip=b"",
    records=[
        Record(
            "turn-1",
            Version(CLOCK + 1, PHONE, bytes.fromhex("9fbcc29092e29bd9")),
            text="Customer reported a duplicate $49.99 charge.",
            metadata={"channel": "voice", "tone": ""},
            payload='{"amount": 49.99}',
            vector=struct.pack("<2e", 0.6, 0.8),
            commit_seq=4,
        ),
        Record(
            "turn-2",
            Version(CLOCK, PHONE, bytes.fromhex("eea13579ba823e99")),
            text="退款 \0 👍🏽",
            metadata={},
            commit_seq=4,
        ),
        Record(
            "turn-0",
            Version(CLOCK + 2, PHONE, bytes.fromhex("78b6e4fafc974f9c")),
            deleted=True,
            commit_seq=4,
        ),
    ],
)
MERGED = Segment(
    dev=LAPTOP,
    n=0,
    base=3,
    space=OWN,
    prev_tip=b"",
    records=[
        Record(
            "a",
            Version(9, PHONE, bytes.fromhex("92166af4fa57429b")),
            text="one",
            vector=struct.pack("<3f", 1, -2, 0.5),
            commit_seq=1,
        ),
        Record(
            "b",
            Version(7, LAPTOP, bytes.fromhex("25d568e881f9a763")),
            text="two",
            payload="",
            commit_seq=3,
        ),
        Record(
            "c",
            Version(2**62, b"e-mail-1", bytes.fromhex("1a95468b7723b2cd")),
            deleted=True,
            commit_seq=2,
        ),
    ],
)
SMALL = Segment(
    dev=LAPTOP,
    n=2,
    base=3,
    space=None,
    prev_tip=b"tip-of-16-bytes!",
    records=[
        Record(
            "turn-3",
            Version(CLOCK + 131_072, LAPTOP, bytes.fromhex("4c88aba6fd24881f")),
            text="ok",
            commit_seq=5,
        )
    ],
)


def salt(which: int) -> bytes:
    return bytes((which * 37 + at * 11) % 256 for at in range(32))


@pytest.fixture(scope="module")
def keys() -> Keys:
    return keyring.unlock(keyring.decode(read("fmt")), KEK)


def read(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


def plain(keys: Keys, kind: str, name: str, file: str) -> bytes:
    """Return what a golden blob holds, once it has been sealed again to the same bytes."""
    place = BlobIdentity(keys.repo_id, "" if kind == "probe" else SID, kind, name)
    sealed = read(file)
    opened = unseal(keys.roots, place, sealed, max_plain=64 * 1024)
    # header: 4 magic, 4 version, suite, flags and zero, 4 epoch, then the salt
    assert seal(keys.roots, place, opened, salt=sealed[12:44]) == sealed
    assert len(sealed) == HEADER_BYTES + len(opened) + 16
    return opened


def test_the_golden_folder_holds_one_file_of_every_format() -> None:
    assert sorted(path.name for path in FOLDER.iterdir()) == [
        "base",
        "fmt",
        "fmt-rotated",
        "inline",
        "manifest",
        "manifest-floors",
        "probe",
        "segment",
    ]


def test_the_golden_fmt_opens_with_its_project_key() -> None:
    fmt = keyring.decode(read("fmt"))
    assert fmt.repo_id == REPO_ID
    assert (fmt.commit, fmt.newest, fmt.floor) == ("cas", 1, 1)
    assert fmt.features_w == ()
    assert fmt.kdf == KdfParams(b"golden-salt-16-b", memory_kib=8192, iterations=1, lanes=1)
    assert keyring.derive_kek(PROJECT_KEY, fmt.kdf) == KEK
    keys = keyring.unlock(fmt, KEK)
    assert keys.repo_id == REPO_ID
    assert dict(keys.roots.by_epoch) == {1: ROOT}
    assert keys.names == NAMES
    fresh = bytes((at * 7 + 3) % 256 for at in range(keyring.FRESH_BYTES))
    assert keyring.create(KEK, fmt.kdf, fresh=fresh).raw == read("fmt")


def test_the_golden_fmt_of_after_a_rotation_opens_with_the_new_key_and_no_other() -> None:
    fmt = keyring.decode(read("fmt-rotated"))
    assert (fmt.repo_id, fmt.commit, fmt.newest, fmt.floor) == (REPO_ID, "cas", 2, 2)
    assert fmt.kdf == KdfParams(b"rotated-salt-16b", memory_kib=16384, iterations=2, lanes=2)
    keys = keyring.unlock(fmt, keyring.derive_kek(ROTATED_KEY, fmt.kdf))
    root = bytes((at * 13 + 5) % 256 for at in range(32))
    assert dict(keys.roots.by_epoch) == {1: ROOT, 2: root}
    assert keys.names == NAMES
    with pytest.raises(UnauthorizedError, match="key epoch 2"):
        keyring.unlock(fmt, keyring.derive_kek(PROJECT_KEY, fmt.kdf))
    # What was sealed before opens with it as well.
    place = BlobIdentity(REPO_ID, SID, "manifest", "m")
    assert unseal(keys.roots, place, read("manifest"), max_plain=64 * 1024)


def test_the_golden_names_are_still_those_of_the_session(keys: Keys) -> None:
    assert layout.session_id(keys.names, SESSION) == SID
    tag_key = keys.roots.tag_key(1)
    pushed = layout.parse_name(tag_key, SID, PUSH)
    assert layout.is_blob_of(pushed, read("segment"))
    assert (pushed.kind, pushed.base, pushed.dev, pushed.number) == ("s", 0, PHONE, 1)
    merged = layout.parse_name(tag_key, SID, BASE)
    assert layout.is_blob_of(merged, read("base"))
    assert (merged.kind, merged.base, merged.dev, merged.number) == ("b", 3, LAPTOP, 1)
    prefix = "hjzjl2wzhouteyaphidw2kuj53"
    keyed = layout.Layout.of("golden-project")
    assert keyed.manifest(SID) == f"{prefix}/m/{SID}"
    assert keyed.blob(SID, PUSH) == f"{prefix}/{SID}/{PUSH}"


def test_the_golden_manifest_says_what_it_said(keys: Keys) -> None:
    data = plain(keys, "manifest", "m", "manifest")
    opened = manifest.decode(data, what="the golden manifest")
    assert opened == Manifest(
        repo_id=REPO_ID,
        sid=SID,
        name=SESSION,
        seq=5,
        commit_id=b"golden-commit-16",
        by=LAPTOP,
        ct=1_700_000_000_000,
        prev=salt(9),
        marks=salt(9)[:8] + salt(7)[:8] + salt(5)[:8] + salt(3)[:8],
        entries=(
            Entry(BASE, len(read("base")), None, None, 0, 3, 0, 1, 1_699_999_999_000, 1),
            Entry(
                PUSH,
                len(read("segment")),
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
        inline=(Inline(LAPTOP, 2, 3, 5, 1_700_000_000_000, read("inline")),),
        devs={
            PHONE: Device(
                1,
                0,
                1_700_000_000_000,
                b"phoneinc",
                bytes.fromhex("c00e6f5d6fda85f3f33dacb808004ca1"),
                seq=4,
            ),
            LAPTOP: Device(
                2, 3, 1_700_000_000_000, b"laptinc1", manifest.tip_of(read("inline")), "work", 5
            ),
        },
        space=SPACE,
        extra={"zz_later": {"kept": [1, "two", b"three", None, True]}},
    )
    again = manifest.encode(opened)
    assert unpack(again, max_bytes=2**20, what="") == unpack(data, max_bytes=2**20, what="")


def test_the_golden_manifest_of_a_session_that_forgets_says_what_it_said(keys: Keys) -> None:
    data = plain(keys, "manifest", "m", "manifest-floors")
    opened = manifest.decode(data, what="the golden manifest")
    assert (opened.seq, opened.gen, opened.repairs, opened.retired) == (9, 1, 2, 3)
    assert (opened.gc_floor, opened.tomb_seq, opened.tomb_hlc) == (7, 6, CLOCK + 9)
    assert opened.tl == ((1, 1_699_999_000_000), (8, 1_700_000_400_000))
    assert opened.epoch == 1
    assert [(entry.name, entry.epoch) for entry in opened.entries] == [(BASE, 1), (PUSH, 1)]
    assert opened.devs == {
        PHONE: Device(
            1,
            0,
            1_700_000_000_000,
            bytes(8),
            bytes.fromhex("c00e6f5d6fda85f3f33dacb808004ca1"),
            seq=4,
        ),
        LAPTOP: Device(
            2,
            8,
            1_700_000_000_000,
            b"laptinc1",
            manifest.tip_of(read("inline")),
            "work",
            seq=8,
        ),
    }
    again = unpack(manifest.encode(opened), max_bytes=2**20, what="")
    assert again == unpack(data, max_bytes=2**20, what="")


@pytest.mark.parametrize(
    ("name", "file", "seq", "expected"),
    [(PUSH, "segment", 4, PUSHED), (BASE, "base", 3, MERGED)],
)
def test_a_golden_segment_says_what_it_said(
    keys: Keys, name: str, file: str, seq: int, expected: Segment
) -> None:
    data = plain(keys, "segment", layout.parts_of(name).stem, file)
    opened = segment.decode(data, what="a golden segment", commit_seq=seq)
    assert opened == expected
    bare = segment.decode(data, what="a golden segment")
    again = segment.encode(bare)
    assert unpack(again, max_bytes=2**20, what="") == unpack(data, max_bytes=2**20, what="")


def test_the_golden_inline_payload_says_what_it_said() -> None:
    assert segment.decode(read("inline"), what="a golden push", commit_seq=5) == SMALL


def test_the_golden_verdict_says_what_it_said(keys: Keys) -> None:
    data = plain(keys, "probe", "probe", "probe")
    fields = unpack(data, max_bytes=4096, what="the golden verdict")
    assert fields == {"v": 1, "etag_form": "bare", "long": False}
