"""The measurement: every engine loaded and asked in turn, round after round, at one size.

Of each engine one process loads, and another, which finds the files there, is asked; so what is
resident when it is asked is what it takes to search. All of them stay open for all rounds, in which
every kind of query goes to each engine in turn, in an order that moves on by one, so that whatever
else the machine does falls on all. Figures are medians over the rounds.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.comparison.data import Truth
from benchmarks.comparison.engine import KINDS, VECTOR
from benchmarks.comparison.worker import ENGINES, engine_class

WARM_UP = 20
"""Questions of each kind that are not counted, before the first round; the same for all."""

SETTLE = 2
"""The same at the beginning of each turn, for the caches that the others have filled."""

TURN_LIMIT_S = 60.0
"""A turn that takes longer ends with its current question."""

ADDED = 30

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@dataclass(frozen=True)
class Plan:
    """How much is asked, and what may take how long.

    Attributes:
        by_vector, others: Questions in a round by vector, and of each other kind; an engine that
            is exact gets no more by vector than of the others.
        load_limit: Seconds; what would take longer to load is given up.
        deadline: No round begins after it, but for the first.
        threads: How many OpenMP and BLAS may use in a process that is asked; None: their choice.
            A product that is spread over cores waits for the one that is busy with something else,
            so on a machine with other work it is 1 that tells what the arithmetic costs.
    """

    rounds: int
    by_vector: int
    others: int
    load_limit: float
    deadline: float
    threads: int | None = None


class EngineFailedError(Exception):
    """An engine's process ended or took too long; what it said last is on standard error."""


class Process:
    """One worker. Orders go out as lines and come back as lines."""

    def __init__(self, name: str, folder: Path, data: Path, *, threads: int | None = None) -> None:
        self.name = name
        chosen = {} if threads is None else dict.fromkeys(THREADS, str(threads))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.comparison.worker", name, str(folder), str(data)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=os.environ | chosen,
        )

    def do(
        self, order: str, given: Mapping[str, Any] | None = None, *, seconds: float = 600.0
    ) -> dict[str, Any]:
        """Give an order, with its arguments, and return the answer.

        Raises:
            EngineFailedError: the process has ended, or is ended now, after so many seconds.
        """
        to, back = self._process.stdin, self._process.stdout
        assert to is not None
        assert back is not None
        watch = threading.Timer(seconds, self._process.kill)
        watch.start()
        start = perf_counter()
        try:
            to.write(json.dumps({"do": order, **(given or {})}) + "\n")
            to.flush()
            line = back.readline()
        except BrokenPipeError:
            line = ""
        finally:
            watch.cancel()
        if not line:
            spent = perf_counter() - start
            raise EngineFailedError(f"ended after {spent:.0f} s of `{order}`")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def end(self) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        if self._process.stdout is not None:
            self._process.stdout.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def measure(
    count: int, names: Sequence[str], plan: Plan, *, data: Path, stores: Path
) -> dict[str, dict[str, Any]]:
    """Return the figures of each engine at one size; `failed` says why one has none."""
    figures: dict[str, dict[str, Any]] = {name: {} for name in names}
    serving: dict[str, Process] = {}
    for name in names:
        largest = engine_class(name).largest
        if largest is not None and count > largest:
            figures[name]["failed"] = f"meant for at most {largest:,} documents".replace(",", " ")
            _say(name, figures[name])
            continue
        folder = stores / f"{count}-{list(ENGINES).index(name)}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            figures[name] |= _loaded(name, count, folder, data, plan.load_limit)
            serving[name] = Process(name, folder, data, threads=plan.threads)
            figures[name] |= _opened(serving[name])
        except EngineFailedError as error:
            figures[name]["failed"] = str(error)
            if name in serving:
                serving.pop(name).end()
        _say(name, figures[name])
    rounds = _ask(serving, figures, plan)
    _recall(count, figures, data)
    for name, process in serving.items():
        with _failing(figures[name]):
            figures[name]["memory"] = process.do("memory")["memory"] - figures[name].pop("idle")
            figures[name]["add"] = process.do("add", {"begin": 0, "end": ADDED})["ms"]
            figures[name]["add"] = statistics.median(figures[name]["add"])
            process.do("close")
        process.end()
    for name in names:
        figures[name]["rounds"] = rounds
    return figures


