"""`moss-local demo`: one conversation, three agents, three devices, and a network that fails.

Everything in it is the real code on real data: processes of their own, files of their own, the
real model, the store that was asked for. What it claims at the end it has checked.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import typer

from moss_local.cli import demo_story as story
from moss_local.cli import render
from moss_local.cli.command import globals_of
from moss_local.cli.demo_cast import Agent, Answer, Route, route
from moss_local.cli.exchange import summary
from moss_sync import InvalidArgumentError, MossError, SyncReport


def demo(
    ctx: typer.Context,
    store: Annotated[
        str | None,
        typer.Option(metavar="URL", help="A store to run it on; a folder of its own if left out."),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Keep what the agents wrote in this new directory."),
    ] = None,
) -> None:
    """Play one conversation among three agents on three devices.

    All of it is real. A voice agent writes turns; a chat agent resumes on another device, loses
    the network, works on; both write, also to the same document; they meet again; an e-mail agent
    opens it cold. Each agent is a process with a data directory of its own. What the demo stored
    is removed at the end, unless --keep. Ends with an error if a turn was lost.
    """
    started = perf_counter()
    with _scene(store or globals_of(ctx).store, keep) as scene:
        _tell(scene)
    render.say("", f"{perf_counter() - started:.1f} s in all, starting of five processes included.")
    if keep is not None:
        _explain(scene)


@dataclass(frozen=True, slots=True)
class Scene:
    """Where the demo takes place.

    Attributes:
        folder: The store's folder; None for a bucket.
    """

    root: Path
    url: str
    folder: Path | None
    project: str
    key: str

    def start(self, name: str, url: str, *, device: str) -> Agent:
        """Start an agent on a device that reaches the store by `url`."""
        return Agent(
            name,
            hello={
                "project": self.project,
                "key": self.key,
                "store": url,
                "data_dir": str(self.root / device),
                "session": story.SESSION,
            },
        )

    def route(self, device: str) -> Route:
        return route(self.url, self.folder, self.root / device)


def _tell(scene: Scene) -> None:
    with ExitStack() as cast:
        _act("1  A voice agent takes a call")
        voice = cast.enter_context(
            scene.start("voice agent", scene.route("voice").url, device="voice")
        )
        _opened(voice)
        _each(voice, story.CALL)
        _exchanged("pushes, the first ever, so it tries the store out", voice.do("push"))

        _act("2  The customer goes over to chat: another agent, another device")
        way = scene.route("chat")
        with scene.start("chat agent", way.url, device="chat") as chat:
            _opened(chat)
            _resumed(chat, len(story.CALL))
            _asks(chat, story.QUESTION)
            _each(chat, story.CHAT)
            _exchanged("pushes", chat.do("push"))

        _act("3  The chat agent's device loses the network, and both go on working")
        nowhere = way.cut()
        with scene.start("chat agent", nowhere, device="chat") as chat:
            _opened(chat)
            _asks(chat, story.OFFLINE_QUESTION)
            _each(chat, story.CHAT_OFFLINE)
            _refused(chat)
        _exchanged("meanwhile, the voice agent pulls", voice.do("pull"))
        _each(voice, story.VOICE_MEANWHILE)
        _exchanged("the voice agent pushes", voice.do("push"))

        _act("4  The network is back")
        way.mend(scene.folder)
        chat = cast.enter_context(scene.start("chat agent", way.url, device="chat"))
        _opened(chat)
        _exchanged("the chat agent pushes", chat.do("push"))
        _exchanged("the voice agent pulls", voice.do("pull"))
        _about_the_same(chat)

        _act("5  The customer follows up by e-mail: a third agent opens the thread cold")
        email = cast.enter_context(
            scene.start("e-mail agent", scene.route("email").url, device="email")
        )
        _opened(email)
        _asks(email, story.EMAIL_QUESTION)
        _each(email, story.EMAIL)
        _exchanged("pushes", email.do("push"))
        for agent in (voice, chat):
            _exchanged(f"the {agent.name} pulls", agent.do("pull"))

        _act("The thread, as all three devices have it")
        _check([voice, chat, email])


# -- what is told --------------------------------------------------------------------------


def _act(title: str) -> None:
    render.say()
    typer.secho(title, bold=True)


def _fact(text: str) -> None:
    render.say(f"   {text}")


def _opened(agent: Agent) -> None:
    opened = agent.open
    what = f"opens {story.SESSION!r} on device {opened['device'][: render.SHORT_DEVICE]}"
    if opened["state"] == "offline":
        _fact(f"{what} without the store ({opened['ms']:.0f} ms): {opened['reason']}")
        _fact(f"{opened['documents']} turns are here all the same")
    else:
        _fact(f"{what}: {opened['documents']} turns, {_cost(opened)}")


def _resumed(agent: Agent, turns: int) -> None:
    """Claim, and check, that resuming embedded nothing."""
    _must(agent.open["documents"] == turns, f"the {agent.name} resumes with {turns} turns")
    _must(not agent.open["model_loaded"], f"the {agent.name} resumes without a model")
    _fact(f"{turns} turns with their vectors; 0 texts embedded: no model is even loaded yet")


def _each(agent: Agent, turns: list[story.Turn]) -> None:
    answers = [agent.do("add", turns=[turn]) for turn in turns]
    times = sorted(answer["ms"] for answer in answers)
    last = answers[-1]
    changed = sum(answer["updated"] for answer in answers)
    also = f" and rewrites {render.plural(changed, 'document')}" if changed else ""
    _fact(
        f"the {agent.name} writes {render.plural(len(turns) - changed, 'turn')}{also}: embedded,"
        f" on disk and searchable in {times[len(times) // 2]:.1f} ms each (median; slowest"
        f" {times[-1]:.0f} ms); {last['pending']} pending"
    )


def _asks(agent: Agent, question: str) -> None:
    first = agent.do("query", text=question, top_k=2)
    again = agent.do("query", text=question, top_k=2)
    _fact(
        f"asks {question!r}: {again['ms']:.1f} ms"
        f" (the first time {first['ms']:.0f} ms: it loads the model)"
    )
    for id, score, text in again["hits"]:
        _fact(f"   {score:.3f}  {id}  {text}")


def _exchanged(what: str, answer: Answer) -> None:
    if "error" in answer:
        raise MossError(f"the store could not be reached: {answer['message']}")
    _fact(f"{what}: {summary(SyncReport(**answer['report']))}")


def _refused(agent: Agent) -> None:
    answer = agent.do("push")
    _must(answer.get("error") == "NETWORK", "a push without a network is refused as such")
    pending = agent.do("thread")["pending"]
    _must(pending == len(story.CHAT_OFFLINE), "what was written offline is pending")
    _fact(f"tries to push ({answer['ms']:.0f} ms): {answer['error']}, {answer['message']}")
    _fact(f"{pending} pending on disk; the next push carries them, in whatever process")


def _about_the_same(agent: Agent) -> None:
    """Say what became of the two versions of one document."""
    report: dict[str, Any] = agent.open["report"]
    _must(report["superseded"] == 1, "the chat agent is told that its version was superseded")
    theirs, ours = story.CHAT_OFFLINE[-1], story.VOICE_MEANWHILE[-1]
    _fact(f"both had rewritten {ours[0]!r}; of one id the last writer wins, on every device:")
    _fact(f"   stays   {ours[1]}: {ours[2]}")
    _fact(f"   goes    {theirs[1]}: {theirs[2]}")
    _fact("the chat agent was told so (1 superseded); turns with ids of their own never collide")


def _cost(answer: Answer) -> str:
    return summary(SyncReport(**answer["report"]))


# -- what is checked -----------------------------------------------------------------------


def _check(agents: list[Agent]) -> None:
    """Show the thread and hold it to the story.

    Raises:
        MossError: devices disagree, or a turn is lost.
    """
    threads = {agent.name: agent.do("thread") for agent in agents}
    turns: list[list[Any]] = threads[agents[0].name]["turns"]
    for name, thread in threads.items():
        _must(thread["turns"] == turns, f"the {name} has the same thread as the others")
        _must(thread["pending"] == 0, f"the {name} has nothing pending")
    expected = {turn[0]: turn for turn in story.CALL + story.CHAT + story.CHAT_OFFLINE}
    expected |= {turn[0]: turn for turn in story.VOICE_MEANWHILE + story.EMAIL}
    found = {id: (id, speaker, text) for id, speaker, text, _, _ in turns}
    lost = sorted(expected.keys() - found.keys())
    _must(not lost, f"no turn is lost (missing: {', '.join(lost)})")
    _must(found == expected, "every turn reads as it was written")
    render.table(
        [
            (f"   {device[: render.SHORT_DEVICE]}", id, f"{speaker}: {text}")
            for id, speaker, text, device, _ in turns
        ],
        texts=True,
    )
    _fact("")
    _fact(
        f"checked: {len(turns)} documents, the same on 3 devices, word for word; no turn is lost,"
        f" nothing is pending; of {story.CALL[-1][0]!r}, which two wrote at once, the later stands"
    )


def _must(holds: bool, claim: str) -> None:
    if not holds:
        raise MossError(f"the demo's check failed: {claim}")


# -- where it happens ----------------------------------------------------------------------


@contextmanager
def _scene(store: str | None, keep: str | None) -> Iterator[Scene]:
    """Make the place of the demo, and clean up what is not to be kept."""
    from moss_local.settings import new_key
    from moss_sync.clock import SystemClock
    from moss_sync.layout import base32
    from moss_sync.stores import FolderStore, open_store

    root = _new_directory(keep)
    url = str(root / "store") if store is None else store
    opened = open_store(url)
    if url.lower().startswith("memory:"):
        raise InvalidArgumentError(
            "a memory:// store is within one process; the demo's agents are five",
            hint="give a folder, or s3://BUCKET/PREFIX",
        )
    folder = opened.root if isinstance(opened, FolderStore) else None
    # A project of its own: nothing in the store is touched that is not the demo's.
    scene = Scene(root, url, folder, f"demo-{base32(SystemClock().token(5))}", new_key())
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    render.say(f"store: {opened.url}")
    try:
        yield scene
    finally:
        if keep is None:
            if store is not None:
                asyncio.run(_remove_blobs(scene))
            shutil.rmtree(root)


def _new_directory(keep: str | None) -> Path:
    if keep is None:
        return Path(tempfile.mkdtemp(prefix="moss-demo-"))
    root = Path(keep).expanduser().absolute()
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InvalidArgumentError(
            f"{root} exists and is not an empty directory", hint="name a new one after --keep"
        )
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    return root


async def _remove_blobs(scene: Scene) -> None:
    """Delete the demo's own blobs from a store that goes on."""
    from moss_sync.layout import Layout
    from moss_sync.stores import open_store

    store = open_store(scene.url)
    try:
        prefix = Layout.of(scene.project).prefix
        while page := await store.keys(prefix):
            for listed in page:
                await store.delete(listed.key)
    finally:
        await store.close()


def _explain(scene: Scene) -> None:
    """Say how to look at what was kept; the key lies beside it, for it is worth nothing else."""
    key = scene.root / "key"
    key.touch(mode=0o600)
    key.write_text(scene.key)
    render.say(
        f"Kept in {scene.root}. The thread as the chat agent has it:",
        f"  MOSS_PROJECT_KEY=$(cat {key}) moss-local --project {scene.project}"
        f" --data-dir {scene.root / 'chat'} --store '{scene.url}' show {story.SESSION}",
    )
