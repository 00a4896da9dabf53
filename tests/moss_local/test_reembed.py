"""A session is moved to another model: nobody loses a text, and vectors are never mixed."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import numpy as np
import pytest

from moss_local import (
    DocumentInfo,
    InvalidArgumentError,
    ModelMismatchError,
    ModelNotFoundError,
    MossClient,
    NetworkError,
    NotInLogModeError,
    QueryOptions,
    SessionIndex,
    querying,
)
from moss_local.embedding.models import resolve_model
from moss_local.embedding.onnx_embedder import OnnxEmbedder
from moss_local.storage.checkup import check_file
from moss_local.storage.state import read_state
from moss_sync import VectorSpace, Version
from tests.devices import Device
from tests.moss_local.bucket import Bucket
from tests.moss_local.cli_harness import Cli
from tests.moss_sync.world import World
from tests.tiny_model import write_tiny_model

TEXTS = {"a": "cat sat mat", "b": "refund money", "c": "kitten mat"}


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three models: "tiny" and "twin" of 8 dimensions, "small" of 4."""
    directory = tmp_path / "models"
    write_tiny_model(directory / "tiny")
    write_tiny_model(directory / "twin", id="twin", marks=False, max_tokens=15)
    write_tiny_model(directory / "small", id="small", dim=4, graph_dim=4)
    monkeypatch.setenv("MOSS_MODELS_DIR", str(directory))
    return directory


@pytest.fixture
def store(tmp_path: Path) -> Bucket:
    return Bucket(str(tmp_path / "store"))


async def opened(client: MossClient, model: str | None = None) -> SessionIndex:
    return await client.session("conv", model, warm_up=False)


async def add(session: SessionIndex, **texts: str) -> None:
    await session.add_docs([DocumentInfo(id, text) for id, text in texts.items()])


async def found(session: SessionIndex, query: str, alpha: float = 1.0) -> list[str]:
    result = await session.query(query, QueryOptions(top_k=9, alpha=alpha))
    return [doc.id for doc in result.docs]


async def filled(session: SessionIndex) -> None:
    """Wait for what is made in the background."""
    await session.reembed()
    assert session.unembedded == 0


def versions(session: SessionIndex) -> dict[str, Version]:
    with session._file.reading() as conn:
        rows = conn.execute("SELECT id, hlc, dev, digest FROM document WHERE deleted = 0")
        return {row[0]: Version(*row[1:]) for row in rows}  # type: ignore[misc]  # as in the table


def check_vectors(session: SessionIndex) -> None:
    """Every vector here is what the session's own model makes of the text."""
    with session._file.writing() as conn:
        space = read_state(conn).space
        assert space is not None
        assert check_file(conn) == []
        rows = conn.execute(
            "SELECT text, embedding FROM vec JOIN document ON document.rowid = vec.rowid"
        ).fetchall()
    embedder = session._local.model.embedder(space)
    for text, embedding in rows:
        made = embedder.embed([text])[0]
        assert np.allclose(np.frombuffer(embedding, "<f4"), made, atol=2e-3)  # type: ignore[arg-type]


@pytest.mark.parametrize("model", ["twin", "small"])
def test_a_session_is_moved_and_the_other_devices_follow_by_themselves(
    bucket: Bucket, tmp_path: Path, models: Path, model: str
) -> None:
    async def story() -> None:
        async with bucket.client(tmp_path / "one") as a, bucket.client(tmp_path / "two") as b:
            one = await opened(a, "tiny")
            await add(one, **TEXTS)
            await one.push_index()
            two = await opened(b)
            await add(two, d="cat of two, not pushed")
            before = versions(one)
            told: list[tuple[int, int]] = []

            done = await one.reembed(model, progress=lambda *step: told.append(step))
            assert (done.model_id, done.made, done.moved_from) == (model, 3, "tiny")
            assert told[-1] == (3, 3)
            assert one.model_id == model
            assert versions(one) == before
            check_vectors(one)
            assert (await found(one, "refund money"))[0] == "b"

            assert two.model_id == "tiny"
            report = await two.sync()
            assert two.model_id == model
            assert (report.received, report.superseded) == (0, 0)
            await filled(two)
            check_vectors(two)
            assert (await found(two, "refund money"))[0] == "b"
            await one.pull()
            await filled(one)
            check_vectors(one)
            assert versions(one) == versions(two)
            assert len(versions(one)) == 4

            async with bucket.client(tmp_path / "fresh") as c:
                (models / model).rename(tmp_path / "elsewhere")
                fresh = await opened(c)
                assert fresh.model_id == model
                # All but the one that two had not pushed before are in the store.
                assert fresh.unembedded == 1
                (tmp_path / "elsewhere").rename(models / model)
                await filled(fresh)
                check_vectors(fresh)
                assert len(versions(fresh)) == 4

    asyncio.run(story())


