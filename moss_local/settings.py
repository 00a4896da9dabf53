"""Where the settings of a client come from: arguments, then environment, then the credentials file.

The only module that reads the environment. `moss-local init` writes the credentials file, once per
device; nothing else is ever set up.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from platformdirs import user_cache_path, user_config_path, user_data_path

from moss_local.arguments import path_of, path_text
from moss_sync import InvalidArgumentError, UnauthorizedError
from moss_sync.commit import MODES, Commit
from moss_sync.project_key import RANDOM_BYTES, generate, is_mistyped
from moss_sync.stores.durable import make_folders, replacing

APP = "moss_local"

_TELEMETRY = "ORT_DISABLE_TELEMETRY"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What `moss-local init` keeps. The repr hides the keys.

    Attributes:
        next_key: The key of a rotation that was begun here and not ended; either may be the one
            that opens the project.
    """

    project_id: str
    project_key: str = field(repr=False)
    store: str | None = None
    next_key: str | None = field(default=None, repr=False)
    commit: Commit | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that a client works with.

    Attributes:
        store: URL or path of the blob store.
        data_dir: Session files of this device.
        cache_dir: Derived files, safe to delete at any time.
        snapshot_dir: Where `save_to_disk` writes to unless it is told where.
        commit: How the project's sessions are committed; None takes what the store holds.
        at_rest: True if session files must be encrypted, a str to encrypt them with that key
            instead of the project key; None takes them as they are.
    """

    project_id: str
    project_key: str = field(repr=False)
    store: str
    data_dir: Path
    cache_dir: Path
    snapshot_dir: Path
    commit: Commit | None = None
    at_rest: bool | str | None = field(default=None, repr=False)


def resolve(
    project_id: str | None,
    project_key: str | None,
    *,
    store: str | os.PathLike[str] | None,
    data_dir: str | os.PathLike[str] | None,
    cache_path: str | os.PathLike[str] | None,
    commit: str | None = None,
    at_rest: bool | str | None = None,
) -> Settings:
    """Return the settings, each from the first place that has it.

    Raises:
        UnauthorizedError: no place has a project id, or a key for it; the message names them all.
        InvalidArgumentError: an argument is not what it must be.
    """
    for name, value in (("project_id", project_id), ("project_key", project_key)):
        if value is not None and not isinstance(value, str):
            raise InvalidArgumentError(
                f"{name} must be a str or None, not a {type(value).__name__}"
            )
    saved = load_credentials()
    id = project_id or os.environ.get("MOSS_PROJECT_ID") or (saved and saved.project_id)
    if not id:
        raise _missing("project id", "project_id", "MOSS_PROJECT_ID")
    # A key belongs to its project: the file's key is for the file's project and no other.
    kept = saved if saved is not None and saved.project_id == id else None
    key = project_key or os.environ.get("MOSS_PROJECT_KEY") or (kept and kept.project_key)
    if not key:
        raise _missing(f"key of project {id!r}", "project_key", "MOSS_PROJECT_KEY")
    check_copied(check_key_text(key, "the project key"))
    data = path_of(data_dir or os.environ.get("MOSS_DATA_DIR") or user_data_path(APP), "data_dir")
    # As the hosted SDK does; without either, in no place that may be emptied at any time.
    snapshots = cache_path or os.environ.get("MOSS_SESSION_CACHE_PATH") or data / "snapshots"
    chosen = os.environ.get("MOSS_STORE") if store is None else store and path_text(store, "store")
    return Settings(
        project_id=id,
        project_key=key,
        store=chosen or (kept.store if kept else None) or str(data / "store"),
        data_dir=data,
        cache_dir=path_of(cache_path or user_cache_path(APP), "cache_path"),
        snapshot_dir=path_of(snapshots, "cache_path"),
        commit=check_commit(commit, "commit")
        or check_commit(os.environ.get("MOSS_COMMIT") or None, "MOSS_COMMIT")
        or (kept.commit if kept and chosen in (None, kept.store) else None),
        at_rest=_check_at_rest(at_rest) or os.environ.get("MOSS_AT_REST_KEY") or None,
    )


def _check_at_rest(value: bool | str | None) -> bool | str | None:
    if value is None or value is True or (isinstance(value, str) and value):
        if isinstance(value, str):
            check_key_text(value, "the key in at_rest")
        return value
    shown = "False" if value is False else f"of type {type(value).__name__}"
    raise InvalidArgumentError(
        f"at_rest is {'an empty str' if value == '' else shown}, not True, a key or None",
        hint="leave it out to take session files as they are; True encrypts with the project key, a"
        " str with that key; to decrypt what is encrypted: moss-local at-rest off",
    )


def check_key_text(key: str, what: str) -> str:
    """Return `key`. Raises InvalidArgumentError if it has no bytes."""
    try:
        key.encode()
    except UnicodeEncodeError:
        raise InvalidArgumentError(f"{what} holds half of a surrogate pair") from None
    return key


def check_copied(key: str) -> str:
    """Return a project key.

    Raises:
        InvalidArgumentError: it has the form of one that `init` makes, and its checksum is wrong.
    """
    if is_mistyped(key):
        raise InvalidArgumentError(
            "the key looks like one that moss-local init has made, and was not copied exactly",
            hint="it is nine groups of four small letters and digits, with - between them; read it "
            "on the device that has it: moss-local init --show-key",
        )
    return key


def check_commit(value: str | None, what: str) -> Commit | None:
    """Return `value` if it is a way to commit, or None.

    Raises:
        InvalidArgumentError: it is neither.
    """
    if value is None:
        return None
    for mode in MODES:
        if value == mode:
            return mode
    raise InvalidArgumentError(
        f"{what} is {value!r}",
        hint="give 'cas', or 'log' for a folder that is replicated and for a store that cannot"
        " compare and swap",
    )


def credentials_path() -> Path:
    """Return where `moss-local init` keeps the project id and key of this user."""
    return user_config_path(APP) / "credentials.json"


def load_credentials() -> Credentials | None:
    """Return what `moss-local init` wrote, or None where it has not run.

    Raises:
        InvalidArgumentError: the file is there and cannot be understood.
    """
    path = credentials_path()
    try:
        fields = json.loads(path.read_text("utf-8"))
        return Credentials(
            fields["project_id"],
            fields["project_key"],
            fields.get("store"),
            fields.get("next_project_key"),
            check_commit(fields.get("commit"), "commit"),
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidArgumentError(
            f"the credentials file {path} does not hold a project id and key",
            hint="mend it, or write a new one with: moss-local init --force",
        ) from error


def project_of_environment() -> str | None:
    """Return the project id that MOSS_PROJECT_ID gives, if it does."""
    return os.environ.get("MOSS_PROJECT_ID") or None


def key_of_environment() -> str | None:
    """Return the project key that MOSS_PROJECT_KEY gives, if it does."""
    return os.environ.get("MOSS_PROJECT_KEY") or None


def new_key_of_environment() -> str | None:
    """Return the key to rotate to that MOSS_NEW_PROJECT_KEY gives, if it does."""
    return os.environ.get("MOSS_NEW_PROJECT_KEY") or None


def old_at_rest_key_of_environment() -> str | None:
    """Return the key that encrypted files have had until now, if MOSS_OLD_AT_REST_KEY gives it."""
    return os.environ.get("MOSS_OLD_AT_REST_KEY") or None


def models_dir_of_environment() -> Path | None:
    """Return the models directory that MOSS_MODELS_DIR gives, if it does."""
    named = os.environ.get("MOSS_MODELS_DIR")
    return Path(named).expanduser() if named else None


def debug_wanted() -> bool:
    """Return whether MOSS_DEBUG asks the command line for tracebacks."""
    return os.environ.get("MOSS_DEBUG", "") not in ("", "0")


def switch_off_telemetry() -> None:
    """Set ORT_DISABLE_TELEMETRY in this process, unless somebody has set it to anything.

    ONNX Runtime reads it once, while it is imported: then it makes a device id and a database of
    events under the user's cache folder, and later it looks up a host. What can be called after
    the import (`disable_telemetry_events`) comes too late for both.
    """
    os.environ.setdefault(_TELEMETRY, "1")


def telemetry_is_off() -> bool:
    """Return whether ORT_DISABLE_TELEMETRY says what we set it to; a user may want it otherwise."""
    return os.environ.get(_TELEMETRY) == "1"


def new_key() -> str:
    """Return a fresh project key."""
    return generate(secrets.token_bytes(RANDOM_BYTES))


def save_credentials(credentials: Credentials) -> Path:
    """Write the credentials file, readable by this user only, all of it or nothing."""
    path = credentials_path()
    make_folders(path.parent)
    fields = {"project_id": credentials.project_id, "project_key": credentials.project_key}
    if credentials.store is not None:
        fields["store"] = credentials.store
    if credentials.commit is not None:
        fields["commit"] = credentials.commit
    if credentials.next_key is not None:
        fields["next_project_key"] = credentials.next_key
    with replacing(path, secret=True) as out:
        out.write(json.dumps(fields, indent=1).encode())
    return path


def _missing(what: str, argument: str, variable: str) -> UnauthorizedError:
    return UnauthorizedError(
        f"there is no {what}: not in the argument {argument}, not in the environment variable "
        f"{variable}, not in {credentials_path()}",
        hint="set the device up once with: moss-local init",
    )
