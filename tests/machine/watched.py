"""A program under watch: each connection and each new file of it and of its children, natives too.

Linux only, without privileges: a seccomp filter that the program and all its children inherit
hands every `socket`, `connect`, creating `open` and `mkdir` to this process before it happens. An
audit hook would see Python's calls alone, and it is the native libraries that have surprises.

What it records: sockets that can leave the machine, addresses connected to, paths made. A lookup
shows as what it asks with: a socket to a name server, or a connection to a daemon that looks up.
What it does not see: reads, and what a program sends on a socket that it was handed.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import select
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

READY_WAIT_S = 60.0
END_WAIT_S = 300.0

_NUMBERS: dict[str, dict[str, int]] = {
    "x86_64": {
        "seccomp": 317,
        "socket": 41,
        "connect": 42,
        "open": 2,
        "openat": 257,
        "creat": 85,
        "mkdir": 83,
        "mkdirat": 258,
    },
    "aarch64": {"seccomp": 277, "socket": 198, "connect": 203, "openat": 56, "mkdirat": 34},
}
"""Numbers of system calls (asm/unistd.h); aarch64 has only the newer ones."""

_FLAGS_AT = {"open": 1, "openat": 2}
"""Which argument tells whether a file is to be made."""

_PATH_AT = {"open": 0, "creat": 0, "mkdir": 0, "openat": 1, "mkdirat": 1}

_LOAD, _EQUAL, _HAS_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_NOTIFY, _ALLOW = 0x7FC00000, 0x7FFF0000
_SET_FILTER, _NEW_LISTENER, _NO_NEW_PRIVILEGES = 1, 8, 38
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_NOTICE = struct.Struct("=QIIiIQ6Q")
_ANSWER = struct.Struct("=QqiI")
_CONTINUE = 1
_HERE = -100 & 0xFFFFFFFF
_EACCES = 13


@dataclass
class Seen:
    """What a program and its children did.

    Attributes:
        sockets: Families of sockets other than those between processes of one machine.
        connected: Addresses, as "127.0.0.1:8333" or as the path of a local socket.
        made: Files and folders that were made, or would have been if they had not been there.
    """

    sockets: list[int] = field(default_factory=list)
    connected: list[str] = field(default_factory=list)
    made: set[Path] = field(default_factory=set)
    output: str = ""

    def made_outside(self, folders: Iterable[Path]) -> list[Path]:
        """What was made elsewhere than in these folders."""
        ours = [folder.resolve() for folder in folders]
        return sorted(
            path for path in self.made if not any(path.is_relative_to(each) for each in ours)
        )


def watch(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    loopback: bool = False,
    until: Callable[[Seen], bool] | None = None,
) -> Seen:
    """Run a program to its end, or until it was seen doing something; return what it did.

    Nothing leaves this machine: sockets of other families than the local one are refused, or with
    `loopback` connections to other machines are. Its output goes where the result has it.
    """
    mine, theirs = socket.socketpair()
    seen = Seen()
    with (
        mine,
        subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno()), *command],
            env=dict(env),
            cwd=cwd,
            pass_fds=[theirs.fileno()],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process,
    ):
        try:
            theirs.close()
            mine.settimeout(READY_WAIT_S)
            (listener,) = socket.recv_fds(mine, 1, 1)[1]
            watcher = threading.Thread(
                target=_serve, args=(listener, seen, loopback, until, process.kill), daemon=True
            )
            watcher.start()
            seen.output = process.communicate(timeout=END_WAIT_S)[0]
            watcher.join(END_WAIT_S)
        finally:
            process.kill()
    if until is None:
        assert process.returncode == 0, seen.output
    return seen


def _serve(
    listener: int,
    seen: Seen,
    loopback: bool,
    until: Callable[[Seen], bool] | None,
    end: Callable[[], None],
) -> None:
    """Answer until the last process under the filter has ended."""
    names = {number: name for name, number in _NUMBERS[platform.machine()].items()}
    waiting = select.poll()
    waiting.register(listener, select.POLLIN)
    try:
        while not waiting.poll()[0][1] & select.POLLHUP:
            notice = bytearray(_NOTICE.size)
            try:
                fcntl.ioctl(listener, _RECEIVE, notice)
                id, thread, _, number, _, _, *arguments = _NOTICE.unpack(notice)
                refused = _note(seen, names[number], thread, arguments, loopback)
                answer = (id, 0, -_EACCES, 0) if refused else (id, 0, 0, _CONTINUE)
                fcntl.ioctl(listener, _SEND, bytearray(_ANSWER.pack(*answer)))
            except (FileNotFoundError, ProcessLookupError):
                continue  # it was killed while it waited
            if until is not None and until(seen):
                end()
    finally:
        os.close(listener)


def _note(seen: Seen, call: str, thread: int, arguments: Sequence[int], loopback: bool) -> bool:
    """Write a call down; return whether it is refused."""
    if call == "socket":
        if arguments[0] == socket.AF_UNIX:
            return False
        seen.sockets.append(arguments[0])
        return not loopback
    if call == "connect":
        address, far = _address(_memory(thread, arguments[1], min(arguments[2], 128)))
        seen.connected.append(address)
        return far
    path = os.fsdecode(_memory(thread, arguments[_PATH_AT[call]], 4096).partition(b"\0")[0])
    folder = "cwd"
    if _PATH_AT[call] == 1 and arguments[0] & 0xFFFFFFFF != _HERE:
        folder = f"fd/{arguments[0] & 0xFFFFFFFF}"
    seen.made.add(Path(os.readlink(f"/proc/{thread}/{folder}"), path).resolve())
    return False


def _address(given: bytes) -> tuple[str, bool]:
    """Return an address for people, and whether it is another machine's."""
    (family,) = struct.unpack_from("=H", given)
    if family == socket.AF_UNIX:
        return os.fsdecode(given[2:].lstrip(b"\0").partition(b"\0")[0]), False
    if family in (socket.AF_INET, socket.AF_INET6):
        host = ip_address(given[4:8] if family == socket.AF_INET else given[8:24])
        return f"{host}:{int.from_bytes(given[2:4], 'big')}", not host.is_loopback
    return f"family {family}", True


