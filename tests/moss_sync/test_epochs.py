"""What is under an old key is known from the manifest, and a history's key never gets older."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moss_sync import segment
from moss_sync.epochs import check_counts, check_epoch, counted, is_old, old_entries, plan_rewrite
from moss_sync.errors import BlobCorruptError, ForkDetectedError, RevokedKeyError
from moss_sync.layout import TAG_CHARS
from moss_sync.manifest import Entry, Inline, Manifest
from moss_sync.seal import BlobIdentity, RootKeys, epoch_of, seal

DEV = b"device-A"
TAG = "a" * TAG_CHARS


def entry(hi: int, *, epoch: int, size: int = 1000) -> Entry:
    name = f"s/{hi - 1:016x}-{DEV.hex()}-{hi:08x}-{TAG}"
    return Entry(name, size, 1, 0, hi - 1, hi, hi - 1, 0, 0, epoch, 0, None, 4 * size)


def history(*entries: Entry, epoch: int = 1, inline: int = 0) -> Manifest:
    return Manifest(
        repo_id=bytes(16),
        sid="s" * 26,
        name="conv-123",
        seq=100,
        commit_id=bytes(16),
        by=DEV,
        ct=0,
        prev=bytes(32),
        entries=entries,
        inline=tuple(
            Inline(DEV, n, 0, n, 0, segment.encode(segment.Segment(DEV, n, 0, None, b"", [])))
            for n in range(1, inline + 1)
        ),
        epoch=epoch,
    )


def test_a_sealed_blob_says_under_which_epoch_it_is() -> None:
    roots = RootKeys({1: bytes(32), 7: bytes(range(32))})
    sealed = seal(roots, BlobIdentity(bytes(16), "", "probe", "probe"), b"plain", salt=bytes(32))
    assert epoch_of(sealed) == 7
    for other in (b"", b"XSEG", b"XFMT" + sealed[4:], sealed[:83]):
        assert epoch_of(other) is None


def test_a_session_is_old_while_anything_of_it_is() -> None:
    first = history(entry(1, epoch=1), entry(2, epoch=1))
    assert old_entries(first, 1) == ()
    assert not is_old(first, 1)
    assert old_entries(first, 2) == first.entries
    assert is_old(history(epoch=1), 2)
    assert not is_old(history(entry(1, epoch=2), epoch=2), 2)
    assert is_old(history(entry(1, epoch=2), entry(2, epoch=1), epoch=2), 2)


def test_a_manifest_under_another_key_than_it_says_is_corrupt() -> None:
    check_epoch(history(epoch=2), 2, None)
    for sealed in (1, 3):
        with pytest.raises(BlobCorruptError, match=f"epoch {sealed}, and says 2"):
            check_epoch(history(epoch=2), sealed, None)


def test_a_manifest_under_an_older_key_than_the_one_before_is_a_fork() -> None:
    before = history(epoch=2)
    check_epoch(history(epoch=2), 2, before)
    check_epoch(history(epoch=1), 1, history(epoch=1))
    with pytest.raises(ForkDetectedError, match="epoch 1, after epoch 2") as caught:
        check_epoch(history(epoch=1), 1, before)
    assert "refuse the store" in (caught.value.hint or "")


def test_below_the_floor_nothing_counts_neither_a_manifest_nor_what_it_lists() -> None:
    check_counts(history(entry(1, epoch=2), epoch=3), 2)
    for old in (history(epoch=1), history(entry(1, epoch=2), entry(2, epoch=1), epoch=2)):
        with pytest.raises(
            RevokedKeyError, match=r"key epoch 1, and this project .* than 2"
        ) as told:
            check_counts(old, 2)
        assert "moss-local repair conv-123" in (told.value.hint or "")


def test_a_repair_takes_over_only_what_counts() -> None:
    mixed = history(entry(1, epoch=1), entry(2, epoch=2), epoch=2, inline=1)
    assert counted(mixed, 1) == mixed
    assert counted(mixed, 2) == replace(mixed, entries=mixed.entries[1:])
    assert counted(mixed, 3) == replace(mixed, entries=(), inline=())


def test_nothing_is_rewritten_where_there_was_no_rotation_or_all_is_new() -> None:
    assert plan_rewrite(history(entry(1, epoch=1), inline=2), 1) is None
    assert plan_rewrite(history(entry(1, epoch=2), epoch=2, inline=2), 2) is None
    assert plan_rewrite(history(epoch=1), 2) is None


def test_old_entries_and_the_inline_pushes_of_an_old_manifest_become_one() -> None:
    mixed = history(entry(1, epoch=1), entry(2, epoch=2), entry(3, epoch=1), epoch=1, inline=2)
    planned = plan_rewrite(mixed, 2)
    assert planned is not None
    assert [each.hi for each in planned.entries] == [1, 3]
    assert planned.inline == mixed.inline
    assert planned.covers == (0, 3)
    # Under a new manifest the inline pushes are under the new key already.
    planned = plan_rewrite(replace(mixed, epoch=2), 2)
    assert planned is not None
    assert planned.inline == ()


def test_a_large_entry_is_rewritten_alone() -> None:
    large = entry(2, epoch=1, size=segment.MAX_SEGMENT_BYTES - 100)
    planned = plan_rewrite(history(entry(1, epoch=1), large, epoch=2), 2)
    assert planned is not None
    assert [each.hi for each in planned.entries] == [1]
    planned = plan_rewrite(history(large, entry(3, epoch=1), epoch=1, inline=1), 2)
    assert planned is not None
    assert planned.entries == (large,)
    assert planned.inline == ()


@given(
    epochs=st.lists(st.integers(1, 3), max_size=8),
    sizes=st.lists(
        st.sampled_from([10, 1000, 2**23, segment.MAX_SEGMENT_BYTES]), min_size=8, max_size=8
    ),
    own=st.integers(1, 3),
    inline=st.integers(0, 2),
)
def test_rewriting_again_and_again_leaves_nothing_under_an_old_key(
    epochs: list[int], sizes: list[int], own: int, inline: int
) -> None:
    entries = [
        entry(hi, epoch=epoch, size=sizes[hi - 1]) for hi, epoch in enumerate(epochs, start=1)
    ]
    current = history(*entries, epoch=own, inline=inline)
    for _ in range(len(entries) + 2):
        planned = plan_rewrite(current, 3)
        if planned is None:
            break
        taken = {each.name for each in planned.entries}
        gone = {(item.dev, item.n) for item in planned.inline}
        # The output's own name does not matter here, nor that its level would be a higher one.
        output = entry(50 + len(current.entries), epoch=3)
        current = replace(
            current,
            epoch=3,
            entries=(*(each for each in current.entries if each.name not in taken), output),
            inline=tuple(item for item in current.inline if (item.dev, item.n) not in gone),
        )
    assert plan_rewrite(current, 3) is None
    assert not old_entries(current, 3)
