"""The checks of `moss-local doctor`; each is one finding and stands in the way of no other."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import file_digest
from importlib.resources import files
from pathlib import Path

from moss_local.cli import render
from moss_local.embedding import minilm
from moss_local.errors import CiphersMissingError
from moss_local.settings import Settings, credentials_path, load_credentials
from moss_local.storage import ciphers
from moss_local.storage.checkup import check_file
from moss_local.storage.connection import is_being_created
from moss_local.storage.paths import SALVAGE, project_path
from moss_local.storage.place import ENCRYPT, Place, Secrets, find_place
from moss_local.storage.project_cache import ProjectCache
from moss_local.storage.rejections import read_rejected
from moss_local.storage.salvage import left_behind
from moss_local.storage.schema import foreign_file
from moss_local.storage.state import read_state
from moss_sync import BlobNotFoundError, MossError, PermissionDeniedError
from moss_sync.clock import SystemClock
from moss_sync.commit import Commit
from moss_sync.errors import other_store_hint
from moss_sync.layout import Layout
from moss_sync.probe import LONG_ROUNDS, ProbeReport, probe
from moss_sync.repository import Repository
from moss_sync.stores import Blob, BlobStore, FolderStore, MayBeReplicated, open_store

MAX_CLOCK_OFFSET_MS = 60_000
"""The protocol's own bound: past it, stamps of writes are corrected when they are pushed."""


SHOWN_STRAYS = 10
"""So many are named; a folder that is full of something else is not listed whole."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's report.

    Attributes:
        todo: What to do about it, if it is not well.
    """

    name: str
    ok: bool
    detail: str
    todo: str | None = None


@dataclass(frozen=True, slots=True)
class KeyFinding:
    """What was found of the project key.

    Attributes:
        error: Why it could not be tried, or was refused.
        unknown: The store had nothing to try it on.
    """

    finding: Finding
    error: MossError | None = None
    unknown: bool = False


def check_device(settings: Settings) -> Iterator[Finding]:
    """Check all that needs no network; loads no model."""
    if os.name == "posix":
        yield _check_private(credentials_path(), 0o600, "credentials")
    yield from _check_model()
    yield from _check_rotation()
    directory = project_path(settings.data_dir, settings.project_id)
    try:
        os.listdir(directory)
    except FileNotFoundError:
        yield Finding("sessions", True, f"none yet in {directory}")
        return
    except OSError as error:
        yield Finding(
            "data directory",
            False,
            f"{directory} cannot be read: {error.strerror}",
            "check who owns it and the folders above it, and their modes",
        )
        return
    if os.name == "posix":
        yield _check_private(directory, 0o700, "data directory")
    place, finding = _check_at_rest(directory, settings)
    yield finding
    if place is not None:
        for path in place.files():
            if not is_being_created(path):
                yield _check_session(place, path)
        for path in left_behind(place):
            yield Finding(
                "repair",
                False,
                f"of the file {path.name.removeprefix(SALVAGE)} was cut off",
                "end it: moss-local repair SESSION",
            )
        for path in place.moved_aside():
            yield Finding(
                "damaged file",
                True,
                f"moved aside by a repair, and readable: {path}; delete it when nothing in it is "
                "missed (forget and delete do so too)",
            )


