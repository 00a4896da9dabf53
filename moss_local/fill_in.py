"""Making the vectors that documents of a session lack, in the background or while somebody waits.

They lack one when they were written by somebody without the model, or when the session has been
moved to another model since. What is lacking is read off the file piece by piece and written piece
by piece, so being cut off costs one piece, and two processes at it only do some of it twice.

Rules of this file: what awaits runs on the library's loop. Nothing here holds the session object,
so that one that is forgotten can go.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from moss_local.embedding.base import Progress
from moss_local.local import Local
from moss_local.model_choice import CUSTOM_ID
from moss_local.runtime import runtime
from moss_local.storage.encoding import to_bytes
from moss_local.storage.state import read_state
from moss_local.storage.vectors import (
    Unembedded,
    count_unembedded,
    fill_in,
    read_unembedded,
)
from moss_sync import MossError, VectorSpace

log = logging.getLogger("moss_local")

PIECE = 64
"""Documents at a time: some 0.2 s of embedding, which is what being cut off costs."""

CLOSE_WAIT_S = 2.0
"""What closing leaves a piece to end by itself; what is then still lacking is made next time."""


class FillIn:
    """The vectors that one session lacks."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self.begin()

    def begin(self) -> None:
        """Begin anew, also in a forked child, whose parent has what was under way."""
        self._turn = asyncio.Lock()
        self._running: Future[None] | None = None
        self._stopped = False
        self._held = 0
        self._told: str | None = None

    def lacking(self) -> int:
        """Return how many documents have no vector and should; from any thread."""
        with self._local.file.reading() as conn:
            space = read_state(conn).space
            return 0 if space is None or space.id == CUSTOM_ID else count_unembedded(conn)

    def start(self) -> None:
        """Make in the background what is lacking, unless that is under way; from any thread."""
        idle = self._running is None or self._running.done()
        if idle and not self._stopped and not self._held and self.lacking():
            self._running = runtime.in_background(self._quietly())

    @contextmanager
    def held(self) -> Iterator[None]:
        """Begin nothing in the background while the block runs: it is done there."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    async def run(self, progress: Progress | None = None) -> int:
        """Make what is lacking; return how many vectors that were.

        Args:
            progress: Called with (vectors made, and what is still lacking with them), from the
                library's loop.
        Raises:
            ModelNotFoundError: the session's model is not on this machine.
        """
        done = 0
        async with self._turn:
            while not self._stopped:
                space, piece = await runtime.blocking(self._read)
                if space is None or not piece:
                    break
                vectors = await runtime.embedding(self._embed, space, piece)
                done += await runtime.blocking(self._write, space, piece, vectors)
                if progress is not None:
                    progress(done, done + await runtime.blocking(self.lacking))
        return done

    def stop(self) -> None:
        """End after the piece that is under way."""
        self._stopped = True

    async def close(self) -> None:
        """End, and leave what is under way a moment for it."""
        self.stop()
        running, self._running = self._running, None
        if running is None or running.done():
            return
        done, _ = await asyncio.wait([asyncio.wrap_future(running)], timeout=CLOSE_WAIT_S)
        if not done:
            running.cancel()

    async def _quietly(self) -> None:
        try:
            made = await self.run()
            log.info("session %r: %d vectors were made", self._local.name, made)
        except MossError as error:
            if self._stopped:
                return  # the file was closed under our hands
            # Whoever asks by meaning gets this error; it is told once, and tried again later.
            if self._told != str(error):
                log.warning("session %r is searched by word only: %s", self._local.name, error)
            self._told = str(error)

    def _read(self) -> tuple[VectorSpace | None, list[Unembedded]]:
        with self._local.file.reading() as conn:
            space = read_state(conn).space
            if space is None or space.id == CUSTOM_ID:
                return None, []
            return space, read_unembedded(conn, limit=PIECE)

    def _embed(self, space: VectorSpace, piece: Sequence[Unembedded]) -> NDArray[np.float32]:
        embedder = self._local.model.embedder(space)
        return embedder.embed([document.text for document in piece])

    def _write(
        self, space: VectorSpace, piece: Sequence[Unembedded], vectors: NDArray[np.float32]
    ) -> int:
        rows = [
            (document.rowid, document.digest, vector)
            for document, vector in zip(piece, to_bytes(space, vectors), strict=True)
        ]
        with self._local.writing() as conn:
            return fill_in(conn, space, rows)
