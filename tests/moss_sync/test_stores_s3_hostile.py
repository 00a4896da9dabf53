"""The S3 store against a server that sends it elsewhere, never ends, or says what none says."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from moss_sync import (
    BlobCorruptError,
    InvalidArgumentError,
    MossError,
    NetworkError,
    OutcomeUnknownError,
    PermissionDeniedError,
    StoreBusyError,
    UntrustedStoreError,
)
from moss_sync.stores import MAX_BLOB_BYTES, Conflict, S3Store, s3_client
from moss_sync.stores.url import open_store
from moss_sync.traffic import metered
from tests.wire import Answer, Answering, Request, WireServer, run, s3_error

OK = Answer(headers={"ETag": '"e1"', "Date": "Tue, 01 Dec 2026 10:00:00 GMT"})


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


def calls(store: S3Store) -> Iterator[Coroutine[Any, Any, Any]]:
    yield store.get("m/k")
    yield store.put("m/k", b"1")
    yield store.compare_and_swap("m/k", b"1", etag=None)
    yield store.keys("m/")
    yield store.delete("m/k")


# -- elsewhere -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_its_host_is_named(status: int) -> None:
    async def body(store: S3Store, server: WireServer) -> None:
        async with WireServer(lambda _: OK) as other:
            place["to"] = f"http://127.0.0.1:{other.port}/bucket/p/m/k"
            for number, call in enumerate(calls(store), 1):
                with pytest.raises(InvalidArgumentError) as error:
                    await call
                assert f"redirects to '127.0.0.1:{other.port}'" in str(error.value)
                assert "endpoint_url=" in str(error.value.hint)
                assert len(server.seen) == number
            assert other.seen == []

    place: dict[str, str] = {}
    run(lambda _: Answer(status, {"Location": place["to"]}), body)


REGIONS = [
    s3_error(301, "PermanentRedirect", x_amz_bucket_region="eu-central-1"),
    s3_error(307, "TemporaryRedirect", x_amz_bucket_region="eu-central-1"),
    s3_error(400, "AuthorizationHeaderMalformed", x_amz_bucket_region="eu-central-1"),
    s3_error(400, "IllegalLocationConstraintException", x_amz_bucket_region="eu-central-1"),
    Answer(
        400,
        body=b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-central-1</Region></Error>",
    ),
]


@pytest.mark.parametrize("answer", REGIONS)
def test_the_region_of_a_bucket_is_named_and_the_request_stays_where_it_was_sent(
    answer: Answer,
) -> None:
    async def body(store: S3Store, server: WireServer) -> None:
        for number, call in enumerate(calls(store), 1):
            with pytest.raises(InvalidArgumentError, match="region 'eu-central-1'") as error:
                await call
            assert "region=eu-central-1" in str(error.value.hint)
            assert f"endpoint_url=http://127.0.0.1:{server.port}" in str(error.value.hint)
            assert len(server.seen) == number  # nobody has asked for the region either
        assert all("/us-east-1/" in each.headers["authorization"] for each in server.seen)

    run(lambda _: answer, body)


def test_a_region_or_a_code_that_has_not_the_form_of_one_is_not_shown() -> None:
    answer = s3_error(
        301, "\u202e red " * 40, x_amz_bucket_region="EU; or so", Location="http://no host/"
    )

    async def body(store: S3Store, server: WireServer) -> None:
        for call in calls(store):
            with pytest.raises(InvalidArgumentError) as error:
                await call
            assert (str(error.value) + str(error.value.hint)).isprintable()
            assert len(str(error.value)) < 300

    run(lambda _: answer, body)


WATCHED = """
import asyncio, json, sys
reached = []

def hook(event, args):
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        reached.append(str(args[0]))
    elif event == "socket.connect":
        reached.append(str(args[1][0]))
    elif event in ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system"):
        reached.append(event)

sys.addaudithook(hook)
from moss_sync import MossError
from moss_sync.stores import open_store

async def main():
    store = open_store(sys.argv[1])
    told = []
    for call in (store.get("m/k"), store.put("m/k", b"1"), store.keys("m/"), store.delete("m/k"),
                 store.compare_and_swap("m/k", b"1", etag=None)):
        try:
            await call
        except MossError as error:
            told.append(error.code)
    await store.close()
    print(json.dumps({"reached": sorted(set(reached)), "told": told}))

