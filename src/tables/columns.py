"""The roles of a file's columns, and a check that the files of a source fit together."""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from src.core.errors import InputError, closest
from src.tables import examples
from src.tables.places import File

Columns = dict[str, list[str | None]]

NUMBERED = "#"  # in place of the column of ids, if none is called so: rows are numbered

log = logging.getLogger("src.tables.columns")


class IdsError(InputError):
    """The column of ids is missing, or two rows have one id."""


def doubled(columns: Sequence[str]) -> str:
    """Return a name that several columns have, "" for none."""
    return min((name for name in columns if columns.count(name) > 1), default="")


@dataclass(frozen=True)
class Roles:
    """The columns of texts, labels and ids, as the params name them."""

    text: str  # "" if no column has a role
    label: str
    ids: str  # "" for ``id`` where there is one, ``NUMBERED`` for none
    _headers: dict[str, list[str]] = field(default_factory=dict)  # of the files read so far

    def check(self) -> None:
        """Stop if one column has two roles."""
        named = [name for name in (self.text, self.label, self.ids) if name]
        if len(set(named)) < len(named):
            raise InputError(
                f"load.text_column, label_column and id_column are {named}: name a column of its "
                "own for each."
            )

    def find(self, found: Sequence[str], file: File) -> dict[str, str]:
        """Return the column of each role: the one that is named, or else one that is nearly so.

        Raises:
            InputError: there is none.
        """
        if not self.text:
            return {}
        roles = {}
        wanted = {"text": self.text, "label": self.label}
        named = self.ids or "id" in map(examples.fold, found)
        if named and not self.numbers(found):
            wanted["id"] = self.ids or "id"
        for role, column in wanted.items():
            alike = [name for name in found if examples.fold(name) == examples.fold(column)]
            if column not in found and len(alike) == 1:
                log.warning("%s: column %r is taken for %r", file, alike[0], column)
                roles[role] = alike[0]
            elif column in found:
                roles[role] = column
            else:
                _refuse_column(role, column, found, file)
        return roles

    def numbers(self, columns: Collection[str]) -> bool:
        """Tell whether rows of these columns are numbered although there may be ids."""
        return self.ids == NUMBERED and NUMBERED not in columns

    def name(
        self, columns: Columns, roles: dict[str, str], rows: int
    ) -> tuple[Columns, frozenset[str]]:
        """Name columns ``id text label`` by their roles, and the others as none of these.

        A column without a role keeps its name, unless it is one of these three.

        Returns:
            The columns, and the names of those that are called an id but are not in that role.
        """
        if not roles:
            return dict(columns), frozenset()
        further = set()
        named = {role: columns.get(column, [None] * rows) for role, column in roles.items()}
        for column, values in columns.items():
            if column not in roles.values():
                free = column
                while free in examples.COLUMNS or (free != column and free in columns):
                    free = f"source_{free}"
                named[free] = values
                if examples.fold(column) == "id":
                    further.add(free)
        return named, frozenset(further)

    def check_header(self, header: Sequence[str], file: File) -> None:
        """Stop if two columns of a table have one name, or another table has other columns."""
        if not header:
            raise InputError(f"{file} has blank lines alone: add a header and rows.")
        if name := doubled(header):
            places = [str(k) for k, column in enumerate(header, 1) if column == name]
            raise InputError(
                f"{file} has several columns {name!r}, numbers {' and '.join(places)}: rename all "
                "but one."
            )
        for other, columns in self._headers.items():
            if set(columns) != set(header):
                differing = set(columns) ^ set(header)
                odd = next((n for n in (self.label, "label") if n in differing), min(differing))
                has, lacks = (other, file) if odd in columns else (file, other)
                raise InputError(
                    f"{has} has a column {odd!r} that {lacks} lacks: rename or remove it, or leave "
                    f"{lacks} out if its texts have no labels."
                )
        self._headers[file.name] = list(header)

    def compare_keys(self, keys: Sequence[str], file: File) -> None:
        """Warn if the objects of another file have other keys."""
        for other, found in self._headers.items():
            if odd := sorted(set(found) ^ set(keys)):
                log.warning("%s and %s do not have the same keys: %s", other, file, ", ".join(odd))
        self._headers[file.name] = list(keys)


def refuse_one_column(column: str, found: Sequence[str], file: str) -> None:
    """Stop if a table has one column only, for its fields have another sign between them.

    ``column`` is the one that is missed, "" for none.
    """
    if len(found) == 1:
        others = {"tab" if d == "\t" else repr(d): found[0].count(d) for d in ",;\t|"}
        seen = max(others, key=others.__getitem__)
        if others[seen]:
            raise InputError(
                f"{file} has {f'no column {column!r} but ' if column else ''}one column only, "
                f"{found[0]!r}, with {seen} in it {others[seen]} times: set load.delimiter to it"
                f"{', or load.format to tsv' if seen == 'tab' else ''}."
            )


def _refuse_column(role: str, column: str, found: Sequence[str], file: File) -> None:
    refuse_one_column(column, found, str(file))
    kind = IdsError if role == "id" else InputError
    raise kind(
        f"{file} has no column {column!r}, but {', '.join(map(repr, found))}"
        f"{closest(column, found)}: set load.{role}_column to the right one."
    )
