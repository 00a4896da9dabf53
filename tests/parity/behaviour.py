"""What programs count on beyond names and parameters, and the tests that show how ours behaves."""

from __future__ import annotations

CONTRACT = "tests/parity/test_contract.py"
PARITY = "tests/parity/test_parity.py"
EXPORTS = "tests/test_exports.py"
INDEXES = "tests/moss_local/test_indexes.py"
SESSION = "tests/moss_local/test_session.py"
INGEST = "tests/moss_local/test_ingest.py"
INPUTS = "tests/moss_local/test_inputs.py"
CHUNKS = "tests/moss_local/test_chunking.py"
FILTERS = "tests/moss_local/test_search_filters.py"
FETCH = "tests/moss_local/test_search_fetch.py"
GROUPS = "tests/moss_local/test_search_grouping.py"
MODELS = "tests/moss_local/test_embedding_models.py"
JOINT = "tests/moss_local/test_querying.py"

_STALE = "test_where_the_store_is_away_what_is_here_is_served_and_said_to_be_stale"
_UNKNOWN = "test_an_unknown_index_is_not_found_whatever_is_asked_of_it"
_UNLOADED = "test_what_is_not_loaded_is_not_asked_and_the_error_names_load_index"
_VALUES = f"{CONTRACT}::test_what_is_a_value_error_there_is_one_here_and_writes_nothing"
_SHAPES = f"{CONTRACT}::test_what_comes_back_has_the_shapes_that_clients_rely_on"
_RELOAD = f"{CONTRACT}::test_a_loaded_index_shows_a_change_after_loading_it_again"
_ALPHA = f"{CONTRACT}::test_the_signals_of_alpha_and_what_it_takes"
_OPTION = f"{SESSION}::test_a_wrong_option_is_refused_by_name"
_CHANGED = f"{CONTRACT}::test_documents_and_options_can_be_changed_after_they_were_made"
_FILTER = f"{FILTERS}::test_a_wrong_filter_is_refused_with_the_path_to_what_is_wrong"
_EQUAL = f"{FILTERS}::test_equality_is_of_exact_strings"

