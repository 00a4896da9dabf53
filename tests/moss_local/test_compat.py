"""Programs written for the hosted SDK, as they are, on this library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import moss_local
from moss_local.compat.names import MODULES, MOSS


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments, "-c", program] if program else [sys.executable, *arguments],
        capture_output=True,
        text=True,
    )


def test_every_name_of_the_hosted_sdk_is_one_of_ours() -> None:
    assert set(moss_local.__all__) >= MOSS
    for name in MOSS:
        assert getattr(moss_local, name) is not None


def test_its_modules_are_ours_and_import_nothing_heavy() -> None:
    done = run(
        "import sys\n"
        "from moss_local import compat\n"
        "compat.install(); compat.install()\n"
        "import moss, moss.client.moss_client, moss.client.session_index, moss_core\n"
        "import inferedge_moss, moss.inference, moss_local\n"
        "assert moss.MossClient is moss_local.MossClient is inferedge_moss.MossClient\n"
        "assert moss_core.DocumentInfo is moss_local.DocumentInfo\n"
        "assert moss.__version__ == moss_local.__version__\n"
        "assert moss.inference.MossInference is moss.MossInference\n"
        "assert moss.client.moss_client.MossClient is moss.MossClient\n"
        "assert not hasattr(moss, 'nothing_of_the_kind')\n"
        "assert not {'httpx', 'numpy', 'apsw', 'onnxruntime'} & set(sys.modules)\n"
        "from moss.client.session_index import SessionIndex\n"
        "from moss import *\n"
        "assert SessionIndex is moss_local.SessionIndex and JobStatus.COMPLETED == 'completed'\n"
        "print(len(moss.__all__))\n"
    )
    assert done.stdout == f"{len(MOSS)}\n", done.stderr


def test_what_was_imported_before_is_not_taken_away() -> None:
    done = run(
        "import sys, types\n"
        "sys.modules['moss'] = types.ModuleType('moss')\n"
        "from moss_local import compat, MossError\n"
        "try: compat.install()\n"
        "except MossError as error: print(error, compat.installed())\n"
    )
    assert done.stdout == "moss was imported before moss_local.compat.install() False\n"


def test_it_can_be_undone() -> None:
    done = run(
        "from moss_local import compat\n"
        "compat.install()\n"
        "import moss\n"
        "compat.uninstall(); compat.uninstall()\n"
        "import importlib.util\n"
        "print(importlib.util.find_spec('moss'), compat.installed())\n"
    )
    assert done.stdout == "None False\n", done.stderr


def test_a_program_runs_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("from moss import DocumentInfo\n")
    script = tmp_path / "script.py"
    script.write_text(
        "import asyncio, sys\n"
        "from beside import DocumentInfo\n"
        "from inferedge_moss import MossClient, QueryOptions\n"
        "client = MossClient('p', 'k')\n"
        "asyncio.run(client.create_index('faq', [DocumentInfo('a', 'Refunds take five days.')]))\n"
        "asyncio.run(client.load_index('faq'))\n"
        "found = asyncio.run(client.query('faq', 'refund', QueryOptions(top_k=1)))\n"
        "print(found.docs[0].id, sys.argv[1:], __name__)\n"
    )
    done = run("", "-m", "moss_local.compat", str(script), "one", "--two")
    assert done.stdout == "a ['one', '--two'] __main__\n", done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [([], 2, "usage"), (["-m"], 2, "usage"), (["--help"], 0, "usage"), (["no.py"], 2, "no.py")],
)
def test_a_wrong_call_says_how_it_is_called(arguments: list[str], code: int, said: str) -> None:
    done = run("", "-m", "moss_local.compat", *arguments)
    assert done.returncode == code
    assert said in done.stderr


def test_a_module_runs_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import moss, sys\nprint(moss.MossClient, sys.argv[1:])\n")
    done = subprocess.run(
        [sys.executable, "-m", "moss_local.compat", "-m", "program", "x"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert "MossClient" in done.stdout, done.stderr
    assert done.stdout.endswith("['x']\n")


def test_every_module_has_names() -> None:
    for source, names in MODULES.values():
        assert names
        assert source.startswith("moss_local")
