"""Encryption of a session's file: what the installed `apsw` can do, and how a connection is keyed.

The plain `apsw` has no ciphers; `apsw-sqlite3mc` is the same module with SQLite3 Multiple Ciphers
in it. Both write one folder, so no dependency of ours can choose between them: whoever wants files
encrypted installs the second over the first.

The cipher is ChaCha20 with a Poly1305 tag and a fresh nonce for every page, in the file, in its
write-ahead log and in its rollback journal; a page that was changed or moved does not open. What
SQLite would put into temporary files stays in memory.
Source: utelle.github.io/SQLite3MultipleCiphers/docs/ciphers/cipher_chacha20.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

import apsw

from moss_local.errors import CiphersMissingError

CIPHER = "chacha20"

KEY_BYTES = 32


def available() -> bool:
    """Return whether the installed `apsw` can encrypt."""
    return hasattr(apsw, "mc_version")


def require(what: str) -> None:
    """Raise CiphersMissingError, about `what`, if the installed `apsw` cannot encrypt."""
    if not available():
        raise CiphersMissingError(what)


def unlock(conn: apsw.Connection, key: bytes) -> None:
    """Key a fresh connection; the first read then tells whether it is the right one.

    A raw key is taken as it is: without the slow derivation that a passphrase needs.
    """
    # Statements of the cache could outlive the connection's use; the key need not be among them.
    conn.execute(f"PRAGMA cipher = '{CIPHER}'; PRAGMA temp_store = MEMORY", can_cache=False)
    conn.execute(f"PRAGMA key = 'raw:{key.hex()}'", can_cache=False)


def copy_into(conn: apsw.Connection, path: Path, key: bytes | None) -> None:
    """Write the connection's database to `path`, which must not be there, under `key` or plainly.

    Row numbers, identity and versions are the same; free pages are left out. The copy is not
    forced to the disk.
    """
    name = quote(os.path.abspath(path))
    lead = "" if name.startswith("/") else "/"  # a drive's letter on Windows
    raw = "" if key is None else f"raw:{key.hex()}"
    uri = f"file:{lead}{name}?cipher={CIPHER}&key={raw}"
    try:
        conn.execute("VACUUM INTO ?", (uri,), can_cache=False)
    except apsw.Error as error:
        # SQLite's own message may name the file with all of its parameters.
        raise type(error)("the copy could not be written") from None