def _loaded(name: str, count: int, folder: Path, data: Path, limit: float) -> dict[str, Any]:
    process = Process(name, folder, data)
    try:
        process.do("open")
        given = {"count": count, "limit": limit}
        loaded = process.do("load", seconds=1.5 * limit, given=given)
        spent = loaded["seconds"]
        if "given_up" in loaded:
            raise EngineFailedError(f"not measured: the load would take {spent / 60:.0f} minutes")
        process.do("close")
    finally:
        process.end()
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {"load": spent, "disk": size}


def _opened(process: Process) -> dict[str, Any]:
    ready = process.do("ready")
    first = ready["seconds"] + process.do("open")["seconds"]
    first += _questions(process, VECTOR, 0, 1)["ms"][0] / 1e3
    for kind in engine_class(process.name).kinds:
        _questions(process, kind, 0, WARM_UP)
    return {"idle": ready["memory"], "first": first}


def _questions(process: Process, kind: str, begin: int, end: int) -> dict[str, Any]:
    given = {"kind": kind, "begin": begin, "end": end, "seconds": TURN_LIMIT_S}
    return process.do("ask", given)


def _ask(serving: dict[str, Process], figures: dict[str, dict[str, Any]], plan: Plan) -> int:
    """Ask in turn, add times and answers to the figures; return how many rounds were whole."""
    times: dict[tuple[str, str], list[list[float]]] = {}
    found: dict[tuple[str, str], dict[int, list[int]]] = {}
    done = 0
    for round in range(plan.rounds):
        if done and perf_counter() > plan.deadline:
            break
        for kind in KINDS:
            for name in _moved_on(list(serving), round):
                engine = engine_class(name)
                if kind not in engine.kinds:
                    continue
                many = kind == VECTOR and not engine.exact
                size = plan.by_vector if many else plan.others
                begin, end = round * size, (round + 1) * size
                with _failing(figures[name]):
                    _questions(serving[name], kind, 0, SETTLE)
                    answer = _questions(serving[name], kind, begin, end)
                    times.setdefault((name, kind), []).append(answer["ms"])
                    numbered = enumerate(answer["found"], begin)
                    found.setdefault((name, kind), {}).update(numbered)
                if "failed" in figures[name]:
                    serving.pop(name).end()
        done += 1
        print(f"  round {done} of {plan.rounds}", flush=True)
    for (name, kind), rounds in times.items():
        p50 = statistics.median(float(np.percentile(each, 50)) for each in rounds)
        p95 = statistics.median(float(np.percentile(each, 95)) for each in rounds)
        figures[name][kind] = {"p50": p50, "p95": p95, "found": found[name, kind]}
    return done


def _recall(count: int, figures: dict[str, dict[str, Any]], data: Path) -> None:
    truth = Truth(data, count)
    for kind in KINDS:
        answers = {name: own[kind].pop("found") for name, own in figures.items() if kind in own}
        if kind == "hybrid":  # nobody can say what the right order is
            continue
        for name, share in truth.recalls(kind, answers).items():
            figures[name][kind]["recall"] = share
            figures[name][kind]["asked"] = len(answers[name])


def _moved_on(names: list[str], by: int) -> list[str]:
    by %= max(1, len(names))
    return names[by:] + names[:by]


@contextlib.contextmanager
def _failing(figures: dict[str, Any]) -> Iterator[None]:
    try:
        yield
    except EngineFailedError as error:
        figures["failed"] = str(error)


def _say(name: str, figures: dict[str, Any]) -> None:
    if "failed" in figures:
        print(f"  {name}: {figures['failed']}", flush=True)
    else:
        print(f"  {name}: loaded in {figures['load']:.1f} s, first answer after", end="")
        print(f" {figures['first']:.2f} s", flush=True)
