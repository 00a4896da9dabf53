"""The S3 store against a loopback server that misbehaves as real ones cannot be asked to."""

from __future__ import annotations

import asyncio
import platform
import socket
import subprocess
import sys
from base64 import b64encode
from hashlib import md5

import pytest
from aiobotocore.httpsession import AIOHTTPSession

from moss_sync import (
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
)
from moss_sync.stores import (
    MAX_BLOB_BYTES,
    Blob,
    Conflict,
    ETag,
    NotModified,
    S3Store,
    Swapped,
    s3_client,
)
from moss_sync.stores.url import open_store
from moss_sync.traffic import metered
from tests.wire import NEVER, Answer, Answering, Request, WireServer, run, s3_error

OK = Answer(headers={"ETag": '"e1"', "Date": "Tue, 01 Dec 2026 10:00:00 GMT"})
DATE_MS = 1_796_119_200_000


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


def always(answer: Answer | None) -> Answering:
    return lambda request: answer


def close_when_reused(request: Request) -> Answer | None:
    """Answer the first request of a connection and close at the second, as idle ones do."""
    return OK if request.nth == 1 else None


def test_a_swap_is_sent_once_although_its_reused_connection_closes() -> None:
    async def body(store: S3Store, server: WireServer) -> None:
        await store.compare_and_swap("k", b"1", etag=None)
        with metered() as meter, pytest.raises(OutcomeUnknownError):
            await store.compare_and_swap("k", b"2", etag=ETag("e1"))
        assert [request.body for request in server.seen] == [b"1", b"2"]
        assert server.seen[1].nth == 2
        assert meter.requests == 1

    run(close_when_reused, body)


def test_without_the_guard_aiohttp_sends_that_swap_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    # If this fails, aiohttp has stopped doing so, and the guard may go.
    monkeypatch.setattr(s3_client, "SendOnceSession", AIOHTTPSession)

    async def body(store: S3Store, server: WireServer) -> None:
        await store.compare_and_swap("k", b"1", etag=None)
        await store.compare_and_swap("k", b"2", etag=ETag("e1"))
        assert [request.body for request in server.seen] == [b"1", b"2", b"2"]

    run(close_when_reused, body)


def test_a_store_is_not_told_what_system_asks_it() -> None:
    async def body(store: S3Store, server: WireServer) -> None:
        await store.put("k", b"123")
        await store.get("k")
        told = {name.lower(): value for each in server.seen for name, value in each.headers.items()}
        assert told["user-agent"].split()[0] == "moss_local"
        words = " ".join(told.values()).lower()
        assert platform.system().lower() not in words
        assert platform.python_version() not in words

    run(always(OK), body)


def test_what_is_harmless_is_repeated_and_every_repetition_is_counted() -> None:
    answers = iter([s3_error(500, "InternalError"), s3_error(503, "SlowDown"), OK])

    async def body(store: S3Store, server: WireServer) -> None:
        with metered() as meter:
            await store.put("k", b"123")
        assert [request.method for request in server.seen] == ["PUT"] * 3
        assert (meter.requests, meter.bytes_sent) == (3, 9)

    run(lambda request: next(answers), body)


@pytest.mark.parametrize("status", [409, 412, 404])
def test_a_swap_that_is_turned_down_is_a_conflict(status: int) -> None:
    async def body(store: S3Store, server: WireServer) -> None:
        answer = await store.compare_and_swap("k", b"1", etag=ETag("e"))
        assert answer == Conflict(DATE_MS)
        assert len(server.seen) == 1

    run(always(s3_error(status, "Some", Date="Tue, 01 Dec 2026 10:00:00 GMT")), body)


@pytest.mark.parametrize("answer", [s3_error(500, "InternalError"), s3_error(502, ""), None])
def test_a_swap_without_a_clear_answer_is_unknown_and_sent_once(answer: Answer | None) -> None:
    async def body(store: S3Store, server: WireServer) -> None:
        with pytest.raises(OutcomeUnknownError):
            await store.compare_and_swap("k", b"1", etag=None)
        assert len(server.seen) == 1

    run(always(answer), body)


def test_a_swap_answered_too_late_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_client, "CAS_READ_TIMEOUT_S", 0.05)

    async def body(store: S3Store, server: WireServer) -> None:
        with pytest.raises(OutcomeUnknownError, match="no answer in time"):
            await store.compare_and_swap("k", b"1", etag=None)
        assert len(server.seen) == 1

    run(always(NEVER), body)


