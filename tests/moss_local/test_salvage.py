"""A damaged session file: what was pushed comes back, what was not is kept where it can be read."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moss_local import (
    DocumentInfo,
    FileBusyError,
    FileCorruptError,
    MossClient,
    NetworkError,
    PermissionDeniedError,
    UnsupportedFormatError,
)
from moss_local.storage import remains, salvage
from moss_local.storage.place import Place
from tests.keys import KEY
from tests.moss_local.cli_harness import Cli
from tests.moss_local.damaged import (
    KEPT,
    PUSHED,
    Device,
    damage,
    empty,
    made,
    overwrite,
)


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return made(tmp_path, "custom")


def test_a_whole_file_is_left_alone(device: Device) -> None:
    before = device.path.stat().st_ino
    done = asyncio.run(device.repair())
    assert (done.error, done.salvage) == (None, None)
    assert device.path.stat().st_ino == before


@pytest.mark.parametrize("model", ["custom", "moss-minilm"])
@pytest.mark.parametrize("seed", [0, 3, 7])
def test_random_damage_what_was_pushed_is_back_and_what_can_be_read_is_kept(
    tmp_path: Path, seed: int, model: str
) -> None:
    device = made(tmp_path, model)
    share = 0.02 * (1 + seed)
    damage(device.path, seed, share)
    damaged = device.path.read_bytes()
    done = asyncio.run(device.repair())
    assert done.error is None
    held = asyncio.run(device.held())
    assert PUSHED.items() <= held.items()
    assert held.items() <= (PUSHED | KEPT).items()  # nothing is made up
    assert asyncio.run(Device(tmp_path, "two", model).held()) == held  # it reaches the others
    if done.salvage is None:
        assert len(held) == len(PUSHED | KEPT)
        return
    assert done.salvage.written == len(held) - len(PUSHED)
    assert done.salvage.aside is not None
    assert done.salvage.aside.read_bytes() == damaged
    lost = len(KEPT) - done.salvage.written - done.salvage.set_aside
    assert lost <= 4 * len(KEPT) * share + 2  # a row is on one page or two


def test_every_row_outside_of_the_damaged_page_is_kept(device: Device) -> None:
    """One leaf of the table is gone: the rows in it, and no other, cannot be read."""
    whole = device.path.read_bytes()
    hurt = 0
    for page in range(1, len(whole) // 2048):
        content = whole[page * 2048 : (page + 1) * 2048]
        inside = content.count(b"kept here only")
        if content[0] == 0x0D and inside:  # a leaf of a table that holds such rows
            changed = bytearray(whole)
            changed[page * 2048 : (page + 1) * 2048] = bytes(2048)
            place = Place(device.directory)
            device.path.write_bytes(changed)
            found = salvage.salvage(place, "conv", all_rows=False)
            assert len(found.edits) == len(KEPT) - inside, page
            salvage.forget_kept(place, "conv")
            assert found.aside is not None
            found.aside.unlink()
            device.path.write_bytes(whole)
            hurt += 1
    assert hurt > 5


def hurt_page_of(device: Device, text: bytes, *, flip: bytes = b"") -> None:
    """Zero the page in which a text begins, and flip a bit of another one."""
    changed = bytearray(device.path.read_bytes())
    page = changed.index(text) // 2048
    if flip:
        changed[changed.index(flip)] ^= 1
    changed[page * 2048 : (page + 1) * 2048] = bytes(2048)
    device.path.write_bytes(changed)


@pytest.mark.parametrize("model", ["custom", "moss-minilm"])
@pytest.mark.parametrize("size", [16, 100, 2048])
def test_without_its_header_or_its_schema_every_row_is_kept(
    tmp_path: Path, model: str, size: int
) -> None:
    device = made(tmp_path, model)
    overwrite(device.path, 0, random.Random(size).randbytes(size))
    done = asyncio.run(device.repair())
    assert done.error is None
    assert done.salvage is not None
    assert (done.salvage.written, done.salvage.set_aside) == (len(KEPT), 0)
    assert (done.salvage.unreadable, done.salvage.exact) == (0, True)
    assert asyncio.run(device.held()) == PUSHED | KEPT


def test_whatever_byte_of_the_header_is_damaged_it_is_told_and_every_row_is_kept(
    device: Device,
) -> None:
    """Or it is of no matter. A version that is not known yet is refused: it may be true."""
    whole, place = device.path.read_bytes(), Place(device.directory)
    told = 0
    for at in range(100):
        for value in (0, 1, 255):
            changed = bytearray(whole)
            changed[at] = value
            device.path.write_bytes(changed)
            try:
                trouble = salvage.examine(place, "conv")
            except UnsupportedFormatError:
                assert 60 <= at < 64
                continue
            if trouble:
                told += 1
                found = salvage.salvage(place, "conv", all_rows=False)
                edits = {edit[1]: edit[6] for edit in found.edits}
                assert (edits, found.exact) == (KEPT, True), at
                assert found.aside is not None
                found.aside.unlink()
                salvage.forget_kept(place, "conv")
    assert told > 60


@pytest.mark.parametrize("model", ["custom", "moss-minilm"])
def test_without_the_root_of_its_documents_too_they_are_set_aside_and_it_is_not_sure_of_all(
    tmp_path: Path, model: str
) -> None:
    """Which pages are in use is not known any more: what they say may be deleted long since."""
    device = made(tmp_path, model)
    overwrite(device.path, 0, bytes(4096))

    async def set_aside() -> dict[str, str]:
        async with device.session() as session:
            return {each.id: each.text for each in await session.quarantined()}

    done = asyncio.run(device.repair())
    assert done.error is None
    assert done.salvage is not None
    assert (done.salvage.written, done.salvage.set_aside) == (0, len(KEPT))
    assert not done.salvage.exact
    assert asyncio.run(device.held()) == PUSHED
    assert asyncio.run(set_aside()) == KEPT


@pytest.mark.parametrize("model", ["custom", "moss-minilm"])
def test_what_a_session_without_header_held_that_was_never_pushed_is_there(
    tmp_path: Path, model: str
) -> None:
    """Its model, and for vectors of the caller's the vectors too, are found without a schema."""
    device = Device(tmp_path, model=model)
    asyncio.run(device.add(KEPT))
    device.checkpoint()
    overwrite(device.path, 0, bytes(2048))
    done = asyncio.run(device.repair())
    assert done.error is None
    assert asyncio.run(device.held()) == KEPT


