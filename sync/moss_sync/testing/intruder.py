"""What somebody can write to a store with the keys that they have: of before a rotation, or of now.

Every method returns the keys and contents of the blobs that it writes; whoever calls puts them
into the store, as anybody can who has access to it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from moss_sync import hlc, layout, manifest, plan, segment
from moss_sync.channel import manifest_identity
from moss_sync.errors import MossError
from moss_sync.keyring import Keys
from moss_sync.layout import Layout
from moss_sync.manifest import Inline, Manifest
from moss_sync.record import DEVICE_BYTES, Record, Version, content_digest
from moss_sync.seal import SALT_BYTES, BlobIdentity, RootKeys, seal, unseal
from moss_sync.segment import Segment
from moss_sync.times import DAY_MS

FORGED = "forged by a removed member"
"""What an intruder writes; no honest device ever does."""

BASES = (0, 1, 5, 2**40, 2**63, layout.MAX_BASE)
"""What the name of a planted segment says that its author had applied."""

Blobs = Mapping[str, bytes]
"""What a store holds, by key."""


@dataclass(frozen=True, slots=True)
class Intruder:
    """Somebody with keys, and access to the store of one session.

    Attributes:
        keys: Of the repository; only its id and the key of session ids are used.
        roots: The root keys that they have.
        now_ms: The time.
    """

    layout: Layout
    keys: Keys
    sid: str
    roots: RootKeys
    now_ms: int
    chance: random.Random

    def overwrite(self, held: Blobs, kept: Sequence[Blobs]) -> dict[str, bytes]:
        """Another content in the place of a segment, sealed under its own name."""
        folders = (self.layout.segments(self.sid), self.layout.bases(self.sid))
        found = sorted(key for key in held if key.startswith(folders))
        if not found:
            return {}
        key = self.chance.choice(found)
        stem = layout.parts_of("/".join(key.split("/")[-2:])).stem
        return {key: self._segment(stem)}

    def plant(self, held: Blobs, kept: Sequence[Blobs]) -> dict[str, bytes]:
        """A segment, or the output of a compaction, that waits to be taken along."""
        stem = self._stem(self.chance.choice("ssb"), self.chance.choice(BASES), 1)
        blob = self._segment(stem)
        return {self._key(stem, blob): blob}

    def litter(self, held: Blobs, kept: Sequence[Blobs]) -> dict[str, bytes]:
        """Empty files under names that hold."""
        stems = [self._stem("s", self.chance.randrange(40), n) for n in range(1, 30)]
        return {self._key(stem, b""): b"" for stem in stems}

    def commit(self, held: Blobs, kept: Sequence[Blobs]) -> dict[str, bytes]:
        """A manifest on top of the newest one that these keys open, with a forged push in it."""
        key = self.layout.manifest(self.sid)
        for sealed in reversed([state[key] for state in kept if key in state]):
            current = self.opened(sealed)
            if current is not None:
                payload = forged(self.now_ms, self.chance)
                dev = segment.decode(payload, what="a forged push").dev
                following = self.successor(current, sealed)
                item = Inline(dev, 1, 0, following.seq, following.ct, payload)
                following = replace(following, inline=(*current.inline, item))
                return {key: self.sealed(manifest.encode(following), epoch=following.epoch)}
        return {}

    def opened(self, sealed: bytes) -> Manifest | None:
        """Return what a manifest says to somebody with these keys; None where it does not open."""
        identity = manifest_identity(self.keys, self.sid)
        try:
            plain = unseal(self.roots, identity, sealed, max_plain=manifest.MAX_PLAIN_BYTES)
            return manifest.decode(plain, what="a manifest")
        except MossError:
            return None

    def successor(self, current: Manifest, sealed: bytes) -> Manifest:
        """Return the next commit by a device that the session does not know."""
        author = plan.visitor(
            current,
            dev=self.chance.randbytes(DEVICE_BYTES),
            now_ms=self.now_ms,
            prev=manifest.ciphertext_hash(sealed),
            commit_id=self.chance.randbytes(16),
            epoch=current.epoch,
        )
        return plan.next_commit(current, author, repo_id=current.repo_id, sid=current.sid)

    def sealed(self, plain: bytes, *, epoch: int) -> bytes:
        """Return the plain bytes of a manifest sealed for its place."""
        identity, salt = manifest_identity(self.keys, self.sid), self.chance.randbytes(SALT_BYTES)
        return seal(self.roots, identity, plain, salt=salt, epoch=epoch)

    def _stem(self, kind: str, base: int, number: int) -> str:
        dev = self.chance.randbytes(DEVICE_BYTES)
        return layout.new_stem(kind=kind, base=base, dev=dev, number=number)

    def _segment(self, stem: str) -> bytes:
        identity = BlobIdentity(self.keys.repo_id, self.sid, "segment", stem)
        plain = forged(self.now_ms, self.chance)
        return seal(self.roots, identity, plain, salt=self.chance.randbytes(SALT_BYTES))

    def _key(self, stem: str, blob: bytes) -> str:
        tag_key = self.roots.tag_key(self.roots.newest)
        return self.layout.blob(self.sid, str(layout.named(tag_key, self.sid, stem, blob)))


TRESPASSES: Mapping[str, Callable[[Intruder, Blobs, Sequence[Blobs]], Mapping[str, bytes]]] = {
    "overwrites": Intruder.overwrite,
    "plants": Intruder.plant,
    "litters": Intruder.litter,
    "commits": Intruder.commit,
}
"""What an intruder does, by what the store holds and held before."""


def forged(now_ms: int, chance: random.Random) -> bytes:
    """Return a segment of forged documents, a day above everything that was ever written."""
    dev, stamp = chance.randbytes(DEVICE_BYTES), hlc.from_ms(now_ms + DAY_MS)
    records = []
    for id in (f"doc-{number}" for number in range(4)):
        digest = content_digest(id, deleted=False, text=FORGED)
        records.append(Record(id, Version(stamp, dev, digest), text=FORGED))
    return segment.encode(Segment(dev, 1, 0, None, b"", records))
