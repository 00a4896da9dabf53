"""`fmt` and its keys: damage, a wrong key and a forged header are told apart."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from typing import Any

import msgpack
import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given
from hypothesis import strategies as st

from moss_sync import keyring
from moss_sync import repository as repository_module
from moss_sync.commit import Commit
from moss_sync.errors import (
    BlobCorruptError,
    InvalidArgumentError,
    NetworkError,
    UnauthorizedError,
    UnsupportedFormatError,
)
from moss_sync.features import check_writable
from moss_sync.keyring import Format, KdfParams, Keys, create, decode, derive_kek, unlock
from moss_sync.patience import Patience
from moss_sync.repository import Repository
from moss_sync.stores import MemoryStore
from tests.devices import MemoryCache, QuickClock, run_here
from tests.keys import KEY
from tests.moss_sync.hostile import put
from tests.moss_sync.world import FaultyStore

KEK = bytes(range(200, 232))
KDF = KdfParams(b"salt-of-16-bytes", memory_kib=8 * 1024, iterations=1, lanes=1)
FRESH = bytes(index % 251 for index in range(keyring.FRESH_BYTES))
FMT = create(KEK, KDF, fresh=FRESH)


def fields_of(raw: bytes = FMT.raw) -> dict[str, Any]:
    fields = msgpack.unpackb(raw[5:-16], strict_map_key=False)
    assert isinstance(fields, dict)
    return fields


def framed(value: Any, *, major: int = 1) -> bytes:
    """Return a `fmt` of any fields, with a checksum that fits."""
    body: bytes = msgpack.packb(value)
    frame = b"XFMT" + bytes([major]) + body
    return frame + blake2b(frame, digest_size=16).digest()


def test_a_new_repository_opens_with_the_key_that_made_it() -> None:
    keys = unlock(decode(FMT.raw), KEK)
    assert keys.repo_id == FMT.repo_id == FRESH[:16]
    assert keys.roots.by_epoch == {1: FRESH[16:48]}
    assert keys.names == FRESH[48:80]
    assert keys.features_w == ()
    assert (FMT.commit, FMT.kdf) == ("cas", KDF)
    assert decode(FMT.raw) == FMT
    assert framed(fields_of()) == FMT.raw


def test_a_fmt_holds_these_fields() -> None:
    fields = fields_of()
    wrapped = {"root": fields["epochs"].pop(1), "names": fields.pop("names")}
    assert {len(value) for value in wrapped.values()} == {keyring.WRAPPED_BYTES} == {60}
    assert len(fields.pop("check")) == keyring.CHECK_BYTES == 28
    assert fields == {
        "feat_r": [],
        "feat_w": [],
        "repo_id": FRESH[:16],
        "commit": "cas",
        "kdf": {
            "name": "argon2id",
            "salt": b"salt-of-16-bytes",
            "memory_kib": 8192,
            "iterations": 1,
            "lanes": 1,
        },
        "epochs": {},
        "floor": 1,
    }
    assert list(fields_of()) == [
        "feat_r",
        "feat_w",
        "repo_id",
        "commit",
        "kdf",
        "epochs",
        "floor",
        "names",
        "check",
    ]


@given(kek=st.binary(min_size=32, max_size=32).filter(lambda kek: kek != KEK))
def test_another_key_is_told_so(kek: bytes) -> None:
    with pytest.raises(UnauthorizedError, match="does not open this project") as caught:
        unlock(FMT, kek)
    assert "MOSS_PROJECT_KEY" in (caught.value.hint or "")


@pytest.mark.parametrize("bit", [1, 128])
def test_damage_to_any_byte_is_a_corrupt_fmt_and_never_a_wrong_key(bit: int) -> None:
    for at in range(len(FMT.raw)):
        changed = bytearray(FMT.raw)
        changed[at] ^= bit
        with pytest.raises(BlobCorruptError):
            decode(bytes(changed))


def test_a_fmt_cut_anywhere_or_with_something_behind_it_is_corrupt() -> None:
    for size in range(len(FMT.raw)):
        with pytest.raises(BlobCorruptError):
            decode(FMT.raw[:size])
    for more in (b"\0", FMT.raw):
        with pytest.raises(BlobCorruptError):
            decode(FMT.raw + more)
    with pytest.raises(BlobCorruptError):
        decode(FMT.raw + bytes(keyring.MAX_FMT_BYTES))


FORGED: dict[str, Callable[[dict[str, Any]], None]] = {
    "a writer feature": put("feat_w", value=["later"]),
    "another repository": put("repo_id", value=bytes(16)),
    "another mode": put("commit", value="log"),
    "another salt": put("kdf", "salt", value=bytes(16)),
    "more memory": put("kdf", "memory_kib", value=16 * 1024),
    "more passes": put("kdf", "iterations", value=2),
    "more lanes": put("kdf", "lanes", value=2),
    "another root key": put("epochs", 1, value=bytes(60)),
    "another epoch": put("epochs", 2, value=bytes(60)),
    "a root key under another epoch": lambda fields: fields.update(epochs={2: fields["epochs"][1]}),
    "another name key": put("names", value=bytes(60)),
    "another check": put("check", value=bytes(28)),
    "an unknown key": put("zz_later", value=1),
    "keys in another order": lambda fields: fields.update(feat_r=fields.pop("feat_r")),
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_a_header_changed_by_somebody_without_the_key_is_not_believed(
    forge: Callable[[dict[str, Any]], None],
) -> None:
    fields = fields_of()
    forge(fields)
    forged = decode(framed(fields))
    with pytest.raises(UnauthorizedError):
        unlock(forged, KEK)


def test_wrapped_keys_cannot_change_places() -> None:
    keys = unlock(FMT, KEK)
    wrapped = FMT.epochs[1]
    with pytest.raises(InvalidTag):
        keyring._unwrap(KEK, wrapped, FMT.repo_id, "names")
    with pytest.raises(InvalidTag):
        keyring._unwrap(KEK, wrapped, FMT.repo_id, "epoch 2")
    with pytest.raises(InvalidTag):
        keyring._unwrap(KEK, wrapped, bytes(16), "epoch 1")
    assert keyring._unwrap(KEK, wrapped, FMT.repo_id, "epoch 1") == keys.roots.by_epoch[1]


HOSTILE: dict[str, Callable[[dict[str, Any]], None]] = {
    "too little memory": put("kdf", "memory_kib", value=8 * 1024 - 1),
    "too much memory": put("kdf", "memory_kib", value=256 * 1024 + 1),
    "all the memory there is": put("kdf", "memory_kib", value=2**64 - 1),
    "no pass": put("kdf", "iterations", value=0),
    "too many passes": put("kdf", "iterations", value=11),
    "no lane": put("kdf", "lanes", value=0),
    "too many lanes": put("kdf", "lanes", value=17),
    "a short salt": put("kdf", "salt", value=bytes(15)),
    "a salt that is a number": put("kdf", "salt", value=2**40),
    "a salt that is a list": put("kdf", "salt", value=[0] * 16),
    "memory without end": put("kdf", "memory_kib", value=math.inf),
    "memory that is no number": put("kdf", "memory_kib", value=math.nan),
    "memory in text": put("kdf", "memory_kib", value="65536"),
    "passes that are a bool": put("kdf", "iterations", value=True),
    "passes in fractions": put("kdf", "iterations", value=1.0),
    "negative lanes": put("kdf", "lanes", value=-1),
    "key parameters that are a list": put("kdf", value=[]),
    "a method that is a number": put("kdf", "name", value=1),
    "a repository id that is a number": put("repo_id", value=16),
    "a repository id of another size": put("repo_id", value=bytes(15)),
    "a mode that is a number": put("commit", value=1),
    "no epoch": put("epochs", value={}),
    "epochs that are a list": put("epochs", value=[]),
    "an epoch of text": put("epochs", value={"1": bytes(60)}),
    "an epoch of a bool": put("epochs", value={True: bytes(60)}),
    "a negative epoch": put("epochs", value={-1: bytes(60)}),
    "an epoch that no header holds": put("epochs", value={2**32: bytes(60)}),
    "a wrapped key that is a number": put("epochs", 1, value=2**40),
    "a wrapped key of another size": put("epochs", 1, value=bytes(59)),
    "a name key of another size": put("names", value=bytes(61)),
    "a name key that is a number": put("names", value=2**40),
    "a check of another size": put("check", value=b""),
    "features that are a text": put("feat_r", value="later"),
    "features that are numbers": put("feat_r", value=[1, "a"]),
    "features that are lists": put("feat_w", value=[[]]),
    "features that are a map": put("feat_w", value={"later": 1}),
}


@pytest.mark.parametrize("harm", HOSTILE.values(), ids=HOSTILE)
def test_a_field_that_is_not_as_it_must_be_is_a_corrupt_fmt(
    harm: Callable[[dict[str, Any]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("a key was derived")

    monkeypatch.setattr(keyring, "Argon2id", never)
    fields = fields_of()
    harm(fields)
    with pytest.raises(BlobCorruptError, match=r"fmt|key parameters"):
        decode(framed(fields))


@pytest.mark.parametrize("key", sorted(fields_of()))
def test_no_field_may_be_missing(key: str) -> None:
    fields = fields_of()
    del fields[key]
    with pytest.raises(BlobCorruptError):
        decode(framed(fields))


@pytest.mark.parametrize("value", [None, True, 1, "v", b"v", [], {}, {1: 1}])
def test_a_value_that_is_no_fmt_is_corrupt(value: Any) -> None:
    with pytest.raises(BlobCorruptError):
        decode(framed(value))


@given(data=st.binary(max_size=100))
def test_bytes_that_nobody_wrote_are_corrupt(data: bytes) -> None:
    frame = b"XFMT\1" + data
    for raw in (data, frame, frame + blake2b(frame, digest_size=16).digest()):
        with pytest.raises(BlobCorruptError):
            decode(raw)


@pytest.mark.parametrize(
    "body", [b"\x81\x91\x01\x01", b"\xdd\xff\xff\xff\xff", b"\x91" * 9000, b"\xc1", b"\x80\x80"]
)
def test_hostile_msgpack_is_a_corrupt_fmt(body: bytes) -> None:
    frame = b"XFMT\1" + body
    with pytest.raises(BlobCorruptError):
        decode(frame + blake2b(frame, digest_size=16).digest())


def test_what_a_later_version_needs_is_named() -> None:
    with pytest.raises(UnsupportedFormatError, match="format 2"):
        decode(framed({}, major=2))
    fields = fields_of()
    fields["feat_r"] = ["later"]
    with pytest.raises(UnsupportedFormatError, match="'later'"):
        decode(framed(fields))
    fields = fields_of()
    fields["kdf"]["name"] = "scrypt"
    with pytest.raises(UnsupportedFormatError, match="'scrypt'"):
        decode(framed(fields))


def test_a_repository_with_a_writer_feature_of_later_is_read_and_not_written() -> None:
    keys = unlock(FMT, KEK)
    check_writable(keys, None)
    later = Keys(keys.repo_id, keys.roots, keys.names, ("later",))
    with pytest.raises(UnsupportedFormatError, match="'later'") as caught:
        check_writable(later, None)
    assert "only read" in (caught.value.hint or "")
    fields = fields_of()
    fields["feat_w"] = ["later"]
    assert decode(framed(fields)).features_w == ("later",)


def test_nothing_is_written_to_a_repository_that_needs_a_later_writer() -> None:
    kek = derive_kek(KEY, KDF)
    fields = fields_of(create(kek, KDF, fresh=FRESH).raw)
    fields["feat_w"] = ["later"]
    fields["check"] = keyring._wrap(kek, bytes(12), b"", FRESH[:16], keyring._header(fields))
    store = MemoryStore()
    repository = Repository(
        store, "project", KEY, cache=MemoryCache(), clock=QuickClock(), run=run_here
    )

    async def scenario() -> None:
        await store.compare_and_swap(repository.layout.fmt, framed(fields), etag=None)
        assert (await repository.attach()).repo_id == FRESH[:16]
        with pytest.raises(UnsupportedFormatError, match="'later'"):
            await repository.ready_to_write()
        assert [each.key for each in await store.keys(repository.layout.prefix)] == [
            repository.layout.fmt
        ]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("memory_kib", "iterations"), [(8 * 1024, 1), (64 * 1024, 2), (32 * 1024, 3)]
)
def test_a_fmt_that_makes_guessing_cheaper_is_refused_and_nothing_is_derived_from_a_typed_key(
    memory_kib: int, iterations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it is made with the right key: a store must not choose what a guess costs."""
    weak = KdfParams(b"salt-of-16-bytes", memory_kib, iterations, 4)
    made = create(derive_kek("a typed key", weak), weak, fresh=FRESH)
    derivations: list[KdfParams] = []

    def derived(project_key: str, kdf: KdfParams) -> bytes:
        derivations.append(kdf)
        return derive_kek(project_key, kdf)

    monkeypatch.setattr(repository_module, "derived", derived)
    store = MemoryStore()
    repository = Repository(
        store, "project", "a typed key", cache=MemoryCache(), clock=QuickClock(), run=run_here
    )

    async def scenario() -> None:
        await store.compare_and_swap(repository.layout.fmt, made.raw, etag=None)
        for contact in (repository.attach, partial(repository.check_key, contact=True)):
            with pytest.raises(UnauthorizedError):
                await contact()
        assert derivations == []

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("key", "cost"),
    [("a typed key", (64 * 1024, 3, 4)), (KEY, (8 * 1024, 1, 1))],
    ids=["typed", "made"],
)
@pytest.mark.parametrize("commit", ["cas", "log"])
def test_a_new_repository_states_the_cost_of_its_key(
    key: str, cost: tuple[int, int, int], commit: Commit
) -> None:
    repository = Repository(
        MemoryStore(),
        "project",
        key,
        cache=MemoryCache(),
        clock=QuickClock(),
        run=run_here,
        commit=commit,
    )

    async def scenario() -> None:
        await repository.attach()
        fmt, _ = await repository.read_fmt()
        assert (fmt.kdf.memory_kib, fmt.kdf.iterations, fmt.kdf.lanes) == cost

    asyncio.run(scenario())


