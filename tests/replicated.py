"""A folder that a service replicates to several machines file by file, with all that it may do.

Every machine has a copy. A write or a deletion there reaches each other copy some time later, in
any order among the files, and a file may first show as its beginning, or in full length with zeros
at its end. Where two machines changed one file, one state wins and the other is put beside it
under another name.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from moss_sync.errors import BlobNotFoundError
from moss_sync.stores.base import Blob, Conflict, ETag, Listed, NotModified, Swapped
from moss_sync.stores.keys import is_key
from moss_sync.traffic import count


@dataclass
class Change:
    """One change of one file; `data` None removes it."""

    key: str
    stamp: int
    data: bytes | None


@dataclass
class Copy:
    """One machine's copy: the files, the newest change seen of each, and what is under way."""

    files: dict[str, bytes] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)
    inbox: list[Change] = field(default_factory=list)


class ReplicatedFolder:
    """The copies of one folder."""

    def __init__(self, machines: int) -> None:
        self.copies = [Copy() for _ in range(machines)]
        self._stamp = 0
        self.conflicts = 0

    def store(self, machine: int) -> CopyStore:
        """Return the folder as a program on that machine sees it."""
        return CopyStore(self, machine)

    def change(self, machine: int, key: str, data: bytes | None) -> None:
        """Do what a program on that machine does, and send it on its way."""
        self._stamp += 1
        self._apply(self.copies[machine], key, self._stamp, data)
        for number, copy in enumerate(self.copies):
            if number != machine:
                copy.inbox.append(Change(key, self._stamp, data))

    def deliver(self, machine: int, place: int) -> None:
        """Let one change arrive."""
        copy = self.copies[machine]
        change = copy.inbox.pop(place)
        if change.stamp <= copy.seen.get(change.key, 0):
            known = copy.files.get(change.key)
            if change.data is not None and known is not None and known != change.data:
                self.conflicts += 1
                copy.files[f"{change.key} (conflicted copy {self.conflicts})"] = change.data
            return
        self._apply(copy, change.key, change.stamp, change.data)

    def show_a_part(self, machine: int, place: int, rng: random.Random) -> None:
        """Let the beginning of a file show before all of it arrives."""
        copy = self.copies[machine]
        change = copy.inbox[place]
        if change.data is None or change.stamp <= copy.seen.get(change.key, 0):
            return
        have = rng.randrange(len(change.data))
        part = change.data[:have]
        if rng.random() < 0.3:
            # Never the last bytes: a file that ends in its own tag is all there.
            part = part[: len(change.data) - 16].ljust(len(change.data), b"\0")
        copy.files[change.key] = part

    def deliver_all(self) -> None:
        for number, copy in enumerate(self.copies):
            while copy.inbox:
                self.deliver(number, 0)

    def _apply(self, copy: Copy, key: str, stamp: int, data: bytes | None) -> None:
        copy.seen[key] = stamp
        if data is None:
            copy.files.pop(key, None)
        else:
            copy.files[key] = data


class CopyStore:
    """A machine's copy as a BlobStore; `omit` hides some of what is listed."""

    def __init__(self, folder: ReplicatedFolder, machine: int) -> None:
        self.folder = folder
        self.machine = machine
        self.lock_free = False
        self.omit: random.Random | None = None
        self.calls = 0

    @property
    def url(self) -> str:
        return f"memory://copy-{self.machine}"

    @property
    def files(self) -> dict[str, bytes]:
        return self.folder.copies[self.machine].files

    def _call(self, when: str) -> None:
        """Pass "before" and "after" each call; a test may end the process here."""
        self.calls += when == "before"

    async def get(self, key: str, *, if_none_match: ETag | None = None) -> Blob | NotModified:
        self._call("before")
        count(requests=1)
        data = self.files.get(key)
        if data is None:
            raise BlobNotFoundError(key)
        self._call("after")
        return Blob(data, _etag(data))

    async def put(self, key: str, data: bytes) -> int | None:
        self._call("before")
        count(requests=1, sent=len(data))
        if self.files.get(key) != data:
            self.folder.change(self.machine, key, data)
        self._call("after")
        return None

    async def compare_and_swap(
        self, key: str, data: bytes, *, etag: ETag | None
    ) -> Swapped | Conflict:
        raise AssertionError("nobody compares and swaps in a log")

    async def keys(
        self, prefix: str, *, start_after: str = "", limit: int = 1000
    ) -> Sequence[Listed]:
        self._call("before")
        count(requests=1)
        found = [
            Listed(key, _etag(data), len(data))
            for key, data in sorted(self.files.items())
            if key.startswith(prefix) and key > start_after and is_key(key)
        ]
        if self.omit is not None:
            found = [each for each in found if self.omit.random() < 0.7]
        self._call("after")
        return found[:limit]

    async def delete(self, key: str) -> None:
        self._call("before")
        count(requests=1)
        if key in self.files:
            self.folder.change(self.machine, key, None)
        self._call("after")

    async def strays(self, prefix: str, *, folders: bool = False) -> Sequence[str]:
        return sorted(
            key
            for key in self.files
            if key.startswith(prefix) and "/" not in key[len(prefix) :] and not is_key(key)
        )

    async def close(self) -> None:
        return None


def _etag(data: bytes) -> ETag:
    return ETag(blake2b(data, digest_size=16).hexdigest())
