"""The command line as people and scripts use it: data, talk, exit codes, and what no one may do.

Most of it runs in this process; what a process alone shows, in real ones at the end.
"""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

import moss_local.project
from moss_local.cli import render
from moss_local.cli.exchange import summary
from moss_local.errors import ModelNotFoundError
from moss_local.settings import credentials_path, load_credentials
from moss_local.storage.file import open_session_file
from moss_local.storage.unused import remove_unused
from moss_sync import SyncReport
from moss_sync.stores import s3_client
from tests.moss_local.cli_harness import PROGRAM, Cli, Done

PRINTED = ("render.say", "render.talk")


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """A device that is set up, with a store of its own, in a directory of its own."""
    monkeypatch.chdir(tmp_path)
    made = Cli()
    made("init", "--project", "acme", "--store", "./shared").ok()
    return made


# -- the main job ----------------------------------------------------------------------------


def test_two_devices_hand_a_thread_over(cli: Cli) -> None:
    cli("add", "conv-123", "Customer reported a duplicate $49.99 charge.", "--id", "turn-1").ok()
    cli("add", "conv-123", "Agent confirmed a refund in 3-5 business days.", "--id", "turn-2").ok()
    assert "2 sent" in cli("push", "conv-123").ok().stdout

    second = cli.on("second")
    found = second("query", "conv-123", "status of the refund", "--json").ok().json()
    assert [hit["id"] for hit in found["results"]] == ["turn-2", "turn-1"]
    second("add", "conv-123", "Customer confirmed the refund.", "--id", "turn-3").ok()
    second("sync", "conv-123").ok()

    thread = cli("show", "conv-123", "--json").ok().json()
    assert [document["id"] for document in thread["documents"]] == ["turn-1", "turn-2", "turn-3"]
    devices = [document["device"] for document in thread["documents"]]
    assert devices[0] == devices[1] == thread["device"] != devices[2]


def test_a_timeline_says_when_who_what_and_whether_it_is_synced(cli: Cli) -> None:
    cli("add", "conv", "first", "--id", "t1", "--metadata", "speaker=customer").ok()
    cli("push", "conv").ok()
    cli.on("second")("pull", "conv").ok()
    cli.on("second")("add", "conv", "second", "--id", "t2").ok()
    one, two = cli.on("second")("show", "conv").ok().stdout.splitlines()
    assert one.split()[0].count("-") == 2
    assert one.split()[1].count(":") == 2
    assert one.split()[3:] == ["synced", "t1", "customer:", "first"]
    assert two.split()[2:] == ["this", "device", "pending", "t2", "second"]


def test_sessions_shows_what_is_here_and_what_is_only_in_the_store(cli: Cli) -> None:
    for name in ("a", "../b c", "🙂"):
        cli("add", name, "text").ok()
        cli("push", name).ok()
    second = cli.on("second")
    second("add", "mine", "text").ok()
    listed = {each["name"]: each for each in second("sessions", "--json").ok().json()["sessions"]}
    assert sorted(listed) == sorted(["a", "../b c", "🙂", "mine"])
    assert (listed["mine"]["here"], listed["mine"]["in_store"]) == (True, False)
    assert (listed["a"]["here"], listed["a"]["in_store"]) == (False, True)
    assert listed["a"]["documents"] is None
    second("pull", "--all").ok()
    assert all(each["here"] for each in second("sessions", "--json").ok().json()["sessions"])
    assert "🙂" in second("sessions").ok().stdout


def test_status_follows_a_session_from_never_to_synced(cli: Cli) -> None:
    def state() -> tuple[str, int, bool]:
        (session,) = cli("status", "conv", "--json").ok().json()["sessions"]
        return session["state"], session["pending"], session["last_exchange"] is not None

    cli("add", "conv", "text", "--id", "t").ok()
    assert state() == ("pending", 1, False)
    cli("pull", "conv").ok()  # there is nothing to pull
    assert state() == ("pending", 1, False)
    assert "never" in cli("status").ok().stdout
    cli("push", "conv").ok()
    assert state() == ("synced", 0, True)


@pytest.mark.parametrize("commit", ["cas", "log"])
def test_a_session_that_the_store_has_nothing_of_was_never_exchanged(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, commit: str
) -> None:
    monkeypatch.setenv("MOSS_COMMIT", commit)
    cli("--store", "./other", "add", "first", "text").ok()
    cli("--store", "./other", "push", "first").ok()  # so that there is a repository
    cli("--store", "./other", "add", "conv", "text").ok()
    states = {
        each["name"]: (each["state"], each["last_exchange"] is None)
        for each in cli("status", "--json").ok().json()["sessions"]
    }
    assert states == {"first": ("synced", False), "conv": ("pending", True)}


def test_push_all_takes_what_is_pending_and_only_that(cli: Cli) -> None:
    for name in ("a", "b", "c"):
        cli("add", name, "text").ok()
    cli("push", "b").ok()
    exchanges = cli("push", "--all", "--json").ok().json()["exchanges"]
    assert [(each["session"], each["sent"]) for each in exchanges] == [("a", 1), ("c", 1)]
    assert "nothing to push" in cli("push", "--all").ok().stderr


