"""What a folder store holds below a prefix, page by page, and what lies there that is not its own.

A listing shows regular files whose path is a key, and nothing else. It hashes each blob once and
reads each folder once for all pages of one listing, and no single file can end it: a blob that
cannot be read is listed, so that whoever reads it is told.
What holds: tests/moss_sync/test_stores_folder.py, tests/moss_sync/test_stores_foreign_files.py.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from moss_sync.errors import BlobCorruptError, BlobDeniedError, ForeignFileError
from moss_sync.stores.base import MAX_BLOB_BYTES, ETag, Listed
from moss_sync.stores.beneath import Folder, folder_at
from moss_sync.stores.folder_blob import etag_of, read_blob
from moss_sync.stores.keys import is_key

_HASHES = 131_072
"""Blobs whose ETags are remembered, about 400 bytes each: more than a project lists at a time,
because with fewer each listing would read every blob anew."""

_WALKS = 16
"""Listings whose further pages are remembered."""

_WALK_AGE_S = 10.0
"""For so long; what others write meanwhile may be missing in the rest of such a listing."""


class GivenUpError(Exception):
    """The caller was cancelled while a thread worked for it; nobody hears of it."""


class FolderListing:
    """The listings of one store, with what they remember. Its methods block, and raise
    FileNotFoundError where the folder of the prefix is not there."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._hashes: dict[str, tuple[tuple[int, int, int], ETag]] = {}
        self._walks: dict[tuple[str, str], tuple[float, list[str]]] = {}

    def forget_pages(self) -> None:
        """Read the folders anew for the next page; a blob was written."""
        self._walks.clear()

    def page(
        self, prefix: str, start_after: str, limit: int, given_up: threading.Event
    ) -> list[Listed]:
        """Return up to `limit` blobs in the order of their keys.

        Raises:
            GivenUpError: `given_up` was set. It is looked at before each blob, because a thousand
                large ones take minutes to hash, and whoever closes the store waits for the thread.
        """
        # The rest of what the page before has seen, last key first: to read the folder again for
        # each thousand keys would take the square of the time.
        began, names = self._walks.pop((prefix, start_after), (0.0, None))
        if names is None or time.monotonic() > began + _WALK_AGE_S:
            began = time.monotonic()
            with folder_at(self._root, prefix) as folder:
                keys = [key for key in self._walk(folder, prefix) if key > start_after]
            names = sorted(keys, reverse=True)
        found: list[Listed] = []
        while names and len(found) < limit:
            found += self._taken(names, limit - len(found), given_up)
        if names and found:
            if len(self._walks) >= _WALKS:
                self._walks.clear()
            self._walks[prefix, found[-1].key] = began, names
        return found

    def strays(self, prefix: str, *, folders: bool) -> list[str]:
        """Return what is right below `prefix` and no blob, as `MayBeReplicated` says."""
        with folder_at(self._root, prefix) as folder:
            entries = folder.entries()
        ours = ("file",) if folders else ("file", "folder")
        return sorted(
            prefix + each.name
            for each in entries
            if each.kind not in ours or not is_key(prefix + each.name)
        )

    def _walk(self, folder: Folder, prefix: str) -> Iterator[str]:
        for entry in folder.entries():
            # What is no key is none of ours: a file manager's leavings, a replicator's copies.
            key = prefix + entry.name
            if not is_key(key):
                continue
            if entry.kind == "file":
                yield key
            elif entry.kind == "folder":
                # One that goes, or changes into something else, meanwhile is left out; so is one
                # that may not be listed: no listing of the protocol needs a folder below its own.
                with (
                    contextlib.suppress(FileNotFoundError, PermissionError, ForeignFileError),
                    folder.enter(entry.name) as inner,
                ):
                    yield from self._walk(inner, f"{key}/")

    def _taken(self, keys: list[str], limit: int, given_up: threading.Event) -> list[Listed]:
        """Take keys of one folder from the end of `keys`; return what is there of them."""
        inside = keys[-1].rpartition("/")[0]
        taken: list[str] = []
        while keys and len(taken) < limit and keys[-1].rpartition("/")[0] == inside:
            taken.append(keys.pop())
        found: list[Listed] = []
        with (
            contextlib.suppress(FileNotFoundError, ForeignFileError),
            folder_at(self._root, f"{inside}/") as folder,
        ):
            for key in taken:
                if given_up.is_set():
                    raise GivenUpError
                # Removed, or put out of the way by something else, since the folder was read.
                with contextlib.suppress(FileNotFoundError, ForeignFileError):
                    found.append(self._described(folder, key))
        return found

    def _described(self, folder: Folder, key: str) -> Listed:
        """Return name, ETag and size, reading the blob only if it is not the one seen before.

        A replaced blob is another file: inode, time and size together tell. This memory serves
        listings alone; get and compare-and-swap always hash what they read.
        """
        name = key.rpartition("/")[2]
        about = folder.about(name)
        state = (about.st_ino, about.st_mtime_ns, about.st_size)
        known = self._hashes.get(key)
        if known is not None and known[0] == state:
            return Listed(key, known[1], about.st_size)
        unread = Listed(key, ETag("unread-" + "-".join(map(str, state))), about.st_size)
        if about.st_size > MAX_BLOB_BYTES:
            return unread
        try:
            data = read_blob(folder, name)
        except ForeignFileError:
            raise
        except (BlobDeniedError, BlobCorruptError):
            return unread
        if len(self._hashes) >= _HASHES:
            self._hashes.clear()
        etag = etag_of(data)
        if len(data) == about.st_size:
            self._hashes[key] = (state, etag)
        return Listed(key, etag, len(data))
