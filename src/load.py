"""Bring labelled texts from where they are into one table, and count what was left out."""

import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from src import examples, stage
from src.formats import Format, Reader
from src.stage import InputError, closest

REASONS = ("empty_text", "no_label", "conflicting_label", "duplicate")
BLANK = r"[\s\u200b-\u200f\u2060\ufeff]*"  # spaces and zero-width characters
NAMED = 20  # dropped rows that the log names

log = logging.getLogger("src.load")


def main(
    watched: Path,
    raw: Path,
    quality: Path,
    *,
    source: str,
    format: Format,
    text_column: str,
    label_column: str,
    id_column: str,
    encoding: list[str],
    delimiter: str,
    quote: str,
    column_names: list[str],
) -> None:
    """Read the source, drop the rows that can't be used, and write the rest.

    Args:
        watched: the folder whose files DVC watches for changes.
        raw: the folder that gets ``examples.parquet``.
        quality: the JSON file that gets the counts; rows = kept + dropped, by reason.
    """
    local = Path(re.split(r"[*?\[]", source.split("::")[-1].removeprefix("file://"))[0])
    if local.exists() and not local.resolve().is_relative_to(watched.resolve()):
        log.warning("DVC can't see when %s changes: move it into %s", source, watched)
    reader = Reader(format, text_column, label_column, encoding, delimiter, quote, column_names)
    frames = dict(_frames(reader, source, id_column))
    if len(frames) > 1:
        frames = {
            name: _freed(frame, ["file"]).assign(file=_stem(name)) for name, frame in frames.items()
        }
    frame = pd.concat(frames.values(), ignore_index=True)
    _refuse_repeated_ids(frame["id"])
    reasons = drop_reasons(frame)
    dropped = {reason: int((reasons == reason).sum()) for reason in REASONS}
    for row, reason in reasons[reasons != ""].head(NAMED).items():
        log.info("dropped %s: %s", frame.at[row, "id"], reason)
    kept = frame[reasons == ""]
    log.info("%d rows: %d kept, dropped %s", len(frame), len(kept), dropped)
    classes = kept["label"].value_counts().sort_index().to_dict()
    if len(classes) < 2:
        raise InputError(
            f"Expected at least 2 classes in column {label_column!r} of {source}, found "
            f"{len(classes)} in the {len(kept)} rows kept of {len(frame)}: add texts of another "
            "class, or correct load.label_column."
        )
    _warn_of_variants(list(map(str, classes)))
    with stage.replacing(raw) as folder, stage.replacing(quality) as counts:
        folder.mkdir()
        examples.write(kept, folder / "examples.parquet")
        summary = {"rows": len(frame), "kept": len(kept), "dropped": dropped, "classes": classes}
        stage.write_json(counts, summary)


def drop_reasons(frame: pd.DataFrame) -> pd.Series:
    """Why each row can't be kept: one of ``REASONS``, or "" for a row that can.

    Of rows that are alike in all but the id the first is kept; of rows that are alike in all but
    id and label, none. The same text in another language, or on another side of a split that the
    source makes, is another row.
    """
    reasons = pd.Series("", index=frame.index)
    reasons[frame["label"].isna() | frame["label"].str.fullmatch(r"\s*", na=False)] = "no_label"
    reasons[frame["text"].isna() | frame["text"].str.fullmatch(BLANK, na=False)] = "empty_text"
    usable = frame[reasons == ""]
    alike = [column for column in frame.columns if column not in ("id", "label")]
    labels_of_text = usable.groupby(alike, dropna=False)["label"].transform("nunique")
    reasons[usable.index[usable.duplicated([*alike, "label"])]] = "duplicate"
    reasons[usable.index[labels_of_text > 1]] = "conflicting_label"
    return reasons


def _warn_of_variants(labels: list[str]) -> None:
    """Labels are kept as they are, but two that differ in case or spaces are likely one."""
    variants: dict[str, list[str]] = {}
    for label in labels:
        variants.setdefault(examples.fold(label), []).append(label)
    for same in variants.values():
        if len(same) > 1:
            log.warning("labels that differ in case, spaces or Unicode form alone: %s", same)


def _freed(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Columns that are called like one of ours keep their values under another name."""
    for name in names:
        free = name
        while free in frame:
            free = f"source_{free}"
        frame = frame.rename(columns={name: free})
    return frame


def _refuse_repeated_ids(ids: pd.Series) -> None:
    if ids.isna().any() or ids.duplicated().any():
        found = "none" if ids.isna().any() else f"{ids[ids.duplicated()].iloc[0]!r} more than once"
        raise InputError(
            f"Expected an id of its own for each row, found {found}: correct load.id_column, or "
            "rename files that have the same name."
        )


def _stem(name: str) -> str:
    return PurePosixPath(name).name.split(".")[0]


def _frames(reader: Reader, source: str, id_column: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """The name and the rows of each file: columns ``id text label``, then the file's others."""
    for name, table in reader.read(source):
        frame = table.to_pandas()
        chosen = {"text": reader.text, "label": reader.label}
        if id_column:
            chosen["id"] = id_column
        elif "id" in frame:
            chosen["id"] = "id"
        for role, column in chosen.items():
            if column not in frame:
                _refuse_column(role, column, list(frame.columns), name)
        if frame.empty:
            raise InputError(f"Expected rows in {name}, found only its header: add labelled texts.")
        taken = frame[list(chosen.values())].set_axis(list(chosen), axis="columns")
        if "id" not in chosen:
            taken["id"] = [f"{_stem(name)}:{row}" for row in range(1, len(frame) + 1)]
        others = _freed(frame.drop(columns=list(chosen.values())), examples.COLUMNS)
        yield name, pd.concat([taken[list(examples.COLUMNS)], others], axis="columns")


def _refuse_column(role: str, column: str, found: list[str], name: str) -> None:
    hint = closest(column, found)
    if len(found) == 1:
        hint = ", and with one column only, load.delimiter may be another"
    raise InputError(
        f"Expected column {column!r} in {name}, found {', '.join(map(repr, found))}{hint}: "
        f"set load.{role}_column to the right one."
    )


if __name__ == "__main__":
    stage.run(main)