async def check_store(settings: Settings) -> list[Finding]:
    """Try the store out: whether it answers, what it can do, its clock, and the key.

    An empty store stays empty: it gets its repository with the first push.
    """
    try:
        store = open_store(settings.store)
    except MossError as error:
        return [Finding("store", False, str(error), error.hint)]
    clock = SystemClock()
    directory = project_path(settings.data_dir, settings.project_id)
    repository = Repository(
        store,
        settings.project_id,
        settings.project_key,
        cache=ProjectCache(directory),
        clock=clock,
        run=_run_here,
        commit=settings.commit,
    )
    try:
        key = await _check_key(repository)
        mode = await _mode(repository)
        elsewhere = await _of_another_store(repository, directory, settings)
        if mode == "log":
            return [*elsewhere, *await _check_log_store(store, clock, repository, key)]
        report = await probe(
            store, clock=clock, prefix=repository.layout.prefix, rounds=LONG_ROUNDS
        )
        await _tell_all(repository, report)
        if report.error is not None and not any(check.passed for check in report.checks):
            return _unusable(store, report.error, key)
        findings = [
            Finding(f"store: {check.name}", check.passed, f"{check.detail} ({check.ms:.0f} ms)")
            for check in report.checks
        ]
        if report.error is not None:
            findings.append(Finding("store", False, str(report.error), report.error.hint))
        else:
            cost = f"{render.plural(report.requests, 'request')}, {report.elapsed_ms:.0f} ms"
            findings.append(
                Finding("store", True, f'{store.url} can be used, commit="cas" ({cost})')
            )
            findings.append(await _check_clock(store, clock, f"{repository.layout.prefix}_probe"))
        findings += await _check_strays(store, repository.layout)
        if report.left_behind:
            findings.append(
                Finding(
                    "store: clean-up",
                    False,
                    f"not deleted: {render.plural(len(report.left_behind), 'blob')} of the probe",
                    "allow these credentials to delete, or remove what is below _probe/",
                )
            )
        return [key.finding, *elsewhere, *findings]
    finally:
        await store.close()


async def _tell_all(repository: Repository, report: ProbeReport) -> None:
    """Let every device know what was found, where the project is there and its key is right."""
    with suppress(MossError):  # what is wrong with either is said elsewhere
        await repository.publish_probe(report)


async def _of_another_store(
    repository: Repository, directory: Path, settings: Settings
) -> list[Finding]:
    """Return which sessions here belong to another store than the one that is named."""
    try:
        keys = await repository.keys()
        place = find_place(directory, Secrets(settings.project_key, settings.at_rest))
        files = place.files()
    except MossError:
        return []  # what is wrong is said elsewhere
    found: list[Finding] = []
    for path in files:
        with suppress(MossError):  # so is this
            name, repo_id = _repository_of(place, path)
            if repo_id is not None and (keys is None or keys.repo_id != repo_id):
                detail = f"has been exchanged with another store than {repository.store.url}"
                found.append(Finding(f"session {name}", False, detail, other_store_hint()))
    return found


def _repository_of(place: Place, path: Path) -> tuple[str, bytes | None]:
    file = place.open_file(path)
    try:
        with file.reading() as conn:
            return file.session, read_state(conn).repo_id
    finally:
        file.close()


async def _mode(repository: Repository) -> Commit:
    """Return how the repository commits, or will once it is made."""
    try:
        return await repository.mode()
    except MossError:
        return repository.wanted or "cas"  # what is wrong has been said


def _unusable(store: BlobStore, error: MossError, key: KeyFinding) -> list[Finding]:
    """Return, once, what is wrong with a store in which nothing at all could be tried.

    Args:
        key: What was found of the key, for which the store was asked before.
    """
    detail, todo = str(error), error.hint
    if isinstance(store, FolderStore):
        if isinstance(error, PermissionDeniedError):
            todo = _way_in(store.root)
        elif not os.path.lexists(store.root):
            detail = f"the folder {store.root} is not there"
    known = [] if key.unknown or isinstance(key.error, type(error)) else [key.finding]
    return [*known, Finding("store", False, detail, todo)]


def _way_in(folder: Path) -> str:
    """Return what lets this user write below a folder; it need not be there."""
    while not os.path.exists(folder) and folder != folder.parent:
        folder = folder.parent
    if hasattr(os, "statvfs") and os.statvfs(folder).f_flag & os.ST_RDONLY:
        return f"{folder} is on a file system that is read-only: mount it for writing"
    if os.name != "posix":
        return f"let this user write in {folder}"
    about = folder.stat()
    mode = f"{stat.S_IMODE(about.st_mode):04o}"
    if about.st_uid == os.geteuid():
        return f"{folder} is yours and has mode {mode}: chmod u+rwx {shlex.quote(str(folder))}"
    return (
        f"{folder} has mode {mode} and belongs to user {about.st_uid}; you are {os.geteuid()}:"
        " have its owner let you write there, or name another folder with --store"
    )


