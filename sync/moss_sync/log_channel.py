"""One session's log in its repository: listed, read and verified, sealed and written.

Everything that comes out of here has been authenticated, belongs to the session and decodes. What
is listed and is none of ours is named, never read; what has not wholly arrived is told apart from
what is damaged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from moss_sync import layout, log_blob
from moss_sync.channel import MAX_BACKOFF_S, PARALLEL_READS
from moss_sync.clock import Clock, SessionClock
from moss_sync.errors import BlobCorruptError, BlobNotFoundError, UnsupportedFormatError
from moss_sync.keyring import Keys
from moss_sync.layout import SegmentName
from moss_sync.log_blob import BLOB_KIND, HEAD_KIND, Head, LogBlob
from moss_sync.log_view import Partial, Unread
from moss_sync.manifest import tip_of
from moss_sync.repository import Repository, Runner
from moss_sync.seal import FIRST_EPOCH, SALT_BYTES, BlobIdentity, seal, unseal
from moss_sync.stores.base import Blob, MayBeReplicated
from moss_sync.stores.listing import list_all


@dataclass(frozen=True, slots=True)
class Listing:
    """What the store shows of a session.

    Attributes:
        names: The blobs, by name; tips: of each, what a next push names it by.
        sizes, etags: Of the sealed blobs; 0 and empty where the store does not say.
        strays: Whatever else lies there: conflicted copies, unfinished files, other programs'.
    """

    names: Mapping[str, SegmentName]
    tips: Mapping[str, bytes]
    sizes: Mapping[str, int]
    etags: Mapping[str, str]
    strays: tuple[str, ...]


class LogChannel:
    """The log of one session.

    Attributes:
        time: The time as this device believes it.
    """

    def __init__(self, repository: Repository, name: str, *, clock: Clock, run: Runner) -> None:
        self._repository = repository
        self._store = repository.store
        self._name = name
        self._clock = clock
        self._run = run
        self.time = SessionClock(repository.time)

    @property
    def replicated(self) -> bool:
        """Whether the store is a place that another program may fill file by file."""
        return isinstance(self._store, MayBeReplicated)

    def sid(self, keys: Keys) -> str:
        """Return the session's id in the store."""
        return layout.session_id(keys.names, self._name)

    async def listing(self, keys: Keys) -> Listing:
        """Return what the store shows; one request per thousand blobs."""
        return await read_listing(self._repository, keys, self.sid(keys))

    async def read(
        self, keys: Keys, names: Sequence[str]
    ) -> tuple[list[LogBlob], dict[str, Partial | Unread]]:
        """Return these blobs, read in parallel, and why which of them could not be.

        They have not wholly arrived, or they are damaged or of a newer version. One that its author
        has sealed as it is, and whose form nobody can read, counts as an empty one.

        Raises:
            BlobNotFoundError: one is gone: merged into another meanwhile, or lost.
        """
        gate = asyncio.Semaphore(PARALLEL_READS)

        async def read(name: str) -> LogBlob | Partial | Unread:
            async with gate:
                return await self._read(keys, name)

        tasks = [asyncio.ensure_future(read(name)) for name in names]
        try:
            found = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        lacking = {
            name: each
            for name, each in zip(names, found, strict=True)
            if not isinstance(each, LogBlob)
        }
        return [each for each in found if isinstance(each, LogBlob)], lacking

    async def _read(self, keys: Keys, name: str) -> LogBlob | Partial | Unread:
        blob = await self._get(self.key(keys, name))
        try:
            return await self._opened_if_whole(keys, name, blob)
        except (BlobCorruptError, UnsupportedFormatError) as error:
            return Unread(str(blob.etag or ""), str(error))

    async def _opened_if_whole(self, keys: Keys, name: str, blob: Blob) -> LogBlob | Partial:
        if self.replicated and (part := log_blob.arrived(blob.data)) is not None:
            return Partial(str(blob.etag), *part, since_ms=self.time.wall_ms())
        return await self.opened(keys, name, blob.data)

    async def opened(self, keys: Keys, name: str, sealed: bytes) -> LogBlob:
        """Return what the bytes of a blob of this name say."""
        sid = self.sid(keys)
        parsed = layout.parse_name(_tag_key(keys), sid, name)
        if not layout.is_blob_of(parsed, sealed):
            raise BlobCorruptError(f"blob {name!r} is not the one that was given this name")

        def work() -> LogBlob:
            identity = _blob_identity(keys, sid, parsed.stem)
            plain = unseal(keys.roots, identity, sealed, max_plain=log_blob.MAX_BLOB_PLAIN_BYTES)
            try:
                return log_blob.decode(plain, parsed)
            except BlobCorruptError as error:
                return log_blob.malformed(parsed, str(error))

        decoded: LogBlob = await self._run(work)
        return decoded

    async def examined(
        self, keys: Keys, names: Iterable[str], *, drop_unknown: bool
    ) -> tuple[dict[str, bytes], set[str]]:
        """Read blobs; return those that are not what they should be, by key, and who is cut short.

        Cut short may mean on its way, and then a copy of it somewhere is whole: its name is all
        that is told.

        Args:
            drop_unknown: What only a newer version could read is damaged as well.
        """
        cut: set[str] = set()

        async def read(name: str) -> None:
            blob = await self._get(self.key(keys, name))
            if isinstance(await self._opened_if_whole(keys, name, blob), Partial):
                cut.add(name)

        found = {self.key(keys, name): partial(read, name) for name in names}
        return await self._unreadable(found, drop_unknown), cut

    async def damaged_heads(self, keys: Keys, *, drop_unknown: bool) -> dict[str, bytes]:
        """Return the heads of devices that are not what they should be, by key."""
        sid, place = self.sid(keys), self._repository.layout.head
        found: dict[str, Callable[[], Awaitable[object]]] = {
            place(sid, dev): partial(read_head, self._repository, keys, sid, dev)
            for dev in await self._with_heads(sid)
        }
        return await self._unreadable(found, drop_unknown)

    async def _unreadable(
        self, asked: Mapping[str, Callable[[], Awaitable[object]]], drop_unknown: bool
    ) -> dict[str, bytes]:
        gate = asyncio.Semaphore(PARALLEL_READS)

        async def look(key: str, read: Callable[[], Awaitable[object]]) -> dict[str, bytes]:
            async with gate:
                try:
                    for _ in range(2):  # what was damaged on its way is whole the second time
                        with suppress(BlobCorruptError):
                            await read()
                            return {}
                except UnsupportedFormatError:
                    if not drop_unknown:
                        raise
                except BlobNotFoundError:
                    return {}
                return {key: (await self._get(key)).data}

        tasks = [asyncio.ensure_future(look(key, read)) for key, read in asked.items()]
        try:
            found = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        return {key: data for each in found for key, data in each.items()}

    async def heads(self, keys: Keys) -> tuple[list[Head], bool]:
        """Return what all devices said of themselves, and whether all of it could be read."""
        sid = self.sid(keys)
        found: list[Head] = []
        complete = True
        for dev in await self._with_heads(sid):
            try:
                head = await read_head(self._repository, keys, sid, dev)
            except BlobNotFoundError:
                continue  # not there any more
            except (BlobCorruptError, UnsupportedFormatError):
                head = None
            complete = complete and head is not None
            if head is not None:
                found.append(head)
        return found, complete

    async def _with_heads(self, sid: str) -> list[bytes]:
        """Return the devices that have a head in a session."""
        folder = self._repository.layout.manifests
        listed = await list_all(
            self._store, folder, start_after=f"{folder}{sid}-", beginning=f"{sid}-"
        )
        parsed = [layout.parse_head(each.key.removeprefix(folder)) for each in listed]
        return [each[1] for each in parsed if each is not None]

    async def write_head(self, keys: Keys, head: Head) -> None:
        """Write this device's head over the one of before."""
        identity = BlobIdentity(keys.repo_id, head.sid, HEAD_KIND, head.dev.hex())
        plain = log_blob.encode_head(head)
        sealed = seal(keys.roots, identity, plain, salt=self._clock.token(SALT_BYTES))
        await self.put(self._repository.layout.head(head.sid, head.dev), sealed)

    async def sealed(
        self, keys: Keys, plain: bytes, *, kind: str, dev: bytes, number: int
    ) -> tuple[SegmentName, bytes]:
        """Return the name and the sealed bytes of a blob that `dev` is about to write."""
        # There is no sequence of commits of which an author could have applied so many.
        stem = layout.new_stem(kind=kind, base=0, dev=dev, number=number)
        sid, salt = self.sid(keys), self._clock.token(SALT_BYTES)

        def work() -> tuple[SegmentName, bytes]:
            blob = seal(keys.roots, _blob_identity(keys, sid, stem), plain, salt=salt)
            return layout.named(_tag_key(keys), sid, stem, blob), blob

        made: tuple[SegmentName, bytes] = await self._run(work)
        return made

    def key(self, keys: Keys, name: str) -> str:
        """Return the key under which the store holds the blob of this name."""
        return self._repository.layout.log_blob(self.sid(keys), name)

    async def put(self, key: str, blob: bytes) -> None:
        """Write a blob; repeating it is no error."""
        self.time.observe(await self._store.put(key, blob))

    async def delete(self, keys: Keys, names: Sequence[str]) -> None:
        """Remove blobs; missing ones are no error."""
        for name in names:
            await self._store.delete(self.key(keys, name))

    def backoff(self, first_s: float, attempt: int) -> float:
        """Return seconds to wait before attempt `attempt` + 1."""
        longest: float = min(MAX_BACKOFF_S, first_s * 2.0**attempt)
        return longest * self._clock.uniform(0.5, 1.0)

    async def _get(self, key: str) -> Blob:
        blob = await self._store.get(key)
        if not isinstance(blob, Blob):
            raise AssertionError("an unconditional get returned no blob")
        self.time.observe(blob.time_ms)
        return blob


