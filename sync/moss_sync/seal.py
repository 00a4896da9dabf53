"""Authenticated encryption of whole blobs, each bound to the one place where it may stand.

Rules of this file: values in, values out; salts are arguments.
What holds (tests/moss_sync/test_seal.py): any flipped, missing, added or exchanged byte, another
name, another session, another repository or another key gives BlobCorruptError, never other bytes.
A frame of a newer version gives UnsupportedFormatError; a flip in the bytes that tell the two apart
does not, because the blob opens once they are put right.

A blob is a header, then the plain text in chunks of 1 MiB, each sealed on its own so that memory
stays bounded. Every blob has its own key (HKDF over 32 random bytes), so the nonce only has to
tell the chunks of one blob apart: it is the chunk's index and whether it is the last (the STREAM
construction of Hoang, Reyhanitabar, Rogaway and Vizár 2015). ChaCha20-Poly1305 does not commit to
its key, so the header carries 32 more bytes of the same HKDF: a blob opens under one key only.
Source: SYNC-PROTOCOL 2.9, described byte by byte in docs/format.md.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from moss_sync.errors import BlobCorruptError, UnsupportedFormatError
from moss_sync.features import UPGRADE

MAGIC = b"XSEG"
FRAME_VERSION = 1
SUITE_CHACHA20POLY1305 = 1
SALT_BYTES = 32
KEY_BYTES = 32
CHUNK_BYTES = 1024 * 1024
TAG_BYTES = 16

FIRST_EPOCH = 1
"""The epoch of a new repository's root key; each rotation adds one."""

MAX_EPOCH = 2**32 - 1
"""What the header has room for."""

_HEADER = struct.Struct(">4sBBBxI32s32sQ")
"""magic, frame version, suite, flags, one zero, key epoch, salt, key commitment, plain length"""

HEADER_BYTES = _HEADER.size

MIN_SEALED_BYTES = HEADER_BYTES + TAG_BYTES
"""Of a blob of nothing at all: what is shorter is none."""


@dataclass(frozen=True, slots=True)
class BlobIdentity:
    """Which blob it is, and so where alone it may stand; part of what is authenticated.

    Attributes:
        repo_id: 16 bytes.
        sid: The session's id; empty for blobs of the whole project.
        kind: What it is: "manifest", "segment" (pushed or compacted) or "probe"; it also separates
            the keys.
        name: Its name within the session; "m" for the manifest, and of a segment the stem of its
            name, whose rest is a hash of the sealed bytes.
    """

    repo_id: bytes
    sid: str
    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class RootKeys:
    """The root keys of a repository by epoch; new blobs are sealed under the newest."""

    by_epoch: Mapping[int, bytes]
    _tag_keys: dict[int, bytes] = field(default_factory=dict, init=False, compare=False)

    @property
    def newest(self) -> int:
        return max(self.by_epoch)

    def tag_key(self, epoch: int) -> bytes:
        """Return the key that the names of segments sealed under `epoch` are made with.

        Raises:
            BlobCorruptError: this device does not hold the epoch.
        """
        if epoch not in self._tag_keys:
            self._tag_keys[epoch] = _derived(self.root(epoch), None, "names", KEY_BYTES)
        return self._tag_keys[epoch]

    def root(self, epoch: int) -> bytes:
        """Return the root key of `epoch`. Raises BlobCorruptError where it is not held."""
        if epoch not in self.by_epoch:
            raise BlobCorruptError(f"this device does not hold the keys of epoch {epoch}")
        return self.by_epoch[epoch]

    def __repr__(self) -> str:
        return f"<RootKeys epochs={sorted(self.by_epoch)}>"


