"""Rotating a project's key: one compare-and-swap of `fmt`, and what follows from not knowing.

  1 read fmt, open it with the old key        crash: nothing happened
  2 make the new fmt: a root key of a new epoch, all keys wrapped under the new project key
  3 swap it, one attempt                      crash: done or not; whoever reads fmt sees which
  4 remember it on this device                crash: the new key reads it from the store again
Lost answer, or a refusal: fmt is read. These very bytes: done. The old ones: not done so far, and
the identical swap is sent again, which harms nobody even if the first one arrives late. Others:
another device rotated. If the root key made here is in there, it did so on top of this rotation; if
not, it was first, and this one did not happen. So the project opens with the old key or with the
new one at every moment, and never with neither, as long as the caller keeps the new key first.

What was sealed under older keys counts until `revocation` says otherwise.
Source: SYNC-PROTOCOL 2.9.
"""

from __future__ import annotations

from moss_sync import keyring
from moss_sync.clock import Clock
from moss_sync.errors import (
    BlobNotFoundError,
    ContentionError,
    InvalidArgumentError,
    MossError,
    NetworkError,
    NotFoundError,
    NotInLogModeError,
    OutcomeUnknownError,
    StoreBusyError,
    UnauthorizedError,
)
from moss_sync.features import check_writable
from moss_sync.keyring import Format, KdfParams
from moss_sync.repository import Repository
from moss_sync.stores.base import ETag, Swapped

ATTEMPTS = 8
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 8.0
"""About 25 s in all; rotations are rare, and whoever asks for one can wait that long."""


async def rotate(repository: Repository, clock: Clock, new_key: str | None = None) -> int:
    """Seal under a new root key from now on, and open the project with `new_key`; return the epoch.

    What was sealed before stays as it is and readable. Repeating a call that was interrupted, with
    the same new key, finds out what it had done and ends it.

    Args:
        new_key: Keep it safe before the call. None leaves the project key as it is.
    Raises:
        NotFoundError: the store has no repository of this project yet.
        NotInLogModeError: the project commits by log: its keys follow from the project key.
        UnauthorizedError: neither key opens it: another device has rotated to a third.
        ContentionError: another device rotated at the same moment; this rotation did not happen.
        OutcomeUnknownError: the store no longer answers; call again with the same new key.
        UnsupportedFormatError: this version must not write to the repository.
        InvalidArgumentError: the new key is empty, or is the old one.
    """
    if new_key is not None:
        _check_key(repository, new_key)
    try:
        known = await repository.keys()
        if known is not None and known.commit == "log":
            raise NotInLogModeError(
                "rotating a key",
                hint="start another project with a new key: moss-local init --force --commit log",
            )
        if known is None:
            raise NotFoundError(
                f"the store {repository.store.url} has no repository of this project yet",
                hint="push a session first, or set up with another key: moss-local init --force",
            )
        await repository.refresh()
        await repository.ready_to_write()
    except UnauthorizedError:
        # An earlier call may have come as far as the store.
        if new_key is None or not await _opens(repository, new_key):
            raise
        before, _ = await repository.read_fmt()
        await repository.take_over(before.raw, new_key)
        return before.newest
    before, etag = await repository.read_fmt()
    keys = await repository.unlocked(before)
    check_writable(keys, None)
    kdf = before.kdf
    key = repository.project_key if new_key is None else new_key
    if new_key is not None:
        kdf = KdfParams.choose(key, clock.token(keyring.KDF_SALT_BYTES))
    kek = await repository.kek(kdf, key)
    fresh = clock.token(keyring.rotation_bytes(before))
    after = keyring.rotate(before, keys, kek, kdf, fresh=fresh)
    found = await replaced(repository, clock, before, etag, after)
    await _settle(repository, found, after, key)
    return found.newest


async def replaced(
    repository: Repository, clock: Clock, before: Format, etag: ETag, after: Format
) -> Format:
    """Put `after` in the place of `before`; return what stands there then, which may be another's.

    Raises:
        OutcomeUnknownError: the store no longer answers.
        NetworkError: it never did; nothing was sent.
    """
    trouble: MossError | None = None
    for attempt in range(ATTEMPTS):
        pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0**attempt) * clock.uniform(0.5, 1.0)
        try:
            answer = await repository.store.compare_and_swap(
                repository.layout.fmt, after.raw, etag=etag
            )
            if isinstance(answer, Swapped):
                return after
        except StoreBusyError as busy:
            trouble, pause = busy, max(pause, busy.retry_after or 0.0)
        except OutcomeUnknownError as unknown:
            trouble = unknown
        except NetworkError as error:
            if trouble is None:
                raise  # nothing was ever sent
            trouble = error
        try:
            found, _ = await repository.read_fmt()
            if found.raw != before.raw:
                return found
        except NetworkError as error:
            trouble = error
        await clock.sleep(pause)
    raise OutcomeUnknownError(
        f"it is not known whether the keys of the project were changed: {repository.store.url} "
        "does not answer; either the old key opens it or the new one"
    ) from trouble


async def _settle(repository: Repository, found: Format, after: Format, key: str) -> None:
    """Take `found` over if this rotation is in it, or the new key opens it anyway; else raise."""
    ours = keyring.unlock(after, await repository.kek(after.kdf, key)).roots
    try:
        keys = await repository.unlocked(found, key)
    except UnauthorizedError:
        if not await _opens(repository, repository.project_key):
            raise
        raise _outrun() from None
    rotated_key = key != repository.project_key
    if keys.roots.by_epoch.get(after.newest) != ours.by_epoch[after.newest] and not rotated_key:
        raise _outrun()
    await repository.take_over(found.raw, key)


async def _opens(repository: Repository, key: str) -> bool:
    """Return whether `key` opens what the store holds now."""
    try:
        found, _ = await repository.read_fmt()
        await repository.unlocked(found, key)
    except (UnauthorizedError, BlobNotFoundError):
        return False
    return True


def _outrun() -> ContentionError:
    return ContentionError(
        "another device rotated the project's key at the same moment; this rotation did not happen",
        hint="the key is what it was; rotate again if it is still wanted",
    )


def _check_key(repository: Repository, key: str) -> None:
    if not isinstance(key, str) or not key:
        raise InvalidArgumentError("the new project key must be a str, and not empty")
    try:
        key.encode()
    except UnicodeEncodeError:
        raise InvalidArgumentError("the new project key holds half of a surrogate pair") from None
    if key == repository.project_key:
        raise InvalidArgumentError(
            "the new project key is the one that the project has",
            hint="leave it out to rotate the root key only",
        )
