"""What may go wrong in the midst of: each exchange once, on a real S3 server behind a proxy.

A scene sets up a session of its own and says which device is to do what. What then goes wrong, and
at which of its requests, is for the tests to choose; afterwards everybody goes on, and
`Case.check` asserts what must hold whatever happened: nothing is lost or committed twice, nothing
stays pending, every commit is one that the server has done, and no compare-and-swap was sent again
by anything below the engine.
"""

from __future__ import annotations

import itertools
import random
from base64 import b85encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from uuid import uuid4

import pytest

from moss_local.storage.paths import project_path
from moss_local.storage.project_cache import ProjectCache
from moss_sync import NetworkError
from moss_sync import manifest as manifests
from moss_sync.floors import DEFAULT_POLICY, Policy
from moss_sync.manifest import Manifest
from moss_sync.replica import ReplicaState
from moss_sync.stores.base import BlobStore
from moss_sync.stores.url import open_store
from tests import fault_proxy
from tests.devices import PROJECT, Device, QuickClock
from tests.fault_proxy import Fault, FaultProxy, Passage, Request
from tests.seaweed import SeaweedServer

BIG = 9_000
"""Bytes of text that does not compress, so that a push needs a segment."""

TINY = Policy(grace_ms=0, small_session_entries=2)

Act = tuple[Device, Literal["push", "pull", "compact", "repair"]]

Scene = Callable[["Case"], Awaitable[Act]]
"""Sets a case up and returns who is to do what."""


class Lab:
    """A repository behind a proxy, and devices that know it.

    Attributes:
        acting: The cases whose act runs, by the session's id, which is in the keys of its blobs.
    """

    def __init__(self, proxy: FaultProxy, store: BlobStore, folder: Path) -> None:
        self.proxy = proxy
        self.store = store
        self.folder = folder
        self.cache = ProjectCache(project_path(folder, PROJECT))
        self.acting: dict[str, Case] = {}
        self._seeds = itertools.count(1)
        proxy.plan = self._plan

    def _plan(self, request: Request) -> Fault | None:
        for sid, case in self.acting.items():
            if sid in request.path:
                return case.spoil(request)
        return None

    def seed(self) -> int:
        """Return a number that no other device of the lab has its chance from."""
        return next(self._seeds)

    def device(self, session: str, policy: Policy, path: Path | None = None) -> Device:
        """Return a device with a file of its own, or with the file at `path`."""
        seed = self.seed()
        return Device(
            path or self.folder / f"{seed}.sqlite3",
            self.store,
            clock=QuickClock(seed),
            session=session,
            cache=self.cache,
            policy=policy,
        )


@dataclass
class Case:
    """One session, what must be in it, and what goes wrong at its requests."""

    lab: Lab
    session: str
    fault: Fault | None = None
    first: int = 0
    run: int = 1
    asked: list[Request] = field(default_factory=list)
    """What the act has sent, the spoiled requests among it."""
    expected: dict[str, str] = field(default_factory=dict)
    before_swap: Callable[[], Awaitable[object]] | None = None
    """Done by somebody else just before the act's next compare-and-swap comes to the server."""
    policy: Policy = TINY
    sid: str = ""
    devices: list[Device] = field(default_factory=list)

    def device(self) -> Device:
        device = self.lab.device(self.session, self.policy)
        self.devices.append(device)
        return device

    def put(self, device: Device, id: str, text: str = "hello") -> None:
        device.put(id, text)
        self.expected[id] = text

    def spoil(self, request: Request) -> Fault | None:
        """The plan of the proxy for this session's requests while the act runs."""
        self.asked.append(request)
        number = len(self.asked) - 1
        if self.fault is not None and self.first <= number < self.first + self.run:
            return self.fault
        if request.verb == "swap" and self.before_swap is not None:
            return self._after_somebody_else
        return None

    async def _after_somebody_else(self, passage: Passage) -> None:
        meanwhile, self.before_swap = self.before_swap, None
        assert meanwhile is not None
        self.lab.acting.pop(self.sid)
        await meanwhile()
        self.lab.acting[self.sid] = self
        await passage.pass_on()

    async def newest(self) -> tuple[Manifest, dict[str, str]]:
        """Return what a device that joins now finds."""
        fresh = self.device()
        await fresh.engine.pull()
        state: ReplicaState = fresh.replica.state()
        assert state.seen is not None
        return manifests.decode(state.seen.plain, what="the manifest"), fresh.texts

    async def check(self) -> None:
        """Let everybody go on without faults, and assert that all is well."""
        devices = tuple(self.devices)
        for device in devices:
            report = await device.engine.sync()
            assert (report.superseded, report.quarantined, report.reasserted) == (0, 0, 0)
        await self.lab.proxy.catch_up(self.sid)
        for device in devices:
            await device.engine.sync()
            state: ReplicaState = device.replica.state()
            assert (state.dirty, state.pending, state.acked_n) == (0, None, state.n)
            assert device.texts == self.expected
        known, texts = await self.newest()
        assert texts == self.expected, "a fresh device does not see what was written"
        # Every commit is one that the server has done, and the other way round.
        assert known.seq == self.lab.proxy.swaps_won(f"/m/{self.sid}")
        for device in devices:
            state = device.replica.state()
            found = known.device(state.dev)
            assert (0 if found is None else found.n) == state.n
        pushes = [f"{item.dev.hex()}-{item.n:08x}" for item in known.inline]
        pushes += [entry.name.split("-", 1)[1][:25] for entry in known.entries if entry.lvl == 0]
        assert len(set(pushes)) == len(pushes), "a push was committed twice"
        assert self.lab.proxy.sent_again(self.sid) == []

    def close(self) -> None:
        for device in self.devices:
            device.close()


