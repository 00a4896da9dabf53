"""Many sessions exchanged together: only what has changed, so many at a time, each on its own."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from moss_local import (
    ContentionError,
    DocumentInfo,
    FileCorruptError,
    InvalidArgumentError,
    MossClient,
    NetworkError,
    NotFoundError,
    OutcomeUnknownError,
    QueryOptions,
    SessionIndex,
    Synced,
    UnauthorizedError,
    rounds,
)
from moss_local.storage.connection import begin_file
from moss_local.types import Verb
from moss_sync import directory
from tests.keys import KEY
from tests.moss_local.bucket import Bucket


async def opened(client: MossClient, name: str) -> SessionIndex:
    return await client.session(name, "custom", auto_load_on_init=False, warm_up=False)


async def written(client: MossClient, name: str, *ids: str) -> None:
    async with await opened(client, name) as session:
        await session.add_docs([DocumentInfo(id, f"text {id}", None, [1.0, 2.0]) for id in ids])


def by_log(folder: Path, device: str) -> MossClient:
    return MossClient("p", KEY, store=folder / "store", data_dir=folder / device, commit="log")


async def ids(client: MossClient, name: str) -> set[str]:
    async with await opened(client, name) as session:
        return {each.id for each in await session.get_docs()}


def told(done: list[Synced]) -> dict[str, tuple[int, int]]:
    for each in done:
        if each.error is not None:
            raise each.error
    return {each.session: (each.report.sent, each.report.received) for each in done}


async def away(*_: Any, **__: Any) -> Any:
    raise NetworkError("the store does not answer")


class Counting:
    """Counts the requests of a client's store."""

    def __init__(self, client: MossClient, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        store = client._opened()._store
        for name in ("get", "put", "keys", "compare_and_swap", "delete"):
            monkeypatch.setattr(store, name, self._counted(name, getattr(store, name)))

    def _counted(self, name: str, real: Any) -> Any:
        async def call(*args: Any, **options: Any) -> Any:
            self.calls.append(name)
            return await real(*args, **options)

        return call


def test_a_round_exchanges_what_has_changed_and_asks_once_for_the_rest(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"s{number:02}" for number in range(12)]

    async def story() -> None:
        async with bucket.client(tmp_path / "one") as a, bucket.client(tmp_path / "two") as b:
            for name in names:
                await written(a, name, "first")
            assert told(await a.sync_sessions()) == dict.fromkeys(names, (1, 0))
            assert told(await b.sync_sessions()) == dict.fromkeys(names, (0, 1))
            requests = Counting(b, monkeypatch)
            verbs: list[Verb] = ["sync", "pull"]
            for verb in verbs:
                idle = await b.sync_sessions(exchange=verb)
                assert told(idle) == dict.fromkeys(names, (0, 0))
                assert [(each.report.requests, each.report.seq) for each in idle] == [(0, 1)] * 12
            assert requests.calls == ["keys", "keys"]
            await written(a, names[3], "second")
            await written(b, names[5], "third")
            await written(b, "mine", "fourth")
            await written(a, "yours", "fifth")
            assert [each.session for each in await a.sync_sessions(exchange="push")] == [
                names[3],
                "yours",
            ]
            done = told(await b.sync_sessions())
            assert list(done) == sorted([*names, "mine", "yours"])
            changed = {name: counts for name, counts in done.items() if counts != (0, 0)}
            assert changed == {
                names[3]: (0, 1),
                names[5]: (1, 0),
                "mine": (1, 0),
                "yours": (0, 1),
            }
            told(await a.sync_sessions())
            for client in (a, b):
                assert await ids(client, names[3]) == {"first", "second"}
                assert await ids(client, names[5]) == {"first", "third"}
                assert await ids(client, "mine") == {"fourth"}
                assert await ids(client, "yours") == {"fifth"}

    asyncio.run(story())


def test_a_change_whose_push_was_cut_off_is_not_skipped(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with bucket.client(tmp_path / "one") as a:
            await written(a, "s", "first")
            told(await a.sync_sessions())
            await written(a, "s", "second")
            store = a._opened()._store

            swap = store.compare_and_swap

            async def lost(*arguments: Any, **options: Any) -> Any:
                await swap(*arguments, **options)
                raise OutcomeUnknownError("the answer is lost")

            with monkeypatch.context() as patch:
                patch.setattr(store, "compare_and_swap", lost)
                patch.setattr(store, "get", away)
                (failed,) = await a.sync_sessions()
                assert isinstance(failed.error, NetworkError)
            (found,) = await a.sync_sessions()
            assert found.error is None
            assert found.report.requests > 0
            (idle,) = await a.sync_sessions()
            assert (idle.report.requests, idle.report.seq) == (0, 2)
        async with bucket.client(tmp_path / "two") as b:
            told(await b.sync_sessions())
            assert await ids(b, "s") == {"first", "second"}

    asyncio.run(story())


def test_a_session_deleted_elsewhere_is_deleted_here_and_not_fetched_again(
    bucket: Bucket, tmp_path: Path
) -> None:
    async def story() -> None:
        async with bucket.client(tmp_path / "one") as a, bucket.client(tmp_path / "two") as b:
            await written(a, "s", "first")
            told(await a.sync_sessions())
            told(await b.sync_sessions())
            await a.delete_session("s")
            assert list(told(await b.sync_sessions())) == ["s"]
            (gone,) = (await b.local_sessions()).sessions
            assert (gone.deleted, gone.documents) == (True, 0)
            assert told(await a.sync_sessions()) == {}
            assert told(await b.sync_sessions()) == {"s": (0, 0)}

    asyncio.run(story())


def test_named_sessions_are_exchanged_in_the_order_given_and_none_is_made(
    bucket: Bucket, tmp_path: Path
) -> None:
    async def story() -> None:
        async with bucket.client(tmp_path / "one") as a, bucket.client(tmp_path / "two") as b:
            await written(a, "x", "first")
            await written(a, "y", "second")
            told(await a.sync_sessions())
            y, unknown, x = await b.sync_sessions(["y", "unknown", "x", "y"])
            assert [each.session for each in (y, unknown, x)] == ["y", "unknown", "x"]
            assert isinstance(unknown.error, NotFoundError)
            assert (y.report.received, x.report.received) == (1, 1)
            assert [each.name for each in (await b.local_sessions()).sessions] == ["x", "y"]
            assert await b.sync_sessions([]) == []

    asyncio.run(story())


def test_a_damaged_file_stands_in_the_way_of_no_other(bucket: Bucket, tmp_path: Path) -> None:
    async def story() -> None:
        async with bucket.client(tmp_path / "one") as a:
            for name in ("pushed", "whole"):
                await written(a, name, "first")
            told(await a.sync_sessions())
            await written(a, "local", "first")
            paths = {each.name: each.path for each in (await a.local_sessions()).sessions}
        for name in ("pushed", "local"):
            paths[name].write_bytes(b"nonsense" * 1024)
        async with bucket.client(tmp_path / "one") as a:
            await written(a, "whole", "second")
            pushed, whole, local = await a.sync_sessions()
            assert (pushed.session, whole.session) == ("pushed", "whole")
            assert isinstance(pushed.error, FileCorruptError)
            assert "moss-local repair pushed:" in (pushed.error.hint or "")
            assert (whole.error, whole.report.sent) == (None, 1)
            assert isinstance(local.error, FileCorruptError)
            assert str(paths["local"]) in local.session

    asyncio.run(story())


def test_so_many_at_a_time_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, most, steps = 0, 0, []
    real = rounds._exchange

    async def counted(*arguments: Any) -> Synced:
        nonlocal now, most
        now += 1
        most = max(most, now)
        try:
            return await real(*arguments)
        finally:
            now -= 1

    monkeypatch.setattr(rounds, "_exchange", counted)

    async def story() -> None:
        async with Bucket(str(tmp_path / "store")).client(tmp_path / "one") as a:
            for number in range(20):
                await written(a, f"s{number}", "first")
            done = await a.sync_sessions(at_once=3, progress=lambda *step: steps.append(step))
            assert len(told(done)) == 20

    asyncio.run(story())
    assert most == 3
    assert steps == [(number, 20) for number in range(1, 21)]


def test_a_store_that_is_away_is_not_asked_for_every_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        names = [f"s{number:02}" for number in range(40)]
        async with Bucket(str(tmp_path / "store")).client(tmp_path / "one") as a:
            for name in names:
                await written(a, name, "first")
            for at_once, least in ((1, 8), (4, 8), (16, 16)):
                with monkeypatch.context() as patch:
                    patch.setitem(rounds._VERBS, "sync", away)
                    done = await a.sync_sessions(names, at_once=at_once)
                assert [each.session for each in done] == names
                assert all(isinstance(each.error, NetworkError) for each in done)
                # Those that are under way with the last of the failures are tried, too.
                assert least <= sum(each.tried for each in done) < least + at_once
            with monkeypatch.context() as patch:
                patch.setattr(a._opened()._store, "keys", away)
                with pytest.raises(NetworkError):
                    await a.sync_sessions()
            assert told(await a.sync_sessions()) == dict.fromkeys(names, (1, 0))
            monkeypatch.setattr(a._opened()._store, "keys", away)
            assert await a.sync_sessions(exchange="push") == []  # nobody asks the store

    asyncio.run(story())


def test_lost_races_are_no_sign_of_a_store_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def beaten(session: SessionIndex) -> Any:
        raise ContentionError("others were faster")

    async def story() -> None:
        async with Bucket(str(tmp_path / "store")).client(tmp_path / "one") as a:
            for number in range(20):
                await written(a, f"s{number}", "first")
            monkeypatch.setitem(rounds._VERBS, "sync", beaten)
            done = await a.sync_sessions(at_once=2)
            assert [(type(each.error), each.tried) for each in done] == [
                (ContentionError, True)
            ] * 20

    asyncio.run(story())


def test_one_failure_in_between_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        names = [f"s{number:02}" for number in range(20)]
        async with Bucket(str(tmp_path / "store")).client(tmp_path / "one") as a:
            for name in names:
                await written(a, name, "first")
            plain = SessionIndex.sync

            async def unsteady(session: SessionIndex) -> Any:
                if int(session.name[1:]) % 3 == 1:
                    raise NetworkError("the connection broke")
                return await plain(session)

            monkeypatch.setitem(rounds._VERBS, "sync", unsteady)
            done = await a.sync_sessions(names, at_once=2)
            failed = [each.session for each in done if each.error is not None]
            assert failed == names[1::3]

    asyncio.run(story())


def test_a_round_that_is_cancelled_leaves_no_session_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with Bucket(str(tmp_path / "store")).client(tmp_path / "one") as a:
            for number in range(6):
                await written(a, f"s{number}", "first")
            begun = asyncio.Event()

            async def endless(session: SessionIndex) -> Any:
                begun.set()
                await asyncio.Event().wait()

            with monkeypatch.context() as patch:
                patch.setitem(rounds._VERBS, "sync", endless)
                task = asyncio.ensure_future(a.sync_sessions(at_once=3))
                await begun.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert a._opened()._sessions == set()
            assert len(told(await a.sync_sessions())) == 6

    asyncio.run(story())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"at_once": 0}, "at_once"),
        ({"at_once": 65}, "at_once"),
        ({"at_once": True}, "at_once"),
        ({"at_once": 2.0}, "at_once"),
        ({"exchange": "both"}, "both"),
        ({"index_names": "name"}, r"write \['name'\]"),
        ({"index_names": [""]}, "empty"),
        ({"index_names": [7]}, "int"),
    ],
)
def test_a_round_that_cannot_be_is_refused_before_anything_is_exchanged(
    arguments: dict[str, Any], named: str, tmp_path: Path
) -> None:
    async def story() -> None:
        async with Bucket(str(tmp_path / "store")).client(tmp_path / "one") as a:
            await written(a, "s", "first")
            with pytest.raises(InvalidArgumentError) as caught:
                await a.sync_sessions(**arguments)
            assert caught.match(named) or named.replace("\\", "") in (caught.value.hint or "")
            assert not (tmp_path / "store").exists()

    asyncio.run(story())