def test_a_session_of_the_callers_vectors_that_lost_its_model_too_has_them(tmp_path: Path) -> None:
    device = Device(tmp_path)
    asyncio.run(device.add(KEPT))
    device.checkpoint()
    whole = bytearray(device.path.read_bytes())
    whole[:2048] = bytes(2048)
    page = whole.index(b"conv") // 2048
    assert whole[page * 2048] == 0x0D
    whole[page * 2048 : (page + 1) * 2048] = bytes(2048)
    device.path.write_bytes(whole)
    assert asyncio.run(device.repair()).error is None
    assert asyncio.run(device.held()) == KEPT


@pytest.mark.parametrize("model", ["custom", "moss-minilm"])
@pytest.mark.parametrize("cut", [1, 4096, 20_000, 60_000, 100_000, 140_000])
def test_without_its_end_what_is_in_the_rest_is_kept_and_what_is_lost_is_told(
    tmp_path: Path, model: str, cut: int
) -> None:
    device = made(tmp_path, model)
    whole = device.path.read_bytes()
    device.path.write_bytes(whole[:-cut])
    done = asyncio.run(device.repair())
    assert done.error is None
    held = asyncio.run(device.held())
    assert PUSHED.items() <= held.items() <= (PUSHED | KEPT).items()
    if done.salvage is None:  # SQLite reads what is missing of a page as zeros, as it was
        assert (cut, held) == (1, PUSHED | KEPT)
        return
    assert done.salvage.written == len(held) - len(PUSHED)
    in_the_rest = sum(f"kept here only {n} ".encode() in whole[:-cut] for n in range(40))
    # The last one may have its end behind the cut.
    assert done.salvage.written + done.salvage.set_aside >= in_the_rest - 1
    if done.salvage.written + done.salvage.set_aside < len(KEPT):
        assert done.salvage.unreadable or not done.salvage.exact