def test_a_checkpoint_is_printed_here_and_holds_the_store_there(cli: Cli) -> None:
    cli("add", "conv", "one").ok()
    never = cli("status", "conv", "--checkpoint")
    assert (never.code, never.stdout) == (3, "")
    assert "never exchanged" in never.stderr
    cli("push", "conv").ok()
    before = {path: path.read_bytes() for path in Path("shared").glob("*/m/*")}
    cli("add", "conv", "two").ok()
    cli("push", "conv").ok()
    printed = cli("status", "conv", "--checkpoint").ok().stdout.strip()
    assert printed == cli("status", "--json").ok().json()["sessions"][0]["checkpoint"]
    assert "conv" in cli("status", "--checkpoint").ok().stdout
    cli.on("second")("pull", "conv", "--checkpoint", printed).ok()
    for path, data in before.items():
        path.write_bytes(data)
    refused = cli.on("third")("pull", "conv", "--checkpoint", printed)
    assert refused.code == 6
    assert "checkpoint is of commit 2" in refused.stderr
    for wrong in (["--all", "--checkpoint", printed], ["a", "b", "--checkpoint", printed]):
        assert cli("pull", *wrong).code == 2
    assert cli("pull", "conv", "--checkpoint", "rubbish").code == 2


@pytest.mark.parametrize("command", ["status", "sessions"])
def test_a_file_that_cannot_be_read_is_not_the_same_as_none(cli: Cli, command: str) -> None:
    for name in ("one", "two"):
        cli("add", name, "text").ok()
    files = [Path(each["path"]) for each in cli("status", "--json").ok().json()["sessions"]]
    for file in files:
        with file.open("r+b") as out:
            out.write(b"damaged")  # unlike the modes of a file, this stops root, too
    done = cli(command)
    assert done.code == 6
    assert "no sessions" not in done.stderr
    assert "is damaged" in done.stderr
    assert "hint: " in done.stderr
    assert cli(command, "--json").code == 6
    named = cli("status", "two")
    assert (named.code, str(files[1]) in named.stderr) == (6, True)
    assert cli("status", "three").code == 3


@pytest.mark.parametrize("command", [["status"], ["sessions"], ["push", "--all"]])
def test_a_data_directory_that_cannot_be_read_is_not_the_same_as_an_empty_one(
    cli: Cli, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path) -> list[str]:
        raise PermissionError(13, "Permission denied", str(path))

    cli("add", "one", "text").ok()
    monkeypatch.setattr("moss_local.storage.place.os.listdir", refused)
    done = cli(*command)
    assert done.code == 4
    assert "cannot be used: Permission denied" in done.stderr
    assert "FAILED  data directory" in cli("doctor", "--local").stdout


# -- adding ----------------------------------------------------------------------------------


def test_an_id_of_its_own_sorts_after_all_before(cli: Cli) -> None:
    ids = [cli("add", "conv", f"text {n}", "--json").ok().json()["ids"][0] for n in range(3)]
    assert ids == sorted(set(ids))


def test_adding_an_id_again_replaces_it(cli: Cli) -> None:
    assert cli("add", "conv", "old", "--id", "t").ok().stdout == "added t\n"
    assert cli("add", "conv", "new", "--id", "t").ok().stdout == "updated t\n"
    (document,) = cli("show", "conv", "--json").ok().json()["documents"]
    assert document["text"] == "new"


def test_a_text_comes_from_a_pipe_word_for_word(cli: Cli) -> None:
    text = "two lines,\nof every script: ünï 漢字 🙂 [bold]no markup[/bold]"
    cli("add", "conv", "-", "--id", "t", "--payload", '{"k": 1}', stdin=text + "\n").ok()
    (document,) = cli("show", "conv", "--json").ok().json()["documents"]
    assert (document["text"], document["payload"]) == (text, '{"k": 1}')
    assert "[bold]no markup[/bold]" in cli("show", "conv").ok().stdout