def test_who_waits_for_a_first_contact_that_fails_does_not_try_it_again() -> None:
    """One after the other, eight sessions of a new device would wait eight times as long."""
    store = FaultyStore()
    repository = Repository(
        store, "project", KEY, cache=MemoryCache(), clock=QuickClock(), run=run_here
    )

    async def away(verb: str, key: str) -> None:
        for _ in range(10):
            await asyncio.sleep(0)
        raise NetworkError("no answer")

    async def scenario() -> None:
        store.before = away
        calls = [repository.keys(), repository.mode(), repository.attach(), repository.keys()]
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(error) for error in errors] == [NetworkError] * 4
        assert len({id(error) for error in errors}) == 4  # an exchange writes its report into one
        assert len(store.calls) == 1
        with pytest.raises(NetworkError):
            await repository.keys()  # who comes later asks again
        assert len(store.calls) == 2
        store.before = None
        assert await repository.keys() is None

    asyncio.run(scenario())


def test_sessions_that_open_at_once_wait_for_a_silent_store_together() -> None:
    store = FaultyStore()
    repository = Repository(
        store, "project", KEY, cache=MemoryCache(), clock=QuickClock(), run=run_here
    )

    async def silent(verb: str, key: str) -> None:
        await asyncio.sleep(600)

    async def opens() -> None:
        patience = Patience(0.2, store=store.url)
        await repository.check_key(contact=True, patience=patience)
        with pytest.raises(NetworkError, match="no answer"):
            await patience.until_answered(repository.keys)

    async def scenario() -> None:
        store.before = silent
        await asyncio.gather(*(opens() for _ in range(8)))
        assert len(store.calls) == 1

    asyncio.run(asyncio.wait_for(scenario(), 60))