def test_what_stands_only_in_the_log_of_a_file_without_header_is_kept(tmp_path: Path) -> None:
    device = made(tmp_path, "custom")
    late = {f"l{n}": f"late {n} " + "filling " * 60 for n in range(10)}
    program = (
        "import asyncio, os, sys; from pathlib import Path; from tests.moss_local import"
        " test_salvage as t; device = t.Device(Path(sys.argv[1]));"
        f"late = {late!r};"
        "asyncio.run(t.add_and_die(device, late))"
    )
    died = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert died.returncode == 9
    assert b"late 9 " in device.path.with_name(device.path.name + "-wal").read_bytes()
    assert b"late 9 " not in device.path.read_bytes()
    overwrite(device.path, 0, bytes(100))
    done = asyncio.run(device.repair())
    assert done.error is None
    assert asyncio.run(device.held()) == PUSHED | KEPT | late


@pytest.mark.parametrize("left", ["nothing", "an empty file"])
def test_of_a_file_that_is_gone_what_stands_in_its_log_is_kept(tmp_path: Path, left: str) -> None:
    """SQLite itself would throw the log away."""
    device = Device(tmp_path)
    program = (
        "import asyncio, sys; from pathlib import Path; from tests.moss_local import"
        " test_salvage as t; asyncio.run(t.add_and_die(t.Device(Path(sys.argv[1])), t.KEPT))"
    )
    died = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert died.returncode == 9
    if left == "nothing":
        device.path.unlink()
    else:
        device.path.write_bytes(b"")
    for _ in range(2):
        with pytest.raises(FileCorruptError):
            asyncio.run(device.held())
    done = asyncio.run(device.repair())
    assert done.error is None
    assert done.salvage is not None
    assert done.salvage.aside is not None
    assert done.salvage.aside.exists()
    # The page that the table begins at is in the log too.
    assert asyncio.run(device.held()) == KEPT
    assert asyncio.run(device.repair()).salvage is None


async def add_and_die(device: Device, documents: dict[str, str]) -> None:
    async with device.session() as session:
        await session.add_docs(
            [DocumentInfo(id, text, None, [1.0, 2.0, 3.0]) for id, text in documents.items()]
        )
        os._exit(9)


@pytest.mark.parametrize(("at", "filling"), [(6154, b"\0"), (6148, b"\r")])
def test_a_state_that_says_what_it_cannot_say_is_damage(
    tmp_path: Path, at: int, filling: bytes
) -> None:
    """Its row still begins where it did, and its columns are none, or of other types."""
    device = Device(tmp_path)
    asyncio.run(device.add(KEPT))
    device.checkpoint()
    overwrite(device.path, at, filling * 2048)
    assert "damaged" in salvage.examine(Place(device.directory), "conv")[0]
    found = salvage.salvage(Place(device.directory), "conv", all_rows=False)
    assert len(found.edits) == len(KEPT)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_whatever_is_damaged_nothing_is_lost_without_being_told(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        device = Device(Path(folder))
        asyncio.run(device.add(KEPT))
        device.checkpoint()
        whole = bytearray(device.path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(whole)))
            size = data.draw(st.sampled_from([1, 100, 2048, 4096, 30_000]))
            filling = data.draw(st.sampled_from([bytes(size), b"\xff" * size, b"\r" * size]))
            whole[at : at + size] = filling[: len(whole) - at]
        whole = whole[: data.draw(st.sampled_from([len(whole), len(whole) - 5000]))]
        device.path.write_bytes(whole)
        place = Place(device.directory)
        if not salvage.examine(place, "conv"):
            return
        found = salvage.salvage(place, "conv", all_rows=False)
        assert {(edit[1], edit[6]) for edit in found.edits} <= set(KEPT.items())
        if len(found.edits) < len(KEPT):
            assert found.unreadable or not found.exact
        if found.exact:
            assert len(found.edits) + found.unreadable >= len(KEPT)