def test_where_blobs_travel_one_by_one_every_session_is_exchanged(tmp_path: Path) -> None:
    async def story() -> None:
        async with by_log(tmp_path, "one") as a, by_log(tmp_path, "two") as b:
            for name in ("x", "y"):
                await written(a, name, "first")
            assert told(await a.sync_sessions()) == {"x": (1, 0), "y": (1, 0)}
            assert told(await b.sync_sessions()) == {"x": (0, 1), "y": (0, 1)}
            await written(a, "x", "second")
            told(await a.sync_sessions())
            assert told(await b.sync_sessions()) == {"x": (0, 1), "y": (0, 0)}

    asyncio.run(story())


def test_what_is_deleted_during_a_round_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        store = Bucket(str(tmp_path / "store"))
        async with store.client(tmp_path / "one") as a:
            for verb in ("sync", "push"):
                for number in range(4):
                    await written(a, f"{verb}{number}", "first")
                plain = rounds._VERBS[verb]

                async def deleting(session: SessionIndex, plain: Any = plain) -> Any:
                    if session.name.endswith("0"):
                        await a.delete_session(session.name[:-1] + "3", local_only=True)
                    return await plain(session)

                with monkeypatch.context() as patch:
                    patch.setitem(rounds._VERBS, verb, deleting)
                    done = told(await a.sync_sessions(exchange=verb, at_once=1))
                assert f"{verb}3" not in done
                assert {f"{verb}0", f"{verb}1", f"{verb}2"} <= done.keys()
                stored = [each.name for each in (await a.stored_sessions()).sessions]
                here = [each.name for each in (await a.local_sessions()).sessions]
                assert f"{verb}3" not in stored + here

    asyncio.run(story())


