"""A process killed at each of its requests, just before it takes effect and just after.

The proxy in front of the server kills it: what the server has done and what the process knew of it
is then exactly known, and every step of a push, an adoption, a compaction and a collection is met.
Deaths at other moments, in the midst of a transaction too: test_sudden_death.py.
"""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import asdict
from pathlib import Path

import pytest

from moss_local.storage.paths import project_path
from tests.devices import PROJECT, PROJECT_KEY, Device
from tests.fault_proxy import Fault, Passage
from tests.processes.audit import audit
from tests.processes.nursery import Nursery
from tests.processes.scenes import SCENES, Case, Lab, Scene, distinct, lab_at
from tests.seaweed import SeaweedServer

AT_ONCE = 4
WAIT_S = 60.0


class Executioner:
    """Kills one process at one of its requests."""

    def __init__(self, *, after_effect: bool) -> None:
        self.victim: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._after_effect = after_effect

    async def __call__(self, passage: Passage) -> None:
        if self._after_effect:
            await passage.forward()
        os.kill(await self.victim, signal.SIGKILL)
        passage.hang_up()


async def in_a_process(case: Case, device: Device, verb: str, nursery: Nursery) -> int:
    """Let another process do what a device was to do; return how it ended."""
    path, lab = device.path, case.lab
    device.close()
    process = await asyncio.to_thread(
        nursery.start,
        "exchange",
        path=path,
        url=lab.store.url,
        cache=project_path(lab.folder, PROJECT),
        session=case.session,
        seed=lab.seed(),
        policy=asdict(case.policy),
        verb=verb,
    )
    if isinstance(case.fault, Executioner):
        case.fault.victim.set_result(process.pid)
    status = None
    async with asyncio.timeout(WAIT_S):
        while status is None:
            status = await asyncio.to_thread(nursery.wait, process.pid, 0.01)
    assert status in (0, signal.SIGKILL), process.log.read_text()
    return status


async def played(case: Case, scene: Scene, nursery: Nursery) -> Case:
    try:
        device, verb = await scene(case)
        place = case.devices.index(device)
        case.lab.acting[case.sid] = case
        status = await in_a_process(case, device, verb, nursery)
        del case.lab.acting[case.sid]
        assert status == (0 if case.fault is None else signal.SIGKILL)
        assert audit(device.path).items() <= case.expected.items()
        case.devices[place] = case.lab.device(case.session, case.policy, device.path)
        await case.check()
    finally:
        case.close()
    return case


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_a_death_at_any_request_loses_and_doubles_nothing(
    scene: Scene, nursery: Nursery, seaweed: SeaweedServer, s3_url: str, tmp_path: Path
) -> None:
    async def main() -> None:
        async with lab_at(seaweed, tmp_path) as lab:
            where = {"data_dir": str(lab.folder), "project_id": PROJECT, "project_key": PROJECT_KEY}
            nursery.learn_key(where)
            whole = await played(Case(lab, "no death"), scene, nursery)
            gate, deaths = asyncio.Semaphore(AT_ONCE), list[str]()

            async def play(lab: Lab, first: int, *, after_effect: bool) -> None:
                fault: Fault = Executioner(after_effect=after_effect)
                async with gate:
                    try:
                        name = f"death {first} {after_effect}"
                        await played(Case(lab, name, fault, first), scene, nursery)
                    except BaseException as error:
                        error.add_note(f"{name} of {[each.verb for each in whole.asked]}")
                        raise

            async with asyncio.TaskGroup() as group:
                for first, request in distinct(whole.asked):
                    group.create_task(play(lab, first, after_effect=False))
                    deaths.append(request.verb)
                    if request.verb not in ("get", "list"):
                        group.create_task(play(lab, first, after_effect=True))
                        deaths.append(request.verb)
            print(f"death at a request: {len(deaths)} deaths, 0 lost, 0 doubled")

    asyncio.run(main())