@pytest.mark.parametrize("model", ["custom", "moss-minilm"])
def test_a_text_with_a_flipped_bit_is_not_believed(tmp_path: Path, model: str) -> None:
    device = made(tmp_path, model)
    hurt_page_of(device, b"pushed 30 filling", flip=b"kept here only 7 filling")
    done = asyncio.run(device.repair())
    assert done.salvage is not None
    assert done.salvage.unreadable >= 2
    assert done.salvage.set_aside == 0
    held = asyncio.run(device.held())
    assert "k7" not in held
    assert held.items() <= (PUSHED | KEPT).items()
    assert PUSHED.items() <= held.items()


@pytest.mark.parametrize("what", [b"", b"no database at all" * 500])
def test_a_file_of_which_nothing_can_be_read(device: Device, what: bytes) -> None:
    device.path.write_bytes(what)
    with pytest.raises(FileCorruptError) as refused:
        asyncio.run(device.held())
    assert refused.value.hint is not None
    assert "moss-local repair conv" in refused.value.hint
    done = asyncio.run(device.repair())
    assert done.error is None
    assert done.salvage is not None
    assert not done.salvage.exact
    assert asyncio.run(device.held()) == PUSHED


def test_a_session_that_was_never_pushed_keeps_what_can_be_read(tmp_path: Path) -> None:
    device = Device(tmp_path)
    asyncio.run(device.add(KEPT))
    device.checkpoint()
    damage(device.path, 3, 0.05)
    done = asyncio.run(device.repair())
    assert done.error is None
    assert done.salvage is not None
    held = asyncio.run(device.held())
    assert held.items() <= KEPT.items()
    assert len(held) >= len(KEPT) // 2


def test_a_session_that_the_store_has_lost_is_put_back_from_what_can_be_read(
    device: Device, tmp_path: Path
) -> None:
    asyncio.run(empty(device.store))
    damage(device.path, 3, 0.05)
    done = asyncio.run(device.repair())
    assert done.error is None, done.error
    held = asyncio.run(device.held())
    assert held.items() <= (PUSHED | KEPT).items()
    assert len(held) >= len(PUSHED | KEPT) // 2
    assert asyncio.run(Device(tmp_path, "two").held()) == held


def test_deletions_that_were_not_pushed_are_kept_too(device: Device, tmp_path: Path) -> None:
    async def delete() -> None:
        async with device.session() as session:
            await session.delete_docs(["p1", "p2"])

    asyncio.run(delete())
    device.checkpoint()
    hurt_page_of(device, b"pushed 30 filling")
    done = asyncio.run(device.repair())
    assert done.salvage is not None
    held = asyncio.run(device.held())
    assert {"p1", "p2"} & set(held) == set()
    assert set(held) == (set(PUSHED) | set(KEPT)) - {"p1", "p2"}


def test_what_something_newer_stands_against_is_set_aside(device: Device, tmp_path: Path) -> None:
    async def both() -> None:
        mine = {"shared": "mine, which is older"}
        await device.add(mine)
        device.checkpoint()
        await Device(tmp_path, "two").add({"shared": "theirs, which is newer"}, push=True)

    asyncio.run(both())
    hurt_page_of(device, b"pushed 30 filling")
    done = asyncio.run(device.repair())
    assert done.salvage is not None
    assert done.salvage.set_aside == 1
    assert asyncio.run(device.held())["shared"] == "theirs, which is newer"

    async def aside() -> list[tuple[str, str]]:
        async with device.session() as session:
            return [(each.reason, each.text) for each in await session.quarantined()]

    assert asyncio.run(aside()) == [("salvaged", "mine, which is older")]