NEW_KEK = bytes(range(100, 132))
NEW_KDF = KdfParams(b"another-salt-16b", memory_kib=16 * 1024, iterations=2, lanes=2)


def rotated(fmt: Format = FMT, *, kek: bytes = NEW_KEK, kdf: KdfParams = NEW_KDF) -> Format:
    fresh = bytes((7 * index) % 251 for index in range(keyring.rotation_bytes(fmt)))
    return keyring.rotate(fmt, unlock(fmt, KEK), kek, kdf, fresh=fresh)


def test_a_rotation_adds_a_root_key_and_loses_none() -> None:
    before, after = unlock(FMT, KEK), unlock(decode(rotated().raw), NEW_KEK)
    assert after.roots.by_epoch[1] == before.roots.by_epoch[1]
    assert after.roots.newest == rotated().newest == 2
    assert after.roots.by_epoch[2] not in (before.roots.by_epoch[1], bytes(32))
    # Names never move, and blobs stay bound to the same repository.
    assert (after.names, after.repo_id) == (before.names, before.repo_id)
    assert rotated().kdf == NEW_KDF


def test_after_a_rotation_the_old_key_opens_nothing_and_is_told_why() -> None:
    with pytest.raises(UnauthorizedError, match="was rotated to \\(key epoch 2\\)") as caught:
        unlock(rotated(), KEK)
    assert "rotate-key --join" in (caught.value.hint or "")


