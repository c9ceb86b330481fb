"""Look over the texts before anything is trained on them, and report what a person should know."""

import json
import logging
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from datasketch import MinHash, MinHashLSH
from ftfy.badness import is_bad
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import CountVectorizer
from tokenizers import Tokenizer

from src.core import markdown, stage
from src.core.command_line import Count, Interval, Share
from src.core.errors import InputError, closest
from src.core.files import replacing, write_json
from src.core.packages import package_path
from src.tables import examples
from src.tables.examples import Hashes
from src.text.findings import Finding, sentence

DIRECTED = r"[\x{202A}-\x{202E}\x{2066}-\x{2069}\x{E0000}-\x{E007F}]"  # bidi overrides and tags
SHINGLE = 3  # words that near duplicates are compared by
HASHES = 64  # of a MinHash; similarity is estimated within about 0.06
FOUND = 5  # examples of a finding that the page names
WORD = r"(?u)\b\w+\b"  # of one character too
LEAK = 0.99  # precision and recall of one word for one label
LEAK_TEXTS = 10  # of a label that a word may tell
ID_LIKE = 0.9  # share of texts that are one word with a digit in it
UNSPACED = 20  # characters from which a text of a language with spaces has one
IDEOGRAPHS = re.compile("[\u3040-\u30ff\u3400-\u9fff]")  # of which each may well be a token
SPELLED = 1.5  # characters a token, below which words are read letter by letter
FEWEST = 3  # texts of a class, one for each side of a split
BAR = 24  # characters of the longest bar

log = logging.getLogger("src.text.quality")


