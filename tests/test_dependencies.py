"""What comes with the package has licences that its users can live with, and is on the page."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def page() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dependencies", ROOT / "docs" / "dependencies.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_package_that_a_user_gets_has_an_allowed_licence(page: ModuleType) -> None:
    found = {each.metadata["Name"]: page.licences_of(each) for each in page.installed()}
    assert len(found) > 20
    assert {name: told for name, told in found.items() if not told or told - page.ALLOWED} == {}


def test_every_direct_dependency_is_on_the_page() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    direct = [*project["dependencies"], *project["optional-dependencies"]["files"]]
    text = (ROOT / "docs" / "dependencies.md").read_text("utf-8")
    names = {Requirement(line).name for line in direct}
    assert {name for name in names if f"\n| {name} |" not in text} == set()