asyncio.run(main())
"""


async def watched(url: str, home: Path, **environment: str) -> dict[str, list[str]]:
    """Make every call in a process of its own; return whom it has reached for, and its errors."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WATCHED, url,
        env={**kept, "HOME": str(home), **environment},
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await child.communicate()
    answer: dict[str, list[str]] = json.loads(out)
    return answer


KEYS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}


@pytest.mark.parametrize("mode", ["", "auto"])
@pytest.mark.parametrize("keys", [KEYS, {}])
def test_a_process_reaches_for_no_host_but_the_store_s(
    tmp_path: Path, keys: dict[str, str], mode: str
) -> None:
    """Whatever the answer is, and whether there are credentials."""
    elsewhere = Answer(
        301, {"Location": "http://elsewhere.invalid/", "x-amz-bucket-region": "eu-central-1"}
    )

    async def main() -> None:
        async with WireServer(lambda _: elsewhere) as server:
            environment = {**keys, **({"AWS_DEFAULTS_MODE": mode} if mode else {})}
            seen = await watched(server.url(), tmp_path, **environment)
            assert set(seen["reached"]) <= {"127.0.0.1"}
            assert len(server.seen) == (5 if keys else 0)
            assert seen["told"] == ["INVALID_ARGUMENT" if keys else "PERMISSION_DENIED"] * 5

    asyncio.run(main())


def test_aws_itself_is_not_reached_for_without_credentials_nor_the_machine_s_metadata(
    tmp_path: Path,
) -> None:
    seen = asyncio.run(watched("s3://bucket?region=us-east-1", tmp_path))
    assert seen == {"reached": [], "told": ["PERMISSION_DENIED"] * 5}


def test_the_machine_s_metadata_is_not_asked_in_the_place_of_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*KEYS, "AWS_EC2_METADATA_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))

    async def body(store: S3Store, server: WireServer) -> None:
        place = f"http://127.0.0.1:{server.port}/"
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", place)
        with pytest.raises(PermissionDeniedError):
            await store.get("m/k")
        assert server.seen == []

    run(lambda _: Answer(404), body)


def test_the_machine_s_metadata_is_asked_where_the_user_says_so(tmp_path: Path) -> None:
    def metadata(request: Request) -> Answer:
        return Answer(404)

    async def main() -> None:
        async with WireServer(metadata) as server:
            seen = await watched(
                "s3://bucket?region=us-east-1",
                tmp_path,
                AWS_EC2_METADATA_DISABLED="false",
                AWS_EC2_METADATA_SERVICE_ENDPOINT=f"http://127.0.0.1:{server.port}/",
            )
            assert server.seen
            assert seen["told"] == ["PERMISSION_DENIED"] * 5

    asyncio.run(main())


# -- without end ---------------------------------------------------------------------------------


def listing(*contents: str, more: str = "false", token: str | None = None) -> Answer:
    following = "" if token is None else f"<NextContinuationToken>{token}</NextContinuationToken>"
    body = (
        f"<ListBucketResult><Name>bucket</Name><IsTruncated>{more}</IsTruncated>{following}"
        f"{''.join(contents)}</ListBucketResult>"
    )
    return Answer(headers={"Content-Type": "application/xml"}, body=body.encode())


def item(key: str, etag: str = "e", size: str = "1") -> str:
    return f"<Contents><Key>{key}</Key><ETag>{etag}</ETag><Size>{size}</Size></Contents>"


def counted_pages(contents: Callable[[int], str], tokens: Callable[[int], str | None]) -> Answering:
    number = 0

    def answering(request: Request) -> Answer:
        nonlocal number
        number += 1
        return listing(contents(number), more="true", token=tokens(number))

    return answering


ENDLESS: list[Answering] = [
    counted_pages(lambda n: "", str),
    counted_pages(lambda n: item("p/m/k"), str),
    counted_pages(lambda n: item(f"other/m/{n}"), str),
    counted_pages(lambda n: item("p/m/k"), lambda n: "same"),
    counted_pages(lambda n: item("p/m/k"), lambda n: None),
]


@pytest.mark.parametrize("answering", ENDLESS)
def test_a_listing_without_end_is_given_up(answering: Answering) -> None:
    async def body(store: S3Store, server: WireServer) -> None:
        with pytest.raises(NetworkError, match="does not come to an end"):
            await store.keys("m/")
        assert len(server.seen) <= 100

    run(answering, body)


