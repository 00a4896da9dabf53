"""How often a server that checks and writes without a lock is accepted, and what a probe costs.

    python -m benchmarks.bench_probe [TRIES]

The server runs in a process of its own, over HTTP on loopback: it checks the condition, waits 2 ms
and writes. The first request on a connection may take longer, as with TLS, and any may be late.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from moss_sync import StoreLacksCasError
from moss_sync.clock import SystemClock
from moss_sync.probe import probe
from moss_sync.stores import open_store
from tests.seaweed import SeaweedServer
from tests.wire import PretendingBucket, WireServer

SERVERS = {
    "no delays": (0.0, 0.0),
    "connections 10 ms": (0.01, 0.0),
    "and any up to 10 ms": (0.01, 0.01),
}
GOOD = 5


async def serve(connect_s: float, jitter_s: float) -> None:
    bucket = PretendingBucket(window_s=0.002, connect_s=connect_s, jitter_s=jitter_s)
    async with WireServer(bucket) as server:
        print(server.url(), flush=True)
        await asyncio.Event().wait()


async def tried(url: str, *, rounds: int = 0) -> tuple[bool, int, float]:
    """Return whether a store passes, after how many requests and seconds."""
    store, started = open_store(url), time.monotonic()
    try:
        report = await probe(store, clock=SystemClock(), prefix="p/", rounds=rounds)
        return report.error is None, report.requests, time.monotonic() - started
    except StoreLacksCasError:
        return False, 0, time.monotonic() - started
    finally:
        await store.close()


def pretending(tries: int) -> None:
    for name, delays in SERVERS.items():
        command = [sys.executable, "-m", "benchmarks.bench_probe", "serve", *map(str, delays)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            accepted = sum(asyncio.run(tried(url))[0] for _ in range(tries))
            server.kill()
        print(f"{name}: accepted {accepted} of {tries} times")


def good(name: str, url: str) -> None:
    for rounds in (0, 1):
        found = [asyncio.run(tried(url, rounds=rounds)) for _ in range(GOOD)]
        assert all(passed for passed, _, _ in found)
        seconds = sorted(each for _, _, each in found)[GOOD // 2]
        form = "a round of the long form" if rounds else "short form"
        print(f"{name}, {form}: {found[0][1]} requests, {seconds * 1000:.0f} ms")


def main() -> None:
    os.environ.update(AWS_ACCESS_KEY_ID="id", AWS_SECRET_ACCESS_KEY="secret")
    pretending(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
    good("memory", "memory://bench")
    with tempfile.TemporaryDirectory() as folder:
        good("folder", str(Path(folder) / "store"))
    with SeaweedServer() as server:
        os.environ.update(server.env)
        good("SeaweedFS", server.url("bench", "probe"))


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(float(sys.argv[2]), float(sys.argv[3])))
    else:
        main()
