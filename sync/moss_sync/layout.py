"""Where everything lies in the store: keys, session ids and the names of segments.

Rules of this file: values in, values out; randomness is an argument. The layout can never change
within one format major, because old and new devices must meet at the same keys.
What holds (tests/moss_sync/test_layout.py): different projects and different session names never
share a key; a name that another party made up does not parse without the name key.
Source: SYNC-PROTOCOL 2.1, described byte by byte in docs/format.md.
"""

from __future__ import annotations

import hmac
import re
from base64 import b32decode, b32encode
from dataclasses import dataclass
from hashlib import blake2b, sha256

from moss_sync.errors import BlobCorruptError
from moss_sync.record import DEVICE_BYTES

NAME_CHARS = 26
"""130 bits of base32: a project's prefix, a session's id."""

TAG_RANDOM_BYTES = 10
"""80 random bits in every segment name: names are unique for ever, never reused."""

TAG_MAC_BYTES = 6
"""48 bits that only a key-holder can make, so forged names are rejected without a download."""

MAX_BASE = 2**64 - 1
MAX_PUSH = 2**32 - 1
MAX_LEVEL = 2**8 - 1
"""What fits the fixed widths of a name; fixed, so that names sort by their base."""

_SEGMENT = re.compile(r"s/([0-9a-f]{16})-([0-9a-f]{16})-([0-9a-f]{8})-([a-z2-7]{26})")
_HEAD = re.compile(rf"([a-z2-7]{{{NAME_CHARS}}})-([0-9a-f]{{16}})")
_BASE = re.compile(r"b/([0-9a-f]{16})-([0-9a-f]{16})-([0-9a-f]{2})-([a-z2-7]{26})")


def base32(data: bytes) -> str:
    """Return unpadded lower-case base32: safe on case-insensitive file systems."""
    return b32encode(data).decode().rstrip("=").lower()


def session_id(name_key: bytes, name: str) -> str:
    """Return the id under which the store knows a session; reveals nothing without the key."""
    return base32(hmac.digest(name_key, b"session\0" + name.encode(), "sha256"))[:NAME_CHARS]


@dataclass(frozen=True, slots=True)
class Layout:
    """The keys of one project in one store."""

    prefix: str

    @classmethod
    def of(cls, project_id: str) -> Layout:
        return cls(base32(sha256(project_id.encode()).digest())[:NAME_CHARS] + "/")

    @property
    def fmt(self) -> str:
        return f"{self.prefix}fmt"

    @property
    def probe(self) -> str:
        return f"{self.prefix}probe"

    @property
    def manifests(self) -> str:
        """The folder that a listing of all sessions reads."""
        return f"{self.prefix}m/"

    @property
    def behind_probes(self) -> str:
        """Where a listing goes on behind all that probes have left."""
        return f"{self.prefix}_probe0"  # "0" comes after "/"

    def is_of_probe(self, key: str) -> bool:
        return key.startswith(f"{self.prefix}_probe/")

    def is_of_cas(self, key: str) -> bool:
        """Return whether only a repository that compares and swaps has a blob under this key."""
        folder, _, name = key.removeprefix(self.prefix).partition("/")
        return key == self.probe or (
            name[:2] in ("s/", "b/") or (folder == "m" and "-" not in name and name != "")
        )

    def aside(self, kind: str, data: bytes) -> str:
        """Return where a repair keeps what it replaces; the same bytes have the same place."""
        return f"{self.prefix}aside/{kind}-{base32(blake2b(data, digest_size=10).digest())}"

    def manifest(self, sid: str) -> str:
        return f"{self.manifests}{sid}"

    def blob(self, sid: str, name: str) -> str:
        """Return the key of a segment or compacted blob from its name in the manifest."""
        return f"{self.prefix}{sid}/{name}"

    def segments(self, sid: str) -> str:
        return f"{self.prefix}{sid}/s/"

    def bases(self, sid: str) -> str:
        return f"{self.prefix}{sid}/b/"

    def log(self, sid: str) -> str:
        """The one folder of all blobs of a session in a repository that commits by log."""
        return f"{self.prefix}{sid}/l/"

    def log_blob(self, sid: str, name: str) -> str:
        """Return the key of a blob of a log: flat, so that one listing shows pushes and bases."""
        return self.log(sid) + name.replace("/", "-", 1)

    def head(self, sid: str, dev: bytes) -> str:
        """Return the key of the one blob of a log that is written again, by its device alone."""
        return f"{self.manifests}{sid}-{dev.hex()}"