def test_a_rotation_under_the_same_key_is_one_too() -> None:
    after = unlock(rotated(kek=KEK, kdf=KDF), KEK)
    assert sorted(after.roots.by_epoch) == [1, 2]


def test_a_rotation_keeps_what_this_version_does_not_know() -> None:
    fields = fields_of()
    fields["kdf"]["zz_cost"] = 3
    fields["zz_later"] = {"kept": [1, b"two"]}
    fields["check"] = keyring._wrap(KEK, bytes(12), b"", FRESH[:16], keyring._header(fields))
    after = rotated(decode(framed(fields)))
    assert fields_of(after.raw)["zz_later"] == {"kept": [1, b"two"]}
    assert fields_of(after.raw)["kdf"]["zz_cost"] == 3
    assert unlock(after, NEW_KEK).names == FRESH[48:80]


def test_no_two_wrapped_keys_of_a_rotation_share_a_nonce() -> None:
    after = rotated(rotated(kek=KEK, kdf=KDF), kek=KEK, kdf=KDF)
    wrapped = [*after.epochs.values(), after.names, after.check]
    assert len({each[:12] for each in wrapped}) == len(wrapped) == 5


def test_a_rotation_takes_all_of_its_randomness() -> None:
    for size in (0, keyring.rotation_bytes(FMT) - 1, keyring.rotation_bytes(FMT) + 1):
        with pytest.raises(ValueError):
            keyring.rotate(FMT, unlock(FMT, KEK), KEK, KDF, fresh=bytes(size))


