"""The root of every error of both packages, and the errors of the protocol.

One class per different *reaction* of the caller, not per cause. A message says what and where;
the hint is a command or an argument that exists. `code`, `retryable` and `exit_code` are facts of
the class: `code` is the stable thing to branch on (the hosted SDK's codes where it has one, ours
in the same spelling elsewhere), `exit_code` is what the command line returns.

No key, text or vector ever stands in a message.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from moss_sync.report import SyncReport


class MossError(RuntimeError):
    """Anything that these packages raise on purpose.

    Attributes:
        code: The stable name of the kind of failure, such as "NETWORK".
        detail: Free text for a log; may be None.
        hint: What to do about it: a command or an argument that exists; may be None. It is also
            a note on the exception (PEP 678), so tracebacks show it.
        retryable: The same call may succeed later without any change.
        report: What an exchange had done and cost when it failed; None for anything else.
    """

    default_code: ClassVar[str] = "INTERNAL"
    retryable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None, detail: str | None = None) -> None:
        super().__init__(message)
        self.code: str = self.default_code
        self.detail = detail
        self.hint = hint
        self.report: SyncReport | None = None
        if hint is not None:
            self.add_note(f"hint: {hint}")


class InvalidArgumentError(MossError, ValueError):
    """An argument is wrong. Nothing was written; the same call will fail again."""

    default_code = "INVALID_ARGUMENT"
    exit_code = 2


class NotFoundError(MossError):
    """What was asked for by name is not there."""

    default_code = "NOT_FOUND"
    exit_code = 3


class BlobNotFoundError(NotFoundError):
    """The store holds no blob under this key."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the store has no blob {key!r}")
        self.key = key


class UnauthorizedError(MossError):
    """The project key does not open this project. Nothing was written."""

    default_code = "UNAUTHORIZED"
    exit_code = 4


class KeyRotatedError(UnauthorizedError):
    """Another device rotated the project's key. Local work goes on; this device must take it over.

    What is on this device opens, and changes stay pending. Waiting does not help.
    """

    default_code = "KEY_ROTATED"


class PermissionDeniedError(MossError):
    """The store refuses this device's credentials, or its files may not be read or written."""

    default_code = "PERMISSION_DENIED"
    exit_code = 4


class BlobDeniedError(PermissionDeniedError):
    """One blob may not be read by this user; nothing is said of the others."""


class NetworkError(MossError):
    """The store could not be reached. Local work goes on; a later push carries what is pending."""

    default_code = "NETWORK"
    retryable = True
    exit_code = 5


class StoreBusyError(NetworkError):
    """The store asks for patience (HTTP 429 or 503).

    Attributes:
        retry_after: Seconds that the store asked for; None when it did not say.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class OutcomeUnknownError(NetworkError):
    """A compare-and-swap was sent and no answer came: it may or may not have happened."""


class UntrustedStoreError(NetworkError):
    """The store's TLS certificate is not trusted, so nothing was sent. Trying again is no cure."""

    default_code = "UNTRUSTED_STORE"
    retryable = False


class ContentionError(NetworkError):
    """Other devices won every race until the deadline. The changes stay pending; push again."""

    default_code = "CONTENTION"


class ClockError(MossError):
    """The clocks contradict each other. Nothing was committed; the changes stay pending."""

    default_code = "CLOCK"
    retryable = True
    exit_code = 10


class BlobCorruptError(MossError):
    """A blob is not what its name says: flipped, truncated, swapped or foreign. Nothing changed."""

    default_code = "DESERIALIZATION"
    exit_code = 6


class ForeignFileError(BlobCorruptError):
    """A link, a pipe, a device or a folder stands where the store has a file. It was left alone."""

    default_code = "FOREIGN_FILE"


class BlobMissingError(MossError):
    """The manifest names a blob that the store does not have. Nothing changed locally."""

    default_code = "BLOB_MISSING"
    exit_code = 6


class HistoryError(MossError):
    """The store's history contradicts what this device has seen. Nothing changed locally."""

    default_code = "HISTORY"
    exit_code = 6


