"""Count what the transformer's tokenizer makes of the texts, and which scripts they are in."""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tokenizers import Tokenizer

from src.core.errors import InputError
from src.core.packages import package_path
from src.text.findings import Survey

IDEOGRAPHS = re.compile("[\u3040-\u30ff\u3400-\u9fff]")  # of which each may well be a token
SPELLED = 1.5  # characters a token, below which words are read letter by letter
LONG = 200  # characters from which a word is none
# Scripts of languages that put no spaces between words, in Unicode's names.
WITHOUT_SPACES = (
    *("CJK", "HIRAGANA", "KATAKANA", "BOPOMOFO", "YI", "THAI", "LAO", "KHMER", "MYANMAR"),
    *("TIBETAN", "JAVANESE", "BALINESE", "TAI"),
)
UNSPACED = 20  # characters from which a text of a language with spaces has one

Counts = npt.NDArray[np.int64]


def tokens(
    survey: Survey,
    sample: pa.Table,
    slices: Sequence[str],
    checkpoint: str,
    max_length: int,
    max_unknown: float,
) -> None:
    """Count tokens: how many a text has, and what the tokenizer does not know of each part."""
    tokenizer = _tokenizer(checkpoint)
    length, unknown, characters = _count(tokenizer, sample)
    over = round(float((length > max_length).mean()), 6)
    lost = round(float(np.maximum(length - max_length, 0).sum() / max(1, length.sum())), 6)
    special = tokenizer.num_special_tokens_to_add(False)
    shares: dict[str, float] = {}
    density: dict[str, float] = {}  # characters a token, in texts of letters
    for name, rows in _parts(sample, ["label", *slices]):
        # A tokenizer without a token for what it does not know leaves nothing of a text.
        nothing = float((length[rows] <= special).mean())
        share = max(float(unknown[rows].sum() / max(1, length[rows].sum())), nothing)
        shares[name] = round(share, 6)
        if name != "all" and share > max_unknown:
            survey.find("unknown_tokens", part=name, share=shares[name], checkpoint=checkpoint)
        letters = rows & (characters > 0)
        count = int((length[letters] - special).sum())
        if not count:
            continue
        density[name] = float(characters[letters].sum() / count)
        # What is so everywhere is said once.
        if density[name] < SPELLED and (name == "all" or density["all"] >= SPELLED):
            found = round(density[name], 2)
            survey.find("letter_by_letter", part=name, characters=found, checkpoint=checkpoint)
    survey.figures["tokens"] = {
        "texts": len(length),
        "median": float(np.median(length)),
        "over_max_length": over,
        "lost": lost,
        "unknown": shares,
        "characters": {name: round(found, 2) for name, found in density.items()},
    }
    if (length > max_length).any():
        survey.find("over_max_length", share=over, lost=lost, max_length=max_length)


def _count(tokenizer: Tokenizer, sample: pa.Table) -> tuple[Counts, Counts, Counts]:
    """Count the tokens, the unknown ones and the characters of each text.

    Characters of texts that are mostly ideographs count as none: each may well be a token.
    """
    tokenizer.no_truncation()
    tokenizer.no_padding()
    unknown_id = _unknown_id(tokenizer)
    lengths, unknown, spelled = [], [], []
    for table in sample.to_batches(max_chunksize=1000):
        texts = table["text"].to_pylist()
        for text, encoding in zip(texts, tokenizer.encode_batch_fast(texts), strict=True):
            lengths.append(len(encoding.ids))
            unknown.append(encoding.ids.count(unknown_id) if unknown_id is not None else 0)
            signs = len("".join(text.split()))
            spelled.append(0 if 2 * len(IDEOGRAPHS.findall(text)) > signs else signs)
    return np.array(lengths), np.array(unknown), np.array(spelled)


def _parts(sample: pa.Table, columns: Sequence[str]) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    """Yield a name and which rows they are, for all texts and those of each value of columns."""
    yield "all", np.ones(len(sample), np.bool_)
    for column in dict.fromkeys(columns):
        encoded = sample[column].fill_null("(none)").combine_chunks().dictionary_encode()
        codes = encoded.indices.to_numpy()
        for code, value in sorted(enumerate(encoded.dictionary.to_pylist()), key=lambda v: v[1]):
            yield f"{column}={value}", codes == code


def _tokenizer(checkpoint: str) -> Tokenizer:
    place = Path(package_path(checkpoint))
    try:
        if place.is_dir():
            return Tokenizer.from_file(str(place / "tokenizer.json"))
        return Tokenizer.from_pretrained(checkpoint)
    except Exception as error:  # the class of what tokenizers raises
        if type(error) is not Exception and not isinstance(error, (OSError, ValueError)):
            raise
        raise InputError(
            f"Can't load tokenizer.json of {checkpoint} ({error}): correct quality.checkpoint."
        ) from error


def _unknown_id(tokenizer: Tokenizer) -> int | None:
    model = json.loads(tokenizer.to_str())["model"]
    if model.get("unk_id") is not None:
        return int(model["unk_id"])
    token = model.get("unk_token")
    return None if token is None else tokenizer.token_to_id(token)


@cache
def _script(character: str) -> str:
    """Name the script of a letter: the first word of its name in Unicode."""
    return unicodedata.name(character, "UNNAMED").split()[0].split("-")[0]


def scripts(survey: Survey, sample: pa.Table, expected: Sequence[str]) -> None:
    """Count the letters of each script, and texts without spaces."""
    letters: Counter[str] = Counter()
    unspaced = words = long = 0
    texts = sample["text"].to_pylist()
    for text in texts:
        own = Counter(_script(c) for c in text if c.isalpha())
        letters += own
        if len(text) >= UNSPACED and not any(map(str.isspace, text.strip())):
            unspaced += 1
            if 2 * sum(own[name] for name in WITHOUT_SPACES) <= own.total():
                words += 1
                long += len(text) > LONG
    total = max(1, letters.total())
    shares = {name: count / total for name, count in letters.most_common() if count > total / 1000}
    survey.figures["scripts"] = {name: round(share, 4) for name, share in shares.items()}
    survey.figures["unspaced"] = round(unspaced / len(texts), 6)
    # One word says nothing of a language with spaces, unless most texts are such, as genes are.
    if unspaced - words > len(texts) / 20 or unspaced > len(texts) / 2:
        survey.find("unspaced", share=round(unspaced / len(texts), 6))
    if long and unspaced <= len(texts) / 2:
        survey.find("long_words", texts=long, longest=LONG)
    wanted = {name.upper() for name in expected}
    others = {name: share for name, share in shares.items() if name not in wanted}
    share = sum(others.values())
    if expected and share > 1 / 20:
        names = {"scripts": [*others], "expected": [*expected]}
        survey.find("other_scripts", share=round(share, 6), **names)
