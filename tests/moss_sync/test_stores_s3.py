"""The S3 store on a real server: kills, credentials, and connections that break in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from moss_sync import (
    InvalidArgumentError,
    NetworkError,
    NotFoundError,
    OutcomeUnknownError,
    PermissionDeniedError,
)
from moss_sync.stores import Blob, Swapped, open_store
from tests.seaweed import SeaweedServer


@pytest.fixture
def own_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[SeaweedServer]:
    """A server that a test may kill."""
    with SeaweedServer(buckets=("test",)) as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        yield server


def test_what_was_acknowledged_is_there_after_the_server_was_killed(
    own_server: SeaweedServer,
) -> None:
    async def main() -> None:
        store = open_store(own_server.url())
        etag = None
        for number in range(20):
            answer = await store.compare_and_swap("m/k", b"%d" % number, etag=etag)
            assert isinstance(answer, Swapped)
            etag = answer.etag
        own_server.kill()
        for call in (store.get("m/k"), store.compare_and_swap("m/k", b"no", etag=etag)):
            with pytest.raises(NetworkError):
                await call
        own_server.start()
        found = await store.get("m/k")
        assert isinstance(found, Blob)
        assert (found.data, found.etag) == (b"19", etag)
        assert isinstance(await store.compare_and_swap("m/k", b"20", etag=etag), Swapped)
        await store.close()

    asyncio.run(main())


async def cutting_relay(target_port: int) -> tuple[asyncio.Server, list[bytes]]:
    """Pass on a request's headers and not its body, as a network that fails in between."""
    answers: list[bytes] = []

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target_port)
        far_writer.write(head)
        far_writer.write_eof()
        answers.append((await far_reader.read()).split(b"\r\n")[0])
        for side in (far_writer, writer):
            side.close()
            await side.wait_closed()

    return await asyncio.start_server(relay, "127.0.0.1", 0), answers


def test_a_connection_that_breaks_before_the_body_leaves_the_old_blob(
    seaweed: SeaweedServer, s3_url: str
) -> None:
    async def main() -> None:
        direct = open_store(s3_url)
        answer = await direct.compare_and_swap("k", b"old", etag=None)
        assert isinstance(answer, Swapped)
        port = int(seaweed.endpoint.rsplit(":", 1)[1])
        server, answers = await cutting_relay(port)
        cut_port = server.sockets[0].getsockname()[1]
        cut = open_store(s3_url.replace(f":{port}", f":{cut_port}"))
        with pytest.raises(OutcomeUnknownError):
            await cut.compare_and_swap("k", b"new", etag=answer.etag)
        assert answers == [b"HTTP/1.1 400 Bad Request"]
        found = await direct.get("k")
        assert isinstance(found, Blob)
        assert found.data == b"old"
        await cut.close()
        await direct.close()
        server.close()
        await server.wait_closed()

    asyncio.run(main())


def test_credentials_that_are_wrong_or_missing_are_named_as_such(
    s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(hint: str) -> None:
        store = open_store(s3_url)
        for call in (
            store.get("k"),
            store.put("k", b""),
            store.compare_and_swap("k", b"", etag=None),
            store.keys("m/"),
        ):
            with pytest.raises(PermissionDeniedError) as error:
                await call
            assert hint in str(error.value.hint)
            assert "wrong-secret" not in str(error.value)
        await store.close()

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    asyncio.run(main("check what these credentials may do"))
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    asyncio.run(main("AWS_ACCESS_KEY_ID"))


def test_a_profile_that_does_not_exist_is_named_in_the_store_s_url(s3_url: str) -> None:
    async def main() -> None:
        store = open_store(f"{s3_url}&profile=nobody")
        with pytest.raises(InvalidArgumentError, match="profile=nobody"):
            await store.get("k")
        await store.close()

    asyncio.run(main())


def test_a_profile_gives_the_credentials(
    s3_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "credentials"
    file.write_text("[one]\naws_access_key_id=test-access\naws_secret_access_key=test-secret\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")

    async def main() -> None:
        store = open_store(f"{s3_url}&profile=one")
        await store.put("k", b"1")
        await store.close()

    asyncio.run(main())


def test_a_bucket_that_does_not_exist_is_a_not_found_error_with_its_name(s3_url: str) -> None:
    async def main() -> None:
        store = open_store(s3_url.replace("s3://test/", "s3://no-such-bucket/"))
        with pytest.raises(NotFoundError) as error:
            await store.get("k")
        assert error.value.hint == "create the bucket 'no-such-bucket' first"
        await store.close()

    asyncio.run(main())


def test_two_prefixes_of_one_bucket_do_not_see_each_other(s3_url: str) -> None:
    async def main() -> None:
        path, query = s3_url.split("?")
        one, two = open_store(f"{path}/a?{query}"), open_store(f"{path}/ab/?{query}")
        await one.put("m/k", b"one")
        assert list(await two.keys("m/")) == []
        assert isinstance(await two.compare_and_swap("m/k", b"two", etag=None), Swapped)
        assert [item.key for item in await one.keys("m/")] == ["m/k"]
        await one.close()
        await two.close()

    asyncio.run(main())
