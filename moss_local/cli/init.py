"""`moss-local init`: the only set-up of a device, and how a second one joins."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moss_local.cli import render
from moss_local.cli.command import (
    ask_for_key,
    check_lasting,
    globals_of,
    warn_of_weakness,
)
from moss_sync import InvalidArgumentError

if TYPE_CHECKING:
    from moss_local.settings import Credentials

PROJECT_RANDOM_BYTES = 5
"""40 random bits: two people who share a bucket do not choose the same project id."""


_MADE_HERE = "let a key be made here: unset MOSS_PROJECT_KEY, and moss-local init --force"
_REPLACED = "let another one be made, here or elsewhere: moss-local rotate-key"


def init(
    ctx: typer.Context,
    project: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Project id; MOSS_PROJECT_ID, or a new one, if left out."),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Where devices meet; a local folder if left out."),
    ] = None,
    commit: Annotated[
        str | None,
        typer.Option(
            metavar="MODE",
            help="log: for a folder that a service replicates (Dropbox, iCloud, OneDrive, "
            "Syncthing) and a store without compare-and-swap. Left out: the store must have it.",
        ),
    ] = None,
    join: Annotated[
        bool,
        typer.Option("--join", help="Join a project that exists: asks for its key."),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the credentials; the old ones are kept aside.")
    ] = False,
    show_key: Annotated[
        bool, typer.Option("--show-key", help="Print the key, to write it down.")
    ] = False,
) -> None:
    """Set this device up: a project id and its key.

    The key never leaves your devices. A new one is made unless MOSS_PROJECT_KEY has one or --join
    asks for it. On a second device: moss-local init --join --project ID --store URL. Nothing is
    asked where there is no terminal.
    """
    from moss_local.settings import (
        Credentials,
        check_commit,
        check_copied,
        credentials_path,
        key_of_environment,
        load_credentials,
        new_key,
        project_of_environment,
        save_credentials,
    )
    from moss_local.storage.paths import check_name
    from moss_sync.clock import SystemClock
    from moss_sync.layout import base32

    before = globals_of(ctx)  # `moss-local --store URL init` is meant as it is said
    project = project or before.project or project_of_environment()
    store = store or before.store
    clock = SystemClock()
    if join and project is None:
        raise InvalidArgumentError(
            "joining needs the project's id", hint="moss-local init --join --project ID"
        )
    id = project or f"project-{base32(clock.token(PROJECT_RANDOM_BYTES))}"
    check_name(id, what="project id")
    place = None if store is None else _checked_store(store)
    mode = check_commit(commit, "--commit")
    path = credentials_path()
    kept: Path | None = None
    if path.exists():
        if not force:
            known = load_credentials()
            if known is not None and show_key and project is None and store is None:
                _print(known, path, show_key=True)
                return
            raise InvalidArgumentError(
                f"this device is set up already: {path}",
                hint="to set up another project: moss-local init --force",
            )
        # Without its key nobody can read what a project has stored, so the old one is kept.
        kept = path.with_name(f"credentials-{clock.wall_ms()}.json")
    key = check_copied(
        key_of_environment()
        or (
            ask_for_key(id, variable="MOSS_PROJECT_KEY", command="moss-local init --join")
            if join
            else new_key()
        )
    )
    if kept is not None:
        kept.hardlink_to(path)
        render.talk(f"the old credentials are kept in {kept}")
    made = Credentials(id, key, place, commit=mode)
    save_credentials(made)
    _print(made, path, show_key=show_key)
    warn_of_weakness(key, id, remedy=_REPLACED if join else _MADE_HERE)
    render.talk(*_second_device(id, place, mode))


def _print(credentials: Credentials, path: Path, *, show_key: bool) -> None:
    rows = [
        ("project", credentials.project_id),
        ("store", credentials.store or "a folder of this device"),
        ("credentials", str(path)),
    ]
    render.table([*rows, ("key", credentials.project_key)] if show_key else rows)


def _checked_store(store: str) -> str:
    """Return the URL as it is to be kept: a path is made independent of the current directory."""
    from moss_sync.stores import open_store

    check_lasting(store)
    open_store(store)  # refuses what is no store; opens nothing yet
    return store if "://" in store else str(Path(store).expanduser().absolute())


def _second_device(project: str, store: str | None, commit: str | None) -> Sequence[str]:
    if store is None:
        return (
            "To share sessions with a second device, choose a store that both reach, such as a",
            "shared folder or a bucket: moss-local init --force --join --project "
            f"{project} --store URL",
        )
    mode = "" if commit is None else f" --commit {commit}"
    return (
        "On a second device:",
        f"  moss-local init --join --project {project} --store '{store}'{mode}",
        "It asks for the key; read it here with: moss-local init --show-key",
    )
