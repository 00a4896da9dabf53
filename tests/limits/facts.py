"""Every limit on what callers and files bring in: which constant it is, and why it is that large.

docs/limits.md is made of this. `tests/limits/test_limits.py` tries each at the limit and one past
it, and fails where a constant of the packages is in none of the tables.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limit:
    """One limit.

    Attributes:
        what: As a user would say it.
        constant: "module.NAME".
        unit: Of the number; "bytes" are shown as KiB or MiB.
        past: What happens past it.
        why: Why there is one, and why it is this one.
        test: What tries it, where that is not a case of `test_limits.py`.
    """

    what: str
    constant: str
    unit: str
    past: str
    why: str
    test: str = ""


REFUSED = "InvalidArgumentError"
BOMBS = "tests/moss_local/test_office_bombs.py::"

LIMITS = [
    Limit(
        "name of a session or a project",
        "moss_sync.limits.MAX_NAME_BYTES",
        "bytes",
        REFUSED,
        "it stands in every manifest",
    ),
    Limit(
        "id of a document",
        "moss_sync.limits.MAX_ID_BYTES",
        "bytes",
        REFUSED,
        "it stays, as a tombstone, after the document is gone",
    ),
    Limit(
        "text of a document",
        "moss_sync.limits.MAX_TEXT_BYTES",
        "bytes",
        REFUSED,
        "a turn or a chunk is not a book; four such fields fit a segment",
    ),
    Limit(
        "payload of a document",
        "moss_sync.limits.MAX_PAYLOAD_BYTES",
        "bytes",
        REFUSED,
        "as the text",
    ),
    Limit(
        "metadata of a document, keys and values together",
        "moss_sync.limits.MAX_METADATA_BYTES",
        "bytes",
        REFUSED,
        "as the text",
    ),
    Limit(
        "dimensions of a vector",
        "moss_sync.limits.MAX_DIMENSIONS",
        "numbers",
        REFUSED,
        "sqlite-vec's own; NaN, infinite and zero vectors are refused at any size",
    ),
    Limit(
        "`top_k`, `limit`",
        "moss_local.options.MAX_TOP_K",
        "documents",
        REFUSED,
        "more than a session has that anybody searches",
    ),
    Limit(
        "`context`",
        "moss_local.options.MAX_CONTEXT",
        "turns on each side",
        REFUSED,
        "more is reading the thread: `get_docs`",
    ),
    Limit(
        "words of a query: characters read",
        "moss_local.search.keywords.MAX_QUERY_CHARS",
        "characters",
        "the rest is not searched for by word",
        "a pasted page is a query too, and must not take seconds",
    ),
    Limit(
        "words of a query: different ones",
        "moss_local.search.keywords.MAX_QUERY_TERMS",
        "terms",
        "the rest is not searched for by word",
        "each is one pass over its postings",
    ),
    Limit(
        "levels of a filter",
        "moss_local.search.filters.MAX_DEPTH",
        "levels",
        REFUSED,
        "people write three; a program that writes more has a loop",
    ),
    Limit(
        "conditions of a filter",
        "moss_local.search.filters.MAX_CONDITIONS",
        "conditions",
        REFUSED,
        "each costs a pass over the documents",
    ),
    Limit(
        "values of `$in` and `$nin` in a filter",
        "moss_local.search.filters.MAX_VALUES",
        "values",
        REFUSED,
        "an allow-list of ids fits",
    ),
    Limit(
        "sessions of one `query_multi`",
        "moss_local.querying.MAX_SESSIONS",
        "sessions",
        REFUSED,
        "as many files are open at a time",
    ),
    Limit(
        "sessions at a time of one `sync_sessions`",
        "moss_local.rounds.MAX_AT_ONCE",
        "sessions",
        REFUSED,
        "each has its file and its requests open",
    ),
    Limit(
        "files of one `create_index_from_files`",
        "moss_local.file_input.MAX_FILES",
        "files",
        REFUSED,
        "the hosted SDK's",
    ),
    Limit(
        "a file that is read",
        "moss_local.ingest.MAX_FILE_BYTES",
        "bytes",
        REFUSED,
        "it is read whole; more is no one text",
    ),
    Limit(
        "a chunk of a chunker of your own",
        "moss_local.ingest.MAX_CHUNK_CHARS",
        "characters",
        REFUSED,
        "the hosted SDK's",
    ),
    Limit(
        "pages of a PDF",
        "moss_local.office.MAX_PAGES",
        "pages",
        REFUSED,
        "five times the longest printed book",
        "tests/moss_local/test_office.py::test_what_cannot_be_read_says_why",
    ),
    Limit(
        "text in a PDF or DOCX",
        "moss_local.office.MAX_TEXT_CHARS",
        "characters",
        REFUSED,
        "four times the Bible; with the next ones it keeps the reader of a DOCX below 512 MiB",
        "tests/moss_local/test_office.py::test_what_cannot_be_read_says_why",
    ),
    Limit(
        "the parts of a DOCX that have text, unpacked",
        "moss_local.docx_text.MAX_UNPACKED_BYTES",
        "bytes",
        REFUSED,
        "a thousand pages have a tenth of it; pictures are not unpacked",
        f"{BOMBS}test_what_a_docx_unpacks_to_is_bounded",
    ),
    Limit(
        "paragraphs, cells and styles of a DOCX",
        "moss_local.docx_text.MAX_LINES",
        "of them",
        REFUSED,
        "a long book has 20 000",
        f"{BOMBS}test_a_docx_takes_no_more_memory_than_stated",
    ),
    Limit(
        "elements of a DOCX inside each other",
        "moss_local.docx_text.MAX_DEPTH",
        "levels",
        REFUSED,
        "Word nests tables a few dozen times",
        f"{BOMBS}test_a_docx_takes_no_more_memory_than_stated",
    ),
    Limit(
        "a tag of a DOCX with its attributes",
        "moss_local.docx_text.MAX_TAG_BYTES",
        "bytes",
        REFUSED,
        "a small picture may stand in one",
        f"{BOMBS}test_a_docx_takes_no_more_memory_than_stated",
    ),
    Limit(
        "different names of elements and attributes in a part of a DOCX",
        "moss_local.docx_text.MAX_NAMES",
        "names",
        REFUSED,
        "the parser keeps them; Word has some thousands",
        f"{BOMBS}test_a_docx_takes_no_more_memory_than_stated",
    ),
    Limit(
        "the zip directory of a DOCX",
        "moss_local.docx_text.MAX_DIRECTORY_BYTES",
        "bytes",
        REFUSED,
        "all of it is taken into memory; some ten thousand entries",
        f"{BOMBS}test_the_directory_of_a_docx_is_bounded",
    ),
    Limit(
        "address space of the process that reads a PDF",
        "moss_local.office.MAX_READER_BYTES",
        "bytes",
        REFUSED,
        "ten times what a thousand pages take; enforced by Linux, not by macOS and Windows",
        f"{BOMBS}test_a_pdf_that_wants_more_memory_or_time_than_it_may_have_is_refused_by_name",
    ),
    Limit(
        "processor time of the process that reads a PDF",
        "moss_local.office.MAX_READER_SECONDS",
        "seconds",
        REFUSED,
        "a thousand pages take 4 s; enforced by Linux and macOS",
        f"{BOMBS}test_a_pdf_that_wants_more_memory_or_time_than_it_may_have_is_refused_by_name",
    ),
    Limit(
        "a frame of an exported session, packed and unpacked",
        "moss_local.portable.MAX_FRAME_BYTES",
        "bytes",
        "SnapshotCorruptError",
        "what a reader of it holds at a time",
        "tests/moss_local/test_portable.py::test_what_somebody_else_has_made_is_refused",
    ),
    Limit(
        "the description of a model folder",
        "moss_local.embedding.model_files.MAX_DESCRIPTION_BYTES",
        "bytes",
        REFUSED,
        "a page of JSON has two",
    ),
    Limit(
        "a blob of a store",
        "moss_sync.stores.base.MAX_BLOB_BYTES",
        "bytes",
        "BlobCorruptError, before it is read",
        "larger than any that is written, and what each of eight reads at once may take;"
        " docs/format.md has the limits inside",
        "tests/moss_sync/test_stores_s3_wire.py::test_a_body_over_the_limit_is_not_even_read",
    ),
    Limit(
        "a key of a store",
        "moss_sync.stores.keys.MAX_KEY_CHARS",
        "characters",
        REFUSED,
        "file systems and S3 take at least this",
        "tests/moss_sync/test_stores_keys.py",
    ),
]

INSIDE = {
    "moss_local.changes.MAX_SPANS": "own writes that are told apart",
    "moss_local.chunking.MAX_CHARS": "of an option, told by its error",
    "moss_local.chunking.MAX_DEPTH": "of an option, told by its error",
    "moss_local.cli.checkup.MAX_CLOCK_OFFSET_MS": "when doctor warns",
    "moss_local.embedding.model_files.MAX_DIM": "of a model folder, told by its error",
    "moss_local.embedding.model_files.MAX_TOKENS": "of a model folder, told by its error",
    "moss_local.jobs.MAX_ENDED": "ended jobs that are remembered",
    "moss_local.key_strength.MAX_CHARS": "of a key, looked at for a warning only",
    "moss_local.search.columns.MAX_COLUMNS": "columns kept in memory; more come from SQL",
    "moss_local.search.columns.MAX_TABLES": "tables kept in memory",
    "moss_local.search.postings.MAX_TERM_BYTES": "FTS5's own",
    "moss_local.search.readings.MAX_DECIMAL_CHARS": "longer is text, not a number",
    "moss_local.search.turns.MAX_NAME_CHARS": "longer is no speaker's name",
    "moss_local.search.turns.MAX_NAME_TERMS": "more words are no speaker's name",
    "moss_local.storage.checkup.MAX_FINDINGS": "lines that doctor shows",
    "moss_local.storage.file.MAX_IDLE_READERS": "connections kept",
    "moss_local.storage.file.MAX_OPEN_FILES": "files open at a time; others are opened again",
    "moss_local.storage.file_keys.MAX_KEY_FILE_BYTES": "a larger one is damaged, and told as such",
    "moss_local.storage.file_keys.MAX_SLOTS": "more is damage, and told as such",
    "moss_local.storage.leaves.MAX_RECORD_BYTES": "a longer one in a damaged file is damage",
    "moss_sync.channel.MAX_BACKOFF_S": "a wait",
    "moss_sync.channel.MAX_LIST_PAGES": "a store that lists on and on is given up",
    "moss_sync.channel.MAX_REREADS": "tries",
    "moss_sync.channel.MAX_WAITING_PAGES": "a listing in which others are looked for",
    "moss_sync.engine.MAX_COMMITS_MADE": "a name that states more was made up",
    "moss_sync.engine.MAX_ERASURES": "tries",
    "moss_sync.engine.MAX_MISSED_REWRITES": "tries",
    "moss_sync.exchange.MAX_ATTEMPTS": "tries",
    "moss_sync.exchange.MAX_REFETCHES": "tries",
    "moss_sync.hlc.MAX_STAMP": "of the number itself",
    "moss_sync.key_check.MAX_CHECKS_BYTES": "a longer one here is damaged, told as such",
    "moss_sync.key_check.MAX_FORMER": "keys of before that a wrong one is compared with",
    "moss_sync.layout.MAX_BASE": "of the number itself",
    "moss_sync.layout.MAX_PUSH": "of the number itself",
    "moss_sync.log_engine.MAX_RELISTS": "tries",
    "moss_sync.log_view.MAX_VIEW_BYTES": "of what this device has kept itself",
    "moss_sync.packing.MAX_UINT": "of the number itself",
    "moss_sync.probe.MAX_CHECK_CHARS": "of a stored verdict; one past it is none",
    "moss_sync.probe.MAX_ROUNDS": "of a stored verdict; one past it is none",
    "moss_sync.repository.MAX_REMEMBERED_BYTES": "a longer one here is damaged",
    "moss_sync.seal.MAX_EPOCH": "of the number itself",
    "moss_sync.stores.keys.MAX_LIST_KEYS": "a page of a listing",
    "moss_sync.stores.listing.MAX_LISTED": "a store that names blobs without end is given up",
    "moss_sync.stores.s3.MAX_LIST_PAGES": "a server that lists on and on is given up",
    "moss_sync.stores.s3.MAX_RETRY_AFTER_S": "a wait",
    "moss_sync.stores.s3_client.MAX_ANSWER_BYTES": "of a server's answer, told by its error",
    "moss_sync.stores.s3_client.MAX_CONNECTIONS": "connections",
    "moss_sync.stores.s3_client.MAX_ERROR_BYTES": "of a server's error; the rest is not read",
    "moss_sync.times.MAX_DRIFT_MS": "a stamp that is further ahead is cut, never refused",
    "moss_sync.times.MAX_TIME_MS": "of times, which nobody hands in",
}
"""Constants that bound nothing that anybody hands in, and what they are."""
