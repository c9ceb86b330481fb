"""Words of every script, as patterns: letters, digits and what belongs to them."""

import itertools
import unicodedata


def _joined() -> str:
    r"""Return what goes on with a word, as ranges of a character class.

    These are the marks that Unicode combines with letters, such as the vowel signs of Indic
    scripts, and the joiners within words of Persian and these. Python counts neither as ``\w``.
    """
    places = (*range(0x1F000), *range(0xE0000, 0xE0200))  # there are none elsewhere
    marks = [c for c in places if unicodedata.category(chr(c))[0] == "M"]
    marks += [ord("\u200c"), ord("\u200d")]
    runs = itertools.groupby(enumerate(sorted(marks)), key=lambda pair: pair[1] - pair[0])
    ends = [(run[0][1], run[-1][1]) for run in (list(run) for _, run in runs)]
    return "".join(chr(a) if a == b else f"{chr(a)}-{chr(b)}" for a, b in ends)


JOINED = _joined()
WORD = rf"(?u)\w[\w{JOINED}]*"
# Of two characters or more, as scikit-learn takes them; for its pattern and for a tokenizer's.
LONGER = rf"(?u)\w[\w{JOINED}]+"
TOKENIZERS_LONGER = rf"[\p{{L}}\p{{N}}_][\p{{L}}\p{{N}}_{JOINED}]+"
