"""What to say to someone whose store cannot compare and swap.

Source: SYNC-PROTOCOL 2.12 and the vendors' own documents, as of 2026; the probe decides, this only
explains.
"""

from __future__ import annotations

_REMEDY = (
    "use a store with conditional writes, such as AWS S3, Cloudflare R2, MinIO, SeaweedFS,"
    " or a local folder; or let sessions commit without it, by choice and for ever: "
    'commit="log", moss-local init --commit log'
)

_VENDORS = {
    "storage.googleapis.com": "Google's S3 interface accepts conditions and ignores them",
    "backblazeb2.com": "Backblaze B2 has no conditional writes",
}


def remedy(url: str) -> str:
    """Return the hint for the store at `url`."""
    for host, fact in _VENDORS.items():
        if host in url:
            return f"{fact}; {_REMEDY}"
    return _REMEDY
