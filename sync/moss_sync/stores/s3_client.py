"""The S3 clients behind the S3 store, set up so that nothing is sent twice unasked.

This is the only module that imports aiobotocore (half a second), so the store loads it with the
first request and on a thread. Two clients, because the two kinds of calls want opposite things:
`cas` sends a conditional write exactly once, `bulk` repeats what is harmless to repeat.

Below both sits aiohttp, which sends a PUT again by itself when a reused connection closes before
the answer. A compare-and-swap would then run twice and be told 412 by its own success, and no
retry setting of botocore knows of it; `SendOnceSession` turns it off. The switch is a private name
of aiohttp, so tests/moss_sync/test_stores_s3_wire.py counts the requests on the wire.
Source: aiohttp issue #10790; docs/design/0003-stores.md.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Literal

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import AioSession
from botocore import exceptions as wrong

from moss_sync.traffic import answered, count

CONNECT_TIMEOUT_S = 10
CAS_READ_TIMEOUT_S = 30
"""A 50-way race on SeaweedFS lasts 10 s; past this the outcome is unknown and is read back."""
BULK_READ_TIMEOUT_S = 20
"""Without one byte, at the beginning of an answer or in the middle: six round trips of a bad mobile
link, or two lost packets in a row. A transfer in which bytes arrive takes as long as it takes."""
BIG_BODY_TIMEOUT_S = 60
BIG_BODY_BYTES = 256 * 1024
"""The system takes a big body in jumps of up to a megabyte, and holds some back when it has all of
it. For a link of 16 KiB/s that is a minute without a sign, of sending as of the answer; none of the
time-outs below looks at what is being sent."""
BULK_ATTEMPTS = 3
"""Of what was answered by a fault of the server, or cut off. Silence is not tried again: it would
hold the caller up once more, and whoever called can try again himself."""
MAX_CONNECTIONS = 64
"""As many as the long probe races at once; an exchange uses up to 16."""

FAILURES = (wrong.BotoCoreError, wrong.ClientError, aiohttp.ClientError, TimeoutError, OSError)
"""All that a call through these clients may raise for reasons outside this program."""

FaultKind = Literal["answer", "credentials", "unsent", "lost", "profile", "address"]


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a call failed, in the store's terms.

    Attributes:
        kind: "answer" (the server refused: see status and code), "credentials" (none, or not
            usable), "unsent" (no connection: the request surely had no effect), "lost" (it may
            have had one), "profile" (not in the configuration), "address" (no such thing as this
            bucket name or endpoint).
        headers: Of an answer, names in lower case.
        reason: One clause for a message, without secrets.
    """

    kind: FaultKind
    reason: str
    status: int = 0
    code: str = ""
    headers: dict[str, str] = field(default_factory=dict)


class SendOnceSession(AIOHTTPSession):  # type: ignore[misc]  # aiobotocore has no types
    """aiobotocore's HTTP session without aiohttp's silent second sending."""

    async def _get_session(self, proxy_url: str | None) -> aiohttp.ClientSession:
        session: aiohttp.ClientSession = await super()._get_session(proxy_url)
        session._retry_connection = False
        return session

    async def send(self, request: Any) -> Any:
        if not _is_big(request):
            return await super().send(request)
        async with asyncio.timeout(None) as timer:
            with _stalls_noticed(request.body, timer):
                return await super().send(request)

    def _get_request_timeout(self, request: Any) -> aiohttp.ClientTimeout | None:
        # A private name of aiobotocore, too; were it gone, big bodies had the time of small ones.
        if not _is_big(request):
            return None
        return aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT_S, sock_read=BIG_BODY_TIMEOUT_S)


def _is_big(request: Any) -> bool:
    body = request.body  # botocore makes a file of bytes
    return isinstance(body, BytesIO) and len(body.getbuffer()) >= BIG_BODY_BYTES


@contextmanager
def _stalls_noticed(body: BytesIO, timer: asyncio.Timeout) -> Iterator[None]:
    """End the timer when nothing more of `body` is taken; what is read of it has been taken."""
    loop, size = asyncio.get_running_loop(), len(body.getbuffer())
    at, since = 0, loop.time()
    looking: asyncio.TimerHandle | None = None

    def look() -> None:
        nonlocal at, since, looking
        now = size if body.closed else body.tell()
        if now != at or now == 0:  # at 0 it waits for a connection
            at, since = now, loop.time()
        # At the end, either the last piece is not taken or the answer is waited for: once more as
        # long, since the wait for the answer has a time-out of its own.
        if loop.time() - since >= BIG_BODY_TIMEOUT_S * (1 + (now == size)):
            timer.reschedule(loop.time())
            return
        looking = loop.call_later(BIG_BODY_TIMEOUT_S / 4, look)

    look()
    try:
        yield
    finally:
        if looking is not None:
            looking.cancel()


@dataclass(frozen=True, slots=True)
class Clients:
    """An open pair of clients of one event loop."""

    cas: Any
    bulk: Any
    stack: AsyncExitStack
    loop: asyncio.AbstractEventLoop

    async def close(self) -> None:
        await self.stack.aclose()


