"""Finds out whether a store really compares and swaps, before anything is entrusted to it.

A store that answers 200 to a condition it ignores loses updates silently, and several do; others
check the condition and then write without a lock, which only shows in a race. So the store is
asked, with keys of its own that are deleted afterwards: the short form before a device's first
write to a store without a verdict (at most 47 requests where answers are clear), the long form a
round at a time (at most 200 requests each) after a project's first push, and at once for `doctor`.

What a race is made of decides what it finds. Of those that swap from one ETag only they overlap
that arrive before the first has written, and a new connection arrives late: it has to be made
first. So a race for a key that nobody has comes first, which leaves as many connections open as
there are racers, and the races that count go over these.

Rules of this file: the outcome of a write is what can be read back, as everywhere in the protocol.
An answer that leaves the outcome open counts as a lost race only once reading has shown that
nothing was written. A store in trouble (no network, no permission) is not a store without
compare-and-swap: such errors are raised as they are, and there is no verdict.
What holds: tests/moss_sync/test_probe.py. Source: SYNC-PROTOCOL 2.12.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from moss_sync.clock import Clock
from moss_sync.errors import (
    DOCTOR,
    BlobCorruptError,
    BlobNotFoundError,
    MossError,
    OutcomeUnknownError,
    StoreBusyError,
    StoreLacksCasError,
)
from moss_sync.packing import as_map, as_str, as_uint
from moss_sync.stores.base import (
    Blob,
    BlobStore,
    ChoosesEtagForm,
    Conflict,
    ETag,
    EtagForm,
    NotModified,
    Swapped,
)
from moss_sync.stores.remedy import remedy
from moss_sync.traffic import count, metered

T = TypeVar("T")

RACE = "race"
RACERS = 4
SHORT_KEYS = 4
LONG_KEYS = 16
LONG_ROUNDS = 4
"""Many keys, and few racers for each: what a race finds grows with either, and only racers are slow
where the server has a lock that waits in steps (SeaweedFS: a round takes 3 to 6 s)."""

BUSY_TRIES = 5
BUSY_WAIT_S = 1.1
"""Cloudflare R2 takes one write a second per key."""

VERDICT_VERSION = 1

MAX_ROUNDS = 1000
MAX_CHECK_CHARS = 200
"""Of what is read from a stored verdict."""


@dataclass(frozen=True, slots=True)
class ProbeVerdict:
    """What later devices need to know of a store that was tried out.

    Attributes:
        etag_form: How If-Match is to be written.
        rounds: How many rounds of the long form it has passed.
        failed: The check that it has failed; empty where it has passed all.
    """

    etag_form: EtagForm = "quoted"
    rounds: int = 0
    failed: str = ""

    @property
    def is_full(self) -> bool:
        """Whether the store has passed the long form."""
        return not self.failed and self.rounds >= LONG_ROUNDS

    def to_dict(self) -> dict[str, int | str]:
        """Return the verdict in plain types, to be sealed and stored; `from_dict` takes it."""
        return {
            "v": VERDICT_VERSION,
            "etag_form": self.etag_form,
            "rounds": min(self.rounds, MAX_ROUNDS),
            "failed": self.failed[:MAX_CHECK_CHARS],
        }

    @classmethod
    def from_dict(cls, stored: object) -> ProbeVerdict:
        """Return the verdict of a dict from `to_dict`; keys of later versions are ignored.

        Raises:
            BlobCorruptError: it is not such a dict.
        """
        form: dict[object, EtagForm] = {"quoted": "quoted", "bare": "bare"}
        try:
            fields = as_map(stored)
            version, rounds = as_uint(fields["v"]), as_uint(fields["rounds"])
            stated, failed = as_str(fields["etag_form"]), as_str(fields["failed"])
            if version < VERDICT_VERSION or rounds > MAX_ROUNDS or len(failed) > MAX_CHECK_CHARS:
                raise ValueError("out of its bounds")
            return cls(form[stated], rounds, failed)
        except (KeyError, TypeError, ValueError) as error:
            raise BlobCorruptError("the stored verdict on this store cannot be read") from error

    def apply(self, store: BlobStore) -> None:
        """Make `store` write its conditions as the probe found right."""
        if isinstance(store, ChoosesEtagForm):
            store.etag_form = self.etag_form

    def require(self, store: BlobStore) -> None:
        """Return where the store may be written to.

        Raises:
            StoreLacksCasError: it has failed a check.
        """
        if self.failed:
            raise StoreLacksCasError(
                store.url,
                check=self.failed,
                hint=f"what is here stays, and is read from the store too; {remedy(store.url)}; "
                f"if the store was mended: {DOCTOR} tries it out again",
                detail="as a device has found and told all others",
            )


@dataclass(frozen=True, slots=True)
class Check:
    """One line of `doctor`: what was tried, how it went, and how long it took."""

    name: str
    passed: bool
    detail: str
    ms: float


@dataclass(slots=True)
class ProbeReport:
    """What a probe found.

    Attributes:
        verdict: None where a check failed or the store could not be asked to the end.
        error: Why there is no verdict.
        left_behind: Keys of the probe that the store would not delete; harmless.
        requests, elapsed_ms: What it cost.
    """

    verdict: ProbeVerdict | None = None
    checks: list[Check] = field(default_factory=list)
    error: MossError | None = None
    left_behind: list[str] = field(default_factory=list)
    requests: int = 0
    elapsed_ms: float = 0.0

    def require(self) -> ProbeVerdict:
        """Return the verdict.

        Raises:
            MossError: the reason why there is none.
        """
        if self.error is not None:
            raise self.error
        if self.verdict is None:
            raise RuntimeError("the probe has not ended")
        return self.verdict


async def probe(store: BlobStore, *, clock: Clock, prefix: str, rounds: int = 0) -> ProbeReport:
    """Try out `store` below `<prefix>_probe/` and set its ETag form to the one that works.

    Args:
        prefix: "" or a key prefix with its last `/`.
        rounds: Of the long form: how often to run its races, beside every other check; it returns
            the report also when a check fails (see `ProbeReport.require`). 0: the short form,
            which raises instead.

    Raises:
        StoreLacksCasError: a check of the short form failed.
        NetworkError, PermissionDeniedError, NotFoundError: the store could not be asked (short).
    """
    run = _Probe(store, clock, f"{prefix}_probe/{clock.token(10).hex()}")
    started = clock.monotonic()
    with metered() as meter:
        try:
            await (run.long(rounds) if rounds else run.short())
        finally:
            await run.clean_up()
    # Whoever meters the exchange around this sees these requests as well.
    count(requests=meter.requests, sent=meter.bytes_sent, received=meter.bytes_received)
    report = run.report
    report.requests = meter.requests
    report.elapsed_ms = (clock.monotonic() - started) * 1000
    if report.error is None:
        report.verdict = ProbeVerdict(run.etag_form, rounds)
    elif not rounds:
        raise report.error
    return report


class _Failed(Exception):  # noqa: N818  # a finding, not an error: never leaves this module
    """The store did something that a store with compare-and-swap does not do."""


class _Probe:
    """One run: its keys, what it knows of them, and the checks in the order they build on."""

    def __init__(self, store: BlobStore, clock: Clock, base: str) -> None:
        self.store, self.clock, self.base = store, clock, base
        self.report = ProbeReport()
        self._made: set[str] = set()
        self.key = self._key("a")
        self.first: ETag | None = None
        self.current: ETag | None = None
        self.data = b""
        self.form_before = store.etag_form if isinstance(store, ChoosesEtagForm) else None

    @property
    def etag_form(self) -> EtagForm:
        return self.store.etag_form if isinstance(self.store, ChoosesEtagForm) else "quoted"

    async def short(self) -> None:
        for name, check in (
            ("create", self.create),
            ("create again", self.create_again),
            ("swap with the right ETag", self.swap_right),
            ("swap with a stale ETag", self.swap_stale),
            ("read after write", self.read_back),
            (
                f"{RACE} of {RACERS} on {SHORT_KEYS} keys",
                lambda: self.races(SHORT_KEYS),
            ),
        ):
            if not await self._run(name, check):
                return

    async def long(self, rounds: int) -> None:
        """Run everything; only what builds on a blob that could not be made is left out."""
        if not await self._run("create", self.create):
            return
        await self._run("create again", self.create_again)
        await self._run("swap with the right ETag", self.swap_right)
        for name, check in (
            ("swap with a stale ETag", self.swap_stale),
            ("swap of a missing key", self.swap_missing),
            ("read after write", self.read_back),
            ("unchanged", self.unchanged),
            ("list after write", self.list_back),
        ):
            await self._run(name, check)
        for number in range(rounds):
            await self._run(
                f"{RACE} of {RACERS} on {LONG_KEYS} keys, round {number + 1}",
                lambda: self.races(LONG_KEYS),
            )
        await self._run("delete", self.delete)

    async def clean_up(self) -> None:
        if self.report.error is not None and isinstance(self.store, ChoosesEtagForm):
            assert self.form_before is not None
            self.store.etag_form = self.form_before
        left = sorted(self._made)
        try:
            while left:
                await self.store.delete(left[0])
                del left[0]
        except MossError:
            # Some credentials may write and not delete. That is no reason against the store; the
            # reader of the report is told what lies around.
            self.report.left_behind = left

    async def _run(self, name: str, check: Callable[[], Awaitable[str]]) -> bool:
        """Run one check; return whether it passed. After an error that is no finding, stop."""
        if self.report.error is not None and not isinstance(self.report.error, StoreLacksCasError):
            return False
        started = self.clock.monotonic()
        error: MossError | None = None
        try:
            detail = await check()
        except _Failed as finding:
            detail = str(finding)
            error = StoreLacksCasError(
                self.store.url, check=name, hint=remedy(self.store.url), detail=detail
            )
        except BlobNotFoundError as gone:
            detail = f"does not show what was just written: {gone}"
            error = StoreLacksCasError(
                self.store.url, check=name, hint=remedy(self.store.url), detail=detail
            )
        except MossError as raised:
            detail, error = str(raised), raised
        ms = (self.clock.monotonic() - started) * 1000
        self.report.checks.append(Check(name, error is None, detail, ms))
        if self.report.error is None:
            self.report.error = error
        return error is None

    # The checks. Each returns what to show, or raises _Failed with what the store did.

    async def create(self) -> str:
        self.data = self._token()
        answer = await self._swap(self.key, self.data, None)
        if isinstance(answer, Swapped):
            etag: ETag | None = answer.etag
        else:
            # A request that was sent twice is refused the second time: the blob tells.
            etag = await self._etag_if_holds(self.key, self.data)
        if etag is None and isinstance(answer, OutcomeUnknownError):
            raise answer
        if etag is None:
            raise _Failed("refused to create a blob under a key that nobody has used")
        self.first = self.current = etag
        return "created only if absent"

    async def create_again(self) -> str:
        await self._must_refuse(self.key, None, "created a blob that was already there")
        return "refused"

    async def swap_right(self) -> str:
        forms: list[EtagForm] = [self.etag_form]
        if isinstance(self.store, ChoosesEtagForm):
            forms += [form for form in ("quoted", "bare") if form not in forms]
        tried: dict[EtagForm, bytes] = {}
        unclear: OutcomeUnknownError | None = None
        for form in forms:
            if isinstance(self.store, ChoosesEtagForm):
                self.store.etag_form = form
            tried[form] = self._token()
            answer = await self._swap(self.key, tried[form], self.current)
            if isinstance(answer, Swapped):
                return self._swapped(tried[form], answer.etag)
            if isinstance(answer, OutcomeUnknownError):
                unclear = answer
        # Refused in every form; a request that was sent twice may still have won the first time.
        for form, data in tried.items():
            etag = await self._etag_if_holds(self.key, data)
            if etag is not None:
                if isinstance(self.store, ChoosesEtagForm):
                    self.store.etag_form = form
                return self._swapped(data, etag)
        if unclear is not None:
            raise unclear
        raise _Failed("refused to replace a blob although its ETag was the right one")

    def _swapped(self, data: bytes, etag: ETag) -> str:
        if etag == self.current:
            raise _Failed("gave another content the same ETag")
        self.data, self.current = data, etag
        return f"replaced, ETag {self.etag_form}"

    async def swap_stale(self) -> str:
        stale = self.first if self.first != self.current else ETag("0" * 32)
        await self._must_refuse(self.key, stale, "replaced a blob under a stale ETag")
        return "refused"

    async def swap_missing(self) -> str:
        key = self._key("missing")
        await self._must_refuse(key, self.current, "created a blob under an ETag")
        with contextlib.suppress(BlobNotFoundError):
            await self.store.get(key)
            raise _Failed("created a blob under an ETag, and said it had not")
        return "refused"

    async def read_back(self) -> str:
        found = await self.store.get(self.key)
        if not isinstance(found, Blob):
            raise _Failed("left out a blob that was asked for without a condition")
        if found.data != self.data:
            raise _Failed("does not hold what was written last: a refused write was carried out")
        if found.etag != self.current:
            raise _Failed("gives a blob another ETag when reading than when writing")
        return f"{len(found.data)} bytes, same ETag"

    async def unchanged(self) -> str:
        if not isinstance(await self.store.get(self.key, if_none_match=self.current), NotModified):
            raise _Failed("does not recognise the ETag that it gave")
        return "not sent again"

    async def list_back(self) -> str:
        folder = self.base[: self.base.rindex("/") + 1]
        listed = await self.store.keys(folder, start_after=self.base)
        mine = [(item.key, item.etag) for item in listed if item.key.startswith(self.base)]
        if mine != [(self.key, self.current)]:
            raise _Failed("does not list what was written, or under another ETag")
        return "listed, same ETag"

    async def races(self, keys: int) -> str:
        """Race on several keys at once: on each for the key itself, then from ETag to ETag."""
        chosen = [self._key(f"race{len(self._made) + number}") for number in range(keys)]
        await _all(self._two_heats(key) for key in chosen)
        return f"one winner in each of {2 * keys}"

    async def _two_heats(self, key: str) -> None:
        winner = await self._race(key, await self._race(key, None))
        # The second heat has found out if the first one's winner was not what is there.
        if not isinstance(await self.store.get(key, if_none_match=winner), NotModified):
            raise _Failed("holds another blob than the one that won the race")

    async def _race(self, key: str, start: ETag | None) -> ETag:
        """Let several swap from one ETag at once, and return the one winner's."""
        tried: set[bytes] = set()
        undecided: set[bytes] = set()
        for _ in range(BUSY_TRIES):
            bodies = [self._token() for _ in range(RACERS)]
            winners, untold = await self._race_once(key, bodies, start)
            if len(winners) > 1:
                raise _Failed(f"let {len(winners)} of {RACERS} win one race")
            if winners:
                return winners[0]
            # Nobody was told that it won: ask the blob.
            tried.update(bodies)
            undecided |= untold
            etag, data = await self._state_of(key)
            if etag is not None and etag != start and data in undecided:
                return etag
            if data in tried:
                start = etag  # sent twice on its way, and told that the second one had lost
            await self.clock.sleep(BUSY_WAIT_S)
        if untold:
            raise StoreBusyError(f"{self.store.url} decided none of {BUSY_TRIES} races")
        raise _Failed(f"let none of {RACERS} win a race, {BUSY_TRIES} times")

    async def _race_once(
        self, key: str, bodies: Sequence[bytes], start: ETag | None
    ) -> tuple[list[ETag], set[bytes]]:
        """Return the winners, and what those had tried to write who were told nothing."""
        barrier = asyncio.Event()

        async def racer(data: bytes) -> Swapped | Conflict | None:
            await barrier.wait()
            try:
                return await self.store.compare_and_swap(key, data, etag=start)
            except (OutcomeUnknownError, StoreBusyError):
                return None  # Ceph tells half of the losers 500

        self._made.add(key)
        running = asyncio.ensure_future(_all(racer(data) for data in bodies))
        await asyncio.sleep(0)
        barrier.set()
        answers = await running
        winners = [answer.etag for answer in answers if isinstance(answer, Swapped)]
        return winners, {
            data for data, answer in zip(bodies, answers, strict=True) if answer is None
        }

    async def delete(self) -> str:
        for key in sorted(self._made):
            await self.store.delete(key)
            with contextlib.suppress(BlobNotFoundError):
                await self.store.get(key)
                raise _Failed("still holds a blob that was deleted")
        self._made.clear()
        return "gone"

    # What the checks are made of.

    async def _swap(
        self, key: str, data: bytes, etag: ETag | None
    ) -> Swapped | Conflict | OutcomeUnknownError:
        """Compare and swap, with patience for a store that asks for it."""
        self._made.add(key)
        for left in range(BUSY_TRIES - 1, -1, -1):
            try:
                return await self.store.compare_and_swap(key, data, etag=etag)
            except StoreBusyError as busy:
                if left == 0:
                    raise
                await self.clock.sleep(max(BUSY_WAIT_S, busy.retry_after or 0.0))
            except OutcomeUnknownError as unknown:
                return unknown
        raise AssertionError("unreachable: the last try returns or raises")

    async def _must_refuse(self, key: str, etag: ETag | None, finding: str) -> None:
        """Fail if the store says that it wrote; `read_back` finds out if it wrote and denied it."""
        if isinstance(await self._swap(key, self._token(), etag), Swapped):
            raise _Failed(finding)

    async def _etag_if_holds(self, key: str, data: bytes) -> ETag | None:
        etag, found = await self._state_of(key)
        return etag if found == data else None

    async def _state_of(self, key: str) -> tuple[ETag | None, bytes]:
        try:
            found = await self.store.get(key)
        except BlobNotFoundError:
            return None, b""
        return (found.etag, found.data) if isinstance(found, Blob) else (None, b"")

    def _token(self) -> bytes:
        """Return a body that no other request of any probe has."""
        return self.clock.token(32)

    def _key(self, name: str) -> str:
        return f"{self.base}-{name}"


async def _all(works: Iterable[Awaitable[T]]) -> list[T]:
    """Return what all of them return, once all have ended; then the first error, as it is.

    A task group would wrap it, and nobody who asks for a MossError looks inside a group.
    """
    tasks = [asyncio.ensure_future(work) for work in works]
    await asyncio.gather(*tasks, return_exceptions=True)
    return [task.result() for task in tasks]
