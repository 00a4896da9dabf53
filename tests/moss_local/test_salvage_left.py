"""What repairs leave beside a session's file: who goes on from it, and who takes it away."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from moss_local import (
    ErasureIncompleteError,
    FileCorruptError,
    NotFoundError,
    StoreChangedError,
)
from moss_local.storage import remains, salvage
from moss_local.storage.place import Place
from moss_local.types import Repaired
from tests.moss_local.cli_harness import Cli
from tests.moss_local.damaged import (
    KEPT,
    PUSHED,
    CutOff,
    Device,
    cut_off_before_it_is_written_again,
    damage,
    made,
    overwrite,
)


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return made(tmp_path, "custom")


@pytest.mark.parametrize(
    "moment",
    ["_keep", "_move_aside", "salvage_path", "kept_edits", "take_over", "forget_kept"],
)
def test_cut_off_at_any_step_it_is_ended_by_the_next_and_nothing_readable_is_lost(
    device: Device, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(device.path, 5, 0.04)
    found = remains.Salvaged()
    copy = device.path.with_name("copy")
    copy.write_bytes(device.path.read_bytes())
    with remains.held(copy, None) as (source, image):
        said = remains.about(source, image, "conv")
        remains.read_into(found, source, image, said, above=None)
    for left in device.directory.glob("copy*"):
        left.unlink()
    readable = {edit[1]: edit[6] for edit in found.edits if edit[0] == remains.REASON}
    assert readable

    def cut_off(*_: object, **__: object) -> None:
        raise CutOff

    with monkeypatch.context() as patch:
        owner = "moss_local.writer" if moment == "take_over" else "moss_local.storage.salvage"
        patch.setattr(f"{owner}.{moment}", cut_off)
        with pytest.raises(CutOff):
            asyncio.run(device.repair())
    done = asyncio.run(device.repair())
    assert done.error is None
    assert asyncio.run(device.held()) == PUSHED | readable
    assert not salvage.left_behind(Place(device.directory))
    assert asyncio.run(device.repair()).salvage is None


def test_what_was_written_after_a_repair_that_was_cut_off_is_kept_by_the_next_one_too(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(device.path, 5, 0.04)

    cut_off_before_it_is_written_again(device, monkeypatch)
    kept = {edit[1] for edit in salvage.kept_edits(Place(device.directory), "conv")}
    later = {"later": "written since", "k7": "and changed since"}
    asyncio.run(device.add(later))
    device.checkpoint()
    overwrite(device.path, 0, bytes(100))
    assert asyncio.run(device.repair()).error is None
    held = asyncio.run(device.held())
    assert held.items() >= (PUSHED | later).items()
    assert set(held) == set(PUSHED | later) | kept


def test_a_repair_that_was_cut_off_knows_the_model_and_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(tmp_path)
    asyncio.run(device.add(KEPT))
    device.checkpoint()
    damage(device.path, 3, 0.05)

    def cut_off(*_: object, **__: object) -> None:
        raise CutOff

    def repair() -> Repaired:
        with monkeypatch.context() as patch:
            patch.setattr("moss_local.project.Project.session", cut_off)
            with pytest.raises(CutOff):
                asyncio.run(device.repair())
        return asyncio.run(device.repair())

    assert repair().error is None
    held = asyncio.run(device.held())  # by vectors of the caller's own
    assert held
    asyncio.run(device.add(PUSHED, push=True))
    asyncio.run(device.add({"later": "not pushed"}))
    device.checkpoint()
    overwrite(device.path, 0, bytes(100))
    right, device.store = device.store, tmp_path / "typo"
    with monkeypatch.context() as patch:
        patch.setattr("moss_local.storage.salvage.check_repository", lambda *_: None)
        patch.setattr("moss_local.project.Project.session", cut_off)
        with pytest.raises(CutOff):
            asyncio.run(device.repair())
    assert isinstance(asyncio.run(device.repair()).error, StoreChangedError)
    assert not device.path.exists()
    device.store = right
    assert asyncio.run(device.repair()).error is None
    assert asyncio.run(device.held()).keys() == held.keys() | PUSHED.keys() | {"later"}


def test_a_log_without_its_file_is_seen_by_all_who_look(tmp_path: Path) -> None:
    device = Device(tmp_path)
    asyncio.run(device.add(KEPT))
    log = device.path.with_name(device.path.name + "-wal")
    log.write_bytes(b"what was written last")
    device.path.unlink()

    async def look() -> None:
        async with device.client() as client:
            catalog = await client.local_sessions()
            assert [each.code for each in catalog.unreadable] == ["DESERIALIZATION"]
            with pytest.raises(FileCorruptError):
                await client.session("conv", create=False)
            (all_,) = await client.repair_sessions()
            assert isinstance(all_.error, FileCorruptError)
            await client.delete_session("conv", local_only=True)
            assert not log.exists()
            assert not (await client.local_sessions()).unreadable

    asyncio.run(look())


@pytest.mark.parametrize("at", [0, 17, 18, 19, 47])
def test_a_file_with_a_damaged_header_can_be_deleted(device: Device, at: int) -> None:
    overwrite(device.path, at, b"\xff")

    async def delete() -> None:
        async with device.client() as client:
            await client.delete_session("conv", local_only=True)

    asyncio.run(delete())
    assert not device.path.exists()


def test_a_refused_command_takes_nothing_away_that_a_repair_has_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cli = Cli(("--data-dir", "one"))
    cli("init", "--store", "./shared").ok()
    cli("add", "conv", "kept", "--id", "a").ok()
    (path,) = Path("one").rglob("*.sqlite3")
    kept = path.with_name(f".salvage-{path.name}")
    path.rename(kept)
    aside = path.with_name(f"{path.name}.damaged-1")
    aside.write_bytes(b"damaged")
    assert cli("add", "conv", "text", "--id", "x" * 5000).code == 2
    assert kept.exists()
    assert aside.exists()


def traces(device: Device, needle: str) -> list[str]:
    files = (each for each in device.data.rglob("*") if each.is_file())
    return [each.name for each in files if needle.encode() in each.read_bytes()]


def test_what_is_forgotten_is_in_no_file_that_a_repair_has_moved_aside(device: Device) -> None:
    damage(device.path, 5, 0.04)
    done = asyncio.run(device.repair())
    assert done.salvage is not None
    assert done.salvage.aside is not None
    assert done.salvage.aside.name in traces(device, "kept here only 7 ")
    done.salvage.aside.with_name(done.salvage.aside.name + "-wal").write_bytes(b"pushed 7 filling")

    async def forget(ids: list[str]) -> int:
        async with device.session() as session:
            return (await session.forget(ids)).moved_aside

    assert asyncio.run(forget(["p7", "k7"])) == 2
    assert traces(device, "kept here only 7 ") == traces(device, "pushed 7 ") == []
    assert asyncio.run(forget(["p7", "k7"])) == 0


def test_nothing_is_forgotten_while_a_repair_that_was_cut_off_keeps_it(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(device.path, 5, 0.04)

    cut_off_before_it_is_written_again(device, monkeypatch)

    async def forget() -> None:
        async with device.session() as session:
            await session.forget(["k7"])

    with pytest.raises(ErasureIncompleteError) as refused:
        asyncio.run(forget())
    assert refused.value.hint is not None
    assert "moss-local repair conv" in refused.value.hint
    assert asyncio.run(device.repair()).error is None
    assert asyncio.run(device.held())["k7"] == KEPT["k7"]
    asyncio.run(forget())
    assert traces(device, "kept here only 7 ") == []


@pytest.mark.parametrize("local_only", [True, False])
def test_a_deleted_session_leaves_no_file_that_a_repair_has_moved_aside(
    device: Device, local_only: bool
) -> None:
    for seed in (5, 6):
        damage(device.path, seed, 0.04)
        assert asyncio.run(device.repair()).error is None
        asyncio.run(device.add(KEPT))
        device.checkpoint()

    async def delete() -> None:
        async with device.client() as client:
            await client.delete_session("conv", local_only=local_only)

    assert len(traces(device, "kept here only 7 ")) == 3
    asyncio.run(delete())
    assert traces(device, "kept here only 7 ") == []


def test_what_a_deletion_that_was_cut_off_left_is_deleted_by_the_next(device: Device) -> None:
    damage(device.path, 5, 0.04)
    assert asyncio.run(device.repair()).error is None
    device.path.unlink()

    async def delete() -> None:
        async with device.client() as client:
            await client.delete_session("conv", local_only=True)

    asyncio.run(delete())
    assert traces(device, "kept here only 7 ") == []
    with pytest.raises(NotFoundError):
        asyncio.run(delete())
