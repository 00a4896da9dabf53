"""The program `moss-local`: its global options and the list of its commands."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from moss_local.cli.add import add
from moss_local.cli.at_rest import at_rest
from moss_local.cli.command import INTERRUPTED, Commands, Globals
from moss_local.cli.delete import delete
from moss_local.cli.demo import demo
from moss_local.cli.doctor import doctor
from moss_local.cli.exchange import pull, push, sync
from moss_local.cli.export import export
from moss_local.cli.forget import forget
from moss_local.cli.history import history
from moss_local.cli.import_file import import_file
from moss_local.cli.init import init
from moss_local.cli.quarantine import quarantine
from moss_local.cli.query import query
from moss_local.cli.reembed import reembed
from moss_local.cli.repair import repair
from moss_local.cli.rotate_key import rotate_key
from moss_local.cli.sessions import sessions
from moss_local.cli.show import show
from moss_local.cli.status import status

app = typer.Typer(
    name="moss-local",
    cls=Commands,
    # Plain help: the same on every terminal and in the documentation, and rich stays unloaded.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

EXAMPLES: dict[Callable[..., None], str] = {
    demo: "moss-local demo",
    init: "moss-local init",
    add: 'moss-local add conv-123 "Customer reported a duplicate charge." --metadata channel=voice',
    query: 'moss-local query conv-123 "status of the refund" --top-k 3',
    show: "moss-local show conv-123",
    history: "moss-local history conv-123 --json",
    quarantine: "moss-local quarantine conv-123 --json",
    forget: "moss-local forget conv-123 turn-1 --yes",
    sessions: "moss-local sessions",
    status: "moss-local status conv-123",
    push: "moss-local push conv-123",
    pull: "moss-local pull --all",
    sync: "moss-local sync conv-123",
    export: "moss-local export conv-123 conv-123.moss",
    import_file: "moss-local import conv-123.moss --session conv-124",
    doctor: "moss-local doctor",
    at_rest: "moss-local at-rest",
    reembed: "moss-local reembed conv-123 --model moss-minilm",
    repair: "moss-local repair conv-123",
    rotate_key: "moss-local rotate-key",
    delete: "moss-local delete conv-123 --yes",
}
"""Each command's help ends with its example; a test runs them in this order."""

for function, example in EXAMPLES.items():
    # The word after the program: "import" cannot be the name of a function.
    app.command(example.split()[1], epilog=f"\b\nExample:\n  {example}")(function)


@app.callback(epilog="\b\nExample:\n  moss-local --data-dir ./laptop --store ./shared sessions")
def options(
    ctx: typer.Context,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where devices meet: a folder or s3://bucket/prefix?endpoint_url=URL; else"
            " MOSS_STORE, else what init wrote.",
        ),
    ] = None,
    data_dir: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Where this device keeps its sessions; else MOSS_DATA_DIR, else the user's data"
            " directory.",
        ),
    ] = None,
    project: Annotated[
        str | None,
        typer.Option(metavar="ID", help="The project; else MOSS_PROJECT_ID, else what init wrote."),
    ] = None,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version and end.",
            is_eager=True,
            callback=lambda wanted: _version(wanted),
        ),
    ] = False,
) -> None:
    """Memory for agents: sessions on this device, searched here, merged through a sealed store.

    Options stand before the command. The key comes from MOSS_PROJECT_KEY or from what init wrote,
    never from an argument. Data goes to stdout, everything else to stderr; the exit code says what
    kind of error it was (docs/errors.md). MOSS_DEBUG=1 shows tracebacks. A memory:// store, which
    ends with its program, is for Python only.
    """
    ctx.obj = Globals(store, data_dir, project)


def main() -> None:
    """Run the command line and exit with its code."""
    # What it has to say it says itself; unheard warnings would be printed beside that.
    logging.getLogger("moss_local").addHandler(logging.NullHandler())
    for stream in (sys.stdout, sys.stderr):
        # A document may hold what the terminal's encoding has no characters for.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # is TextIOWrapper
    try:
        app(prog_name="moss-local")
    except SystemExit as end:
        if end.code == INTERRUPTED:
            # Embedding threads would be waited for; what is acknowledged is on disk already.
            sys.stdout.flush()
            os._exit(INTERRUPTED)
        raise


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"moss-local {version('moss-local')}")
        raise typer.Exit


if __name__ == "__main__":
    main()
