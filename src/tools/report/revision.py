"""A side of a comparison: a commit, an experiment or the work tree, without a checkout."""

import json
import logging
import re
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import dvc.api
import pandas as pd
from dvc.exceptions import DvcException

from src.core.errors import InputError
from src.project import git
from src.project.graph import LOCK, lock_of, pipelines, sentence, stages_of_lock
from src.tables import examples

WORK_TREE = "workspace"  # as DVC calls it
EVALUATE = r"src\.(\w+\.)?evaluate"  # the module of the stage that judges a model
PARAMS = "params.yaml"  # of the root
# What a pipeline calls the rows that it judges a model by; others call them rows.
ROWS = {
    **dict.fromkeys(("src.evaluate", "src.text.evaluate"), "texts"),
    **dict.fromkeys(("src.chat.evaluate", "src.qa.evaluate"), "questions"),
}

log = logging.getLogger("src.tools.report")


def folder_of(model: str) -> str:
    """Name the folder of the pipeline that a model is of; that of the root is a dot."""
    return str(PurePosixPath(model).parent)


class Revision:
    """One side of the comparison."""

    def __init__(self, name: str) -> None:
        """Open a git revision or experiment, or the work tree.

        Raises:
            InputError: there is no such revision, or it holds no ``dvc.lock`` that can be read.
        """
        tree = name == WORK_TREE
        if not tree and (above := git.run("rev-parse", "--show-prefix").stdout.strip()):
            raise InputError(
                f"A report needs a project that is a git repository of its own, and this one is "
                f"the folder {above} of one, where DVC can't open another revision: compare the "
                f"figures by `dvc metrics diff {name}`."
            )
        try:
            self._files = dvc.api.DVCFileSystem(rev=None if tree else name)
            self.sha = None if tree else self._files.repo.get_rev()  # of its commit
        except DvcException as error:
            raise InputError(
                f"{name!r} is no git revision or experiment of this repository "
                f"({sentence(error)}): `git log --oneline --all` and `dvc exp list` show what "
                "there is."
            ) from None
        # A sha is as long as nobody reads it, and git and DVC know its first seven characters.
        self.name = "work tree" if tree else re.sub(r"^([0-9a-f]{7})[0-9a-f]{33}$", r"\1", name)
        self.missing: dict[str, str] = {}  # why a file could not be read, by its path
        self.stages: dict[str, dict[str, Any]] = {}
        try:
            self._read(LOCK)  # before DVC does, whose sentence about its faults is a worse one
            for path in map(lock_of, pipelines(self._files.repo)[1:]):  # the first is of the root
                self._read(path)
        except InputError as error:
            raise InputError(f"{self.name}: {error}") from None
        except DvcException as error:
            raise InputError(
                f"DVC can't read the pipeline of {self.name} ({sentence(error)}): correct it there."
            ) from None
        if not self.stages:
            raise InputError(
                f"{name} has no dvc.lock: run `dvc repro` there and commit it, or name a revision "
                "that has one."
            )

    def _read(self, lock: str) -> None:
        if (text := self.text(lock)) is not None:
            self.stages |= stages_of_lock(text, lock)
        self.missing.pop(lock, None)  # a pipeline that has not run lacks nothing

    @cached_property
    def models(self) -> dict[str, dict[str, str]]:
        """Find the stage and paths of each evaluated model, by the signature of ``evaluate``.

        One of a further pipeline has its folder in front, such as tabular/forest; ``rows`` is what
        its pipeline calls rows.
        """
        found = {}
        for name, entry in self.stages.items():
            words = shlex.split(entry["cmd"])
            # Old locks have src.evaluate, from when a stage stood in no folder.
            if words[:2] == ["python", "-m"] and re.fullmatch(EVALUATE, words[2]):
                places = [*takewhile(lambda word: not word.startswith("--"), words[3:])]
                splits, *_, predictions, live = places
                paths = {"splits": splits, "predictions": predictions, "live": live}
                folder = PurePosixPath(name.rpartition(":")[0]).parent
                rows = ROWS.get(words[2], "rows")
                model = str(folder / Path(predictions).name)
                found[model] = {"stage": name, "rows": rows, **paths}
        return found

    def params(self) -> dict[str, Any]:
        """Read the params by section, of every params file of the pipelines."""
        try:
            found: dict[str, Any] = dvc.api.params_show(rev=self.sha)
        except DvcException as error:
            raise InputError(
                f"DVC can't read the params of {self.name} ({sentence(error)}): correct "
                "params.yaml."
            ) from None
        # DVC names the file of a section where another file has one of that name as well.
        return {key.removeprefix(f"{PARAMS}:"): section for key, section in found.items()}

    def hashes(self, name: str, kind: Literal["deps", "outs"]) -> dict[str, str]:
        """Read the hash of each dependency or output of a stage, by its path."""
        found = self.stages[name].get(kind, [])
        # A folder on a remote that keeps versions has the hashes of its files in place of its own.
        return {item["path"]: str(item.get("md5") or item.get("files") or "") for item in found}

    def text(self, path: str) -> str | None:
        """Read a text file; None if there is none."""
        try:
            return str(self._files.read_text(path, encoding="utf-8"))
        except OSError as error:
            self.missing[path] = str(error.strerror or error)
            return None

    def json(self, path: str) -> dict[str, Any]:
        """Read a JSON object; an empty one if there is no such file."""
        found: dict[str, Any] = json.loads(self.text(path) or "{}")
        return found

    def figures(self, model: str) -> dict[str, float]:
        """Read the figures of a model on the test split, as they were committed."""
        found: dict[str, float] = self.json(f"{self.models[model]['live']}/metrics.json").get(
            "test", {}
        )
        return found

    def frame(self, path: str) -> pd.DataFrame | None:
        """Read rows from DVC's cache or its remote; None if they are in neither."""
        with self._kept(path) as copy:
            return None if copy is None else examples.read(copy)

    def positive(self, model: str) -> str | None:
        """Read which label of a table is looked for, "" if it has more than two.

        It is None if the schema of the table is neither in DVC's cache nor in its remote.
        """
        with self._kept(f"{self.models[model]['splits']}/schema.json") as copy:
            if copy is None:
                return None
            return str(json.loads(copy.read_text(encoding="utf-8"))["positive"])

    @contextmanager
    def _kept(self, path: str) -> Iterator[Path | None]:
        """Bring a file from DVC's cache or its remote; None if it is in neither."""
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "copy"
            try:
                self._files.get_file(path, str(copy))
            # What is raised without credentials or a network is of the remote's own library.
            except Exception as error:
                self.missing[path] = sentence(error)
                log.warning("%s of %s: %s", path, self.name, self.missing[path])
                yield None
                return
            yield copy
