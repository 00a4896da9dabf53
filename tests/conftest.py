"""What every test stands on: no trace of the user's environment, and a real S3 server on demand.

A home of its own per test; one cache for the whole run, because the model's graph is built into it
once. `CI=true` chooses the longer hypothesis profile; both draw new examples at every run.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import settings

import moss_local  # noqa: F401  # before a test imports the model runtime: see settings
from tests.seaweed import SeaweedServer

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that starts the tests in the background lets them ignore it, and all their children.
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("dev", max_examples=60, derandomize=False, deadline=None)
settings.register_profile("ci", max_examples=300, derandomize=False, deadline=None)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "dev")


def pytest_addoption(parser: pytest.Parser) -> None:
    said = "fail unless each test that docs/parity.md names has run and passed"
    parser.addoption("--parity", action="store_true", help=said)


def pytest_configure(config: pytest.Config) -> None:
    # Of tests that run in several processes one hears of all.
    if config.getoption("--parity") and not hasattr(config, "workerinput"):
        from tests.parity.outcomes import ParityCheck

        config.pluginmanager.register(ParityCheck())


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache folder of this run, the same for all tests and the programs they start."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def long_form() -> None:
    """Let a project's first pushes be followed by the probe's long form, as they are for users."""


@pytest.fixture(autouse=True)
def no_long_form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the long form for passed: hundreds of requests behind every test's first push."""
    if "long_form" not in request.fixturenames:
        passed = property(lambda verdict: not verdict.failed)
        monkeypatch.setattr("moss_sync.probe.ProbeVerdict.is_full", passed)


@pytest.fixture(autouse=True)
def own_environment(
    tmp_path_factory: pytest.TempPathFactory,
    shared_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Give the test an empty home and no settings or credentials of whoever runs it."""
    for name in list(os.environ):
        if name.startswith(("MOSS_", "AWS_")):
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    for kind in ("CONFIG", "DATA", "STATE"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(home / kind.lower()))
    monkeypatch.setenv("XDG_CACHE_HOME", str(shared_cache))
    # Without credentials botocore would look for a cloud's metadata service.
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="session")
def seaweed() -> Iterator[SeaweedServer]:
    """The S3 server of this run, started by the first test that asks for it."""
    with SeaweedServer() as server:
        yield server


@pytest.fixture
def s3_url(seaweed: SeaweedServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """The store URL of an unused prefix, with credentials for it in the environment."""
    for name, value in seaweed.env.items():
        monkeypatch.setenv(name, value)
    return seaweed.url("test", f"t-{uuid4().hex}")
