"""Rotating from the command line: the new key is never lost, and the other devices take it over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moss_local import MossClient, NetworkError, OutcomeUnknownError, settings
from moss_local.settings import credentials_path, load_credentials
from tests.moss_local.cli_harness import Cli


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """A device that is set up and has pushed a session."""
    monkeypatch.chdir(tmp_path)
    made = Cli()
    made("init", "--project", "acme", "--store", "./shared").ok()
    made("add", "conv", "before the rotation", "--id", "t1").ok()
    made("push", "conv").ok()
    return made


@pytest.fixture
def other(cli: Cli) -> Cli:
    """Another device of the project, which has pulled."""
    cli.on("other")("pull", "conv").ok()
    return cli.on("other")


def key() -> str:
    saved = load_credentials()
    assert saved is not None
    return saved.project_key


def texts(cli: Cli) -> list[str]:
    documents = cli("show", "conv", "--json").ok().json()["documents"]
    return [document["text"] for document in documents]


def test_a_rotation_replaces_the_key_and_everything_goes_on(cli: Cli) -> None:
    old = key()
    done = cli("rotate-key").ok()
    assert "key epoch" in done.stdout
    assert "moss-local init --show-key" in done.stderr
    assert key() != old
    assert key() not in done.stdout + done.stderr
    assert key() in cli("init", "--show-key").ok().stdout
    cli("add", "conv", "after it").ok()
    cli("push", "conv").ok()
    assert texts(cli.on("fresh")) == ["before the rotation", "after it"]
    assert credentials_path().stat().st_mode & 0o777 == 0o600
    # Only the new key is kept.
    assert old not in credentials_path().read_text()


def test_a_device_with_the_old_key_is_told_what_to_do_and_goes_on_with_the_new_one(
    cli: Cli, other: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = credentials_path().read_bytes()
    cli("rotate-key").ok()
    after = credentials_path().read_bytes()
    cli("add", "conv", "after it").ok()
    cli("push", "conv").ok()

    credentials_path().write_bytes(before)  # the other device still has the old key
    other("add", "conv", "written with the old key").ok()
    refused = other("sync", "conv")
    assert refused.code == 4
    assert "was rotated to (key epoch 2)" in refused.stderr
    assert "moss-local rotate-key --join" in refused.stderr
    assert other("status", "conv", "--json").ok().json()["sessions"][0]["pending"] == 1

    no_terminal = other("rotate-key", "--join")
    assert (no_terminal.code, no_terminal.stdout) == (2, "")
    assert "MOSS_NEW_PROJECT_KEY" in no_terminal.stderr
    monkeypatch.setenv("MOSS_NEW_PROJECT_KEY", "not the new key")
    assert other("rotate-key", "--join").code == 4
    assert credentials_path().read_bytes() == before
    monkeypatch.setenv("MOSS_NEW_PROJECT_KEY", json.loads(after)["project_key"])
    other("rotate-key", "--join").ok()
    assert credentials_path().read_bytes() == after
    other("sync", "conv").ok()
    assert texts(cli) == ["before the rotation", "after it", "written with the old key"]


@pytest.mark.parametrize("landed", [False, True], ids=["before the store", "after the store"])
def test_a_rotation_cut_off_by_the_network_keeps_both_keys_and_is_ended_by_the_same_command(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, landed: bool
) -> None:
    old = key()
    real = MossClient.rotate_key

    async def cut_off(self: MossClient, new_key: str | None = None) -> int:
        saved = load_credentials()
        assert saved is not None
        assert saved.next_key == new_key  # on disk before the store hears of it
        if landed:
            await real(self, new_key)
            raise OutcomeUnknownError("no answer")
        raise NetworkError("no route to the store")

    with monkeypatch.context() as network:
        network.setattr(MossClient, "rotate_key", cut_off)
        assert cli("rotate-key").code == 5
    saved = load_credentials()
    assert saved is not None
    assert (saved.project_key, saved.next_key is None) == (old, False)
    doctor = cli("doctor", "--local")
    assert doctor.code == 1
    assert "end it: moss-local rotate-key" in doctor.stdout
    if landed:
        assert "moss-local rotate-key" in cli("sync", "conv").stderr
    else:
        cli("sync", "conv").ok()

    cli("rotate-key").ok()
    assert (key(), old in credentials_path().read_text()) == (saved.next_key, False)
    assert cli("doctor", "--local").code == 0
    cli("add", "conv", "after it").ok()
    cli("push", "conv").ok()
    assert texts(cli.on("fresh")) == ["before the rotation", "after it"]


def test_a_crash_before_the_new_key_replaces_the_old_one_loses_neither(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves: list[Any] = []
    real = settings.save_credentials

    def dying(credentials: settings.Credentials) -> Path:
        saves.append(credentials)
        if len(saves) == 2:
            raise KeyboardInterrupt
        return real(credentials)

    with monkeypatch.context() as crash:
        crash.setattr(settings, "save_credentials", dying)
        assert cli("rotate-key").code != 0
    saved = load_credentials()
    assert saved is not None
    assert saved.next_key == saves[0].next_key is not None
    cli("rotate-key").ok()
    assert key() == saved.next_key
    assert texts(cli.on("fresh")) == ["before the rotation"]


def test_a_begun_rotation_is_not_forgotten_for_another_key(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cut_off(self: MossClient, new_key: str | None = None) -> int:
        raise OutcomeUnknownError("no answer")

    with monkeypatch.context() as network:
        network.setattr(MossClient, "rotate_key", cut_off)
        cli("rotate-key")
    before = credentials_path().read_bytes()
    monkeypatch.setenv("MOSS_NEW_PROJECT_KEY", "another one")
    refused = cli("rotate-key")
    assert refused.code == 2
    assert "unset MOSS_NEW_PROJECT_KEY" in refused.stderr
    assert credentials_path().read_bytes() == before


def test_who_keeps_the_key_in_the_environment_keeps_the_new_one_too(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = key()
    credentials_path().unlink()
    monkeypatch.setenv("MOSS_PROJECT_ID", "acme")
    monkeypatch.setenv("MOSS_STORE", "./shared")
    monkeypatch.setenv("MOSS_PROJECT_KEY", old)
    for arguments in (["rotate-key"], ["rotate-key", "--join"]):
        refused = cli(*arguments)
        assert refused.code == 2
        assert "not in the credentials file" in refused.stderr
    monkeypatch.setenv("MOSS_NEW_PROJECT_KEY", "a key of my own")
    done = cli("rotate-key", "--rewrite-now").ok()
    assert "MOSS_PROJECT_KEY still holds the old key" in done.stderr
    assert cli("pull", "conv").code == 4
    monkeypatch.setenv("MOSS_PROJECT_KEY", "a key of my own")
    assert texts(cli) == ["before the rotation"]
    assert not credentials_path().exists()


def test_rewriting_leaves_no_stored_session_under_an_old_key(cli: Cli) -> None:
    cli.on("second")("add", "elsewhere", "never on the first device").ok()
    cli.on("second")("push", "elsewhere").ok()
    done = cli("rotate-key", "--rewrite-now", "--json").ok().json()
    assert (done["project"], done["epoch"]) == ("acme", 2)
    assert [(each["session"], each["error"]) for each in done["rewritten"]] == [
        ("conv", None),
        ("elsewhere", None),
    ]
    assert all(each["merges"] >= 1 for each in done["rewritten"])
    again = cli("rotate-key", "--rewrite-only", "--json").ok().json()
    assert (again["epoch"], {each["merges"] for each in again["rewritten"]}) == (2, {0})
    assert "nothing was old" in cli("rotate-key", "--rewrite-only").ok().stdout
    assert texts(cli.on("fresh")) == ["before the rotation"]


def test_a_session_that_cannot_be_rewritten_stands_in_the_way_of_no_other(cli: Cli) -> None:
    cli("add", "other", "text").ok()
    cli("push", "other").ok()
    first, *_ = sorted(Path("shared").glob("*/m/*"))
    whole = first.read_bytes()
    first.write_bytes(b"?" + whole[1:])  # a key still opens what is behind the header
    done = cli("rotate-key", "--rewrite-now", "--json")
    assert done.code == 6
    rewritten = done.json()["rewritten"]
    assert [each["error"] is None for each in rewritten] == [False, True]
    assert rewritten[0]["error"]["code"] == "DESERIALIZATION"


def test_the_root_key_alone_can_be_rotated(cli: Cli) -> None:
    old = key()
    assert cli("rotate-key", "--root-only", "--json").ok().json()["epoch"] == 2
    assert key() == old
    cli("add", "conv", "after it").ok()
    cli("push", "conv").ok()
    assert texts(cli.on("fresh")) == ["before the rotation", "after it"]


@pytest.mark.parametrize(
    "options",
    [["--join", "--root-only"], ["--root-only", "--rewrite-only"], ["--join", "--rewrite-now"]],
)
def test_options_that_exclude_each_other_change_nothing(cli: Cli, options: list[str]) -> None:
    before = credentials_path().read_bytes()
    assert cli("rotate-key", *options).code == 2
    assert credentials_path().read_bytes() == before


def test_a_project_that_was_never_pushed_has_nothing_to_rotate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cli = Cli()
    cli("init", "--store", "./shared").ok()
    for arguments in (["rotate-key"], ["rotate-key", "--root-only"], ["rotate-key", "--join"]):
        monkeypatch.setenv("MOSS_NEW_PROJECT_KEY", "a new one")
        assert cli(*arguments).code == 3
    assert not Path("shared").exists()
