"""What several tests of the library share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.moss_local.bucket import Bucket


@pytest.fixture(params=["folder", "s3"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    """A part of a store of its own, in a folder and on a server."""
    if request.param == "folder":
        return Bucket(str(tmp_path / "store"))
    return Bucket(request.getfixturevalue("s3_url"))