@asynccontextmanager
async def lab_at(server: SeaweedServer, folder: Path) -> AsyncIterator[Lab]:
    async with FaultProxy(server.endpoint) as proxy:
        store = open_store(proxy.url("test", f"t-{uuid4().hex}"))
        try:
            lab = Lab(proxy, store, folder)
            founder = lab.device("another session", TINY)
            founder.put("any", "text")
            await founder.engine.push()
            founder.close()
            await founder.repository.check_key(contact=True)
            yield lab
        finally:
            await store.close()


# -- what is done --------------------------------------------------------------------------------


def noise(seed: int) -> str:
    return b85encode(random.Random(seed).randbytes(BIG)).decode()


async def begun(case: Case) -> tuple[Device, Device]:
    """Give the case a session with two devices that both know it."""
    one, two = case.device(), case.device()
    case.put(one, "first")
    case.sid = (await one.engine.push()).session_id
    await two.engine.pull()
    return one, two


async def a_small_push(case: Case) -> Act:
    one, _ = await begun(case)
    case.put(one, "small")
    return one, "push"


async def a_large_push(case: Case) -> Act:
    one, _ = await begun(case)
    case.put(one, "large", noise(1))
    return one, "push"


async def the_first_push_of_a_session(case: Case) -> Act:
    one, two = case.device(), case.device()
    case.sid = (await two.engine.pull()).session_id
    case.put(one, "first", noise(1))
    return one, "push"


async def a_push_after_somebody_else_has_pushed(case: Case) -> Act:
    one, two = await begun(case)
    case.put(two, "theirs")
    await two.engine.push()
    case.put(one, "large", noise(1))
    return one, "push"


async def a_push_that_loses_two_races_and_takes_another_along(case: Case) -> Act:
    """The other has uploaded its segment and then given up."""
    case.policy = DEFAULT_POLICY  # an hour's grace: what waits is below no floor
    one, two = await begun(case)
    three = case.device()
    await three.engine.pull()
    case.put(three, "waiting", noise(3))
    case.fault, (fault, first, run) = fault_proxy.dropped, (case.fault, case.first, case.run)
    case.first, case.run = 1, 100
    case.lab.acting[case.sid] = case
    with pytest.raises(NetworkError):
        await three.engine.push()
    del case.lab.acting[case.sid]
    case.asked.clear()
    case.fault, case.first, case.run = fault, first, run

    async def two_pushes_twice() -> None:
        case.put(two, "theirs, 1")
        await two.engine.push()
        case.before_swap = two_pushes_again

    async def two_pushes_again() -> None:
        case.put(two, "theirs, 2")
        await two.engine.push()

    case.before_swap = two_pushes_twice
    case.put(one, "small")
    return one, "push"


async def a_pull(case: Case) -> Act:
    one, two = await begun(case)
    for number in range(2):
        case.put(one, f"large, {number}", noise(number))
        await one.engine.push()
    case.put(one, "small")
    await one.engine.push()
    return two, "pull"


async def a_compaction_and_a_collection(case: Case) -> Act:
    one, _ = await begun(case)
    for number in range(3):
        case.put(one, f"large, {number}", noise(number))
        await one.engine.push()
    await one.engine.pull()
    return one, "compact"


async def a_repair(case: Case) -> Act:
    one, _ = await begun(case)
    case.put(one, "large", noise(1))
    await one.engine.push()
    return one, "repair"


SCENES: list[Scene] = [
    a_small_push,
    a_large_push,
    the_first_push_of_a_session,
    a_push_after_somebody_else_has_pushed,
    a_push_that_loses_two_races_and_takes_another_along,
    a_pull,
    a_compaction_and_a_collection,
    a_repair,
]


def distinct(asked: list[Request]) -> list[tuple[int, Request]]:
    """Return the requests with their numbers; of several segments read in a row only the first."""
    return [
        (number, request)
        for number, request in enumerate(asked)
        if number == 0 or _kind(request) != _kind(asked[number - 1])
    ]


def _kind(request: Request) -> tuple[str, str]:
    return request.verb, request.path.rsplit("/", 1)[0]
