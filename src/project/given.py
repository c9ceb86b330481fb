"""Files that a command line names, as load.source names them."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from src.core.errors import InputError, closest


def sources(files: Sequence[str]) -> list[str]:
    """Return what load.source says of files: as seen from the project if they lie in it."""
    found = []
    for name in files:
        if not name.strip():
            raise InputError("A file has an empty name: name the file or folder to look at.")
        if "://" in name or "::" in name or any(sign in name for sign in "*?["):
            found.append(name)
            continue
        if not _exists(Path(name)):
            raise InputError(f"{name:.200} (seen from {Path.cwd()}) does not exist{_remedy(name)}")
        place, root = Path(name).resolve(), Path.cwd().resolve()
        inside = place.is_relative_to(root)
        found.append(place.relative_to(root).as_posix() if inside else str(place))
    return found


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long for one
        return False


def _remedy(name: str) -> str:
    if _exists(Path(f"{name}.dvc")):
        return f": `dvc pull {shlex.quote(name)}` brings it."
    folder = Path(name).parent
    near = [path.name for path in folder.glob("*")] if _exists(folder) else []
    return f"{closest(Path(name).name, near)}: correct the path."
