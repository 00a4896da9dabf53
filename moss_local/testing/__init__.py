"""For tests of programs on top of this library: a client's store with faults, and the simulator.

`use_store` lets a client work over any store, such as `moss_sync.testing.FaultyStore`;
`SqliteCopies` plugs the session file into the simulator (`python -m moss_local.testing 0..1999`).
docs/testing.md shows both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from moss_local.testing.copies import SqliteCopies, SqliteCopy

if TYPE_CHECKING:
    from moss_local.client import MossClient
    from moss_sync.stores import BlobStore

__all__ = ["SqliteCopies", "SqliteCopy", "use_store"]


def use_store(client: MossClient, store: BlobStore) -> MossClient:
    """Let `client`, of which nothing was asked yet, work over `store`; return the client.

    The client owns the store from then on, and closes it when it is closed itself.
    """
    if client._project is not None:
        raise RuntimeError("the client is in use already: choose its store before")
    client._store = store
    return client
