"""What every command stands on: the options of all, the client, the event loop, errors and exits.

A command is a plain function. What it awaits runs through `run`; what goes wrong is raised and
becomes one sentence, a hint and an exit code in `Commands`, and nowhere else.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.core import TyperGroup

from moss_local.cli import render
from moss_local.cli.loop import run_to_end
from moss_sync import InvalidArgumentError, MossError

if TYPE_CHECKING:
    from moss_local.catalog import Catalog
    from moss_local.client import MossClient
    from moss_local.session import SessionIndex
    from moss_local.settings import Settings
    from moss_local.types import SyncState

T = TypeVar("T")

INTERRUPTED = 130
"""What a shell reports of a program that Ctrl-C ended: 128 + SIGINT."""

Name = Annotated[str, typer.Argument(metavar="SESSION", help="Name of the session.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead.")]
Filter = Annotated[
    str | None,
    typer.Option("--filter", metavar="JSON", help="Only documents whose metadata match this."),
]
Local = Annotated[bool, typer.Option("--local", help="Ask this device only, not the store.")]

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@dataclass(frozen=True, slots=True)
class Globals:
    """The options that stand before every command; None where they were not given."""

    store: str | None = None
    data_dir: str | None = None
    project: str | None = None

    def client(self, project_key: str | None = None) -> MossClient:
        """Return a client with these settings; imports what it takes only now."""
        from moss_local.client import MossClient

        self.settings(project_key)
        return MossClient(self.project, project_key, store=self.store, data_dir=self.data_dir)

    def settings(self, project_key: str | None = None) -> Settings:
        """Return the settings that such a client has."""
        from moss_local.settings import resolve

        found = resolve(
            self.project, project_key, store=self.store, data_dir=self.data_dir, cache_path=None
        )
        check_lasting(found.store)
        return found


class Commands(TyperGroup):
    """The group of all commands: turns what they raise into words and exit codes."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except MossError as error:
            fail(error)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt:
            render.talk("interrupted")
            raise typer.Exit(INTERRUPTED) from None
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except Exception as error:
            # Typer's own errors of usage know how to show themselves.
            if hasattr(error, "format_message"):
                self._tell_the_place(error)
                raise
            unexpected(error)
            raise typer.Exit(MossError.exit_code) from error

    def _tell_the_place(self, error: Any) -> None:
        """Where an option of all commands stands behind one, say where it belongs."""
        given, ctx = getattr(error, "option_name", None), getattr(error, "ctx", None)
        if ctx is not None and any(given in param.opts for param in self.params):
            error.possibilities = None
            error.message = (
                f"{given} stands before the command\n"
                f"hint: moss-local {given} ... {ctx.info_name} ..."
            )


def check_lasting(store: str) -> None:
    """Refuse a store in memory: what one command put there the next would miss, and its session
    would belong to a store that is no more.

    Raises:
        InvalidArgumentError: it is one.
    """
    if store.lower().startswith("memory:"):
        raise InvalidArgumentError(
            f"the store {store!r:.80} ends with the program that made it: no command can use it",
            hint="give a folder, or s3://BUCKET/PREFIX: --store, or MOSS_STORE",
        )


def fail(error: MossError) -> None:
    """Say what went wrong and what to do about it."""
    render.talk(f"error: {error}")
    if error.hint is not None:
        render.talk(f"hint: {error.hint}")
    _traceback(error)


def unexpected(error: Exception) -> None:
    """Say that there is a bug."""
    render.talk(f"error: {type(error).__name__}: {error}")
    render.talk("hint: this should not happen; set MOSS_DEBUG=1 to see where, and report it")
    _traceback(error)


def globals_of(ctx: typer.Context) -> Globals:
    """Return the options that stood before the command."""
    found = ctx.find_object(Globals)
    return Globals() if found is None else found


def ask_for_key(project: str, *, variable: str, command: str) -> str:
    """Return a key typed at the terminal, unseen.

    Raises:
        InvalidArgumentError: there is no terminal; the message names the variable to set instead.
    """
    if not sys.stdin.isatty():
        raise InvalidArgumentError(
            f"the key of project {project!r} is not in {variable}, and there is no terminal"
            " to ask for it",
            hint=f"set {variable}, or run {command} in a terminal",
        )
    key: str = typer.prompt(render.visible(f"Key of project {project}"), hide_input=True, err=True)
    return key.strip()


def warn_of_weakness(key: str, project: str, *, remedy: str) -> None:
    """Say how soon a key that somebody has chosen could be guessed, and what to do instead."""
    from moss_local.key_strength import weakness_of

    told = weakness_of(key, project_id=project)
    if told is not None:
        render.talk(f"warning: {told}")
        render.talk(f"hint: {remedy}")


