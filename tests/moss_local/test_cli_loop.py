"""Ctrl-C ends whatever a command waits for, also where the signal interrupts no system call."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from moss_local.cli.loop import run_to_end

GIVE_UP_S = 30.0


async def for_ever() -> None:
    await asyncio.Event().wait()


class Interrupter(threading.Thread):
    """Takes SIGINT upon itself while the main thread sleeps in its loop.

    The system may hand a process's signal to any thread; this makes it hand it to this one.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.loop: asyncio.AbstractEventLoop | None = None
        self.over = threading.Event()
        self.had_to_wake = False

    def run(self) -> None:
        while not main_thread_sleeps():
            time.sleep(0.001)
        signal.raise_signal(signal.SIGINT)
        if not self.over.wait(GIVE_UP_S) and self.loop is not None:
            self.had_to_wake = True  # or the test would never end
            self.loop.call_soon_threadsafe(lambda: None)


def main_thread_sleeps() -> bool:
    stat = Path(f"/proc/self/task/{threading.main_thread().native_id}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "S"


def test_ctrl_c_that_another_thread_receives_ends_a_command_that_waits() -> None:
    interrupter = Interrupter()

    async def work() -> None:
        interrupter.loop = asyncio.get_running_loop()
        interrupter.start()
        await for_ever()

    with pytest.raises(KeyboardInterrupt):
        run_to_end(work)
    interrupter.over.set()
    interrupter.join()
    assert not interrupter.had_to_wake, "nothing woke the loop"


def test_what_a_command_awaits_is_cancelled_and_may_clean_up() -> None:
    cleaned = []

    async def work() -> None:
        asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)
        try:
            await for_ever()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    with pytest.raises(KeyboardInterrupt):
        run_to_end(work)
    assert cleaned == [True]


@pytest.mark.parametrize("ends", ["with a result", "with an error"])
def test_where_signals_go_is_as_before_afterwards(ends: str) -> None:
    one, two = socket.socketpair()
    with one, two:
        two.setblocking(False)
        before = signal.set_wakeup_fd(two.fileno())
        try:
            end(ends)
        finally:
            found = signal.set_wakeup_fd(before)
        assert found == two.fileno()


def end(ends: str) -> None:
    async def work() -> int:
        if ends == "with an error":
            raise LookupError
        return 7

    if ends == "with an error":
        with pytest.raises(LookupError):
            run_to_end(work)
    else:
        assert run_to_end(work) == 7


def test_a_thread_that_is_not_the_main_one_may_run_a_command() -> None:
    results: list[int] = []

    async def work() -> int:
        return 7

    def run(work: Callable[[], Awaitable[int]]) -> None:
        results.append(run_to_end(work))

    thread = threading.Thread(target=run, args=(work,))
    thread.start()
    thread.join()
    assert results == [7]