def test_what_somebody_pushes_who_has_not_heard_of_the_move_is_taken_without_its_vector(
    store: Bucket, tmp_path: Path, models: Path
) -> None:
    async def story() -> None:
        async with store.client(tmp_path / "one") as a, store.client(tmp_path / "two") as b:
            one = await opened(a, "tiny")
            await add(one, **TEXTS)
            await one.push_index()
            two = await opened(b)
            await one.reembed("twin")
            await add(two, late="kitten refund", **{f"big{i}": f"cat {i}" * 400 for i in range(9)})
            await two.push_index()
            await one.pull()
            await filled(one)
            check_vectors(one)
            assert len(versions(one)) == 13
            await two.pull()
            await filled(two)
            check_vectors(two)
            assert versions(one) == versions(two)

    asyncio.run(story())


def test_a_device_without_the_model_goes_on_and_says_which_is_missing(
    store: Bucket, tmp_path: Path, models: Path
) -> None:
    async def story() -> None:
        async with store.client(tmp_path / "one") as a, store.client(tmp_path / "two") as b:
            one = await opened(a, "tiny")
            await add(one, **TEXTS)
            await one.push_index()
            two = await opened(b)
            await one.reembed("small")
            await add(one, new="refund of the kitten")
            await one.push_index()
            (models / "small").rename(tmp_path / "elsewhere")

            report = await two.sync()
            assert report.received == 1
            assert set(await found(two, "refund", alpha=0.0)) == {"b", "new"}
            with pytest.raises(ModelNotFoundError, match="'small'"):
                await two.query("refund")
            with pytest.raises(ModelNotFoundError, match="'small'"):
                await two.reembed()
            assert two.unembedded == 4 - 1  # the new one came with its vector
            await two.delete_docs(["a"])
            await two.push_index()

            (tmp_path / "elsewhere").rename(models / "small")
            await filled(two)
            check_vectors(two)
            assert (await found(two, "refund money"))[0] == "b"

    asyncio.run(story())


