"""What a process did, told outside of the library so that it outlives the process.

`Ledger`: a line before each call and a line, flushed to the disk, after it has returned. What has
the second line was acknowledged; the call after it may or may not have happened.

`Mark`: two bytes of shared memory, read by whoever killed the process: was it inside a write
transaction, and inside which call. Setting one costs no system call, so that it shifts nothing.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

Revisions = dict[str, int]
"""The documents of one writer: revision by id; deleted ones are not in it."""

IDLE, OPENING, WRITING, PUSHING = range(4)


class Ledger:
    """The writing side: one file per process."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND)

    def begin(self, call: str, argument: Any) -> None:
        """Say what is about to be asked of the library."""
        os.write(self._file, json.dumps([call, argument]).encode() + b"\n")

    def acknowledged(self, answer: Any) -> None:
        """Say that the call of the last `begin` has returned; on disk when this returns."""
        os.write(self._file, json.dumps(["ok", answer]).encode() + b"\n")
        os.fsync(self._file)

    def refused(self) -> None:
        """Say that the call of the last `begin` has failed; it may have happened all the same."""
        os.write(self._file, json.dumps(["failed", None]).encode() + b"\n")


@dataclass
class Account:
    """What a ledger says about its writer's documents.

    Attributes:
        acknowledged: After the last call that returned.
        possible: The states that the file may be in: that one, and the one after the call that was
            running when the process died.
        pushed: Acknowledged when the last push that returned was asked for; None without one.
        pushes: Sequence numbers of the pushes that returned.
        calls: How many calls returned.
    """

    acknowledged: Revisions = field(default_factory=dict)
    possible: list[Revisions] = field(default_factory=list)
    pushed: Revisions | None = None
    pushes: list[int] = field(default_factory=list)
    calls: int = 0


def read_account(path: Path) -> Account:
    account = Account()
    running: Revisions | None = None
    pushing: Revisions | None = None
    for call, value in _lines(path):
        if call == "put":
            running = account.acknowledged | dict(value)
        elif call == "delete":
            running = {id: r for id, r in account.acknowledged.items() if id not in value}
        elif call == "push":
            pushing = dict(account.acknowledged)
        elif call == "failed":
            running, pushing = None, None
        elif call == "ok":
            account.calls += 1
            if running is not None:
                account.acknowledged, running = running, None
            elif pushing is not None:
                account.pushed, pushing = pushing, None
                account.pushes.append(value)
    account.possible = [account.acknowledged, *([] if running is None else [running])]
    return account


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    if not path.exists():  # killed before it had begun
        return
    for line in path.read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n"):  # else the process died while writing it
            call, value = json.loads(line)
            yield call, value


class Mark:
    """Two bytes in a file of their own, mapped by both sides."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(2))
        with path.open("r+b") as file:
            self._bytes = mmap.mmap(file.fileno(), 2)

    def close(self) -> None:
        self._bytes.close()

    @property
    def in_transaction(self) -> bool:
        return self._bytes[0] != 0

    @property
    def call(self) -> int:
        return self._bytes[1]

    @call.setter
    def call(self, value: int) -> None:
        self._bytes[1] = value

    def watch_connections(self) -> None:
        """From now on, follow the write transactions of every connection this process opens."""
        apsw.connection_hooks.append(self._watch)

    def _watch(self, conn: apsw.Connection) -> None:
        # PROFILE comes when a statement has ended: a BEGIN that waits for a lock is not inside.
        conn.trace_v2(apsw.SQLITE_TRACE_PROFILE, self._ended)

    def _ended(self, event: dict[str, Any]) -> None:
        if event["sql"] == "BEGIN IMMEDIATE" or (
            event["sql"] in ("COMMIT", "ROLLBACK") and self._bytes[0]
        ):
            self._bytes[0] = event["connection"].in_transaction
