"""`moss-local at-rest`: whether this device's session files are encrypted, and changing that."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from moss_local.cli import render
from moss_local.cli.command import AsJson, ask_for_key, globals_of, run


class Action(StrEnum):
    """What `at-rest` is to do."""

    STATUS = "status"
    ON = "on"
    OFF = "off"
    CHANGE_KEY = "change-key"


def at_rest(
    ctx: typer.Context,
    action: Annotated[Action, typer.Argument(help="What to do.")] = Action.STATUS,
    as_json: AsJson = False,
) -> None:
    """Encrypt this device's session files, or decrypt them.

    on and off convert every session of the project that is here; no program may have one open
    meanwhile. What is cut off is ended by the same command. The project key opens the files, or,
    where MOSS_AT_REST_KEY is set, that key. change-key lets the key in use open them instead of the
    one of before, which MOSS_OLD_AT_REST_KEY gives or the terminal is asked for; it writes no
    session file. Encrypting needs another build of SQLite: moss-local doctor has the command.

    JSON: {project, data_dir, encrypted, opened_by, sessions_converted}; opened_by is null, or holds
    "project" or "app".
    """
    from moss_local.errors import AtRestError
    from moss_local.settings import old_at_rest_key_of_environment
    from moss_local.storage.paths import project_path
    from moss_local.storage.place import ENCRYPT, read_key_file

    settings = globals_of(ctx).settings()
    directory = project_path(settings.data_dir, settings.project_id)
    converted = 0
    if action is Action.ON:
        converted = run(ctx, lambda client: client.encrypt_at_rest())
    elif action is Action.OFF:
        converted = run(ctx, lambda client: client.decrypt_at_rest())
    elif action is Action.CHANGE_KEY:
        if read_key_file(directory) is None:
            raise AtRestError(
                f"the session files in {directory} are not encrypted: there is no key to change",
                hint=f"encrypt them: {ENCRYPT}",
            )
        old = old_at_rest_key_of_environment() or ask_for_key(
            settings.project_id,
            variable="MOSS_OLD_AT_REST_KEY",
            command="moss-local at-rest change-key",
        )
        new = settings.at_rest if isinstance(settings.at_rest, str) else None
        run(ctx, lambda client: client.change_at_rest_key(new, old=old))
    contents = read_key_file(directory)
    kinds = None if contents is None else sorted(contents.kinds)
    if as_json:
        render.say_json(
            {
                "project": settings.project_id,
                "data_dir": str(settings.data_dir),
                "encrypted": contents is not None,
                "opened_by": kinds,
                "sessions_converted": converted,
            }
        )
        return
    state = "off" if kinds is None else f"on, opened by the {' or '.join(kinds)} key"
    rows = [("project", settings.project_id), ("encryption", state)]
    if action in (Action.ON, Action.OFF):
        rows.append(("converted", render.plural(converted, "session")))
    render.table(rows)