def test_a_copy_of_a_file_under_another_name_does_not_speak_for_the_session(
    bucket: Bucket, tmp_path: Path
) -> None:
    async def story() -> None:
        async with bucket.client(tmp_path / "one") as a:
            await written(a, "x", "first")
            told(await a.sync_sessions())
            (known,) = (await a.local_sessions()).sessions
        copy = known.path.with_name("zz-backup.sqlite3")
        copy.write_bytes(known.path.read_bytes())
        empty = known.path.with_name("being-made.sqlite3")
        begin_file(empty, hint="")
        async with bucket.client(tmp_path / "one") as a:
            await written(a, "x", "second")
            assert told(await a.sync_sessions()) == {"x": (1, 0)}
            await written(a, "x", "third")
            assert told(await a.sync_sessions(exchange="push")) == {"x": (1, 0)}
            assert told(await a.sync_sessions()) == {"x": (0, 0)}

    asyncio.run(story())


def test_a_session_that_is_open_is_found_by_its_name_during_a_round(tmp_path: Path) -> None:
    async def story() -> None:
        async with Bucket(str(tmp_path / "store")).client(tmp_path / "one") as a:
            await written(a, "x", "first")
            await written(a, "y", "first")
            session = await opened(a, "x")
            asked = QueryOptions(embedding=[1.0, 2.0])

            async def exchanging() -> None:
                for _ in range(20):
                    await a.sync_sessions(["x", "y"])

            task = asyncio.ensure_future(exchanging())
            while not task.done():
                found = await a.query_multi(["x"], "text", asked)
                assert [each.id for each in found.docs] == ["first"]
                with pytest.raises(NotFoundError, match="'y' is not open"):
                    await a.query_multi(["y"], "text", asked)
                await asyncio.sleep(0)
            await task
            await session.close()

    asyncio.run(story())