def seal(
    roots: RootKeys, identity: BlobIdentity, plain: bytes, *, salt: bytes, epoch: int | None = None
) -> bytes:
    """Return `plain` sealed as the blob that `identity` names.

    Args:
        salt: SALT_BYTES fresh random bytes; never the same twice.
        epoch: Whose root key seals it; None for the newest.
    """
    if len(salt) != SALT_BYTES:
        raise ValueError(f"a salt has {SALT_BYTES} bytes, not {len(salt)}")
    epoch = roots.newest if epoch is None else epoch
    key, commitment = _blob_keys(roots.root(epoch), salt, identity.kind)
    header = _HEADER.pack(
        MAGIC, FRAME_VERSION, SUITE_CHACHA20POLY1305, 0, epoch, salt, commitment, len(plain)
    )
    aad = _aad(identity, header)
    cipher = ChaCha20Poly1305(key)
    parts = [header]
    count = _chunks(len(plain))
    for index in range(count):
        chunk = plain[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
        parts.append(cipher.encrypt(_nonce(index, last=index == count - 1), chunk, aad))
    return b"".join(parts)


def epoch_of(sealed: bytes) -> int | None:
    """Return the key epoch that a blob states; None for what is no sealed blob.

    Read without a key, so not to be believed before the blob has been opened.
    """
    if len(sealed) < HEADER_BYTES or sealed[:4] != MAGIC:
        return None
    epoch: int = _HEADER.unpack_from(sealed)[4]
    return epoch


def unseal(roots: RootKeys, identity: BlobIdentity, sealed: bytes, *, max_plain: int) -> bytes:
    """Return the plain text of the blob that `identity` names.

    Args:
        max_plain: A blob that declares more is refused before anything is decrypted.
    Raises:
        BlobCorruptError: it was changed, cut, belongs elsewhere, or is no blob of ours.
        UnsupportedFormatError: a newer version of this library wrote it.
    """
    where = _where(identity)
    if len(sealed) < HEADER_BYTES or sealed[:4] != MAGIC:
        raise BlobCorruptError(f"{where} is not a sealed blob ({len(sealed)} bytes)")
    _, version, suite, flags, epoch, salt, commitment, length = _HEADER.unpack_from(sealed)
    if version != FRAME_VERSION or suite != SUITE_CHACHA20POLY1305 or flags != 0:
        if unseal_without_header(roots, identity, sealed, max_plain=max_plain) is not None:
            raise BlobCorruptError(f"{where} has a damaged header: it opens without it")
        raise UnsupportedFormatError(
            f"{where} has frame version {version}, suite {suite}, flags {flags}",
            hint=UPGRADE,
        )
    count = _chunks(length)
    if length > max_plain or len(sealed) != HEADER_BYTES + length + count * TAG_BYTES:
        raise BlobCorruptError(
            f"{where} declares {length} bytes and has {len(sealed)} of at most {max_plain}"
        )
    root = roots.by_epoch.get(epoch)
    if root is None:
        raise BlobCorruptError(
            f"{where} is sealed under key epoch {epoch}, which this device does not hold"
        )
    key, expected = _blob_keys(root, salt, identity.kind)
    if not hmac.compare_digest(commitment, expected):
        raise BlobCorruptError(f"{where} was not sealed under this project's key")
    aad = _aad(identity, sealed[:HEADER_BYTES])
    cipher = ChaCha20Poly1305(key)
    parts = []
    step = CHUNK_BYTES + TAG_BYTES
    for index in range(count):
        start = HEADER_BYTES + index * step
        try:
            chunk = cipher.decrypt(
                _nonce(index, last=index == count - 1), sealed[start : start + step], aad
            )
        except InvalidTag:
            raise BlobCorruptError(f"{where} was changed, or belongs under another name") from None
        parts.append(chunk)
    return b"".join(parts)


def _where(identity: BlobIdentity) -> str:
    """Return what an error calls a blob; every manifest has the same name, and another session."""
    return f"the {identity.kind} {identity.sid if identity.kind == 'manifest' else identity.name!r}"


def unseal_without_header(
    roots: RootKeys, identity: BlobIdentity, sealed: bytes, *, max_plain: int
) -> tuple[bytes, int] | None:
    """Return the plain text of a blob with a damaged header, and the epoch that it is sealed under.

    None for any other than one of this version.

    Of the header only salt and key commitment are believed, which nothing else could stand for.
    That the rest opens proves that this version sealed it: what differs in the header is damage,
    and neither a newer version nor a key that this device has never heard of.
    """
    if len(sealed) < HEADER_BYTES + TAG_BYTES:
        return None
    *_, salt, commitment, _ = _HEADER.unpack_from(sealed)
    body = len(sealed) - HEADER_BYTES
    length = body - TAG_BYTES * -(-body // (CHUNK_BYTES + TAG_BYTES))
    for epoch, root in roots.by_epoch.items():
        if not hmac.compare_digest(commitment, _blob_keys(root, salt, identity.kind)[1]):
            continue
        header = _HEADER.pack(
            MAGIC, FRAME_VERSION, SUITE_CHACHA20POLY1305, 0, epoch, salt, commitment, length
        )
        with suppress(BlobCorruptError):
            whole = header + sealed[HEADER_BYTES:]
            return unseal(roots, identity, whole, max_plain=max_plain), epoch
    return None


def sealed_size(sealed: bytes) -> int | None:
    """Return how many bytes a blob has in all by what its header says; None: it has no header."""
    if len(sealed) < HEADER_BYTES or sealed[:4] != MAGIC:
        return None
    length: int = _HEADER.unpack_from(sealed)[-1]
    return HEADER_BYTES + length + _chunks(length) * TAG_BYTES


def _chunks(length: int) -> int:
    # An empty blob still has one (empty, last) chunk, so that its emptiness is authenticated.
    return max(1, -(-length // CHUNK_BYTES))


def _nonce(index: int, *, last: bool) -> bytes:
    return struct.pack(">7xIB", index, last)


def _blob_keys(root: bytes, salt: bytes, kind: str) -> tuple[bytes, bytes]:
    material = _derived(root, salt, kind, 2 * KEY_BYTES)
    return material[:KEY_BYTES], material[KEY_BYTES:]


def _derived(root: bytes, salt: bytes | None, info: str, length: int) -> bytes:
    return HKDF(
        algorithm=SHA256(), length=length, salt=salt, info=f"moss_sync/{info}".encode()
    ).derive(root)


def _aad(identity: BlobIdentity, header: bytes) -> bytes:
    digest = blake2b(digest_size=32, person=b"moss_sync.aad")
    names = (identity.sid, identity.kind, identity.name)
    for part in (identity.repo_id, *(name.encode() for name in names)):
        digest.update(struct.pack(">I", len(part)))
        digest.update(part)
    digest.update(header)
    return digest.digest()
