"""What a key, a prefix and a blob may look like; every store checks through here before it acts.

Rules of this file: values in, values out; bad input is an InvalidArgumentError that names it.
What holds (tests/moss_sync/test_stores_keys.py): no accepted key has an absolute path, a `..`, a
backslash, a capital letter or a hidden part, so it can leave no folder and two keys never meet on
a file system that ignores case.
"""

from __future__ import annotations

import re

from moss_sync.errors import InvalidArgumentError
from moss_sync.stores.base import MAX_BLOB_BYTES

MAX_KEY_CHARS = 512
"""Of a whole key. S3 ends at 1024 bytes, of which a URL's prefix may take the rest."""

MAX_LIST_KEYS = 1000
"""Per listing; S3 gives no larger page."""

_PART = r"[a-z0-9_-][a-z0-9_.-]{0,199}"
_KEY = re.compile(rf"{_PART}(?:/{_PART})*")
_PREFIX = re.compile(rf"(?:{_PART}/)+")
_BOUND = re.compile(r"[a-z0-9_./-]*")

_SHAPE = "parts of 1 to 200 characters from a-z 0-9 _ . - joined by '/', none starting with a dot"


def is_key(key: str) -> bool:
    """Return whether `key` is one that a store may hold."""
    return len(key) <= MAX_KEY_CHARS and _KEY.fullmatch(key) is not None


def check_key(key: str) -> None:
    """Refuse anything that is not a key."""
    if not is_key(key):
        raise InvalidArgumentError(f"{_shown(key)} is not a blob key", hint=f"a key is {_SHAPE}")


def check_listing(prefix: str, start_after: str, limit: int) -> None:
    """Refuse arguments that no listing can have."""
    if len(prefix) > MAX_KEY_CHARS or _PREFIX.fullmatch(prefix) is None:
        raise InvalidArgumentError(
            f"{_shown(prefix)} is not a key prefix", hint=f"a prefix is {_SHAPE}, and a '/' last"
        )
    if len(start_after) > MAX_KEY_CHARS or _BOUND.fullmatch(start_after) is None:
        raise InvalidArgumentError(f"start_after={_shown(start_after)} is no beginning of a key")
    if not 1 <= limit <= MAX_LIST_KEYS:
        raise InvalidArgumentError(f"limit={limit} is not within 1 and {MAX_LIST_KEYS}")


def check_size(key: str, data: bytes) -> None:
    """Refuse a blob that no store call carries."""
    if len(data) > MAX_BLOB_BYTES:
        raise InvalidArgumentError(
            f"blob {key!r} of {len(data)} bytes is over the limit of {MAX_BLOB_BYTES}"
        )


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:80] + "…")
