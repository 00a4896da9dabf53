"""docs/format.md is held to the code: its limits, sizes, tables of fields and keys."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgpack
import pytest

from moss_sync import (
    features,
    floors,
    keyring,
    layout,
    limits,
    log_blob,
    manifest,
    marks,
    packing,
    plan,
    repository,
    seal,
    segment,
    setbacks,
    tiers,
    verdict,
)
from moss_sync.coverage import Coverage
from moss_sync.keyring import KdfParams
from moss_sync.layout import Layout
from moss_sync.manifest import Device, Entry, Inline, Manifest
from moss_sync.packing import unpack
from moss_sync.project_key import GENERATED, TYPED, generate
from moss_sync.record import Record, VectorSpace, Version
from moss_sync.segment import Segment
from moss_sync.setbacks import Setback

PAGE = (Path(__file__).parents[2] / "docs" / "format.md").read_text(encoding="utf-8")
MODULES = {
    "floors": floors,
    "keyring": keyring,
    "layout": layout,
    "limits": limits,
    "log_blob": log_blob,
    "manifest": manifest,
    "marks": marks,
    "packing": packing,
    "plan": plan,
    "repository": repository,
    "seal": seal,
    "segment": segment,
    "setbacks": setbacks,
    "tiers": tiers,
    "verdict": verdict,
}
UNITS = {"": 1, "bytes": 1, "KiB": 1024, "MiB": 1024 * 1024}


def section(title: str) -> str:
    """Return the part of the page under a heading that ends with `title`."""
    found = re.search(rf"^## \d+\. {re.escape(title)}\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
    assert found is not None, title
    return found[1]


def tables(text: str) -> list[list[list[str]]]:
    """Return the tables of a part of the page, as cells of rows without the heading."""
    result: list[list[list[str]]] = []
    for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
        rows = [
            [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            for line in block.splitlines()
        ]
        result.append(rows[2:])
    return result


def first_column(table: list[list[str]]) -> list[str]:
    return [row[0].strip("`") for row in table]


def test_every_limit_of_the_page_is_that_of_the_code() -> None:
    (table,) = tables(section("Limits"))
    assert len(table) >= 20
    for what, limit, constant in table:
        number, _, unit = limit.partition(" ")
        found = re.fullmatch(r"`(\w+)\.(\w+)(?:\[(\d)\])?`", constant)
        assert found is not None, constant
        module, name, index = found.groups()
        value = getattr(MODULES[module], name)
        if index is not None:
            value = value[int(index)]
        factor = 1024 if name == "MEMORY_KIB_BOUNDS" else 1
        assert int(number) * UNITS[unit] == value * factor, what


@pytest.mark.parametrize("module", sorted(MODULES))
def test_every_limit_of_the_code_is_on_the_page(module: str) -> None:
    listed = set(re.findall(rf"`{module}\.(\w+)", section("Limits")))
    inner = {
        "keyring": {"MAX_EPOCH"},
        "seal": {"MAX_EPOCH"},
        "layout": {"MAX_BASE", "MAX_PUSH"},
        "log_blob": {"MAX_PUSH"},
        "manifest": {"MAX_EPOCH", "MAX_LEVEL", "MAX_PUSH", "MAX_SEQ", "MAX_UNKNOWN_BYTES"},
        "packing": {"MAX_UINT"},
        "repository": {"MAX_REMEMBERED_BYTES"},
        "segment": {"MAX_DIMENSIONS", "MAX_LIST_ITEMS", "MAX_UINT"},
    }
    defined = {name for name in vars(MODULES[module]) if name.startswith("MAX_")}
    assert defined - inner.get(module, set()) <= listed


def test_the_frame_of_a_sealed_blob_is_that_of_the_page() -> None:
    frame = tables(section("Sealed blobs"))[0]
    at = 0
    for offset, size, _ in frame[:-1]:
        assert int(offset) == at
        at += int(size)
    assert frame[-1][:2] == [str(at), "…"]
    assert at == seal.HEADER_BYTES
    assert f"the {at} header bytes" in section("Sealed blobs")
    assert frame[0][2] == f"`{seal.MAGIC.decode()}`"
    assert frame[1][2] == f"frame version: {seal.FRAME_VERSION}"
    assert frame[2][2].startswith(f"suite: {seal.SUITE_CHACHA20POLY1305},")
    assert int(frame[6][1]) == seal.SALT_BYTES
    assert seal.CHUNK_BYTES == 1024 * 1024


def full_manifest() -> dict[str, Any]:
    name = "b/0000000000000001-6c6170746f702d31-01-" + "a" * layout.TAG_CHARS
    given = Manifest(
        repo_id=bytes(16),
        sid="sid",
        name="name",
        seq=1,
        commit_id=bytes(16),
        by=bytes(8),
        ct=0,
        prev=bytes(32),
        entries=(Entry(name, 0, 0, 0, 0, 1, 0, 1, 0, epoch=1),),
        inline=(Inline(bytes(8), 1, 0, 1, 0, b""),),
        devs={bytes(8): Device(1, 0, 0, bytes(8), bytes(16), seq=1)},
        tl=((0, 0),),
        retired=1,
        repairs=1,
        setbacks=(Setback(1, 1, 0),),
        space=VectorSpace("custom", "00", 1, "f4"),
    )
    fields = unpack(manifest.encode(given), max_bytes=2**20, what="it")
    assert isinstance(fields, dict)
    return fields


def test_the_fields_of_a_manifest_are_those_of_the_page() -> None:
    fields = full_manifest()
    top, entry, inline, device, model = tables(section("The manifest"))
    assert first_column(top) == list(fields)
    assert first_column(entry) == list(fields["E"])
    assert first_column(inline) == list(fields["inl"][0])
    assert first_column(device) == list(fields["devs"][bytes(8)])
    assert first_column(model) == list(fields["models"][0])


def test_the_fields_of_a_segment_are_those_of_the_page() -> None:
    (table,) = tables(section("Segments"))
    # A version whose digest does not follow from its content: all fields are there.
    kept = Record("a", Version(1, bytes(8), bytes(8)))
    given = Segment(bytes(8), 0, 0, None, b"", [kept])
    fields = unpack(segment.encode(given), max_bytes=2**20, what="it")
    assert first_column(table) == list(fields)
    columns = [row[0].strip("`") for row in table if row[1].startswith("column")]
    assert [name for name in fields if isinstance(fields[name], list)] == ["devs", *columns]
    assert f"The last {_WORDS[len(columns)]} keys before `emb`" in section("Segments")


_WORDS = {7: "seven", 8: "eight", 9: "nine"}


def test_the_fields_of_fmt_are_those_of_the_page() -> None:
    frame, table = tables(section("`fmt`"))
    fmt = keyring.create(
        bytes(32), KdfParams.choose("typed", bytes(16)), fresh=bytes(keyring.FRESH_BYTES)
    )
    end = len(fmt.raw) - keyring.CHECKSUM_BYTES
    fields = msgpack.unpackb(fmt.raw[5:end], strict_map_key=False)
    assert first_column(table) == list(fields)
    sizes = {row[0].strip("`"): row[1] for row in table}
    assert sizes["repo_id"] == f"{keyring.REPO_ID_BYTES} bytes"
    assert sizes["names"] == f"{keyring.WRAPPED_BYTES} bytes"
    assert sizes["check"] == f"{keyring.CHECK_BYTES} bytes"
    assert frame[0][2] == f"`{keyring.MAGIC.decode()}`"
    assert frame[1][2] == f"the format's major number: {keyring.MAJOR}"
    for name in fields["kdf"]:
        assert f"`{name}`" in next(row[2] for row in table if row[0] == "`kdf`")
    for kind, cost in (("typed", TYPED), ("generated", GENERATED)):
        shown = f"{cost.memory_kib // 1024} MiB, {cost.iterations} pass"
        assert re.search(rf"{kind} key\D*{shown}\w* and {cost.lanes} lane", section("`fmt`")), kind


def test_the_keys_of_the_page_are_those_of_the_layout() -> None:
    keys = Layout("<prefix>/")
    of = {
        keys.fmt,
        keys.probe,
        keys.manifest("<sid>"),
        keys.blob("<sid>", "s/<name>"),
        keys.blob("<sid>", "b/<name>"),
        keys.asides("<sid>") + "<kind>-<hash>",
        keys.aside("fmt", b"", None).split("-")[0] + "-<hash>",
    }
    listed = set(first_column(tables(section("Keys in the store"))[0]))
    assert listed - {"<prefix>/_probe/<random>"} == of
    assert re.fullmatch(r"<prefix>/aside/fmt-[a-z2-7]{16}", keys.aside("fmt", b"damaged", None))


def test_the_names_of_the_page_are_names() -> None:
    examples = re.findall(r" ([sb]/[0-9a-f]\S+)$", section("Keys in the store"), re.M)
    assert len(examples) == 2
    assert all(layout.is_name(name) for name in examples)
    parts = {row[0].strip("`"): row[1] for row in tables(section("Keys in the store"))[1]}
    for name in examples:
        base, dev, number, tag = name[2:].split("-")
        assert parts["base"] == f"{len(base)} hex digits"
        assert parts["dev"] == f"{len(dev)} hex digits"
        assert parts["n" if name[0] == "s" else "level"] == f"{len(number)} hex digits"
        assert parts["tag"] == f"{len(tag)} base32 characters"


def test_a_wrapped_key_and_the_flags_are_those_of_the_page() -> None:
    assert f"{keyring.WRAPPED_BYTES} bytes in all" in section("Keys and how they are derived")
    assert f"{segment.DELETED}: a tombstone; {segment.HAS_VECTOR}: it has a vector" in PAGE
    assert f"at most {tiers.MAX_LEVEL}" in section("Terms")


def test_no_feature_is_known_and_the_page_says_so() -> None:
    assert not features.READER_FEATURES | features.WRITER_FEATURES
    assert "both lists are empty in format 1" in section("Versions, features and unknown keys")


def test_the_fields_of_a_logs_blobs_are_those_of_the_page() -> None:
    keys, _, blob, head = tables(section("Repositories that commit by log"))
    found = unpack(
        log_blob.encode(b"", ct=0, since=None, covers=Coverage()), max_bytes=2**20, what="it"
    )
    assert first_column(blob) == list(found)
    said = unpack(
        log_blob.encode_head(log_blob.Head("s", "n", bytes(8), bytes(8), 0, 0)),
        max_bytes=2**20,
        what="it",
    )
    assert first_column(head) == list(said)
    place, dev = Layout("<prefix>/"), bytes(8)
    made = [
        place.fmt,
        place.log_blob("<sid>", "s/<rest of the name>"),
        place.log_blob("<sid>", "b/<rest of the name>"),
        place.head("<sid>", dev).replace(dev.hex(), "<dev>"),
    ]
    assert first_column(keys) == made


def test_the_fmt_of_a_log_follows_from_the_project_alone() -> None:
    kdf = keyring.log_kdf("project", "typed")
    assert kdf == keyring.log_kdf("project", "another key") != keyring.log_kdf("another", "typed")
    assert keyring.log_kdf("project", generate(bytes(20))).memory_kib == GENERATED.memory_kib
    made = keyring.create_log(b"k" * 32, kdf)
    assert made.raw == keyring.create_log(b"k" * 32, kdf).raw
    assert made.commit == "log"
    assert keyring.FRESH_BYTES == 116
    assert keyring.unlock(made, b"k" * 32).commit == "log"
