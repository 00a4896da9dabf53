"""Revoking old keys: once all that there is was sealed anew, `fmt` says that nothing older counts.

  1 seal the verdict on the store anew             crash: done again
  2 read every manifest; seal anew what is empty   crash: the rest is done again
  3 swap fmt, which has the floor                  crash: done or not, as in `rotation`
Who has lost the key, and not the store, may put back what they like of before: nobody takes it, and
nothing here seals it anew for them. What no key opens keeps nobody from going on: anybody who can
write to the store can leave such a thing there.
What holds: tests/moss_sync/test_removed_member.py.
"""

from __future__ import annotations

from collections.abc import Collection

from moss_sync import epochs, keyring, manifest, plan
from moss_sync.channel import MAX_REREADS, manifest_identity
from moss_sync.clock import Clock
from moss_sync.directory import manifest_ids, open_manifest
from moss_sync.errors import (
    BlobCorruptError,
    BlobNotFoundError,
    ContentionError,
    NetworkError,
    RevokedKeyError,
    UnsupportedFormatError,
    repair_command,
)
from moss_sync.features import check_writable
from moss_sync.keyring import Keys
from moss_sync.layout import is_session_id
from moss_sync.manifest import Manifest
from moss_sync.record import DEVICE_BYTES
from moss_sync.repository import Repository
from moss_sync.rotation import replaced
from moss_sync.seal import SALT_BYTES, seal, unseal_without_header
from moss_sync.stores.base import Blob, Swapped


async def revoke_older(
    repository: Repository, clock: Clock, epoch: int, *, sealed: Collection[str] = ()
) -> None:
    """Let nothing count any more that is sealed under an older key than that of `epoch`.

    Every manifest of the store is read first. What lists nothing is sealed anew here; what lists
    something under an older key keeps the floor where it is. What counts no more as it is, or
    opens with no key at all, is left as it is.

    Args:
        sealed: Names of sessions that this device has just seen sealed under that key: one under an
            older key was put in their place since.
    Raises:
        RevokedKeyError: a session, which the message names, is not sealed anew yet, or no longer.
        BlobCorruptError, UnsupportedFormatError: a key opens one, and it cannot be read.
        ContentionError: another device rotated the key at the same moment.
        NetworkError, UnauthorizedError, StoreChangedError: as rotate. The call may be repeated.
    """
    await repository.refresh()
    await repository.renew_verdict()
    await _seal_empty_ones(repository, clock, epoch, sealed)
    before, etag = await repository.read_fmt()
    if before.floor < epoch:
        kek = await repository.kek(before.kdf)
        nonce = clock.token(keyring.NONCE_BYTES)
        await repository.unlocked(before)
        after = keyring.with_floor(before, kek, epoch, nonce=nonce)
        before = await replaced(repository, clock, before, etag, after)
    await repository.take_over(before.raw, repository.project_key)
    if before.floor < epoch:
        raise ContentionError(
            "another device rotated the project's key at the same moment: what is sealed under old "
            "keys still counts",
            hint="seal anew once more: moss-local rotate-key --rewrite-only",
        )


async def _seal_empty_ones(
    repository: Repository, clock: Clock, epoch: int, sealed: Collection[str]
) -> None:
    """Seal anew every manifest under an older key than that of `epoch` that lists nothing.

    Sessions that were deleted, and those that nothing was ever pushed to: nobody opens them to do
    it. Every manifest is read.

    Raises:
        RevokedKeyError: one lists what is sealed under an older key, or stands in the place of one
            of `sealed`.
        BlobCorruptError, UnsupportedFormatError: a key opens one, and it cannot be read.
        ContentionError: one was changed at the same moment.
    """
    keys = await repository.keys()
    if keys is None:
        return
    for sid in filter(is_session_id, await manifest_ids(repository)):
        try:
            current, blob = await open_manifest(repository, keys, sid)
        except BlobNotFoundError:
            continue  # removed since it was listed
        except (BlobCorruptError, UnsupportedFormatError):
            if await _opens(repository, keys, sid):
                raise
            continue
        if not epochs.is_old(current, epoch) or _is_revoked(current, repository.opened.floor):
            continue
        _check_replaced(current, sealed)
        if current.entries or current.inline:
            raise RevokedKeyError(
                f"session {current.name!r} is not sealed anew: what is sealed under old keys still "
                "counts, in all sessions",
                hint="when the session can be read, moss-local rotate-key --rewrite-only",
            )
        await _seal_anew(repository, keys, clock, current, blob)


def _check_replaced(current: Manifest, sealed: Collection[str]) -> None:
    """Refuse a manifest under an older key in the place of one that was just sealed anew.

    Raises:
        RevokedKeyError: it is one.
    """
    if current.name in sealed:
        raise RevokedKeyError(
            f"session {current.name!r} was sealed anew, and somebody has put what is sealed under "
            "an old key in its place; old keys still count, in all sessions",
            hint=f"refuse them the store; then: {repair_command(current.name)}, and moss-local "
            "rotate-key --rewrite-only",
        )


def _is_revoked(current: Manifest, floor: int) -> bool:
    """Return whether a manifest counts no more already: sealed anew, it would count again."""
    return epochs.lowest_epoch(current) < floor


async def _opens(repository: Repository, keys: Keys, sid: str) -> bool:
    """Return whether a key of the project opens what stands for a manifest, damaged or not.

    Raises:
        NetworkError: no two answers in a row agreed.
    """
    before: bytes | None = None
    for _ in range(MAX_REREADS):
        try:
            blob = await repository.store.get(repository.layout.manifest(sid))
        except BlobNotFoundError:
            return False
        except BlobCorruptError:
            return False  # larger than any blob
        if not isinstance(blob, Blob):
            raise AssertionError("an unconditional get returned no blob")
        if blob.data == before:
            identity = manifest_identity(keys, sid)
            roots, most = repository.roots, manifest.MAX_PLAIN_BYTES
            return unseal_without_header(roots, identity, blob.data, max_plain=most) is not None
        before = blob.data
    raise NetworkError(
        f"the store answers differently each time it is asked for the manifest {sid}",
        hint="when the connection is better: moss-local rotate-key --rewrite-only",
    )


async def _seal_anew(
    repository: Repository, keys: Keys, clock: Clock, current: Manifest, blob: Blob
) -> None:
    """Commit a session as it is, under the newest key, as a device that it does not know."""
    author = plan.visitor(
        current,
        dev=clock.token(DEVICE_BYTES),
        now_ms=max(0, repository.time.now_ms()),
        prev=manifest.ciphertext_hash(blob.data),
        commit_id=clock.token(16),
        epoch=repository.roots.newest,
    )
    check_writable(keys, current)
    following = plan.next_commit(current, author, repo_id=keys.repo_id, sid=current.sid)
    sealed = seal(
        repository.roots,
        manifest_identity(keys, current.sid),
        manifest.encode(following),
        salt=clock.token(SALT_BYTES),
        epoch=following.epoch,
    )
    key = repository.layout.manifest(current.sid)
    if not isinstance(
        await repository.store.compare_and_swap(key, sealed, etag=blob.etag), Swapped
    ):
        raise ContentionError(
            f"session {current.name!r} was changed while it was sealed anew",
            hint="do it again: moss-local rotate-key --rewrite-only",
        )
