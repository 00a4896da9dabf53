"""The keys of a project's encrypted files, and the small file beside them that wraps the keys.

`at-rest.json` stands in the project's directory if, and only if, its session files are encrypted.
It holds one random key, wrapped once for each key of the user that opens it (a slot): the project
key, or one that the app gives. A change of the user's key writes a few hundred bytes anew and no
session file; a rotation keeps two slots until it is known which key counts.

Rules of this file: values in, values out, but for `check_mode`; randomness is an argument.
What holds: tests/moss_local/test_storage_file_keys.py.
"""

from __future__ import annotations

import hmac
import json
from base64 import b32encode
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from moss_local.errors import AtRestError, FileCorruptError
from moss_local.storage.ciphers import KEY_BYTES
from moss_local.storage.paths import ENCRYPTED, HASH_CHARS
from moss_sync import BlobCorruptError, UnauthorizedError, UnsupportedFormatError
from moss_sync.keyring import (
    KDF_SALT_BYTES,
    NONCE_BYTES,
    WRAPPED_BYTES,
    KdfParams,
    derive_kek,
)

KEY_FILE = "at-rest.json"

VERSION = 1

MAX_SLOTS = 4
"""A rotation needs two. Each costs a slow derivation to whoever tries it."""

MARK_CHARS = 8
"""40 bits: the key files of two projects, or of two devices, are not taken for each other."""

MAX_KEY_FILE_BYTES = 16 * 1024

Kind = Literal["project", "app"]
"""Whose key opens a slot: the project's, or one that the app gives."""

Token = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class FileKeys:
    """What encrypted files are read and named with.

    Attributes:
        pages: Makes the key of each file's pages; 32 bytes.
        names: Makes a session's name the name of a file; 32 bytes.
    """

    pages: bytes = field(repr=False)
    names: bytes = field(repr=False)

    def page_key(self, file: str) -> bytes:
        """Return the key of the pages of the session's file of this name, which no other has.

        So a page of one file opens in no other. It follows from the name and not from a salt in
        the file: 16 damaged bytes must not cost everything that the file holds.
        """
        info = b"moss_local/pages of " + file.encode()
        return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(self.pages)

    @property
    def mark(self) -> str:
        """What all files of these keys are called alike: files of other keys are told from them."""
        digest = hmac.digest(self.names, b"", "sha256")
        return ENCRYPTED + b32encode(digest).decode().lower()[:MARK_CHARS] + "_"

    def file_name(self, session: str) -> str:
        """Return what a session's file is called, without suffix: it tells nothing of the name."""
        digest = hmac.digest(self.names, session.encode(), "sha256")
        return self.mark + b32encode(digest).decode().lower()[:HASH_CHARS]


@dataclass(frozen=True, slots=True)
class Slot:
    """The files' key as one key of the user wraps it."""

    kind: Kind
    kdf: KdfParams
    wrapped: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyFile:
    """The contents of `at-rest.json`.

    Attributes:
        converting: Files are being encrypted or decrypted, or that was cut off.
    """

    slots: tuple[Slot, ...]
    converting: bool = False

    @property
    def kinds(self) -> frozenset[Kind]:
        return frozenset(slot.kind for slot in self.slots)


def check_mode(path: Path, *, encrypted: bool) -> None:
    """Check that the files beside `path` are still encrypted, or still not, as they were before.

    Raises:
        AtRestError: that has been changed meanwhile.
    """
    if (path.parent / KEY_FILE).exists() != encrypted:
        raise AtRestError(
            f"the session files in {path.parent} have been "
            f"{'decrypted' if encrypted else 'encrypted'} meanwhile",
            hint="make a new client and open the session with it",
        )


def new_master(token: Token) -> bytes:
    """Return a fresh key for a project's files."""
    return token(KEY_BYTES)


def keys_of(master: bytes) -> FileKeys:
    """Return the keys that follow from the one that is wrapped."""
    both = HKDF(algorithm=SHA256(), length=2 * KEY_BYTES, salt=None, info=b"moss_local/at rest")
    derived = both.derive(master)
    return FileKeys(derived[:KEY_BYTES], derived[KEY_BYTES:])


