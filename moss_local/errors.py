"""The errors of sessions, files and models; the root and the protocol's own stand in moss_sync."""

from __future__ import annotations

from moss_sync import MossError


class AlreadyExistsError(MossError):
    """There is one of this name already. Nothing was written."""

    default_code = "ALREADY_EXISTS"
    exit_code = 2

    def __init__(self, name: str) -> None:
        super().__init__(
            f"index {name!r} already exists",
            hint=f"add to it with add_docs({name!r:.60}, ...), or delete it first",
        )
        self.name = name


class ModelNotFoundError(MossError):
    """The model, or a part of it, is not on this machine. Nothing is ever downloaded."""

    default_code = "MODEL_UNAVAILABLE"
    exit_code = 9


class ReaderMissingError(MossError):
    """A kind of file needs a package that is not installed. Nothing was written."""

    default_code = "READER_MISSING"
    exit_code = 9

    def __init__(self, name: str, package: str) -> None:
        super().__init__(
            f"{name} cannot be read: {package} is not installed",
            hint="install it: pip install 'moss-local[files]'",
        )
        self.package = package


class AtRestError(MossError):
    """Whether this device's files are encrypted is not what the call takes it to be.

    Nothing was written.
    """

    default_code = "AT_REST"
    exit_code = 2


class CiphersMissingError(MossError):
    """Encrypted files need another build of a package than the installed one. Nothing was written.

    The build is `apsw-sqlite3mc`: the module `apsw` with ciphers in it.
    """

    default_code = "CIPHERS_MISSING"
    exit_code = 9

    INSTALL = "pip install --force-reinstall --no-deps apsw-sqlite3mc"

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what}, and the installed apsw has no ciphers",
            hint=f"install the one that has them over it: {self.INSTALL}",
        )


class ModelCorruptError(MossError):
    """The model's files are there and are not what their hash says."""

    default_code = "MODEL_UNAVAILABLE"
    exit_code = 9


class FileBusyError(MossError):
    """Another process kept the session's file locked for longer than the wait. Nothing was lost."""

    default_code = "BUSY"
    retryable = True
    exit_code = 10


class FileCorruptError(MossError):
    """The session's file is damaged, or is not one. It was left as it is."""

    default_code = "DESERIALIZATION"
    exit_code = 6


class SnapshotCorruptError(MossError):
    """A snapshot or an exported session is missing, damaged, or is none. Nothing was changed."""

    default_code = "DESERIALIZATION"
    exit_code = 6


class ErasureIncompleteError(MossError):
    """What was to be forgotten is gone from this device, and not yet from the store.

    Nothing else brings it to an end: call it again with the same ids.
    """

    default_code = "ERASURE_INCOMPLETE"
    retryable = True
    exit_code = 5


class DiskFullError(MossError):
    """The disk is full or cannot be written. What was acknowledged before is safe."""

    default_code = "DISK_FULL"
    retryable = True
    exit_code = 10


class NotOfferedError(MossError):
    """A service of the hosted SDK that a local library cannot be. Nothing was done."""

    default_code = "NOT_OFFERED"
    exit_code = 2

    def __init__(self, message: str, *, instead: str) -> None:
        super().__init__(f"{message}, and cannot be offered locally: {instead}", hint=instead)
