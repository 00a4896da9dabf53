"""`moss-local rotate-key`: a new key for the project, where it is made and on the other devices.

The new key is on this device's disk before the store hears of it, so that no crash can lose it:

  1 credentials file: the new key beside the old one      crash: the old key opens the project
  2 rotate, in the store                                  crash: one of the two does
  3 credentials file: the new key alone                   crash: `rotate-key` again ends it
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moss_local.cli import render
from moss_local.cli.command import (
    AsJson,
    ask_for_key,
    fail,
    globals_of,
    run,
    warn_of_weakness,
)
from moss_sync import InvalidArgumentError, KeyRotatedError, NotFoundError, NotInLogModeError

if TYPE_CHECKING:
    from moss_local.settings import Credentials, Settings
    from moss_local.types import Rewritten


def rotate_key(
    ctx: typer.Context,
    root_only: Annotated[
        bool,
        typer.Option("--root-only", help="Seal under a new root key; the project key stays."),
    ] = False,
    rewrite_now: Annotated[
        bool,
        typer.Option(
            "--rewrite-now", help="Then seal anew what stands in the store, session by session."
        ),
    ] = False,
    rewrite_only: Annotated[
        bool,
        typer.Option("--rewrite-only", help="Only that, for a rotation that was made before."),
    ] = False,
    join: Annotated[
        bool,
        typer.Option("--join", help="Take over a key that another device has rotated to."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Give the project a new key.

    From then on everything is sealed under a new root key, which only the new project key opens;
    what was sealed before stays readable to whoever has the new key. The new key is made here, or
    taken from MOSS_NEW_PROJECT_KEY, and replaces the old one in the credentials file. The other
    devices need it too: read it here with moss-local init --show-key, and there run moss-local
    rotate-key --join, which asks for it. A rotation that was interrupted is ended by the same
    command. To shut somebody out, add --rewrite-now: when all sessions are sealed anew, nothing
    that is sealed under an older key counts any more, on any device; and refuse them the store as
    well. What they have read they have. What no key of the project opens is named, and left out.

    JSON: {project, epoch, revoked, rewritten: [{session, merges, left_out, error}]}; revoked is
    whether older keys count no more, null where that was not asked for; error is null or {code,
    message}; left_out says that it kept no key valid.
    """
    if join + root_only + rewrite_only > 1 or (join and rewrite_now):
        raise InvalidArgumentError(
            "--join, --root-only and --rewrite-only exclude each other, and --join --rewrite-now",
            hint="moss-local rotate-key, or moss-local rotate-key --join",
        )
    settings = globals_of(ctx).settings()
    key: str | None = None
    if join:
        epoch = _joined(ctx, settings)
    elif rewrite_only:
        epoch = run(ctx, lambda client: client.check_key())
    elif root_only:
        epoch = run(ctx, lambda client: client.rotate_key())
    else:
        epoch, key = _rotated(ctx, settings)
    rewritten: list[Rewritten] = []
    if rewrite_now or rewrite_only:
        rewritten = run(ctx, lambda client: client.rewrite_sessions(), project_key=key)
    revoked = None
    if (rewrite_now or rewrite_only) and epoch > 1:
        revoked = all(each.error is None or each.left_out for each in rewritten)
    _print(settings, epoch, rewritten, revoked, as_json=as_json)
    if not (join or root_only or rewrite_only):
        render.talk(
            "the other devices need the new key: read it here with moss-local init --show-key,",
            "and there run moss-local rotate-key --join",
        )
    for each in rewritten:
        if each.left_out:
            render.talk(
                f"left out: {each.session}",
                "if that was a session of yours, on a device that holds it: "
                "moss-local repair SESSION",
            )
    failed = [each.error for each in rewritten if each.error and not each.left_out]
    for error in failed:
        fail(error)
    if failed:
        render.talk(
            "what is sealed under older keys still counts, in all sessions: mend those above on",
            "a device that holds them (moss-local repair SESSION), or delete a blob that is none",
            "of yours from the store; then moss-local rotate-key --rewrite-only",
        )
        raise typer.Exit(failed[0].exit_code)