@dataclass(frozen=True, slots=True)
class SegmentName:
    """What the name of a blob says about it.

    Attributes:
        kind: "s" for a pushed segment, "b" for the output of a compaction.
        base: The sequence number that its author had applied.
        dev: The authoring device.
        number: The push number ("s") or the level ("b").
        tag: 26 characters: 80 random bits and a 48-bit MAC.
    """

    kind: str
    base: int
    dev: bytes
    number: int
    tag: str

    def __str__(self) -> str:
        return f"{_stem(self.kind, self.base, self.dev, self.number)}-{self.tag}"


def new_name(
    name_key: bytes, sid: str, *, kind: str, base: int, dev: bytes, number: int, random: bytes
) -> SegmentName:
    """Return a name that nobody ever used.

    Args:
        random: TAG_RANDOM_BYTES fresh random bytes.
    Raises:
        ValueError: a part does not fit its place; such a name would not parse again.
    """
    if len(random) != TAG_RANDOM_BYTES or len(dev) != DEVICE_BYTES:
        raise ValueError("a segment name takes 10 random bytes and an 8-byte device id")
    if kind not in ("s", "b"):
        raise ValueError(f"{kind!r} is no kind of segment")
    if not 0 <= base <= MAX_BASE or not 0 <= number <= (MAX_PUSH if kind == "s" else MAX_LEVEL):
        raise ValueError(f"base {base} or number {number} does not fit a segment's name")
    stem = _stem(kind, base, dev, number)
    return SegmentName(
        kind, base, dev, number, base32(random + _tag_mac(name_key, sid, stem, random))
    )


def is_name(name: str) -> bool:
    """Return whether `name` has the form of a name; whose it is, only `parse_name` tells."""
    return _match(name) is not None


def base_of(name: str) -> int:
    """Return the base that a name of the right form states. Raises ValueError for any other."""
    match = _match(name)
    if match is None:
        raise ValueError(f"{name!r} is not the name of a segment")
    return int(match[1], 16)


def parse_name(name_key: bytes, sid: str, name: str) -> SegmentName:
    """Return what `name` says.

    Raises:
        BlobCorruptError: it is no name of ours, or was not made by a holder of the key.
    """
    match = _match(name)
    if match is None:
        raise BlobCorruptError(f"{name!r} is not the name of a segment")
    base, dev, number, tag = match.groups()
    parsed = SegmentName(name[0], int(base, 16), bytes.fromhex(dev), int(number, 16), tag)
    raw = _unbase32(tag)
    expected = _tag_mac(name_key, sid, name[: -len(tag) - 1], raw[:TAG_RANDOM_BYTES])
    if not hmac.compare_digest(expected, raw[TAG_RANDOM_BYTES:]) or base32(raw) != tag:
        raise BlobCorruptError(f"{name!r} was not named by a holder of the project's key")
    return parsed


def log_name(part: str) -> str | None:
    """Return the name of the blob that stands as `part` in the folder of a log, or None."""
    name = part.replace("-", "/", 1)
    return name if is_name(name) else None


def parse_head(part: str) -> tuple[str, bytes] | None:
    """Return the session id and the device of a head's name below `m/`, or None."""
    match = _HEAD.fullmatch(part)
    return None if match is None else (match[1], bytes.fromhex(match[2]))


def _match(name: str) -> re.Match[str] | None:
    return _SEGMENT.fullmatch(name) or _BASE.fullmatch(name)


def _stem(kind: str, base: int, dev: bytes, number: int) -> str:
    width = 8 if kind == "s" else 2
    return f"{kind}/{base:016x}-{dev.hex()}-{number:0{width}x}"


def _tag_mac(name_key: bytes, sid: str, stem: str, random: bytes) -> bytes:
    return hmac.digest(name_key, f"name\0{sid}\0{stem}\0".encode() + random, "sha256")[
        :TAG_MAC_BYTES
    ]


def _unbase32(text: str) -> bytes:
    return b32decode(text.upper() + "=" * (-len(text) % 8))


def store_name(url: str) -> str:
    """Return a file-name-safe name for a store's URL."""
    return base32(sha256(url.encode()).digest())[:NAME_CHARS]
