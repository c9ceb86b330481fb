"""Bring conversations into one form, set unusable ones apart, and divide the others."""

import csv
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa

from src.chat import conversations, data_page, formats, models, self_cognition
from src.chat.conversations import Code, Conversation, UnusableError
from src.chat.formats import Format
from src.chat.rendering import Renderer
from src.core import stage
from src.core.command_line import Count, Interval, Natural, Seed, Share
from src.core.errors import InputError
from src.core.files import replacing, scratch, write_json
from src.tables import examples, sources
from src.tables.examples import SPLITS
from src.tables.places import File

SHOWN = 200  # characters of what can't be used that are kept
NAMED = 10  # of those that the log names

log = logging.getLogger("src.chat.data")


@dataclass(frozen=True)
class Rejected:
    """What can't be used, by its place."""

    file: str
    line: int
    code: Code
    reason: str


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
    reader = Reader(format, names, system, max_bytes, max_rows, seed)
    with scratch(divided.parent / "data") as folder:
        reader.read(source, "data.source", folder, "")
        reader.read(test_source, "data.test_source", folder, "test")
    made = self_cognition.conversations(self_cognition_rows, names, seed)
    reader.kept += [(reader.with_system(one), "") for one in made]
    if duplicates == "drop":
        reader.drop_repeated()
    renderer = Renderer(models.tokenizer(base))
    measured = [data_page.measure(renderer, one, max_length) for one, _ in reader.kept]
    if too_long == "drop":
        kept = [found.tokens <= max_length for found in measured]
        reader.tell("too_long", len(kept) - sum(kept))
        reader.kept = [one for one, is_kept in zip(reader.kept, kept, strict=True) if is_kept]
        measured = [one for one, is_kept in zip(measured, kept, strict=True) if is_kept]
    with replacing(rejected) as file:
        _write(reader.rejected, file)
    _refuse_losses(reader, max_dropped_fraction, rejected)
    sides = _divide(reader.kept, strategy, [validation_size, test_size], seed)
    figures = data_page.figures(
        [one for one, _ in reader.kept], measured, sides, reader.counts, max_length
    )
    with replacing(divided) as made_folder:
        made_folder.mkdir()
        for side, called in enumerate(SPLITS):
            rows = [
                one for (one, _), place in zip(reader.kept, sides, strict=True) if place == side
            ]
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


class Reader:
    """Reads sources, and keeps what can be used."""

    def __init__(
        self,
        format: Format,
        names: dict[str, tuple[str, str]],
        system: str,
        max_bytes: int,
        max_rows: int,
        seed: int,
    ) -> None:
        """Read by the params of these names."""
        self.kept: list[tuple[Conversation, str]] = []  # with the side that it must be on, or ""
        self.rejected: list[Rejected] = []
        self.counts: Counter[str] = Counter()
        self._format = format
        self._names, self._system = names, system
        self._max_bytes, self._max_rows, self._seed = max_bytes, max_rows, seed

    def read(self, source: Sequence[str], setting: str, folder: Path, side: str) -> None:
        """Read the files of sources, whose rows are all on a side if it is named."""
        if not source:
            return
        files = self._find(source, setting, folder / (side or "divided"))
        answers: dict[str, Any] = {}
        asked = []
        for file in files:
            if (found := formats.answers_of(file)) is None:
                asked.append(file)
            else:
                answers |= found
        for file, called in zip(asked, _called(asked), strict=True):
            before, rows = len(self.kept), self.counts["rows"]
            drawn = [*self._read(file, called, answers)]
            if self.counts["rows"] == rows:
                raise InputError(
                    f"{file} has no conversations: add some, or take it out of {setting}."
                )
            if self._max_rows and len(drawn) > self._max_rows:
                chosen = np.random.default_rng(self._seed).permutation(len(drawn))[: self._max_rows]
                self.tell("beyond_max_rows", len(drawn) - self._max_rows)
                drawn = [drawn[k] for k in sorted(chosen)]
            self.kept += [(one, side) for one in drawn]
            log.info("%s: %d of %d", file, len(self.kept) - before, self.counts["rows"] - rows)

    def _find(self, source: Sequence[str], setting: str, folder: Path) -> list[File]:
        """Find the files of each place; the one file of a place goes by the name of the place."""
        found: list[File] = []
        for number, place in enumerate(source):
            (below := folder / str(number)).mkdir(parents=True)
            files = sources.find([place], below, "", self._max_bytes, setting)
            found += [replace(files[0], name=place)] if len(files) == 1 else files
        paths = [file.path.resolve() for file in found]
        if twice := next((file for file in found if paths.count(file.path.resolve()) > 1), None):
            raise InputError(f"{twice} is in {setting} twice: take one of them out.")
        return found

    def _read(self, file: File, called: str, answers: dict[str, Any]) -> Iterator[Conversation]:
        for number, raw in enumerate(formats.read(file, self._format, answers), 1):
            self.counts["rows"] += 1
            try:
                if isinstance(raw.found, UnusableError):
                    raise raw.found
                found = Conversation.parse(self._named(raw.found))
            except UnusableError as error:
                self.counts[error.code] += 1
                self.rejected.append(Rejected(str(file), raw.line, error.code, str(error)))
                if len(self.rejected) <= NAMED:
                    log.warning("%s, line %d: %s", file, raw.line, error)
                continue
            yield self.with_system(
                replace(found, id=found.id or f"{called}:{number}", source=called)
            )

    def _named(self, found: Any) -> Any:
        """Put the name and the author where a source has {{name}} and {{author}}."""
        turns = found.get("conversations")
        said = str(turns)
        if "{{name}}" not in said and "{{author}}" not in said:
            return found
        name, author = self._names["zh" if _is_chinese(said) else "en"]

        def filled(turn: Any) -> Any:
            if not isinstance(turn, dict) or not isinstance(turn.get("content"), str):
                return turn
            content = turn["content"].replace("{{name}}", name).replace("{{author}}", author)
            return turn | {"content": content}

        return found | {"conversations": [filled(turn) for turn in turns]}

    def with_system(self, one: Conversation) -> Conversation:
        """Begin a conversation with the system message, unless it has one."""
        if not self._system or one.turns[0].role == "system":
            return one
        return replace(one, turns=(conversations.Turn("system", self._system, False), *one.turns))

    def drop_repeated(self) -> None:
        """Keep the first of equal conversations; of those on two sides, the one on test."""
        keys = [str((one.turns, one.tools)) for one, _ in self.kept]
        tested = {key for key, (_, side) in zip(keys, self.kept, strict=True) if side}
        seen: set[str] = set()
        kept = []
        for key, (one, side) in zip(keys, self.kept, strict=True):
            if key not in seen and (side or key not in tested):
                kept.append((one, side))
                seen.add(key)
        self.tell("duplicate", len(self.kept) - len(kept))
        self.kept = kept

    def tell(self, code: str, count: int) -> None:
        """Count what is left out for a reason that is no fault of one row."""
        self.counts[code] += count