def test_a_file_of_json_lines_is_added_as_a_whole(cli: Cli) -> None:
    lines = [{"id": n, "text": f"turn {n}", "metadata": {"n": n}} for n in range(40)]
    Path("turns.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    done = cli("add", "conv", "--file", "turns.jsonl", "--metadata", "n=0", "--metadata", "a=b")
    assert done.ok().stdout == "added 40, updated 0\n"
    documents = cli("show", "conv", "--json").ok().json()["documents"]
    by_id = {document["id"]: document for document in documents}
    assert by_id["7"]["metadata"] == {"n": "7", "a": "b"}


def test_a_text_file_becomes_chunks_as_add_docs_makes_them(cli: Cli) -> None:
    Path("notes").mkdir()
    Path("notes/call.md").write_text("# Call\n\nOne.\n\nTwo.\n\n# End\n\nBye.", "utf-8")
    done = cli("add", "conv", "--file", "notes/call.md", "--metadata", "a=b", "--json").ok().json()
    assert done["ids"] == ["notes/call.md#0", "notes/call.md#1"]
    documents = cli("show", "conv", "--json").ok().json()["documents"]
    assert [document["text"] for document in documents] == ["Call\nOne.\n\nTwo.", "End\nBye."]
    assert documents[0]["metadata"] == {"a": "b", "parentId": "notes/call.md"}


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["add", "conv"], 2, "give one of"),
        (["add", "conv", "text", "--file", "turns.jsonl"], 2, "give one of"),
        (["add", "conv", "  "], 2, "blank"),
        (["add", "conv", "text", "--metadata", "novalue"], 2, "'novalue' is not KEY=VALUE"),
        (
            ["add", "conv", "text", "--metadata", "a=1", "--metadata", "a=2"],
            2,
            "'a' is given twice",
        ),
        (["add", "", "text"], 2, "session name is empty"),
        (["add", "conv", "--file", "missing.jsonl"], 3, "missing.jsonl"),
        (["add", "conv", "--file", "bad.jsonl"], 2, "bad.jsonl, line 2: the key 'text' is missing"),
        (["add", "conv", "--file", "bad.jsonl", "--id", "x"], 2, "not for a file"),
        (["add", "conv", "--file", "a\0b.txt"], 2, r"--file 'a\x00b.txt' holds a NUL character"),
        (["add", "conv", "\ud800"], 2, "half of a surrogate pair"),
        (["add", "conv", "text", "--id", "x" * 2000], 2, "more than 1024"),
        (["add", "conv", "text", "--id", ""], 2, "a document id is empty"),
        (["add", "conv", "text", "--metadata", "a=\ud800"], 2, "half of a surrogate pair"),
        (["add", "conv", "--file", "short.json"], 2, "has 2 dimensions"),
        (["import", "short.json", "--session", "conv"], 2, "has 2 dimensions"),
        (["export", "conv", "."], 2, ". is a folder"),
        (["export", "conv", "/", "--force"], 2, "/ is a folder"),
        (["export", "conv", ""], 2, ". is a folder"),
        (["import", "missing.moss"], 3, "there is no file missing.moss"),
        (["query", "nowhere", "text"], 3, "'nowhere'"),
        (["show", "nowhere"], 3, "'nowhere'"),
        (["status", "nowhere"], 3, "'nowhere'"),
        (["push", "nowhere"], 3, "'nowhere'"),
        (["pull"], 2, "--all"),
        (["push", "conv", "--all"], 2, "--all is every session, and 'conv' is named besides"),
        (["show", "conv", "--store", "y"], 2, "hint: moss-local --store ... show ..."),
        (["push", "conv", "--data-dir=y"], 2, "--data-dir stands before the command"),
        (["show", "conv", "--stor"], 2, "No such option: --stor"),
        (["at-rest", "change-key"], 2, "there is no key to change"),
        (["init"], 2, "set up already"),
        (["--store", "ftp://x", "sessions"], 2, "'ftp://'"),
        (["no-such-command"], 2, "no-such-command"),
        (["query", "conv"], 2, "TEXT"),
    ],
)
def test_a_mistake_is_named_with_its_exit_code_and_nothing_is_written(
    cli: Cli, arguments: list[str], code: int, named: str
) -> None:
    Path("bad.jsonl").write_text('{"id": 1, "text": "fine"}\n{"id": 2}\n', "utf-8")
    Path("short.json").write_text('{"id": 1, "text": "x", "embedding": [1, 2]}', "utf-8")
    done = cli(*arguments)
    assert done.code == code, done.stderr
    assert done.stdout == ""
    assert named in done.stderr
    assert "Traceback" not in done.stderr
    assert cli("sessions", "--json").ok().json()["sessions"] == []


