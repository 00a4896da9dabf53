"""The long form of the probe behind a project's first pushes, and what a failure of it stops."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from moss_local import DocumentInfo, MossClient, StoreLacksCasError
from moss_sync.probe import LONG_ROUNDS, ProbeReport, ProbeVerdict
from tests.moss_local.cli_harness import Cli

VECTOR = [1.0, 0.0, 0.0, 0.0]


pytestmark = pytest.mark.usefixtures("long_form")


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("MOSS_PROJECT_ID", "p")
    monkeypatch.setenv("MOSS_PROJECT_KEY", "k")
    monkeypatch.setenv("MOSS_STORE", str(tmp_path / "store"))
    return Cli(("--data-dir", str(tmp_path / "one")))


@pytest.fixture
def pretending() -> Iterator[None]:
    async def found_out(*_: object, rounds: int = 0, **__: object) -> ProbeReport:
        if not rounds:
            return ProbeReport(verdict=ProbeVerdict())
        return ProbeReport(error=StoreLacksCasError("file://", check="race of 16", hint="no"))

    with patch("moss_sync.verdict.probe", found_out):
        yield


def client(tmp_path: Path, name: str = "one") -> MossClient:
    return MossClient("p", "k", store=tmp_path / "store", data_dir=tmp_path / name)


async def pushed(opened: MossClient, id: str) -> None:
    async with await opened.session("conv", "custom") as session:
        await session.add_docs([DocumentInfo(id, "text", embedding=VECTOR)])
        await session.push_index()


def test_a_push_is_followed_by_the_rounds_of_the_probe_and_status_tells(
    cli: Cli, tmp_path: Path
) -> None:
    assert cli("status", "--json").ok().json()["probed"] is None

    async def story() -> None:
        async with client(tmp_path) as opened:
            await pushed(opened, "a")

    with patch("moss_sync.probe.LONG_ROUNDS", 10**3):
        asyncio.run(story())
        assert cli("status", "--json").ok().json()["probed"] == "not fully"
        assert "not fully probed" in cli("status").ok().stderr
    for _ in range(LONG_ROUNDS):  # each process runs one round at least
        asyncio.run(story())
    assert cli("status", "--json").ok().json()["probed"] == "fully"
    assert "probed" not in cli("status").ok().stderr


async def found_out(tmp_path: Path) -> None:
    async with client(tmp_path) as opened, client(tmp_path, "two") as other:
        session = await opened.session("conv", "custom")
        await session.add_docs([DocumentInfo("a", "text", embedding=VECTOR)])
        await session.push_index()
        while session.sync_state.status != "stopped":
            await asyncio.sleep(0.01)
        assert session.sync_state.code == "STORE_LACKS_CAS"
        with pytest.raises(StoreLacksCasError):
            await pushed(other, "b")
        async with await other.session("conv", "custom") as second:
            await second.pull()
            assert [doc.id for doc in await second.get_docs()] == ["a", "b"]


def test_a_store_that_is_found_out_stops_pushes_everywhere_and_stays_readable(
    cli: Cli, tmp_path: Path, pretending: None
) -> None:
    asyncio.run(found_out(tmp_path))
    assert cli("status", "--json").ok().json()["probed"] == "failed"
    assert "moss-local doctor" in cli("status").ok().stderr


def test_doctor_lets_a_store_be_written_to_again(
    cli: Cli, tmp_path: Path, pretending: None
) -> None:
    asyncio.run(found_out(tmp_path))
    cli("doctor", "--json")

    async def story() -> None:
        async with (
            client(tmp_path, "two") as other,
            await other.session("conv", "custom") as second,
        ):
            await second.push_index()
        async with (
            client(tmp_path, "new") as fresh,
            await fresh.session("conv", "custom") as third,
        ):
            assert [doc.id for doc in await third.get_docs()] == ["a", "b"]

    asyncio.run(story())
    assert cli("status", "--json").ok().json()["probed"] == "fully"