def main(
    raw: Path,
    quality: Path,
    page: Path,
    *,
    texts: Count,
    slices: list[str],
    scripts: list[str],
    near_duplicates: Annotated[float, Interval(ge=0, le=1)],
    max_imbalance: Annotated[float, Interval(ge=1)],
    max_unknown: Share,
    checkpoint: str,
    max_length: Annotated[int, Interval(ge=4)],
    max_characters: Count,
) -> None:
    """Write the figures that a reviewer compares, and a page about them.

    Args:
        raw: the folder with ``examples.parquet`` and ``counts.json``.
        quality: the JSON file that gets the figures.
        page: the Markdown file that gets the same for a person, with examples.
    """
    path = raw / "examples.parquet"
    found = examples.column_names(path)
    for column in slices:
        if column not in found:
            raise InputError(
                f"quality.slices has {column!r}: expected columns of the source, which are "
                f"{', '.join(found)}{closest(column, found)}."
            )
    counts = json.loads((raw / "counts.json").read_text(encoding="utf-8"))
    report = Report(counts.pop("source"), counts)
    step = max(1, -(-counts["kept"] // texts))
    sample = _scan(path, report, slices, step, max_characters)
    log.info("%d of %d texts are looked at in detail", len(sample), counts["kept"])
    _labels(report, max_imbalance)
    _tokens(report, sample, slices, checkpoint, max_length, max_unknown)
    _scripts(report, sample, scripts)
    _leaks(report, sample)
    if near_duplicates:
        _near_duplicates(report, sample, near_duplicates)
    report.figures |= {"warnings": len(report.findings), "findings": report.findings}
    for finding in report.findings:
        log.warning("%s", sentence(finding))
    with replacing(quality) as figures, replacing(page) as text:
        write_json(figures, report.figures)
        text.write_text(_page(report, checkpoint, max_length), encoding="utf-8", newline="\n")


@dataclass
class Report:
    """What was found.

    Attributes:
        source: where the texts come from.
        figures: numbers by name, in groups.
        findings: what is likely wrong.
        examples: texts that show it, by the name of the figure.
    """

    source: list[str]
    figures: dict[str, Any]
    findings: list[Finding] = field(default_factory=list)
    examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def find(self, code: str, **values: Any) -> None:
        """Note something that is likely wrong, with the values that its sentence takes."""
        self.findings.append({"code": code, **values})

    def show(self, name: str, text: str) -> None:
        """Keep a text as an example, unless there are enough."""
        if len(self.examples[name]) < FOUND:
            self.examples[name].append(text)


def _scan(
    path: Path, report: Report, slices: Sequence[str], step: int, max_characters: int
) -> pa.Table:
    """Count what every row is looked at for, and return each ``step``-th row."""
    mojibake = directed = row = 0
    chosen: list[pa.Table] = []
    hashes: list[Hashes] = []
    codes: list[npt.NDArray[np.int32]] = []
    known: dict[str, int] = {}
    for table in examples.scan(path, list(dict.fromkeys(["text", "label", *slices]))):
        texts = table["text"]
        strings = texts.to_numpy()
        hashes.append(pd.util.hash_array(strings, categorize=False))
        labels = table["label"].to_pylist()
        codes.append(np.array([known.setdefault(n, len(known)) for n in labels], np.int32))
        for text in texts.filter(pc.invert(pc.string_is_ascii(texts))).to_pylist():
            if is_bad(text[:max_characters]):
                mojibake += 1
                report.show("mojibake", text)
        overrides = texts.filter(pc.match_substring_regex(texts, DIRECTED))
        directed += len(overrides)
        for text in overrides[:FOUND].to_pylist():
            report.show("directed", text)
        some = table.take(pa.array(range(-row % step, len(table), step), pa.int64()))
        cut = pc.utf8_slice_codeunits(some["text"], 0, max_characters)
        chosen.append(some.set_column(0, "text", cut))
        row += len(table)
    _repeated(report, np.concatenate(hashes), np.concatenate(codes), path)
    report.figures |= {"mojibake": mojibake, "directed": directed}
    if mojibake:
        report.find("mojibake", texts=mojibake)
    if directed:
        report.find("directed", texts=directed)
    return pa.concat_tables(chosen)


def _repeated(report: Report, texts: Hashes, labels: npt.NDArray[np.int32], path: Path) -> None:
    """Texts that stand in several rows, whose other columns differ, for load dropped the rest."""
    repeated = conflicting = 0
    pairs: dict[str, list[tuple[int, int]]] = {"repeated": [], "conflicting": []}
    for rows in examples.partitions(texts):
        order = rows[np.lexsort((labels[rows], texts[rows]))]
        same_text = np.diff(texts[order]) == 0
        other_label = same_text & (np.diff(labels[order]) != 0)
        repeated += int(same_text.sum())
        conflicting += int(other_label.sum())
        for name, found in (("repeated", same_text & ~other_label), ("conflicting", other_label)):
            for k in np.flatnonzero(found)[:FOUND].tolist():
                pairs[name].append((int(order[k]), int(order[k + 1])))
    report.figures |= {"repeated": repeated, "conflicting": conflicting}
    if not repeated:
        return
    report.find("repeated", texts=repeated, conflicting=conflicting)
    for name, places in pairs.items():
        chosen = sorted(tuple(sorted(pair)) for pair in places)[:FOUND]
        rows_of = _rows(path, {row for pair in chosen for row in pair})
        for first, second in chosen:
            text = rows_of[first]["text"]
            ids = " and ".join(
                f"{rows_of[k]['id']} ({rows_of[k]['label']})" for k in (first, second)
            )
            report.show(name, f"{ids}: {text[:200]}")


def _rows(path: Path, numbers: Collection[int]) -> dict[int, dict[str, str]]:
    """Some rows of the examples, by their number."""
    found: dict[int, dict[str, str]] = {}
    start = 0
    for table in examples.scan(path, examples.COLUMNS):
        here = sorted(row for row in numbers if start <= row < start + len(table))
        part = table.take(pa.array([row - start for row in here], pa.int64())).to_pylist()
        found |= dict(zip(here, part, strict=True))
        start += len(table)
    return found


def _labels(report: Report, max_imbalance: float) -> None:
    classes = report.figures["classes"]
    imbalance = max(classes.values()) / min(classes.values())
    variants = defaultdict(list)
    for label in classes:
        variants[_same(label)].append(label)
    alike = [labels for labels in variants.values() if len(labels) > 1]
    report.figures |= {"imbalance": round(imbalance, 2), "label_variants": len(alike)}
    alone = sum(count == 1 for count in classes.values())
    small = [label for label, count in classes.items() if count < FEWEST]
    if small:
        report.find("small_classes", classes=len(small), fewest=FEWEST, example=small[0])
    if alone > len(classes) / 2:
        report.find("single_texts", classes=alone, of=len(classes))
    if imbalance > max_imbalance:
        report.find("imbalance", times=round(imbalance, 2))
    for labels in alike:
        report.find("label_variants", labels=labels)


def _same(label: str) -> str:
    """What labels share that a person would hardly tell apart: 01 and 1, 1.0 and 1, True, true."""
    folded = examples.fold(label)
    try:
        number = float(folded)
    except ValueError:
        return folded
    return repr(number)


def _tokens(
    report: Report,
    sample: pa.Table,
    slices: Sequence[str],
    checkpoint: str,
    max_length: int,
    max_unknown: float,
) -> None:
    """What the transformer's tokenizer makes of the texts."""
    tokenizer = _tokenizer(checkpoint)
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
    length, missed, characters = np.array(lengths), np.array(unknown), np.array(spelled)
    over = float((length > max_length).mean())
    lost = float(np.maximum(length - max_length, 0).sum() / length.sum())
    special = tokenizer.num_special_tokens_to_add(False)
    shares: dict[str, float] = {}
    density: dict[str, float] = {}  # characters a token, in texts of letters
    for name, rows in _parts(sample, ["label", *slices]):
        shares[name] = float(missed[rows].sum() / length[rows].sum())
        letters = rows & (characters > 0)
        tokens = int((length[letters] - special).sum())
        if tokens:
            density[name] = float(characters[letters].sum() / tokens)
        if name != "all" and shares[name] > max_unknown:
            share = round(shares[name], 6)
            report.find("unknown_tokens", part=name, share=share, checkpoint=checkpoint)
        # What is so everywhere is said once.
        if density.get(name, SPELLED) < SPELLED and (name == "all" or density["all"] >= SPELLED):
            found = round(density[name], 2)
            report.find("letter_by_letter", part=name, characters=found, checkpoint=checkpoint)
    report.figures["tokens"] = {
        "texts": len(length),
        "median": float(np.median(length)),
        "over_max_length": round(over, 6),
        "lost": round(lost, 6),
        "unknown": {name: round(share, 6) for name, share in shares.items()},
        "characters": {name: round(found, 2) for name, found in density.items()},
    }
    if over > 0:
        cut = {"share": round(over, 6), "lost": round(lost, 6), "max_length": max_length}
        report.find("over_max_length", **cut)


def _parts(sample: pa.Table, columns: Sequence[str]) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    """All texts, and those of each value of the columns: a name, and which rows they are."""
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
            f"Expected a tokenizer.json at {checkpoint}, found: {error}; correct "
            "quality.checkpoint."
        ) from error


def _unknown_id(tokenizer: Tokenizer) -> int | None:
    model = json.loads(tokenizer.to_str())["model"]
    if model.get("unk_id") is not None:
        return int(model["unk_id"])
    token = model.get("unk_token")
    return None if token is None else tokenizer.token_to_id(token)


@cache
def _script(character: str) -> str:
    """The script of a letter: the first word of its name in Unicode."""
    return unicodedata.name(character, "UNNAMED").split()[0].split("-")[0]


def _scripts(report: Report, sample: pa.Table, expected: Sequence[str]) -> None:
    letters: Counter[str] = Counter()
    unspaced = 0
    texts = sample["text"].to_pylist()
    for text in texts:
        letters.update(_script(c) for c in text if c.isalpha())
        unspaced += len(text) >= UNSPACED and not any(map(str.isspace, text.strip()))
    total = max(1, letters.total())
    shares = {name: count / total for name, count in letters.most_common() if count > total / 1000}
    report.figures["scripts"] = {name: round(share, 4) for name, share in shares.items()}
    report.figures["unspaced"] = round(unspaced / len(texts), 6)
    if unspaced > len(texts) / 20:
        report.find("unspaced", share=round(unspaced / len(texts), 6))
    wanted = {name.upper() for name in expected}
    others = {name: share for name, share in shares.items() if name not in wanted}
    share = sum(others.values())
    if expected and share > 1 / 20:
        scripts = {"scripts": [*others], "expected": [*expected]}
        report.find("other_scripts", share=round(share, 6), **scripts)


def _leaks(report: Report, sample: pa.Table) -> None:
    """Words that stand in nearly all texts of one label and in hardly any other."""
    texts, labels = sample["text"].to_pylist(), np.array(sample["label"].to_pylist())
    values, codes = np.unique(labels, return_inverse=True)
    names = values.tolist()
    leaks: list[dict[str, str]] = []
    try:
        words = CountVectorizer(binary=True, min_df=2, token_pattern=WORD)
        stands = words.fit_transform(texts)
    except ValueError:  # no word at all, or none in two texts
        stands = None
    if stands is not None:
        rows = np.arange(len(texts))
        of_label = csr_array((np.ones(len(texts)), (codes, rows)), shape=(len(names), len(texts)))
        texts_of = np.bincount(codes)
        both = (of_label @ stands).tocoo()
        precision = both.data / np.asarray(stands.sum(axis=0)).ravel()[both.col]
        recall = both.data / texts_of[both.row]
        found = (np.minimum(precision, recall) > LEAK) & (texts_of[both.row] >= LEAK_TEXTS)
        vocabulary = words.get_feature_names_out()
        leaks = [
            {"word": str(vocabulary[word]), "label": names[label]}
            for label, word in zip(both.row[found], both.col[found], strict=True)
        ]
    report.figures["leaks"] = len(leaks)
    if leaks:
        report.find("leaks", words=leaks[:FOUND])
    id_like = [t for t in texts if len(t.split()) == 1 and any(map(str.isdigit, t))]
    if len(id_like) > ID_LIKE * len(texts):
        report.find("id_like", example=id_like[0][:60])


def _near_duplicates(report: Report, sample: pa.Table, similarity: float) -> None:
    """Texts whose sets of three-word sequences are alike (MinHash, Broder 1997)."""
    index = MinHashLSH(threshold=similarity, num_perm=HASHES)
    kept: dict[int, MinHash] = {}
    seen: set[str] = set()
    near = 0
    for row, text in enumerate(sample["text"].to_pylist()):
        folded = examples.fold(text)
        if folded in seen:  # equal texts never part in the split
            continue
        seen.add(folded)
        words = folded.split()
        shingles = {
            " ".join(words[k : k + SHINGLE]) for k in range(max(1, len(words) - SHINGLE + 1))
        }
        sketch = MinHash(HASHES, seed=1)
        sketch.update_batch([shingle.encode() for shingle in shingles])
        twins = [k for k in index.query(sketch) if sketch.jaccard(kept[k]) >= similarity]
        if twins:
            near += 1
            earlier = sample["text"][min(twins)].as_py()
            report.show("near_duplicates", f"{earlier[:150]} | {text[:150]}")
        else:  # one of many that are alike is enough to find the others by
            index.insert(row, sketch)
            kept[row] = sketch
    report.figures["near_duplicates"] = near
    if near:
        report.find("near_duplicates", texts=near, of=len(sample))


def _page(report: Report, checkpoint: str, max_length: int) -> str:
    figures = report.figures
    places = ", ".join(map(markdown.code, report.source))
    rows = f"{figures['rows']} rows came in from {places}, {figures['kept']} were kept."
    lines = ["# The data", "", rows, ""]
    if report.findings:
        lines += ["## What to look at", "", *(f"- {sentence(f)}" for f in report.findings), ""]
    dropped = {reason: count for reason, count in figures["dropped"].items() if count}
    if dropped:
        lines += ["## Dropped", "", _bars("reason", dropped), ""]
        lines += ["Each of these rows stands in `data/rejected.csv`, with its file and line.", ""]
    lines += ["## Classes", "", _bars("class", figures["classes"]), ""]
    tokens = figures["tokens"]
    unknown = [
        [markdown.code(name), f"{100 * share:.2f} %", str(tokens["characters"].get(name, ""))]
        for name, share in tokens["unknown"].items()
    ]
    scripts = [[name, f"{100 * share:.1f} %"] for name, share in figures["scripts"].items()]
    lines += [
        *("## Tokens", ""),
        f"Of {tokens['texts']} texts, by the tokenizer of `{checkpoint}`: the median text has "
        f"{tokens['median']:.0f} tokens, {100 * tokens['over_max_length']:.1f} % have more than "
        f"{max_length}, and {100 * tokens['lost']:.1f} % of all tokens are not read.",
        "",
        markdown.table(["texts", "unknown tokens", "characters a token"], unknown),
        *("", "## Scripts", "", markdown.table(["script", "letters"], scripts), ""),
    ]
    for name, texts in report.examples.items():
        lines += [f"## Examples: {name.replace('_', ' ')}", ""]
        lines += [f"- {markdown.code(text[:300])}" for text in texts] + [""]
    return "\n".join(lines)


def _bars(head: str, counts: Mapping[str, int]) -> str:
    """A table with a bar for each count."""
    most = max(counts.values())
    rows = [
        [markdown.code(name), str(count), "█" * round(BAR * count / most)]
        for name, count in counts.items()
    ]
    return markdown.table([head, "texts", ""], rows)


if __name__ == "__main__":
    stage.run(main)
