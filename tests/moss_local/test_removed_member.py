"""Who was removed, as users meet it: a folder store, the command line, and everything put back.

How each way of it is refused is tested in tests/moss_sync/test_removed_member.py.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from moss_sync import keyring, segment
from moss_sync.channel import segment_identity
from moss_sync.derivation import derived
from moss_sync.layout import parts_of
from moss_sync.record import Record, Version, content_digest
from moss_sync.seal import SALT_BYTES, seal
from moss_sync.segment import Segment
from tests.moss_local.cli_harness import Cli
from tests.moss_local.test_cli_rotate_key import key, texts

STORE = Path("shared")
KEPT = Path("kept")
FORGED = "what the intruder wants to be read"


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """A device with a session whose first push is a segment and whose second rides along."""
    monkeypatch.chdir(tmp_path)
    made = Cli()
    made("init", "--project", "acme", "--store", f"./{STORE}").ok()
    made("add", "conv", hashlib.shake_256(b"a long turn").hexdigest(9000)).ok()
    made("push", "conv").ok()
    made("add", "conv", "the last one").ok()
    made("push", "conv").ok()
    made.on("other")("pull", "conv").ok()
    shutil.copytree(STORE, KEPT)
    return made


def put_back(*parts: str) -> None:
    """Write every file of before whose path has one of these parts over what is there now."""
    for path in KEPT.rglob("*"):
        where = STORE / path.relative_to(KEPT)
        if path.is_file() and any(part in f"/{path}" for part in parts):
            where.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, where)


def shown(cli: Cli) -> list[str]:
    return sorted(texts(cli))


def test_what_is_put_back_after_a_rewrite_is_refused_everywhere_and_a_repair_ends_it(
    cli: Cli,
) -> None:
    before = shown(cli)
    done = cli("rotate-key", "--rewrite-now", "--json").ok().json()
    assert (done["epoch"], done["revoked"]) == (2, True)
    assert shown(cli.on("early")) == before
    put_back("/m/", "/s/", "/probe")
    for device in ("new", "other"):
        refused = cli.on(device)("pull", "conv", "--json")
        assert refused.code == 6
        [exchange] = refused.json()["exchanges"]
        assert exchange["error"]["code"] == "REVOKED_KEY"
        assert "moss-local repair" in refused.stderr
    assert shown(cli.on("other")) == before  # what it has, it shows
    assert cli.on("early")("pull", "conv").code == 6
    cli.on("other")("add", "conv", "not pushed yet").ok()
    cli("repair", "conv").ok()
    cli.on("other")("sync", "conv").ok()
    assert shown(cli.on("newer")) == sorted([*before, "not pushed yet"])


def test_a_segment_sealed_with_the_old_key_in_place_of_a_listed_one_is_refused(cli: Cli) -> None:
    before = shown(cli)
    old_key = key()
    cli("rotate-key", "--rewrite-now").ok()
    fmt = keyring.decode(next(KEPT.glob("*/fmt")).read_bytes())
    keys = keyring.unlock(fmt, derived(old_key, fmt.kdf))
    [listed] = [path for path in STORE.glob("*/*/b/*") if path.is_file()]
    sid, name = listed.parts[-3], parts_of("/".join(listed.parts[-2:]))
    digest = content_digest("t", deleted=False, text=FORGED)
    record = Record("t", Version(1, name.dev, digest), text=FORGED, commit_seq=1)
    payload = segment.encode(Segment(name.dev, 0, name.base, None, b"", [record]))
    identity = segment_identity(keys, sid, name.stem)
    listed.write_bytes(seal(keys.roots, identity, payload, salt=bytes(SALT_BYTES)))
    refused = cli.on("new")("pull", "conv")
    assert refused.code == 6
    assert "is not the blob that was listed" in refused.stderr
    cli("repair", "conv").ok()
    assert shown(cli.on("newer")) == before


def test_the_fmt_of_before_is_refused_with_the_way_out(cli: Cli) -> None:
    cli("rotate-key", "--rewrite-now").ok()
    after = next(STORE.glob("*/fmt")).read_bytes()
    put_back("/fmt", "/m/", "/s/")
    assert cli.on("new")("pull", "conv").code == 4
    assert cli.on("other")("pull", "conv").code in (4, 7)
    cli("repair", "conv").ok()
    assert next(STORE.glob("*/fmt")).read_bytes() == after
    assert len(shown(cli.on("newer"))) == 2


def test_a_session_that_could_not_be_sealed_anew_keeps_the_old_keys_and_says_how_to_go_on(
    cli: Cli,
) -> None:
    cli("add", "second", "of another session").ok()
    cli("push", "second").ok()
    known = {path.name for path in KEPT.glob("*/m/*")}
    [path] = [path for path in STORE.glob("*/m/*") if path.name not in known]
    damaged = bytearray(path.read_bytes())
    damaged[0] ^= 1  # it still opens, once somebody has repaired it
    path.write_bytes(damaged)
    done = cli("rotate-key", "--rewrite-now", "--json")
    assert done.code == 6
    assert done.json()["revoked"] is False
    assert "moss-local rotate-key --rewrite-only" in done.stderr
    cli("repair", "second").ok()
    assert cli("rotate-key", "--rewrite-only", "--json").ok().json()["revoked"] is True
    put_back("/m/", "/s/")
    assert cli.on("new")("pull", "conv").code == 6


def test_what_no_key_opens_is_named_and_keeps_no_old_key_valid(cli: Cli) -> None:
    cli("add", "second", "of another session").ok()
    cli("push", "second").ok()
    known = {path.name for path in KEPT.glob("*/m/*")}
    [path] = [path for path in STORE.glob("*/m/*") if path.name not in known]
    path.write_bytes(b"rubbish")
    (path.parent / ("a" * 26)).write_bytes(path.read_bytes() * 50)
    (path.parent / ("b" * 26)).symlink_to(path)
    (path.parent / "readme.txt").write_bytes(b"")
    done = cli("rotate-key", "--rewrite-now", "--json").ok()
    rows = done.json()["rewritten"]
    assert done.json()["revoked"] is True
    assert [each["left_out"] for each in rows] == [True] * 4 + [False]
    assert done.stderr.count("left out: ") == 4
    cli("repair", "second").ok()  # what a device holds is not lost by it
    cli.on("new")("pull", "second").ok()
    assert "of another session" in cli.on("new")("show", "second").ok().stdout
    put_back("/m/", "/s/")
    assert cli.on("newer")("pull", "conv").code == 6
    again = cli("rotate-key", "--root-only", "--json").ok()
    assert again.json()["epoch"] == 3
    done = cli("rotate-key", "--rewrite-only", "--json").ok()  # nor does what counts no more
    assert done.json()["revoked"] is True
    assert cli.on("newer")("pull", "conv").code == 6


def test_without_a_rewrite_old_sessions_are_taken_as_before(cli: Cli) -> None:
    before = shown(cli)
    assert cli("rotate-key", "--json").ok().json()["revoked"] is None
    assert shown(cli.on("new")) == before
