"""Texts and paths as callers hand them in, checked before anything is made of them.

Rules of this file: values in, values out; no file system is asked. Python has strings that no
UTF-8 can say and paths that no file system can hold; what stumbles over them first is far from
the caller, and says so in words of its own.
What holds: tests/moss_local/test_transfer.py, tests/moss_local/test_session.py.
"""

from __future__ import annotations

import os
from pathlib import Path

from moss_sync import InvalidArgumentError

MEND = "mend it with text.encode('utf-16-le', 'surrogatepass').decode('utf-16-le', 'replace')"


def sound_text(text: str, what: str) -> str:
    """Return `text` if UTF-8 can say it.

    Args:
        what: The argument, for the message; the text itself never stands in one.
    Raises:
        InvalidArgumentError: it holds half of a surrogate pair.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(
            f"{what} holds half of a surrogate pair at character {error.start}", hint=MEND
        ) from None
    return text


def path_of(value: object, what: str) -> Path:
    """Return the path that a caller gave.

    Args:
        what: The argument, for the message.
    Raises:
        InvalidArgumentError: it is none, or one that no file system can hold.
    """
    return Path(path_text(value, what))


def path_text(value: object, what: str) -> str:
    """Return the path that a caller gave as it was given, where it may also be a URL.

    Raises:
        InvalidArgumentError: as in `path_of`.
    """
    if not isinstance(value, str | os.PathLike):
        raise InvalidArgumentError(f"{what} is of type {type(value).__name__}, not a path")
    text = os.fspath(value)
    if not isinstance(text, str):
        raise InvalidArgumentError(f"{what} is of bytes, not a path of text", hint="os.fsdecode it")
    if not text:
        raise InvalidArgumentError(f"{what} is empty", hint="name a file or a folder")
    if "\0" in text:
        raise InvalidArgumentError(f"{what} {text!a:.80} holds a NUL character")
    try:
        os.fsencode(text)  # more than UTF-8 has: names of files that are none are escaped in a str
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(
            f"{what} {text!a:.80} holds half of a surrogate pair at character {error.start}"
        ) from None
    return text
