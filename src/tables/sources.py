"""Find the files of a source, and bring those that are elsewhere to this machine.

A source is a path, a glob or a URL that fsspec opens (``https://``, ``s3://``, ``gs://``,
``hf://``, ``zip://inner.csv::outer.zip``), a Google Drive share link, or ``pkg://package/path``,
which is a file or folder that an installed Python package carries. ``#sha256=`` and a hash after it
say what the file must be; one that the cache has by that hash is not downloaded.
"""

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from src.core import files as checksums
from src.core import kept as cache
from src.core.errors import InputError, closest
from src.core.packages import package_path
from src.core.secrets import refuse_secret, without_secrets
from src.tables.download import download, download_link
from src.tables.folders import columns_of
from src.tables.places import File, Place, refuse
from src.tables.streams import UNKNOWN

# What programs and people put beside the files of a folder.
BESIDE = re.compile(
    r"/(_SUCCESS|_(common_)?metadata|_(committed|started)_\w+|[^/]*\.crc|Thumbs\.db|desktop\.ini"
    r"|(README|LICEN[CS]E|COPYING|NOTICE|CHANGELOG|CITATION|MANIFEST)(\.(md|rst|cff))?)$",
    re.IGNORECASE,
)
CHUNK = 1 << 20  # bytes of a copy
PINNED = re.compile(r"(?P<source>.+?)#sha256=(?P<sha256>.*)", re.DOTALL)
BY_HAND = "get the file by other means and run `python -m src.tools.fetch FILE`"

log = logging.getLogger("src.tables.sources")


def find(
    sources: Sequence[str],
    folder: Path,
    sha256: str,
    max_bytes: int,
    setting: str = "load.source",
) -> list[File]:
    """Bring the files of all sources to this machine, in the order of their names.

    Args:
        sources: paths, globs and URLs, each with ``#sha256=HASH`` if it is one file of that hash.
        folder: what is not on this machine is copied here, whole or not at all.
        sha256: what the one file must have as it is stored; "" for any.
        max_bytes: what a file may hold once it is decompressed.
        setting: what messages call the list of sources.

    Raises:
        InputError: there are none, one is listed twice, or one can't be brought here whole.
    """
    if not sources or not all(source.strip() for source in sources):
        raise InputError(f"{setting} is empty: name a path or a URL.")
    found: dict[str, str] = {}
    files: list[File] = []
    tops: list[list[str]] = []
    folders: list[list[str]] = []  # of each file
    own: list[int] = []  # the parts of its top, of each file
    for pinned in sources:
        refuse_secret(pinned, setting)
        source, digest = _pin(pinned, setting)
        digest = digest or (sha256 if len(sources) == 1 else "")
        remote = bool(digest) and _is_remote(source)
        kept = cache.kept(digest) if remote else None
        if kept:  # as ``_list`` has a URL
            fs, top, paths = None, source.rpartition("/")[0], [source]
        else:
            fs, top, paths = _list(Place(source, setting))
        if source != pinned and len(paths) > 1:
            raise InputError(
                f"{Place(source, setting)} has {len(paths)} files and one sha256: name one file."
            )
        tops.append(top.split("/") if top else [])
        for path in paths:
            if path in found:
                raise InputError(
                    f"{without_secrets(path)} is in {setting} twice, by {found[path]} and by "
                    f"{Place(source, setting)}: take one of them out."
                )
            found[path] = str(Place(source, setting))
            # Of a chain, such as simplecache::https://..., the path is a URL that was filled in.
            filled = "://" in path and path != source
            name = without_secrets(path) if filled else path
            file = File(name, setting, folder / str(len(files)), max_bytes)
            if kept:
                log.info("%s is in the cache, at %s", file, kept)
                files.append(replace(file, name=name if file.suffix else kept.name, path=kept))
            else:
                files.append(_bring(fs, path, file, source, BY_HAND if remote else ""))
            if source != pinned:
                _expect(files[-1], digest)
            if remote and not kept:
                cache.keep(files[-1].path, PurePosixPath(files[-1].name).name)
            folders.append(path.split("/")[:-1])
            own.append(len(tops[-1]))
    if sha256:
        _refuse_change(files, sha256)
    above = len(os.path.commonprefix(tops))  # noqa: RUF071, of lists it compares their items
    below = [parts[above or start :] for parts, start in zip(folders, own, strict=True)]
    columns = columns_of(below, [str(file) for file in files])
    return [replace(file, columns=of) for file, of in zip(files, columns, strict=True)]


def _pin(source: str, setting: str) -> tuple[str, str]:
    """Divide a source into where it is and the sha256 that it must have, "" for any."""
    found = PINNED.fullmatch(source)
    if not found:
        return source, ""
    if not re.fullmatch("[0-9a-f]{64}", found["sha256"]):
        raise InputError(
            f"{Place(source, setting)} has no sha256 after #sha256=, 64 digits from 0 to f: "
            f"correct {setting}."
        )
    return found["source"], found["sha256"]