def _memory(thread: int, place: int, size: int) -> bytes:
    with open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:
        memory.seek(place)
        return memory.read(size)


def _program() -> bytes:
    """Return the filter: the calls above are handed over, all others pass."""
    numbers = dict(_NUMBERS[platform.machine()])
    del numbers["seccomp"]
    steps = [(_LOAD, 0, 0, 0)]
    for name, number in numbers.items():
        if name not in _FLAGS_AT:
            steps += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _NOTIFY)]
            continue
        steps += [
            (_EQUAL, 0, 4, number),
            (_LOAD, 0, 0, 16 + 8 * _FLAGS_AT[name]),  # the lower half, on little-endian machines
            (_HAS_BIT, 0, 1, os.O_CREAT),
            (_RETURN, 0, 0, _NOTIFY),
            (_RETURN, 0, 0, _ALLOW),
        ]
    steps.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def _filter_this_process() -> int:
    """Install the filter for good; return the descriptor on which calls are answered."""
    program = ctypes.create_string_buffer(code := _program(), len(code))
    head = ctypes.create_string_buffer(
        struct.pack("@HP", len(code) // 8, ctypes.addressof(program))
    )
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    number = _NUMBERS[platform.machine()]["seccomp"]
    listener: int = libc.syscall(number, _SET_FILTER, _NEW_LISTENER, head)
    if listener < 0:
        raise OSError(ctypes.get_errno(), "no filter of system calls can be installed")
    return listener


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as parent:
        # What this process does from here on needs nobody who answers: no file, no socket.
        socket.send_fds(parent, [b"!"], [_filter_this_process()])
    os.execv(sys.argv[2], sys.argv[2:])
