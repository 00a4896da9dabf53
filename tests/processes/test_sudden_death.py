"""Processes killed at random moments: nothing acknowledged is lost, and nothing is half there.

The victims write for ever. Each says in its ledger what it is about to ask for, and, flushed to
the disk, what the library has answered; a mark in shared memory tells whether the kill fell inside
a transaction. After each kill, for every file: the documents of a victim are those of its last
acknowledged call, or those after the call that was running: all of that call or none of it.
With pushing victims: whatever an acknowledged push covered is on another device at once; the next
push settles the broken one; then both devices hold the same.

MOSS_TEST_SEED repeats a run's moments; the scheduler's part in them cannot be repeated.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.keys import KEY
from tests.processes.audit import assert_settled, audit, path_of, replica_state
from tests.processes.documents import text_of
from tests.processes.jobs import Where, client_at
from tests.processes.ledger import PUSHING, Account, Mark, Revisions, read_account
from tests.processes.nursery import Nursery, Process

THREAD = "a thread that many write"


@dataclass
class Tally:
    """How the kills fell."""

    kills: int = 0
    in_transaction: int = 0
    in_push: int = 0
    calls: int = 0
    half_done: int = 0

    def __str__(self) -> str:
        return (
            f"{self.kills} kills: {self.in_transaction} inside a transaction "
            f"({self.in_transaction / self.kills:.0%}), {self.in_push} inside a push; "
            f"{self.calls} calls had been acknowledged, {self.half_done} more had just happened"
        )


@dataclass
class Victim:
    process: Process
    where: Where
    tag: str
    ledger: Path
    mark: Mark
    dies_at: float


@dataclass
class Arena:
    """One store, the devices whose processes are killed, and one device that only looks on."""

    nursery: Nursery
    folder: Path
    store: str
    chance: random.Random
    tally: Tally
    devices: int = 1
    victims: int = 1
    push: bool = True
    commit: str = "cas"
    newborn: bool = False
    """Every round has a session of its own, and its victims die while they make its file."""
    fates: dict[str, Revisions] = field(default_factory=dict)
    """The documents of each dead victim, by its tag: fixed for ever."""

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self.session = THREAD
        self.wheres = [self._where(f"device-{i}") for i in range(self.devices)]
        self.onlooker = self._where("onlooker")
        asyncio.run(self._be_known())

    def _where(self, name: str) -> Where:
        return {
            "project_id": "project",
            "project_key": KEY,
            "store": self.store,
            "data_dir": str(self.folder / name),
            "commit": self.commit,
        }

    async def _be_known(self) -> None:
        """Open every device once, so that victims need not derive its key."""
        for where in self.wheres:
            async with client_at(where) as client:
                index = await client.session("another", "custom", auto_load_on_init=False)
                if self.push:
                    await index.push_index()
            self.nursery.learn_key(where)

    def round(self, number: int) -> None:
        """Start the victims, kill each at its moment, and look at what they left."""
        if self.newborn:
            self.session = f"{THREAD}, {number}"
            self.fates.clear()
        victims = [
            self._start(where, f"r{number}d{d}v{v}")
            for d, where in enumerate(self.wheres)
            for v in range(self.victims)
        ]
        for victim in sorted(victims, key=lambda each: each.dies_at):
            self._kill(victim)
        accounts = {victim.tag: read_account(victim.ledger) for victim in victims}
        self.tally.calls += sum(account.calls for account in accounts.values())
        asyncio.run(self._look(victims, accounts))

    def _start(self, where: Where, tag: str) -> Victim:
        ledger, mark = self.folder / f"{tag}.ledger", Mark(self.folder / f"{tag}.mark")
        process = self.nursery.start(
            "write_for_ever",
            where=where,
            session=self.session,
            tag=tag,
            ledger=ledger,
            mark=self.folder / f"{tag}.mark",
            push=self.push,
            seed=self.chance.getrandbits(32),
        )
        dies_at = self.chance.uniform(0, 0.05 if self.newborn else 0.06)
        return Victim(process, where, tag, ledger, mark, dies_at)

    def _kill(self, victim: Victim) -> None:
        if not self.newborn:
            deadline = time.monotonic() + 30
            while not victim.ledger.exists() or b'"ok"' not in victim.ledger.read_bytes():
                assert time.monotonic() < deadline, victim.process.log.read_text()
                time.sleep(0.0005)
        time.sleep(victim.dies_at)
        victim.process.kill()
        self.tally.kills += 1
        self.tally.in_transaction += victim.mark.in_transaction
        self.tally.in_push += victim.mark.call == PUSHING
        victim.mark.close()

    async def _look(self, victims: list[Victim], accounts: dict[str, Account]) -> None:
        if self.push:
            await self._pushed_is_elsewhere(accounts)
        for where in self.wheres:
            path = path_of(where, self.session)
            if path.exists():
                mine = {v.tag: accounts[v.tag] for v in victims if v.where is where}
                self._decide(audit(path), mine)
        if self.push:
            await self._settle()

    async def _pushed_is_elsewhere(self, accounts: dict[str, Account]) -> None:
        """Assert that the onlooker has what acknowledged pushes covered, before any repair."""
        async with client_at(self.onlooker) as client:
            index = await client.session(self.session, "custom")
            texts = {known.id: known.text for known in await index.get_docs()}
        for account in accounts.values():
            states = [account.pushed or {}, *account.possible]
            for id in account.pushed or {}:
                allowed = {None if id not in s else text_of(id, s[id]) for s in states}
                assert texts.get(id) in allowed, f"{id} was pushed and is not at another device"

    def _decide(self, texts: dict[str, str], accounts: dict[str, Account]) -> None:
        """Assert that every victim's documents are in a state that it may have left."""
        for tag, account in accounts.items():
            found = {id: text for id, text in texts.items() if id.startswith(f"{tag}.")}
            left = [state for state in account.possible if _texts(state) == found]
            assert left, f"{tag}: {sorted(found)} is not what {account} allows"
            self.fates[tag] = left[0]
            self.tally.half_done += left[0] is not account.acknowledged

    async def _settle(self) -> None:
        """Push everywhere, then pull: nothing is pending, and all devices hold the same."""
        expected: dict[str, str] = {}
        for state in self.fates.values():
            expected |= _texts(state)
        clients = [client_at(where) for where in (*self.wheres, self.onlooker)]
        try:
            indexes = [await client.session(self.session, "custom") for client in clients]
            for index in indexes[:-1]:
                await index.push_index()
            for index in indexes:
                await index.pull()
                documents = await index.get_docs()
                assert index.doc_count == len(documents)
                assert {known.id: known.text for known in documents} == expected
        finally:
            for client in clients:
                await client.close()
        for where in self.wheres:
            assert_settled(replica_state(where, self.session))


