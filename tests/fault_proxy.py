"""A proxy in front of a real S3 server that spoils chosen requests, and counts what it was sent.

    async with FaultProxy(server.endpoint) as proxy:
        proxy.plan = lambda request: lost_answer if request.verb == "swap" else None
        store = open_store(proxy.url("test", "prefix"))

A fault is a coroutine over one `Passage`: it forwards the request or does not, once or twice, now
or later, and answers what it likes. Requests go on byte for byte, the Host header too: the client
has signed it with the proxy's port, and SeaweedFS verifies the Host that it is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit

HOST = "127.0.0.1"

Verb = Literal["get", "put", "swap", "list", "delete"]


@dataclass(frozen=True)
class Request:
    """One request of the S3 store.

    Attributes:
        number: Among all that came to the proxy, from 1.
        nth: On its connection, from 1.
        path: As it is meant, `/bucket/key`; of a listing `/bucket/prefix`.
        raw: Every byte of it.
    """

    number: int
    nth: int
    verb: Verb
    path: str
    headers: dict[str, str]
    body: bytes
    raw: bytes


@dataclass(frozen=True)
class Answer:
    """What the server said, its body whole, whatever way it came."""

    status: int
    head: tuple[str, ...]
    body: bytes

    def raw(self, *, length: int | None = None, status_line: str | None = None) -> bytes:
        """Return its bytes, where asked for with another Content-Length or status line."""
        lines = [status_line or self.head[0], *self.head[1:]]
        if self.status not in (204, 304):
            lines.append(f"Content-Length: {len(self.body) if length is None else length}")
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + self.body


class Passage:
    """One request on its way through the proxy; a fault decides what becomes of it."""

    def __init__(
        self,
        proxy: FaultProxy,
        request: Request,
        writer: asyncio.StreamWriter,
        waiting: list[tuple[int, Request]],
    ) -> None:
        self.request = request
        self._proxy = proxy
        self._writer = writer
        self._waiting = waiting

    async def forward(self) -> Answer:
        """Let it take effect; return what the server says. ConnectionError: it says nothing.

        What was kept back until after this request takes effect now, before the client has its
        answer: otherwise it would race with what the client sends next.
        """
        answer = await self._proxy.forward(self.request)
        await self.let_go()
        return answer

    async def let_go(self) -> None:
        """Count this request, once, against what had been kept back when it came."""
        waiting, self._waiting = self._waiting, []
        await self._proxy.let_go(waiting)

    async def answer(self, raw: bytes) -> None:
        """Send bytes to the client."""
        self._writer.write(raw)
        await self._writer.drain()

    async def pass_on(self) -> None:
        """Forward it and answer what the server says."""
        await self.answer((await self.forward()).raw())

    def hang_up(self) -> None:
        """Close the connection."""
        self._writer.close()

    def reset(self) -> None:
        """Close the connection as a crashed host would: the client reads ECONNRESET."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def forward_after(self, requests: int) -> None:
        """Let it take effect after so many more requests for the same blob, or at `catch_up`."""
        self._proxy.keep_back(self.request, requests)


Fault = Callable[[Passage], Awaitable[None]]
Plan = Callable[[Request], Fault | None]


async def lost_answer(passage: Passage) -> None:
    """It takes effect, and the connection closes before a byte of the answer."""
    await passage.forward()
    passage.hang_up()


async def dropped(passage: Passage) -> None:
    """It takes no effect, and the connection closes."""
    passage.hang_up()


async def late(passage: Passage) -> None:
    """The connection closes; it takes effect a little later, when the client has gone on."""
    passage.forward_after(1)
    passage.hang_up()


async def very_late(passage: Passage) -> None:
    """The connection closes; it takes effect when everything is over."""
    passage.forward_after(1_000_000)
    passage.hang_up()


async def doubled(passage: Passage) -> None:
    """Something on the way sends it twice; the second answer comes back."""
    await passage.forward()
    await passage.pass_on()


async def delayed(passage: Passage) -> None:
    await asyncio.sleep(0.05)
    answer = await passage.forward()
    await asyncio.sleep(0.05)
    await passage.answer(answer.raw())


async def failed_after_effect(passage: Passage) -> None:
    """It takes effect, and the answer is 500."""
    await passage.forward()
    await passage.answer(_error(500, "InternalError"))


def busy(status: int, *, retry_after: int | None = None) -> Fault:
    """It takes no effect: the server asks for patience."""

    async def answer(passage: Passage) -> None:
        await passage.answer(_error(status, "SlowDown", retry_after))

    return answer


