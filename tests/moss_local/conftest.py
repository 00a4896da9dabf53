"""What several tests of the library share."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.moss_local.bucket import Bucket


@pytest.fixture(params=["folder", "s3"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    """A part of a store of its own, in a folder and on a server."""
    if request.param == "folder":
        return Bucket(str(tmp_path / "store"))
    return Bucket(request.getfixturevalue("s3_url"))


@pytest.fixture
def silent_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A store that takes every connection and never says anything."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        port = listening.getsockname()[1]
        yield f"s3://bucket/prefix?endpoint_url=http://127.0.0.1:{port}&region=us-east-1"
