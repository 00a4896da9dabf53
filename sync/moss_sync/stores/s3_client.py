"""The S3 clients behind the S3 store, set up so that nothing is sent twice unasked.

This is the only module that imports aiobotocore (half a second), so the store loads it with the
first request and on a thread. Two clients, because the two kinds of calls want opposite things:
`cas` sends a conditional write exactly once, `bulk` repeats what is harmless to repeat.

Below both sits aiohttp, which sends a PUT again by itself when a reused connection closes before
the answer. A compare-and-swap would then run twice and be told 412 by its own success, and no
retry setting of botocore knows of it; `SendOnceSession` turns it off. The switch is a private name
of aiohttp, so tests/moss_sync/test_stores_s3_wire.py counts the requests on the wire.
Source: aiohttp issue #10790; docs/design/0003-stores.md.

And nothing is sent anywhere else. A redirect is not followed, neither by aiohttp, which would go
to any host, nor by botocore, which would go to another region's; the machine's metadata service is
not asked for credentials. What is not a blob's body is read up to a bound.
What holds: tests/moss_sync/test_stores_s3_hostile.py.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Literal
from urllib.parse import urlsplit

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.parsers import AioResponseParserFactory
from aiobotocore.session import AioSession
from botocore import exceptions as wrong
from botocore.parsers import ResponseParserError

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
MAX_ANSWER_BYTES = 4 * 1024 * 1024
"""Of an answer that is not a blob: a page of 1000 keys of 1024 bytes, each three times as long as
it is written in a URL, has 3.4 MiB."""
MAX_ERROR_BYTES = 64 * 1024
"""Of the body of an error, which has a code and a sentence; the rest is not read."""
MAX_CONNECTIONS = 64
"""As many as the long probe races at once; an exchange uses up to 16."""

FAILURES = (wrong.BotoCoreError, wrong.ClientError, aiohttp.ClientError, TimeoutError, OSError)
"""All that a call through these clients may raise for reasons outside this program."""

FaultKind = Literal[
    "answer", "credentials", "unsent", "untrusted", "lost", "garbled", "profile", "address"
]


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a call failed, in the store's terms.

    Attributes:
        kind: "answer" (the server refused: see status and code), "credentials" (none, or not
            usable), "unsent" (no connection: the request surely had no effect), "untrusted" (the
            same, for want of a certificate that can be trusted), "lost" (it may have had one),
            "garbled" (so may this: the answer cannot be read), "profile" (not in the
            configuration), "address" (no such thing as this bucket name or endpoint).
        headers: Of an answer, names in lower case.
        region: Where the answer says that the bucket is; host: where it points to. "" if it does
            not say, or not in the form of one.
        reason: One clause for a message, without secrets.
        remedy: What to do about it, where that is known.
    """

    kind: FaultKind
    reason: str
    status: int = 0
    code: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    region: str = ""
    host: str = ""
    remedy: str | None = None


class AnswerTooLongError(aiohttp.ClientPayloadError):
    """An answer that is not a blob's body goes on past what any has."""


class BoundedResponse(aiohttp.ClientResponse):
    """An answer of which no more is read at once than one may have that is not a blob's body.

    The bodies of blobs are streams, and whoever reads them keeps to their bound.
    """

    async def read(self) -> bytes:
        is_error = self.status >= 300
        body = bytearray()
        try:
            while chunk := await self.content.read(MAX_ERROR_BYTES):
                body += chunk
                if is_error and len(body) >= MAX_ERROR_BYTES:
                    self.close()  # what its status says is enough
                    break
                if len(body) > MAX_ANSWER_BYTES:
                    raise AnswerTooLongError(f"over {MAX_ANSWER_BYTES} bytes")
        except BaseException:
            self.close()
            raise
        return bytes(body)


class StayingSession:
    """An aiohttp session as aiobotocore uses it, which follows no redirect to any host."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    def request(self, method: str, **options: Any) -> Any:
        return self._session.request(method, allow_redirects=False, **options)


class SendOnceSession(AIOHTTPSession):  # type: ignore[misc]  # aiobotocore has no types
    """aiobotocore's HTTP session that sends each request once, to the store, and bounds answers."""

    async def _get_session(self, proxy_url: str | None) -> StayingSession:
        session: aiohttp.ClientSession = await super()._get_session(proxy_url)
        session._retry_connection = False
        session._response_class = BoundedResponse
        return StayingSession(session)

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


class GarbledAnswerError(wrong.BotoCoreError):  # type: ignore[misc]  # botocore has no types
    """An answer is not what S3 answers; botocore has other errors for it than its own."""

    fmt = "the answer cannot be read: {error}"


class CheckedParsers(AioResponseParserFactory):  # type: ignore[misc]  # aiobotocore has no types
    """Makes parsers whose every error is one of FAILURES."""

    def create_parser(self, protocol_name: str) -> _CheckedParser:
        return _CheckedParser(super().create_parser(protocol_name))


class _CheckedParser:
    def __init__(self, parser: Any) -> None:
        self._parser = parser

    async def parse(self, response: dict[str, Any], shape: Any) -> Any:
        body = response["body"]
        try:
            if isinstance(body, bytes) and b"<!DOCTYPE" in body.upper():
                # No S3 server declares a document type: entities that grow, or a page of a proxy.
                if response["status_code"] < 300:
                    raise ResponseParserError("it has a document type")
                response = {**response, "body": b""}
            if _is_page(shape, response) and _PAGE not in body:
                # A hotel's login page must not pass for a store in which nothing is.
                raise ResponseParserError("it is no listing")
            return await self._parser.parse(response, shape)
        except (
            ResponseParserError,
            ValueError,
            TypeError,
            LookupError,
            AttributeError,
            ArithmeticError,
            RecursionError,
        ) as error:
            if not isinstance(body, bytes):
                body.close()
            raise GarbledAnswerError(error=error) from error