def test_a_fmt_without_room_for_another_key_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring, "MAX_FMT_BYTES", len(FMT.raw) + 30)
    with pytest.raises(InvalidArgumentError, match="rotated 0 times; there is no room"):
        rotated()
    monkeypatch.setattr(keyring, "MAX_FMT_BYTES", 64 * 1024)
    assert len(rotated().raw) - len(FMT.raw) < 70  # so there is room for some nine hundred


@pytest.mark.parametrize("size", [0, keyring.FRESH_BYTES - 1, keyring.FRESH_BYTES + 1])
def test_a_repository_takes_all_of_its_randomness(size: int) -> None:
    with pytest.raises(ValueError):
        create(KEK, KDF, fresh=bytes(size))


def test_each_repository_is_as_different_as_its_randomness() -> None:
    other = create(KEK, KDF, fresh=bytes(keyring.FRESH_BYTES))
    assert other.repo_id != FMT.repo_id
    assert other.epochs[1] != FMT.epochs[1]
    assert len({FMT.epochs[1][:12], FMT.names[:12], FMT.check[:12]}) == 3


def test_the_key_is_argon2id_of_the_project_key() -> None:
    # Vectors of the reference implementation (phc-winner-argon2, src/test.c, version 0x13).
    two_passes = KdfParams(b"somesalt", memory_kib=64 * 1024, iterations=2, lanes=1)
    assert derive_kek("password", two_passes).hex() == (
        "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7"
    )
    two_lanes = KdfParams(b"somesalt", memory_kib=256, iterations=2, lanes=2)
    assert derive_kek("password", two_lanes).hex() == (
        "6d093c501fd5999645e0ea3bf620d7b8be7fd2db59c20d9fff9539da2bf57037"
    )
    assert len(derive_kek("ключ 🔑", KDF)) == 32


def test_no_representation_shows_a_key() -> None:
    keys = unlock(FMT, KEK)
    secrets = [keys.roots.by_epoch[1], keys.names, FMT.epochs[1], FMT.names, FMT.check, KEK]
    for shown in (repr(FMT), repr(keys), str(FMT), str(keys), f"{[keys]}"):
        for secret in secrets:
            assert repr(secret)[2:12] not in shown
            assert secret.hex()[:8] not in shown
    assert isinstance(FMT, Format)
