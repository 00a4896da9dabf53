"""What a disk holds after the power was cut: what was synced, and any part of what was not.

Of each file all changes before its last sync are there. Of those after it each 512-byte sector of
each write may be there or not, and so may a truncation or a deletion whose folder was not synced:
a file system may write them in any order, and a drive stops in the middle of one.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.machine.faulty_disk import Event

SECTOR = 512


@dataclass
class _File:
    durable: bytearray | None = None
    pending: list[Event] = field(default_factory=list)


def after_cut(events: Sequence[Event], chance: random.Random) -> dict[str, bytes]:
    """Return the files by name, after these changes and then none.

    Args:
        chance: Decides how much of what was not synced has survived, from nothing to all of it.
    """
    files: dict[str, _File] = {}
    for event in events:
        if event.kind == "note":
            continue
        file = files.setdefault(event.name, _File())
        if event.kind == "sync":
            if file.durable is None:
                _sync_folder(files)
            file.durable = _applied(file.durable, file.pending, lambda: True)
            file.pending = []
        elif event.kind == "delete" and event.durable:
            file.durable, file.pending = None, []
        else:
            file.pending.append(event)
    share = chance.choice([0.0, 0.1, 0.5, 0.9, 1.0])
    left = {}
    for name, file in files.items():
        data = _applied(file.durable, file.pending, lambda: chance.random() < share)
        if data is not None:
            left[name] = bytes(data)
    return left


def _sync_folder(files: dict[str, _File]) -> None:
    """Make every deletion last: SQLite syncs the folder with the first sync of a new log.

    Source: UNIXFILE_DIRSYNC in SQLite's os_unix.c.
    """
    for file in files.values():
        deleted = [place for place, event in enumerate(file.pending) if event.kind == "delete"]
        if deleted:
            file.durable, file.pending = None, file.pending[deleted[-1] + 1 :]


def _applied(
    data: bytearray | None, pending: Sequence[Event], survives: object
) -> bytearray | None:
    assert callable(survives)
    data = None if data is None else bytearray(data)
    for event in pending:
        if event.kind == "delete":
            if survives():
                data = None
        elif event.kind == "truncate":
            if survives():
                data = bytearray() if data is None else data
                del data[event.offset :]
        else:
            for start in range(0, len(event.data), SECTOR):
                if survives():
                    data = bytearray() if data is None else data
                    part = event.data[start : start + SECTOR]
                    place = event.offset + start
                    data.extend(bytes(max(0, place - len(data))))
                    data[place : place + len(part)] = part
    return data