def test_a_listing_is_of_keys_that_were_asked_for_each_once_and_in_order() -> None:
    odd = (
        item("p/m/c"), item("p/m/b"), item("p/m/b", "e2"), item("p/m/"), item("p/m"),
        item("p/n/x"), item("p/m/" + "x" * 300),
        item("q/m/x"), item("p/m/Ä"), item("p/m/UPPER"), item("p/m/../fmt"),
        item("p/m/a"), item("p/m/a0"), item("p/m/&#10;"), "<Contents><Size>1</Size></Contents>",
        "<Contents/>",
    )  # fmt: skip

    async def body(store: S3Store, server: WireServer) -> None:
        found = await store.keys("m/", start_after="m/a")
        assert [(each.key, each.etag) for each in found] == [
            ("m/a0", "e"),
            ("m/b", "e2"),
            ("m/c", "e"),
        ]
        assert [each.key for each in await store.keys("m/", limit=2)] == ["m/a", "m/a0"]

    run(lambda _: listing(*odd), body)


def test_fields_that_a_listing_lacks_or_invents_stop_nothing() -> None:
    odd = (
        "<Contents><Key>p/m/a</Key></Contents>",
        "<Contents><Key>p/m/b</Key></Contents>",
        item("p/m/c", etag="e" * 1000, size="-5"),
        item("p/m/d", etag="\u202e", size=str(2**70)),
    )

    async def body(store: S3Store, server: WireServer) -> None:
        for _ in range(2):
            found = await store.keys("m/")
            assert [each.key for each in found] == ["m/a", "m/b", "m/c", "m/d"]
            assert [each.size for each in found] == [0, 0, 0, MAX_BLOB_BYTES + 1]
            etags.update(each.etag for each in found)
        assert len(etags) == 8  # none is equal to any other, nor to what it was

    etags: set[str] = set()
    run(lambda _: listing(*odd), body)


GARBLED = [
    listing(item("p/m/a", size="many")),
    listing(item("p/m/a", size="9" * 5000)),
    Answer(),
    Answer(body=b"<html>hello</html>"),
    Answer(body=b"not even XML"),
    Answer(body=b"\xff\xfe\x00"),
    Answer(body=b"<a>" * 100_000),
    Answer(body=b'<!DOCTYPE x [<!ENTITY e "eeeeeeee">]><ListBucketResult>&e;</ListBucketResult>'),
    listing("<Contents>" * 50_000),
]


@pytest.mark.parametrize("answer", GARBLED)
def test_an_answer_that_is_none_of_s3_is_a_network_error(answer: Answer) -> None:
    async def body(store: S3Store, server: WireServer) -> None:
        with pytest.raises(NetworkError):
            await store.keys("m/")

    run(lambda _: answer, body)


@pytest.mark.parametrize("name", ["x-amz-missing-meta", "x-amz-mp-parts-count"])
def test_a_header_that_is_no_number_is_a_network_error_and_leaves_no_connection(name: str) -> None:
    async def body(store: S3Store, server: WireServer) -> None:
        with pytest.raises(NetworkError, match="its answer"):
            await store.get("m/k")

    run(lambda _: Answer(headers={"ETag": "e", name: "many"}, body=b"x" * 100_000), body)


def test_a_header_that_is_no_text_is_an_answer_that_cannot_be_read() -> None:
    async def body(store: S3Store, server: WireServer) -> None:
        with pytest.raises(NetworkError, match="its answer"):
            await store.put("m/k", b"1")
        with pytest.raises(OutcomeUnknownError, match="its answer"):
            await store.compare_and_swap("m/k", b"1", etag=None)

    run(lambda _: Answer(headers={"ETag": "é"}), body)


FLOOD_BYTES = 2 * MAX_BLOB_BYTES
"""More than anybody reads; no more, for the sake of a reader that does."""


