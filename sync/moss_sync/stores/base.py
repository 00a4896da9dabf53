"""What a blob store must promise, and nothing of how it does it.

A store is right when it passes tests/contracts/test_stores.py; the same suite runs on the memory,
the folder and the S3 implementation. Keys are ASCII, `/` between parts, each part of 1 to 200
characters from `[a-z0-9_.-]` and never starting with a dot. Every answer carries the store's own
time, where the store has one, because the clocks of devices are not to be trusted.

Keys are the store's own: a prefix in the store's URL is added inside and never seen outside. No
key may be a folder of another (`a` beside `a/b`): a folder cannot hold both, and SeaweedFS drops
the first from its listings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NewType, Protocol, runtime_checkable

ETag = NewType("ETag", str)
"""Names one state of one blob. Opaque: compare and hand back, nothing else.

A hash of the content in every store here, and in most servers: equal bytes may have equal ETags,
so a blob that is to be compared and swapped carries something that never repeats.
"""

EtagForm = Literal["quoted", "bare"]
"""How a server wants an ETag in If-Match; Ceph RGW 16.2 takes it only without its quotes."""

MAX_BLOB_BYTES = 38 * 1024 * 1024
"""No store call reads or writes more: a push may read eight blobs at once, and whoever can write to
the store decides how long they are. The largest of the protocol, one of a log, has 37 MiB and its
frame."""


@dataclass(frozen=True, slots=True)
class Blob:
    """The whole of a blob. `time_ms`: the store's clock as it answered; None if it has none."""

    data: bytes
    etag: ETag
    time_ms: int | None = None


@dataclass(frozen=True, slots=True)
class NotModified:
    """The blob still has the ETag that the caller knows."""

    time_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Swapped:
    """The compare-and-swap happened, and this is the blob's new ETag."""

    etag: ETag
    time_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Conflict:
    """The store says that the condition did not hold.

    Never proof that another device won: some transport below may have sent the request twice.
    The engine reads back and looks for its own mark.
    """

    time_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """One key of a listing."""

    key: str
    etag: ETag
    size: int


class BlobStore(Protocol):
    """Bytes by key, in a bucket or a folder. Safe for concurrent tasks of one event loop."""

    @property
    def url(self) -> str:
        """How the store is written down, without secrets; for messages."""
        ...

    async def get(self, key: str, *, if_none_match: ETag | None = None) -> Blob | NotModified:
        """Return the whole blob, or NotModified while it has the ETag `if_none_match`.

        Raises:
            BlobNotFoundError: no such key.
            NetworkError, PermissionDeniedError: the store did not or would not answer.
        """
        ...

    async def put(self, key: str, data: bytes) -> int | None:
        """Write all of `data` or nothing, durably; repeating it is no error (retries happen).

        Returns the store's time in milliseconds, or None if it has none.
        """
        ...

    async def compare_and_swap(
        self, key: str, data: bytes, *, etag: ETag | None
    ) -> Swapped | Conflict:
        """Replace the blob only if it still has `etag` (None: only if absent), sending once.

        Linearizable: of any number of callers with one `etag` at most one gets Swapped.

        Raises:
            OutcomeUnknownError: no answer, or one that leaves open whether it happened.
            StoreBusyError: the store turned it away unprocessed (429, 503); also to be read back.
        """
        ...

    async def keys(
        self, prefix: str, *, start_after: str = "", limit: int = 1000
    ) -> Sequence[Listed]:
        """List keys that begin with `prefix` and are greater than `start_after`, in byte order.

        `prefix` ends with `/`; `start_after` is a whole key or the beginning of one. At most
        `limit` (1 to 1000) come back; fewer means there are no more. A listing need not be a
        snapshot. The order is promised where no key has a further `/` behind the prefix, as in
        all of the protocol's listings: SeaweedFS orders folder by folder.
        """
        ...

    async def delete(self, key: str) -> None:
        """Remove the blob; a missing key is no error."""
        ...

    async def close(self) -> None:
        """Release connections; idempotent. Any other call afterwards raises RuntimeError."""
        ...


@runtime_checkable
class ChoosesEtagForm(Protocol):
    """A store whose conditional requests can be written in two ways; the probe finds which."""

    etag_form: EtagForm


@runtime_checkable
class MayBeAway(Protocol):
    """A store whose place can vanish and then looks empty, as an unmounted disk does."""

    must_exist: bool
    """Set once the store is known to hold a repository: its absence is then a NetworkError."""


@runtime_checkable
class MayBeReplicated(Protocol):
    """A place that another program may fill file by file (Dropbox, iCloud, Syncthing).

    There, a file may be seen before all of it has arrived, files arrive in any order, and two
    versions of one file may lie side by side under names that are no keys.
    """

    lock_free: bool
    """Set where nobody compares and swaps: a put then needs no lock, which the place may lack."""

    async def strays(self, prefix: str, *, folders: bool = False) -> Sequence[str]:
        """Return what lies right below `prefix` (which ends with `/`) and is no blob, in order.

        That is what has no name of a key, and what has one and is a link, a pipe or a device. Keys
        of further levels stand for folders; with `folders`, where only blobs belong, these too.
        """
        ...
