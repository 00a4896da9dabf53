"""`fmt`: the one readable object of a repository, and the keys that it wraps.

A rotation adds a root key of a new epoch and wraps all of them, the old ones and the name key
included, under the project key of then: what was sealed before stays readable, no name moves, and
what is sealed from then on takes the new key. Once all that there is was sealed anew, the *floor*
rises: the lowest epoch that still counts. So of two states of `fmt` the later one is known without
a clock: by its newest epoch, and then by its floor.

Rules of this file: values in, values out; randomness is an argument. Deriving a key from the
user's is deliberately slow (argon2id), so it stands apart (`derive_kek`) and is done once.

`fmt` is readable because a device must know the salt before it has a key. Its header is
authenticated by the key check value, its integrity against accidents by a checksum, which is
what tells a damaged `fmt` (BlobCorruptError) from a wrong key (UnauthorizedError).
Source: SYNC-PROTOCOL 2.1 and 2.9; RFC 9106 for argon2id.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from hashlib import blake2b
from io import BytesIO
from typing import Any

import msgpack
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from moss_sync.errors import (
    BlobCorruptError,
    InvalidArgumentError,
    KeyRotatedError,
    UnauthorizedError,
    UnsupportedFormatError,
    repair_command,
)
from moss_sync.features import READER_FEATURES, UPGRADE, WRITER_FEATURES, check_readable
from moss_sync.packing import as_bytes, as_kept, as_map, as_str, as_strs, as_uint
from moss_sync.project_key import cost_of
from moss_sync.seal import FIRST_EPOCH, KEY_BYTES, MAX_EPOCH, TAG_BYTES, RootKeys

MAGIC = b"XFMT"
MAJOR = 1
REPO_ID_BYTES = 16
KDF_SALT_BYTES = 16
CHECKSUM_BYTES = 16
NONCE_BYTES = 12

MEMORY_KIB_BOUNDS = (8 * 1024, 256 * 1024)
MAX_ITERATIONS = 10
MAX_LANES = 16
"""Read from an object that anybody may have written, so bounded before they are used."""

MAX_FMT_BYTES = 64 * 1024

FIELDS = ("feat_r", "feat_w", "repo_id", "commit", "kdf", "epochs", "floor", "names", "check")
"""Of a `fmt`, in their order; those of later versions come behind them."""

WRAPPED_BYTES = NONCE_BYTES + KEY_BYTES + TAG_BYTES
CHECK_BYTES = NONCE_BYTES + TAG_BYTES

JOIN = (
    "take the new key over from the device that has it (there: moss-local init --show-key): "
    "moss-local rotate-key --join; "
    "a rotation that this device began is ended by: moss-local rotate-key"
)
"""What to do where the key is of before a rotation."""

ANOTHER_PROJECT = "start another project: moss-local init --force --project ID"

FRESH_BYTES = REPO_ID_BYTES + 2 * KEY_BYTES + 3 * NONCE_BYTES
"""Random bytes that a new repository takes."""


@dataclass(frozen=True, slots=True)
class KdfParams:
    """argon2id parameters and salt."""

    salt: bytes
    memory_kib: int
    iterations: int
    lanes: int

    @classmethod
    def choose(cls, project_key: str, salt: bytes) -> KdfParams:
        """Return the parameters that a key of its kind, generated or typed, is derived with."""
        cost = cost_of(project_key)
        return cls(salt, cost.memory_kib, cost.iterations, cost.lanes)

    def suits(self, project_key: str) -> bool:
        """Return whether deriving from a key costs no less than one of its kind must.

        Lanes are not compared: they share the work and do not lessen it.
        """
        least = cost_of(project_key)
        return self.memory_kib >= least.memory_kib and self.iterations >= least.iterations

    def checked(self) -> KdfParams:
        """Return itself. Raises BlobCorruptError when a parameter is outside its bounds."""
        low, high = MEMORY_KIB_BOUNDS
        if not (
            len(self.salt) == KDF_SALT_BYTES
            and {type(self.memory_kib), type(self.iterations), type(self.lanes)} == {int}
            and low <= self.memory_kib <= high
            and 1 <= self.iterations <= MAX_ITERATIONS
            and 1 <= self.lanes <= MAX_LANES
        ):
            raise BlobCorruptError(
                "the repository's key parameters are outside their bounds: "
                f"{self.memory_kib} KiB, {self.iterations} passes, {self.lanes} lanes"
            )
        return self


@dataclass(frozen=True, slots=True)
class Format:
    """The contents of `fmt`.

    Attributes:
        repo_id: 16 random bytes; every sealed blob is bound to them.
        commit: "cas" or "log"; fixed when the repository is made.
        epochs: Wrapped root keys by epoch; names: the wrapped key that names are made with. The
            newest epoch counts the changes of `fmt`: each rotation adds one.
        floor: The lowest epoch that counts; what is sealed under an older one is refused.
        check: The key check value: a seal over everything above.
        features_w: What a device must know to write to the repository.
        raw: The exact bytes.
    """

    repo_id: bytes
    commit: str
    kdf: KdfParams
    epochs: dict[int, bytes] = field(repr=False)
    floor: int
    names: bytes = field(repr=False)
    check: bytes = field(repr=False)
    features_w: tuple[str, ...]
    raw: bytes = field(repr=False)

    @property
    def newest(self) -> int:
        return max(self.epochs)

    @property
    def age(self) -> tuple[int, int]:
        """What rises with every change of `fmt`: of two states the lower one is the older."""
        return self.newest, self.floor


@dataclass(frozen=True, slots=True)
class Keys:
    """What an opened repository is worked with.

    Attributes:
        features_w: What a device must know to write to it: `features.check_writable`.
        floor: The lowest epoch that counts.
        commit: "cas" or "log": how its sessions are committed.
    """

    repo_id: bytes
    roots: RootKeys
    names: bytes = field(repr=False)
    features_w: tuple[str, ...] = ()
    commit: str = "cas"
    floor: int = FIRST_EPOCH


def derive_kek(project_key: str, kdf: KdfParams) -> bytes:
    """Return the 32-byte key that wraps the others. Slow and memory-hungry on purpose."""
    return Argon2id(
        salt=kdf.salt,
        length=KEY_BYTES,
        iterations=kdf.iterations,
        lanes=kdf.lanes,
        memory_cost=kdf.memory_kib,
    ).derive(project_key.encode())


def log_kdf(project_id: str, project_key: str) -> KdfParams:
    """Return the parameters for a repository that commits by log: the same on every device."""
    salt = blake2b(
        project_id.encode(), digest_size=KDF_SALT_BYTES, person=b"moss_sync.log"
    ).digest()
    return KdfParams.choose(project_key, salt)


def create_log(kek: bytes, kdf: KdfParams) -> Format:
    """Return the `fmt` of a repository that commits by log.

    Nothing in it is random: two devices that set one up at once, each in its own copy of a folder,
    write the very same bytes, and there is nothing to conflict. Its keys follow from the project
    key by argon2id and HKDF, each used for what it is alone.
    """
    fresh = HKDF(algorithm=SHA256(), length=FRESH_BYTES, salt=None, info=b"moss_sync/log fmt")
    return create(kek, kdf, fresh=fresh.derive(kek), commit="log")


def create(kek: bytes, kdf: KdfParams, *, fresh: bytes, commit: str = "cas") -> Format:
    """Return a new repository's `fmt`.

    Args:
        fresh: FRESH_BYTES random bytes: its id, its keys and their nonces.
    """
    if len(fresh) != FRESH_BYTES:
        raise ValueError(f"a new repository takes {FRESH_BYTES} random bytes")
    source = BytesIO(fresh)
    repo_id, root, names = (source.read(n) for n in (REPO_ID_BYTES, KEY_BYTES, KEY_BYTES))
    nonces = [source.read(NONCE_BYTES) for _ in range(3)]
    wrapped_root = _wrap(kek, nonces[0], root, repo_id, "epoch 1")
    wrapped_names = _wrap(kek, nonces[1], names, repo_id, "names")
    fields: dict[str, Any] = {
        "feat_r": [],
        "feat_w": [],
        "repo_id": repo_id,
        "commit": commit,
        "kdf": {
            "name": "argon2id",
            "salt": kdf.salt,
            "memory_kib": kdf.memory_kib,
            "iterations": kdf.iterations,
            "lanes": kdf.lanes,
        },
        "epochs": {FIRST_EPOCH: wrapped_root},
        "floor": FIRST_EPOCH,
        "names": wrapped_names,
    }
    fields["check"] = _wrap(kek, nonces[2], b"", repo_id, _header(fields))
    return decode(_framed(fields))


def rotation_bytes(fmt: Format) -> int:
    """Return how many random bytes a rotation of `fmt` takes."""
    return KEY_BYTES + NONCE_BYTES * (len(fmt.epochs) + 3)


def rotate(fmt: Format, keys: Keys, kek: bytes, kdf: KdfParams, *, fresh: bytes) -> Format:
    """Return `fmt` with a root key of a new epoch, and every key wrapped under `kek`.

    Everything else of it stays, keys of later versions included.

    Args:
        keys: What `fmt` unlocks to.
        kek: Derived from the new project key, or from the old one, with `kdf`.
        fresh: `rotation_bytes(fmt)` random bytes: the root key, and a nonce for each key.
    Raises:
        InvalidArgumentError: it would be more than MAX_FMT_BYTES, after nine hundred rotations, or
            past MAX_EPOCH, which only a made-up number comes near.
    """
    if fmt.newest >= MAX_EPOCH:
        raise InvalidArgumentError(
            f"this project's key epoch {fmt.newest} is the last one",
            hint=ANOTHER_PROJECT,
        )
    if len(fresh) != rotation_bytes(fmt):
        raise ValueError(f"this rotation takes {rotation_bytes(fmt)} random bytes")
    source = BytesIO(fresh)
    roots = {**keys.roots.by_epoch, fmt.newest + 1: source.read(KEY_BYTES)}

    def wrapped(key: bytes, role: str) -> bytes:
        return _wrap(kek, source.read(NONCE_BYTES), key, fmt.repo_id, role)

    fields = _fields(fmt)
    fields["kdf"] = {
        **fields["kdf"],
        "salt": kdf.salt,
        "memory_kib": kdf.memory_kib,
        "iterations": kdf.iterations,
        "lanes": kdf.lanes,
    }
    fields["epochs"] = {epoch: wrapped(root, f"epoch {epoch}") for epoch, root in roots.items()}
    fields["names"] = wrapped(keys.names, "names")
    fields["check"] = wrapped(b"", _header(fields))
    raw = _framed(fields)
    if len(raw) > MAX_FMT_BYTES:
        raise InvalidArgumentError(
            f"this project's key was rotated {fmt.newest - 1} times; there is no room for another",
            hint=ANOTHER_PROJECT,
        )
    return decode(raw)


def with_floor(fmt: Format, kek: bytes, floor: int, *, nonce: bytes) -> Format:
    """Return `fmt` with a higher floor; everything else of it stays.

    Args:
        kek: The key that opens `fmt`.
        nonce: NONCE_BYTES fresh random bytes.
    """
    if not fmt.floor < floor <= fmt.newest:
        raise ValueError(f"the floor {fmt.floor} cannot become {floor}")
    fields = {**_fields(fmt), "floor": floor}
    fields["check"] = _wrap(kek, nonce, b"", fmt.repo_id, _header(fields))
    return decode(_framed(fields))


def without_unknown(raw: bytes) -> Format:
    """Return a `fmt` without the keys and features that this version does not know.

    Where it had any, its check value no longer fits (`rechecked`).

    Raises:
        BlobCorruptError, UnsupportedFormatError: as decode; there is more to it.
    """
    try:
        fields = _unpacked(raw)
        known = {
            **{name: value for name, value in fields.items() if name in FIELDS},
            "feat_r": [each for each in as_strs(fields["feat_r"]) if each in READER_FEATURES],
            "feat_w": [each for each in as_strs(fields["feat_w"]) if each in WRITER_FEATURES],
        }
        if known == fields:
            return decode(raw)
        return decode(raw[: len(MAGIC) + 1] + _framed(known)[len(MAGIC) + 1 :])
    except (KeyError, TypeError, ValueError, msgpack.UnpackException) as error:
        raise BlobCorruptError("the store's fmt does not decode") from error


def rechecked(fmt: Format, kek: bytes, *, nonce: bytes) -> Format:
    """Return `fmt` with the check value of what it says.

    Args:
        kek: The key that opens it.
        nonce: NONCE_BYTES fresh random bytes.
    """
    fields = _fields(fmt)
    fields["check"] = _wrap(kek, nonce, b"", fmt.repo_id, _header(fields))
    return decode(_framed(fields))


def decode(raw: bytes) -> Format:
    """Return what a `fmt` says, without a key.

    Raises:
        BlobCorruptError: damaged, or no `fmt`.
        UnsupportedFormatError: written by a newer version; the message names the feature.
    """
    if len(raw) > MAX_FMT_BYTES or len(raw) < 5 + CHECKSUM_BYTES or raw[:4] != MAGIC:
        raise BlobCorruptError(f"the store's fmt is not one of ours ({len(raw)} bytes)")
    frame, checksum = raw[:-CHECKSUM_BYTES], raw[-CHECKSUM_BYTES:]
    if not hmac.compare_digest(_checksum(frame), checksum):
        raise BlobCorruptError("the store's fmt is damaged: its checksum does not match")
    if raw[4] != MAJOR:
        raise UnsupportedFormatError(
            f"the repository has format {raw[4]}; this version knows {MAJOR}",
            hint=UPGRADE,
        )
    try:
        fields = as_kept(msgpack.unpackb(frame[5:], raw=False, strict_map_key=False))
        check_readable(as_strs(as_map(fields)["feat_r"]), what="the repository")
        kdf = as_map(fields["kdf"])
        if as_str(kdf["name"]) != "argon2id":
            raise UnsupportedFormatError(
                f"the repository derives keys with {kdf['name']!r}",
                hint=UPGRADE,
            )
        # No number is ever handed to `bytes`, which would make as many zeros of it.
        params = KdfParams(
            as_bytes(kdf["salt"]),
            as_uint(kdf["memory_kib"]),
            as_uint(kdf["iterations"]),
            as_uint(kdf["lanes"]),
        )
        fmt = Format(
            repo_id=as_bytes(fields["repo_id"], REPO_ID_BYTES),
            commit=as_str(fields["commit"]),
            kdf=params.checked(),
            epochs={
                as_uint(epoch): as_bytes(key, WRAPPED_BYTES)
                for epoch, key in as_map(fields["epochs"]).items()
            },
            floor=as_uint(fields["floor"]),
            names=as_bytes(fields["names"], WRAPPED_BYTES),
            check=as_bytes(fields["check"], CHECK_BYTES),
            features_w=as_strs(fields["feat_w"]),
            raw=raw,
        )
    except (KeyError, TypeError, ValueError, msgpack.UnpackException) as error:
        raise BlobCorruptError("the store's fmt does not decode") from error
    if not fmt.epochs or max(fmt.epochs) > MAX_EPOCH:
        raise BlobCorruptError("the store's fmt has no key")
    if not FIRST_EPOCH <= fmt.floor <= fmt.newest:
        raise BlobCorruptError("the store's fmt takes no epoch that it has")
    return fmt


def unlock(fmt: Format, kek: bytes) -> Keys:
    """Return the keys that `fmt` wraps.

    Raises:
        UnauthorizedError: `kek` is not the key that made it.
    """
    try:
        _unwrap(kek, fmt.check, fmt.repo_id, _header(_fields(fmt)))
        roots = {
            epoch: _unwrap(kek, key, fmt.repo_id, f"epoch {epoch}")
            for epoch, key in fmt.epochs.items()
        }
        names = _unwrap(kek, fmt.names, fmt.repo_id, "names")
    except (InvalidTag, ValueError):
        raise wrong_key(newest=fmt.newest) from None
    return Keys(fmt.repo_id, RootKeys(roots), names, fmt.features_w, fmt.commit, fmt.floor)


def check_continues(keys: Keys, before: Keys) -> None:
    """Refuse keys that cannot follow on those of before, as whoever has the project key can make.

    Raises:
        BlobCorruptError: what no rotation changes is not the same.
    """
    if any(keys.roots.by_epoch.get(epoch) != root for epoch, root in before.roots.by_epoch.items()):
        raise BlobCorruptError("other keys than before under the same numbers")
    if keys.names != before.names:
        raise BlobCorruptError("another key that names are made with")
    if keys.commit != before.commit:
        raise BlobCorruptError(f"a project that commits by {keys.commit!a:.80}")


def check_cost(fmt: Format, project_key: str) -> None:
    """Refuse a `fmt` that asks for a cheaper derivation than a key of this kind always has.

    No device made it with this key, so nothing is derived: whoever put it there shall not get a
    repository whose key can be tried out faster than this.

    Raises:
        UnauthorizedError: it does.
    """
    if not fmt.kdf.suits(project_key):
        raise wrong_key(newest=fmt.newest)


def body(raw: bytes) -> bytes:
    """Return what stands in a `fmt` between its magic and version, and its checksum."""
    return raw[len(MAGIC) + 1 : -CHECKSUM_BYTES]


def newest_of(raw: bytes) -> int | None:
    """Return the newest epoch that a `fmt` of any version states; None where none can be told."""
    try:
        epochs = [as_uint(epoch) for epoch in as_map(_unpacked(raw)["epochs"])]
    except (KeyError, TypeError, ValueError, msgpack.UnpackException):
        return None
    return max(epochs, default=None)


def is_checked(raw: bytes, kek: bytes) -> bool:
    """Return whether `kek` has made the check value of a `fmt`, of whatever version it is."""
    try:
        fields = _unpacked(raw)
        _unwrap(kek, as_bytes(fields["check"]), as_bytes(fields["repo_id"]), _header(fields))
    except (KeyError, TypeError, ValueError, InvalidTag, msgpack.UnpackException):
        return False
    return True


def wrong_key(*, newest: int = 1) -> UnauthorizedError:
    """Return the error for a project key that does not fit.

    Args:
        newest: The repository's newest key epoch; past 1, a key that fitted once may be an old one.
    """
    if newest > 1:
        return UnauthorizedError(
            "the project key does not open this project: it is not the one that the project's key "
            f"was rotated to (key epoch {newest})",
            hint=JOIN,
        )
    return UnauthorizedError(
        "the project key does not open this project",
        hint="check MOSS_PROJECT_KEY, the project_key argument, or what moss-local init was given "
        "(anew: moss-local init --join --force), against the device that made it",
    )


def key_rotated(*, newest: int) -> KeyRotatedError:
    """Return the error for a project key that opened this project here until it was rotated.

    Args:
        newest: The repository's newest key epoch.
    """
    return KeyRotatedError(
        "this device has the project's old key, not the one that it was rotated to (key epoch "
        f"{newest}); nothing is exchanged until it has the new one",
        hint=f"{JOIN}; if nobody rotated it, somebody who can write to the store made this up: "
        + repair_command(drop_unknown=True),
    )


def _fields(fmt: Format) -> dict[str, Any]:
    """Return all that stands in `fmt`, in its order, what this version does not know included."""
    return _unpacked(fmt.raw)


def _unpacked(raw: bytes) -> dict[str, Any]:
    fields = msgpack.unpackb(body(raw), raw=False, strict_map_key=False)
    return dict(as_map(fields))


def _framed(fields: dict[str, Any]) -> bytes:
    body: bytes = msgpack.packb(fields, use_bin_type=True)
    frame = MAGIC + bytes([MAJOR]) + body
    return frame + _checksum(frame)


def _header(fields: dict[str, Any]) -> str:
    covered = {name: value for name, value in fields.items() if name != "check"}
    return blake2b(msgpack.packb(covered, use_bin_type=True), digest_size=32).hexdigest()


def _wrap(kek: bytes, nonce: bytes, key: bytes, repo_id: bytes, role: str) -> bytes:
    return nonce + ChaCha20Poly1305(kek).encrypt(nonce, key, repo_id + role.encode())


def _unwrap(kek: bytes, wrapped: bytes, repo_id: bytes, role: str) -> bytes:
    nonce, sealed = wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:]
    return ChaCha20Poly1305(kek).decrypt(nonce, sealed, repo_id + role.encode())


def _checksum(frame: bytes) -> bytes:
    return blake2b(frame, digest_size=CHECKSUM_BYTES).digest()
