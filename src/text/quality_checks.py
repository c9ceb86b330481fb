"""Look for what makes a score misleading: broken, repeated, leaking and odd texts and labels."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from datasketch import MinHash, MinHashLSH
from ftfy.badness import is_bad
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import CountVectorizer

from src.core.words import WORD
from src.tables import examples
from src.tables.examples import Hashes
from src.text.findings import Survey

NAMED = 5  # words that tell a label, and rows that repeat another
DIRECTED = r"[\x{202A}-\x{202E}\x{2066}-\x{2069}\x{E0000}-\x{E007F}]"  # bidi overrides and tags
FEWEST = 3  # texts of a class, one for each side of a split
LEAK = 0.99  # precision and recall of one word for one label
LEAK_TEXTS = 10  # of a label that a word may tell
ID_LIKE = 0.9  # share of texts that are one word with a digit in it
SHINGLE = 3  # words that near duplicates are compared by
HASHES = 64  # of a MinHash; similarity is estimated within about 0.06


def scan(
    path: Path, survey: Survey, slices: Sequence[str], step: int, max_characters: int
) -> pa.Table:
    """Check every row for broken, odd and repeated texts, and return each ``step``-th row."""
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
                survey.show("mojibake", text)
        overrides = texts.filter(pc.match_substring_regex(texts, DIRECTED))
        directed += len(overrides)
        for text in overrides[:NAMED].to_pylist():
            survey.show("directed", text)
        some = table.take(pa.array(range(-row % step, len(table), step), pa.int64()))
        cut = pc.utf8_slice_codeunits(some["text"], 0, max_characters)
        chosen.append(some.set_column(0, "text", cut))
        row += len(table)
    _repeated(survey, np.concatenate(hashes), np.concatenate(codes), path)
    survey.figures |= {"mojibake": mojibake, "directed": directed}
    if mojibake:
        survey.find("mojibake", texts=mojibake)
    if directed:
        survey.find("directed", texts=directed)
    return pa.concat_tables(chosen)


def _repeated(survey: Survey, texts: Hashes, labels: npt.NDArray[np.int32], path: Path) -> None:
    """Count texts of several rows whose other columns differ, for load dropped the rest."""
    repeated = conflicting = 0
    pairs: dict[str, list[tuple[int, int]]] = {"repeated": [], "conflicting": []}
    for rows in examples.partitions(texts):
        order = rows[np.lexsort((labels[rows], texts[rows]))]
        same_text = np.diff(texts[order]) == 0
        other_label = same_text & (np.diff(labels[order]) != 0)
        repeated += int(same_text.sum())
        conflicting += int(other_label.sum())
        for name, found in (("repeated", same_text & ~other_label), ("conflicting", other_label)):
            for k in np.flatnonzero(found)[:NAMED].tolist():
                pairs[name].append((int(order[k]), int(order[k + 1])))
    survey.figures |= {"repeated": repeated, "conflicting": conflicting}
    if not repeated:
        return
    survey.find("repeated", texts=repeated, conflicting=conflicting)
    for name, places in pairs.items():
        chosen = sorted(tuple(sorted(pair)) for pair in places)[:NAMED]
        rows_of = _rows(path, {row for pair in chosen for row in pair})
        for first, second in chosen:
            text = rows_of[first]["text"]
            ids = " and ".join(
                f"{rows_of[k]['id']} ({rows_of[k]['label']})" for k in (first, second)
            )
            survey.show(name, f"{ids}: {text[:200]}")


def _rows(path: Path, numbers: Collection[int]) -> dict[int, dict[str, str]]:
    found: dict[int, dict[str, str]] = {}
    start = 0
    for table in examples.scan(path, examples.COLUMNS):
        here = sorted(row for row in numbers if start <= row < start + len(table))
        part = table.take(pa.array([row - start for row in here], pa.int64())).to_pylist()
        found |= dict(zip(here, part, strict=True))
        start += len(table)
    return found


def labels(survey: Survey, max_imbalance: float) -> None:
    """Check the sizes of the classes, and look for labels that may be one."""
    classes = survey.figures["classes"]
    imbalance = max(classes.values()) / min(classes.values())
    variants = defaultdict(list)
    for label in classes:
        variants[_same(label)].append(label)
    alike = [labels for labels in variants.values() if len(labels) > 1]
    survey.figures |= {"imbalance": round(imbalance, 2), "label_variants": len(alike)}
    alone = sum(count == 1 for count in classes.values())
    small = [label for label, count in classes.items() if count < FEWEST]
    if small:
        survey.find("small_classes", classes=len(small), fewest=FEWEST, example=small[0])
    if alone > len(classes) / 2:
        survey.find("single_texts", classes=alone, of=len(classes))
    if imbalance > max_imbalance:
        survey.find("imbalance", times=round(imbalance, 2))
    for labels in alike:
        survey.find("label_variants", labels=labels)


def _same(label: str) -> str:
    """Reduce a label to what those share that are hard to tell apart: 01 and 1, True and true."""
    folded = examples.fold(label)
    try:
        number = float(folded)
    except ValueError:
        return folded
    return repr(number)


def leaks(survey: Survey, sample: pa.Table) -> None:
    """Look for words of nearly all texts of one label and hardly any other, and for ids."""
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
    survey.figures["leaks"] = len(leaks)
    if leaks:
        survey.find("leaks", words=leaks[:NAMED])
    id_like = [t for t in texts if len(t.split()) == 1 and any(map(str.isdigit, t))]
    if len(id_like) > ID_LIKE * len(texts):
        survey.find("id_like", example=id_like[0][:60])


def near_duplicates(survey: Survey, sample: pa.Table, similarity: float) -> None:
    """Count texts whose sets of three-word sequences are alike (MinHash, Broder 1997)."""
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
            survey.show("near_duplicates", f"{earlier[:150]} | {text[:150]}")
        else:  # one of many that are alike is enough to find the others by
            index.insert(row, sketch)
            kept[row] = sketch
    survey.figures["near_duplicates"] = near
    if near:
        survey.find("near_duplicates", texts=near, of=len(sample))