def test_without_the_store_nothing_is_touched(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(device.path, 5, 0.04)
    damaged = device.path.read_bytes()

    async def offline(*_: object) -> bool:
        raise NetworkError("the store does not answer")

    monkeypatch.setattr("moss_local.project.has_session", offline)
    done = asyncio.run(device.repair())
    assert isinstance(done.error, NetworkError)
    assert device.path.read_bytes() == damaged
    assert not salvage.left_behind(Place(device.directory))


@pytest.mark.parametrize("headless", [False, True])
def test_a_file_that_is_open_is_not_moved(device: Device, headless: bool) -> None:
    holder = (
        "import sys, apsw; conn = apsw.Connection(sys.argv[1]);"
        "conn.execute('SELECT * FROM state').fetchall();"
        "print('open', flush=True); sys.stdin.readline()"
    )
    damage(device.path, 5, 0.04)
    command = [sys.executable, "-c", holder, str(device.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline().strip() == b"open"
        if headless:
            overwrite(device.path, 0, bytes(2048))
        done = asyncio.run(device.repair())
        assert isinstance(done.error, FileBusyError)
        assert device.path.exists()
        other.stdin.write(b"\n")
        other.stdin.flush()
        assert other.wait() == 0
    assert asyncio.run(device.repair()).error is None


def test_a_change_whose_mark_is_damaged_is_kept_as_one_that_was_not_pushed(device: Device) -> None:
    """What says that it was not pushed stands in two places; SQLite's index may be a third."""
    file = Place(device.directory).open("conv")
    with file.writing() as conn:
        conn.execute("UPDATE document SET dirty = 0 WHERE id = 'k7'")
    file.close()
    device.checkpoint()
    trouble = salvage.examine(Place(device.directory), "conv")
    assert trouble == ["neither pushed nor to be pushed: 1 change"]
    for header in (False, True):
        if header:
            overwrite(device.path, 0, bytes(100))
        found = salvage.salvage(Place(device.directory), "conv", all_rows=False)
        assert {edit[1] for edit in found.edits if edit[0] == remains.REASON} == set(KEPT)
        salvage.forget_kept(Place(device.directory), "conv")
        assert found.aside is not None
        found.aside.rename(device.path)


@pytest.mark.parametrize("header", [False, True])
def test_a_stamp_later_than_any_of_the_file_is_not_believed(device: Device, header: bool) -> None:
    """It would win against what others have written since."""
    file = Place(device.directory).open("conv")
    with file.writing() as conn:
        conn.execute("UPDATE document SET hlc = hlc + (1 << 60) WHERE id = 'k7'")
        conn.execute("UPDATE document SET dirty = 0 WHERE id = 'k8'")  # there is damage to repair
    file.close()
    device.checkpoint()
    if header:
        overwrite(device.path, 0, bytes(100))
    found = salvage.salvage(Place(device.directory), "conv", all_rows=False)
    assert {edit[1] for edit in found.edits if edit[0] == remains.DOUBTFUL} == {"k7"}
    assert {edit[1] for edit in found.edits if edit[0] == remains.REASON} == set(KEPT) - {"k7"}


def test_unpushed_edits_of_a_session_that_was_moved_to_a_model_are_set_aside(
    tmp_path: Path,
) -> None:
    """Their digests are of vectors that are forgotten: only the user can tell."""

    async def story() -> None:
        one, two = Device(tmp_path), Device(tmp_path, "two")
        await one.add(PUSHED, push=True)
        async with two.session() as session:
            await session.reembed("moss-minilm")
        async with one.client() as client:
            session = await client.session("conv", auto_load_on_init=False, warm_up=False)
            await session.add_docs(
                [DocumentInfo(id, text, None, [1.0, 2.0, 3.0]) for id, text in KEPT.items()]
            )
            await session.pull()
        one.model = "moss-minilm"
        one.checkpoint()
        assert not salvage.examine(Place(one.directory), "conv")
        overwrite(one.path, 0, bytes(100))
        done = await one.repair()
        assert done.error is None
        assert done.salvage is not None
        assert done.salvage.set_aside == len(KEPT)
        async with one.session() as session:
            assert {each.id for each in await session.quarantined()} == set(KEPT)

    asyncio.run(story())


def test_what_a_store_that_was_restored_has_lost_comes_back_from_a_damaged_file_too(
    tmp_path: Path,
) -> None:
    device = Device(tmp_path)
    asyncio.run(device.add({"before": "the backup"}, push=True))
    shutil.copytree(device.store, tmp_path / "backup")
    asyncio.run(device.add({"after": "the backup"}, push=True))
    shutil.rmtree(device.store)
    (tmp_path / "backup").rename(device.store)
    device.checkpoint()
    overwrite(device.path, 0, bytes(100))
    assert asyncio.run(device.repair()).error is None
    assert asyncio.run(device.held()).keys() == {"before", "after"}


def test_a_file_that_may_not_be_written_is_not_called_a_full_disk(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    overwrite(device.path, 0, bytes(100))
    monkeypatch.setattr("moss_local.storage.salvage.os.access", lambda *_: False)
    done = asyncio.run(device.repair())
    assert isinstance(done.error, PermissionDeniedError)
    assert device.path.exists()


def test_a_file_that_is_none_of_ours_is_refused_and_stays(device: Device) -> None:
    import apsw

    device.path.unlink()
    apsw.Connection(str(device.path)).execute("CREATE TABLE mine (x); PRAGMA user_version = 7")
    before = device.path.read_bytes()
    done = asyncio.run(device.repair())
    assert isinstance(done.error, FileCorruptError)
    assert "another program's database" in str(done.error)
    assert device.path.read_bytes() == before


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cli = Cli(("--data-dir", "one"))
    cli("init", "--store", "./shared").ok()
    for n in range(30):
        cli("add", "conv", f"turn {n} " + "filling " * 60).ok()
        if n == 15:
            cli("push", "conv").ok()
    (path,) = Path("one").rglob("*.sqlite3")
    changed = bytearray(path.read_bytes())
    page = changed.index(b"turn 3 filling") // 2048
    changed[page * 2048 : (page + 1) * 2048] = bytes(2048)
    path.write_bytes(changed)
    told = cli("doctor", "--local")
    assert told.code == 1
    assert "moss-local repair" in told.stdout
    done = cli("repair", "--all").ok()
    assert "the file was made anew" in done.stdout
    assert "the damaged file is" in done.stdout
    assert ".damaged-1" in cli("doctor", "--local").ok().stdout
    shown = cli("show", "conv").ok().stdout
    assert all(f"turn {n} filling" in shown for n in range(30))
    assert cli("repair", "conv", "--json").ok().json()["repairs"][0]["salvage"] is None
    (id, *_) = cli("show", "conv", "--json").ok().json()["documents"]
    assert ".damaged-1" in cli("forget", "conv", id["id"]).stderr
    forgotten = cli("forget", "conv", id["id"], "--yes").ok().stdout
    assert "that a repair had moved aside deleted" in forgotten
    assert ".damaged-1" not in cli("doctor", "--local").ok().stdout
    path.write_bytes(bytes(4096) + path.read_bytes()[4096:])
    told = cli("repair", "conv").ok().stdout
    assert "the damage hides how many there were" in told


def test_a_damaged_page_is_told_as_such_to_who_writes(tmp_path: Path) -> None:
    """The tables of vectors say "out of memory" and the like of damage below them."""

    async def written(ids: range) -> None:
        async with MossClient("p", KEY, store="memory://damaged", data_dir=tmp_path) as client:
            session = await client.session("s", "custom", auto_load_on_init=False, warm_up=False)
            await session.add_docs(
                [DocumentInfo(f"d{n}", f"text {n} " * 40, None, [1.0, 2.0]) for n in ids]
            )

    asyncio.run(written(range(20)))
    (path,) = tmp_path.rglob("*.sqlite3")
    whole = path.read_bytes()
    told: list[FileCorruptError] = []
    size = 2048
    for start in range(size, len(whole), size):
        damaged = bytearray(whole)
        damaged[start : start + size] = random.Random(start).randbytes(size)
        path.write_bytes(damaged)
        try:
            asyncio.run(written(range(20, 21)))
        except FileCorruptError as error:
            told.append(error)
    assert len(told) > len(whole) // size // 5
    assert all("moss-local repair s" in (each.hint or "") for each in told)
    assert any("SQLError" in (each.detail or "") for each in told)
