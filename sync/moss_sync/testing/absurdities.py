"""What a member may put into a manifest that no honest device would: one change each.

A member holds the key, so whatever it writes is authentic. These change the fields of the next
manifest before it is sealed; what the format's own encoder would refuse is possible here.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from moss_sync import hlc, manifest
from moss_sync.limits import MAX_TEXT_BYTES
from moss_sync.packing import pack
from moss_sync.record import DEVICE_BYTES
from moss_sync.testing.clock import EPOCH_MS
from moss_sync.testing.schedule import YEAR_MS
from moss_sync.times import MAX_TIME_MS

Change = Callable[[dict[str, Any], random.Random], None]
"""Changes the fields of a manifest."""


def _time(fields: dict[str, Any], chance: random.Random) -> None:
    fields["ct"] = chance.choice(
        (fields["ct"] + 80 * YEAR_MS, MAX_TIME_MS - 1, MAX_TIME_MS + 10**6, 2**62, 2**63 - 1)
    )


def _number(fields: dict[str, Any], chance: random.Random) -> None:
    name = chance.choice(("seq", "gen", "repairs", "gc_floor", "retired", "epoch"))
    fields[name] = chance.choice((2**32, 2**40, 2**63 - 1))


def _keys(fields: dict[str, Any], chance: random.Random) -> None:
    fields[f"later {chance.randrange(9)}"] = chance.randbytes(chance.choice((10, 20_000, 300_000)))


def _feature(fields: dict[str, Any], chance: random.Random) -> None:
    fields[chance.choice(("feat_r", "feat_w"))] = ["invented"]


def _record(fields: dict[str, Any], chance: random.Random) -> None:
    """An inline push of a document that is over the limits, or whose stamp is."""
    dev = chance.randbytes(DEVICE_BYTES)
    text = chance.choice(("x" * (MAX_TEXT_BYTES + 1), "without an id"))
    id = f"doc-{chance.randrange(4)}" if len(text) > MAX_TEXT_BYTES else ""
    stamp = chance.choice((1, 2**62, hlc.from_ms(EPOCH_MS)))
    payload = pack(
        {
            "v": 1,
            "dev": dev,
            "n": 1,
            "base": 0,
            "space": None,
            "prev_tip": b"",
            "devs": [dev],
            "id": [id],
            "hlc": [stamp],
            "dev_ix": [0],
            "flags": [0],
            "commit_seq": [None],
            "text": [text],
            "meta": [None],
            "payload": [None],
            "emb": b"",
        }
    )
    fields["inl"].append(
        {
            "dev": dev,
            "n": 1,
            "base": 0,
            "seq": fields["seq"],
            "ct": fields["ct"],
            "payload": payload,
        }
    )
    fields["devs"][dev] = {
        "n": 1,
        "acked_seq": 0,
        "last_ct": fields["ct"],
        "inc": bytes(DEVICE_BYTES),
        "tip": manifest.tip_of(payload),
        "label": None,
        "seq": fields["seq"],
    }


ABSURDITIES: Mapping[str, Change] = {
    "time": _time,
    "number": _number,
    "keys": _keys,
    "feature": _feature,
    "record": _record,
}