async def _check_log_store(
    store: BlobStore, clock: SystemClock, repository: Repository, key_found: KeyFinding
) -> list[Finding]:
    """Try out what a log needs: write, read, list, delete; no compare-and-swap."""
    folder = f"{repository.layout.prefix}_probe/"
    key, data = f"{folder}{clock.token(10).hex()}-log", clock.token(64)
    mode = Finding("store: mode", True, 'commit="log": blobs are only added, nobody coordinates')
    try:
        await store.put(key, data)
        found = await store.get(key)
        listed = [each.key for each in await store.keys(folder, start_after=key[:-1])]
        await store.delete(key)
    except MossError as error:
        return [mode, *_unusable(store, error, key_found)]
    whole = isinstance(found, Blob) and found.data == data and key in listed
    findings = [
        key_found.finding,
        mode,
        Finding(
            "store",
            whole,
            f"{store.url} {'can be used' if whole else 'does not show what was written'}",
            "name another store: a log needs one that gives back what was put into it",
        ),
        await _check_clock(store, clock, folder[:-1]),
    ]
    return findings + await _check_strays(store, repository.layout)


async def _check_strays(store: BlobStore, layout: Layout) -> list[Finding]:
    """Return what lies in a store's folder, at any level of it, and is not the store's."""
    if not isinstance(store, MayBeReplicated):
        return []
    strays: list[str] = []
    in_the_way: list[Finding] = []

    async def look(place: str, *, folders: bool) -> set[str]:
        try:
            found = await store.strays(place, folders=folders)
        except MossError as error:
            in_the_way.append(Finding("store: strays", False, str(error), error.hint))
            return set()
        return set(found)

    # What lies here and is no file: strays, and the folders of sessions.
    here = await look(layout.prefix, folders=False)
    sessions = await look(layout.prefix, folders=True) - here - {layout.manifests[:-1]}
    strays += sorted(here)
    strays += sorted(await look(layout.manifests, folders=True))
    for session in sorted(sessions):
        inside = await look(f"{session}/", folders=False)
        blobs = await look(f"{session}/", folders=True) - inside
        strays += sorted(inside)
        for folder in sorted(blobs):
            strays += sorted(await look(f"{folder}/", folders=True))
    if not strays:
        whole = Finding("store: strays", True, "no foreign, conflicted or unfinished files")
        return in_the_way or [whole]
    shown = ", ".join(map(repr, strays[:SHOWN_STRAYS]))
    detail = f"none of ours, left alone: {render.plural(len(strays), 'name')}, {shown}"
    return [*in_the_way, Finding("store: strays", True, detail)]


async def _run_here(fn, *args):  # type: ignore[no-untyped-def]  # a Runner: any function
    return fn(*args)


async def _check_key(repository: Repository) -> KeyFinding:
    try:
        await repository.check_key(contact=True)
        try:
            await repository.store.get(repository.layout.fmt)
        except BlobNotFoundError:
            detail = "the store has no repository of this project yet"
            return KeyFinding(Finding("key", True, detail), unknown=True)
        await repository.refresh()
    except MossError as error:
        return KeyFinding(Finding("key", False, str(error), error.hint), error)
    return KeyFinding(Finding("key", True, "opens the project's repository"))