def _expect(file: File, digest: str) -> None:
    """Stop if a file has not the sha256 that its source names."""
    if (found := checksums.sha256(file.path)) != digest:
        raise InputError(
            f"{file} has changed: its sha256 is {found}, not {digest}; write the new one after "
            f"#sha256= in {file.setting} if that is meant."
        )


def _is_remote(source: str) -> bool:
    """Tell whether a source has to be brought from elsewhere."""
    return not Place(source, "").is_local and not re.match("(pkg|wheel|file)://", source)


def warn_of_unwatched(source: Sequence[str], watched: Path) -> None:
    """Warn of local sources outside of the folder that DVC watches."""
    for place in source:
        local = Path(re.split(r"[*?\[]", place.split("::")[-1].removeprefix("file://"))[0])
        if local.exists() and not local.resolve().is_relative_to(watched.resolve()):
            log.warning("DVC can't see when %s changes: move it into %s", place, watched)


def _refuse_change(files: Sequence[File], sha256: str) -> None:
    if len(files) != 1:
        raise InputError(
            f"load.sha256 is set, but load.source has {len(files)} files: set it to '', or pack "
            "them into one file."
        )
    found = checksums.sha256(files[0].path)
    if found != sha256:
        raise InputError(
            f"{files[0]} has changed: its sha256 is {found}, not {sha256}; set load.sha256 to the "
            "new one if that is meant."
        )


def _list(source: Place) -> tuple[AbstractFileSystem, str, list[str]]:
    """Return the file system of a source, the folder that its files are in or below, and these."""
    url = package_path(download_link(source.url))
    try:
        fs, path = url_to_fs(url)
        if "http" in fs.protocol:
            return fs, source.name.rpartition("/")[0], [source.name]
        if any(character in path for character in "*?[") and not fs.exists(path):
            paths = fs.glob(path)
        else:
            paths = _files_at(fs, path)
    except Exception as error:
        refuse(source, error, *UNKNOWN)
    # Hidden files and folders, and DVC's own beside the data that it tracks, are no sources.
    start = re.split(r"[*?\[]", path)[0]
    named = len(start)
    paths = sorted(p for p in paths if not re.search(r"(^|/)\.|\.dvc$", p[named:]))
    paths = [p for p in paths if not PurePosixPath(p).name.startswith(".")]
    if beside := [p for p in paths if p != path and BESIDE.search(p)]:
        log.info("of %s these are no texts and left out: %s", source, ", ".join(beside))
        paths = [p for p in paths if p not in beside]
    if not paths:
        names = {p.name for p in Path(url).parent.glob("*")}
        near = closest(Path(url).name, names - {Path(url).name})
        tracked = Path(f"{url}.dvc").exists()
        remedy = ": `dvc pull` brings it." if tracked else f"{near}: correct {source.setting}."
        raise InputError(f"There is no file at {source}, seen from {Path.cwd()}{remedy}")
    is_folder = start == path and paths != [path]
    return fs, path if is_folder else start.rpartition("/")[0], paths


def _files_at(fs: AbstractFileSystem, path: str) -> list[str]:
    try:
        is_folder = fs.info(path)["type"] == "directory"
    except FileNotFoundError:
        return []
    return list(fs.find(path)) if is_folder else [path]


def _bring(fs: AbstractFileSystem, place: str, file: File, source: str, further: str = "") -> File:
    """Copy a file to its path from where it is in ``fs``, unless it is on this machine.

    ``further`` is what else can be done if that fails.
    """
    try:
        return _copied(fs, place, file, source)
    except InputError as error:
        if not further:
            raise
        raise InputError(f"{str(error).rstrip('.')}, or {further}.") from error


def _copied(fs: AbstractFileSystem, place: str, file: File, source: str) -> File:
    if "file" in fs.protocol:
        if not Path(file.name).is_file():  # such as a pipe, which would be waited for
            raise InputError(f"{file} is not a regular file: take it out of {file.setting}.")
        return replace(file, path=Path(file.name))
    if "http" in fs.protocol:
        return replace(file, name=download(file))
    log.info("copying %s of %s", file, source)
    try:
        with fs.open(place) as stream, file.path.open("wb") as copy:
            while chunk := stream.read(CHUNK):
                copy.write(chunk)
                if "zip" in fs.protocol:
                    file.refuse_excess(copy.tell())
        size = fs.info(place).get("size")
    except Exception as error:
        refuse(Place(source, file.setting), error, *UNKNOWN)
    found = file.path.stat().st_size
    if size is not None and size != found:
        raise InputError(f"{file} came with {found} of {size} bytes: run again.")
    return file