def test_being_cut_off_between_two_documents_costs_only_what_was_under_way(
    store: Bucket, tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moss_local.fill_in.PIECE", 2)
    real, calls = OnnxEmbedder.embed, [0]

    def cut(self: OnnxEmbedder, texts: list[str], **options: object) -> object:
        calls[0] += 1
        if calls[0] == 4:  # the check of the model, two pieces, and then the power goes
            raise ModelNotFoundError("gone")
        return real(self, texts, **options)  # type: ignore[arg-type]  # as they came

    async def story() -> None:
        async with store.client(tmp_path / "one") as a:
            one = await opened(a, "tiny")
            await add(one, **{f"d{i}": f"cat {i}" for i in range(9)})
            await one.push_index()
            with monkeypatch.context() as patched:
                patched.setattr(OnnxEmbedder, "embed", cut)
                with pytest.raises(ModelNotFoundError, match="gone"):
                    await one.reembed("small")
            assert (one.model_id, one.unembedded) == ("small", 5)
            assert len(await found(one, "cat", alpha=0.0)) == 9
        async with store.client(tmp_path / "one") as a:
            again = await opened(a)
            assert (await again.reembed("small")).moved_from is None
            assert again.unembedded == 0
            check_vectors(again)

    asyncio.run(story())


def test_the_background_goes_on_when_the_session_is_opened_next(
    store: Bucket, tmp_path: Path, models: Path
) -> None:
    async def story() -> None:
        async with store.client(tmp_path / "one") as a, store.client(tmp_path / "two") as b:
            one = await opened(a, "tiny")
            await add(one, **TEXTS)
            await one.push_index()
            await (await opened(b)).close()
            await one.reembed("twin")
            two = await opened(b)  # pulls the move
            running = two._fill_in._running
            assert running is not None
            await asyncio.wrap_future(running)
            assert two.unembedded == 0
            check_vectors(two)
            # What is only filled in is nobody's change.
            feed = two.changes()
            await add(one, e="mat")
            await one.push_index()
            await two.pull()
            assert (await anext(feed)).updated == ("e",)

    asyncio.run(story())


def test_two_devices_that_move_it_at_once_end_with_one_model(
    store: Bucket, tmp_path: Path, models: Path
) -> None:
    async def story() -> None:
        async with store.client(tmp_path / "one") as a, store.client(tmp_path / "two") as b:
            one = await opened(a, "tiny")
            await add(one, **TEXTS)
            await one.push_index()
            two = await opened(b)
            await asyncio.gather(one.reembed("twin"), two.reembed("small"))
            for session in (one, two):
                await session.sync()
            assert one.model_id == two.model_id
            for session in (one, two):
                await filled(session)
                check_vectors(session)
            assert versions(one) == versions(two)

    asyncio.run(story())


def test_documents_added_while_the_session_is_moved_get_vectors_of_where_it_is(
    store: Bucket, tmp_path: Path, models: Path
) -> None:
    async def story() -> None:
        async with store.client(tmp_path / "one") as a:
            one = await opened(a, "tiny")
            await add(one, **TEXTS)
            await one.push_index()
            other = await a.session("conv", warm_up=False)
            plain = one._writer._put

            def moved_meanwhile(*arguments: object) -> object:
                one._writer._put = plain  # type: ignore[method-assign]  # for one call
                asyncio.run(other.reembed("small"))
                return plain(*arguments)  # type: ignore[arg-type]  # as they came

            one._writer._put = moved_meanwhile  # type: ignore[assignment]  # for one call
            await one.add_docs([DocumentInfo("late", "kitten")])
            assert one.model_id == "small"
            check_vectors(one)
            assert one.unembedded == 0

    asyncio.run(story())


def test_a_query_that_was_embedded_before_the_move_is_not_compared_with_what_came_after(
    store: Bucket, tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with store.client(tmp_path / "one") as a:
            one = await opened(a, "tiny")
            await add(one, **TEXTS)
            await one.push_index()
            await found(one, "refund")
            other = await a.session("conv", warm_up=False)
            spaces: list[VectorSpace | None] = []
            plain = querying._search_one

            def moved_meanwhile(*arguments: object) -> object:
                spaces.append(arguments[4])  # type: ignore[arg-type]  # the space
                if len(spaces) == 1:
                    asyncio.run(other.reembed("twin"))
                return plain(*arguments)  # type: ignore[arg-type]  # as they came

            monkeypatch.setattr(querying, "_search_one", moved_meanwhile)
            assert (await found(one, "refund money"))[0] == "b"
            assert [space and space.id for space in spaces] == ["tiny", "twin"]

    asyncio.run(story())


def test_a_session_with_vectors_of_its_own_can_be_moved_to_a_model(
    store: Bucket, tmp_path: Path, models: Path
) -> None:
    async def story() -> None:
        async with store.client(tmp_path / "one") as a, store.client(tmp_path / "two") as b:
            one = await opened(a, "custom")
            await one.add_docs(
                [DocumentInfo(id, text, embedding=[1.0, 2.0]) for id, text in TEXTS.items()]
            )
            await one.push_index()
            two = await opened(b)
            before = versions(one)
            await one.reembed("small")
            await two.sync()
            await filled(two)
            # Their vectors are part of these versions, and they stay the same ones.
            assert versions(one) == versions(two) == before
            async with store.client(tmp_path / "fresh") as c:
                fresh = await opened(c)
                assert versions(fresh) == before
                for session in (one, two, fresh):
                    check_vectors(session)
                # Also when all of it is written once more.
                await fresh.repair(force=True)
                await one.sync()
                await two.sync()
                assert versions(one) == versions(two) == versions(fresh) == before

    asyncio.run(story())


def test_where_it_cannot_be_moved_nothing_is(store: Bucket, tmp_path: Path, models: Path) -> None:
    async def story() -> None:
        async with store.client(tmp_path / "one") as a:
            one = await opened(a, "tiny")
            await add(one, **TEXTS)
            await one.push_index()
            with pytest.raises(InvalidArgumentError, match="'custom'"):
                await one.reembed("custom")
            with pytest.raises(ModelNotFoundError, match="'unknown'"):
                await one.reembed("unknown")
            (tmp_path / "store").rename(tmp_path / "away")
            with pytest.raises(NetworkError):
                await one.reembed("twin")
            (tmp_path / "away").rename(tmp_path / "store")
            await one.sync()
            assert (one.model_id, one.unembedded) == ("tiny", 0)
            check_vectors(one)
            assert (await one.reembed("tiny")).moved_from is None
        async with MossClient(
            "log", "k", store=tmp_path / "log", data_dir=tmp_path / "l", commit="log"
        ) as client:
            session = await opened(client, "tiny")
            await add(session, **TEXTS)
            await session.push_index()
            with pytest.raises(NotInLogModeError):
                await session.reembed("twin")
            assert session.model_id == "tiny"

    asyncio.run(story())


def test_opening_it_by_the_model_that_it_has_left_is_refused_with_the_way_back(
    store: Bucket, tmp_path: Path, models: Path
) -> None:
    async def story() -> None:
        async with store.client(tmp_path / "one") as a:
            one = await opened(a, "tiny")
            await add(one, **TEXTS)
            await one.push_index()
            await one.reembed("twin")
            await one.close()
            with pytest.raises(ModelMismatchError) as caught:
                await opened(a, "tiny")
            assert "moss-local reembed conv --model tiny" in (caught.value.hint or "")
            back = await opened(a)
            await back.reembed("tiny")
            check_vectors(back)
            assert (await opened(a, "tiny")).model_id == "tiny"

    asyncio.run(story())


def test_the_command_moves_a_session_and_makes_what_is_lacking(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cli = Cli()
    cli("init", "--project", "acme", "--store", "./shared").ok()
    cli("add", "conv", "refund money", "--id", "t1").ok()
    cli("push", "conv").ok()
    done = cli("reembed", "conv", "--model", "tiny").ok()
    assert done.stdout == "conv: moved from moss-minilm to tiny, 1 vector made\n"
    again = cli("reembed", "conv", "--json").ok().json()
    assert again == {"session": "conv", "model": "tiny", "moved_from": None, "made": 0}
    [listed] = cli("status", "--json").ok().json()["sessions"]
    assert listed["model"] == "tiny"
    assert cli("reembed", "conv", "--model", "unknown").code == 9
    assert cli("reembed", "unknown", "--model", "tiny").code == 3


# -- the engine, on schedules ------------------------------------------------------------------

SPACES = [VectorSpace(f"model-{n}", f"space-{n}", 2 + n % 2, "f2") for n in range(3)]


class Embedding:
    """A device that makes vectors which say of which space they are."""

    def __init__(self, device: Device) -> None:
        self.device = device

    def space(self) -> VectorSpace:
        return self.device.replica.state().space or SPACES[0]

    def put(self, id: str, text: str) -> None:
        self.device.space = self.space()
        self.device.put(id, text, vector_of(self.device.space))

    def fill(self) -> None:
        from moss_local.storage.encoding import to_bytes
        from moss_local.storage.vectors import fill_in, read_unembedded

        space = self.space()
        with self.device.file.writing() as conn:
            piece = read_unembedded(conn, limit=3)
            if not piece:
                return
            vectors = to_bytes(space, np.array([vector_of(space)] * len(piece), np.float32))
            fill_in(
                conn, space, [(d.rowid, d.digest, v) for d, v in zip(piece, vectors, strict=True)]
            )

    def check(self) -> None:
        space = self.space()
        with self.device.file.writing() as conn:
            assert check_file(conn) == []
            if read_state(conn).space is None:
                return
            for (embedding,) in conn.execute("SELECT embedding FROM vec"):
                stored = np.frombuffer(embedding, "<f4")  # type: ignore[arg-type]  # bytes
                assert np.allclose(stored, vector_of(space), atol=1e-2), space.id


def vector_of(space: VectorSpace) -> list[float]:
    """A unit vector that no other space here has."""
    angle = 0.3 + SPACES.index(space)
    return [float(np.cos(angle)), float(np.sin(angle)), *[0.0] * (space.dim - 2)]


@pytest.mark.parametrize("seed", range(40))
def test_on_any_schedule_devices_agree_and_hold_vectors_of_one_space(
    tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    world = World(tmp_path)

    async def story() -> None:
        devices = [Embedding(world.device()) for _ in range(3)]
        devices[0].put("d0", "first")
        await devices[0].device.engine.push()
        for other in devices[1:]:
            await other.device.engine.pull()
        for number in range(60):
            each = chance.choice(devices)
            engine = each.device.engine
            match chance.randrange(9):
                case 0 | 1:
                    each.put(f"d{chance.randrange(6)}", f"text {number} {'x' * 5000}")
                case 2:
                    each.device.delete(f"d{chance.randrange(6)}")
                case 3 | 4:
                    await engine.push()
                case 5:
                    await engine.pull()
                case 6:
                    each.fill()
                case 7:
                    await engine.compact()
                case 8 if chance.random() < 0.5:
                    await engine.reembed(chance.choice(SPACES))
                case _:
                    await engine.publish_vectors()
            each.check()
        for _ in range(2):
            for each in devices:
                await each.device.engine.sync()
        fresh = Embedding(world.device())
        await fresh.device.engine.pull()
        devices.append(fresh)
        for each in devices:
            each.check()
            while each.device.replica.state().space is not None and _lacking(each.device):
                each.fill()
            each.check()
        states = [_all(each.device) for each in devices]
        assert all(state == states[0] for state in states)
        assert len({each.device.replica.state().space for each in devices}) == 1

    asyncio.run(story())
    for device in world.devices:
        device.close()


def _lacking(device: Device) -> int:
    from moss_local.storage.vectors import count_unembedded

    with device.file.reading() as conn:
        return count_unembedded(conn)


def _all(device: Device) -> list[tuple[object, ...]]:
    with device.file.reading() as conn:
        return list(
            conn.execute(
                "SELECT id, hlc, dev, digest, text, vector FROM document WHERE deleted = 0"
                " ORDER BY id"
            )
        )


def test_the_models_of_these_tests_are_three_spaces(models: Path) -> None:
    assert len({resolve_model(name).space for name in ("small", "tiny", "twin")}) == 3
