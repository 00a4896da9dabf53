"""Nothing is sent, looked up or left behind: the whole product, its libraries and its children.

These tests guard every later version of a dependency. The one that shows the watch at work needs
a runtime that has telemetry; should a later one have none, it fails and says so.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest

from tests.machine.watched import Seen, watch
from tests.seaweed import SeaweedServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs seccomp")

LOOK_UP_S = 9.4
"""When onnxruntime 1.32 looks a host up, after its import; measured, five times of five."""

ALIVE_S = 20

PROGRAM = """
import asyncio, subprocess, sys, time
from moss_local import DocumentInfo, MossClient

async def main(store):
    async with MossClient("p", "k", store=store, data_dir="device") as client:
        session = await client.session("conv")
        await session.add_docs([DocumentInfo("a", "the refund is late"), DocumentInfo("b", "bye")])
        found = await session.query("refund")
        assert found.docs[0].id == "a"
        await session.push_index()

asyncio.run(main(sys.argv[1]))
loaded = time.monotonic()
for call in sys.argv[3:]:
    done = subprocess.run(
        [sys.executable, "-m", "moss_local.cli.app", *call.split()], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
assert "onnxruntime" in sys.modules
assert not [name for name in sys.modules if name.startswith("huggingface")]
while time.monotonic() < loaded + float(sys.argv[2]):
    time.sleep(0.1)
"""

CALLS = [
    "init --store store --project p2",
    "add talk hello",
    "query talk hello",
    "show talk",
    "sync talk",
    "sessions",
    "status talk",
    "doctor",
    "demo",
]


def environment(place: Path, **more: str) -> dict[str, str]:
    """A home, a folder for temporary files and a current folder, all of them empty."""
    for name in ("home", "temporary", "here"):
        (place / name).mkdir()
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    return {
        **kept,
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(place / "home"),
        "TMPDIR": str(place / "temporary"),
        **more,
    }


def outside(seen: Seen, place: Path) -> list[Path]:
    """What was made elsewhere than in our folders, those that the caller named, and TMPDIR."""
    home, here = place / "home", place / "here"
    own = [
        home / ".cache" / "moss_local",
        home / ".config" / "moss_local",
        home / ".local" / "share" / "moss_local",
        here / "device",
        here / "store",
        place / "temporary",
    ]
    above = {parent for folder in own for parent in folder.parents}
    return [path for path in seen.made_outside(own) if path not in above]


def run(program: str, arguments: list[str], place: Path, env: dict[str, str], **how: Any) -> Seen:
    command = [sys.executable, "-c", program, *arguments]
    seen = watch(command, env=env, cwd=place / "here", **how)
    print(seen.output)
    assert place / "here" / "device" in seen.made, "the watch saw nothing of ours either"
    return seen


def test_no_socket_is_opened_no_name_looked_up_and_no_file_made_elsewhere(tmp_path: Path) -> None:
    seen = run(PROGRAM, ["store", str(ALIVE_S), *CALLS], tmp_path, environment(tmp_path))
    assert (seen.sockets, seen.connected) == ([], [])
    assert outside(seen, tmp_path) == []
    assert list((tmp_path / "temporary").iterdir()) == []


def test_with_a_bucket_its_server_is_all_that_is_asked(
    tmp_path: Path, seaweed: SeaweedServer
) -> None:
    url = seaweed.url("test", f"quiet-{uuid4().hex}")
    server = urlsplit(parse_qs(urlsplit(url).query)["endpoint_url"][0]).netloc
    env = environment(tmp_path, **seaweed.env)
    seen = run(PROGRAM, [url, "0"], tmp_path, env, loopback=True)
    assert set(seen.connected) == {server}
    assert outside(seen, tmp_path) == []


def test_who_wants_the_runtimes_telemetry_has_it_and_the_watch_would_see_it(tmp_path: Path) -> None:
    env = environment(tmp_path, ORT_DISABLE_TELEMETRY="0")
    alive = ["store", str(ALIVE_S)]
    seen = run(PROGRAM, alive, tmp_path, env, until=lambda seen: bool(seen.sockets))
    told = "this runtime has no telemetry: the two tests above prove nothing of the variable"
    assert seen.sockets, told
    assert any(".onnxruntime" in path.parts for path in outside(seen, tmp_path)), told
