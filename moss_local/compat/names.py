"""Which modules of the hosted SDK are stood in for, and with which names.

The names are those that its public material lists; each is one of `moss_local`'s.
"""

from __future__ import annotations

from typing import Final

MOSS: Final = frozenset(
    {
        "Chunker",
        "Chunking",
        "CreateWebSourceResult",
        "DeleteWebSourceResult",
        "DocsInput",
        "DocumentInfo",
        "GetDocumentsOptions",
        "IndexInfo",
        "IndexStatus",
        "IndexStatusValues",
        "InvalidArgumentError",
        "JobHandle",
        "JobPhase",
        "JobProgress",
        "JobStatus",
        "JobStatusResponse",
        "LoadIndexesResult",
        "ManageApiError",
        "ModelRef",
        "MossClient",
        "MossError",
        "MossInference",
        "MutationOptions",
        "MutationResult",
        "ParentGrouping",
        "ParseFileInput",
        "ParseOptions",
        "PushIndexResult",
        "QueryOptions",
        "QueryResultDocumentInfo",
        "ResyncWebSourceResult",
        "SearchResult",
        "SessionIndex",
        "UpdateWebSourceResult",
        "WebSource",
    }
)
"""`moss.__all__`."""

MODULES: Final = {
    "moss": ("moss_local", MOSS),
    "moss.client": ("moss_local", MOSS),
    "moss.client.moss_client": ("moss_local", MOSS),
    "moss.client.session_index": ("moss_local", MOSS),
    "moss.inference": ("moss_local.inference", frozenset({"InferenceError", "MossInference"})),
    "inferedge_moss": ("moss_local", MOSS),
    "moss_core": ("moss_local", MOSS),
}
"""Module to the module of ours that has its names, and the names."""
