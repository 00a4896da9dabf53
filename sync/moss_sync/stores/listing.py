"""All blobs below a prefix, page after page, of a store that may go on for ever.

What holds: tests/moss_sync/test_stores_listing.py.
"""

from __future__ import annotations

from moss_sync.errors import NetworkError
from moss_sync.stores.base import BlobStore, Listed

PAGE = 1000
"""Keys that are asked for at once; S3 gives no more."""

MAX_LISTED = 250_000
"""About 75 MB of names. Below one prefix lie the manifests of a project, or the blobs of a session:
a listing of more takes minutes, and comes from a store that makes them up."""


async def list_all(
    store: BlobStore, prefix: str, *, start_after: str = "", beginning: str = ""
) -> list[Listed]:
    """Return the blobs below `prefix` whose names there begin with `beginning`, in order.

    One request per thousand.

    Args:
        start_after: As for `BlobStore.keys`; begins with `prefix` and `beginning`.
    Raises:
        NetworkError: the store could not be reached, or names more than MAX_LISTED.
    """
    found: list[Listed] = []
    after = start_after
    while len(found) <= MAX_LISTED:
        page = await store.keys(prefix, start_after=after, limit=PAGE)
        found += [each for each in page if each.key.startswith(prefix + beginning)]
        if len(page) < PAGE or not page[-1].key.startswith(prefix + beginning):
            return found
        after = page[-1].key
    raise NetworkError(
        f"the store {store.url} names more than {MAX_LISTED} blobs below {prefix!r}",
        hint="check whose store it is; what a project has no use for may be deleted from it",
    )
