"""Random schedules over a replicated folder: the real engine and the real file, any delivery.

A seed gives the operations, the order in which files arrive, what shows half of itself, what a
listing leaves out, where a process dies and how far clocks are apart. At the end everything is
delivered, and every device, a fresh one too, must hold the highest version of every document.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from pathlib import Path

import pytest

from moss_sync import Version
from moss_sync.log_plan import LogPolicy
from tests.devices import Device, QuickClock
from tests.replicated import ReplicatedFolder

IDS = ("a", "b", "c", "d")
EAGER = LogPolicy(
    max_blobs=1, spread=1, kept_blobs=2, settle_ms=50, min_tombstones=10**9, head_ms=5
)
FORGETFUL = LogPolicy(
    max_blobs=1,
    spread=1,
    kept_blobs=2,
    settle_ms=0,
    min_tombstones=0,
    purge_after_ms=0,
    head_ms=5,
)


class Death(BaseException):
    """The process ends here."""


class World:
    """Machines around one folder, and an oracle that has seen every write."""

    def __init__(self, directory: Path, seed: int, policy: LogPolicy, machines: int = 3) -> None:
        self.rng = random.Random(seed)
        self.directory = directory
        self.policy = policy
        self.folder = ReplicatedFolder(machines + 1)
        self.writes: dict[str, tuple[Version, str | None]] = {}
        self.clocks = [
            QuickClock(seed * 100 + number, 1_700_000_000_000 + self.rng.randrange(-3000, 3000))
            for number in range(machines + 1)
        ]
        self.devices = [self.open(number) for number in range(machines)]
        self.done: list[str] = []
        self.deaths = 0

    def open(self, machine: int) -> Device:
        return Device(
            self.directory / f"{machine}.sqlite3",
            self.folder.store(machine),
            clock=self.clocks[machine],
            commit="log",
            log_policy=self.policy,
        )

    def note(self, device: Device) -> None:
        """Tell the oracle what was written, stamped anew included."""
        with device.file.reading() as conn:
            rows = conn.execute(
                "SELECT id, hlc, dev, digest, deleted, text FROM document WHERE dirty = 1"
            ).fetchall()
        for id, hlc, dev, digest, deleted, text in rows:
            version = Version(hlc, dev, digest)
            if id not in self.writes or version > self.writes[id][0]:
                self.writes[id] = (version, None if deleted else text)

    def expected(self) -> dict[str, str]:
        return {id: text for id, (_, text) in self.writes.items() if text is not None}

    async def step(self) -> None:
        rng = self.rng
        number = rng.randrange(len(self.devices))
        device = self.devices[number]
        store = device.repository.store
        verb = rng.choices(
            ["put", "delete", "push", "pull", "compact", "deliver", "part", "stray", "die", "omit"],
            [6, 3, 5, 5, 5, 20, 3, 1, 2, 1],
        )[0]
        self.done.append(f"{number} {verb}")
        if verb == "put":
            vector = (1.0, 0, 0, 0) if rng.random() < 0.5 else None
            device.put(rng.choice(IDS), f"{number}-{rng.randrange(10**6)}", vector)
        elif verb == "delete":
            device.delete(rng.choice(IDS))
        elif verb in ("push", "pull", "compact"):
            await getattr(device.log, verb)()
        elif verb == "deliver":
            inbox = self.folder.copies[number].inbox
            for _ in range(min(len(inbox), rng.randrange(1, 6))):
                self.folder.deliver(number, rng.randrange(len(inbox)))
        elif verb == "part":
            inbox = self.folder.copies[number].inbox
            if inbox:
                self.folder.show_a_part(number, rng.randrange(len(inbox)), rng)
        elif verb == "stray":
            files = self.folder.copies[number].files
            if files:
                key = rng.choice(sorted(files))
                files[key + rng.choice([" (conflicted copy)", ".SYNC-CONFLICT", "~", ".tmp"])] = (
                    b"x"
                )
        elif verb == "omit":
            store.omit = None if store.omit else random.Random(rng.random())  # type: ignore[attr-defined]  # of a CopyStore
        else:
            await self.die(number)
        self.note(self.devices[number])
        self.clocks[number].now_ms += rng.randrange(40)

    async def die(self, number: int) -> None:
        """Let the process of a device end at one of its next requests, if it makes as many."""
        device = self.devices[number]
        store = device.repository.store
        left = self.rng.randrange(1, 12)
        call = store._call  # type: ignore[attr-defined]  # of a CopyStore

        def dying(moment: str) -> None:
            nonlocal left
            call(moment)
            left -= 1
            if left == 0:
                raise Death

        store._call = dying  # type: ignore[attr-defined]  # of a CopyStore
        with suppress(Death):
            await getattr(device.log, self.rng.choice(["push", "pull", "compact"]))()
        self.deaths += left <= 0
        self.note(device)
        device.close()
        self.devices[number] = self.open(number)

    async def settle(self) -> None:
        for device in self.devices:
            device.repository.store.omit = None  # type: ignore[attr-defined]  # of a CopyStore
        for _ in range(4):
            for device in self.devices:
                await device.log.sync()
                self.note(device)
                self.folder.deliver_all()
        for _ in range(3):
            for device in self.devices:
                await device.log.compact()
                self.folder.deliver_all()
                await device.log.sync()
                self.note(device)
                self.folder.deliver_all()
                for clock in self.clocks:
                    clock.now_ms += 100
        for device in self.devices:
            report = await device.log.pull()
            assert report.waiting == (), report.waiting

    async def check(self) -> None:
        fresh = self.open(len(self.devices))
        try:
            report = await fresh.log.pull()
            assert report.waiting == ()
            found = [live(device) for device in (*self.devices, fresh)]
        finally:
            fresh.close()
        assert {id: row[0] for id, row in found[0].items()} == self.expected()
        assert all(each == found[0] for each in found[1:])

    def close(self) -> None:
        for device in self.devices:
            device.close()


def live(device: Device) -> dict[str, tuple[object, ...]]:
    """Return every document with its version and its vector's presence."""
    with device.file.reading() as conn:
        rows = conn.execute(
            "SELECT id, text, hlc, dev, digest, vector, dirty FROM document WHERE deleted = 0"
        ).fetchall()
    return {id: tuple(rest) for id, *rest in rows}


def run_schedule(directory: Path, seed: int, policy: LogPolicy, *, known: bool) -> World:
    world = World(directory, seed, policy)

    async def story() -> None:
        if known:
            for device in world.devices:
                await device.log.push()
            world.folder.deliver_all()
        for _ in range(100):
            await world.step()
        await world.settle()
        await world.check()

    try:
        asyncio.run(story())
    except BaseException:
        print(f"seed {seed}: {'; '.join(world.done)}")
        raise
    finally:
        world.close()
    return world


@pytest.mark.parametrize("seed", range(8))
def test_whatever_arrives_when_every_device_ends_with_the_highest_version(
    tmp_path: Path, seed: int
) -> None:
    run_schedule(tmp_path, seed, EAGER, known=False)


@pytest.mark.parametrize("seed", range(8))
def test_what_everybody_deleted_and_forgot_never_comes_back(tmp_path: Path, seed: int) -> None:
    run_schedule(tmp_path, seed, FORGETFUL, known=True)
