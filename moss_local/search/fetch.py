"""Documents of one session without searching: by id, by filter, sorted, grouped.

All of it is read in one transaction.
"""

from __future__ import annotations

from moss_local.options import GetChoice
from moss_local.search.filter_sql import clause
from moss_local.search.grouping import by_parent, in_order, whole
from moss_local.search.matching import matches
from moss_local.storage.documents import StoredDocument
from moss_local.storage.file import SessionFile
from moss_local.storage.rows import get_documents
from moss_local.types import DocumentInfo, ParentGrouping


def fetch(file: SessionFile, choice: GetChoice) -> list[DocumentInfo]:
    """Return the documents that a choice names, or the groups that they form."""
    documents = select(file, choice)
    if choice.group_by is None:
        found = [_info(document) for document in documents[: choice.limit]]
    else:
        found = _groups(documents, choice.group_by)[: choice.limit]
    return found


def select(file: SessionFile, choice: GetChoice) -> list[StoredDocument]:
    """Return the documents that a choice names, in its order; groups and limit are not applied."""
    with file.reading() as conn:
        if choice.filter is None:
            documents = get_documents(conn, choice.doc_ids)
        elif choice.doc_ids is not None:
            wanted = choice.filter
            named = get_documents(conn, choice.doc_ids)
            documents = [document for document in named if matches(wanted, document.metadata)]
        else:
            with clause(conn, choice.filter) as where:
                documents = get_documents(conn, where=where)
    if choice.sort_by is None or choice.doc_ids is not None:
        return documents
    return in_order(documents, choice.sort_by, ascending=choice.ascending)


def _groups(documents: list[StoredDocument], by: ParentGrouping) -> list[DocumentInfo]:
    def together(parent: str, members: list[StoredDocument]) -> DocumentInfo:
        group = whole(members, by.order_field)
        return DocumentInfo(parent, group.text, group.metadata, None, group.payload)

    return by_parent(documents, by.parent_field, alone=_info, together=together)


def _info(stored: StoredDocument) -> DocumentInfo:
    return DocumentInfo(stored.id, stored.text, stored.metadata, None, stored.payload)