def test_a_client_that_is_closed_during_a_round_ends_it_and_keeps_what_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        names = [f"s{number}" for number in range(6)]
        a = Bucket(str(tmp_path / "store")).client(tmp_path / "one")
        for name in names:
            await written(a, name, "first")
        plain = SessionIndex.sync

        async def closing(session: SessionIndex) -> Any:
            if session.name == "s2":
                await a.close()
            return await plain(session)

        monkeypatch.setitem(rounds._VERBS, "sync", closing)
        done = await a.sync_sessions(at_once=1)
        assert [each.error is None for each in done] == [True, True] + [False] * 4
        assert [each.tried for each in done] == [True, True, True, False, False, False]
        assert all("closed" in str(each.error) for each in done[2:])

    asyncio.run(story())


def test_a_bug_met_in_one_session_is_told_and_stands_in_the_way_of_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        async with Bucket(str(tmp_path / "store")).client(tmp_path / "one") as a:
            for name in ("x", "y", "z"):
                await written(a, name, "first")
            plain = SessionIndex.sync

            async def wrong(session: SessionIndex) -> Any:
                if session.name == "y":
                    raise ZeroDivisionError("by zero")
                return await plain(session)

            monkeypatch.setitem(rounds._VERBS, "sync", wrong)
            done = await a.sync_sessions()
            assert [str(each.error) for each in done] == [
                "None",
                "ZeroDivisionError: by zero",
                "None",
            ]

    asyncio.run(story())
    assert "session 'y': exchanging failed" in caplog.text