ROWS: list[tuple[str, str, str, tuple[str, ...]]] = [
    ("code INVALID_ARGUMENT", "same", "", (_OPTION, f"{INDEXES}::test_wrong_arguments_are_named")),
    (
        "code NOT_FOUND",
        "same",
        "unknown and not loaded",
        (f"{INDEXES}::{_UNKNOWN}", f"{INDEXES}::{_UNLOADED}"),
    ),
    (
        "code UNAUTHORIZED",
        "same",
        "no key, or one that does not open the project",
        (
            f"{INDEXES}::test_a_wrong_key_is_refused",
            f"{SESSION}::test_without_credentials_the_error_names_every_place_they_may_come_from",
        ),
    ),
    (
        "code NETWORK",
        "better",
        "only where the store is needed",
        (
            f"{INDEXES}::{_STALE}",
            "tests/processes/test_offline.py"
            "::test_what_was_written_without_a_store_is_pushed_once_there_is_one",
        ),
    ),
    (
        "code DESERIALIZATION",
        "same",
        "a damaged file or blob",
        ("tests/moss_local/test_storage_file.py::test_a_damaged_page_is_an_error_that_says_so",),
    ),
    (
        "code MODEL_UNAVAILABLE",
        "same",
        "not on this machine; nothing is downloaded",
        (f"{MODELS}::test_a_missing_name_says_where_to_put_the_folder",),
    ),
    (
        "codes beyond those",
        "differs",
        "each with another thing to do: errors.md",
        (f"{PARITY}::test_errors_are_what_handlers_of_the_hosted_sdk_catch",),
    ),
    (
        "what raises ValueError",
        "same",
        "half a pin, another model, no embedding, chunks of `custom`; `MossError`s too",
        (_VALUES,),
    ),
    (
        "a closed client",
        "same",
        'plain RuntimeError "MossClient is closed"',
        (
            f"{INDEXES}::test_a_closed_client_refuses_everything",
            f"{CONTRACT}::test_a_client_that_was_closed_says_so_to_the_rest_too",
        ),
    ),
    (
        "`with` and `async with`, of client and session",
        "same",
        "",
        (
            f"{SESSION}::test_client_and_session_work_as_plain_context_managers_too",
            f"{SESSION}::test_closing_a_client_closes_its_sessions",
        ),
    ),
    (
        "coroutines and properties",
        "same",
        "",
        (f"{CONTRACT}::test_io_is_awaited_and_the_rest_are_properties",),
    ),
    (
        "`__version__`, `inference`, unknown attributes",
        "same",
        "",
        (f"{CONTRACT}::test_the_module_has_a_version_and_no_names_of_chance",),
    ),
    (
        "importing",
        "better",
        "no network, no output, nothing heavy",
        (
            f"{EXPORTS}::test_importing_and_making_a_client_says_nothing_and_asks_no_network",
            f"{EXPORTS}::test_importing_moss_local_loads_none_of_the_heavy_packages",
        ),
    ),
    ("fields can be set after construction", "same", "", (_CHANGED,)),
    (
        "`time_taken_ms`, `status.value`, times, `metadata` None, `payload`",
        "same",
        "int, str, ISO 8601, None, verbatim",
        (_SHAPES,),
    ),
    ("loading again shows what changed; `doc_count` of a mutation", "same", "", (_RELOAD,)),
    (
        "`upsert=False`",
        "same",
        "what is there stays, uncounted",
        (_RELOAD, f"{SESSION}::test_adding_counts_what_is_new_and_what_was_there"),
    ),
    (
        "mappings and JSON",
        "same",
        "integer ids and plain metadata become text; unknown keys and other values are refused",
        (
            f"{INPUTS}::test_integer_ids_and_plain_metadata_become_strings",
            f"{INGEST}::test_what_is_no_document_is_named",
        ),
    ),
    (
        "an id twice in one call",
        "same",
        "unstated there; here the last counts",
        (f"{INDEXES}::test_of_an_id_that_comes_twice_the_last_counts_and_it_counts_once",),
    ),
    (
        "chunks: ids, `parentId`, payload, headings, front matter",
        "same",
        "numbered from 0",
        (
            f"{INGEST}::test_a_chunker_and_a_chunking_cut_every_text_and_keep_what_belongs_to_it",
            f"{INGEST}::test_files_of_documents_and_of_text_are_read_by_their_ending",
            f"{CHUNKS}::test_a_section_stands_under_the_path_of_its_headings",
            f"{CHUNKS}::test_front_matter_is_left_out_where_it_is_front_matter",
            f"{CHUNKS}::test_a_section_without_a_letter_gives_no_chunk_and_a_fence_hides_headings",
        ),
    ),
    (
        "`$eq`, `$ne`, `$in`, `$nin`",
        "better",
        'exact strings; True finds "true"; a tuple will do',
        (_EQUAL, f"{FILTERS}::test_no_value_is_in_an_empty_list"),
    ),
    (
        "`$and`, `$or`",
        "better",
        "also `$not`",
        (f"{FILTERS}::test_and_or_and_not_are_what_they_say_at_any_depth",),
    ),
    (
        "a malformed filter",
        "better",
        "always InvalidArgumentError, with the path to what is wrong",
        (_FILTER,),
    ),
    (
        "`top_k` 5, 10 of several indexes, 0 none",
        "same",
        "a negative one is InvalidArgumentError",
        (
            f"{SESSION}::test_top_k_is_five_unless_said_and_zero_gives_none",
            f"{JOINT}::test_ten_come_back_unless_said_and_groups_stay_in_their_session",
            _OPTION,
        ),
    ),
    (
        "`alpha` 0.0 and 1.0",
        "same",
        "words alone, meaning alone; a word that is nowhere finds nothing",
        (_ALPHA,),
    ),
    (
        "`custom` without an embedding",
        "same",
        "refused, also for a blank query; words alone go where several indexes are asked",
        (_ALPHA, f"{SESSION}::test_a_custom_session_needs_vectors_and_keeps_them_as_float32"),
    ),
    (
        "`candidate_depth`",
        "better",
        "applies in sessions too; below 1 is refused",
        (f"{SESSION}::test_a_query_honours_filter_grouping_depth_and_score", _OPTION),
    ),
    (
        "`min_score`",
        "better",
        "applies in sessions too; with `alpha=0.0` it is refused",
        (f"{SESSION}::test_min_score_leaves_out_what_is_less_similar", _OPTION),
    ),
    (
        "a blank query",
        "same",
        "nothing, or what its vector says",
        (f"{SESSION}::test_a_blank_query_finds_nothing_unless_it_brings_a_vector",),
    ),
    (
        "`embedding` of a query",
        "same",
        "finite and of the right dimension, at every `alpha`",
        (_OPTION,),
    ),
    (
        "`doc_ids`, `sort_by`",
        "same",
        "in the order asked for, missing ones skipped, an empty list nothing",
        (_RELOAD, f"{FETCH}::test_sorting_is_by_number_then_text_and_ids_are_an_order_already"),
    ),
    (
        "groups",
        "better",
        "whole, also where siblings were not found",
        (
            f"{GROUPS}::test_a_group_is_its_texts_in_order_and_what_all_of_it_share",
            f"{FETCH}::test_groups_are_of_everything_that_matches",
        ),
    ),
    (
        "environment variables of the hosted service",
        "not offered",
        "only MOSS_PROJECT_ID, MOSS_PROJECT_KEY and MOSS_SESSION_CACHE_PATH mean the same",
        (f"{SESSION}::test_credentials_and_places_come_from_the_environment",),
    ),
]
"""Name, verdict, what to know, and the tests."""
