"""The built wheel, installed into an empty environment, does the main job.

An editable install hides missing package data; what users get does not. Dependencies come from this
environment, so that the test needs no network: they are on the path behind the wheel's own files.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from hatchling.build import build_wheel

ROOT = Path(__file__).parent.parent

PROGRAM = """
import asyncio, pathlib, sys
import moss_local, moss_sync
from moss_local import DocumentInfo, MossClient, QueryOptions

for module in (moss_local, moss_sync):
    assert sys.prefix in module.__file__, module.__file__

async def main():
    async with MossClient("p", "k", data_dir=sys.argv[1]) as client:
        session = await client.session("conv")
        await session.add_docs([
            DocumentInfo(id="1", text="The refund was confirmed."),
            DocumentInfo(id="2", text="It rains in Lisbon."),
        ])
        await session.push_index()
        found = await session.query("money back", QueryOptions(top_k=1))
        print(found.docs[0].id, moss_local.__version__)

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return directory / build_wheel(str(directory))


def test_the_wheel_holds_the_two_packages_their_data_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"moss_local", "moss_sync", "moss_local-0.1.0.dist-info"}
    for needed in ("moss_local/py.typed", "moss_sync/py.typed"):
        assert needed in names
    assert any(name.endswith("tokenizer.json") for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert any(name.endswith("licenses/NOTICE") for name in names)


def test_the_wheel_does_the_main_job_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    place = tmp_path / "env"
    venv.create(place, with_pip=False)
    site = Path(
        sysconfig.get_path("purelib", "venv", vars={"base": str(place), "platbase": str(place)})
    )
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # Dependencies only: the editable install's own path file is not read from here.
    (site / "dependencies.pth").write_text(
        "\n".join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    )
    python = place / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, "utf-8")
    done = subprocess.run(
        [str(python), "-W", "error", str(program), str(tmp_path / "data")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1", "0.1.0"]
