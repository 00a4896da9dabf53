"""Makes docs/parity.md: every name of the hosted SDK, how ours stands to it, and what shows that.

The facts are in tests/parity/facts.py. What is compared here and now: that the name is there, that
names, order, kinds and defaults of its parameters are those of the hosted SDK, that its members
are, and that every test that a row names exists. That each of them ran and passed is what
`pytest --parity` adds (tests/parity/outcomes.py), and so does this file, run by itself.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
if str(ROOT) not in sys.path:  # the facts are not part of the package
    sys.path.insert(0, str(ROOT))

import moss_local  # noqa: E402
from tests.parity.facts import BEHAVIOUR, SECTIONS, Fact  # noqa: E402


def parity_page() -> str:
    """Return docs/parity.md.

    Raises:
        SystemExit: a row does not hold.
    """
    wrong = [problem for facts in SECTIONS.values() for fact in facts for problem in problems(fact)]
    if wrong:
        raise SystemExit("docs/parity.md would not be true:\n" + "\n".join(wrong))
    lines = [
        "<!-- Made by docs/generate.py; edit tests/parity/facts.py instead. -->",
        "",
        "# Parity with the hosted SDK",
        "",
        "Names, order, kinds and defaults of parameters are compared by the script that makes this",
        "page; parameters of ours beyond them have defaults. *Better* does all that the hosted SDK",
        "does, and more. `make test` fails unless every test that is named here ran and passed.",
        "",
    ]
    for title, facts in SECTIONS.items():
        lines += [f"## {title}", "", "| name | | what to know | shown by |", "|---|---|---|---|"]
        lines += [_row(fact) for fact in facts]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _row(fact: Fact) -> str:
    name = fact.name if fact in BEHAVIOUR else f"`{fact.name}`"
    shown = "<br>".join(f"`{test.split('::')[1]}`" for test in fact.tests)
    return f"| {name} | {fact.verdict} | {fact.note} | {shown} |"


def problems(fact: Fact) -> Iterator[str]:
    """Yield what of a row does not hold."""
    for test in fact.tests:
        path, _, name = test.partition("::")
        if name not in _tests_in(path):
            yield f"{fact.name}: there is no test {test}"
    if fact in BEHAVIOUR:
        if not fact.tests:
            yield f"{fact.name}: no test shows it"
        return
    found = _found(fact)
    if found is None:
        yield f"{fact.name} is not there"
        return
    if not fact.tests:
        yield f"{fact.name}: no test shows it"
    if fact.signature is not None:
        yield from _differences(fact, found)
    for member, value in fact.members.items():
        if getattr(found, member, None) != value:
            yield f"{fact.name}.{member} is {getattr(found, member, None)!r}, not {value!r}"


def _found(fact: Fact) -> Any:
    owner: Any = moss_local
    for part in fact.name.split("."):
        owner = getattr(owner, part, None)
        if part == fact.name.split(".")[0] and "." in fact.name and owner is not None:
            attributes = {
                name for base in owner.__mro__ for name in getattr(base, "__annotations__", {})
            }
            last = fact.name.split(".")[1]
            if not hasattr(owner, last) and (last in attributes or last == "name"):
                return object()  # an attribute of instances
    return owner


def _differences(fact: Fact, found: Any) -> Iterator[str]:
    theirs = _signature(fact.signature or "").parameters
    ours = inspect.signature(found).parameters
    mine = {name: each for name, each in ours.items() if name != "self"}
    if list(mine)[: len(theirs)] != list(theirs) and not set(theirs) <= set(mine):
        missing = set(theirs) - set(mine)
        yield f"{fact.name}: parameters {sorted(missing)} are missing"
        return
    by_place = [name for name, each in mine.items() if each.kind is not each.KEYWORD_ONLY]
    for place, (name, their) in enumerate(theirs.items()):
        our = mine[name]
        if our.kind is not their.kind:
            yield f"{fact.name}: {name} is {our.kind.description}, not {their.kind.description}"
        if their.kind is not their.KEYWORD_ONLY and by_place.index(name) != place:
            yield f"{fact.name}: {name} is parameter {by_place.index(name)}, not {place}"
        default = fact.ours.get(name, their.default)
        if our.default != default:
            yield f"{fact.name}: {name} defaults to {our.default!r}, not {default!r}"
    for name, our in mine.items():
        if name not in theirs and our.default is our.empty:
            yield f"{fact.name}: {name} is ours, and has no default"


def _signature(text: str) -> inspect.Signature:
    function = eval(f"lambda {text}: None")  # a signature of the facts file
    return inspect.signature(function)


@cache
def _tests_in(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    return frozenset(
        node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


if __name__ == "__main__":
    import pytest

    from tests.parity.outcomes import named_tests

    parity_page()
    sys.exit(pytest.main(["--parity", "-q", "--rootdir", str(ROOT), *named_tests()]))
