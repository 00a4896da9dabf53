"""Every fault at every request of an exchange, on a real S3 server behind a proxy that makes it.

Each case is a scene with one request (or a run of them) spoiled. Whatever happened, the call has
succeeded or has said by name what was wrong, nobody is told of a conflict that there was not, and
what `Case.check` asserts holds once everybody has gone on without faults.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import pytest
from aiobotocore.httpsession import AIOHTTPSession
from botocore.retries import standard

from moss_sync import BlobCorruptError, ContentionError, MossError, NetworkError
from moss_sync.layout import Layout
from moss_sync.replica import ReplicaState
from moss_sync.stores import s3_client
from moss_sync.stores.base import BlobStore
from moss_sync.stores.url import open_store
from tests import fault_proxy
from tests.devices import Device
from tests.fault_proxy import Fault, FaultProxy, Passage, Plan, Request, busy
from tests.processes.scenes import (
    SCENES,
    Case,
    Lab,
    Scene,
    a_push_that_loses_two_races_and_takes_another_along,
    begun,
    distinct,
    lab_at,
)
from tests.seaweed import SeaweedServer

AT_ONCE = 16

FAULTS: dict[str, tuple[Fault, int]] = {
    "the answer is lost": (fault_proxy.lost_answer, 1),
    "the request is dropped": (fault_proxy.dropped, 1),
    "the request comes late": (fault_proxy.late, 1),
    "the request comes when all is over": (fault_proxy.very_late, 1),
    "the request comes twice": (fault_proxy.doubled, 1),
    "it takes its time": (fault_proxy.delayed, 1),
    "429": (busy(429), 1),
    "503, again and again": (busy(503), 5),
    "429 with Retry-After, again and again": (busy(429, retry_after=1), 5),
    "500 after the effect": (fault_proxy.failed_after_effect, 1),
    "a reset within the answer": (fault_proxy.reset_in_body, 1),
    "an answer cut short": (fault_proxy.cut_short, 1),
    "a Content-Length that is too great": (fault_proxy.length_too_great, 1),
    "a Content-Length that is too small": (fault_proxy.length_too_small, 1),
    "garbage instead of HTTP": (fault_proxy.garbage, 1),
}
"""By name: what happens, and to how many requests in a row."""

NOTHING_TO_A_READER = frozenset(
    ["the request comes late", "the request comes when all is over", "the request comes twice"]
)


def assert_named(error: MossError | None, case: Case) -> None:
    """Assert that a call has succeeded, or has failed for want of the store and says so."""
    if error is None or case.fault is None:
        assert error is None
        return
    assert not isinstance(error, ContentionError), "nobody else wanted the session"
    spoiled = case.asked[case.first]
    if case.fault is fault_proxy.length_too_small and spoiled.verb == "get":
        assert isinstance(error, BlobCorruptError | NetworkError)
        return
    assert isinstance(error, NetworkError)
    assert spoiled.verb != "swap" or case.run > 1, "one lost answer of a swap is not settled"


# -- the cases -----------------------------------------------------------------------------------


async def played(case: Case, scene: Scene) -> Case:
    """Set a case up, do what is to be done under its fault, and check what is left."""
    try:
        device, verb = await scene(case)
        case.lab.acting[case.sid] = case
        error = None
        try:
            report = await getattr(device.engine, verb)()
            if case.fault is None and scene is a_push_that_loses_two_races_and_takes_another_along:
                assert (report.lost_races, report.adopted) == (2, 1)
        except MossError as named:
            error = named
        finally:
            del case.lab.acting[case.sid]
        assert_named(error, case)
        await case.check()
    finally:
        case.close()
    return case


async def every_fault_at_every_request(lab: Lab, scene: Scene) -> list[Case]:
    """Return the cases that were played; the first has no fault and says what is asked."""
    whole = await played(Case(lab, "no fault"), scene)
    cases = {
        f"{name}, at request {number}, {request.verb}": Case(
            lab, f"{name} {number}", fault, first=number, run=run
        )
        for number, request in distinct(whole.asked)
        for name, (fault, run) in FAULTS.items()
        if request.verb not in ("get", "list") or name not in NOTHING_TO_A_READER
    }
    gate = asyncio.Semaphore(AT_ONCE)

    async def play(what: str, case: Case) -> Case:
        async with gate:
            try:
                return await played(case, scene)
            except BaseException as error:
                error.add_note(f"{what} of {[each.verb for each in whole.asked]}")
                raise

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(play(*each)) for each in cases.items()]
    return [whole, *(task.result() for task in tasks)]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """botocore repeats reads and plain writes at once, instead of after up to two seconds."""
    monkeypatch.setattr(standard.ExponentialBackoff, "delay_amount", lambda self, context: 0)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_no_fault_loses_or_doubles_anything(
    scene: Scene, seaweed: SeaweedServer, s3_url: str, tmp_path: Path
) -> None:
    async def main() -> None:
        async with lab_at(seaweed, tmp_path) as lab:
            whole, *cases = await every_fault_at_every_request(lab, scene)
            assert cases
            assert all(len(case.asked) > case.first for case in cases), "a fault did not fire"
            print(f"{len(cases)} cases: {[request.verb for request in whole.asked]}")

    asyncio.run(main())


# -- one by one ----------------------------------------------------------------------------------


def run_in_lab(
    server: SeaweedServer, folder: Path, body: Callable[[Case, Device], Awaitable[None]]
) -> None:
    """Run a test on one session whose device has pushed before: its connections are in use."""

    async def main() -> None:
        async with lab_at(server, folder) as lab:
            case = Case(lab, "one")
            try:
                one, _ = await begun(case)
                case.put(one, "second")
                await one.engine.push()
                await body(case, one)
            finally:
                case.close()

    asyncio.run(main())


@pytest.mark.usefixtures("s3_url")
def test_a_swap_whose_answer_is_lost_on_a_reused_connection_was_sent_once(
    seaweed: SeaweedServer, tmp_path: Path
) -> None:
    async def body(case: Case, one: Device) -> None:
        case.fault = fault_proxy.lost_answer
        case.put(one, "third")
        case.lab.acting[case.sid] = case
        report = await one.engine.push()
        del case.lab.acting[case.sid]
        assert case.asked[0].nth > 1, "this connection was a fresh one"
        assert [request.verb for request in case.asked] == ["swap", "get"]
        assert (report.sent, report.lost_races, report.requests) == (1, 0, 2)
        await case.check()

    run_in_lab(seaweed, tmp_path, body)


@pytest.mark.usefixtures("s3_url")
def test_a_client_that_sends_a_swap_again_by_itself_is_not_told_of_a_conflict(
    seaweed: SeaweedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_client, "SendOnceSession", AIOHTTPSession)

    async def body(case: Case, one: Device) -> None:
        case.fault = fault_proxy.lost_answer
        case.put(one, "third")
        case.lab.acting[case.sid] = case
        before = case.lab.proxy.swaps_won(case.sid)
        report = await one.engine.push()
        del case.lab.acting[case.sid]
        # The second sending is told 412 by the success of the first; the manifest says who it was.
        assert [request.verb for request in case.asked] == ["swap", "swap", "get"]
        assert case.asked[0].body == case.asked[1].body
        assert len(case.lab.proxy.sent_again(case.sid)) == 1
        assert case.lab.proxy.swaps_won(case.sid) == before + 1
        assert report.sent == 1
        state: ReplicaState = one.replica.state()
        assert (state.dirty, state.pending, state.acked_n) == (0, None, state.n)
        known, texts = await case.newest()
        assert (known.seq, texts) == (before + 1, case.expected)

    run_in_lab(seaweed, tmp_path, body)


@pytest.mark.usefixtures("s3_url")
def test_a_swap_that_takes_effect_after_its_time_out_is_found_out(
    seaweed: SeaweedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_client, "CAS_READ_TIMEOUT_S", 1)

    async def stalled(passage: Passage) -> None:
        passage.forward_after(1)
        await asyncio.Event().wait()

    async def body(case: Case, one: Device) -> None:
        case.fault = stalled
        case.put(one, "third")
        case.lab.acting[case.sid] = case
        report = await one.engine.push()
        del case.lab.acting[case.sid]
        # It was not there at the first look, and had won when it was tried again.
        assert [request.verb for request in case.asked] == ["swap", "get", "swap", "get"]
        assert (report.sent, report.lost_races) == (1, 1)
        await case.check()

    run_in_lab(seaweed, tmp_path, body)


@pytest.mark.usefixtures("s3_url")
def test_a_busy_store_is_left_alone_for_as_long_as_it_asks(
    seaweed: SeaweedServer, tmp_path: Path
) -> None:
    async def body(case: Case, one: Device) -> None:
        case.fault, case.run = busy(503, retry_after=7), 1
        case.put(one, "third")
        case.lab.acting[case.sid] = case
        one.clock.slept.clear()
        report = await one.engine.push()
        del case.lab.acting[case.sid]
        assert report.sent == 1
        assert [seconds >= 7 for seconds in one.clock.slept] == [True]
        await case.check()

    run_in_lab(seaweed, tmp_path, body)


@pytest.mark.usefixtures("s3_url", "impatient")
def test_a_store_in_trouble_is_not_taken_for_one_that_cannot_compare_and_swap(
    seaweed: SeaweedServer, tmp_path: Path
) -> None:
    """First contact: the probe, the keys, the session; each request spoiled once."""
    spoils = {name: FAULTS[name] for name in ("the answer is lost", "500 after the effect")}
    spoils["503, again and again"] = (busy(503), 3)

    async def main() -> None:
        async with FaultProxy(seaweed.endpoint) as proxy:
            store = open_store(proxy.url("test", f"t-{uuid4().hex}"))
            contacts = Contacts(proxy, store, tmp_path)
            requests = await contacts.play("no fault", fault_proxy.dropped, 1_000, 0)
            async with asyncio.TaskGroup() as group:
                for name, (fault, run) in spoils.items():
                    for first in range(requests):
                        group.create_task(contacts.play(f"{name} {first}", fault, first, run))
            assert contacts.spoiled == len(spoils) * requests
            await store.close()

    asyncio.run(main())


class Contacts:
    """Projects of one store, each set up by a first push that meets a fault."""

    def __init__(self, proxy: FaultProxy, store: BlobStore, folder: Path) -> None:
        self.spoiled = 0
        self._proxy, self._store, self._folder = proxy, store, folder
        self._plans: dict[str, Plan] = {}
        self._gate = asyncio.Semaphore(AT_ONCE)
        proxy.plan = self._plan

    def _plan(self, request: Request) -> Fault | None:
        for prefix, plan in self._plans.items():
            if prefix in request.path:
                return plan(request)
        return None

    async def play(self, project: str, fault: Fault, first: int, run: int) -> int:
        """Return how many requests the first push has sent."""
        async with self._gate:
            try:
                return await self._play(project, fault, first, run)
            except BaseException as error:
                error.add_note(project)
                raise

    async def _play(self, project: str, fault: Fault, first: int, run: int) -> int:
        asked: list[Request] = []

        def plan(request: Request) -> Fault | None:
            asked.append(request)
            return fault if first < len(asked) <= first + run else None

        layout = Layout.of(project)
        one, two = (
            Device(self._folder / f"{project}-{n}.sqlite3", self._store, seed=seed, project=project)
            for n, seed in enumerate(random.Random(project).sample(range(1 << 32), 2))
        )
        try:
            one.put("first", "hello")
            self._plans[layout.prefix] = plan
            # It may say so, but never that the store is unfit; and the next push gets through.
            with contextlib.suppress(NetworkError):
                await one.engine.push()
            del self._plans[layout.prefix]
            self.spoiled += len(asked) > first
            await one.engine.push()
            await two.engine.pull()
            assert (one.texts, two.texts) == ({"first": "hello"},) * 2
            assert self._proxy.sent_again(f"{layout.prefix}m/") == []
            return len(asked)
        finally:
            one.close()
            two.close()