@asynccontextmanager
async def flood(status: str) -> AsyncIterator[tuple[str, dict[str, int]]]:
    """A server whose answers have this status line and a body without end."""
    sent = {"bytes": 0, "requests": 0}
    ended: set[asyncio.Task[None]] = set()

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        ended.add(task)
        try:
            await reader.readuntil(b"\r\n\r\n")
            sent["requests"] += 1
            writer.write(
                f"HTTP/1.1 {status}\r\nETag: e\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            )
            while sent["bytes"] < FLOOD_BYTES:
                writer.write(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
                await writer.drain()
                sent["bytes"] += 65_536
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(pour, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"s3://bucket/p?endpoint_url=http://127.0.0.1:{port}&region=us-east-1", sent
    finally:
        server.close()
        for task in ended:
            task.cancel()
        await asyncio.gather(*ended, return_exceptions=True)
        await server.wait_closed()


BUFFERED = 8 * 1024 * 1024
"""What the system takes of a connection before anybody reads it, and more."""


def test_a_page_without_end_is_read_to_a_bound_once() -> None:
    async def main() -> None:
        async with flood("200 OK") as (url, sent):
            store = open_store(url)
            with pytest.raises(NetworkError, match="longer than 4194304 bytes"):
                await store.keys("m/")
            await store.close()
            assert sent["requests"] == 1
            assert sent["bytes"] < s3_client.MAX_ANSWER_BYTES + BUFFERED

    asyncio.run(main())


@pytest.mark.parametrize(
    ("status", "kind"), [("412 X", None), ("403 X", PermissionDeniedError), ("404 X", None)]
)
def test_of_an_error_without_end_its_status_counts(
    status: str, kind: type[MossError] | None
) -> None:
    async def main() -> None:
        async with flood(status) as (url, sent):
            store = open_store(url)
            swap = store.compare_and_swap("m/k", b"1", etag=None)
            if kind is None:
                assert isinstance(await swap, Conflict)
            else:
                with pytest.raises(kind):
                    await swap
            await store.close()
            assert sent["bytes"] < s3_client.MAX_ERROR_BYTES + BUFFERED

    asyncio.run(main())


def test_a_blob_without_end_is_read_to_the_length_of_a_blob() -> None:
    async def main() -> None:
        async with flood("200 OK") as (url, sent):
            store = open_store(url)
            with metered() as meter, pytest.raises(BlobCorruptError, match="over the limit"):
                await store.get("m/k")
            await store.close()
            assert meter.bytes_received < MAX_BLOB_BYTES + 1024 * 1024
            assert sent["bytes"] < MAX_BLOB_BYTES + BUFFERED

    asyncio.run(main())


def test_a_swap_whose_answer_has_no_end_is_unknown() -> None:
    async def main() -> None:
        async with flood("200 OK") as (url, _):
            store = open_store(url)
            with pytest.raises(OutcomeUnknownError, match="longer than"):
                await store.compare_and_swap("m/k", b"1", etag=None)
            await store.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("given", "taken"),
    [("7", 7.0), ("nan", None), ("inf", 60.0), ("1e9", 60.0), ("-5", 0.0), ("9" * 400, 60.0),
     ("soon", None), ("Tue, 01 Dec 9999 10:00:00 GMT", None)],
)  # fmt: skip
def test_a_store_s_patience_is_asked_for_within_reason(given: str, taken: float | None) -> None:
    async def body(store: S3Store, server: WireServer) -> None:
        with pytest.raises(StoreBusyError) as error:
            await store.compare_and_swap("m/k", b"1", etag=None)
        assert error.value.retry_after == taken

    run(lambda _: s3_error(503, "SlowDown", Retry_After=given), body)


DATES = [
    "Fri, 31 Dec 9999 23:59:59 -2359", "Fri, 31 Dec 9999 23:59:59 -0000",
    "Mon, 01 Jan 0001 00:00:00 +2359", "Mon, 01 Jan 0001 00:00:00 -0000",
    "Tue, 32 Dec 2026 10:00:00 GMT", "Tue, 01 Dec 99999999 10:00:00 GMT",
    "Tue, 01 Dec 2026 10:00:00 +99999999", ",", "0", "Tue,", "1" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("date", DATES)
def test_an_absurd_date_is_a_time_or_none_and_no_error(date: str) -> None:
    async def body(store: S3Store, server: WireServer) -> None:
        time_ms = await store.put("m/k", b"1")
        assert time_ms is None or isinstance(time_ms, int)

    run(lambda _: Answer(headers={"ETag": "e", "Date": date}), body)


@pytest.mark.parametrize("etag", ["e" * 257, "two words", '"'])
def test_what_has_not_the_form_of_an_etag_is_none(etag: str) -> None:
    async def body(store: S3Store, server: WireServer) -> None:
        with pytest.raises(OutcomeUnknownError, match="ETag"):
            await store.compare_and_swap("m/k", b"1", etag=None)

    run(lambda _: Answer(headers={"ETag": etag}), body)


# -- certificates --------------------------------------------------------------------------------


def certificate(folder: Path, *, host: str = "127.0.0.1", days: int = 30) -> Path:
    """Write a certificate that its own key has signed, and the key; return the file of both."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test's")])
    now = datetime.now(UTC)
    try:
        other: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        other = x509.DNSName(host)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=60))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([other]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path


@asynccontextmanager
async def tls_server(pem: Path) -> AsyncIterator[tuple[S3Store, list[bytes]]]:
    """A server with a certificate, a store at its address, and what came through the TLS."""
    read: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        read.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b'HTTP/1.1 200 OK\r\nETag: "e1"\r\nContent-Length: 1\r\n\r\nx')
        await writer.drain()
        writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    store = open_store(f"s3://bucket?endpoint_url=https://127.0.0.1:{port}&region=us-east-1")
    assert isinstance(store, S3Store)
    try:
        yield store, read
    finally:
        await store.close()
        server.close()
        await server.wait_closed()


def test_a_certificate_that_nobody_vouches_for_is_refused_and_nothing_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    pem = certificate(tmp_path)

    async def main() -> None:
        async with tls_server(pem) as (store, read):
            for call in calls(store):
                with metered() as meter, pytest.raises(UntrustedStoreError) as error:
                    await call
                assert not error.value.retryable
                assert not isinstance(error.value, OutcomeUnknownError)
                assert "AWS_CA_BUNDLE=" in str(error.value.hint)
                assert meter.requests == 1
            assert read == []

    asyncio.run(main())


def test_with_the_ca_setting_that_the_hint_names_it_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem = certificate(tmp_path)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(pem))

    async def main() -> None:
        async with tls_server(pem) as (store, read):
            await store.get("m/k")
            assert len(read) == 1

    asyncio.run(main())


@pytest.mark.parametrize(
    ("host", "days", "told", "hint"),
    [
        ("elsewhere.invalid", 30, "mismatch", "endpoint_url="),
        ("127.0.0.1", -1, "expired", "clock"),
    ],
)
def test_a_trusted_certificate_of_another_host_or_time_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, days: int, told: str, hint: str
) -> None:
    pem = certificate(tmp_path, host=host, days=days)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(pem))

    async def main() -> None:
        async with tls_server(pem) as (store, read):
            with pytest.raises(UntrustedStoreError, match=told) as error:
                await store.compare_and_swap("m/k", b"1", etag=None)
            assert hint in str(error.value.hint)
            assert "AWS_CA_BUNDLE=" in str(error.value.hint)
            assert read == []

    asyncio.run(main())


@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_a_ca_file_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    pem = certificate(tmp_path)
    bundle = tmp_path / "bundle.pem"
    if content is not None:
        bundle.write_bytes(content)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))

    async def main() -> None:
        async with tls_server(pem) as (store, read):
            with pytest.raises(UntrustedStoreError, match="CA certificates"):
                await store.compare_and_swap("m/k", b"1", etag=None)
            assert read == []

    asyncio.run(main())


# -- what holds on to private names of others ----------------------------------------------------


def test_without_the_guard_aiohttp_follows_a_redirect(monkeypatch: pytest.MonkeyPatch) -> None:
    # If this fails, aiohttp or aiobotocore has stopped doing so, and the guard may go.
    def follows(self: Any, method: str, **options: Any) -> Any:
        return self._session.request(method, **options)

    monkeypatch.setattr(s3_client.StayingSession, "request", follows)
    place: dict[str, str] = {}

    async def body(store: S3Store, server: WireServer) -> None:
        async with WireServer(lambda _: OK) as other:
            place["to"] = f"http://127.0.0.1:{other.port}/bucket/p/m/k"
            await store.put("m/k", b"1")
            assert len(other.seen) == 1

    run(lambda _: Answer(307, {"Location": place["to"]}), body)


def test_aiohttp_makes_answers_of_the_class_that_bounds_them() -> None:
    async def body(store: S3Store, server: WireServer) -> None:
        clients = await store._open()
        session = await clients.bulk._endpoint.http_session._get_session(None)
        answer = await session.request("GET", url=f"http://127.0.0.1:{server.port}/")
        assert isinstance(answer, s3_client.BoundedResponse)
        assert isinstance(answer, aiohttp.ClientResponse)
        answer.close()

    run(lambda _: OK, body)
