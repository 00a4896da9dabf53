"""The values that cross the API: documents, options, results.

Names, field order and defaults are those of the hosted SDK, so that positional calls go on
working; where a default differs on purpose (`alpha`) the field says so. Instances compare by
identity and their fields can be assigned, except on results of an exchange.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from moss_sync import MossError, RepairReport, SyncReport

DEFAULT_TOP_K = 5
DEFAULT_ALPHA = 0.5
"""Halfway between meaning and word. The hosted SDK uses 0.8; measured on 1 535 questions over long
conversations, 0.5 finds 0.531 of the evidence in the first five, against 0.356 by meaning alone."""

Verb = Literal["push", "pull", "sync"]
"""What an exchange does; "sync" is a pull and then a push."""

AT_ONCE = 8
"""Sessions that are exchanged at a time, unless the caller says otherwise."""


@dataclass(slots=True, eq=False)
class DocumentInfo:
    """A document, such as one turn of a conversation.

    Attributes:
        id: Non-empty, up to 1 KiB of UTF-8, exact code points. Adding an id again replaces it.
        text: What is embedded and searched; up to 1 MiB of UTF-8.
        metadata: Strings by string. Other values raise TypeError.
        embedding: The caller's own vector; for sessions of model "custom" it is required.
        payload: An opaque string, kept and returned exactly, never searched.
    """

    id: str
    text: str
    metadata: dict[str, str] | None = None
    embedding: Sequence[float] | None = None
    payload: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not isinstance(self.text, str):
            raise TypeError("DocumentInfo takes an id and a text, both str")
        if self.payload is not None and not isinstance(self.payload, str):
            raise TypeError(f"payload of document {self.id!r} must be a str or None")
        _check_metadata(self.id, self.metadata)


def _check_metadata(id: str, metadata: object) -> None:
    if metadata is None:
        return
    if not isinstance(metadata, Mapping):
        raise TypeError(f"metadata of document {id!r} must be a dict of str, or None")
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"metadata {key!r} of document {id!r} must be a str with a str value")


@dataclass(slots=True, eq=False)
class QueryResultDocumentInfo:
    """One document found.

    Attributes:
        score: max(0, cosine) between the query's vector and the document's, 0..1, whatever
            `alpha` is; results are in the order of the blend, so scores need not descend.
        index_name: The session or index that it came from.
        before, after: With `QueryOptions(context=n)`, the up to n turns before and after it, in
            the order of the thread; with a filter, of those that match it.
    """

    id: str
    text: str
    metadata: dict[str, str] | None = None
    score: float = 0.0
    index_name: str | None = None
    payload: str | None = None
    before: list[DocumentInfo] = field(default_factory=list)
    after: list[DocumentInfo] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class SearchResult:
    """What a query found, best first.

    Attributes:
        time_taken_ms: Whole milliseconds from call to answer, embedding included.
    """

    docs: list[QueryResultDocumentInfo]
    query: str
    index_name: str | None = None
    time_taken_ms: int | None = None
    model_id: str | None = None


@dataclass(slots=True, eq=False)
class ParentGrouping:
    """Documents that share `parent_field` form one result, in the order of `order_field`.

    Both are names of metadata. The result's id is the shared value; its text is theirs, a line
    each, numbers in `order_field` before text; its metadata and payload are what all have alike.
    A document without `parent_field` stands alone.
    """

    parent_field: str
    order_field: str


@dataclass(slots=True, eq=False)
class QueryOptions:
    """How to search.

    Attributes:
        embedding: Search by this vector instead of embedding the text.
        top_k: How many documents; 5 when None, 0 gives none.
        alpha: 1.0 is by meaning only, 0.0 by word only; 0.5 when None.
        filter: Only documents whose metadata match, see docs/filters.md. It is applied before
            ranking, so `top_k` are found whenever so many match.
        group_by: Return the best `top_k` groups, each whole, in the place of its best document.
        min_score: Leave out documents whose score is below this, 0..1.
        candidate_depth: Consider only so many of the best by meaning and so many of the best by
            word, at least `top_k`; None considers all. Without effect at `alpha` 0.0 and 1.0.
        context: Return so many turns before and after each document with it, up to 100.
        recency: Prefer what is newer, 0..1: the newest gains so much, the oldest nothing.
        threaded: False takes documents as a bag: neighbouring turns and speakers are no evidence.
            None is True. Without effect at `alpha` 0.0 and 1.0. See docs/threads.md.
    """

    embedding: Sequence[float] | None = None
    top_k: int | None = None
    alpha: float | None = None
    filter: dict[str, Any] | None = None
    group_by: ParentGrouping | None = None
    min_score: float | None = None
    candidate_depth: int | None = None
    context: int | None = None
    recency: float | None = None
    threaded: bool | None = None


@dataclass(slots=True, eq=False)
class GetDocumentsOptions:
    """Which documents to fetch.

    Attributes:
        doc_ids: These, in this order, missing ones skipped; None fetches all, in order of id.
        filter: Only documents whose metadata match, see docs/filters.md.
        sort_by: A metadata field to sort by: numbers by size, then text, then documents without
            it. Of no effect with `doc_ids`, which are an order already.
        ascending: False turns the order round, but for documents without the field; None is True.
        group_by: Put the documents that share a parent together, each group where its first is.
        limit: At most so many documents or groups.
    """

    doc_ids: Sequence[str] | None = None
    filter: dict[str, Any] | None = None
    sort_by: str | None = None
    ascending: bool | None = None
    group_by: ParentGrouping | None = None
    limit: int | None = None


@dataclass(slots=True, eq=False)
class MutationOptions:
    """How to add.

    Attributes:
        upsert: False leaves documents that are already there as they are, uncounted; None is True.
    """

    upsert: bool | None = None


@dataclass(frozen=True, slots=True, eq=False)
class PushIndexResult:
    """A push that is committed; anything less raises.

    Attributes:
        job_id: `push-<session id in the store>-<commit>`.
        doc_count: Documents in the session now.
        status: Always "completed".
        report: Counts, requests and bytes of the exchange.
    """

    job_id: str
    index_name: str
    doc_count: int
    status: str = "completed"
    report: SyncReport = field(default_factory=SyncReport)


@dataclass(frozen=True, slots=True, eq=False)
class DocumentVersion:
    """One version of a document on this device: the current one, or one that was replaced.

    Attributes:
        written_ms: When it was written, ms since 1970 UTC, by its writer's clock.
        device_id: Who wrote it: 16 hex digits, as in `session.device_id`.
        deleted: It is a deletion; text, metadata and payload are empty.
        reason: Why it is not the current one. "edited": an edit on this device replaced it;
            "deleted": a deletion did; "replaced": another device's edit did; "lost": it was
            written at the same time as a change that won, by somebody who had not seen that. None
            for the current one.
        version: Names it among the versions of its document, for `session.restore`.
    """

    id: str
    text: str
    metadata: dict[str, str] | None
    payload: str | None
    written_ms: int
    device_id: str
    deleted: bool
    reason: Literal["edited", "deleted", "replaced", "lost"] | None
    version: str

    @property
    def current(self) -> bool:
        """Whether it is what the session holds now."""
        return self.reason is None


@dataclass(frozen=True, slots=True, eq=False)
class QuarantinedEdit:
    """A change made here that was set aside: it was never merged, and waits for your word.

    Attributes:
        number: Names it, for `session.restore_quarantined` and `discard_quarantined`.
        reason: Why it was set aside. "device": this file was a copy or an old backup, whose changes
            may have been pushed and deleted since; "deleted": the session was deleted elsewhere;
            "repaired": it was repaired, and others may have deleted the document since;
            "salvaged": its file was damaged, and something newer stands against it; "damaged": the
            same, and whether it is whole and was still there cannot be told.
        written_ms, device_id, deleted: As in DocumentVersion.
    """

    number: int
    reason: str
    id: str
    text: str
    metadata: dict[str, str] | None
    payload: str | None
    written_ms: int
    device_id: str
    deleted: bool


@dataclass(frozen=True, slots=True, eq=False)
class Rewritten:
    """What became of one session when the key was rotated and what is stored was sealed anew.

    Attributes:
        session: Its name; of a manifest that cannot be read, what is wrong with it.
        merges: How many new segments it took; 0 where nothing was under an old key.
        error: Why it is still under one, at least in part; None where it is not.
        left_out: Whether older keys count no more all the same: no key of the project opens it, it
            counted no more before, or its name is none of ours.
    """

    session: str
    merges: int
    error: MossError | None = None
    left_out: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Exported:
    """What was written to a file.

    Attributes:
        path: Of the file, absolute.
        documents: How many it holds.
        size: Bytes.
    """

    path: str
    documents: int
    size: int


@dataclass(frozen=True, slots=True, eq=False)
class Forgotten:
    """What was forgotten, here and in the store.

    Attributes:
        documents: How many there still were.
        versions: How many kept ones, replaced before, were dropped on this device.
        report: Of the exchange that took it out of the store.
        moved_aside: How many files that repairs had moved aside were deleted, logs counted too.
    """

    documents: int
    versions: int
    report: SyncReport
    moved_aside: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Reembedded:
    """What became of a session that was to be moved to another model.

    Attributes:
        model_id: The session's model now.
        made: How many vectors were made here.
        moved_from: The model that it had before; None where it was not moved.
    """

    model_id: str
    made: int
    moved_from: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Repaired:
    """What became of one session that was repaired.

    Attributes:
        error: Why it was not repaired; None where it was, or nothing was wrong.
        salvage: What became of this device's file, where that was damaged; else None.
    """

    session: str
    report: RepairReport
    error: MossError | None = None
    salvage: Salvage | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Synced:
    """What became of one session that was exchanged with others together.

    Attributes:
        session: Its name; the text of the error where a file or manifest does not tell its name.
        report: Of its exchange, as far as it went. Nothing but `seq` in it where the store's
            listing has told that there is nothing to exchange.
        error: Why it was not exchanged; None where it was, or there was nothing to exchange.
        tried: False where the store had failed too often before, or the client was closed.
    """

    session: str
    report: SyncReport
    error: MossError | None = None
    tried: bool = True


@dataclass(frozen=True, slots=True)
class Salvage:
    """What became of a session whose file on this device was damaged.

    Attributes:
        trouble: What was wrong with the file, in words; empty where only a repair that was cut
            off was ended.
        written: Changes that had not been pushed, could be read, and were written again.
        set_aside: Such changes that something newer stands against; see `session.quarantined`.
        unreadable: Documents and deletions that are known to have been there and could not be
            read. What of them was pushed has come back from the store.
        exact: No others were there. False: the damage hides how many there were, and changes that
            were not pushed may be lost without being counted.
        aside: Where the damaged file is now. It is readable, and lies there until somebody deletes
            it: with `session.forget`, `client.delete_index` or by hand.
    """

    trouble: tuple[str, ...]
    written: int
    set_aside: int
    unreadable: int
    exact: bool
    aside: Path | None


@dataclass(frozen=True, slots=True)
class Changes:
    """What others have changed in a session since the batch before.

    Attributes:
        updated: Ids of documents that are new or other than they were, oldest change first.
        deleted: Ids of documents that are gone.
        reset: What has changed is not known any more: read anew what you keep of the session.
        cursor: Where this batch ends; `session.changes(since=cursor)` goes on after it, also in
            another process and after a restart.
    """

    updated: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    reset: bool = False
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class SyncState:
    """Where a session stands towards its store.

    Attributes:
        status: "never" exchanged; "synced"; "pending": there are unpushed changes; "syncing": an
            exchange is under way; "offline": the last one failed for want of the store, which
            passes by itself; "stopped": it failed for a reason that somebody must see to, and
            nothing is exchanged in the background until `push_index`, `pull` or `sync` succeeds.
        pending: Documents and deletions not yet pushed, whatever the status.
        last_exchange_ms: Wall time of the last successful exchange, ms since 1970; None before. A
            pull that found nothing of the session in the store was none.
        reason: What went wrong, when offline or stopped.
        code: The error's stable name, such as "NETWORK" or "FORK_DETECTED"; else None.
        hint: What to do about it, when that is known.
    """

    status: Literal["never", "synced", "pending", "syncing", "offline", "stopped"]
    pending: int = 0
    last_exchange_ms: int | None = None
    reason: str | None = None
    code: str | None = None
    hint: str | None = None

    def __str__(self) -> str:
        if self.reason is not None:
            return f"{self.status}({self.reason}), {self.pending} pending"
        if self.status == "syncing" and self.pending:
            return f"syncing, {self.pending} pending"
        return f"pending({self.pending})" if self.status == "pending" else self.status
