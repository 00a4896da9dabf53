"""Damage to the blobs of a store, mended from the command line for this device and a new one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from moss_local import BlobMissingError, DocumentInfo, MossClient, MossError
from moss_sync import keyring
from tests.moss_local.cli_harness import Cli
from tests.moss_sync.world import noise

VECTOR = [1.0, 0.0, 0.0, 0.0]


def client(root: Path, name: str) -> MossClient:
    return MossClient("p", "k", store=root / "store", data_dir=root / name)


async def add(root: Path, name: str, documents: dict[str, str], *, push: bool) -> None:
    async with client(root, name) as opened, await opened.session("conv", "custom") as session:
        await session.add_docs(
            [DocumentInfo(id, text, embedding=VECTOR) for id, text in documents.items()]
        )
        if push:
            await session.push_index()


async def read(root: Path, name: str) -> dict[str, str]:
    async with client(root, name) as opened, await opened.session("conv", "custom") as session:
        await session.pull()
        return {doc.id: doc.text for doc in await session.get_docs()}


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("MOSS_PROJECT_ID", "p")
    monkeypatch.setenv("MOSS_PROJECT_KEY", "k")
    monkeypatch.setenv("MOSS_STORE", str(tmp_path / "store"))
    return Cli(("--data-dir", str(tmp_path / "one")))


def blobs(root: Path, part: str) -> list[Path]:
    found = [path for path in (root / "store").rglob("*") if path.is_file()]
    return sorted(
        path
        for path in found
        if f"/{part}" in str(path) and not {"aside", ".moss"} & set(path.parts)
    )


def version(whole: bytes) -> bytes:
    return whole[:4] + bytes([whole[4] ^ 2]) + whole[5:]


def epoch(whole: bytes) -> bytes:
    return whole[:8] + bytes([whole[8] ^ 128]) + whole[9:]


def emptied(whole: bytes) -> bytes:
    return b""


DAMAGES: list[Callable[[bytes], bytes] | None] = [version, epoch, emptied, None]


@pytest.mark.parametrize("damage", DAMAGES, ids=["version", "epoch", "emptied", "removed"])
@pytest.mark.parametrize(
    ("part", "how"), [("fmt", "--all"), ("probe", "conv"), ("m/", "--all"), ("s/", "conv")]
)
def test_repair_mends_a_blob_for_this_device_and_a_new_one(
    cli: Cli, tmp_path: Path, part: str, damage: Callable[[bytes], bytes] | None, how: str
) -> None:
    asyncio.run(add(tmp_path, "one", {"a": noise(1, 9000)}, push=True))
    asyncio.run(add(tmp_path, "one", {"not pushed": "text"}, push=False))
    [path, *_] = blobs(tmp_path, part)
    whole = path.read_bytes()
    path.unlink()
    if damage is not None:
        path.write_bytes(damage(whole))
    [repaired] = cli("repair", how, "--json").ok().json()["repairs"]
    assert repaired["error"] is None
    assert len(repaired["aside"]) == (damage is not None and part != "probe")
    for key in repaired["aside"]:
        assert damage is not None
        assert (tmp_path / "store" / key).read_bytes() == damage(whole)
    expected = {"a": noise(1, 9000), "not pushed": "text"}
    for name in ("one", "new"):
        assert asyncio.run(read(tmp_path, name)) == expected
    asyncio.run(add(tmp_path, "new", {"b": "text"}, push=True))
    assert asyncio.run(read(tmp_path, "one")).keys() == {*expected, "b"}


def test_keys_of_a_rotation_that_never_was_and_of_no_version_are_left_out_on_request(
    cli: Cli, tmp_path: Path
) -> None:
    asyncio.run(add(tmp_path, "one", {"a": "text"}, push=True))
    asyncio.run(add(tmp_path, "one", {"not pushed": "text"}, push=False))
    [fmt] = blobs(tmp_path, "fmt")
    whole = fmt.read_bytes()
    fields = keyring._unpacked(whole)
    rotated = {**fields["epochs"], 2: bytes(keyring.WRAPPED_BYTES)}
    kek = keyring.derive_kek("k", keyring.decode(whole).kdf)
    featured = {**fields, "feat_w": ["invented"], "feat_r": ["invented"]}
    featured["check"] = keyring._wrap(
        kek, bytes(12), b"", fields["repo_id"], keyring._header(featured)
    )
    for made_up in ({**fields, "epochs": rotated}, featured):
        fmt.write_bytes(keyring._framed(made_up))
        plain = cli("repair", "conv")
        assert plain.code != 0
        assert "moss-local repair --drop-unknown" in plain.stderr
        [repaired] = cli("repair", "--drop-unknown", "conv", "--json").ok().json()["repairs"]
        assert repaired["keys_restored"]
        [aside] = repaired["aside"]
        assert (tmp_path / "store" / aside).read_bytes() == keyring._framed(made_up)
        expected = {"a": "text", "not pushed": "text"}
        assert asyncio.run(read(tmp_path, "new")) == expected
        assert asyncio.run(read(tmp_path, "one")) == expected


def test_a_device_without_a_session_puts_the_keys_back_as_well(cli: Cli, tmp_path: Path) -> None:
    async def story() -> None:
        await add(tmp_path, "one", {"a": "text"}, push=True)
        async with client(tmp_path, "one") as opened:
            await opened.delete_session("conv", local_only=True)

    asyncio.run(story())
    [fmt] = blobs(tmp_path, "fmt")
    fmt.unlink()
    with pytest.raises(BlobMissingError) as caught:
        asyncio.run(add(tmp_path, "two", {"b": "text"}, push=True))
    assert "moss-local repair --all" in (caught.value.hint or "")
    assert "they are back" in cli("repair", "--all").ok().stdout
    asyncio.run(add(tmp_path, "two", {"b": "text"}, push=True))
    assert asyncio.run(read(tmp_path, "new")).keys() == {"a", "b"}


def test_a_new_device_refuses_damaged_keys_by_name(cli: Cli, tmp_path: Path) -> None:
    asyncio.run(add(tmp_path, "one", {"a": "text"}, push=True))
    [fmt] = blobs(tmp_path, "fmt")
    fmt.write_bytes(version(fmt.read_bytes()))
    with pytest.raises(MossError) as caught:
        asyncio.run(add(tmp_path, "two", {"b": "text"}, push=True))
    assert "moss-local repair --all" in (caught.value.hint or "")


@pytest.mark.parametrize("damage", DAMAGES, ids=["version", "epoch", "emptied", "removed"])
@pytest.mark.parametrize("part", ["fmt", "m/", "l/"])
def test_repair_mends_a_log_for_this_device_and_a_new_one(
    cli: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    damage: Callable[[bytes], bytes] | None,
) -> None:
    monkeypatch.setenv("MOSS_COMMIT", "log")
    asyncio.run(add(tmp_path, "one", {"a": noise(1, 9000)}, push=True))
    asyncio.run(add(tmp_path, "one", {"not pushed": "text"}, push=False))
    [path, *_] = blobs(tmp_path, part)
    whole = path.read_bytes()
    path.unlink()
    if damage is not None:
        path.write_bytes(damage(whole))
    [repaired] = cli("repair", "conv", "--json").ok().json()["repairs"]
    assert repaired["error"] is None
    expected = {"a": noise(1, 9000), "not pushed": "text"}
    for name in ("one", "new"):
        assert asyncio.run(read(tmp_path, name)) == expected
    asyncio.run(add(tmp_path, "new", {"b": "text"}, push=True))
    assert asyncio.run(read(tmp_path, "one")).keys() == {*expected, "b"}


@pytest.mark.parametrize("commit", ["cas", "log"])
@pytest.mark.parametrize(
    "command", [("sessions",), ("pull", "--all"), ("show", "conv"), ("query", "conv", "text")]
)
def test_a_new_device_is_told_which_session_is_damaged_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commit: str, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    cli = Cli(("--data-dir", str(tmp_path / "one")))
    given = ("--commit", "log") if commit == "log" else ()
    cli("init", "--project", "p", "--store", str(tmp_path / "store"), *given).ok()
    cli("add", "conv", "text", "--id", "a").ok()
    cli("push", "conv").ok()
    for manifest in blobs(tmp_path, "m/"):
        manifest.write_bytes(b"\0" + manifest.read_bytes()[1:])
        damaged = manifest.name.rpartition("-")[2]  # of a log it is the head of a device
    told = cli.on(str(tmp_path / "two"))(*command).stderr
    assert damaged in told
    assert "hint: put it back from a device that holds it: moss-local repair" in told
