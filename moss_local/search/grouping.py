"""Documents that belong together, such as the chunks of one file, put together as one result.

Rules of this file: values in, values out.

A group is named by what its documents share: its id is their value of the parent field, its text
their texts in the order of the order field, a line each; its metadata and payload are what all of
them have alike. A document without the parent field stands alone, as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from moss_local.search.readings import sort_key


class Grouped(Protocol):
    """What a document has that is grouped or sorted."""

    @property
    def id(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def metadata(self) -> dict[str, str] | None: ...
    @property
    def payload(self) -> str | None: ...


D = TypeVar("D", bound=Grouped)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Whole:
    """A group's documents as one."""

    text: str
    metadata: dict[str, str]
    payload: str | None


def in_order(documents: Iterable[D], field: str, *, ascending: bool = True) -> list[D]:
    """Return the documents sorted by a metadata field: numbers by size, then text.

    Descending is the other way round. Those without the field come last either way, and equal ones
    stand in the order of their ids.
    """
    by_id = sorted(documents, key=lambda document: document.id)
    known = [document for document in by_id if _value(document, field) is not None]
    unknown = [document for document in by_id if _value(document, field) is None]
    known.sort(key=lambda document: sort_key(_value(document, field)), reverse=not ascending)
    return known + unknown


def whole(members: Sequence[Grouped], order_field: str) -> Whole:
    """Return what one or more documents of one group are together."""
    ordered = in_order(members, order_field)
    shared = dict(ordered[0].metadata or {})
    for member in ordered[1:]:
        own = member.metadata or {}
        shared = {key: value for key, value in shared.items() if own.get(key) == value}
    payloads = {member.payload for member in ordered}
    return Whole(
        "\n".join(member.text for member in ordered),
        shared,
        payloads.pop() if len(payloads) == 1 else None,
    )


def by_parent(
    documents: Iterable[D],
    parent_field: str,
    *,
    alone: Callable[[D], T],
    together: Callable[[str, list[D]], T],
) -> list[T]:
    """Return what `together` makes of each group and `alone` of each document that is in none.

    In the order in which the first document of each comes.
    """
    groups: dict[str, list[D]] = {}
    places: list[D | str] = []
    for document in documents:
        parent = _value(document, parent_field)
        if parent is None:
            places.append(document)
        elif parent in groups:
            groups[parent].append(document)
        else:
            groups[parent] = [document]
            places.append(parent)
    return [
        together(place, groups[place]) if isinstance(place, str) else alone(place)
        for place in places
    ]


def _value(document: Grouped, field: str) -> str | None:
    return None if document.metadata is None else document.metadata.get(field)
