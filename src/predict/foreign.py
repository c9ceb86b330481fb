"""Files of a model folder that anybody may have made, and what libraries raise over them."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from src.core.errors import InputError

LARGEST = 2**31 - 1  # bytes of a file, tokens, characters: what protobuf and an int32 can hold
SMALL = 4 * 2**20  # bytes of a file that only describes
DESCRIBING = (
    *("manifest.json", "schema.json", "usual.json", "importance.json", "README.md"),
    *("config.json", "tokenizer_config.json"),
)
IN_CACHE = re.compile(r"/files/md5/[0-9a-f]{2}/[0-9a-f]{30}$")  # of DVC, which may link to it
SAID = 300  # characters of what a library says


def verified(path: Path, expected: str) -> bytes:
    """Read a file of a model folder.

    Raises:
        InputError: it is missing, or its sha256 is not the expected one, or it is no regular file
            that lies in its folder.
    """
    try:
        content = read_file(path)
    except FileNotFoundError:
        raise InputError(f"{path} is missing: get the model again.") from None
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise InputError(
            f"{path} is not the file that was exported: its sha256 is {found}, not {expected}; get "
            "the model again with `dvc checkout` or `dvc pull`."
        )
    return content


def read_file(path: Path) -> bytes:
    """Read a regular file that lies in the folder of ``path``, or in DVC's cache by a link.

    Raises:
        FileNotFoundError, NotADirectoryError: it is not there.
        InputError: it is of another kind, lies elsewhere, is too large, or can't be read.
    """
    limit = SMALL if path.name in DESCRIBING else LARGEST
    try:
        target = os.path.realpath(path, strict=True)
        inside = Path(target).is_relative_to(os.path.realpath(path.parent))
        if not inside and not IN_CACHE.search(Path(target).as_posix()):
            raise InputError(
                f"{path} is a link out of its folder: put the file itself "
                "there, as `hf download --local-dir` does."
            )
        if not Path(target).is_file():
            raise InputError(f"{path} is a folder, pipe or device: get the model again.")
        with Path(target).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read(size + 1) if size <= limit else b""
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise InputError(f"{path} can't be read, {error.strerror}: get the model again.") from None
    if size > limit:
        raise InputError(f"{path} has more than {limit} bytes: get the model again.")
    if len(content) != size:
        raise InputError(f"{path} changed while it was read: try again.")
    return content


def json_object(content: bytes, path: Path) -> dict[str, Any]:
    """Decode the JSON object that a file holds.

    Raises:
        InputError: it is no JSON, or another value than an object.
    """
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {one_line(error)}; get the model again.") from None
    if not isinstance(found, dict):
        raise InputError(f"{path} is not a JSON object: get the model again.")
    return found


@contextmanager
def refusing(what: str, remedy: str = "get the model again") -> Iterator[None]:
    """Turn whatever a library raises over foreign content into one sentence.

    Args:
        what: the start of the sentence: what can't be used, and for what.
        remedy: its end.

    Raises:
        InputError: the library raised something.
    """
    try:
        yield
    except BaseException as error:
        # Rust's panics are no Exception. Ctrl+C and the like are none either, and go on.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise InputError(f"{what} ({one_line(error)}): {remedy}.") from error


def one_line(error: BaseException | str) -> str:
    """Return what an error says, short, on one line and without what moves a terminal's cursor."""
    text = " ".join(str(error).split()) or type(error).__name__
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:SAID])
    return shown.rstrip(".") + ("..." if len(text) > SAID else "")
