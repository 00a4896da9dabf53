"""What others write over the limits, as a user meets it: in both modes, and on the screen."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from moss_local import DocumentInfo, MossClient
from moss_sync.commit import Commit
from tests.devices import PROJECT_KEY
from tests.moss_local.cli_harness import Cli
from tests.moss_sync.hostile import Harm, segments_harmed, sets


def client(tmp_path: Path, device: str, commit: Commit) -> MossClient:
    return MossClient(
        "project", PROJECT_KEY, store=tmp_path / "shared", data_dir=tmp_path / device, commit=commit
    )


def document(id: str, text: str) -> DocumentInfo:
    return DocumentInfo(id, text, embedding=[1.0, 0.0])


def vector_of_nan(fields: dict[str, Any]) -> None:
    at = fields["id"].index("bad")
    planes = bytearray(fields["emb"])
    vectors = len(planes) // 8
    for plane, byte in enumerate(b"\x00\x00\xc0\x7f"):
        planes[plane * 2 * vectors + 2 * at] = byte
    fields["emb"] = bytes(planes)


HARMS: dict[str, Harm] = {
    "text": sets("text", "bad", "x" * (2**20 + 1)),
    "id": sets("id", "bad", "\ud800"),
    "metadata": sets("meta", "bad", {"k": 1}),
    "vector": vector_of_nan,
}


@pytest.mark.parametrize("commit", ["cas", "log"])
@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_a_document_over_the_limits_leaves_the_session_as_it_was(
    tmp_path: Path, commit: Commit, harm: Harm
) -> None:
    async def story() -> None:
        async with (
            client(tmp_path, "one", commit) as one,
            client(tmp_path, "member", commit) as member,
            client(tmp_path, "new", commit) as new,
        ):
            ours = await one.session("conv", "custom")
            await ours.add_docs([document("bad", "good version"), document("other", "x")])
            await ours.push_index()
            theirs = await member.session("conv", "custom")
            await theirs.add_docs([document("bad", "bad"), document("good", "counts")])
            with segments_harmed(harm):
                await theirs.push_index()
            report = await ours.pull()
            assert report.rejected == 1
            fresh = await new.session("conv", "custom")
            for session in (ours, fresh):
                found = {each.id: each.text for each in await session.get_docs()}
                assert found == {"bad": "good version", "other": "x", "good": "counts"}
                assert session.sync_state.status == "synced"
            await ours.add_docs([document("more", "goes on")])
            await ours.push_index()
            assert (await fresh.pull()).received == 1
            [known] = (await one.local_sessions()).sessions
            assert known.rejected == 1

    asyncio.run(story())


def test_status_doctor_and_pull_say_what_does_not_count(tmp_path: Path) -> None:
    async def story() -> None:
        async with client(tmp_path, "member", "cas") as member:
            theirs = await member.session("conv", "custom")
            await theirs.add_docs([document("bad", "bad"), document("good", "counts")])
            with segments_harmed(sets("payload", "bad", 7)):
                await theirs.push_index()

    asyncio.run(story())
    cli = Cli(
        (
            *("--project", "project", "--store", str(tmp_path / "shared")),
            *("--data-dir", str(tmp_path / "one")),
        )
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOSS_PROJECT_KEY", PROJECT_KEY)
        pulled = cli("pull", "--all").ok()
        said = "does not count: document 'bad': its payload is of type int, not text"
        assert said in pulled.stdout + pulled.stderr
        again = cli("pull", "--all").ok()
        assert "does not count" not in again.stdout + again.stderr
        assert "1 do not count" in cli("status").ok().stdout
        [known] = cli("status", "--json").ok().json()["sessions"]
        assert known["rejected"] == 1
        assert "of others, 1 do not count, such as document 'bad'" in cli("doctor").stdout
