"""Models on a command line: folders, maybe with a name, as in frauds=models/tabular/shipped."""

from collections.abc import Sequence
from pathlib import Path

from src.core.errors import InputError
from src.predict.manifest import PLAIN


def named(words: Sequence[Path]) -> list[tuple[str, Path]]:
    """Return the name and the folder of each; the name is that of the folder if none is given.

    Raises:
        InputError: a name can't be one, or two models have the same.
    """
    found = [_parts(one) for one in words]
    names = [name for name, _ in found]
    for name, folder in found:
        if names.count(name) > 1:
            raise InputError(
                f"Two folders have the same name ({', '.join(names)}): give one another, as in "
                f"other={folder}, because each is served by its name."
            )
    return found


def _parts(word: Path) -> tuple[str, Path]:
    name, _, place = str(word).partition("=")
    if word.exists() or not place or "/" in name:
        return word.name or word.resolve().name, word
    if not PLAIN.fullmatch(name):
        raise InputError(
            f"{name!r} can't be the name of a model, as in {word}: take letters, digits, dots, "
            "dashes and underscores."
        )
    return name, Path(place)