def wrap(master: bytes, secret: str, kind: Kind, token: Token) -> Slot:
    """Return a slot that `secret` opens. Takes about 0.2 s on purpose where that was typed."""
    kdf, nonce = KdfParams.choose(secret, token(KDF_SALT_BYTES)), token(NONCE_BYTES)
    sealed = ChaCha20Poly1305(derive_kek(secret, kdf)).encrypt(nonce, master, _context(kind))
    return Slot(kind, kdf, nonce + sealed)


def unwrap(slots: tuple[Slot, ...], secret: str, kind: Kind) -> bytes | None:
    """Return the key that one of the slots wraps under `secret`; None if none does."""
    for slot in slots:
        if slot.kind != kind or not slot.kdf.suits(secret):
            continue  # nobody wraps under a typed key so cheaply
        nonce, sealed = slot.wrapped[:NONCE_BYTES], slot.wrapped[NONCE_BYTES:]
        try:
            return ChaCha20Poly1305(derive_kek(secret, slot.kdf)).decrypt(
                nonce, sealed, _context(kind)
            )
        except InvalidTag:
            continue
    return None


def wrong_key(shown: str, kind: Kind) -> UnauthorizedError:
    """Return the error for a key that opens no slot."""
    if kind == "project":
        return UnauthorizedError(
            f"the project key does not open the encrypted files in {shown}",
            hint="give the key of before; if the project's key was rotated elsewhere, let the new"
            " one open them: moss-local at-rest change-key",
        )
    return UnauthorizedError(
        f"the key given for the encrypted files in {shown} does not open them",
        hint="give the one that they were encrypted with (at_rest=, MOSS_AT_REST_KEY)",
    )


def encode(contents: KeyFile) -> bytes:
    """Return the bytes of `at-rest.json`."""
    fields = {
        "version": VERSION,
        "converting": contents.converting,
        "slots": [
            {
                "kind": slot.kind,
                "salt": slot.kdf.salt.hex(),
                "memory_kib": slot.kdf.memory_kib,
                "iterations": slot.kdf.iterations,
                "lanes": slot.kdf.lanes,
                "wrapped": slot.wrapped.hex(),
            }
            for slot in contents.slots
        ],
    }
    return json.dumps(fields, indent=1).encode()


def decode(data: bytes, shown: str) -> KeyFile:
    """Return what `at-rest.json` says.

    Args:
        shown: Its path, for messages.
    Raises:
        FileCorruptError: it is damaged.
        UnsupportedFormatError: a newer version wrote it.
    """
    try:
        fields = json.loads(data)
        version = fields["version"]
        if isinstance(version, int) and version > VERSION:
            raise UnsupportedFormatError(
                f"{shown} has version {version}; this moss_local knows {VERSION}",
                hint="upgrade it: pip install --upgrade moss-local",
            )
        slots, converting = fields["slots"], fields["converting"]
        if version != VERSION or type(converting) is not bool or not 0 < len(slots) <= MAX_SLOTS:
            raise ValueError("unknown")
        return KeyFile(tuple(_slot(each) for each in slots), converting)
    except (ValueError, KeyError, TypeError, RecursionError, BlobCorruptError) as error:
        raise unusable(
            f"{shown} is damaged, and it holds the key of the encrypted files beside it",
            detail=type(error).__name__,
        ) from error


def unusable(what: str, *, detail: str | None = None) -> FileCorruptError:
    """Return the error of a key file that opens none of the encrypted files beside it.

    Args:
        what: What is wrong with it, with its path.
    """
    return FileCorruptError(
        what,
        hint="put it back from a backup; without it the files cannot be read: move the folder away,"
        " and pull what was pushed",
        detail=detail,
    )


def _slot(fields: Any) -> Slot:
    kind: Kind = fields["kind"]
    kdf = KdfParams(
        bytes.fromhex(fields["salt"]),
        fields["memory_kib"],
        fields["iterations"],
        fields["lanes"],
    )
    wrapped = bytes.fromhex(fields["wrapped"])
    if kind not in ("project", "app") or len(wrapped) != WRAPPED_BYTES:
        raise ValueError("no slot")
    return Slot(kind, kdf.checked(), wrapped)


def _context(kind: Kind) -> bytes:
    return b"moss_local at rest 1 " + kind.encode()
