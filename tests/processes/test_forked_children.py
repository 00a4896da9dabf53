"""Processes forked off one that has used the library: as worker pools and web servers do it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.processes.audit import assert_settled, audit, path_of, replica_state
from tests.processes.documents import text_of
from tests.processes.jobs import Where
from tests.processes.nursery import Nursery


@pytest.mark.parametrize("whose", ["its own client", "its parent's client"])
def test_a_forked_child_goes_on_where_its_parent_was(
    nursery: Nursery, device: Callable[..., Where], whose: str
) -> None:
    where = device("laptop")

    nursery.start("fork_and_go_on", where=where, inherit=whose == "its parent's client").finish()

    ids = ["before", "child-0", "child-1", "child-2", "after"]
    assert audit(path_of(where, "s")) == {id: text_of(id) for id in ids}
    assert_settled(replica_state(where, "s"))