def confirm(question: str, yes: bool) -> None:
    """Ask before something is done that nothing undoes.

    Raises:
        InvalidArgumentError: there is no terminal to ask at.
        typer.Abort: the answer was no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise InvalidArgumentError(
            f"there is no terminal to ask at: {question}", hint="add --yes; nothing undoes it"
        )
    typer.confirm(render.visible(question), abort=True, err=True)


def run(
    ctx: typer.Context,
    work: Callable[[MossClient], Awaitable[T]],
    *,
    project_key: str | None = None,
) -> T:
    """Run what a command awaits with a client, and close it.

    Args:
        project_key: Instead of the one that the settings give.
    """
    client = globals_of(ctx).client(project_key)

    async def inside() -> T:
        async with client:
            return await work(client)

    return run_to_end(inside)


async def open_to_read(
    client: MossClient, name: str, *, local: bool, warm_up: bool
) -> SessionIndex:
    """Open a session that exists, pulled if the store answers; say so if it does not."""
    session = await client.session(name, auto_load_on_init=not local, create=False, warm_up=warm_up)
    tell_of_state(session.sync_state)
    if session.last_report is not None and session.last_report.older_copy:
        from moss_local.exchange import OLDER_COPY

        render.talk(f"{name}: {OLDER_COPY}")
    return session


@asynccontextmanager
async def opened_to_fill(
    client: MossClient, name: str, *, pull_known: bool = True, warm_up: bool = True
) -> AsyncIterator[SessionIndex]:
    """Open a session to put something into; one that was made for what is then refused goes again.

    Args:
        pull_known: Pull one that is on this device already; others are pulled in any case.
    """
    here = any(known.name == name for known in (await client.local_sessions()).sessions)
    session = await client.session(name, auto_load_on_init=pull_known or not here, warm_up=warm_up)
    try:
        yield session
    except MossError:
        if not here:
            with suppress(MossError):  # what was refused is the error to tell
                await session.close()
                await client._opened().take_back(name)
        raise


def filter_of(text: str | None) -> Any:
    """Return the filter that was given as JSON, None if none was."""
    from moss_local.inputs import value_of_json

    if text is None:
        return None
    value = value_of_json(text, source="--filter")
    if value is None:  # which in Python is no filter at all
        raise InvalidArgumentError("--filter is null", hint="leave it out to see all documents")
    return value


def unreadable_fields(catalog: Catalog) -> list[dict[str, str]]:
    """Return what of this device could not be read, for JSON."""
    pairs = zip(catalog.unreadable_paths, catalog.unreadable, strict=True)
    return [{"path": str(path), "code": e.code, "message": str(e)} for path, e in pairs]


def tell_not_listed(errors: Sequence[MossError], *, listed: bool) -> None:
    """Say what could not be read.

    Raises:
        MossError: the first of it, where nothing could: that is not the same as that there is
            nothing.
    """
    if errors and not listed:
        raise errors[0]
    for error in errors:
        render.talk(f"not listed: {error}")
        if error.hint is not None:
            render.talk(f"hint: {error.hint}")


def missing_folder(ctx: typer.Context) -> Path | None:
    """Return the folder that is the store, if it is not there: it then reads as an empty store.

    The first push makes it. But it may also be that the disk that it is on is not mounted; the
    one in the data directory, which nobody has named, is on none of its own.
    """
    from moss_sync.stores import FolderStore, open_store

    settings = globals_of(ctx).settings()
    store = open_store(settings.store)
    if settings.store == str(settings.data_dir / "store"):
        return None
    if isinstance(store, FolderStore) and not os.path.lexists(store.root):
        return store.root
    return None


def tell_of_missing(folder: Path) -> None:
    """Say that the store's folder was not there, and what has become of that."""
    if os.path.lexists(folder):
        render.talk(f"a new store was made in {folder}")
    else:
        render.talk(
            f"the store folder {folder} does not exist (yet); if it is on a disk or share,"
            " mount that first"
        )


def tell_of_state(state: SyncState) -> None:
    """Say what keeps a session from being exchanged, if anything does."""
    if state.status == "offline":
        offline(str(state.reason))
    elif state.status == "stopped":
        not_exchanged(str(state.reason), state.hint)


def not_exchanged(reason: str, hint: str | None) -> None:
    """Say that something must be done before anything is exchanged again."""
    render.talk(f"not exchanged: {reason}; this is what is on this device")
    if hint is not None:
        render.talk(f"hint: {hint}")


def offline(reason: str) -> None:
    """Say that the store did not answer and what follows from it."""
    render.talk(f"offline: {reason}; this is what is on this device")


def _traceback(error: BaseException) -> None:
    from moss_local.settings import debug_wanted

    if debug_wanted():
        render.talk(*"".join(traceback.format_exception(error)).splitlines())
