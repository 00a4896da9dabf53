"""Where a session's file lies: names of any kind to names that every file system can hold.

Rules of this file: values in, values out; no file system is asked. A name is exact code points, so
`é` as one and as two code points, `A` and `a`, `x` and `x ` are different sessions with different
files; the hash keeps them apart, the slug before it is only for people.
What holds (tests/moss_local/test_storage_paths.py): the result is lower-case ASCII letters, digits,
hyphens and one dot, at most 75 characters, never a device name of Windows, never a path.
"""

from __future__ import annotations

import re
from base64 import b32encode
from hashlib import sha256
from pathlib import Path

from moss_sync import InvalidArgumentError
from moss_sync.limits import MAX_NAME_BYTES

SLUG_CHARS = 40
HASH_CHARS = 26
"""130 bits of SHA-256: two names never meet."""

SUFFIX = ".sqlite3"

ENCRYPTED = "enc_"
"""Begins the name of an encrypted session's file; no other has a `_` in it."""

DAMAGED = ".damaged-"
"""Comes with a number behind the name of a file that a repair has moved aside."""

SALVAGE, UNFINISHED_SALVAGE = ".salvage-", ".salvaging-"
"""Come before the name of a file, for what a repair has kept of it and has not put back yet."""


def session_file_of(name: str) -> str:
    """Return the name of the session's file that a file beside it belongs to; its own for itself.

    Args:
        name: Such as `.salvage-NAME.sqlite3`, or `NAME.sqlite3.damaged-1`.
    """
    stem, suffix, _ = name.partition(SUFFIX)
    return stem.removeprefix(SALVAGE).removeprefix(UNFINISHED_SALVAGE) + suffix


def check_name(name: str, *, what: str = "session name") -> str:
    """Return `name` if it can be one.

    Raises:
        InvalidArgumentError: not a string, empty, longer than 512 bytes, or with half of a
            surrogate pair in it.
    """
    if not isinstance(name, str):
        raise InvalidArgumentError(f"a {what} is a string, not {type(name).__name__}")
    if not name:
        raise InvalidArgumentError(f"the {what} is empty", hint="give it at least one character")
    try:
        size = len(name.encode())
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(
            f"the {what} {name!a} holds half of a surrogate pair at character {error.start}"
        ) from error
    if size > MAX_NAME_BYTES:
        raise InvalidArgumentError(
            f"the {what} {name[:40]!r}… has {size} bytes of UTF-8, more than {MAX_NAME_BYTES}"
        )
    return name


def session_path(data_dir: Path, project_id: str, session_name: str) -> Path:
    """Return where the file of a session lies.

    Raises:
        InvalidArgumentError: as in `check_name`.
    """
    return project_path(data_dir, project_id) / (file_name(check_name(session_name)) + SUFFIX)


def project_path(data_dir: Path, project_id: str) -> Path:
    """Return the directory that holds the files of a project's sessions.

    Raises:
        InvalidArgumentError: as in `check_name`.
    """
    return data_dir / file_name(check_name(project_id, what="project id"))


def file_name(name: str) -> str:
    """Return what stands for a name in a path: a slug of it and a hash."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower())[:SLUG_CHARS].strip("-")
    digest = b32encode(sha256(name.encode()).digest()).decode().lower()[:HASH_CHARS]
    # An empty slug leaves the hash alone. What follows the slug makes `con`, `aux` and the other
    # device names of Windows ordinary, and no name ends in a dot or a space.
    return f"{slug}-{digest}" if slug else digest