def test_silence_is_not_waited_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_client, "BULK_READ_TIMEOUT_S", 0.05)

    async def body(store: S3Store, server: WireServer) -> None:
        calls = (store.get("k"), store.put("k", b"1"), store.keys("m/"), store.delete("k"))
        for number, call in enumerate(calls, 1):
            with pytest.raises(NetworkError, match="no answer in time"):
                await call
            assert len(server.seen) == number

    run(always(NEVER), body)


def test_the_answer_to_a_big_body_is_given_a_time_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(s3_client, "BIG_BODY_TIMEOUT_S", 0.05)

    async def body(store: S3Store, server: WireServer) -> None:
        big = bytes(s3_client.BIG_BODY_BYTES)
        # The time of a small one would be half a minute.
        async with asyncio.timeout(10):
            with pytest.raises(OutcomeUnknownError, match="no answer in time"):
                await store.compare_and_swap("k", big, etag=None)
            with pytest.raises(NetworkError, match="no answer in time"):
                await store.put("k", big)

    run(always(NEVER), body)


def test_a_server_that_takes_no_more_of_a_body_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_client, "BIG_BODY_TIMEOUT_S", 0.2)

    async def main() -> None:
        with socket.socket() as deaf:  # nobody accepts, so nothing is read but into its buffers
            deaf.bind(("127.0.0.1", 0))
            deaf.listen(8)
            port = deaf.getsockname()[1]
            store = open_store(f"s3://bucket?endpoint_url=http://127.0.0.1:{port}&region=us-east-1")
            async with asyncio.timeout(30):
                with pytest.raises(NetworkError, match="no answer in time"):
                    await store.put("k", bytes(32 * 1024 * 1024))
                with pytest.raises(OutcomeUnknownError, match="no answer in time"):
                    await store.compare_and_swap("k", bytes(32 * 1024 * 1024), etag=None)
            await store.close()

    asyncio.run(main())


