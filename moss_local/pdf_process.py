"""A process of its own that reads one PDF, with a limit to its memory and its time.

Not imported but run (`office` starts it), and importing nothing of this package: a PDF is a program
for its reader, and of what a small one makes the reader build no count inside this process is
certain. Takes a line of JSON with the limits and then the file on stdin; answers with a line of
JSON for each page, and one that says how it ended.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from typing import Any


def main() -> None:
    """Read what stdin has, and say on stdout what it says."""
    wanted = json.loads(sys.stdin.buffer.readline())
    data = sys.stdin.buffer.read()
    sys.path[:] = wanted["path"]
    _limit(wanted["max_bytes"], wanted["max_seconds"])
    out = io.TextIOWrapper(sys.stdout.buffer, "utf-8", newline="\n")
    for answer in _answers(data, wanted["max_pages"], wanted["max_chars"]):
        json.dump(answer, out, ensure_ascii=False)
        out.write("\n")
    out.flush()


def _limit(max_bytes: int, max_seconds: int) -> None:
    """Let the system end this process past its limits, where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    for kind, limit in ((resource.RLIMIT_AS, max_bytes), (resource.RLIMIT_CPU, max_seconds)):
        _, highest = resource.getrlimit(kind)
        wanted = limit if highest == resource.RLIM_INFINITY else min(limit, highest)
        try:
            resource.setrlimit(kind, (wanted, highest))
        except (ValueError, OSError):  # macOS has no limit of the address space
            continue


def _answers(data: bytes, max_pages: int, max_chars: int) -> Iterator[dict[str, Any]]:
    from pypdf import PdfReader

    try:
        reader = PdfReader(io.BytesIO(data))
        # Many are encrypted under no password, only to forbid printing.
        if reader.is_encrypted and not reader.decrypt(""):
            yield {"end": "encrypted"}
            return
        if len(reader.pages) > max_pages:
            yield {"end": "pages"}
            return
        for page in reader.pages:
            text = _without_surrogates(page.extract_text() or "")
            max_chars -= len(text)
            if max_chars < 0:
                yield {"end": "chars"}
                return
            yield {"text": text}
    except MemoryError:
        raise
    # It raises whatever it stumbles over: KeyError, RecursionError, errors of its own.
    except Exception as error:
        yield {"end": "damaged", "error": type(error).__name__}
        return
    yield {"end": "read"}


def _without_surrogates(text: str) -> str:
    """Return what a PDF with a broken table of characters says, where it can be stored at all."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


if __name__ == "__main__":
    main()