async def open_clients(
    *, endpoint_url: str | None, region: str | None, profile: str | None
) -> Clients:
    """Create both clients in the running loop; nothing is sent yet.

    Raises:
        One of FAILURES, for `describe`.
    """
    endpoint = endpoint_url or _endpoint_of_environment()
    session = AioSession(profile=profile)
    # No time in an answer's body is ever asked for, and reading them is a tenth of a request.
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=str)
    stack = AsyncExitStack()
    try:
        opened = []
        for read_timeout_s, attempts in (
            (CAS_READ_TIMEOUT_S, 1),
            (BULK_READ_TIMEOUT_S, BULK_ATTEMPTS),
        ):
            config = AioConfig(
                connect_timeout=CONNECT_TIMEOUT_S,
                read_timeout=read_timeout_s,
                retries={"mode": "standard", "total_max_attempts": attempts},
                # Only AWS itself resolves a bucket as a host name reliably.
                s3={"addressing_style": "path" if endpoint else "auto"},
                # The newer default trailers are refused by several servers (Ceph: 411).
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                max_pool_connections=MAX_CONNECTIONS,
                http_session_cls=SendOnceSession,
                # botocore's own names the system, its version and Python's, and is put together
                # anew for every request: a tenth of it.
                user_agent="moss_local",
                warm_up_loader_caches=True,
            )
            client = await stack.enter_async_context(
                session.create_client(
                    "s3", region_name=region, endpoint_url=endpoint, config=config
                )
            )
            events = client.meta.events
            events.register("before-send.s3", _count_request)
            events.register("before-send.s3", _send_body_at_once)
            events.register("response-received.s3", _count_answer)
            events.register_first("needs-retry.s3", _give_up_when_silent)
            opened.append(client)
    except BaseException:
        await stack.aclose()
        raise
    return Clients(opened[0], opened[1], stack, asyncio.get_running_loop())


def describe(error: BaseException) -> Fault:
    """Say what one of FAILURES means."""
    if isinstance(error, wrong.ClientError):
        meta = error.response.get("ResponseMetadata", {})
        status = int(meta.get("HTTPStatusCode", 0))
        code = str(error.response.get("Error", {}).get("Code", ""))
        headers = {str(k).lower(): str(v) for k, v in meta.get("HTTPHeaders", {}).items()}
        return Fault("answer", f"HTTP {status} {code}".rstrip(), status, code, headers)
    if isinstance(error, wrong.ProfileNotFound):
        return Fault("profile", "the profile is not in the AWS configuration")
    if isinstance(error, _CREDENTIAL_ERRORS):
        return Fault("credentials", "there are no usable AWS credentials")
    if isinstance(error, wrong.ParamValidationError | wrong.InvalidRegionError):
        return Fault("address", "the bucket's name or region is not a legal one")
    if _is_unreachable(error):
        return Fault("unsent", _plain(error))
    return Fault("lost", _plain(error))


_CREDENTIAL_ERRORS = (
    wrong.NoCredentialsError,
    wrong.PartialCredentialsError,
    wrong.CredentialRetrievalError,
    wrong.ConfigParseError,
    wrong.SSOError,
    wrong.TokenRetrievalError,
    wrong.MetadataRetrievalError,
)


def _is_unreachable(error: BaseException | None) -> bool:
    """Return whether no connection came about, so that the request surely had no effect."""
    if isinstance(error, wrong.SSLError | wrong.ConnectTimeoutError | wrong.ProxyConnectionError):
        return True
    # EndpointConnectionError alone does not tell: aiobotocore also says it of a connection that
    # broke under the request.
    cause = error.kwargs.get("error") if isinstance(error, wrong.BotoCoreError) else error
    return isinstance(cause, aiohttp.ClientConnectorError)


def _plain(error: BaseException) -> str:
    cause = error.kwargs.get("error") if isinstance(error, wrong.BotoCoreError) else error
    if isinstance(error, wrong.SSLError):
        return "the TLS connection was refused"
    if isinstance(error, wrong.ConnectTimeoutError):
        return f"no connection within {CONNECT_TIMEOUT_S} s"
    if isinstance(error, wrong.ReadTimeoutError | TimeoutError):
        return "no answer in time"
    if isinstance(cause, aiohttp.ClientConnectorDNSError):
        return "its host name is not known"
    if isinstance(cause, aiohttp.ClientConnectorError):
        return f"no connection ({cause.os_error.strerror or type(cause.os_error).__name__})"
    return f"the connection broke ({type(cause or error).__name__})"


def _endpoint_of_environment() -> str | None:
    """botocore reads these too, but would not then use path-style addresses."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def _count_request(request: Any, **_: object) -> None:
    count(requests=1, sent=int(request.headers.get("Content-Length") or 0))


def _send_body_at_once(request: Any, **_: object) -> None:
    """Drop `Expect: 100-continue`: asking first costs every write a round trip.

    And where a server or proxy does not know it, aiohttp would wait for the go-ahead until the
    time-out. The header is not signed, so it may go.
    """
    request.headers.pop("Expect", None)


def _count_answer(response_dict: dict[str, Any] | None, **_: object) -> None:
    if response_dict is None:
        return
    answered()
    body = response_dict["body"]
    if isinstance(body, bytes):  # a stream is counted where it is read
        count(received=len(body))


def _give_up_when_silent(caught_exception: BaseException | None, **_: object) -> bool | None:
    """No connection now is none in half a second, nor is an answer: the caller hears it at once."""
    silent = isinstance(caught_exception, wrong.ReadTimeoutError)
    return False if silent or _is_unreachable(caught_exception) else None
