"""Blobs in a bucket of any server that speaks S3 and has conditional writes.

Whether it really has them, and how it wants an ETag written, the probe finds out; `etag_form` is
where its verdict goes. Credentials come from the ordinary AWS chain (environment, profile; the
machine's role only on demand) and never from the URL. The clients are opened by the first request,
inside the running loop, and all calls of a store come from that one loop.

How answers become results (docs/design/0003-stores.md has the sources):

    GET   304 NotModified · 404 BlobNotFoundError
    CAS   412, 409, 404 Conflict · 429, 503 StoreBusyError · 501 StoreLacksCasError
          other 5xx, time-outs, broken connections OutcomeUnknownError
    all   401, 403, no credentials PermissionDeniedError · no such bucket NotFoundError
          no connection NetworkError · a certificate that is not trusted UntrustedStoreError
          a redirect, another region InvalidArgumentError, which names it: none is followed

An answer is believed as far as it can be checked: keys that are none, or are not below what was
asked for, are left out of a listing, and every body, page, number and word has a bound.

What holds: tests/contracts/test_stores.py on a real server, tests/moss_sync/test_stores_s3_wire.py
for what no real server does on request, tests/moss_sync/test_stores_s3_hostile.py for what a
hostile one does.
"""

from __future__ import annotations

import asyncio
import importlib
import math
import re
import secrets
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from hashlib import md5
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from moss_sync.errors import (
    BlobCorruptError,
    BlobNotFoundError,
    InvalidArgumentError,
    MossError,
    NetworkError,
    NotFoundError,
    OutcomeUnknownError,
    PermissionDeniedError,
    StoreBusyError,
    StoreLacksCasError,
    UntrustedStoreError,
)
from moss_sync.stores.base import (
    MAX_BLOB_BYTES,
    Blob,
    Conflict,
    ETag,
    EtagForm,
    Listed,
    NotModified,
    Swapped,
)
from moss_sync.stores.keys import MAX_LIST_KEYS, check_key, check_listing, check_size, is_key
from moss_sync.stores.remedy import remedy
from moss_sync.traffic import count

if TYPE_CHECKING:
    from moss_sync.stores.s3_client import Clients, Fault

_CREDENTIALS_HINT = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or put ?profile=NAME"
    " into the store's URL"
)
_DENIED = frozenset(
    {
        "AccessDenied",
        "AuthorizationHeaderMalformed",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
    }
)
"""Some servers give these with 400 instead of 403."""

_CUT_SHORT = frozenset({"BadDigest", "IncompleteBody", "RequestTimeout"})
"""A 400 that means: the body did not arrive as it was sent, and nothing was stored."""

_ELSEWHERE = frozenset(
    {
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
        "PermanentRedirect",
        "TemporaryRedirect",
    }
)
"""With a region: the bucket is in another one than the requests are for."""

_CHUNK_BYTES = 256 * 1024

MAX_LIST_PAGES = 100
"""Of one call. Servers give a thousand keys a page; one that goes on and on is given up."""

MAX_RETRY_AFTER_S = 60.0
"""A store that wants more patience is asked again all the same: nobody signed the header."""

_ETAG = re.compile(r"[!#-~]{1,256}")
"""RFC 9110, section 8.8.3, without what lies beyond ASCII; servers give 32 to 70 characters."""