def _texts(state: Revisions) -> dict[str, str]:
    return {id: text_of(id, revision) for id, revision in state.items()}


@pytest.fixture
def chance() -> random.Random:
    seed = os.environ.get("MOSS_TEST_SEED") or str(random.SystemRandom().getrandbits(32))
    print(f"MOSS_TEST_SEED={seed}")
    return random.Random(seed)


def test_what_was_acknowledged_survives_two_hundred_kills(
    nursery: Nursery, tmp_path: Path, chance: random.Random
) -> None:
    tally = Tally()
    plans = [
        # (rounds, devices, processes killed on each, whether they push, whether the file is new)
        (30, 1, 1, False, True),
        (20, 1, 1, False, False),
        (20, 1, 1, False, False),
        (20, 1, 1, False, False),
        (10, 1, 3, False, False),
        (20, 1, 1, True, False),
        (20, 1, 1, True, False),
        (6, 1, 3, True, False),
        (14, 2, 1, True, False),
    ]
    for number, (rounds, devices, victims, push, newborn) in enumerate(plans):
        arena = Arena(
            nursery,
            tmp_path / f"arena-{number}",
            str(tmp_path / f"store-{number}"),
            chance,
            tally,
            devices=devices,
            victims=victims,
            push=push,
            newborn=newborn,
        )
        for each in range(rounds):
            arena.round(each)
    print(tally)
    assert tally.kills >= 200
    assert tally.in_transaction >= 0.3 * tally.kills
    assert tally.in_push > 0
    assert tally.half_done > 0


def test_what_was_acknowledged_survives_kills_while_pushing_to_a_bucket(
    nursery: Nursery, s3_url: str, tmp_path: Path, chance: random.Random
) -> None:
    tally = Tally()
    arena = Arena(nursery, tmp_path / "arena", s3_url, chance, tally, devices=2)
    for each in range(8):
        arena.round(each)
    print(tally)
    assert tally.kills == 16
    assert tally.in_push > 0


@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_what_was_acknowledged_survives_kills_while_pushing_to_a_log(
    nursery: Nursery, s3_url: str, tmp_path: Path, chance: random.Random, place: str
) -> None:
    tally = Tally()
    store = s3_url if place == "bucket" else str(tmp_path / "store")
    arena = Arena(nursery, tmp_path / "arena", store, chance, tally, devices=2, commit="log")
    for each in range(8):
        arena.round(each)
    print(tally)
    assert tally.kills == 16
    assert tally.in_push > 0
