"""Where everything lies in the store: keys, session ids and the names of segments.

Rules of this file: values in, values out. The layout can never change within one format major,
because old and new devices must meet at the same keys.
What holds (tests/moss_sync/test_layout.py): different projects and different session names never
share a key; a segment's name that another party made up does not parse without the tag key of its
epoch, and no other bytes than those that were sealed fit the name.
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

TAG_HASH_BYTES = 16
"""A hash of the sealed blob in every segment name: what is listed is checked when it is read, and
no name is ever used twice, because no two sealed blobs are alike."""

TAG_MAC_BYTES = 9
"""72 bits that only a holder of the epoch's key can make: a forged name is refused unread."""

TAG_BYTES = TAG_HASH_BYTES + TAG_MAC_BYTES
TAG_CHARS = 40
"""25 bytes are exactly 40 characters of base32, so a tag has one spelling."""

MAX_BASE = 2**64 - 1
MAX_PUSH = 2**32 - 1
MAX_LEVEL = 2**8 - 1
"""What fits the fixed widths of a name; fixed, so that names sort by their base."""

_TAG = rf"([a-z2-7]{{{TAG_CHARS}}})"
_SEGMENT = re.compile(rf"s/([0-9a-f]{{16}})-([0-9a-f]{{16}})-([0-9a-f]{{8}})-{_TAG}")
_SESSION = re.compile(rf"[a-z2-7]{{{NAME_CHARS}}}")
_HEAD = re.compile(rf"([a-z2-7]{{{NAME_CHARS}}})-([0-9a-f]{{16}})")
_BASE = re.compile(rf"b/([0-9a-f]{{16}})-([0-9a-f]{{16}})-([0-9a-f]{{2}})-{_TAG}")


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

    def aside(self, kind: str, data: bytes, sid: str | None) -> str:
        """Return where a repair keeps what it replaces; the same bytes have the same place.

        Args:
            sid: Of the session that it belongs to; None of what is the whole project's.
        """
        folder = f"{self.prefix}aside/" if sid is None else self.asides(sid)
        return f"{folder}{kind}-{base32(blake2b(data, digest_size=10).digest())}"

    def asides(self, sid: str) -> str:
        """The folder of what repairs of one session have replaced."""
        return f"{self.prefix}aside/{sid}/"

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
        tag: TAG_CHARS characters: the hash of the sealed blob, and the MAC over all of the name.
    """

    kind: str
    base: int
    dev: bytes
    number: int
    tag: str

    def __str__(self) -> str:
        return f"{self.stem}-{self.tag}"

    @property
    def stem(self) -> str:
        """The name without its tag: what the blob is sealed for, before it has a hash."""
        return _stem(self.kind, self.base, self.dev, self.number)

    @property
    def raw_tag(self) -> bytes:
        """The TAG_BYTES bytes of the tag."""
        return _unbase32(self.tag)


def new_stem(*, kind: str, base: int, dev: bytes, number: int) -> str:
    """Return the part of a name that is known before its blob is sealed.

    Raises:
        ValueError: a part does not fit its place; such a name would not parse again.
    """
    if len(dev) != DEVICE_BYTES:
        raise ValueError("a segment name takes an 8-byte device id")
    if kind not in ("s", "b"):
        raise ValueError(f"{kind!r} is no kind of segment")
    if not 0 <= base <= MAX_BASE or not 0 <= number <= (MAX_PUSH if kind == "s" else MAX_LEVEL):
        raise ValueError(f"base {base} or number {number} does not fit a segment's name")
    return _stem(kind, base, dev, number)


def named(tag_key: bytes, sid: str, stem: str, sealed: bytes) -> SegmentName:
    """Return the name of a blob that was sealed for `stem`.

    Args:
        tag_key: Of the epoch that the blob is sealed under: `RootKeys.tag_key`.
        sealed: All of its bytes.
    """
    digest = _blob_hash(sealed)
    return parts_of(f"{stem}-{base32(digest + _tag_mac(tag_key, sid, stem, digest))}")


def is_name(name: str) -> bool:
    """Return whether `name` has the form of a name; whose it is, only `parse_name` tells."""
    return _match(name) is not None


def parts_of(name: str) -> SegmentName:
    """Return what a name of the right form says, whoever made it. Raises ValueError."""
    match = _match(name)
    if match is None:
        raise ValueError(f"{name!r} is not the name of a segment")
    base, dev, number, tag = match.groups()
    return SegmentName(name[0], int(base, 16), bytes.fromhex(dev), int(number, 16), tag)


def base_of(name: str) -> int:
    """Return the base that a name of the right form states. Raises ValueError for any other."""
    return parts_of(name).base


def parse_name(tag_key: bytes, sid: str, name: str) -> SegmentName:
    """Return what `name` says.

    Raises:
        BlobCorruptError: it is no name of ours, or was not made by a holder of the epoch's key.
    """
    try:
        parsed = parts_of(name)
    except ValueError as error:
        raise BlobCorruptError(str(error)) from None
    raw = parsed.raw_tag
    expected = _tag_mac(tag_key, sid, parsed.stem, raw[:TAG_HASH_BYTES])
    if not hmac.compare_digest(expected, raw[TAG_HASH_BYTES:]):
        raise BlobCorruptError(f"{name!r} was not named by a holder of its epoch's key")
    return parsed


def is_blob_of(name: SegmentName, sealed: bytes) -> bool:
    """Return whether these are the very bytes that were given this name."""
    return hmac.compare_digest(_blob_hash(sealed), name.raw_tag[:TAG_HASH_BYTES])


def log_name(part: str) -> str | None:
    """Return the name of the blob that stands as `part` in the folder of a log, or None."""
    name = part.replace("-", "/", 1)
    return name if is_name(name) else None


def is_session_id(part: str) -> bool:
    """Return whether a name below `m/` has the form of a session's id."""
    return _SESSION.fullmatch(part) is not None


def parse_head(part: str) -> tuple[str, bytes] | None:
    """Return the session id and the device of a head's name below `m/`, or None."""
    match = _HEAD.fullmatch(part)
    return None if match is None else (match[1], bytes.fromhex(match[2]))


def _match(name: str) -> re.Match[str] | None:
    return _SEGMENT.fullmatch(name) or _BASE.fullmatch(name)


def _stem(kind: str, base: int, dev: bytes, number: int) -> str:
    width = 8 if kind == "s" else 2
    return f"{kind}/{base:016x}-{dev.hex()}-{number:0{width}x}"


def _tag_mac(tag_key: bytes, sid: str, stem: str, digest: bytes) -> bytes:
    return hmac.digest(tag_key, f"name\0{sid}\0{stem}\0".encode() + digest, "sha256")[
        :TAG_MAC_BYTES
    ]


def _blob_hash(sealed: bytes) -> bytes:
    return blake2b(sealed, digest_size=TAG_HASH_BYTES, person=b"moss_sync.name").digest()


def _unbase32(text: str) -> bytes:
    return b32decode(text.upper() + "=" * (-len(text) % 8))


def store_name(url: str) -> str:
    """Return a file-name-safe name for a store's URL."""
    return base32(sha256(url.encode()).digest())[:NAME_CHARS]