async def _check_clock(store: BlobStore, clock: SystemClock, base: str) -> Finding:
    key = f"{base}/{clock.token(10).hex()}-clock"
    try:
        before = clock.wall_ms()
        theirs = await store.put(key, clock.token(16))
        after = clock.wall_ms()
        await store.delete(key)
    except MossError as error:
        return Finding("clock", False, str(error), error.hint)
    if theirs is None:
        return Finding("clock", True, "the store has none to compare with")
    offset = theirs - (before + after) // 2
    return Finding(
        "clock",
        abs(offset) <= MAX_CLOCK_OFFSET_MS,
        f"the store's is {abs(offset) / 1000:.1f} s {'ahead' if offset > 0 else 'behind'}",
        "set this machine's clock; the order of edits made at the same time depends on it",
    )


def _check_private(path: Path, mode: int, name: str) -> Finding:
    try:
        about = path.stat()
    except FileNotFoundError:
        return Finding(name, True, f"{path} is not there; the environment gives them")
    found = stat.S_IMODE(about.st_mode)
    return Finding(
        name,
        found & 0o077 == 0,
        f"{path} has mode {found:04o}",
        f"close it to others: chmod {mode:o} {path}",
    )


def _check_rotation() -> Iterator[Finding]:
    try:
        kept = load_credentials()
    except MossError as error:
        yield Finding("credentials", False, str(error), error.hint)
        return
    if kept is not None and kept.next_key is not None:
        yield Finding(
            "key rotation",
            False,
            f"of project {kept.project_id} was begun here and not ended",
            "end it: moss-local rotate-key",
        )


def _check_model() -> Iterator[Finding]:
    reinstall = f"{minilm.INSTALL} --force-reinstall"
    try:
        weights = minilm.packaged_weights()
    except MossError as error:
        yield Finding("model", False, str(error), error.hint)
        return
    tokenizer = Path(str(files("moss_local.embedding") / "tokenizer.json"))
    for what, path, expected in (
        ("weights", weights, minilm.WEIGHTS_SHA256),
        ("tokenizer", tokenizer, minilm.TOKENIZER_SHA256),
    ):
        name = f"model: {what}"
        try:
            with path.open("rb") as file:
                found = file_digest(file, "sha256").hexdigest()
        except OSError as error:
            yield Finding(name, False, f"{path} cannot be read: {error.strerror}", reinstall)
            continue
        yield Finding(name, found == expected, f"moss-minilm, sha256 {found[:16]}…", reinstall)


def _check_at_rest(directory: Path, settings: Settings) -> tuple[Place | None, Finding]:
    name = "encryption at rest"
    try:
        place = find_place(directory, Secrets(settings.project_key, settings.at_rest))
    except MossError as error:
        return None, Finding(name, False, str(error), error.hint)
    if place.keys is not None:
        return place, Finding(name, True, "on")
    how = (
        f"encrypt them with: {ENCRYPT}"
        if ciphers.available()
        else f"this apsw has no ciphers; {CiphersMissingError.INSTALL}, then {ENCRYPT}"
    )
    return place, Finding(
        name, True, f"off: session files are readable to who reads the disk; {how}"
    )


def _check_session(place: Place, path: Path) -> Finding:
    name, wrong = path.name, []
    try:
        file = place.open_file(path)
        try:
            name = file.session
            if path != place.path(name):
                raise foreign_file(path, name)
            with file.writing() as conn:
                wrong = check_file(conn)
                count = conn.execute("SELECT live FROM state").get
                rejected = read_rejected(conn)
        finally:
            file.close()
    except MossError as error:
        return Finding(f"session {name}", False, str(error), error.hint)
    damaged = bool(wrong)
    mode = stat.S_IMODE(path.stat().st_mode)
    if os.name == "posix" and mode & 0o077:
        wrong.append(f"its file has mode {mode:04o}: chmod 600 {path}")
    detail = "; ".join(wrong) if wrong else f"{render.plural(count, 'document')}, file whole"
    if rejected:
        detail += f"; of others, {len(rejected)} do not count, such as {rejected[0]}"
    return Finding(
        f"session {name}",
        not wrong,
        detail,
        f"moss-local repair {shlex.quote(name)}" if damaged else None,
    )
