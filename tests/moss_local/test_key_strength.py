"""Weak typed keys are spoken of where they are chosen, and mistyped generated ones are refused."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from moss_local import InvalidArgumentError, MossClient
from moss_local.key_strength import weakness_of
from moss_local.settings import credentials_path
from moss_sync.project_key import RANDOM_BYTES, generate
from tests.keys import KEY, NEW_KEY
from tests.moss_local.cli_harness import Cli


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.chdir(tmp_path)
    return Cli()


@pytest.mark.parametrize(
    ("key", "within"),
    [
        ("password1", "a second"),
        ("k", "a second"),
        ("a" * 500, "a second"),
        ("a shared key", "days"),
        ("insurance-claims-2026", ""),
        (KEY.upper()[:12], ""),
    ],
)
def test_a_weak_key_is_told_with_the_time_that_it_would_last(key: str, within: str) -> None:
    told = weakness_of(key, project_id="insurance-claims")
    assert told is not None
    assert "can be guessed" in told
    assert within in told
    assert key not in told or len(key) < 3


@pytest.mark.parametrize(
    "key",
    [
        KEY,
        generate(bytes(range(RANDOM_BYTES))),
        "correct horse battery staple ocean",
        "kd7 jfhg 3847 dkfjg x",
        "🔑 ключ от дома Петровых, третий этаж",
    ],
)
def test_a_strong_key_is_not_spoken_of(key: str) -> None:
    assert weakness_of(key, project_id="p") is None


def test_init_warns_of_a_weak_key_and_goes_on(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOSS_PROJECT_KEY", "password1")
    done = cli("init", "--project", "acme", "--store", "./shared").ok()
    assert "can be guessed" in done.stderr
    assert "unset MOSS_PROJECT_KEY" in done.stderr
    assert "password1" not in done.stderr
    assert credentials_path().exists()


def test_who_joins_with_a_weak_key_is_told_how_to_replace_it(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOSS_PROJECT_KEY", "password1")
    done = cli("init", "--join", "--project", "acme", "--store", "./shared").ok()
    assert "can be guessed" in done.stderr
    assert "moss-local rotate-key" in done.stderr


def test_nothing_is_said_of_a_key_that_init_makes(cli: Cli) -> None:
    assert "guessed" not in cli("init", "--store", "./shared").ok().stderr


def test_rotate_key_warns_of_a_weak_key(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("init", "--project", "acme", "--store", "./shared").ok()
    cli("add", "conv", "hello").ok()
    cli("push", "conv").ok()
    assert "guessed" not in cli("rotate-key").ok().stderr
    monkeypatch.setenv("MOSS_NEW_PROJECT_KEY", "qwerty2026")
    done = cli("rotate-key").ok()
    assert "can be guessed" in done.stderr
    assert "unset MOSS_NEW_PROJECT_KEY" in done.stderr


def test_a_client_that_rotates_to_a_weak_key_logs_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with MossClient("p", KEY, store=tmp_path / "s", data_dir=tmp_path / "d") as client:
            session = await client.session("conv", "custom")
            await session.push_index()
            for key in (NEW_KEY, "letmein"):
                await client.rotate_key(key)

    with caplog.at_level(logging.WARNING, logger="moss_local"):
        asyncio.run(scenario())
    assert [each.message for each in caplog.records if "guessed" in each.message] != []
    assert len([each for each in caplog.records if "guessed" in each.message]) == 1
    assert "letmein" not in caplog.text


@pytest.mark.parametrize("wrong", [KEY[:-1] + "a", KEY.upper(), KEY.replace("-", " "), f"{KEY}\n"])
def test_a_generated_key_that_was_copied_wrongly_is_refused_and_nothing_is_kept(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    monkeypatch.setenv("MOSS_PROJECT_KEY", wrong)
    refused = cli("init", "--join", "--project", "acme", "--store", "./shared")
    assert refused.code == 2
    assert "not copied exactly" in refused.stderr
    assert wrong.strip() not in refused.stderr
    assert not credentials_path().exists()


def test_a_client_refuses_it_too(tmp_path: Path) -> None:
    wrong = KEY[:-1] + "a"
    with pytest.raises(InvalidArgumentError, match="not copied exactly"):
        MossClient("p", wrong, store=tmp_path / "s", data_dir=tmp_path / "d")

    async def scenario() -> None:
        async with MossClient("p", KEY, store=tmp_path / "s", data_dir=tmp_path / "d") as client:
            await (await client.session("conv", "custom")).push_index()
            with pytest.raises(InvalidArgumentError, match="not copied exactly"):
                await client.rotate_key(wrong)
            assert await client.check_key() == 1

    asyncio.run(scenario())


def test_the_lists_of_words_are_loaded_only_where_a_key_is_typed(tmp_path: Path) -> None:
    program = (
        "import sys; from typer.testing import CliRunner; from moss_local.cli.app import app\n"
        "done = CliRunner().invoke(app, ['init', '--store', './shared'])\n"
        "assert done.exit_code == 0, done.output\n"
        "assert 'zxcvbn' not in sys.modules\n"
    )
    where = {"HOME": str(tmp_path), "PATH": "", "XDG_CONFIG_HOME": str(tmp_path / "config")}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=where, check=True)
