"""Processes by the hundred: one that has imported everything and used nothing forks them off.

An interpreter with the library imported takes 0.5 s to start; a fork of one takes 10 ms and is as
much a process of its own, because nothing of the library had been used before it: no file, no
thread, no loop. Which process of which data directory does what is said by the test.

    python -m tests.processes.nursery      reads requests from stdin, one JSON object a line:
    {"learn": where}                                         -> {}
    {"job": name, "args": {...}, "env": {...}, "log": path}  -> {"pid": n}
    {"wait": pid, "seconds": s}                              -> {"status": waitpid's} or {}
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
WAIT_S = 60.0

LIFETIME_S = 600
"""No job lives longer, whatever has become of the test that started it."""


@dataclass
class Process:
    """A forked process, as the test sees it."""

    pid: int
    log: Path
    nursery: Nursery

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone. Nobody else may have ended it."""
        os.kill(self.pid, signal.SIGKILL)
        status = self.nursery.wait(self.pid, WAIT_S)
        assert status == signal.SIGKILL, self._failure(status)

    def finish(self, seconds: float = WAIT_S) -> None:
        """Wait for its end, which must be a good one."""
        status = self.nursery.wait(self.pid, seconds)
        if status is None:
            os.kill(self.pid, signal.SIGKILL)
            self.nursery.wait(self.pid, WAIT_S)
        assert status == 0, self._failure(status)

    def _failure(self, status: int | None) -> str:
        return f"process {self.pid} ended with {status}:\n{self.log.read_text()}"


class Nursery:
    """The test's side: starts the process that forks. Threads may share one."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._count = 0
        self._turn = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.processes.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            # BLAS would start threads as it is imported, and a fork takes none of them along.
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            text=True,
        )

    def start(self, job: str, /, **args: Any) -> Process:
        """Fork a process that runs `jobs.<job>(**args)`, or `<module>.<job>` of this package.

        Paths may be given as they are.
        """
        with self._turn:
            self._count += 1
            log = self._logs / f"{self._count}-{job}.log"
        env = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        answer = self._ask({"job": job, "args": args, "env": env, "log": str(log)})
        return Process(answer["pid"], log, self)

    def run(self, job: str, /, **args: Any) -> Any:
        """Run a job in a process of its own and return what it returned."""
        answer = self._logs / f"{self._count + 1}-{job}.json"
        self.start(job, answer=answer, **args).finish()
        return json.loads(answer.read_text())

    def learn_key(self, where: dict[str, str]) -> None:
        """Let later forks know a device's derived key: argon2id would take most of their time."""
        self._ask({"learn": where})

    def wait(self, pid: int, seconds: float) -> int | None:
        """Return how a process has ended, None if it runs on; others are not served meanwhile."""
        status = self._ask({"wait": pid, "seconds": seconds}).get("status")
        assert status is None or isinstance(status, int)
        return status

    def close(self) -> None:
        self._process.communicate(timeout=WAIT_S)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._turn:
            self._process.stdin.write(json.dumps(request, default=str) + "\n")
            self._process.stdin.flush()
            answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


def main() -> None:
    """The forking side."""
    from tests.processes import jobs

    jobs.import_everything()
    running: set[int] = set()
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            ended = _wait(request["wait"], request["seconds"])
            if ended:
                running.discard(request["wait"])
            _answer(ended)
            continue
        if "learn" in request:
            jobs.learn_key(request["learn"])
            _answer({})
            continue
        assert threading.active_count() == 1, "a fork would lose the other threads"
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            _be(request)
        running.add(pid)
        _answer({"pid": pid})
    # Whoever asked for them is gone.
    for pid in running:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _answer(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


def _wait(pid: int, seconds: float) -> dict[str, int]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return {"status": status}
        time.sleep(0.001)
    return {}


def _be(request: dict[str, Any]) -> None:
    """Be the child, to the end: the interpreter is left the ordinary way."""
    signal.alarm(LIFETIME_S)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(request["env"])
    args = dict(request["args"])
    answer = args.pop("answer", None)
    try:
        module, _, job = request["job"].rpartition(".")
        found = importlib.import_module(f"tests.processes.{module or 'jobs'}")
        result = getattr(found, job)(**args)
        if answer is not None:
            Path(answer).write_text(json.dumps(result))
    except BaseException:
        traceback.print_exc()
        sys.exit(1)
    sys.exit(0)


if __name__ == "__main__":
    main()
