"""Find uses for the further columns: a split, slices, groups."""

from collections.abc import Iterable, Sequence

import pyarrow.parquet as pq

from src.project import params
from src.tables import examples
from src.text.check import guess_columns
from src.text.check.state import Check
from src.text.split_strategies import NAMES

SLICE = 20  # different values of a column whose values get metrics of their own, at most


def _is_split(values: Iterable[object]) -> bool:
    """Tell whether a column says on which side of the split each row is."""
    names = {value.strip().lower() for value in guess_columns.filled(values)}
    return len(names) > 1 and names <= {*NAMES}


def settle(check: Check) -> None:
    """Settle the params for the further columns, and report them."""
    path = check.folder / "raw" / "examples.parquet"
    names = [
        name
        for name in examples.column_names(path)
        if name.strip() and name not in examples.COLUMNS
    ]
    frame = pq.read_table(path, columns=names).to_pandas()
    section = check.params["split"]
    if sides := [name for name in names if _is_split(frame[name])]:
        check.set("split", strategy="predefined", column=sides[0])
    elif section["column"] and section["column"] not in names:
        check.set("split", strategy="stratified", column="")
    if section["train_only"] and section["train_only"][0] not in names:
        check.set("split", train_only=[])
    few = [
        name
        for name in names
        if name not in sides
        and guess_columns.is_label(frame[name])
        and frame[name].nunique() <= SLICE
    ]
    languages = [name for name in few if guess_columns.is_language(frame[name])]
    for stage in ("quality", "evaluate"):
        kept = [name for name in check.params[stage]["slices"] if name in names]
        check.set(stage, slices=list(dict.fromkeys([*kept, *languages])))
    codes = {*guess_columns.filled(frame[languages[0]])} if languages else set()
    present = check.params["card"]["languages"]
    # Codes alone may be of something else, and do not change what a person has said.
    sure = not present or any(map(guess_columns.names_languages, languages[:1]))
    if codes and codes <= guess_columns.CODES and codes != {*present} and sure:
        check.set("card", languages=sorted(codes))
    groups = [
        name
        for name in names
        if name not in few and SLICE < frame[name].nunique() <= len(frame) / 2
    ]
    check.lines += [
        f"  {word:7} {', '.join(found)}{use}"
        for word, found, use in (
            ("split", sides, ""),
            ("slices", few, f", for evaluate.slices{_which(few, check.params['evaluate'])}"),
            ("groups", groups, ", if texts of one value are alike: split.strategy group"),
        )
        if found
    ]


def _which(names: Sequence[str], evaluate: params.Section) -> str:
    """Say which columns are slices, and which may be."""
    chosen = [name for name in names if name in evaluate["slices"]]
    free = [name for name in names if name not in chosen]
    told = [(word, ", ".join(found)) for word, found in (("set", chosen), ("may be added", free))]
    return f" ({'; '.join(f'{word}: {found}' for word, found in told if found)})"
