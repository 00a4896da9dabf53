"""From a store's URL to the store, and what a wrong URL is told.

    /path, ./path, ~/path, C:\\path      a folder
    file:///path                        the same
    s3://bucket/prefix?endpoint_url=https://host&region=name&profile=name
    memory://name

Nothing is opened or created here. A URL never carries a secret: one that does is refused, and the
message does not repeat it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from moss_sync.errors import InvalidArgumentError
from moss_sync.stores.base import BlobStore
from moss_sync.stores.memory import MemoryStore

_S3_PARAMETERS = ("endpoint_url", "region", "profile")

# Two letters at least, so that the C: of a Windows path is no scheme.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")

_SECRET_HINT = (
    "leave credentials out of the URL: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY,"
    " or AWS_PROFILE"
)


def open_store(url: str) -> BlobStore:
    """Return the store that `url` names; it is reached for with the first call.

    Raises:
        InvalidArgumentError: unknown scheme or parameter, or a part that is missing or illegal.
    """
    if not url.strip():
        raise InvalidArgumentError("the store's URL is empty", hint=f"give one of {_known()}")
    if "\0" in url:
        raise InvalidArgumentError("the store's URL holds a NUL character")
    scheme = _SCHEME.match(url)
    if scheme is None:
        try:
            return _folder(Path(url).expanduser())
        except RuntimeError:
            raise InvalidArgumentError(f"{url!a} begins with nobody's home directory") from None
    if any("\ud800" <= character <= "\udfff" for character in url):
        raise InvalidArgumentError("the store's URL holds half of a surrogate pair")
    opener = _OPENERS.get(scheme[1].lower())
    if opener is None:
        raise InvalidArgumentError(
            f"no store has the scheme {scheme[1] + '://'!r}", hint=f"give one of {_known()}"
        )
    try:
        parts = urlsplit(url)
    except ValueError:
        raise InvalidArgumentError("the store's URL cannot be read") from None
    if "@" in parts.netloc:
        raise InvalidArgumentError("the store's URL holds credentials", hint=_SECRET_HINT)
    if parts.fragment:
        raise InvalidArgumentError("the store's URL has a '#' part; write '#' in a path as '%23'")
    return opener(parts)


def _folder(path: Path) -> BlobStore:
    from moss_sync.stores.folder import FolderStore

    return FolderStore(path)


def _open_file(parts: SplitResult) -> BlobStore:
    _parameters(parts, ())
    host = parts.netloc if parts.netloc.lower() != "localhost" else ""
    if host and os.name != "nt":
        raise InvalidArgumentError(
            f"a file: URL with the host {host!r} is not a path on this machine",
            hint="write file:///path, with three slashes",
        )
    from urllib.request import url2pathname  # brings HTTP along: 8 ms that most never need

    path = Path(url2pathname(f"//{host}{parts.path}" if host else parts.path))
    if not path.is_absolute():
        raise InvalidArgumentError(
            "a file: URL needs an absolute path", hint="write file:///path, or a plain path"
        )
    return _folder(path)


def _open_memory(parts: SplitResult) -> BlobStore:
    _parameters(parts, ())
    name = unquote(parts.netloc + parts.path)
    if not name:
        raise InvalidArgumentError("a memory store needs a name", hint="write memory://NAME")
    return MemoryStore(name)


def _open_s3(parts: SplitResult) -> BlobStore:
    from moss_sync.stores.s3 import S3Store

    if _BUCKET.fullmatch(parts.netloc) is None:
        raise InvalidArgumentError(
            f"{parts.netloc!r} is not a bucket name", hint="write s3://BUCKET/PREFIX"
        )
    prefix = unquote(parts.path).strip("/")
    if any(
        part in ("", ".", "..") or not part.isprintable() for part in prefix.split("/") if prefix
    ):
        raise InvalidArgumentError(f"{prefix!r} is not a prefix", hint="write s3://BUCKET/PREFIX")
    if len(prefix.encode()) > 400:
        raise InvalidArgumentError(f"the prefix of {len(prefix.encode())} bytes is over 400")
    given = _parameters(parts, _S3_PARAMETERS)
    if "endpoint_url" in given:
        _check_endpoint(given["endpoint_url"])
    return S3Store(
        parts.netloc,
        prefix,
        endpoint_url=given.get("endpoint_url"),
        region=given.get("region"),
        profile=given.get("profile"),
    )


_OPENERS: dict[str, Callable[[SplitResult], BlobStore]] = {
    "file": _open_file,
    "s3": _open_s3,
    "memory": _open_memory,
}


def _parameters(parts: SplitResult, known: tuple[str, ...]) -> dict[str, str]:
    given: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in known:
            listed = ", ".join(known) or "none"
            raise InvalidArgumentError(
                f"{parts.scheme}:// stores know no parameter {name!r}",
                hint=f"parameters of {parts.scheme}:// are: {listed}",
            )
        if name in given or not value:
            raise InvalidArgumentError(f"the parameter {name!r} is empty or given twice")
        given[name] = value
    return given


def _check_endpoint(endpoint: str) -> None:
    try:
        parts = urlsplit(endpoint)
        legal = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        legal = False
        parts = SplitResult("", "", "", "", "")
    if "@" in parts.netloc:
        raise InvalidArgumentError("the endpoint_url holds credentials", hint=_SECRET_HINT)
    if not legal or parts.query or parts.fragment:
        raise InvalidArgumentError(
            f"endpoint_url={endpoint!r} is not an http:// or https:// address",
            hint="write endpoint_url=https://HOST:PORT",
        )


def _known() -> str:
    return "a path, file:///PATH, s3://BUCKET/PREFIX, memory://NAME"
