"""Names: of any session the file and the snapshot stay below their folder and are nobody else's;
a blob's name is read as it was made, and by no other key; keys of a store are never paths."""

from __future__ import annotations

from pathlib import Path

from fuzz.shapes import text_of
from moss_local.snapshots import folder_name, snapshot_path
from moss_local.storage.paths import session_path
from moss_sync import MossError, layout
from moss_sync.stores.keys import is_key

ROOT = Path("/below/this")
KEY, OTHER, SID = bytes(range(32)), bytes(range(1, 33)), "s" * 26


def one(data: bytes) -> None:
    first, _, second = text_of(data).partition("\x1f")
    paths = []
    for name in (first, second):
        try:
            path = session_path(ROOT, "project", name)
        except MossError:
            continue
        assert path.parent.parent == ROOT
        assert path.name == path.name.lower() and path.name.isascii() and len(path.name) <= 80
        snapshot = snapshot_path(ROOT, name)
        assert snapshot.parent.parent == ROOT and ".." not in snapshot.parts
        assert is_key(layout.session_id(KEY, name))
        paths.append((name, path, folder_name(name)))
    if len(paths) == 2 and first != second:
        assert paths[0][1] != paths[1][1]
        assert paths[0][2] != paths[1][2]
        assert layout.session_id(KEY, first) != layout.session_id(KEY, second)
    try:
        parsed = layout.parse_name(KEY, SID, first)
    except MossError:
        parsed = None
    assert parsed is None, "a name that nobody with the key has made was taken for one"
    stem = layout.new_stem(kind="s", base=len(data), dev=b"device-A", number=1)
    made = layout.named(KEY, SID, stem, data)
    assert layout.parse_name(KEY, SID, str(made)) == made
    assert layout.is_blob_of(made, data) and not layout.is_blob_of(made, data + b"x")
    assert is_key(f"{SID}/{made}")
    for key, sid in ((OTHER, SID), (KEY, "t" * 26)):
        try:
            layout.parse_name(key, sid, str(made))
        except MossError:
            continue
        raise AssertionError("a name of another key or session was taken")
    if is_key(first):
        assert not Path(first).is_absolute() and ".." not in first.split("/")
    layout.parse_head(first)
    layout.log_name(first)