def _rotated(ctx: typer.Context, settings: Settings) -> tuple[int, str]:
    from moss_local.settings import (
        check_copied,
        key_of_environment,
        new_key,
        new_key_of_environment,
        save_credentials,
    )

    given = new_key_of_environment()
    if given is not None:
        check_copied(given)
    kept = _kept(settings)
    if kept is None and given is None:
        raise InvalidArgumentError(
            f"the key of project {settings.project_id!r} is not in the credentials file, so there "
            "is no place to keep a new one",
            hint="put a new one where you keep the old one, and into MOSS_NEW_PROJECT_KEY",
        )
    if kept is not None and given is not None and kept.next_key not in (None, given):
        raise InvalidArgumentError(
            "a rotation to another key than that in MOSS_NEW_PROJECT_KEY was begun and not ended; "
            "the project may be open with that one already",
            hint="end it first: unset MOSS_NEW_PROJECT_KEY, and moss-local rotate-key",
        )
    key = given or (kept and kept.next_key) or new_key()
    if kept is not None:
        save_credentials(replace(kept, next_key=key))
    try:
        epoch = run(ctx, lambda client: client.rotate_key(key))
    except (NotFoundError, NotInLogModeError, KeyRotatedError):
        if kept is not None:
            save_credentials(kept)  # nothing was begun, so doctor must not ask to end it
        raise
    if kept is not None:
        save_credentials(replace(kept, project_key=key, next_key=None))
    warn_of_weakness(
        key,
        settings.project_id,
        remedy="let one be made: unset MOSS_NEW_PROJECT_KEY, and moss-local rotate-key",
    )
    if key_of_environment() is not None:
        render.talk("MOSS_PROJECT_KEY still holds the old key: set it to the new one")
    return epoch, key


def _joined(ctx: typer.Context, settings: Settings) -> int:
    from moss_local.settings import check_copied, new_key_of_environment, save_credentials

    kept = _kept(settings)
    if kept is None:
        raise InvalidArgumentError(
            f"the key of project {settings.project_id!r} is not in the credentials file",
            hint="set MOSS_PROJECT_KEY to the new key; nothing else is needed",
        )
    key = check_copied(
        new_key_of_environment()
        or ask_for_key(
            settings.project_id,
            variable="MOSS_NEW_PROJECT_KEY",
            command="moss-local rotate-key --join",
        )
    )
    epoch = run(ctx, lambda client: client.check_key(), project_key=key)
    _let_open_files(settings, key, keep_old=True)
    save_credentials(replace(kept, project_key=key, next_key=None))
    _let_open_files(replace(settings, project_key=key), key, keep_old=False)
    return epoch


def _let_open_files(settings: Settings, key: str, *, keep_old: bool) -> None:
    """Let the new project key open this device's encrypted files, where the old one does."""
    from moss_local.storage.paths import project_path
    from moss_local.storage.place import Secrets, rewrap

    if isinstance(settings.at_rest, str):
        return  # no business of the project key
    directory = project_path(settings.data_dir, settings.project_id)
    rewrap(directory, Secrets(settings.project_key), Secrets(key), keep_old=keep_old)


def _kept(settings: Settings) -> Credentials | None:
    """Return the credentials file if the key in use is the one that it keeps."""
    from moss_local.settings import load_credentials

    kept = load_credentials()
    if kept is None or kept.project_id != settings.project_id:
        return None
    return kept if kept.project_key == settings.project_key else None


def _print(
    settings: Settings,
    epoch: int,
    rewritten: list[Rewritten],
    revoked: bool | None,
    *,
    as_json: bool,
) -> None:
    if as_json:
        render.say_json(
            {
                "project": settings.project_id,
                "epoch": epoch,
                "revoked": revoked,
                "rewritten": [_fields(each) for each in rewritten],
            }
        )
        return
    rows = [("project", settings.project_id), ("key epoch", str(epoch)), *_rows(rewritten)]
    if revoked is not None:
        rows.append(("older keys", "count no more" if revoked else "still count"))
    render.table(rows)


def _rows(rewritten: list[Rewritten]) -> Iterator[tuple[str, str]]:
    for each in rewritten:
        if each.error is None:
            did = f"{render.plural(each.merges, 'merge')}" if each.merges else "nothing was old"
            yield f"rewritten: {each.session}", did


def _fields(each: Rewritten) -> dict[str, Any]:
    error = each.error
    shown = None if error is None else {"code": error.code, "message": str(error)}
    return {
        "session": each.session,
        "merges": each.merges,
        "left_out": each.left_out,
        "error": shown,
    }
