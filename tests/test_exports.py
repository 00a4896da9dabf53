"""What is public is what the two packages list; importing them is cheap and breaks nothing."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import moss_local
import moss_sync

ROOT = Path(__file__).parent.parent

HEAVY = [
    "onnxruntime",
    "onnx",
    "tokenizers",
    "aiobotocore",
    "botocore",
    "aiohttp",
    "typer",
    "rich",
    "numpy",
    "apsw",
    "sqlite_vec",
    "cryptography",
]


@pytest.mark.parametrize("package", [moss_local, moss_sync], ids=lambda package: package.__name__)
def test_every_listed_name_is_there_and_the_list_is_sorted(package: object) -> None:
    names: list[str] = package.__all__  # type: ignore[attr-defined]  # of a module
    assert names == sorted(names)
    for name in names:
        assert getattr(package, name) is not None


def test_importing_moss_local_loads_none_of_the_heavy_packages() -> None:
    program = f"import moss_local, sys; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_importing_and_making_a_client_says_nothing_and_asks_no_network(tmp_path: Path) -> None:
    program = """
import socket, sys
from pathlib import Path
def refused(*arguments, **named):
    raise AssertionError(f"asked the network: {arguments}")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refused
from moss_local import *
import moss_local, moss_local.compat
moss_local.compat.install()
import moss, moss_core, inferedge_moss
moss.MossClient("p", "k", store="s3://bucket/prefix", data_dir="d")
assert not list(Path().iterdir())
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(("of_the_user", "holds"), [(None, "1"), ("0", "0"), ("", "")])
def test_importing_switches_the_runtimes_telemetry_off_unless_the_user_has_said_otherwise(
    of_the_user: str | None, holds: str
) -> None:
    env = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    if of_the_user is not None:
        env["ORT_DISABLE_TELEMETRY"] = of_the_user
    for package in ("moss_local", "moss_local.testing", "moss_local.cli.app"):
        program = f"import {package}, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, env=env
        )
        assert done.stdout == holds + "\n", done.stderr


def test_the_names_of_the_hosted_sdk_that_we_offer_are_importable_from_the_top() -> None:
    for name in [
        "MossClient",
        "SessionIndex",
        "DocumentInfo",
        "QueryOptions",
        "GetDocumentsOptions",
        "MutationOptions",
        "SearchResult",
        "QueryResultDocumentInfo",
        "PushIndexResult",
        "ParentGrouping",
        "MossError",
        "InvalidArgumentError",
    ]:
        assert name in moss_local.__all__


def test_only_the_settings_and_the_aws_chain_read_the_environment() -> None:
    for path in [*(ROOT / "moss_local").rglob("*.py"), *(ROOT / "sync").rglob("*.py")]:
        tree = ast.parse(path.read_text("utf-8"))
        reads = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")
        ]
        if path.name not in ("settings.py", "s3_client.py", "campaign.py"):
            assert reads == [], f"{path.relative_to(ROOT)} line {reads[0].lineno}"