def test_a_transfer_goes_on_as_long_as_bytes_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_client, "BULK_READ_TIMEOUT_S", 1.0)

    ended = asyncio.Event()

    async def trickles(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\nETag: "e1"\r\nContent-Length: 20\r\n\r\n')
        for _ in range(20):
            await asyncio.sleep(0.1)
            writer.write(b"x")
            await writer.drain()
        writer.close()
        await writer.wait_closed()
        ended.set()

    async def main() -> None:
        server = await asyncio.start_server(trickles, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        store = open_store(f"s3://bucket?endpoint_url=http://127.0.0.1:{port}&region=us-east-1")
        found = await store.get("k")
        assert isinstance(found, Blob)
        assert found.data == b"x" * 20
        await store.close()
        await ended.wait()
        server.close()
        await server.wait_closed()

    asyncio.run(main())


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_store_says_how_long_to_wait(status: int) -> None:
    async def body(store: S3Store, server: WireServer) -> None:
        with pytest.raises(StoreBusyError) as error:
            await store.compare_and_swap("k", b"1", etag=None)
        assert error.value.retry_after == 7.0
        assert len(server.seen) == 1

    run(always(s3_error(status, "SlowDown", Retry_After="7")), body)


def test_a_busy_store_need_not_say_how_long() -> None:
    async def body(store: S3Store, server: WireServer) -> None:
        with pytest.raises(StoreBusyError) as error:
            await store.compare_and_swap("k", b"1", etag=None)
        assert error.value.retry_after is None

    run(always(s3_error(503, "SlowDown", Retry_After="Tue, 01 Dec 2026 10:00:00 GMT")), body)


def test_a_store_that_does_not_implement_conditions_is_refused() -> None:
    async def body(store: S3Store, server: WireServer) -> None:
        with pytest.raises(StoreLacksCasError) as error:
            await store.compare_and_swap("k", b"1", etag=None)
        assert error.value.check == "conditional write"
        assert "SeaweedFS" in str(error.value.hint)

    run(always(s3_error(501, "NotImplemented")), body)


def test_a_swap_that_is_answered_without_an_etag_is_unknown() -> None:
    async def body(store: S3Store, server: WireServer) -> None:
        with pytest.raises(OutcomeUnknownError, match="ETag"):
            await store.compare_and_swap("k", b"1", etag=None)

    run(always(Answer()), body)


REFUSALS: list[tuple[Answer, type[MossError], str | None]] = [
    (s3_error(403, "AccessDenied"), PermissionDeniedError, "credentials"),
    (s3_error(400, "ExpiredToken"), PermissionDeniedError, "credentials"),
    (s3_error(403, "RequestTimeTooSkewed"), PermissionDeniedError, "clock"),
    (s3_error(404, "NoSuchBucket"), NotFoundError, "bucket"),
    (s3_error(405, "MethodNotAllowed"), InvalidArgumentError, "URL"),
    (
        s3_error(301, "PermanentRedirect", x_amz_bucket_region="eu-1"),
        InvalidArgumentError,
        "region",
    ),
    (s3_error(400, "BadDigest"), NetworkError, None),
    (s3_error(499, ""), NetworkError, None),
]


@pytest.mark.parametrize(("answer", "kind", "hint"), REFUSALS)
def test_a_refusal_becomes_the_error_that_tells_what_to_do(
    answer: Answer, kind: type[MossError], hint: str | None
) -> None:
    async def body(store: S3Store, server: WireServer) -> None:
        for call in (
            store.get("k"),
            store.put("k", b"1"),
            store.compare_and_swap("k", b"1", etag=None),
            store.keys("m/"),
            store.delete("k"),
        ):
            with pytest.raises(kind) as error:
                await call
            assert type(error.value) is kind
            assert store.url in str(error.value)
            assert hint is None or hint in str(error.value.hint)

    run(always(answer), body)


def test_a_server_that_is_not_there_is_a_network_error_at_once() -> None:
    async def body(store: S3Store, server: WireServer) -> None:
        # The port is free again, so the connection is refused.
        gone = open_store(server.url())
        await server.stop()
        for call in (gone.get("k"), gone.compare_and_swap("k", b"", etag=None), gone.keys("m/")):
            with metered() as meter, pytest.raises(NetworkError) as error:
                await call
            assert not isinstance(error.value, OutcomeUnknownError)
            assert meter.requests == 1  # no second try: it would find the same
        await gone.close()

    run(always(OK), body)


def test_a_host_that_has_no_address_is_a_network_error() -> None:
    async def main() -> None:
        store = open_store("s3://bucket?endpoint_url=http://store.invalid&region=us-east-1")
        with pytest.raises(NetworkError, match="host name"):
            await store.get("k")
        await store.close()

    asyncio.run(main())


def test_a_server_without_tls_behind_https_is_a_network_error() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        server = await asyncio.start_server(plain, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        store = open_store(f"s3://bucket?endpoint_url=https://127.0.0.1:{port}&region=us-east-1")
        with metered() as meter, pytest.raises(NetworkError, match="TLS") as error:
            await store.compare_and_swap("k", b"1", etag=None)
        assert not isinstance(error.value, OutcomeUnknownError)
        assert meter.requests == 1
        await store.close()
        server.close()
        await server.wait_closed()

    asyncio.run(main())


def test_a_body_cut_short_is_a_network_error() -> None:
    cut = Answer(headers={"ETag": '"e1"'}, body=b"half", length=8)

    async def body(store: S3Store, server: WireServer) -> None:
        with pytest.raises(NetworkError):
            await store.get("k")

    run(always(cut), body)


def test_a_body_over_the_limit_is_not_even_read() -> None:
    huge = Answer(headers={"ETag": '"e1"'}, body=b"begin", length=MAX_BLOB_BYTES + 1)

    async def body(store: S3Store, server: WireServer) -> None:
        with metered() as meter, pytest.raises(BlobCorruptError, match="over the limit"):
            await store.get("k")
        assert meter.bytes_received == 0

    run(always(huge), body)


@pytest.mark.parametrize("given", ['"e1"', "e1", 'W/"e1"'])
def test_an_etag_is_one_and_the_same_however_the_server_writes_it(given: str) -> None:
    async def body(store: S3Store, server: WireServer) -> None:
        answer = await store.compare_and_swap("k", b"1", etag=None)
        assert isinstance(answer, Swapped)
        assert answer.etag == "e1"
        found = await store.get("k")
        assert isinstance(found, Blob)
        assert found.etag == "e1"
        # A server that ignores the condition sends the body; the caller still gets the truth.
        assert isinstance(await store.get("k", if_none_match=answer.etag), NotModified)

    headers = {"ETag": given}
    run(lambda sent: Answer(headers=headers, body=b"x" if sent.method == "GET" else b""), body)


def test_the_form_of_an_etag_in_a_condition_can_be_set() -> None:
    async def body(store: S3Store, server: WireServer) -> None:
        await store.compare_and_swap("k", b"1", etag=ETag("e1"))
        store.etag_form = "bare"
        await store.compare_and_swap("k", b"1", etag=ETag("e1"))
        await store.get("k", if_none_match=ETag("other"))
        assert [request.headers.get("if-match") for request in server.seen] == ['"e1"', "e1", None]
        assert server.seen[2].headers["if-none-match"] == "other"

    run(always(OK), body)


def test_every_body_goes_with_the_hash_that_guards_it() -> None:
    async def body(store: S3Store, server: WireServer) -> None:
        await store.put("k", b"123")
        await store.put("k", bytes(1_000_000))
        await store.compare_and_swap("k", b"", etag=None)
        for request in server.seen:
            assert "expect" not in request.headers  # it would cost a round trip
            assert request.headers["content-md5"] == b64encode(md5(request.body).digest()).decode()
            assert request.path == "/bucket/p/k"
            assert "x-amz-trailer" not in request.headers

    run(always(OK), body)


def test_the_store_s_time_is_that_of_the_answer() -> None:
    async def body(store: S3Store, server: WireServer) -> None:
        assert await store.put("k", b"1") == DATE_MS
        assert await store.compare_and_swap("k", b"1", etag=None) == Swapped(ETag("e1"), DATE_MS)
        assert await store.get("k") == Blob(b"", ETag("e1"), DATE_MS)
        assert await store.get("k", if_none_match=ETag("e1")) == NotModified(DATE_MS)

    run(always(OK), body)


@pytest.mark.parametrize("headers", [{}, {"Date": "yesterday"}])
def test_an_answer_without_a_legible_date_has_no_time(headers: dict[str, str]) -> None:
    async def body(store: S3Store, server: WireServer) -> None:
        assert await store.put("k", b"1") is None

    run(always(Answer(headers={"ETag": '"e1"', **headers})), body)


def test_pages_shorter_than_asked_for_are_put_together() -> None:
    def page(request: Request) -> Answer:
        number = page.calls = getattr(page, "calls", 0) + 1  # type: ignore[attr-defined]  # a counter
        more = "true" if number < 3 else "false"
        body = (
            "<ListBucketResult><Name>bucket</Name>"
            f"<IsTruncated>{more}</IsTruncated><NextContinuationToken>t{number}"
            f"</NextContinuationToken><Contents><Key>p/m/{number}</Key><ETag>&quot;e{number}&quot;"
            f"</ETag><Size>{number}</Size></Contents></ListBucketResult>"
        )
        return Answer(headers={"Content-Type": "application/xml"}, body=body.encode())

    async def body(store: S3Store, server: WireServer) -> None:
        listed = await store.keys("m/", limit=5)
        assert [(item.key, item.etag, item.size) for item in listed] == [
            ("m/1", "e1", 1),
            ("m/2", "e2", 2),
            ("m/3", "e3", 3),
        ]

    run(page, body)


def test_a_blob_that_was_deleted_by_another_is_deleted() -> None:
    async def body(store: S3Store, server: WireServer) -> None:
        await store.delete("k")
        with pytest.raises(BlobNotFoundError):
            await store.get("k")

    run(always(s3_error(404, "NoSuchKey")), body)


def test_a_store_stays_with_the_event_loop_of_its_first_call() -> None:
    async def first(store: S3Store, url: str) -> None:
        with pytest.raises(NetworkError):
            await store.get("k")

    async def second(store: S3Store) -> None:
        with pytest.raises(RuntimeError, match="another event loop"):
            await store.get("k")

    store = S3Store("bucket", endpoint_url="http://127.0.0.1:9", region="us-east-1")
    with asyncio.Runner() as one, asyncio.Runner() as two:
        one.run(first(store, store.url))
        two.run(second(store))
        one.run(store.close())


def test_naming_an_s3_store_loads_no_http_client() -> None:
    program = (
        "import sys, moss_sync.stores as s; s.open_store('s3://bucket'); s.open_store('folder');"
        "print([m for m in ('aiobotocore', 'aiohttp', 'botocore', 'filelock') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
