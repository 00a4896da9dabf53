"""A session out into a file, and what a file holds into a session; each all or not at all.

What is taken over is written as if it had been given to `add_docs`: the session's model, history,
and exchange with other devices are what they are for every other edit. Vectors go along where both
sides have the same model; otherwise they are made here, from the texts.
What holds: tests/moss_local/test_transfer.py. Why edits: docs/design/0012-files.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import apsw

from moss_local import portable
from moss_local.errors import SnapshotCorruptError
from moss_local.model_choice import CUSTOM_ID, ModelChoice
from moss_local.portable import Header
from moss_local.snapshots import header_of, opened, write_whole
from moss_local.storage.contents import Taken, count_contents, read_contents, take_over
from moss_local.storage.documents import Document
from moss_local.storage.file import SessionFile
from moss_local.storage.rows import establish_space
from moss_local.storage.state import State, read_state
from moss_local.storage.vectors import move_space
from moss_local.types import Exported
from moss_sync import InvalidArgumentError, ModelMismatchError, NotFoundError, VectorSpace

Format = Literal["moss", "jsonl"]
FORMATS: tuple[Format, ...] = ("moss", "jsonl")


def check_format(format: str) -> Format:
    """Return a format if there is one of that name."""
    for each in FORMATS:
        if format == each:
            return each
    raise InvalidArgumentError(
        f"format is {format!r}", hint=f"formats are: {', '.join(map(repr, FORMATS))}"
    )


def export(file: SessionFile, path: Path, format: Format, *, folders: bool = False) -> Exported:
    """Write all documents of a session, of one moment, to a file. Blocking."""
    with file.reading() as conn:
        state = read_state(conn)
        docs, vectors = count_contents(conn)
        header = Header(file.session, docs, vectors, state.space)

        def write(out: BinaryIO) -> None:
            contents = read_contents(conn)
            if format == "moss":
                portable.write(out, header, contents)
            else:
                for line in _lines(contents, state.space):
                    out.write(line)

        size = write_whole(path, write, folders=folders)
    return Exported(str(path.absolute()), docs, size)


def _lines(documents: Iterator[Document], space: VectorSpace | None) -> Iterator[bytes]:
    """Yield JSON Lines as `add_docs` reads them; vectors only where they are the caller's own."""
    own = space is not None and space.id == CUSTOM_ID
    for document in documents:
        fields: dict[str, Any] = {"id": document.id, "text": document.text}
        if document.metadata is not None:
            fields["metadata"] = dict(document.metadata)
        if document.payload is not None:
            fields["payload"] = document.payload
        if own and document.vector is not None:
            fields["embedding"] = document.vector.tolist()
        yield json.dumps(fields, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def is_portable(path: Path) -> bool:
    """Return whether a file begins as `export` begins one."""
    with opened(path) as source:
        return source.read(len(portable.MAGIC)) == portable.MAGIC


@dataclass(frozen=True, slots=True)
class Plan:
    """How the documents of a file go into a session.

    Attributes:
        space: What the vectors that go along are of; None takes none along.
        moves: The session has vectors of another model, which give way to the file's.
        lacking: Documents whose vectors are to be made afterwards.
    """

    path: Path
    header: Header
    space: VectorSpace | None
    moves: bool
    lacking: int


def plan_import(path: Path, state: State, model: ModelChoice, *, replace: bool) -> Plan:
    """Read a file once, whole, and decide how its documents go into a session. Blocking.

    Raises:
        SnapshotCorruptError: it is damaged, or none; nothing was changed.
        ModelMismatchError: its vectors are of another model than the session's, and cannot be made
            anew: one of the two is "custom".
    """
    header = verify(path)
    theirs = header.space
    keeps = theirs is None or _fits(theirs, state, model)
    moves = replace and state.repo_id is None and model.wanted is None
    if not keeps and not moves and theirs is not None:
        stored = model.id(state.space)
        if CUSTOM_ID in (theirs.id, stored):
            raise _mismatch(path, theirs, state, stored)
    space = theirs if keeps or moves else None
    lacking = header.docs - (0 if space is None else header.vectors)
    if lacking and (space.id if space is not None else model.id(state.space)) == CUSTOM_ID:
        raise InvalidArgumentError(
            f"{path} has documents without a vector, and session {state.session!r} is of model "
            "'custom'",
            hint="take it over into a session of a model, or add the documents with vectors",
        )
    return Plan(path, header, space, moves and not keeps, lacking)


def verify(path: Path) -> Header:
    """Read a file to its end and return what it says of itself. Blocking.

    Raises:
        SnapshotCorruptError: it is damaged, or none.
        NotFoundError, PermissionDeniedError: it cannot be read.
    """
    with opened(path) as source:
        for _ in portable.read(source, str(path)):
            pass
    return header_of(path)


def _fits(theirs: VectorSpace, state: State, model: ModelChoice) -> bool:
    """Whether the session can have these vectors as they are."""
    if state.space is not None or model.space(None) == theirs:
        return theirs == model.space(state.space)
    # The first vectors of a session say which model it is of, unless it was opened with another.
    return model.wanted is None or model.wanted.id == theirs.id == CUSTOM_ID


def _mismatch(
    path: Path, theirs: VectorSpace, state: State, stored: str
) -> ModelMismatchError | InvalidArgumentError:
    if theirs.id != stored:
        return ModelMismatchError(state.session, stored=stored, wanted=theirs.id)
    dim = 0 if state.space is None else state.space.dim
    return InvalidArgumentError(
        f"{path} has vectors of {theirs.dim} dimensions; session {state.session!r} has {dim}"
    )


def carry_out(
    plan: Plan,
    writing: AbstractContextManager[apsw.Connection],
    *,
    model: Callable[[], VectorSpace | None],
    now_ms: int,
    replace: bool,
) -> Taken:
    """Write what was planned, in one transaction. Blocking.

    Args:
        model: The space that a session without vectors gets when they are to be made.
    """
    with opened(plan.path) as source, writing as conn:
        state = read_state(conn)
        if plan.moves and plan.space is not None and state.repo_id is None:
            move_space(conn, state, plan.space)
        elif plan.lacking and plan.space is None and state.space is None:
            made = model()
            if made is not None:
                establish_space(conn, state, made)
        batches = _with_vectors(portable.read(source, str(plan.path)), keep=plan.space is not None)
        return take_over(conn, batches, space=plan.space, now_ms=now_ms, replace=replace)


def _with_vectors(batches: Iterator[list[Document]], *, keep: bool) -> Iterator[Sequence[Document]]:
    for batch in batches:
        yield (
            batch
            if keep
            else [Document(each.id, each.text, each.metadata, each.payload) for each in batch]
        )


def check_snapshot(path: Path, session: str) -> Header:
    """Return what the snapshot of a session says of itself.

    Raises:
        SnapshotCorruptError: there is none, it is damaged, or it is another session's.
    """
    try:
        header = header_of(path)
    except NotFoundError as error:
        raise SnapshotCorruptError(
            f"there is no snapshot of session {session!r}: {path} is not there",
            hint="save one with session.save_to_disk(), or name the folder that it was saved to",
        ) from error
    if header.session != session:
        raise SnapshotCorruptError(
            f"{path} is the snapshot of session {header.session!r}, not of {session!r}",
            hint=f"open that session, or take it over with import_session: {path}",
        )
    return header
