"""The command line on a session whose store cannot be trusted: it reads what is here."""

from __future__ import annotations

from pathlib import Path

import pytest

from moss_sync import HistoryError
from moss_sync.engine import SyncEngine
from tests.keys import KEY
from tests.moss_local.cli_harness import Cli


def test_reading_goes_on_and_says_why_nothing_is_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli = Cli(("--data-dir", str(tmp_path)))
    monkeypatch.setenv("MOSS_PROJECT_ID", "p")
    monkeypatch.setenv("MOSS_PROJECT_KEY", KEY)
    cli("add", "conv", "A turn.", "--id", "t").ok()
    cli("push", "conv").ok()

    async def contradicted(self: SyncEngine) -> None:
        raise HistoryError("the store is older than it was", hint="moss-local repair conv")

    monkeypatch.setattr(SyncEngine, "pull", contradicted)
    shown = cli("show", "conv").ok()
    assert "A turn." in shown.stdout
    assert shown.stderr.splitlines()[:2] == [
        "not exchanged: the store is older than it was; this is what is on this device",
        "hint: moss-local repair conv",
    ]
    refused = cli("pull", "conv")
    assert refused.code == HistoryError.exit_code
    assert "the store is older than it was" in refused.stderr
