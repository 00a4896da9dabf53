"""How long a project key that somebody has typed would withstand guessing.

Who can read the store can try keys out at home: no server counts the attempts. What a try costs is
fixed (`moss_sync.project_key`), so all depends on how many tries a key takes, and zxcvbn estimates
that from lists of words, names and patterns. It is imported where a key is chosen, and nowhere
else: the lists take 30 ms and some megabytes.
"""

from __future__ import annotations

from moss_sync.project_key import is_generated

TRIES_PER_S = 10_000
"""A room full of graphics cards: one has the memory for some dozens of tries of 64 MiB at a time,
each of which takes a good part of a second there."""

ENOUGH_S = 100 * 365 * 86_400
"""A century; what would take longer to guess is not spoken of."""

MAX_CHARS = 72
"""Of a key that are looked at; zxcvbn takes no more, and so many are enough in any case."""

_UNITS = ((86_400 * 365, "year"), (86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def weakness_of(key: str, *, project_id: str) -> str | None:
    """Return, as a sentence, how soon a key could be guessed; None if that is of no concern.

    Args:
        project_id: A key that resembles it is weaker.
    """
    if is_generated(key):
        return None
    from zxcvbn import zxcvbn

    guesses = zxcvbn(key[:MAX_CHARS], user_inputs=[project_id])["guesses"]
    seconds = int(guesses) // TRIES_PER_S
    if seconds >= ENOUGH_S:
        return None
    return (
        "this project key can be guessed: whoever can read the store would find it within "
        f"{_shown(seconds)}, at {TRIES_PER_S:,} tries a second (an estimate)"
    )


def _shown(seconds: int) -> str:
    for size, unit in _UNITS:
        if seconds >= size:
            count = seconds // size
            return f"{count:,} {unit}{'s' if count > 1 else ''}"
    return "a second"
