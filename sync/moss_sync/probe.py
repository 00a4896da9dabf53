"""Finds out whether a store really compares and swaps, before anything is entrusted to it.

A store that answers 200 to a condition it ignores loses updates silently, and several do. So the
store is asked, with keys of its own that are deleted afterwards: the short form before a device's
first write to a store without a verdict (at most 12 requests where answers are clear), the long
form for `doctor`.

Rules of this file: the outcome of a write is what can be read back, as everywhere in the protocol.
An answer that leaves the outcome open counts as a lost race only once reading has shown that
nothing was written. A store in trouble (no network, no permission) is not a store without
compare-and-swap: such errors are raised as they are, and there is no verdict.
What holds: tests/moss_sync/test_probe.py. Source: SYNC-PROTOCOL 2.12.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from moss_sync.clock import Clock
from moss_sync.errors import (
    BlobCorruptError,
    BlobNotFoundError,
    MossError,
    OutcomeUnknownError,
    StoreBusyError,
    StoreLacksCasError,
)
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

SHORT_RACERS = 4
"""A 16-way race takes 3 to 5 s on SeaweedFS, whose lock waits in steps of a second."""
LONG_RACERS = 16
LONG_ROUNDS = 4
LONG_KEYS = 4

BUSY_TRIES = 5
BUSY_WAIT_S = 1.1
"""Cloudflare R2 takes one write a second per key."""

VERDICT_VERSION = 1


@dataclass(frozen=True, slots=True)
class ProbeVerdict:
    """What later devices need to know of a store that passed.

    Attributes:
        etag_form: How If-Match is to be written.
        long: The long form was run.
    """

    etag_form: EtagForm = "quoted"
    long: bool = False

    def to_dict(self) -> dict[str, int | str | bool]:
        """Return the verdict in plain types, to be sealed and stored."""
        return {"v": VERDICT_VERSION, "etag_form": self.etag_form, "long": self.long}

    @classmethod
    def from_dict(cls, stored: object) -> ProbeVerdict:
        """Return the verdict of a dict from `to_dict`; keys of later versions are ignored.

        Raises:
            BlobCorruptError: it is not such a dict.
        """
        form: dict[object, EtagForm] = {"quoted": "quoted", "bare": "bare"}
        if not isinstance(stored, Mapping):
            raise BlobCorruptError("the stored verdict on this store is no map")
        version, stated, long = stored.get("v"), stored.get("etag_form"), stored.get("long")
        known = isinstance(version, int) and version >= VERDICT_VERSION
        if not known or not isinstance(stated, str) or stated not in form:
            raise BlobCorruptError("the stored verdict on this store cannot be read")
        return cls(form[stated], long is True)

    def apply(self, store: BlobStore) -> None:
        """Make `store` write its conditions as the probe found right."""
        if isinstance(store, ChoosesEtagForm):
            store.etag_form = self.etag_form


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


async def probe(store: BlobStore, *, clock: Clock, prefix: str, long: bool = False) -> ProbeReport:
    """Try out `store` below `<prefix>_probe/` and set its ETag form to the one that works.

    Args:
        prefix: "" or a key prefix with its last `/`.
        long: Run every check and 16-way races, and return the report also when a check fails
            (see `ProbeReport.require`). The short form raises instead.

    Raises:
        StoreLacksCasError: a check of the short form failed.
        NetworkError, PermissionDeniedError, NotFoundError: the store could not be asked (short).
    """
    run = _Probe(store, clock, f"{prefix}_probe/{clock.token(10).hex()}")
    started = clock.monotonic()
    with metered() as meter:
        try:
            await (run.long() if long else run.short())
        finally:
            await run.clean_up()
    # Whoever meters the exchange around this sees these requests as well.
    count(requests=meter.requests, sent=meter.bytes_sent, received=meter.bytes_received)
    report = run.report
    report.requests = meter.requests
    report.elapsed_ms = (clock.monotonic() - started) * 1000
    if report.error is None:
        report.verdict = ProbeVerdict(run.etag_form, long)
    elif not long:
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
            (f"race of {SHORT_RACERS}", lambda: self.race(self.key, SHORT_RACERS)),
        ):
            if not await self._run(name, check):
                return

    async def long(self) -> None:
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
        for number in range(LONG_ROUNDS):
            await self._run(
                f"race of {LONG_RACERS} on {LONG_KEYS} keys, round {number + 1}", self.races
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

    async def races(self) -> str:
        keys = [self._key(f"race{number}") for number in range(LONG_KEYS)]
        await asyncio.gather(*(self.race(key, LONG_RACERS) for key in keys))
        return f"one winner in each of {LONG_KEYS}"

    async def race(self, key: str, racers: int) -> str:
        """Let `racers` swap from one ETag at once: exactly one may win."""
        for _ in range(BUSY_TRIES):
            start, winners, opened = await self._race_once(key, racers)
            if len(winners) > 1:
                raise _Failed(f"let {len(winners)} of {racers} win one race")
            if not winners and opened:
                # No racer was told that it won: ask the blob.
                found = await self.store.get(key)
                if isinstance(found, Blob) and found.etag != start:
                    winners = [(found.data, found.etag)] if found.data in opened else []
            if winners:
                data, etag = winners[0]
                if not isinstance(await self.store.get(key, if_none_match=etag), NotModified):
                    raise _Failed("holds another blob than the one that won the race")
                if key == self.key:
                    self.data, self.current = data, etag
                return f"1 of {racers} won"
            await self.clock.sleep(BUSY_WAIT_S)
        raise _Failed(f"let none of {racers} win a race, {BUSY_TRIES} times")

    async def _race_once(
        self, key: str, racers: int
    ) -> tuple[ETag | None, list[tuple[bytes, ETag]], set[bytes]]:
        """Return the ETag raced from, the winners, and what the undecided had tried to write."""
        start = self.current if key == self.key else await self._etag_of(key)
        barrier = asyncio.Event()
        bodies = [self._token() for _ in range(racers)]

        async def racer(data: bytes) -> Swapped | Conflict | None:
            await barrier.wait()
            try:
                return await self.store.compare_and_swap(key, data, etag=start)
            except (OutcomeUnknownError, StoreBusyError):
                return None  # Ceph tells half of the losers 500

        self._made.add(key)
        tasks = [asyncio.ensure_future(racer(data)) for data in bodies]
        barrier.set()
        # All of them end before one's error is told: a task group would wrap it, and nobody who
        # asks for a MossError looks inside a group.
        await asyncio.gather(*tasks, return_exceptions=True)
        answers = [(data, task.result()) for data, task in zip(bodies, tasks, strict=True)]
        winners = [(data, answer.etag) for data, answer in answers if isinstance(answer, Swapped)]
        return start, winners, {data for data, answer in answers if answer is None}

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
        try:
            found = await self.store.get(key)
        except BlobNotFoundError:
            return None
        return found.etag if isinstance(found, Blob) and found.data == data else None

    async def _etag_of(self, key: str) -> ETag | None:
        try:
            found = await self.store.get(key)
        except BlobNotFoundError:
            return None
        return found.etag if isinstance(found, Blob) else None

    def _token(self) -> bytes:
        """Return a body that no other request of any probe has."""
        return self.clock.token(32)

    def _key(self, name: str) -> str:
        return f"{self.base}-{name}"