def test_without_the_model_nothing_is_added_and_no_session_is_left(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ModelNotFoundError("the weights are not here")

    monkeypatch.setattr("moss_local.local.Local.embed", missing)
    assert cli("add", "conv", "text").code == 9
    assert cli("sessions", "--json").ok().json()["sessions"] == []


def test_a_refused_add_takes_back_no_session_that_somebody_has(cli: Cli, tmp_path: Path) -> None:
    cli("add", "full", "text").ok()
    cli("push", "full").ok()
    second = cli.on("second")
    assert second("add", "full", "text", "--id", "x" * 2000).code == 2
    [there] = second("status", "--json").ok().json()["sessions"]
    assert (there["name"], there["documents"]) == ("full", 1)

    path = tmp_path / "a.sqlite3"
    file = open_session_file(path, session="conv")
    assert not remove_unused(path, key=None)  # it is open
    file.close()
    with apsw.Connection(str(path)) as conn:
        conn.execute("UPDATE state SET local_seq = 1")
    conn.close()
    assert not remove_unused(path, key=None)
    with apsw.Connection(str(path)) as conn:
        conn.execute("UPDATE state SET local_seq = 0")
    conn.close()
    assert remove_unused(path, key=None)
    assert not remove_unused(path, key=None)
    assert list(tmp_path.glob("a.sqlite3*")) == []


def test_of_a_file_with_one_bad_document_none_is_added(cli: Cli) -> None:
    cli("add", "conv", "there before").ok()
    lines = [{"id": 1, "text": "fine"}, {"id": "x" * 2000, "text": "too long an id"}]
    Path("turns.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    assert cli("add", "conv", "--file", "turns.jsonl").code == 2
    assert len(cli("show", "conv", "--json").ok().json()["documents"]) == 1


def test_one_of_a_thing_is_not_said_to_be_several() -> None:
    done = summary(SyncReport(sent_deletes=1, lost_races=1, requests=1))
    assert done.startswith("1 deletion sent, 1 race lost (1 request, ")
    done = summary(SyncReport(sent_deletes=2, lost_races=3))
    assert done.startswith("2 deletions sent, 3 races lost (0 requests, ")


# -- searching -------------------------------------------------------------------------------


def test_the_options_of_a_query_are_honoured(cli: Cli) -> None:
    cli("add", "conv", "The refund was confirmed.", "--id", "refund").ok()
    cli("add", "conv", "It rains in Lisbon.", "--id", "rain").ok()

    def ids(*options: str) -> list[str]:
        found = cli("query", "conv", "is my money coming back?", "--json", *options).ok().json()
        return [hit["id"] for hit in found["results"]]

    assert ids() == ["refund", "rain"]
    assert ids("--top-k", "1") == ["refund"]
    assert ids("--top-k", "0") == []
    assert ids("--alpha", "0") == []
    scores = {
        hit["id"]: hit["score"]
        for hit in cli("query", "conv", "is my money coming back?", "--json").json()["results"]
    }
    between = (scores["refund"] + scores["rain"]) / 2
    assert ids("--min-score", str(between)) == ["refund"]
    for wrong in (["--alpha", "2"], ["--min-score", "-1"], ["--top-k", "-1"]):
        assert cli("query", "conv", "x", *wrong).code == 2


def test_a_filter_and_a_grouping_narrow_what_is_shown_and_found(cli: Cli) -> None:
    for n, (call, text) in enumerate(
        [("a", "The refund"), ("a", "is on its way."), ("b", "Rain.")]
    ):
        given = ["--metadata", f"call={call}", "--metadata", f"n={n}"]
        cli("add", "conv", text, "--id", f"t{n}", *given).ok()
    in_a = '{"field": "call", "condition": {"$eq": "a"}}'
    shown = cli("show", "conv", "--filter", in_a, "--json").ok().json()["documents"]
    assert [document["id"] for document in shown] == ["t0", "t1"]
    found = cli("query", "conv", "refund", "--filter", in_a, "--json").ok().json()["results"]
    assert {hit["id"] for hit in found} == {"t0", "t1"}
    options = ["--group-by", "call, n", "--filter", in_a, "--json"]
    [group] = cli("query", "conv", "refund", *options).ok().json()["results"]
    assert (group["id"], group["text"]) == ("a", "The refund\nis on its way.")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--filter", "{"], "error: --filter, line 1, column 2: not JSON"),
        (["--filter", "null"], "error: --filter is null"),
        (["--filter", "[]"], "error: filter is a list, not a dict"),
        (["--filter", '{"call": "a"}'], "error: filter has the key 'call'"),
        (["--filter", '{"field": "a", "field": "b"}'], "the key 'field' stands twice"),
        (["--group-by", "call"], "hint: write --group-by call,ORDER"),
    ],
)
def test_a_wrong_filter_or_grouping_is_an_error_of_usage(
    cli: Cli, options: list[str], said: str
) -> None:
    cli("add", "conv", "text").ok()
    done = cli("query", "conv", "text", *options)
    assert (done.code, done.stdout) == (2, "")
    assert said in done.stderr


def test_a_query_that_finds_nothing_says_so_and_prints_no_data(cli: Cli) -> None:
    cli("add", "conv", "text").ok()
    done = cli("query", "conv", "   ").ok()
    assert (done.stdout, done.stderr) == ("", "nothing found\n")


# -- without the store -----------------------------------------------------------------------


def test_offline_everything_local_goes_on_and_says_so(cli: Cli) -> None:
    cli("add", "conv", "The refund was confirmed.", "--id", "t1").ok()
    cli("push", "conv").ok()
    Path("shared").rename("away")

    shown = cli("show", "conv").ok()
    assert "t1" in shown.stdout
    assert shown.stderr.startswith("offline: ")
    cli("add", "conv", "Customer says thanks.", "--id", "t2").ok()
    found = cli("query", "conv", "thanks", "--json").ok()
    assert found.json()["results"][0]["id"] == "t2"
    listed = cli("sessions", "--json").ok()
    assert listed.json()["store_reached"] is False
    assert listed.json()["sessions"][0]["in_store"] is None
    assert listed.stderr.startswith("offline: ")
    # Where the network is not wanted it is not missed.
    for arguments in (["show", "conv", "--local"], ["sessions", "--local"], ["status"]):
        assert "offline: " not in cli(*arguments).ok().stderr

    for verb in ("push", "pull", "sync"):
        done = cli(verb, "conv", "--json")
        assert done.code == 5
        assert done.json()["exchanges"][0]["error"]["code"] == "NETWORK"
        assert "error: " in done.stderr

    Path("away").rename("shared")
    assert "1 sent" in cli("push", "conv").ok().stdout


# -- setting up ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reading", [("show", "conv"), ("query", "conv", "refund"), ("history", "conv"), ("sessions",)]
)
def test_what_is_here_is_read_although_the_store_never_answers(
    cli: Cli, silent_store: str, monkeypatch: pytest.MonkeyPatch, reading: tuple[str, ...]
) -> None:
    monkeypatch.setattr(moss_local.project, "FIRST_ANSWER_S", 0.2)
    monkeypatch.setattr(s3_client, "BULK_READ_TIMEOUT_S", 600)
    for text in ("A refund was asked for.", "The refund was granted."):
        cli("add", "conv", text, "--id", "t").ok()
    read = Cli(("--store", silent_store))(*reading).ok()
    assert "refund" in read.stdout or "conv" in read.stdout
    assert f"offline: no answer from {silent_store} within 0.2 s" in read.stderr


