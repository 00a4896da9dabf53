"""The manifest: the one mutable object of a session, replaced only by compare-and-swap.

Rules of this file: values in, values out.
What holds (tests/moss_sync/test_manifest.py): `decode(encode(m)) == m`, unknown keys included, at
every level; any other bytes give BlobCorruptError; what `decode` would refuse, `encode` does not
make, because it asks the same function.

It lists every segment that belongs to the session, carries small pushes itself, and remembers for
each device the number of its last committed push, so "was it me?" is answered by state in here and
never by an ETag. Keys that this version does not know are kept and written back, so that an older
device never strips what a newer one added.
Source: SYNC-PROTOCOL 2.2, described byte by byte in docs/format.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any, Literal

from moss_sync.entries import COLUMNS, decode_entries, encode_entries
from moss_sync.entries import Entry as Entry
from moss_sync.errors import BlobCorruptError, InvalidArgumentError, UnsupportedFormatError
from moss_sync.features import UPGRADE, check_readable
from moss_sync.hlc import stamp_limit
from moss_sync.layout import MAX_LEVEL, MAX_PUSH, base_of, is_name
from moss_sync.limits import MAX_SEQ, MAX_UNKNOWN_BYTES
from moss_sync.marks import Past, marks_size
from moss_sync.packing import (
    as_bool,
    as_bytes,
    as_kept,
    as_list,
    as_map,
    as_name,
    as_str,
    as_strs,
    as_uint,
    pack,
    packed,
    unpack,
)
from moss_sync.record import DEVICE_BYTES, VectorSpace
from moss_sync.seal import FIRST_EPOCH, MAX_EPOCH
from moss_sync.segment import TIP_BYTES, space_fields, space_of
from moss_sync.setbacks import Setback, remembered
from moss_sync.times import check_time

VERSION = 1
HASH_BYTES = 32

MAX_MANIFEST_BYTES = 256 * 1024
"""Hard cap of the sealed manifest; a settled one stays under 40 KiB."""

MAX_PLAIN_BYTES = 4 * 1024 * 1024

INLINE_EACH_BYTES = 8 * 1024
INLINE_TOTAL_BYTES = 24 * 1024
"""A small push rides in the manifest: one request instead of two, and readers need no other."""

MAX_SPACES = 16
"""Vector spaces that a manifest remembers. A device that has missed more moves is told that its
vectors are of another model; its documents are untouched."""

LeaveOut = Literal["nothing", "keys", "keys and features"]

UNKNOWN_INC = bytes(DEVICE_BYTES)
"""No device has this incarnation: whoever finds it for itself fills in its own."""


@dataclass(frozen=True, slots=True)
class Inline:
    """A small push inside the manifest; `payload` is a plain segment."""

    dev: bytes
    n: int
    base: int
    seq: int
    ct: int
    payload: bytes = field(repr=False)
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Device:
    """What the session knows of one device.

    Attributes:
        n: Its last committed push.
        acked_seq: What it had applied then.
        last_ct: When, in store time.
        inc: Its incarnation nonce; UNKNOWN_INC where others committed its first push.
        tip: 16-byte digest of its last committed push: of the name, or of the inline payload.
        label: What its user calls it; None unless said.
        seq: The commit of that push.
    """

    n: int
    acked_seq: int
    last_ct: int
    inc: bytes
    tip: bytes
    label: str | None = None
    seq: int = 1
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Manifest:
    """One state of a session. `seq` rises by one with every commit.

    Attributes:
        prev: Hash of the ciphertext of the manifest before; zeros where there is none of the number
            before.
        marks: Beginnings of the hashes of manifests before this one, as `moss_sync.marks` has them.
        ct: Time of this commit in milliseconds; rises from one to the next, but for a repair that
            finds it in the future.
        by: The committing device.
        gc_floor: No name with a lower `base` may be committed any more.
        tomb_seq, tomb_hlc: Tombstones up to here may have been dropped.
        tl: (seq, what its committer believed the time was) of this commit and some before, thinner
            the older: which commit was a day ago.
        retired: The last commit of any device that has left `devs`; 0 if none has.
        repairs: How often the session was put together anew from what a device held.
        setbacks: The last MAX_SETBACKS repairs, each with the time past which nothing of before is.
        space: The vector space of the session; None before its first vector.
        epoch: Of the key that it is sealed under; never falls from one to the next, and what a
            commit adds to the list is of its epoch.
        features_r, features_w: What a device must know to read it, and to write to it.
        extra: Keys that this version does not know, and under "models" and "tomb_floor" what
            stands there besides what it does know.
    """

    repo_id: bytes
    sid: str
    name: str
    seq: int
    commit_id: bytes
    by: bytes
    ct: int
    prev: bytes
    marks: bytes = b""
    gen: int = 0
    deleted: bool = False
    entries: tuple[Entry, ...] = ()
    inline: tuple[Inline, ...] = ()
    devs: Mapping[bytes, Device] = field(default_factory=dict)
    gc_floor: int = 0
    tomb_seq: int = 0
    tomb_hlc: int = 0
    tl: tuple[tuple[int, int], ...] = ()
    retired: int = 0
    repairs: int = 0
    setbacks: tuple[Setback, ...] = ()
    space: VectorSpace | None = None
    epoch: int = FIRST_EPOCH
    features_r: tuple[str, ...] = ()
    features_w: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def former(self) -> frozenset[str]:
        """Fingerprints of the spaces that the session had before it was moved to this one."""
        active = None if self.space is None else self.space.fingerprint
        known = {item.get("fp") for item in self.extra.get("models", ())}
        return frozenset(fp for fp in known if isinstance(fp, str) and fp != active)

    def moved_to(self, space: VectorSpace) -> Manifest:
        """Return the manifest with another vector space; the one before is remembered."""
        models = [*self.extra.get("models", ())]
        for each in (self.space, space):
            if each is not None:
                models = [item for item in models if item.get("fp") != each.fingerprint]
                models.append(space_fields(each))
        return replace(self, space=space, extra=_with_models(self.extra, models, space))

    def without_unknown(self, leave_out: LeaveOut = "keys and features") -> Manifest:
        """Return the manifest without what this version does not know.

        Former vector spaces are known, and say which device may follow a move: they stay.
        """
        if leave_out == "nothing":
            return self
        features = leave_out == "keys and features"
        models = [item for item in self.extra.get("models", ()) if item.keys() == _MODEL_KEYS]
        return replace(
            self,
            entries=tuple(replace(each, extra={}) for each in self.entries),
            inline=tuple(replace(each, extra={}) for each in self.inline),
            devs={dev: replace(each, extra={}) for dev, each in self.devs.items()},
            features_r=() if features else self.features_r,
            features_w=() if features else self.features_w,
            extra=_with_models({}, models, self.space),
        )

    @property
    def inline_bytes(self) -> int:
        return sum(len(item.payload) for item in self.inline)

    def past(self, hash: bytes) -> Past:
        """Return what it says of commits before it and, by the hash of its ciphertext, of it."""
        return Past.of(self.seq, self.marks, prev=self.prev, hash=hash)

    def device(self, dev: bytes) -> Device | None:
        return self.devs.get(dev)


def _with_models(
    extra: Mapping[str, Any], models: list[dict[str, Any]], space: VectorSpace | None
) -> dict[str, Any]:
    """Return `extra` with these models, the newest ones, where they say more than `space` does."""
    kept = {key: value for key, value in extra.items() if key != "models"}
    if models and (space is None or models != [space_fields(space)]):
        kept["models"] = models[-MAX_SPACES:]
    return kept


_KEYS = frozenset(
    [
        "v",
        "feat_r",
        "feat_w",
        "repo_id",
        "sid",
        "name",
        "seq",
        "commit_id",
        "by",
        "ct",
        "prev",
        "marks",
        "gen",
        "deleted",
        "E",
        "inl",
        "devs",
        "gc_floor",
        "tomb_floor",
        "tl",
        "retired",
        "repairs",
        "setbacks",
        "models",
        "active_model",
        "epoch",
    ]
)
_INLINE_KEYS = frozenset(["dev", "n", "base", "seq", "ct", "payload"])
_DEVICE_KEYS = frozenset(["n", "acked_seq", "last_ct", "inc", "tip", "seq", "label"])
_FLOOR_KEYS = frozenset(["seq", "hlc"])
_MODEL_KEYS = frozenset(["id", "fp", "dim", "dtype"])


def ciphertext_hash(sealed: bytes) -> bytes:
    """Return the 32 bytes by which the next manifest names this one."""
    return blake2b(sealed, digest_size=HASH_BYTES).digest()


def tip_of(name_or_payload: bytes) -> bytes:
    """Return the 16 bytes that name a push in the device table."""
    return blake2b(name_or_payload, digest_size=TIP_BYTES).digest()


def encode(manifest: Manifest) -> bytes:
    """Return the plain bytes, to be sealed.

    Raises:
        InvalidArgumentError: they would be more than MAX_PLAIN_BYTES before compression, or
            `decode` would refuse them.
    """
    what = f"the manifest of session {manifest.name!a:.200}"
    if manifest.seq > MAX_SEQ:
        raise InvalidArgumentError(
            f"{what} counts {MAX_SEQ} commits, and there can be no more",
            hint="go on under another name: moss-local export SESSION FILE, and then "
            "moss-local import FILE --session OTHER",
        )
    try:
        fields = _fields(manifest)
        _check_unknown(manifest)
        _decode(fields, what)
    except (KeyError, TypeError, ValueError, StopIteration, BlobCorruptError) as error:
        raise InvalidArgumentError(f"{what} could not be read again: {error}") from error
    return pack(fields, max_bytes=MAX_PLAIN_BYTES, what=what)


def _check_unknown(manifest: Manifest) -> None:
    """Refuse known keys among those that are not: they would be lost. Raises ValueError."""
    extras = [
        (manifest.extra, _KEYS - {"models", "tomb_floor"}),
        (manifest.extra.get("tomb_floor", {}), _FLOOR_KEYS),
        *((each.extra, COLUMNS) for each in manifest.entries),
        *((each.extra, _INLINE_KEYS) for each in manifest.inline),
        *((each.extra, _DEVICE_KEYS) for each in manifest.devs.values()),
    ]
    if any(extra.keys() & known for extra, known in extras):
        raise ValueError("a known key among those that are not")


def _fields(manifest: Manifest) -> dict[str, Any]:
    models = list(manifest.extra.get("models", ()))
    if manifest.space is not None and not any(
        item.get("fp") == manifest.space.fingerprint for item in models
    ):
        models.append(space_fields(manifest.space))
    return {
        **manifest.extra,
        "v": VERSION,
        "feat_r": list(manifest.features_r),
        "feat_w": list(manifest.features_w),
        "repo_id": manifest.repo_id,
        "sid": manifest.sid,
        "name": manifest.name,
        "seq": manifest.seq,
        "commit_id": manifest.commit_id,
        "by": manifest.by,
        "ct": manifest.ct,
        "prev": manifest.prev,
        "marks": manifest.marks,
        "gen": manifest.gen,
        "deleted": manifest.deleted,
        "E": encode_entries(manifest.entries),
        "inl": [
            {
                **item.extra,
                "dev": item.dev,
                "n": item.n,
                "base": item.base,
                "seq": item.seq,
                "ct": item.ct,
                "payload": item.payload,
            }
            for item in manifest.inline
        ],
        "devs": {
            dev: {
                **device.extra,
                "n": device.n,
                "acked_seq": device.acked_seq,
                "last_ct": device.last_ct,
                "inc": device.inc,
                "tip": device.tip,
                "label": device.label,
                "seq": device.seq,
            }
            for dev, device in manifest.devs.items()
        },
        "gc_floor": manifest.gc_floor,
        "tomb_floor": {
            **manifest.extra.get("tomb_floor", {}),
            "seq": manifest.tomb_seq,
            "hlc": manifest.tomb_hlc,
        },
        "models": models,
        "active_model": None if manifest.space is None else manifest.space.fingerprint,
        "epoch": manifest.epoch,
        # Left out where they say nothing, as in most sessions.
        **({"tl": [[seq, ct] for seq, ct in manifest.tl]} if manifest.tl else {}),
        **({"retired": manifest.retired} if manifest.retired else {}),
        **({"repairs": manifest.repairs} if manifest.repairs else {}),
        **({"setbacks": [list(each) for each in manifest.setbacks]} if manifest.setbacks else {}),
    }


def decode(plain: bytes, *, what: str, leave_out: LeaveOut = "nothing") -> Manifest:
    """Return the manifest that `encode` got.

    Args:
        leave_out: What of that which this version does not know, however much it is: for a
            repair, which puts another manifest in the place of this one.
    Raises:
        BlobCorruptError: anything about it is not as it must be.
        UnsupportedFormatError: it uses a feature that this version cannot read.
    """
    fields = unpack(plain, max_bytes=MAX_PLAIN_BYTES, what=what)
    try:
        return _decode(fields, what, leave_out)
    except (KeyError, TypeError, ValueError, StopIteration) as error:
        raise BlobCorruptError(f"{what} does not decode: {type(error).__name__}") from error


def _decode(fields: dict[str, Any], what: str, leave_out: LeaveOut = "nothing") -> Manifest:
    version = as_uint(as_map(fields)["v"])
    if leave_out != "keys and features":
        check_readable(as_strs(fields["feat_r"]), what=what)
    if version != VERSION:
        raise UnsupportedFormatError(
            f"{what} has version {version}, which this version does not know", hint=UPGRADE
        )
    extra = _extra(fields, _KEYS)
    models = [as_map(item) for item in as_list(fields["models"])]
    active = fields["active_model"]
    space = None
    if active is not None:
        space = space_of(next(item for item in models if item["fp"] == as_str(active)))
    if models != ([] if space is None else [space_fields(space)]):
        extra["models"] = as_kept(models)
    floor = as_map(fields["tomb_floor"])
    if beside := _extra(floor, _FLOOR_KEYS):
        extra["tomb_floor"] = beside
    manifest = Manifest(
        repo_id=as_bytes(fields["repo_id"], 16),
        sid=as_str(fields["sid"]),
        name=as_name(fields["name"]),
        seq=as_uint(fields["seq"]),
        commit_id=as_bytes(fields["commit_id"], 16),
        by=as_bytes(fields["by"], DEVICE_BYTES),
        ct=as_uint(fields["ct"]),
        prev=as_bytes(fields["prev"], HASH_BYTES),
        marks=as_bytes(fields["marks"]),
        gen=as_uint(fields["gen"]),
        deleted=as_bool(fields["deleted"]),
        entries=decode_entries(fields["E"]),
        inline=tuple(_inline(as_map(item)) for item in as_list(fields["inl"])),
        devs={
            as_bytes(dev, DEVICE_BYTES): _device(as_map(item))
            for dev, item in as_map(fields["devs"]).items()
        },
        gc_floor=as_uint(fields["gc_floor"]),
        tomb_seq=as_uint(floor["seq"]),
        tomb_hlc=as_uint(floor["hlc"]),
        tl=tuple(_sample(item) for item in as_list(fields.get("tl", []))),
        retired=as_uint(fields.get("retired", 0)),
        repairs=as_uint(fields.get("repairs", 0)),
        setbacks=tuple(_setback(item) for item in as_list(fields.get("setbacks", []))),
        space=space,
        epoch=as_uint(fields["epoch"]),
        features_r=as_strs(fields["feat_r"]),
        features_w=as_strs(fields["feat_w"]),
        extra=extra,
    )
    manifest = manifest.without_unknown(leave_out)
    _check(manifest, what)
    return manifest


def unknown_bytes(manifest: Manifest) -> int:
    """Return how much of a manifest this version does not know."""
    extras = [manifest.extra]
    extras += [each.extra for each in manifest.entries if each.extra]
    extras += [each.extra for each in manifest.inline if each.extra]
    extras += [each.extra for each in manifest.devs.values() if each.extra]
    unknown = [extras, list(manifest.features_r), list(manifest.features_w)]
    return len(packed(unknown, what="what is not known"))


def _check(manifest: Manifest, what: str) -> None:
    """Refuse what no commit can have made, and what none could follow. Raises ValueError.

    A number that counts commits is at most that of the commit itself: so nobody is stuck for
    want of a next one, but at MAX_SEQ.
    """
    if not 1 <= manifest.seq <= MAX_SEQ:
        raise ValueError("number of commits")
    if unknown_bytes(manifest) > MAX_UNKNOWN_BYTES:
        raise ValueError("too much that is not known")
    counted = [manifest.gen, manifest.repairs, manifest.retired]
    counted += [seq for seq, _ in manifest.tl]
    counted += [each.seq for each in manifest.setbacks]
    for device in manifest.devs.values():
        counted += [device.acked_seq, device.seq]
        if device.n > MAX_PUSH:
            raise ValueError("push number")
    if max(counted) > manifest.seq:
        raise ValueError("a number past the last commit")
    names = [entry.name for entry in manifest.entries]
    if len(set(names)) != len(names) or not all(map(is_name, names)):
        raise ValueError("names")
    if not FIRST_EPOCH <= manifest.epoch <= MAX_EPOCH:
        raise ValueError("epoch")
    for entry in manifest.entries:
        pushed = entry.name.startswith("s/")
        if not entry.lo < entry.hi <= manifest.seq or pushed != (entry.lvl == 0):
            raise ValueError("entries")
        if entry.lvl > MAX_LEVEL:
            raise ValueError("level")
        # A base above the floors for ever could never be collected.
        if max(entry.bmin, base_of(entry.name)) > manifest.seq:
            raise ValueError("bases")
        if not FIRST_EPOCH <= entry.epoch <= manifest.epoch:
            raise ValueError("epochs")
    for item in manifest.inline:
        if not 1 <= item.seq <= manifest.seq or item.n > MAX_PUSH or item.base > manifest.seq:
            raise ValueError("inline")
    if len(manifest.marks) != marks_size(manifest.seq):
        raise ValueError("marks")
    if not all(1 <= device.seq <= manifest.seq for device in manifest.devs.values()):
        raise ValueError("devices")
    _check_times(manifest, what)
    # A floor above what exists could never be reached: every push would be turned away for ever.
    if not manifest.tomb_seq <= manifest.gc_floor <= manifest.seq:
        raise ValueError("floors")


def _check_times(manifest: Manifest, what: str) -> None:
    """Refuse times that no commit can have had, so that one more can always be made.

    Raises:
        BlobCorruptError: one is past what the format can store.
        ValueError: one is past that of the manifest.
    """
    check_time(manifest.ct, manifest.seq, what=what)
    for _, at_ms in manifest.tl:
        check_time(at_ms, manifest.seq, what=what)
    if manifest.setbacks != remembered(manifest.setbacks):
        raise ValueError("setbacks")
    for each in manifest.setbacks:
        check_time(each.commit_ms, manifest.seq, what=what)
    times = [
        *(entry.ct for entry in manifest.entries),
        *(item.ct for item in manifest.inline),
        *(device.last_ct for device in manifest.devs.values()),
    ]
    if max(times, default=0) > manifest.ct or manifest.tomb_hlc > stamp_limit(manifest.ct):
        raise ValueError("times")


def _setback(item: Any) -> Setback:
    repairs, seq, commit_ms = as_list(item)
    return Setback(as_uint(repairs), as_uint(seq), as_uint(commit_ms))


def _sample(item: Any) -> tuple[int, int]:
    seq, ct = as_list(item)
    return as_uint(seq), as_uint(ct)


def _inline(item: dict[str, Any]) -> Inline:
    return Inline(
        dev=as_bytes(item["dev"], DEVICE_BYTES),
        n=as_uint(item["n"]),
        base=as_uint(item["base"]),
        seq=as_uint(item["seq"]),
        ct=as_uint(item["ct"]),
        payload=as_bytes(item["payload"]),
        extra=_extra(item, _INLINE_KEYS),
    )


def _device(item: dict[str, Any]) -> Device:
    return Device(
        n=as_uint(item["n"]),
        acked_seq=as_uint(item["acked_seq"]),
        last_ct=as_uint(item["last_ct"]),
        inc=as_bytes(item["inc"], DEVICE_BYTES),
        tip=as_bytes(item["tip"], TIP_BYTES),
        seq=as_uint(item["seq"]),
        label=None if item["label"] is None else as_name(item["label"]),
        extra=_extra(item, _DEVICE_KEYS),
    )


def _extra(fields: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    return {as_kept(key): as_kept(value) for key, value in fields.items() if key not in known}
