"""Bring questions and documents into one form, divide them, and find what sets share."""

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from src.core import stage
from src.core.command_line import Count, Interval, Natural, Seed, Share
from src.core.errors import InputError
from src.core.files import replacing, scratch, write_json
from src.predict.reader.documents import passages, pieces
from src.qa import dividing, ingest_page, reading
from src.qa.reading import Found, Rejected
from src.qa.squad import RESERVED, SETS, Paragraph, Questions
from src.tables import delimited, sources

SHOWN = 200  # characters of what can't be used that are kept
NAME = re.compile(r"[a-z][a-z0-9_-]{0,40}")

log = logging.getLogger("src.qa.ingest")


def main(
    watched: Path,
    sets: Path,
    rejected: Path,
    quality: Path,
    page: Path,
    *,
    source: list[str],
    target: list[str],
    further: list[str],
    documents: list[str],
    max_bytes: Count,
    min_overlap: Annotated[float, Interval(ge=0, le=1)],
    max_dropped_fraction: Annotated[float, Interval(ge=0, le=1)],
    max_paragraph: Natural,
    document_paragraph: Annotated[int, Interval(ge=100)],
    leaks: Literal["drop", "keep"],
    validation_size: Share,
    adapt_size: Annotated[float, Interval(ge=0, lt=1)],
    seed: Seed,
) -> None:
    """Write each set as SQuAD's JSON, a page about them, and what can't be used.

    Args:
        watched: the folder whose files DVC watches for changes.
        sets: the folder that gets train, validation, adapt, test, documents and further sets.
        rejected: the csv file that gets file, place, code and reason of what can't be used.
        quality: the JSON file that gets the figures.
        page: the page in Markdown.
    """
    named = _named(further)
    places = {"ingest.source": source, "ingest.target": target}
    places |= {f"ingest.further, {name}": [place] for name, place in named.items()}
    sources.warn_of_unwatched([one for listed in places.values() for one in listed], watched)
    with scratch(sets.parent / "sets") as folder:
        found = {
            setting: _read(setting, listed, folder, max_bytes, min_overlap, max_paragraph)
            for setting, listed in places.items()
        }
        unlabelled = _documents(documents, folder, max_bytes, document_paragraph)
    with replacing(rejected) as file:
        _write(found, file)
    for setting, each in found.items():
        _refuse_losses(setting, each, max_dropped_fraction, rejected)
    train, validation = dividing.by_document(
        found["ingest.source"].questions, validation_size, seed, "ingest.validation_size"
    )
    test, adapt = dividing.by_document(
        found["ingest.target"].questions, adapt_size, seed, "ingest.adapt_size"
    )
    made = {"train": train, "validation": validation, "adapt": adapt, "test": test}
    made["documents"] = unlabelled
    made |= {name: found[f"ingest.further, {name}"].questions for name in named}
    shared = _leaks(made, leaks)
    with replacing(sets) as made_folder:
        made_folder.mkdir()
        for name, one in made.items():
            one.write(made_folder / f"{name}.json")
    figures = ingest_page.figures(made, found, shared)
    with replacing(quality) as file, replacing(page) as text:
        write_json(file, figures)
        text.write_text(ingest_page.page(figures), encoding="utf-8", newline="\n")
    for name, one in made.items():
        log.info(
            "%s: %d questions on %d paragraphs of %d documents",
            *(name, len(one.questions), len(one.paragraphs), len(one.documents())),
        )


def _named(further: Sequence[str]) -> dict[str, str]:
    """Read entries of a name and a place."""
    found: dict[str, str] = {}
    for entry in further:
        name, _, place = entry.partition(" ")
        if not NAME.fullmatch(name) or name in (*RESERVED, *found) or not place.strip():
            raise InputError(
                f"ingest.further has {entry!r}: expected a name of its own in small letters, a "
                "space, and a path or URL, as in 'reddit data/qa/source/reddit.json'."
            )
        found[name] = place.strip()
    return found


def _read(
    setting: str,
    listed: Sequence[str],
    folder: Path,
    max_bytes: int,
    min_overlap: float,
    max_paragraph: int,
) -> Found:
    place = folder / re.sub(r"\W+", "-", setting)
    place.mkdir()
    param = setting.split(",")[0]
    found = reading.read(sources.find(listed, place, "", max_bytes, param), min_overlap)
    found.questions, lost = dividing.shortened(found.questions, max_paragraph)
    found.rejected += [
        Rejected(setting, one.id, "answer_divided", "its answer lies in two paragraphs")
        for one in lost
    ]
    return found


def _documents(listed: Sequence[str], folder: Path, max_bytes: int, size: int) -> Questions:
    """Read documents without questions."""
    made = Questions()
    if not listed:
        return made
    numbers: Counter[str] = Counter()  # of files of one name
    (place := folder / "documents").mkdir()
    for file in sources.find(listed, place, "", max_bytes, "ingest.documents"):
        with file.open() as stream:
            content = stream.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise InputError(f"{file} has more than {max_bytes} bytes: raise ingest.max_bytes.")
        name = Path(file.name).name
        numbers[name] += 1
        title = f"{name} ({numbers[name]})" if numbers[name] > 1 else name
        for one in pieces(passages(str(file), content), size):
            made.paragraphs.append(Paragraph(title, one.text, one.place))
    return made


def _leaks(made: dict[str, Questions], do: str) -> dict[str, int]:
    """Find paragraphs to learn from that are tested too, and drop them if that is wanted."""
    tested = [one for name, one in made.items() if name not in SETS or name == "test"]
    shared: dict[str, int] = {}
    for name in ("train", "validation", "adapt"):
        rows = dividing.leaks(made[name], tested)
        shared[name] = len(rows)
        if rows and do == "drop":
            made[name] = dividing.without(made[name], rows)
            log.warning(
                "%s: %d paragraphs are those of a test, or nearly, and left out", name, len(rows)
            )
        elif rows:
            log.warning("%s: %d paragraphs are those of a test, or nearly", name, len(rows))
    if not made["train"].questions:
        raise InputError(
            "All that ingest.source has is in a test as well: name other sources, or set "
            "ingest.leaks to keep."
        )
    return shared


def _refuse_losses(setting: str, found: Found, most: float, rejected: Path) -> None:
    counts = Counter(one.code for one in found.rejected)
    if counts.total() > most * found.read:
        listed = ", ".join(f"{count} {code}" for code, count in counts.items())
        raise InputError(
            f"{counts.total()} of {found.read} questions of {setting} can't be used ({listed}), "
            f"more than ingest.max_dropped_fraction {most:g} allows: correct those that {rejected} "
            "lists, or raise it."
        )
    if not found.questions.questions:
        raise InputError(f"There are no questions in {setting}: add some.")


def _write(found: Mapping[str, Found], path: Path) -> None:
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        rows = delimited.writer(file)
        rows.writerow(["file", "place", "code", "reason"])
        for each in found.values():
            rows.writerows(
                [one.file, one.place, one.code, one.reason[:SHOWN]] for one in each.rejected
            )


if __name__ == "__main__":
    stage.run(main)