_PAGE = b"<ListBucketResult"


def _is_page(shape: Any, response: dict[str, Any]) -> bool:
    return getattr(shape, "name", "") == "ListObjectsV2Output" and response["status_code"] < 300


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
    parsers = CheckedParsers()
    # No time in an answer's body is ever asked for, and reading them is a tenth of a request.
    parsers.set_parser_defaults(timestamp_parser=str)
    session.register_component("response_parser_factory", parsers)
    if not _may_ask_metadata():
        session.get_component("credential_provider").remove("iam-role")
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
                defaults_mode="legacy",  # another one may ask the metadata service for the region
                warm_up_loader_caches=True,
            )
            client = await stack.enter_async_context(
                session.create_client(
                    "s3", region_name=region, endpoint_url=endpoint, config=config
                )
            )
            events = client.meta.events
            events.register_last("before-parameter-build.s3", _keep_region)
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
        code = code if _CODE.fullmatch(code) and code != str(status) else ""
        told = error.response.get("Error", {})
        return Fault(
            "answer",
            f"HTTP {status} {code}".rstrip(),
            status,
            code,
            headers,
            region=_matching(_REGION, headers.get("x-amz-bucket-region"), told.get("Region")),
            host=_matching(_HOST, _host_of(headers.get("location", "")), told.get("Endpoint")),
        )
    if _is_garbled(error):
        return Fault("garbled", "its answer is not one of an S3 server")
    if isinstance(error, wrong.ProfileNotFound):
        return Fault("profile", "the profile is not in the AWS configuration")
    if isinstance(error, _CREDENTIAL_ERRORS):
        return Fault("credentials", "there are no usable AWS credentials")
    if isinstance(error, wrong.ParamValidationError | wrong.InvalidRegionError):
        return Fault("address", "the bucket's name or region is not a legal one")
    if (untrusted := _untrusted(error)) is not None:
        return untrusted
    if _is_unreachable(error):
        return Fault("unsent", _plain(error))
    return Fault("lost", _plain(error))


_CODE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_REGION = re.compile(r"[a-z0-9-]{1,64}")
_HOST = re.compile(r"[A-Za-z0-9.:\[\]-]{1,255}")
"""What a server says is shown only if it looks like this."""


def _matching(form: re.Pattern[str], *said: Any) -> str:
    return next((str(each) for each in said if each and form.fullmatch(str(each))), "")


def _host_of(location: str) -> str:
    try:
        return urlsplit(location).netloc
    except ValueError:
        return ""


_CA_SETTING = "AWS_CA_BUNDLE=/path/to/ca.pem"
_EXPIRED, _NOT_YET = 10, 9
_OTHER_HOST = frozenset({62, 64})
"""OpenSSL's numbers for why a certificate is refused (x509_vfy.h)."""


def _untrusted(error: BaseException) -> Fault | None:
    """Return what is wrong with the server's certificate, or with the CA file; None if nothing."""
    cause = error.kwargs.get("error") if isinstance(error, wrong.BotoCoreError) else error
    if isinstance(error, wrong.HTTPClientError) and _is_of_ca_file(cause):
        return Fault(
            "untrusted",
            "the file of CA certificates cannot be read",
            remedy=f"name one that is there: {_CA_SETTING}",
        )
    if not isinstance(cause, aiohttp.ClientConnectorCertificateError):
        return None
    why = cause.certificate_error
    number = getattr(why, "verify_code", 0)
    text = str(getattr(why, "verify_message", "")) or type(why).__name__
    remedy = f"if its CA is one of your own, name the file of it: {_CA_SETTING}"
    if number in (_EXPIRED, _NOT_YET):
        remedy = f"have it renewed, or set this machine's clock if that is wrong; {remedy}"
    elif number in _OTHER_HOST:
        remedy = f"name the host that it is for in the store's URL (endpoint_url=); {remedy}"
    return Fault("untrusted", f"its TLS certificate is not trusted: {text}", remedy=remedy)


def _is_garbled(error: BaseException) -> bool:
    if isinstance(error, GarbledAnswerError):
        return True
    # aiobotocore wants UTF-8 in headers, and has no error of its own for what is none.
    return isinstance(error, wrong.HTTPClientError) and isinstance(
        error.kwargs.get("error"), ValueError
    )


def _is_of_ca_file(cause: Any) -> bool:
    return isinstance(cause, OSError) and not isinstance(cause, aiohttp.ClientError)


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
    if isinstance(cause, AnswerTooLongError):
        return f"its answer is longer than {MAX_ANSWER_BYTES} bytes"
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


def _may_ask_metadata() -> bool:
    """Return whether the user has said that credentials may come from the machine's metadata.

    The service is on a network that nobody has named, so it is asked only on demand; a profile with
    `credential_source = Ec2InstanceMetadata` is a demand too, and is left as it is.
    """
    return os.environ.get("AWS_EC2_METADATA_DISABLED", "").strip().lower() == "false"


def _keep_region(context: dict[str, Any], **_: object) -> None:
    """Say that the request has been redirected already, so that botocore does not do it.

    It would ask the server for the region of the bucket, and send this request and all later ones
    to where the answer says.
    """
    context.setdefault("s3_redirect", {})["redirected"] = True


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
    if caught_exception is None:
        return None
    cause = getattr(caught_exception, "kwargs", {}).get("error")
    is_final = (
        isinstance(caught_exception, wrong.ReadTimeoutError)
        or isinstance(cause, AnswerTooLongError)
        or _untrusted(caught_exception) is not None
        or _is_unreachable(caught_exception)
    )
    return False if is_final else None
