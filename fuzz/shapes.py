"""What several targets need: bytes turned into the shapes that get past the first check."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import zstandard


def packed(data: bytes) -> bytes:
    """Return the bytes as they are, or as the content of a well-formed zstd frame.

    The first byte chooses: almost no change of a compressed frame leaves one, and then only its
    first check would ever be tried.
    """
    if not data or data[0] & 1:
        return data[1:]
    return zstandard.ZstdCompressor(level=1, write_content_size=True).compress(data[1:])


def unpacked(frame: bytes) -> bytes:
    """Return the seed that `packed` turns into a frame of the same content."""
    return b"\0" + zstandard.ZstdDecompressor().decompress(frame)


def text_of(data: bytes) -> str:
    """Return text of any code points, half surrogates among them."""
    return data.decode("utf-8", "surrogateescape")


class Take:
    """Values read off bytes, one after the other; zeros when they have run out."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def left(self) -> bool:
        return self._at < len(self._data)

    def byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def number(self, size: int) -> int:
        return int.from_bytes(bytes(self.byte() for _ in range(size)), "big")

    def bytes(self) -> bytes:
        """Return up to 255 bytes, their number first."""
        return bytes(self.byte() for _ in range(min(self.byte(), len(self._data) - self._at)))

    def text(self) -> str:
        return self.bytes().decode("utf-8", "replace")


@cache
def scratch() -> Path:
    """Return a folder of this process, removed at its end."""
    folder = tempfile.TemporaryDirectory(prefix="moss-fuzz-")
    _kept.append(folder.cleanup)
    return Path(folder.name)


_kept: list[Callable[[], None]] = []
