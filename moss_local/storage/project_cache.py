"""What a device remembers of a project's repositories: small files beside the session files."""

from __future__ import annotations

from pathlib import Path

from moss_local.storage.failures import translated_os
from moss_sync.stores.durable import make_folders, replacing


class ProjectCache:
    """`moss_sync`'s RepositoryCache over a directory; every file is 0600 and replaced whole."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def load(self, name: str) -> bytes | None:
        """Return what was saved under `name`, or None."""
        path = self._path(name)
        with translated_os(path):
            try:
                # Whatever else stands there (a pipe would be waited for) remembers nothing either.
                return path.read_bytes() if path.is_file() else None
            except FileNotFoundError:
                return None

    def save(self, name: str, data: bytes) -> None:
        """Keep `data`, atomically and durably."""
        path = self._path(name)
        with translated_os(path):
            make_folders(self._directory)  # mkdir(parents=True) leaves those above to the umask
            with replacing(path) as out:
                out.write(data)

    def _path(self, name: str) -> Path:
        return self._directory / f"repository-{name}"
