"""Documents out of JSON and text files, with errors that name the line and the key.

Rules of this file: values in, values out; nothing is read or written here. JSON is read strictly:
a key that was meant and misspelt would lose what stood under it.

What metadata becomes: a string stays, `30` becomes "30", `30.0` "30.0", `1e-7` "0.0000001", `true`
"true"; an integer id becomes its digits. Anything else is refused.
What holds: tests/moss_local/test_inputs.py.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, NoReturn

from moss_local.types import DocumentInfo
from moss_sync import InvalidArgumentError

JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
TEXT_SUFFIXES = (".txt", ".md", ".markdown")
MARKDOWN_SUFFIXES = (".md", ".markdown")

_KEYS = ("id", "text", "metadata", "embedding", "payload")


def text_of_file(name: str, data: bytes) -> str:
    """Return the text of a file's bytes, without a byte order mark.

    Raises:
        InvalidArgumentError: not UTF-8; the message says in which line.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidArgumentError(
            f"{name}, line {line}: not UTF-8 at byte {error.start}",
            hint="save the file as UTF-8",
        ) from error


def documents_of_json(text: str, *, source: str) -> list[DocumentInfo]:
    """Return the documents of a JSON array, a single JSON object, JSON Lines, or a blank text.

    Args:
        source: What messages call it.
    Raises:
        InvalidArgumentError: naming the line (or the item of an array) and the key.
    """
    if not text.strip():
        return []
    text = text.rstrip()  # what is cut off ends in its last line, not in an empty one after it
    start = text[: len(text) - len(text.lstrip())].count("\n") + 1
    try:
        whole = _loads(text)
    except json.JSONDecodeError as error:
        # Several lines that are an object each are no JSON document together.
        if text.lstrip().startswith("{") and (error.msg == "Extra data" or _has_lines(text)):
            return documents_of_lines(text.split("\n"), source=source)
        raise _refused(
            source, f"line {error.lineno}", f"not JSON: {error.msg} (column {error.colno})"
        ) from error
    except _NotStrictError as error:
        raise _refused(source, None, str(error)) from None
    if isinstance(whole, dict):
        return [document_of(whole, source=source, place=f"line {start}")]
    if isinstance(whole, list):
        return [document_of(item, source=source, place=f"item {n}") for n, item in enumerate(whole)]
    raise _refused(source, None, f"holds {_kind(whole)}, not documents")


def documents_of_lines(lines: Iterable[str], *, source: str) -> list[DocumentInfo]:
    """Return the documents of JSON Lines; blank lines are passed over.

    Raises:
        InvalidArgumentError: naming the line and the key.
    """
    found: list[DocumentInfo] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            value = _loads(line)
        except json.JSONDecodeError as error:
            raise _refused(
                source, place, f"not JSON: {error.msg} (column {error.colno})"
            ) from error
        except _NotStrictError as error:
            raise _refused(source, place, str(error)) from None
        found.append(document_of(value, source=source, place=place))
    return found


def _has_lines(text: str) -> bool:
    """Return whether some line is a document by itself: then a broken one is a line, too."""
    for line in text.split("\n"):
        if line.lstrip().startswith("{"):
            try:
                value = _loads(line)
            except ValueError:
                continue
            if isinstance(value, dict) and "id" in value:
                return True
    return False


def value_of_json(text: str, *, source: str) -> Any:
    """Return what one JSON document says, read as strictly as documents are.

    Raises:
        InvalidArgumentError: it is none; the message says where.
    """
    try:
        return _loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise _refused(source, place, f"not JSON: {error.msg}") from error
    except _NotStrictError as error:
        raise _refused(source, None, str(error)) from None


def document_of(value: Any, *, source: str, place: str) -> DocumentInfo:
    """Return the document that a decoded JSON object is.

    Raises:
        InvalidArgumentError: naming the key.
    """
    if not isinstance(value, Mapping):
        raise _refused(source, place, f"a document is a JSON object, not {_kind(value)}")
    for key in value:
        if key not in _KEYS:
            raise _refused(source, place, f"unknown key {key!r}", hint=f"keys: {', '.join(_KEYS)}")
    for key in ("id", "text"):
        if key not in value:
            raise _refused(source, place, f"the key {key!r} is missing")
    id, text, payload = value["id"], value["text"], value.get("payload")
    if isinstance(id, int) and not isinstance(id, bool):
        id = str(id)
    if not isinstance(id, str):
        raise _refused(source, place, f"'id' is {_kind(id)}, not a string or a whole number")
    if not isinstance(text, str):
        raise _refused(source, place, f"'text' is {_kind(text)}, not a string")
    if payload is not None and not isinstance(payload, str):
        raise _refused(
            source,
            place,
            f"'payload' is {_kind(payload)}, not a string",
            hint="write structured data as JSON inside a string",
        )
    metadata = _metadata(value.get("metadata"), source, place)
    embedding = _embedding(value.get("embedding"), source, place)
    return DocumentInfo(id, text, metadata, embedding, payload)


def _metadata(value: Any, source: str, place: str) -> dict[str, str] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise _refused(source, place, f"'metadata' is {_kind(value)}, not an object")
    return {key: _metadata_value(key, item, source, place) for key, item in value.items()}


def _metadata_value(key: str, value: Any, source: str, place: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        # Filters compare plain decimals as numbers; with an exponent it would be text to them.
        return format(Decimal(repr(value)), "f")
    raise _refused(
        source,
        place,
        f"metadata {key!r} is {_kind(value)}, not a string, number or boolean",
        hint="write lists and objects as JSON inside a string",
    )


def _embedding(value: Any, source: str, place: str) -> list[float] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise _refused(source, place, f"'embedding' is {_kind(value)}, not an array of numbers")
    for position, item in enumerate(value):
        if isinstance(item, bool) or not isinstance(item, int | float):
            raise _refused(source, place, f"'embedding' has {_kind(item)} at position {position}")
    try:
        return [float(item) for item in value]
    except OverflowError:
        raise _refused(source, place, "'embedding' has a number that is too large") from None


class _NotStrictError(ValueError):
    """Python's JSON reader would take it; it is ambiguous, or no JSON at all."""


def _loads(text: str) -> Any:
    try:
        return json.loads(
            text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_number
        )
    except RecursionError:
        raise _NotStrictError("nested too deeply") from None
    except json.JSONDecodeError:
        raise
    except ValueError as error:
        if isinstance(error, _NotStrictError):
            raise
        raise _NotStrictError("a number has too many digits") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise _NotStrictError(f"the key {key!r} stands twice in one object")
        result[key] = value
    return result


def _constant(name: str) -> NoReturn:
    raise _NotStrictError(f"{name} is not JSON")


def _number(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise _NotStrictError(f"the number {digits[:40]} is too large")
    return value


def _kind(value: Any) -> str:
    names = {bool: "a boolean", str: "a string", int: "a number", float: "a number"}
    if value is None:
        return "null"
    return names.get(type(value), "an array" if isinstance(value, list) else "an object")


def _refused(
    source: str, place: str | None, what: str, *, hint: str | None = None
) -> InvalidArgumentError:
    where = source if place is None else f"{source}, {place}"
    return InvalidArgumentError(f"{where}: {what}", hint=hint)