def test_a_store_folder_that_is_not_there_is_told_by_what_reads_it(
    cli: Cli, tmp_path: Path
) -> None:
    told = f"the store folder {tmp_path / 'shared'} does not exist (yet)"
    for reading in (["sessions"], ["sync", "--all"], ["pull", "--all"]):
        assert told in cli(*reading).ok().stderr
    refused = cli("pull", "conv")
    assert (refused.code, told in refused.stderr) == (3, True)
    assert not (tmp_path / "shared").exists()
    # A first user needs no step before the first push, which says what it did.
    cli("add", "conv", "A turn.").ok()
    assert f"a new store was made in {tmp_path / 'shared'}" in cli("push", "conv").ok().stderr
    for quiet in (["sessions"], ["sync", "--all"], ["pull", "conv"]):
        assert cli(*quiet).ok().stderr == ""


@pytest.mark.parametrize("left", ["nothing", "an empty mount point"])
def test_a_device_that_knows_the_store_makes_no_second_one_where_its_disk_was(
    cli: Cli, tmp_path: Path, left: str
) -> None:
    disk, away = tmp_path / "disk", tmp_path / "away"
    disk.mkdir()
    device = Cli(("--store", str(disk / "store")))
    device("add", "conv", "A turn.", "--id", "a").ok()
    device("push", "conv").ok()
    disk.rename(away)
    if left == "an empty mount point":
        disk.mkdir()
    assert "does not hold the store that it held before" in device("sessions").ok().stderr
    for name in ("conv", "another"):  # a session that it has exchanged, and a new one
        device("add", name, "More.").ok()
        for verb in ("push", "pull", "sync"):
            refused = device(verb, name)
            assert (refused.code, "mount the disk" in refused.stderr) == (5, True)
    assert not (disk / "store").exists()
    if disk.exists():
        disk.rmdir()
    away.rename(disk)
    device("sync", "--all").ok()


def test_a_session_of_a_store_made_where_a_disk_was_missing_is_brought_over(
    cli: Cli, tmp_path: Path
) -> None:
    """A new device cannot know that the empty folder is a mount point; the way out is told."""
    disk, away, store = tmp_path / "disk", tmp_path / "away", str(tmp_path / "disk" / "store")
    disk.mkdir()
    first = Cli(("--data-dir", "first", "--store", store))
    first("add", "conv", "From the first.", "--id", "a").ok()
    first("push", "conv").ok()
    disk.rename(away)
    disk.mkdir()
    new = Cli(("--data-dir", "new", "--store", store))
    new("add", "conv", "From the new one.", "--id", "b").ok()
    new("push", "conv").ok()
    disk.rename(tmp_path / "the second store")
    away.rename(disk)

    refused = new("sync", "conv")
    assert refused.code != 0
    assert "moss-local repair conv" in refused.stderr
    told = new("repair", "conv")
    assert told.code == 7
    assert "moss-local export SESSION FILE" in told.stderr
    assert "moss-local --data-dir OTHER import FILE" in told.stderr
    new("export", "conv", "FILE").ok()
    other = Cli(("--data-dir", "OTHER", "--store", store))
    other("import", "FILE").ok()
    other("push", "conv").ok()
    first("pull", "conv").ok()
    assert {each["id"] for each in first("show", "conv", "--json").json()["documents"]} == {
        "a",
        "b",
    }


def test_the_key_is_never_shown_unless_asked_for(cli: Cli) -> None:
    saved = load_credentials()
    assert saved is not None
    key = saved.project_key
    again = cli("init", "--force", "--project", "other", "--store", "./shared").ok()
    assert key not in again.stdout + again.stderr
    for arguments in (["status"], ["doctor"], ["sessions"], ["init"]):
        done = cli(*arguments)
        assert key not in done.stdout + done.stderr
    other = load_credentials()
    assert other is not None
    assert other.project_key in cli("init", "--show-key").ok().stdout


def test_setting_up_anew_keeps_the_old_key(cli: Cli) -> None:
    before = credentials_path().read_bytes()
    cli("init", "--force").ok()
    kept = [path for path in credentials_path().parent.iterdir() if path != credentials_path()]
    assert [path.read_bytes() for path in kept] == [before]
    assert credentials_path().read_bytes() != before
    if os.name == "posix":
        assert all(path.stat().st_mode & 0o077 == 0 for path in [*kept, credentials_path()])


