"""Mistakes of users, told in one sentence."""

import difflib
from collections.abc import Iterable


class InputError(Exception):
    """A user's mistake, in one sentence: what is wrong, where, and what to do.

    ``core.stage.run`` logs the sentence and exits with 1. Any other exception is a defect of the
    project and keeps its traceback.
    """


def closest(word: str, among: Iterable[str]) -> str:
    """Suggest the likeliest spelling, as part of a sentence: " (did you mean 'text'?)" or ""."""
    lower = {candidate.lower(): candidate for candidate in among}
    match = difflib.get_close_matches(word.lower().strip(), lower, n=1)
    return f" (did you mean {lower[match[0]]!r}?)" if match else ""