async def read_listing(repository: Repository, keys: Keys, sid: str) -> Listing:
    """Return what the store shows of a session; one request per thousand blobs."""
    folder, tag_key = repository.layout.log(sid), _tag_key(keys)
    names: dict[str, SegmentName] = {}
    sizes: dict[str, int] = {}
    etags: dict[str, str] = {}
    strays: list[str] = []
    for listed in await list_all(repository.store, folder):
        name = layout.log_name(listed.key.removeprefix(folder))
        try:
            parsed = None if name is None else layout.parse_name(tag_key, sid, name)
        except BlobCorruptError:
            parsed = None  # of the right form, and made up: as good as not there
        if parsed is None:
            strays.append(listed.key)
        else:
            names[str(parsed)] = parsed
            sizes[str(parsed)] = max(0, listed.size or 0)
            etags[str(parsed)] = listed.etag or ""
    if isinstance(repository.store, MayBeReplicated):
        strays += await repository.store.strays(repository.layout.prefix)
        for place in (repository.layout.manifests, folder):
            strays += await repository.store.strays(place, folders=True)
    tips = {name: tip_of(name.encode()) for name in names}
    return Listing(names, tips, sizes, etags, tuple(sorted(strays)))


async def read_head(repository: Repository, keys: Keys, sid: str, dev: bytes) -> Head | None:
    """Return the head of a device; None while it has not wholly arrived.

    Raises:
        BlobNotFoundError: there is none.
        BlobCorruptError, UnsupportedFormatError: it is not what its name says.
    """
    blob = await repository.store.get(repository.layout.head(sid, dev))
    if not isinstance(blob, Blob):
        raise AssertionError("an unconditional get returned no blob")
    replicated = isinstance(repository.store, MayBeReplicated)
    if replicated and log_blob.arrived(blob.data) is not None:
        return None
    identity = BlobIdentity(keys.repo_id, sid, HEAD_KIND, dev.hex())
    plain = unseal(keys.roots, identity, blob.data, max_plain=log_blob.MAX_HEAD_BYTES)
    return log_blob.decode_head(plain, sid, dev)


def _blob_identity(keys: Keys, sid: str, stem: str) -> BlobIdentity:
    return BlobIdentity(keys.repo_id, sid, BLOB_KIND, stem)


def _tag_key(keys: Keys) -> bytes:
    return keys.roots.tag_key(FIRST_EPOCH)  # a log's keys are never rotated