class StaleReadError(HistoryError):
    """The store answered with an older manifest than it has shown this device before."""

    default_code = "STALE_READ"


class ForkDetectedError(HistoryError):
    """The store holds another history than the one that this device has been part of."""

    default_code = "FORK_DETECTED"


class RevokedKeyError(HistoryError):
    """The store shows something that is sealed under a key which no longer counts."""

    default_code = "REVOKED_KEY"


class LostCommitError(HistoryError):
    """A commit that the store had acknowledged to this device is no longer in the manifest."""

    default_code = "LOST_COMMIT"


class ManifestMissingError(HistoryError):
    """A session that this device has exchanged before has no manifest in the store any more."""

    default_code = "MANIFEST_MISSING"


class StoreLacksCasError(MossError):
    """The store cannot compare and swap; synchronising through it would lose writes.

    Attributes:
        check: The name of the probe's check that failed.
    """

    default_code = "STORE_LACKS_CAS"
    exit_code = 7

    def __init__(self, store: str, *, check: str, hint: str, detail: str | None = None) -> None:
        super().__init__(
            f"the store {store} cannot be used: check {check!r} failed", hint=hint, detail=detail
        )
        self.check = check


class StoreChangedError(MossError):
    """This session's file belongs to another repository than the one that the store holds."""

    default_code = "STORE_CHANGED"
    exit_code = 7


class UnsupportedFormatError(MossError):
    """Stored data uses a feature that this version does not know. Nothing was changed."""

    default_code = "UNSUPPORTED_FORMAT"
    exit_code = 8


class NotInLogModeError(MossError):
    """The project commits by log, where nobody can agree on this. Nothing was changed."""

    default_code = "NOT_IN_LOG_MODE"
    exit_code = 8

    def __init__(
        self,
        what: str,
        *,
        hint: str = "use a project in a store that does, see the stores in the README",
    ) -> None:
        super().__init__(
            f"{what} takes a store that compares and swaps; this project commits by log", hint=hint
        )


class ModelMismatchError(MossError, ValueError):
    """The vectors came from another model than the one asked for. Nothing was written."""

    default_code = "INVALID_ARGUMENT"
    exit_code = 2

    def __init__(self, session: str, *, stored: str, wanted: str) -> None:
        hint = f"open it with model_id={stored!r}, or use another session name for {wanted!r}"
        if wanted != "custom":
            move = f"moss-local reembed {shlex.quote(session)} --model {shlex.quote(wanted)}"
            hint += f", or move it there for everybody: {move}"
        super().__init__(
            f"session {session!r} holds vectors of {stored!r}, not of {wanted!r}", hint=hint
        )
        self.session, self.stored, self.wanted = session, stored, wanted


DOCTOR = "moss-local doctor"
"""What a user types to have the store tried out, and to let it be written to again."""


def repair_command(session: str | None = None, *, drop_unknown: bool = False) -> str:
    """Return what a user types to put a session, or all of them, together anew.

    Args:
        drop_unknown: Without what only a newer version could read.
    """
    command = "moss-local repair" + (" --drop-unknown" if drop_unknown else "")
    if session is None:
        return f"{command} --all"
    return f"{command} {'-- ' if session.startswith('-') else ''}{shlex.quote(session)}"


def hint_at_repair(error: MossError) -> None:
    """Let the error of a damaged blob, of nobody knows which session, say how it is put back."""
    if error.hint is None:
        error.hint = (
            f"put it back from a device that holds it: {repair_command()}; if none does, somebody "
            "else has left it there: remove it with the store's own tools"
        )


def other_store_hint(store: str = "the store that it was exchanged with") -> str:
    """Return what to do about a session, or a project, that belongs to another store."""
    return (
        f"name {store} (store=, MOSS_STORE); or bring a session over to the one that is named now: "
        "moss-local export SESSION FILE, and then in another data directory: "
        "moss-local --data-dir OTHER import FILE"
    )