def _is_chinese(text: str) -> bool:
    return any("\u4e00" <= character <= "\u9fff" for character in text)


def _called(files: Sequence[File]) -> list[str]:
    """Name files as short as tells them apart."""
    names = [Path(file.name).name for file in files]
    return [
        name if names.count(name) == 1 else "/".join(Path(file.name).parts[-2:])
        for name, file in zip(names, files, strict=True)
    ]


def _divide(
    kept: Sequence[tuple[Conversation, str]], strategy: str, sizes: Sequence[float], seed: int
) -> list[int]:
    """Choose a side for each, as a place in ``SPLITS``; those whose users ask the same are on one.

    Args:
        kept: conversations, and the side that each must be on or "".
        strategy: drawn or hash.
        sizes: the shares of validation and test.
        seed: of the draw.
    """
    texts = pa.array([one.asked() for one, _ in kept], pa.string())
    asked = examples.hash_rows({"asked": texts}).tolist()
    places: dict[int, float] = {}  # of what is asked, from 0 to 1
    by_source: dict[str, dict[int, None]] = {}
    for key, (one, _) in zip(asked, kept, strict=True):
        by_source.setdefault(one.source, {}).setdefault(key)
    for source, keys in sorted(by_source.items()):
        # The same share of each source, whatever its size: from a random start, evenly apart.
        draw = np.random.default_rng([seed, *source.encode()])
        order, start = draw.permutation(len(keys)), draw.random()
        for key, place in zip(keys, (order + start) / len(keys), strict=True):
            places.setdefault(key, key / 2**64 if strategy == "hash" else place)
    tested = {key for key, (_, side) in zip(asked, kept, strict=True) if side == "test"}
    ends = np.cumsum([1 - sum(sizes), *sizes])[:2]
    return [
        SPLITS.index("test") if key in tested else int(np.searchsorted(ends, places[key], "right"))
        for key in asked
    ]


def _refuse_losses(reader: Reader, most: float, rejected: Path) -> None:
    total, lost = reader.counts["rows"], len(reader.rejected)
    if lost > most * total:
        counts = Counter(one.code for one in reader.rejected)
        found = ", ".join(f"{count} {code}" for code, count in counts.items())
        raise InputError(
            f"{lost} of {total} conversations can't be used ({found}), more than "
            f"data.max_dropped_fraction {most:g} allows: correct those that {rejected} lists, or "
            "raise it."
        )
    if not reader.kept:
        raise InputError("There are no conversations: add places to data.source.")


def _write(rejected: Sequence[Rejected], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["file", "line", "code", "reason"])
        rows.writerows([one.file, one.line, one.code, one.reason[:SHOWN]] for one in rejected)


def _by_source(rows: Sequence[Conversation]) -> dict[str, int]:
    return dict(sorted(Counter(one.source for one in rows).items()))


if __name__ == "__main__":
    stage.run(main)