def test_a_second_device_joins_with_the_key_of_the_first(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cli("add", "conv", "hello", "--id", "t1").ok()
    cli("push", "conv").ok()
    saved = load_credentials()
    assert saved is not None
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("HOME", str(tmp_path / "elsewhere"))

    joining = ["init", "--join", "--project", "acme", "--store", "./shared"]
    refused = cli(*joining)
    assert refused.code == 2
    assert "MOSS_PROJECT_KEY" in refused.stderr
    with monkeypatch.context() as environment:
        environment.setenv("MOSS_PROJECT_KEY", saved.project_key)
        cli(*joining).ok()
    assert "t1" in cli("show", "conv").ok().stdout


def test_a_wrong_key_is_refused_and_nothing_is_written(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("add", "conv", "hello").ok()
    cli("push", "conv").ok()
    monkeypatch.setenv("MOSS_PROJECT_KEY", "not the key")
    for device in (cli, cli.on("stranger")):
        for arguments in (["show", "conv"], ["sync", "conv"], ["add", "conv", "x"]):
            done = device(*arguments)
            assert done.code == 4, (arguments, done.stdout, done.stderr)
    assert list(Path("stranger").rglob("*.sqlite3")) == []


def test_without_any_set_up_every_command_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in (["show", "x"], ["sessions"], ["status"], ["add", "x", "y"], ["push", "x"]):
        done = Cli()(*arguments)
        assert done.code == 4
        assert "hint: set the device up once with: moss-local init" in done.stderr


def test_a_store_in_memory_cannot_be_set_up(cli: Cli) -> None:
    assert cli("init", "--force", "--store", "memory://x").code == 2


@pytest.mark.parametrize(
    "command",
    [
        ["add", "conv", "text"],
        ["push", "conv"],
        ["sync", "--all"],
        ["query", "conv", "x"],
        ["status"],
    ],
)
def test_no_command_uses_a_store_that_ends_with_it(
    cli: Cli, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOSS_STORE", "Memory://x")
    done = cli(*command)
    assert (done.code, done.stdout) == (2, "")
    assert "the store 'Memory://x' ends with the program that made it" in done.stderr
    assert cli("--store", "memory://x", *command).code == 2
    assert cli("--store", "./shared", "sessions", "--json").ok().json()["sessions"] == []
    assert cli("doctor").code == 1


# -- the doctor ------------------------------------------------------------------------------


def blobs(store: Path) -> list[Path]:
    found = [path for path in store.rglob("*") if path.is_file() and ".moss" not in path.parts]
    return sorted(found)


def checks(done: Done) -> dict[str, Any]:
    return {check["name"]: check for check in done.json()["checks"]}


def test_the_doctor_finds_a_healthy_device_and_store_well(cli: Cli) -> None:
    cli("add", "conv", "hello").ok()
    cli("push", "conv").ok()
    before = blobs(Path("shared"))
    found = checks(cli("doctor", "--json").ok())
    assert all(check["ok"] for check in found.values())
    for name in ("settings", "key", "model: weights", "session conv", "store: create", "clock"):
        assert name in found
    assert sum(name.startswith("store: race of 4") for name in found) == 4
    assert blobs(Path("shared")) == before


def test_the_doctor_tells_each_thing_that_is_wrong_and_what_to_do(cli: Cli) -> None:
    for name in ("whole", "damaged", "rubbish"):
        cli("add", name, "hello").ok()
    status = cli("status", "--json").ok().json()["sessions"]
    paths = {session["name"]: Path(session["path"]) for session in status}
    conn = apsw.Connection(str(paths["damaged"]))
    conn.execute("UPDATE state SET live = 7")
    conn.close()
    paths["rubbish"].write_bytes(b"not a database, but long enough to be taken for one" * 100)
    paths["whole"].parent.chmod(0o755)

    done = cli("doctor", "--local", "--json")
    assert done.code == 1
    found = checks(done)
    assert found["session whole"]["ok"]
    assert "counts 7" in found["session damaged"]["detail"]
    assert not found[f"session {paths['rubbish'].name}"]["ok"]
    if os.name == "posix":
        assert "chmod 700" in found["data directory"]["todo"]
    assert not any(name.startswith("store") for name in found)
    assert "FAILED  session damaged" in cli("doctor", "--local").stdout
    # A damaged file stands in the way of no other session.
    assert "whole" in cli("sessions", "--local").ok().stdout


def test_the_doctor_tells_a_wrong_key_and_a_store_that_is_gone(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("add", "conv", "hello").ok()
    cli("push", "conv").ok()
    with monkeypatch.context() as environment:
        environment.setenv("MOSS_PROJECT_KEY", "not the key")
        done = cli("doctor", "--json")
    assert done.code == 1
    assert not checks(done)["key"]["ok"]
    Path("shared").rename("away")
    done = cli("doctor", "--json")
    assert done.code == 1
    assert about_the_store(done) == {"store"}
    found = checks(done)["store"]
    assert found["detail"] == f"the folder {Path('shared').absolute()} is not there"
    assert "mount the disk" in found["todo"]
    Path("shared").write_text("a file where the folder was")
    done = cli("doctor", "--json")
    assert done.code == 1
    assert about_the_store(done) == {"store"}
    assert "is a file" in checks(done)["store"]["detail"]


@pytest.mark.skipif(os.name != "posix", reason="owners and modes")
@pytest.mark.parametrize("commit", ["cas", "log"])
def test_the_doctor_tells_once_whose_a_store_is_that_may_not_be_written(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, commit: str
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setenv("MOSS_COMMIT", commit)
    cli("--store", "./other", "add", "conv", "hello").ok()
    cli("--store", "./other", "push", "conv").ok()
    monkeypatch.setattr("moss_sync.stores.folder.write_file", refused)
    other = Path("other").absolute()
    done = cli("--store", "./other", "doctor", "--json")
    assert done.code == 1
    assert about_the_store(done) - {"store: mode"} == {"store", "key"}  # which could be read
    found = checks(done)["store"]
    assert found["detail"] == f"cannot write to the folder {other}: Permission denied"
    assert found["todo"] == f"{other} is yours and has mode 0700: chmod u+rwx {other}"
    monkeypatch.setattr("moss_local.cli.checkup.os.geteuid", lambda: 4242)
    todo = checks(cli("--store", "./other", "doctor", "--json"))["store"]["todo"]
    assert f"belongs to user {os.getuid()}; you are 4242" in todo


def about_the_store(done: Done) -> set[str]:
    """Return the names of the checks that ask the store."""
    return {name for name in checks(done) if name.startswith(("store", "key", "clock"))}


def test_without_set_up_the_doctor_says_so() -> None:
    done = Cli()("doctor", "--json")
    assert (done.code, done.json()["ok"]) == (1, False)
    assert "moss-local init" in done.json()["checks"][0]["todo"]


# -- what is printed -------------------------------------------------------------------------


def keys(value: Any) -> Iterator[str]:
    """Yield every key of a JSON value that is not the user's own."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            if key != "metadata":
                yield from keys(item)
    elif isinstance(value, list):
        for item in value:
            yield from keys(item)


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("add", ["conv", "text", "--metadata", "mine=1"]),
        ("query", ["conv", "hello"]),
        ("show", ["conv"]),
        ("sessions", []),
        ("status", []),
        ("push", ["conv"]),
        ("doctor", ["--local"]),
    ],
)
def test_json_has_exactly_the_keys_that_the_help_names(
    cli: Cli, command: str, arguments: list[str]
) -> None:
    cli("add", "conv", "hello", "--metadata", "mine=1").ok()
    help = " ".join(cli(command, "--help").ok().stdout.split())
    shape = help.split("JSON: ")[1].split(". ")[0].split("; ")[0]
    named = shape.replace("{", " ").replace("}", " ").replace("[", " ").replace("]", " ")
    printed = cli(command, *arguments, "--json").ok().json()
    assert set(keys(printed)) == set(named.replace(",", " ").replace(":", " ").split())


def test_a_text_cannot_play_tricks_on_the_terminal(cli: Cli) -> None:
    nasty = "\x1b]0;title\x07 \x1b[2J \x9b31m \u202egnirts \r over \x00 \u2028end"
    assert cli("add", "conv", "-", "--id", "t", stdin=nasty).code == 0
    for arguments in (["show", "conv"], ["query", "conv", "title"]):
        printed = cli(*arguments).ok().stdout
        assert not set(printed) & {chr(c) for c in range(32) if chr(c) != "\n"} - {"\t"}
        assert not set(printed) & {"\x9b", "\u202e", "\x7f", "\u2028"}
        shown = "\\x1b]0;title\\x07 \\x1b[2J \\x9b31m \\u202egnirts \\r over \\x00 \\u2028end"
        assert shown in printed
    (document,) = cli("show", "conv", "--json").ok().json()["documents"]
    assert document["text"] == nasty


NASTY = "a\nerror: b\x1b[2J\u202e\u2066\u200e\u200b\u00ad\ufeff\u3164\u2028\x85[red]c"
SHOWN = "a\\nerror: b\\x1b[2J\\u202e\\u2066\\u200e\\u200b\\xad\\ufeff\\u3164\\u2028\\x85[red]c"


def test_what_is_said_on_several_lines_is_given_as_lines() -> None:
    """`render.say` and `talk` escape line breaks, also those of our own sentences."""
    for path in Path(render.__file__).parent.glob("*.py"):
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(call, ast.Call) or ast.unparse(call.func) not in PRINTED:
                continue
            for part in (each for given in call.args for each in ast.walk(given)):
                text = part.value if isinstance(part, ast.Constant) else ""
                assert "\n" not in str(text) or ".splitlines" in ast.unparse(call), path


def test_names_are_shown_escaped_and_json_has_them_as_they_are(cli: Cli) -> None:
    cli("add", NASTY, "text", "--id", NASTY, "--metadata", f"speaker={NASTY}").ok()
    runs = [
        ["sessions"],
        ["status"],
        ["status", NASTY],
        ["show", NASTY],
        ["query", NASTY, "text"],
        ["sync", NASTY],
        ["repair", NASTY],
        ["history", NASTY],
        ["quarantine", NASTY],
        ["doctor"],
        ["export", NASTY, "x.moss"],
        ["import", "x.moss"],
        ["show", NASTY + "missing"],
        ["history", NASTY, NASTY + "missing"],
        ["forget", NASTY, NASTY],
        ["delete", NASTY],
        ["forget", NASTY, NASTY, "--yes"],
        ["delete", NASTY, "--yes"],
    ]
    for arguments in runs:
        done = cli(*arguments)
        for line in (done.stdout + done.stderr).split("\n"):
            assert render.visible(line) == line, arguments
            assert not line.startswith("error: b"), arguments
        if arguments[0] == "query":
            assert SHOWN in done.stdout
    cli("add", NASTY, "text", "--id", NASTY).ok()
    assert SHOWN in cli("sessions").ok().stdout
    (session,) = cli("sessions", "--json").ok().json()["sessions"]
    assert session["name"] == NASTY
    (document,) = cli("show", NASTY, "--json").ok().json()["documents"]
    assert document["id"] == NASTY


def test_texts_keep_what_scripts_and_emoji_are_written_with_and_names_show_it() -> None:
    for text in ("می\u200cخواهم", "\u05d0\u200f!", "👩\u200d🚀", "❤\ufe0f", "a\u00a0b", "a\tb\nc"):
        assert render.visible(text, is_text=True) == text
        assert render.visible(text) != text
    for text in ("plain words", "Gespräch · 退款", "नमस्ते", "e\u0301", "\ue000", "\\n"):
        assert render.visible(text) == text
    assert render.visible("\ud800\U000e0041") == "\\ud800\\U000e0041"


def test_a_terminal_gets_columns_that_wrap(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    render.table([("a", "[b]word[/b] " * 10)], header=("x", "text"))
    lines = re.sub(r"\x1b\[\d+m", "", capsys.readouterr().out).splitlines()
    assert len(lines) > 3
    assert all(len(line) <= 40 for line in lines)
    assert "[b]word[/b]" in lines[1]


def test_a_bar_is_drawn_for_long_work_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with render.progress("embedding", 1000) as update:
        assert update is None
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with render.progress("embedding", 3) as update:
        assert update is None
    with render.progress("embedding", 1000) as update:
        assert update is not None
        update(500, 1000)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "embedding" in printed.err


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (2_500_000, "2.5 MB")]
)
def test_sizes_read_well(count: int, shown: str) -> None:
    assert render.size(count) == shown


# -- what goes wrong -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "printed"),
    [
        (RuntimeError("boom"), 1, "error: RuntimeError: boom"),
        (OSError("boom"), 1, "error: OSError: boom"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_a_bug_is_one_sentence_and_ctrl_c_is_130(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, printed: str
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("moss_local.client.MossClient.local_sessions", broken)
    done = cli("status")
    assert (done.code, done.stdout) == (code, "")
    assert printed in done.stderr
    assert "Traceback" not in done.stderr


def test_moss_debug_shows_the_traceback(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOSS_DEBUG", "1")
    done = cli("show", "nowhere")
    assert done.code == 3
    assert "Traceback" in done.stderr


# -- in real processes -----------------------------------------------------------------------


def start(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments], capture_output=True, text=True, timeout=120, **options
    )


def test_the_installed_program_adds_shows_and_fails_as_in_process(cli: Cli) -> None:
    added = start("add", "conv", "-", "--id", "t", input="grüße 🙂\n", encoding="utf-8")
    assert (added.returncode, added.stdout) == (0, "added t\n"), added.stderr
    shown = start("show", "conv", "--json")
    assert json.loads(shown.stdout)["documents"][0]["text"] == "grüße 🙂"
    missing = start("show", "nowhere")
    assert (missing.returncode, missing.stdout) == (3, "")
    assert missing.stderr.splitlines()[0].startswith("error: ")
    assert missing.stderr.splitlines()[1].startswith("hint: ")
    assert start("--version").stdout.startswith("moss-local ")


def test_an_ascii_terminal_shows_what_it_can(cli: Cli) -> None:
    cli("add", "conv", "grüße 🙂", "--id", "t").ok()
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    shown = start("show", "conv", env=environment)
    assert shown.returncode == 0, shown.stderr
    assert "gr\\xfc\\xdfe" in shown.stdout


HEAVY = ["onnxruntime", "onnx", "tokenizers", "aiobotocore", "rich"]

WATCHED = f"""
import sys
from moss_local.cli.app import app
try:
    app(sys.argv[1:])
finally:
    print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["show", "conv"],
        ["sessions"],
        ["status"],
        ["push", "conv"],
        ["pull", "conv"],
        ["doctor", "--local"],
    ],
)
def test_what_needs_no_model_loads_none(cli: Cli, arguments: list[str]) -> None:
    cli("add", "conv", "hello").ok()
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "[]"


@pytest.mark.parametrize("receiver", ["the process", "another thread"])
def test_ctrl_c_ends_a_long_add_at_once_and_nothing_of_it_is_there(cli: Cli, receiver: str) -> None:
    lines = [{"id": n, "text": f"turn {n} " + "word " * 200} for n in range(20_000)]
    Path("turns.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    cli("add", "conv", "there before").ok()
    process = subprocess.Popen(
        [*PROGRAM, "add", "conv", "--file", "turns.jsonl"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "MOSS_DEBUG": "0"},
    )
    try:
        # Once it has eaten seconds of processor time it is embedding.
        until(lambda: processor_seconds(process.pid) > 2.0)
        # A thread's number sends to the process as well, and that thread takes it.
        threads = sorted(int(task.name) for task in Path(f"/proc/{process.pid}/task").iterdir())
        os.kill(process.pid if receiver == "the process" else threads[-1], signal.SIGINT)
        stdout, stderr = process.communicate(timeout=120)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, stdout) == (130, ""), stderr
    assert stderr == "interrupted\n"
    assert len(cli("show", "conv", "--json").ok().json()["documents"]) == 1


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240  # two seconds of a processor that many may share
    while not holds():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.05)


def test_a_store_and_a_project_named_before_init_are_those_that_it_sets_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = Cli(("--store", "./shared", "--project", "acme"))("init").ok()
    assert str(tmp_path / "shared") in done.stdout
    known = load_credentials()
    assert known is not None
    assert (known.project_id, known.store) == ("acme", str(tmp_path / "shared"))
