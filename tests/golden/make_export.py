"""Wrote export-1.moss: `python -m tests.golden.make_export`. Never again for version 1."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from moss_local.portable import VERSION, Header, write
from moss_local.storage.documents import Document
from moss_sync import VectorSpace

DOCUMENTS = [
    Document(
        "turn-1",
        "Customer: charged twice, 49.99 €.",
        {"who": "Customer"},
        None,
        np.array([1.0, 0.5], np.float32),
    ),
    Document(
        "turn-2",
        "返金は三日以内に届きます。",
        None,
        '{"n":1}',
        np.array([-0.25, 4.0], np.float32),
    ),
    Document("turn-3", "", {}, ""),
]


def main() -> None:
    space = VectorSpace("custom", "space-of-two", 2, "f2")
    path = Path(__file__).with_name(f"export-{VERSION}.moss")
    with path.open("xb") as out:
        write(out, Header("conv-123", 3, 2, space), DOCUMENTS)


if __name__ == "__main__":
    main()