async def reset_in_body(passage: Passage) -> None:
    """It takes effect; half of the answer comes, then a reset."""
    raw = (await passage.forward()).raw()
    await passage.answer(raw[: len(raw) // 2])
    passage.reset()


async def cut_short(passage: Passage) -> None:
    """It takes effect; the answer says its right length, and its last byte never comes."""
    answer = await passage.forward()
    await passage.answer(answer.raw()[:-1])
    passage.hang_up()


async def length_too_great(passage: Passage) -> None:
    """It takes effect; the answer says that it is longer than it is."""
    answer = await passage.forward()
    await passage.answer(answer.raw(length=len(answer.body) + 10))
    passage.hang_up()


async def length_too_small(passage: Passage) -> None:
    """It takes effect; the answer's last bytes stand where the next answer is looked for."""
    answer = await passage.forward()
    await passage.answer(answer.raw(length=max(0, len(answer.body) - 10)))


async def garbage(passage: Passage) -> None:
    """It takes effect; the answer begins with something that is not HTTP."""
    answer = await passage.forward()
    await passage.answer(answer.raw(status_line="TEAPOT/9.9 what \x07"))


def _error(status: int, code: str, retry_after: int | None = None) -> bytes:
    body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
    lines = [f"HTTP/1.1 {status} X", "Content-Type: application/xml"]
    if retry_after is not None:
        lines.append(f"Retry-After: {retry_after}")
    return Answer(status, tuple(lines), body).raw()


class FaultProxy:
    """Listens on a free port of loopback.

    Attributes:
        plan: Asked about each request; None passes it on.
        seen: Every request that clients have sent, whatever became of it.
        effects: Every request that the server has answered, with the status, in its order.
    """

    def __init__(self, endpoint: str) -> None:
        self.plan: Plan = lambda request: None
        self.seen: list[Request] = []
        self.effects: list[tuple[Request, int]] = []
        parts = urlsplit(endpoint)
        assert parts.hostname is not None
        assert parts.port is not None
        self._server = parts.hostname, parts.port
        self._kept: list[tuple[int, Request]] = []
        self._serving: set[asyncio.Task[None]] = set()
        self._closing = False

    async def __aenter__(self) -> FaultProxy:
        self._listener = await asyncio.start_server(self._serve, HOST, 0)
        self.port: int = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing = True
        self._listener.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await self._listener.wait_closed()

    def url(self, bucket: str, prefix: str) -> str:
        return f"s3://{bucket}/{prefix}?endpoint_url=http://{HOST}:{self.port}&region=us-east-1"

    def swaps(self, part: str) -> list[Request]:
        """Return the compare-and-swaps that were sent for keys that hold `part`."""
        return [each for each in self.seen if each.verb == "swap" and part in each.path]

    def swaps_won(self, part: str) -> int:
        """Return how many of them the server has done."""
        return sum(
            status == 200 and each.verb == "swap" and part in each.path
            for each, status in self.effects
        )

    def sent_again(self, part: str) -> list[str]:
        """Return the paths of compare-and-swaps that came more than once.

        What the protocol swaps in is sealed with a salt of its own each time: equal bodies are one
        request, sent again by something below the engine.
        """
        bodies = Counter((each.path, each.body) for each in self.swaps(part))
        return [path for (path, _), times in bodies.items() if times > 1]

    async def forward(self, request: Request) -> Answer:
        reader, writer = await asyncio.open_connection(*self._server)
        try:
            writer.write(request.raw)
            await writer.drain()
            answer = await _read_answer(reader)
        except asyncio.IncompleteReadError as error:
            raise ConnectionError("the server has gone") from error
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        self.effects.append((request, answer.status))
        return answer

    def keep_back(self, request: Request, requests: int) -> None:
        self._kept.append((requests, request))

    async def catch_up(self, part: str = "") -> None:
        """Let everything take effect that is still kept back, of paths that hold `part`."""
        for item in [each for each in self._kept if part in each[1].path]:
            self._kept.remove(item)
            await self.forward(item[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        nth = 0
        try:
            while not writer.is_closing():
                nth += 1
                request = await _read_request(reader, len(self.seen) + 1, nth)
                self.seen.append(request)
                fault = self.plan(request)
                waiting = [each for each in self._kept if each[1].path == request.path]
                passage = Passage(self, request, writer, waiting)
                await (Passage.pass_on if fault is None else fault)(passage)
                await passage.let_go()
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # the client or the server has gone
        except asyncio.CancelledError:
            if not self._closing:
                raise
        finally:
            self._serving.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def let_go(self, waiting: list[tuple[int, Request]]) -> None:
        """Count one more request against these, and forward those that have waited enough."""
        for item in waiting:
            if item in self._kept:
                self._kept.remove(item)
                if item[0] > 1:
                    self._kept.append((item[0] - 1, item[1]))
                else:
                    await self.forward(item[1])


async def _read_request(reader: asyncio.StreamReader, number: int, nth: int) -> Request:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    headers = _headers(rest)
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    parts = urlsplit(target)
    path, query = unquote(parts.path), parse_qs(parts.query)
    verb: Verb
    if "list-type" in query:
        verb, path = "list", f"{path.rstrip('/')}/{query['prefix'][0]}"
    elif method == "PUT":
        verb = "swap" if {"if-match", "if-none-match"} & headers.keys() else "put"
    else:
        verb = "delete" if method == "DELETE" else "get"
    return Request(number, nth, verb, path, headers, body, head + body)


async def _read_answer(reader: asyncio.StreamReader) -> Answer:
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(head[0].split(" ")[1])
        if status >= 200:
            break
    headers = _headers(head[1:])
    body = b""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body += (await reader.readexactly(size + 2))[:-2]
    elif status not in (204, 304):
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    framing = ("content-length:", "transfer-encoding:", "connection:")
    kept = [line for line in head if line and not line.lower().startswith(framing)]
    return Answer(status, tuple(kept), body)


def _headers(lines: list[str]) -> dict[str, str]:
    return {
        name.strip().lower(): value.strip()
        for name, value in (line.split(":", 1) for line in lines if line)
    }