class S3Store:
    """A BlobStore in a bucket.

    Args:
        bucket: Must exist.
        prefix: Stands before every key; "" or a path, with or without a last `/`.
        endpoint_url: None for AWS itself (or AWS_ENDPOINT_URL).
        region, profile: None for what the AWS configuration says.
        etag_form: How If-Match is written; the probe sets it.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint_url: str | None = None,
        region: str | None = None,
        profile: str | None = None,
        etag_form: EtagForm = "quoted",
    ) -> None:
        self.bucket = bucket
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self.etag_form: EtagForm = etag_form
        self._place = {"endpoint_url": endpoint_url, "region": region, "profile": profile}
        self._opening = asyncio.Lock()
        self._clients: Clients | None = None
        self._failures: tuple[type[BaseException], ...] = ()
        self._describe: Callable[[BaseException], Fault]
        self._closed = False

    def __repr__(self) -> str:
        return f"<S3Store {self.url!r}>"

    @property
    def url(self) -> str:
        query = "&".join(
            f"{name}={quote(value, safe='/:')}" for name, value in self._place.items() if value
        )
        path = quote(f"{self.bucket}/{self.prefix}".rstrip("/"))
        return f"s3://{path}" + (f"?{query}" if query else "")

    async def get(self, key: str, *, if_none_match: ETag | None = None) -> Blob | NotModified:
        check_key(key)
        clients = await self._open()
        condition = {} if if_none_match is None else {"IfNoneMatch": self._written(if_none_match)}
        try:
            answer = await clients.bulk.get_object(**self._at(key), **condition)
            time_ms = _time_ms(answer)
            etag = _etag(answer)
            async with answer["Body"] as body:
                if etag == if_none_match and etag:
                    return NotModified(time_ms)  # the server ignored the condition
                return Blob(await self._read(key, answer, body), etag, time_ms)
        except self._failures as error:
            fault = self._describe(error)
            if fault.status == 304:
                return NotModified(_date_ms(fault.headers))
            if fault.status == 404 and fault.code != "NoSuchBucket":
                raise BlobNotFoundError(key) from None
            raise self._mapped("read from", fault) from error

    async def put(self, key: str, data: bytes) -> int | None:
        check_key(key)
        check_size(key, data)
        clients = await self._open()
        try:
            return _time_ms(await clients.bulk.put_object(**self._at(key), **_body(data)))
        except self._failures as error:
            raise self._mapped("write to", self._describe(error)) from error

    async def compare_and_swap(
        self, key: str, data: bytes, *, etag: ETag | None
    ) -> Swapped | Conflict:
        check_key(key)
        check_size(key, data)
        clients = await self._open()
        condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": self._written(etag)}
        try:
            answer = await clients.cas.put_object(**self._at(key), **_body(data), **condition)
        except self._failures as error:
            return self._lost_swap(key, error)
        fresh = _etag(answer)
        if not fresh:
            raise OutcomeUnknownError(f"{self.url} wrote {key!r} and did not say its ETag")
        return Swapped(fresh, _time_ms(answer))

    async def keys(
        self, prefix: str, *, start_after: str = "", limit: int = 1000
    ) -> Sequence[Listed]:
        check_listing(prefix, start_after, limit)
        clients = await self._open()
        found: dict[str, Listed] = {}
        place = {"StartAfter": self.prefix + start_after} if start_after else {}
        wanted = limit
        try:
            for _ in range(MAX_LIST_PAGES):  # a server may give shorter pages than it was asked for
                answer = await clients.bulk.list_objects_v2(
                    Bucket=self.bucket, Prefix=self.prefix + prefix, MaxKeys=wanted, **place
                )
                for item in answer.get("Contents") or ():
                    listed = self._listed(item)
                    if listed and listed.key.startswith(prefix) and listed.key > start_after:
                        found[listed.key] = listed
                token = answer.get("NextContinuationToken")
                if len(found) >= limit or not answer.get("IsTruncated"):
                    return sorted(found.values(), key=lambda each: each.key)[:limit]
                if not token or token == place.get("ContinuationToken"):
                    break
                place = {"ContinuationToken": token}
                wanted = MAX_LIST_KEYS  # what has been left out so far may have more of its kind
        except self._failures as error:
            raise self._mapped("list", self._describe(error)) from error
        raise NetworkError(
            f"cannot list {self.url}: the listing of {prefix!r} does not come to an end",
            hint="check that the store's URL is an S3 endpoint's; a bucket with very many other "
            "objects below the store's prefix is not one for a store",
        )

    def _listed(self, item: Mapping[str, Any]) -> Listed | None:
        """Return what a listing says of an object; None where its name is no key of a store.

        An object of which the ETag is not said has one that no other ever has: it counts as
        changed. The size is at most one more than that of any blob, and 0 where it is not said.
        """
        key = str(item.get("Key") or "")
        if not key.startswith(self.prefix) or not is_key(key[len(self.prefix) :]):
            return None
        etag = _etag(item) or ETag(f"unsaid-{secrets.token_hex(8)}")
        size = min(max(0, int(item.get("Size") or 0)), MAX_BLOB_BYTES + 1)
        return Listed(key[len(self.prefix) :], etag, size)

    async def delete(self, key: str) -> None:
        check_key(key)
        clients = await self._open()
        try:
            await clients.bulk.delete_object(**self._at(key))
        except self._failures as error:
            fault = self._describe(error)
            if fault.status == 404 and fault.code != "NoSuchBucket":
                return
            raise self._mapped("delete from", fault) from error

    async def close(self) -> None:
        self._closed = True
        async with self._opening:
            clients, self._clients = self._clients, None
        if clients is not None:
            await clients.close()

    async def _open(self) -> Clients:
        if self._closed:
            raise RuntimeError(f"the store {self.url} is closed")
        if self._clients is None:
            async with self._opening:
                if self._clients is None:
                    self._clients = await self._connect()
        if self._clients.loop is not asyncio.get_running_loop():
            raise RuntimeError(f"the store {self.url} belongs to another event loop")
        return self._clients

    async def _connect(self) -> Clients:
        # Half a second of imports, off the event loop.
        client = await asyncio.to_thread(importlib.import_module, "moss_sync.stores.s3_client")
        self._failures = client.FAILURES
        self._describe = client.describe
        try:
            clients: Clients = await client.open_clients(**self._place)
        except self._failures as error:
            raise self._mapped("open", self._describe(error)) from error
        return clients

    async def _read(self, key: str, answer: Mapping[str, Any], body: Any) -> bytes:
        declared = int(answer.get("ContentLength") or 0)
        data = bytearray()
        while declared <= MAX_BLOB_BYTES and (chunk := await body.read(_CHUNK_BYTES)):
            count(received=len(chunk))
            data += chunk
            if len(data) > MAX_BLOB_BYTES:
                break
        if max(declared, len(data)) > MAX_BLOB_BYTES:
            raise BlobCorruptError(
                f"blob {key!r} in {self.url} is over the limit of {MAX_BLOB_BYTES} bytes"
            )
        return bytes(data)

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self.prefix + key}

    def _written(self, etag: ETag) -> str:
        return f'"{etag}"' if self.etag_form == "quoted" else etag

    def _lost_swap(self, key: str, error: BaseException) -> Conflict:
        fault = self._describe(error)
        if fault.status in (412, 409) or (fault.status == 404 and fault.code != "NoSuchBucket"):
            return Conflict(_date_ms(fault.headers))
        if fault.status == 501:
            raise StoreLacksCasError(
                self.url, check="conditional write", hint=remedy(self.url), detail=fault.reason
            ) from error
        if fault.kind in ("lost", "garbled") or (fault.status >= 500 and fault.status != 503):
            raise OutcomeUnknownError(
                f"no clear answer from {self.url} to the write of {key!r}: {fault.reason}"
            ) from error
        raise self._mapped("write to", fault) from error

    def _mapped(self, verb: str, fault: Fault) -> MossError:
        status, code = fault.status, fault.code
        message = f"cannot {verb} {self.url}: {fault.reason}"
        if fault.kind == "credentials":
            return PermissionDeniedError(message, hint=_CREDENTIALS_HINT)
        if fault.kind in ("profile", "address"):
            return InvalidArgumentError(message, hint="correct the store's URL")
        if fault.kind == "untrusted":
            return UntrustedStoreError(message, hint=fault.remedy)
        if fault.kind in ("unsent", "lost", "garbled") or status == 499 or code in _CUT_SHORT:
            return NetworkError(message)
        if 300 <= status < 400 or (fault.region and code in _ELSEWHERE):
            return self._elsewhere(message, fault)
        if code == "NoSuchBucket":
            return NotFoundError(message, hint=f"create the bucket {self.bucket!r} first")
        if code == "RequestTimeTooSkewed":
            return PermissionDeniedError(message, hint="set this machine's clock: it is far off")
        if status in (401, 403) or code in _DENIED:
            return PermissionDeniedError(
                message, hint=f"check what these credentials may do in {self.bucket!r}"
            )
        if status in (429, 503):
            return StoreBusyError(message, retry_after=_retry_after(fault.headers))
        if status >= 500 and status != 501:
            return NetworkError(message)
        return InvalidArgumentError(message, hint="check that the store's URL is an S3 endpoint's")

    def _elsewhere(self, message: str, fault: Fault) -> InvalidArgumentError:
        """Return the error of a redirect, which names where it leads and is not followed."""
        if fault.region:
            there = S3Store(
                self.bucket,
                self.prefix,
                endpoint_url=self._place["endpoint_url"],
                region=fault.region,
                profile=self._place["profile"],
            )
            return InvalidArgumentError(
                f"{message}; the bucket is in the region {fault.region!r}",
                hint=f"name the region in the store's URL: {there.url}",
            )
        where = f" to {fault.host!r}" if fault.host else ""
        return InvalidArgumentError(
            f"{message}; it redirects{where}, which is not followed",
            hint="name the right address in the store's URL: endpoint_url= and region=",
        )


def _body(data: bytes) -> dict[str, bytes | str]:
    """Return the parameters that carry a body, with the hash by which the server checks it.

    Without Content-MD5 SeaweedFS 4.48 stores an *empty* blob, over whatever was there, when a
    connection closes between the headers and the body: a cancelled call, a lost network or a
    killed process would destroy a manifest. With it the server answers 400 and keeps the old one.
    """
    digest = md5(data, usedforsecurity=False).digest()
    return {"Body": data, "ContentMD5": b64encode(digest).decode()}


def _etag(answer: Mapping[str, Any]) -> ETag:
    """Return the ETag bare, so that those of answers and of listings are equal.

    A proxy that touches bodies makes it weak (W/); no server compares weak ones on a write. What
    is not an ETag by its form is none.
    """
    etag = str(answer.get("ETag") or "").removeprefix("W/").strip('"')
    return ETag(etag if _ETAG.fullmatch(etag) else "")


def _time_ms(answer: Mapping[str, Any]) -> int | None:
    return _date_ms(answer["ResponseMetadata"]["HTTPHeaders"])


def _date_ms(headers: Mapping[str, str]) -> int | None:
    """Return the server's clock from its Date header, whole seconds; None without a legible one."""
    try:
        date = parsedate_to_datetime(headers["date"])
        if date.tzinfo is None:  # "-0000": in UTC, and nothing said of where
            date = date.replace(tzinfo=UTC)
        return int(date.timestamp()) * 1000
    except (LookupError, ValueError, TypeError, OverflowError):
        return None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds asked for, within reason.

    A date, the other form, leaves it to the caller's back-off, as does what is no number.
    """
    try:
        seconds = float(headers["retry-after"])
    except (KeyError, ValueError):
        return None
    return None if math.isnan(seconds) else min(max(0.0, seconds), MAX_RETRY_AFTER_S)
