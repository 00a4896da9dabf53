"""docs/migration.md is followed from the first block to the last, and prints what it says.

The hosted SDK is not here to export from: its place takes another project of this library, in a
store of its own, under the names of the hosted SDK (`moss_local.compat`).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.test_docs import BIN, ROOT, blocks, commands, says

PAGE = list(blocks((ROOT / "docs" / "migration.md").read_text("utf-8")))

THERE = """
import asyncio
from moss import DocumentInfo, MossClient

FAQ = [
    DocumentInfo(
        "1", "Refunds are paid within five days.", {"source": "policy"}, payload='{"page": 7}'
    ),
    DocumentInfo("2", "The shop is open from nine to five."),
    DocumentInfo("3", "Call us about lost parcels.", {"source": "card"}),
]
PRODUCTS = [
    DocumentInfo("shirt", "A linen shirt", None, [0.9, 0.1, 0.2]),
    DocumentInfo("teapot", "A teapot", None, [0.1, 0.8, 0.5]),
]
client = MossClient(None, None)
asyncio.run(client.create_index("faq", FAQ))
asyncio.run(client.create_index("products", PRODUCTS))
"""


def test_the_way_over_is_as_the_page_says(tmp_path: Path) -> None:
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    ours = {**os.environ, "PATH": path}
    hosted = {
        **ours,
        "MOSS_PROJECT_ID": "hosted",
        "MOSS_PROJECT_KEY": "the key of the account",
        "MOSS_STORE": str(tmp_path / "hosted"),
        "MOSS_DATA_DIR": str(tmp_path / "hosted data"),
    }

    def run(command: list[str], environment: dict[str, str]) -> str:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    (tmp_path / "there.py").write_text(THERE, "utf-8")
    run([sys.executable, "-m", "moss_local.compat", "there.py"], hosted)
    printed: str | None = None
    for block in PAGE:
        if block.language == "python":
            named = re.match(r"# (\w+\.py)\n", block.text)
            if named is None:
                (tmp_path / "block.py").write_text(block.text, "utf-8")
                printed = run([sys.executable, "block.py"], ours)
            else:
                (tmp_path / named[1]).write_text(block.text, "utf-8")
        elif block.language == "text":
            assert printed is not None, f"output of nothing at line {block.line}"
            assert says(block.text, printed), f"line {block.line}: {printed}"
            printed = None
        else:
            assert block.language == "console"
            for command, expected in commands(block):
                if command == "python export.py":
                    said = run([sys.executable, "-m", "moss_local.compat", "export.py"], hosted)
                else:
                    said = run(["sh", "-c", command], ours)
                assert says(expected, said), f"line {block.line}: {command}: {said}"
    assert printed is None
