"""Bring conversations into one form, set unusable ones apart, and divide the others."""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa

from src.chat import conversations, data_page, models, self_cognition
from src.chat.conversations import Conversation
from src.chat.formats import Format
from src.chat.reading import Kept, Reader, Rejected
from src.chat.rendering import Renderer
from src.core import stage
from src.core.command_line import Count, Interval, Natural, Seed, Share
from src.core.errors import InputError
from src.core.files import replacing, scratch, write_json
from src.tables import delimited, examples, sources
from src.tables.examples import SPLITS

SHOWN = 200  # characters of what can't be used that are kept

log = logging.getLogger("src.chat.data")


def main(
    watched: Path,
    base: Path,
    divided: Path,
    rejected: Path,
    quality: Path,
    page: Path,
    *,
    source: list[str],
    test_source: list[str],
    max_bytes: Count,
    format: Format,
    name: str,
    author: str,
    name_zh: str,
    author_zh: str,
    self_cognition_rows: Natural,
    max_rows: Natural,
    system: str,
    duplicates: Literal["drop", "keep"],
    max_dropped_fraction: Annotated[float, Interval(ge=0, le=1)],
    max_length: Count,
    too_long: Literal["keep", "drop"],
    strategy: Literal["drawn", "hash"],
    validation_size: Share,
    test_size: Share,
    seed: Seed,
) -> None:
    """Write ``train validation test .jsonl``, a page about them, and what can't be used.

    Args:
        watched: the folder whose files DVC watches for changes.
        base: the folder of the model, whose tokens are counted.
        divided: the folder that gets the three files.
        rejected: the csv file that gets file, line, code and reason of what can't be used.
        quality: the JSON file that gets the figures.
        page: the page in Markdown.
    """
    if validation_size + test_size >= 1:
        raise InputError(
            f"data.validation_size and data.test_size, {validation_size:g} + {test_size:g}, leave "
            "nothing to train on: make them sum to less than 1."
        )
    names = {"en": (name, author), "zh": (name_zh or name, author_zh or author)}
    sources.warn_of_unwatched([*source, *test_source], watched)
    renderer = Renderer(models.tokenizer(base))
    reader = Reader(renderer, format, names, system, max_length)
    with scratch(divided.parent / "data") as folder:
        places = {"data.source": source, "data.test_source": test_source}
        reader.read(places, folder, max_bytes, max_rows, seed)
    for one in self_cognition.conversations(self_cognition_rows, names, seed):
        reader.add(one)
    if duplicates == "drop":
        reader.drop_repeated()
    if too_long == "drop":
        reader.drop_longer()
    with replacing(rejected) as file:
        _write(reader.rejected, file)
    _refuse_losses(reader, max_dropped_fraction, rejected)
    sides = _divide(reader.kept, strategy, [validation_size, test_size], seed)
    read = reader.rows.total()
    figures = data_page.figures(reader.kept, sides, read, reader.dropped, max_length)
    with replacing(divided) as made_folder:
        made_folder.mkdir()
        for side, called in enumerate(SPLITS):
            found = zip(reader.kept, sides, strict=True)
            rows = [one.conversation for one, place in found if place == side]
            if not rows:
                raise InputError(
                    f"The division leaves no conversations for {called}: add some, or change the "
                    "sizes in section data."
                )
            conversations.write(rows, made_folder / f"{called}.jsonl")
            log.info("%s: %d conversations, %s", called, len(rows), _by_source(rows))
    with replacing(quality) as file, replacing(page) as text:
        write_json(file, figures)
        written = data_page.page(figures)
        text.write_text(written, encoding="utf-8", newline="\n")


def _divide(kept: Sequence[Kept], strategy: str, sizes: Sequence[float], seed: int) -> list[int]:
    """Choose a side for each, as a place in ``SPLITS``; those whose users ask the same are on one.

    Args:
        kept: conversations.
        strategy: drawn or hash.
        sizes: the shares of validation and test.
        seed: of the draw.
    """
    texts = pa.array([one.conversation.asked() for one in kept], pa.string())
    asked = examples.hash_rows({"asked": texts}).tolist()
    places: dict[int, float] = {}  # of what is asked, from 0 to 1
    by_source: dict[str, dict[int, None]] = {}
    for key, one in zip(asked, kept, strict=True):
        by_source.setdefault(one.conversation.source, {}).setdefault(key)
    for source, keys in sorted(by_source.items()):
        # The same share of each source, whatever its size: from a random start, evenly apart.
        draw = np.random.default_rng([seed, *source.encode()])
        order, start = draw.permutation(len(keys)), draw.random()
        for key, place in zip(keys, (order + start) / len(keys), strict=True):
            places.setdefault(key, key / 2**64 if strategy == "hash" else place)
    tested = {key for key, one in zip(asked, kept, strict=True) if one.side == "test"}
    ends = np.cumsum([1 - sum(sizes), *sizes])[:2]
    return [
        SPLITS.index("test") if key in tested else int(np.searchsorted(ends, places[key], "right"))
        for key in asked
    ]


def _refuse_losses(reader: Reader, most: float, rejected: Path) -> None:
    for setting, total in reader.rows.items():  # each alone: what tests would hide what trains
        counts = Counter(one.code for one in reader.rejected if one.setting == setting)
        if counts.total() > most * total:
            found = ", ".join(f"{count} {code}" for code, count in counts.items())
            raise InputError(
                f"{counts.total()} of {total} conversations of {setting} can't be used ({found}), "
                f"more than data.max_dropped_fraction {most:g} allows: correct those that "
                f"{rejected} lists, or raise it."
            )
    if not reader.kept:
        raise InputError(
            "There are no conversations left: add places to data.source, or correct what "
            f"{rejected} lists."
        )


def _write(rejected: Sequence[Rejected], path: Path) -> None:
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        rows = delimited.writer(file)
        rows.writerow(["file", "line", "code", "reason"])
        rows.writerows([one.file, one.line, one.code, one.reason[:SHOWN]] for one in rejected)


def _by_source(rows: Sequence[Conversation]) -> dict[str, int]:
    return dict(sorted(Counter(one.source for one in rows).items()))


if __name__ == "__main__":
    stage.run(main)
