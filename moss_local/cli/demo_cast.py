"""The processes of the demo, and the way by which each reaches the store.

Every agent is a process of its own. Being offline is no switch in the program: the agent's way to
the store is really gone, a link in the file system that no longer leads anywhere, or an endpoint
where nobody listens.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from moss_sync import InvalidArgumentError, MossError

END_WAIT_S = 10.0

Answer = dict[str, Any]


class Agent:
    """A running agent; `open` holds what it said when it had opened its session."""

    def __init__(self, name: str, *, hello: dict[str, str]) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moss_local.cli.demo_agent"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        self.open: Answer = self._ask(hello)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def do(self, verb: str, **arguments: Any) -> Answer:
        """Let the agent do something and return its answer.

        Raises:
            MossError: the agent failed otherwise than for want of the store.
        """
        return self._ask({"do": verb, **arguments})

    def end(self) -> None:
        """Let the process finish; idempotent."""
        process = self._process
        try:
            process.communicate(timeout=END_WAIT_S)
        except (subprocess.TimeoutExpired, ValueError):
            process.kill()
            process.wait()

    def _ask(self, request: dict[str, Any]) -> Answer:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise AssertionError("the pipes were asked for")
        try:
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise MossError(f"the {self.name} ended unexpectedly")
        answer: Answer = json.loads(line)
        if answer.get("error", "NETWORK") != "NETWORK":
            raise MossError(f"the {self.name} failed: {answer['message']}")
        return answer


@dataclass(frozen=True, slots=True)
class Route:
    """How one agent's device reaches the store.

    Attributes:
        url: The store as it is reached.
        link: A link in the file system that can be cut; None for a bucket.
    """

    url: str
    link: Path | None = None

    def cut(self) -> str:
        """Take the way to the store away; return the URL that now leads nowhere."""
        if self.link is not None:
            self.link.unlink()
            return self.url
        return _elsewhere(self.url)

    def mend(self, store: Path | None) -> None:
        """Bring the way back."""
        if self.link is not None and store is not None:
            self.link.symlink_to(store, target_is_directory=True)


def route(url: str, folder: Path | None, device: Path) -> Route:
    """Return a device's own way to the store: a link for a folder, the URL itself for a bucket."""
    if folder is None:
        return Route(url)
    link = device / "shared-drive"
    device.mkdir(parents=True, exist_ok=True)
    try:
        link.symlink_to(folder, target_is_directory=True)
    except OSError as error:
        raise InvalidArgumentError(
            f"the demo cannot make a link in {device}: {error.strerror}",
            hint="run it in a directory with symbolic links, or on a bucket: --store s3://…",
        ) from error
    return Route(str(link), link)


def _elsewhere(url: str) -> str:
    """Return the URL of a bucket with an endpoint on this machine where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    parts = urlsplit(url)
    query = {**dict(parse_qsl(parts.query)), "endpoint_url": f"http://127.0.0.1:{port}"}
    return urlunsplit(parts._replace(query=urlencode(query)))
