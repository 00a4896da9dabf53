"""What the public material says of the hosted SDK's names, and how ours stand to them.

A signature is written as Python would: names, order, kinds and defaults, without `self`. `ours` says
what of it differs on purpose. Tests are named as pytest names them; each shows what the row says.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, cast

from tests.parity.behaviour import ROWS

Verdict = Literal["same", "better", "differs", "not offered"]

INDEXES = "tests/moss_local/test_indexes.py"
SESSION = "tests/moss_local/test_session.py"
INGEST = "tests/moss_local/test_ingest.py"
CHUNKS = "tests/moss_local/test_chunking.py"
HOSTED = "tests/moss_local/test_hosted.py"
COMPAT = "tests/moss_local/test_compat.py"
FILTERS = "tests/moss_local/test_search_filters.py"
FETCH = "tests/moss_local/test_search_fetch.py"
JOINT = "tests/moss_local/test_querying.py"
OFFICE = "tests/moss_local/test_office.py"
TRANSFER = "tests/moss_local/test_transfer.py"
PARITY = "tests/parity/test_parity.py"


@dataclass(frozen=True)
class Fact:
    """One name.

    Attributes:
        name: Below `moss`, such as "MossClient.query".
        verdict: How ours stands to it.
        note: What to know; empty where nothing is.
        tests: What shows it.
        signature: None for what is not called.
        ours: Parameters whose default is another one here, and which.
        members: Class attributes and their values.
    """

    name: str
    verdict: Verdict
    note: str = ""
    tests: tuple[str, ...] = ()
    signature: str | None = None
    ours: dict[str, object] = field(default_factory=dict)
    members: dict[str, str] = field(default_factory=dict)


def _called(
    name: str, signature: str, verdict: Verdict, note: str, *tests: str, **ours: object
) -> Fact:
    return Fact(name, verdict, note, tests, signature, ours)


_JOBS = f"{INDEXES}::test_a_job_is_followed_to_its_end_and_pushes_are_jobs_too"
_FILES = f"{INGEST}::test_an_index_is_made_of_files"
_UNKNOWN = f"{INDEXES}::test_an_unknown_index_is_not_found_whatever_is_asked_of_it"
_UNLOADED = f"{INDEXES}::test_what_is_not_loaded_is_not_asked_and_the_error_names_load_index"
_CLOSED = f"{INDEXES}::test_a_closed_client_refuses_everything"
_TYPES = f"{PARITY}::test_parameters_are_those_of_the_hosted_sdk"
_CRAWLER = f"{HOSTED}::test_the_crawler_is_not_offered_and_every_call_says_what_to_use"
_LOADED = (
    f"{INDEXES}::test_several_indexes_are_loaded_and_unloaded_at_once_and_failures_are_told_by_name"
)
_CREATED = f"{INDEXES}::test_an_index_is_created_loaded_and_asked"
_TOLD = f"{INDEXES}::test_what_is_told_of_an_index_is_what_the_store_has"

CLIENT = [
    _called(
        "MossClient",
        "project_id, project_key, *, cache_path=None",
        "better",
        "both may be None: then MOSS_PROJECT_ID and MOSS_PROJECT_KEY, then what `moss-local init` wrote;"
        " no device id is written, nothing is reported to anybody",
        f"{SESSION}::test_credentials_and_places_come_from_the_environment",
        project_id=None,
        project_key=None,
    ),
    Fact(
        "MossClient.DEFAULT_MODEL_ID",
        "same",
        tests=(
            f"{INDEXES}::test_documents_with_vectors_make_a_custom_index_unless_a_model_is_named",
        ),
    ),
    _called(
        "MossClient.session",
        "index_name, model_id=None, *, artifact_version=None, manifest_sha256=None,"
        " auto_load_on_init=True",
        "better",
        "opens offline, survives the process, merges instead of replacing; the artifact pin is refused;"
        " `auto_load_on_init=False` does not pull, and a later push merges all the same",
        f"{SESSION}::test_a_session_keeps_its_model_and_refuses_another",
        f"{HOSTED}::test_the_pin_of_a_hosted_model_is_refused_whole_or_half",
    ),
    _called(
        "MossClient.create_index",
        "name, docs, model_id=None, *, wait=True, chunker=None, chunking=None",
        "better",
        'a name that is taken: `AlreadyExistsError`, code ALREADY_EXISTS, "already exists" in the text;'
        " a mixture of documents with and without vectors is refused by name, nothing is written",
        _CREATED,
        f"{INDEXES}::test_a_name_that_is_taken_is_refused_with_these_words",
        f"{INDEXES}::test_documents_with_vectors_make_a_custom_index_unless_a_model_is_named",
    ),
    _called(
        "MossClient.create_index_from_files",
        "name, files, model_id=None, parse_options=None",
        "better",
        "text, Markdown, JSON, DOCX too; PDF takes the extra `moss-local[files]`; nothing is recognised from pictures (OCR)",
        _FILES,
        f"{OFFICE}::test_files_are_added_indexed_and_found_by_python_and_by_hand",
    ),
    _called(
        "MossClient.add_docs",
        "name, docs, options=None, *, chunker=None, chunking=None",
        "better",
        "only what changed is embedded and sent; `doc_count` is of this call, an id counts once",
        _TOLD,
        f"{INDEXES}::test_of_an_id_that_comes_twice_the_last_counts_and_it_counts_once",
    ),
    _called("MossClient.delete_docs", "name, doc_ids", "same", "unknown ids are ignored", _TOLD),
    _called(
        "MossClient.delete_index",
        "name",
        "same",
        "unloads it here too; its name can be used again, with any model",
        f"{INDEXES}::test_a_deleted_index_is_gone_and_its_name_is_free_for_another_model",
    ),
    _called("MossClient.get_job_status", "job_id", "same", "progress is 0.0 to 100.0", _JOBS),
    _called(
        "MossClient.wait_for_job",
        "job_id, *, poll_interval_seconds=2.0, timeout_seconds=1800.0",
        "better",
        "ends when the job does, not at the next poll; a failed job raises a `MossError` with its code",
        _JOBS,
        f"{INDEXES}::test_a_job_that_fails_says_why_and_one_that_takes_long_goes_on",
    ),
    _called("MossClient.get_index", "name", "same", "", _TOLD, _UNKNOWN),
    _called("MossClient.list_indexes", "", "same", "in order of name", _TOLD),
    _called(
        "MossClient.get_docs",
        "name, options=None",
        "better",
        "filter, sort_by, group_by and limit apply here too; embeddings are not returned",
        f"{INDEXES}::test_documents_are_read_without_loading_all_or_in_the_order_asked_for",
    ),
    _called(
        "MossClient.load_index",
        "name, auto_refresh=False, polling_interval_in_seconds=600, cache_path=None",
        "better",
        "text queries work on an index served stale, the model is local; an index is on disk in any"
        " case, so `cache_path` has nothing to do",
        f"{INDEXES}::test_auto_refresh_brings_in_what_others_change_without_interrupting_queries",
        f"{INDEXES}::test_a_plain_reload_ends_the_refreshing_and_a_deleted_index_unloads_itself",
        f"{INDEXES}::test_where_the_store_is_away_what_is_here_is_served_and_said_to_be_stale",
    ),
    _called("MossClient.unload_index", "name", "same", "not loaded: NOT_FOUND", _UNLOADED),
    _called(
        "MossClient.load_indexes",
        "names, auto_refresh=False, polling_interval_in_seconds=600, cache_path=None",
        "same",
        "",
        _LOADED,
    ),
    _called("MossClient.unload_indexes", "names", "same", "", _LOADED, _UNLOADED),
    _called(
        "MossClient.was_served_stale",
        "name",
        "same",
        "",
        f"{INDEXES}::test_where_the_store_is_away_what_is_here_is_served_and_said_to_be_stale",
    ),
    _called(
        "MossClient.query",
        "name, query, options=None",
        "better",
        "`group_by` applies; not loaded: NOT_FOUND",
        _CREATED,
        _UNLOADED,
    ),
    _called(
        "MossClient.query_multi_index",
        "names, query, options=None",
        "better",
        '`group_by` applies; `top_k` 10 unless given; empty list: "at least one index name"',
        _LOADED,
        f"{JOINT}::test_sessions_of_different_models_are_refused_but_words_go",
    ),
    _called(
        "MossClient.close",
        "",
        "better",
        'takes a time to close in; afterwards every method raises "MossClient is closed"',
        _CLOSED,
    ),
    *(
        Fact(
            f"MossClient.{verb}_web_source{'s' if verb == 'list' else ''}",
            "not offered",
            "a crawler is a service; the error says to add texts with `add_docs`",
            (_CRAWLER,),
        )
        for verb in ("create", "list", "get", "update", "resync", "delete")
    ),
    Fact(
        "MossInference",
        "not offered",
        "an inference gateway is a service; the error says so",
        (f"{HOSTED}::test_inference_is_not_offered",),
    ),
]

SESSIONS = [
    Fact(
        "SessionIndex.name",
        "same",
        "",
        (f"{SESSION}::test_after_close_names_stay_and_everything_else_is_refused",),
    ),
    Fact(
        "SessionIndex.doc_count",
        "same",
        "",
        (f"{SESSION}::test_adding_counts_what_is_new_and_what_was_there",),
    ),
    Fact(
        "SessionIndex.model_id",
        "same",
        "",
        (f"{SESSION}::test_a_session_keeps_its_model_and_refuses_another",),
    ),
    _called(
        "SessionIndex.add_docs",
        "docs, options=None, *, chunker=None, chunking=None",
        "better",
        "on disk when it returns, all or none; `upsert=False` leaves what is there, uncounted; an id twice"
        " in a call: the last counts",
        f"{SESSION}::test_adding_counts_what_is_new_and_what_was_there",
        f"{SESSION}::test_one_bad_document_of_a_hundred_is_named_and_none_is_stored",
        f"{INGEST}::test_sessions_and_indexes_take_paths_and_chunking",
    ),
    _called(
        "SessionIndex.delete_docs",
        "doc_ids",
        "same",
        "",
        f"{SESSION}::test_deleting_counts_what_was_there_and_ignores_the_rest",
    ),
    _called(
        "SessionIndex.get_docs",
        "options=None",
        "same",
        "also `limit`; embeddings are not returned",
        f"{SESSION}::test_documents_come_back_as_they_went_in_and_in_the_order_asked_for",
        f"{FETCH}::test_sorting_is_by_number_then_text_and_ids_are_an_order_already",
        f"{FETCH}::test_groups_are_of_everything_that_matches",
    ),
    _called(
        "SessionIndex.query",
        "query, options=None",
        "better",
        "`min_score` and `candidate_depth` apply, nothing is dropped silently; groups are whole; `alpha`"
        " 0.5 when None",
        f"{SESSION}::test_a_query_honours_filter_grouping_depth_and_score",
        f"{SESSION}::test_a_blank_query_finds_nothing_unless_it_brings_a_vector",
    ),
    _called(
        "SessionIndex.push_index",
        "",
        "better",
        'merges with what others pushed and is committed on return, so `status` is "completed"',
        f"{SESSION}::test_a_push_says_what_it_did",
    ),
    _called(
        "SessionIndex.save_to_disk",
        "cache_path=None",
        "better",
        "a session is on disk at every moment; a snapshot is a copy to go back to, or to carry elsewhere",
        f"{TRANSFER}::test_where_snapshots_lie_follows_the_call_then_the_client_then_the_environment",
        f"{TRANSFER}::test_whoever_is_killed_while_saving_leaves_a_whole_snapshot",
    ),
    _called(
        "SessionIndex.load_from_disk",
        "cache_path=None, *, rebuild_legacy=True",
        "better",
        "what it replaces is in the history, and going back is pushed; a session that was exchanged keeps its model",
        f"{TRANSFER}::test_going_back_to_a_snapshot_is_edits_that_are_pushed_and_kept_in_the_history",
        f"{TRANSFER}::test_missing_damaged_and_others_snapshots_are_named_and_change_nothing",
    ),
    _called(
        "SessionIndex.close",
        "",
        "better",
        "takes a time to close in; what is not pushed stays pending in the file",
        f"{SESSION}::test_after_close_names_stay_and_everything_else_is_refused",
    ),
]

TYPES = [
    _called(
        "DocumentInfo",
        "id, text, metadata=None, embedding=None, payload=None",
        "same",
        "the embedding is stored as float32",
        _TYPES,
        f"{SESSION}::test_a_document_of_wrong_types_is_a_type_error",
    ),
    _called(
        "QueryResultDocumentInfo",
        "id, text, metadata=None, score=0.0, index_name=None, payload=None",
        "same",
        "`index_name` is always set; `score` is max(0, cosine)",
        _TYPES,
        f"{SESSION}::test_a_query_finds_by_meaning_and_names_its_source",
    ),
    _called(
        "SearchResult",
        "docs, query, index_name=None, time_taken_ms=None, model_id=None",
        "same",
        "`time_taken_ms` is always an int",
        _TYPES,
        _CREATED,
    ),
    _called(
        "QueryOptions",
        "embedding=None, top_k=None, alpha=None, filter=None, group_by=None, min_score=None,"
        " candidate_depth=None",
        "differs",
        "`alpha=None` means 0.5, measured to find more; vectors are compared by cosine; wrong values are"
        " refused",
        _TYPES,
        f"{SESSION}::test_top_k_is_five_unless_said_and_zero_gives_none",
        f"{SESSION}::test_a_wrong_option_is_refused_by_name",
    ),
    _called(
        "GetDocumentsOptions",
        "doc_ids=None, filter=None, sort_by=None, ascending=None, group_by=None",
        "same",
        "",
        _TYPES,
    ),
    _called("ParentGrouping", "parent_field, order_field", "same", "", _TYPES),
    _called("MutationOptions", "upsert=None", "same", "", _TYPES),
    Fact("MutationResult", "same", "job_id, index_name, doc_count", (_TOLD,)),
    Fact(
        "PushIndexResult",
        "better",
        "job_id, index_name, doc_count, status; also `report`",
        (f"{SESSION}::test_a_push_says_what_it_did",),
    ),
    _called(
        "IndexInfo",
        "id, name, version, status, doc_count, created_at, updated_at, model",
        "same",
        "`model.version` is the fingerprint of the vectors' space",
        _TYPES,
        _TOLD,
    ),
    _called("ModelRef", "id, version", "same", "", _TYPES),
    Fact(
        "IndexStatus",
        "same",
        "",
        (f"{PARITY}::test_members_are_plain_strings_and_the_same",),
        "value",
        members={name: name for name in ("NotStarted", "Building", "Ready", "Failed")},
    ),
    Fact(
        "IndexStatusValues", "same", "", (f"{PARITY}::test_members_are_plain_strings_and_the_same",)
    ),
    Fact(
        "JobStatus",
        "same",
        "",
        (_JOBS,),
        members={
            "PENDING_UPLOAD": "pending_upload",
            "UPLOADING": "uploading",
            "BUILDING": "building",
            "COMPLETED": "completed",
            "FAILED": "failed",
        },
    ),
    Fact(
        "JobPhase",
        "same",
        "",
        (_JOBS,),
        members={
            name.upper(): name
            for name in (
                "downloading",
                "deserializing",
                "generating_embeddings",
                "building_index",
                "uploading",
                "cleanup",
            )
        },
    ),
    Fact("JobProgress", "same", "job_id, status, progress, current_phase", (_TYPES,)),
    Fact("JobStatusResponse", "same", "also error and the three times, ISO 8601", (_JOBS,)),
    _called("JobHandle", "client, job_id", "same", "", _JOBS),
    _called("JobHandle.status", "", "same", "", _JOBS),
    _called("JobHandle.wait", "", "same", "", _JOBS),
    Fact("LoadIndexesResult", "same", "loaded, failed, failed_codes", (_LOADED,)),
    _called(
        "Chunking",
        "chunk_size=None, chunk_overlap=None, mode='pages', markdown_header_depth=None",
        "better",
        "a chunk is never longer than the model reads; sentences end as their script ends them",
        f"{CHUNKS}::test_what_is_not_said_is_the_default_and_what_is_wrong_is_named",
        f"{CHUNKS}::test_a_sentence_ends_as_its_script_ends_it",
        f"{INGEST}::test_the_built_in_model_reads_every_chunk_whole",
    ),
    Fact(
        "Chunker",
        "same",
        "str to list of str",
        (f"{INGEST}::test_a_chunker_that_does_not_do_its_work_is_named",),
    ),
    Fact(
        "DocsInput",
        "same",
        "documents, mappings, paths, JSON as text; unknown keys are refused",
        (f"{INGEST}::test_documents_mappings_json_and_lines_say_the_same",),
    ),
    _called("ParseFileInput", "name, content_type, path=None, data=None", "same", "", _FILES),
    Fact(
        "ParseOptions",
        "differs",
        "importable; any value set is refused, there is no OCR here",
        (_FILES,),
    ),
    *(
        Fact(
            name,
            "not offered",
            "importable; never returned",
            (f"{COMPAT}::test_every_name_of_the_hosted_sdk_is_one_of_ours",),
        )
        for name in (
            "WebSource",
            "CreateWebSourceResult",
            "UpdateWebSourceResult",
            "ResyncWebSourceResult",
            "DeleteWebSourceResult",
        )
    ),
]

ERRORS = [
    Fact(
        "MossError",
        "better",
        "a RuntimeError with `code` and `detail`; also `hint` and `retryable`, and a class per reaction"
        " (errors.md)",
        (f"{PARITY}::test_errors_are_what_handlers_of_the_hosted_sdk_catch",),
    ),
    Fact(
        "InvalidArgumentError",
        "same",
        "a MossError and a ValueError",
        (f"{PARITY}::test_errors_are_what_handlers_of_the_hosted_sdk_catch",),
    ),
    _called(
        "ManageApiError",
        "status, body",
        "not offered",
        "importable; never raised",
        f"{HOSTED}::test_the_error_of_the_hosted_crawler_reads_as_it_does_there",
    ),
]

BEHAVIOUR = [
    *(Fact(name, cast(Verdict, verdict), note, tests) for name, verdict, note, tests in ROWS),
    Fact(
        "several operators in a filter's condition",
        "better",
        "all must hold; the hosted SDK uses one",
        (f"{FILTERS}::test_all_operators_of_a_condition_must_hold",),
    ),
    Fact(
        "a missing field in a filter",
        "same",
        "excluded by every operator",
        (f"{FILTERS}::test_a_document_without_the_field_is_found_by_no_operator",),
    ),
    Fact(
        "`$gt`, `$gte`, `$lt`, `$lte`",
        "same",
        "numeric when both sides are plain decimals",
        (f"{FILTERS}::test_order_is_of_numbers_where_both_are_and_else_of_strings",),
    ),
    Fact(
        "`$near`",
        "same",
        "",
        (f"{FILTERS}::test_near_measures_along_the_surface",),
    ),
    Fact(
        "one client in many `asyncio.run()` loops and threads",
        "same",
        "",
        (f"{INDEXES}::test_a_client_serves_many_event_loops_and_threads",),
    ),
    Fact(
        "two clients of a project",
        "same",
        "see each other's indexes at once",
        (f"{INDEXES}::test_two_clients_of_a_project_see_each_others_indexes_at_once",),
    ),
    Fact(
        "the modules `moss`, `moss.client.*`, `moss_core`, `inferedge_moss`",
        "same",
        "through `moss_local.compat`",
        (f"{COMPAT}::test_its_modules_are_ours_and_import_nothing_heavy",),
    ),
    Fact(
        "a query of an index that is not loaded, in `inferedge_moss`",
        "differs",
        "NOT_FOUND as in `moss`; the old package asked a cloud that is gone, and took `alpha=0` for unset",
        (_UNLOADED,),
    ),
]

SECTIONS = {
    "The client": CLIENT,
    "The session": SESSIONS,
    "Types": TYPES,
    "Errors": ERRORS,
    "Behaviour": BEHAVIOUR,
}
