"""A project's directory without ciphers: what is encrypted is refused and stays as it is."""

from __future__ import annotations

import asyncio
import secrets
import stat
from pathlib import Path

import pytest

from moss_local import (
    AtRestError,
    CiphersMissingError,
    FileBusyError,
    FileCorruptError,
    InvalidArgumentError,
    MossClient,
)
from moss_local.storage import ciphers, file_keys, place
from moss_local.storage.file_keys import KEY_FILE, KeyFile, new_master, wrap
from moss_local.storage.place import Secrets, find_place, read_key_file, write_key_file
from tests.keys import KEY

GIVEN = Secrets("project key")


@pytest.fixture(autouse=True)
def without_ciphers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ciphers, "available", lambda: False)


@pytest.fixture
def encrypted(tmp_path: Path) -> Path:
    slot = wrap(new_master(secrets.token_bytes), "project key", "project", secrets.token_bytes)
    write_key_file(tmp_path, KeyFile((slot,)))
    return tmp_path


def test_what_is_encrypted_is_refused_with_the_command(encrypted: Path) -> None:
    with pytest.raises(CiphersMissingError, match="are encrypted") as said:
        find_place(encrypted, GIVEN)
    assert CiphersMissingError.INSTALL in (said.value.hint or "")
    assert [path.name for path in encrypted.iterdir()] == [KEY_FILE]


def test_what_is_to_be_encrypted_is_refused_and_leaves_no_trace(tmp_path: Path) -> None:
    directory = tmp_path / "project"
    for at_rest in (True, "a key"):
        with pytest.raises(CiphersMissingError, match="are to be encrypted"):
            find_place(directory, Secrets("project key", at_rest))
    assert not directory.exists()

    async def story() -> None:
        async with MossClient(
            "p", "k", store="memory://place", data_dir=tmp_path / "data", at_rest=True
        ) as client:
            with pytest.raises(CiphersMissingError):
                await client.session("conv", "custom", auto_load_on_init=False)
            with pytest.raises(CiphersMissingError):
                await client.encrypt_at_rest()
            assert await client.decrypt_at_rest() == 0
            assert not await client.change_at_rest_key("new")

    asyncio.run(story())
    assert not list((tmp_path / "data").rglob("*.sqlite3"))


def test_a_damaged_key_file_is_named(encrypted: Path) -> None:
    (encrypted / KEY_FILE).write_bytes(b"{")
    with pytest.raises(FileCorruptError, match=KEY_FILE):
        find_place(encrypted, GIVEN)
    (encrypted / KEY_FILE).write_bytes(b" " * (file_keys.MAX_KEY_FILE_BYTES + 1))
    with pytest.raises(FileCorruptError, match=KEY_FILE):
        find_place(encrypted, GIVEN)


def test_while_files_are_converted_nobody_opens_them(encrypted: Path) -> None:
    contents = read_key_file(encrypted)
    assert contents is not None
    write_key_file(encrypted, KeyFile(contents.slots, converting=True))
    with pytest.raises(AtRestError, match="cut off") as said:
        find_place(encrypted, GIVEN)
    assert "moss-local at-rest on" in (said.value.hint or "")


def test_one_at_a_time_changes_how_files_are_encrypted(
    encrypted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "LOCK_WAIT_S", 0.05)
    with (
        place.changing(encrypted),
        pytest.raises(FileBusyError, match="encrypting or decrypting"),
        place.changing(encrypted),
    ):
        pass


def test_the_key_file_is_for_its_owner_only(encrypted: Path) -> None:
    assert stat.S_IMODE((encrypted / KEY_FILE).stat().st_mode) == 0o600


@pytest.mark.parametrize("wrong", [False, "", 1, b"key", "\ud800"])
def test_at_rest_is_a_key_or_true(wrong: object) -> None:
    with pytest.raises(InvalidArgumentError, match="at_rest"):
        MossClient("p", KEY, store="memory://place", at_rest=wrong)  # type: ignore[arg-type]
