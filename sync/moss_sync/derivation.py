"""Deriving keys from project keys, once per process for each key and salt, and one at a time.

For a typed key argon2id takes about 200 ms and 64 MiB on purpose; every client of a process asks
for the same.
"""

from __future__ import annotations

import os
import threading
from functools import lru_cache

from moss_sync import keyring
from moss_sync.keyring import KdfParams

_deriving = threading.Lock()


def _after_fork() -> None:
    """In a forked child: whoever held the lock in the parent will not give it back here."""
    global _deriving
    _deriving = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def derived(project_key: str, kdf: KdfParams) -> bytes:
    """Return the key-wrapping key; argon2id runs once per process for each key and salt.

    And never twice at a time: seen with OpenSSL 4.0.3 (cryptography 50.0.2), derivations of four
    lanes on four threads wait for each other for ever, or fail with MemoryError from then on.
    """
    with _deriving:
        return _derived_once(project_key, kdf)


@lru_cache(maxsize=16)
def _derived_once(project_key: str, kdf: KdfParams) -> bytes:
    return keyring.derive_kek(project_key, kdf)