def test_a_name_that_cannot_be_read_keeps_nothing_here_from_the_store(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with bucket.client(tmp_path / "one") as a, bucket.client(tmp_path / "two") as b:
            for number in range(5):
                await written(a, f"a{number}", "first")
                await written(b, f"b{number}", "first")
            told(await a.sync_sessions())
            with monkeypatch.context() as patch:
                patch.setattr(directory, "_read", away)
                done = await b.sync_sessions()
            assert [each.session for each in done if each.error is None] == [
                f"b{number}" for number in range(5)
            ]
            (failed,) = [each for each in done if each.error is not None]
            assert isinstance(failed.error, NetworkError)
            assert len(told(await b.sync_sessions())) == 10

    asyncio.run(story())


def test_another_key_is_refused_before_anything_is_exchanged(
    bucket: Bucket, tmp_path: Path
) -> None:
    async def story() -> None:
        async with bucket.client(tmp_path / "one") as a:
            await written(a, "x", "first")
            told(await a.sync_sessions())
        for device in ("one", "new"):
            wrong = MossClient(
                bucket.project, "other", store=bucket.url, data_dir=tmp_path / device
            )
            async with wrong:
                for names in (None, ["x"]):
                    with pytest.raises(UnauthorizedError):
                        await wrong.sync_sessions(names)

    asyncio.run(story())


def test_a_damaged_head_of_a_log_is_told_once(tmp_path: Path) -> None:
    async def story() -> None:
        async with by_log(tmp_path, "one") as a, by_log(tmp_path, "two") as b:
            for name in ("x", "y"):
                await written(a, name, "first")
            told(await a.sync_sessions())
            told(await b.sync_sessions(["x"]))
            for head in (tmp_path / "store").rglob("m/*"):
                if head.is_file():
                    head.write_bytes(b"nonsense" * 16)
            done = await b.sync_sessions()
            # Of x, which is here, the exchange tells; of y, whose name nobody can read, the head.
            assert len([each for each in done if each.session == "x"]) == 1
            assert len(done) == 2

    asyncio.run(story())
