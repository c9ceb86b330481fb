"""How a table of texts is written: its format, and the form of one that is text."""

from dataclasses import dataclass
from typing import Literal, get_args

from src.core.errors import InputError
from src.tables.places import Place

Format = Literal["csv", "tsv", "jsonl", "parquet"]
FORMATS: tuple[Format, ...] = get_args(Format)


@dataclass(frozen=True)
class Dialect:
    """The form of a CSV file; only the encoding is of TSV and JSON lines too."""

    delimiter: str = ","  # between the fields
    quote: str = '"'  # around a field that holds the delimiter or a line end; "" for none
    encoding: str = "utf-8"

    def refuse_unknown(self) -> None:
        """Raise an ``InputError`` if Python can't read a file of this form."""
        if len(self.delimiter.encode()) != 1 or self.delimiter in "\r\n":
            raise InputError(
                f"--delimiter is {self.delimiter!r}: give one ASCII character, such as ';', or "
                "--format tsv for tabs."
            )
        if len(self.quote.encode()) > 1 or self.quote == self.delimiter:
            raise InputError(
                f"--quote is {self.quote!r}: give one ASCII character that is not the delimiter, "
                "or '' for none."
            )
        try:
            "".encode(self.encoding)
        except (LookupError, ValueError):
            raise InputError(
                f"--encoding is {self.encoding!r}, which Python does not know: give a name such as "
                "utf-8, cp1252 or utf-16."
            ) from None


def own_format(place: Place) -> Format | None:
    """Return the format that the ending of a table names, if predictions have it."""
    return next((kind for kind in FORMATS if kind == place.format), None)


def format_of(place: Place, format: Format | Literal["auto"], otherwise: Format | None) -> Format:
    """Return the format of a table by its ending, or as it is told.

    Raises:
        InputError: neither says so.
    """
    # An ending of something else, such as .xlsx, is no name for what it would hold.
    fallback = None if place.is_local and place.suffix else otherwise
    found = own_format(place) or (None if format == "auto" else format) or fallback
    if found is None:
        raise InputError(
            f"Can't tell the format of {place} from its name: pass --format, one of "
            f"{', '.join(FORMATS)}."
        )
    if found == "parquet" and place.packing:
        raise InputError(
            f"{place} can't be read or written, as parquet is compressed inside: leave "
            f"{place.packing} out."
        )
    return found
