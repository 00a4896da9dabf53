"""A loopback HTTP server that answers as a test tells it to, and remembers what it was sent.

For what no real server does on request: closing a connection instead of answering, cutting a body
short, naming a status. Everything that a real server can show is tested on SeaweedFS.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

from moss_sync.stores import S3Store
from moss_sync.stores.url import open_store


@dataclass(frozen=True)
class Request:
    """One request as it came over the wire; `nth` counts from 1 on its connection."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    nth: int


@dataclass(frozen=True)
class Answer:
    """`length`: what Content-Length says where it is to lie; the connection then closes."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    length: int | None = None


NEVER = Answer()
"""Keep the client waiting until the server stops."""

Answering = Callable[[Request], Answer | Awaitable[Answer] | None]
"""None: close the connection without an answer."""


def s3_error(status: int, code: str, **headers: str) -> Answer:
    body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, {"Content-Type": "application/xml", **named}, body)


class WireServer:
    """`async with WireServer(answering) as server:` listens on a free loopback port."""

    def __init__(self, answering: Answering) -> None:
        self.seen: list[Request] = []
        self._answering = answering
        self._serving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> WireServer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Close the port and every connection."""
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await self._server.wait_closed()

    def url(self, bucket: str = "bucket") -> str:
        return f"s3://{bucket}/p?endpoint_url=http://127.0.0.1:{self.port}&region=us-east-1"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            nth = 0
            while True:
                nth += 1
                request = await _read(reader, writer, nth)
                self.seen.append(request)
                answer = self._answering(request)
                if isinstance(answer, Awaitable):
                    answer = await answer
                if answer is None:
                    return
                if answer is NEVER:
                    await asyncio.Event().wait()
                await _write(writer, answer, head=request.method == "HEAD")
                if answer.length is not None:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # the client has gone
        finally:
            self._serving.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, nth: int) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = head[0].split(" ")
    headers = {
        name.strip().lower(): value.strip()
        for name, value in (line.split(":", 1) for line in head[1:] if line)
    }
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(method, unquote(urlsplit(target).path), headers, body, nth)


async def _write(writer: asyncio.StreamWriter, answer: Answer, *, head: bool) -> None:
    length = len(answer.body) if answer.length is None else answer.length
    lines = [f"HTTP/1.1 {answer.status} X", f"Content-Length: {length}"]
    lines += [f"{name}: {value}" for name, value in answer.headers.items()]
    payload = b"" if head or answer.status in (204, 304) else answer.body
    writer.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + payload)
    await writer.drain()


class FakeBucket:
    """An S3 server's objects with one fault of the kind that real servers have had.

    Args:
        ignores: Answers 200 to every condition, like some gateways.
        bare: Takes an ETag only without its quotes, like Ceph RGW 16.2.
        refuses: Answers every conditional write with this status.
        lost_race: What a writer is told whose condition does not hold; Ceph says 500 to many.
    """

    def __init__(
        self,
        *,
        ignores: bool = False,
        bare: bool = False,
        refuses: int | None = None,
        lost_race: int = 412,
    ) -> None:
        self.objects: dict[str, bytes] = {}
        self.ignores, self.bare, self.refuses, self.lost_race = ignores, bare, refuses, lost_race

    def __call__(self, request: Request) -> Answer:
        held = self.objects.get(request.path)
        etag = None if held is None else hashlib.md5(held).hexdigest()
        if request.method == "PUT":
            if not self._may_write(request, etag):
                return s3_error(self.refuses or self.lost_race, "PreconditionFailed")
            self.objects[request.path] = request.body
            return Answer(headers={"ETag": f'"{hashlib.md5(request.body).hexdigest()}"'})
        if request.method == "DELETE":
            self.objects.pop(request.path, None)
            return Answer(204)
        if held is None:
            return s3_error(404, "NoSuchKey")
        if not self.ignores and request.headers.get("if-none-match", "").strip('"') == etag:
            return Answer(304)
        return Answer(headers={"ETag": f'"{etag}"'}, body=held)

    def _may_write(self, request: Request, etag: str | None) -> bool:
        match, none_match = request.headers.get("if-match"), request.headers.get("if-none-match")
        if self.ignores or (match is None and none_match is None):
            return True
        if self.refuses is not None:
            return False
        if none_match is not None:
            return etag is None
        return match == (etag if self.bare else f'"{etag}"')


class PretendingBucket(FakeBucket):
    """Checks a condition, and carries the write out a moment later without any lock.

    Args:
        window_s: How long that moment is.
        connect_s: How much longer the first request on a connection takes.
        jitter_s: How much longer any request may take.
    """

    def __init__(self, *, window_s: float, connect_s: float = 0.0, jitter_s: float = 0.0) -> None:
        super().__init__()
        self.window_s, self.connect_s, self.jitter_s = window_s, connect_s, jitter_s

    async def answered(self, request: Request) -> Answer:
        if request.nth == 1:
            await asyncio.sleep(self.connect_s)
        await asyncio.sleep(random.random() * self.jitter_s)
        if request.method == "PUT":
            held = self.objects.get(request.path)
            if not self._may_write(request, None if held is None else _md5(held)):
                return s3_error(412, "PreconditionFailed")
            await asyncio.sleep(self.window_s)
            self.objects[request.path] = request.body
            return Answer(headers={"ETag": f'"{_md5(request.body)}"'})
        return super().__call__(request)

    def __call__(self, request: Request) -> Awaitable[Answer]:  # type: ignore[override]  # later
        return self.answered(request)


def _md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def run(
    answering: Answering, body: Callable[[S3Store, WireServer], Coroutine[Any, Any, None]]
) -> None:
    """Let a store talk to a server that answers so."""

    async def main() -> None:
        async with WireServer(answering) as server:
            store = open_store(server.url())
            assert isinstance(store, S3Store)
            try:
                await body(store, server)
            finally:
                await store.close()

    asyncio.run(main())
