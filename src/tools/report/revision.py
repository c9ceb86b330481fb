"""One side of a comparison: a commit, an experiment or the work tree."""

import json
import logging
import re
import shlex
import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import dvc.api
import pandas as pd
from dvc.exceptions import DvcException

from src.core.errors import InputError
from src.project.graph import LOCK, lock_of, pipelines, sentence, stages_of_lock
from src.tables import examples

WORK_TREE = "workspace"  # as DVC calls it
EVALUATE = r"src\.(\w+\.)?evaluate"  # the module of the stage that judges a model

log = logging.getLogger("src.tools.report")


class Revision:
    """One side of the comparison, read from git and DVC without a checkout.

    Attributes:
        name: as the user gave it, or "work tree".
        sha: of its commit; None for the work tree.
        stages: those of dvc.lock.
        missing: why a file could not be read, by its path.
    """

    def __init__(self, name: str) -> None:
        """Open a git revision or experiment, or the work tree.

        Raises:
            InputError: there is no such revision, or it holds no ``dvc.lock`` that can be read.
        """
        tree = name == WORK_TREE
        try:
            self._files = dvc.api.DVCFileSystem(rev=None if tree else name)
            self.sha = None if tree else self._files.repo.get_rev()
        except DvcException as error:
            raise InputError(
                f"{name!r} is no git revision or experiment of this repository "
                f"({sentence(error)}): `git log --oneline --all` and `dvc exp list` show what "
                "there is."
            ) from None
        # A sha is as long as nobody reads it, and git and DVC know its first seven characters.
        self.name = "work tree" if tree else re.sub(r"^([0-9a-f]{7})[0-9a-f]{33}$", r"\1", name)
        self.missing: dict[str, str] = {}
        lock = self.text(LOCK)
        if lock is None:
            raise InputError(
                f"{name} has no dvc.lock: run `dvc repro` there and commit it, or name a revision "
                "that has one."
            )
        try:
            self.stages = stages_of_lock(lock)
            for path in map(lock_of, pipelines(self._files.repo)[1:]):  # the first is of the root
                self.stages |= stages_of_lock(self.text(path) or "stages: {}", path)
        except InputError as error:
            raise InputError(f"{self.name}: {error}") from None
        except DvcException as error:
            raise InputError(
                f"DVC can't read the pipeline of {self.name} ({sentence(error)}): correct it there."
            ) from None

    @cached_property
    def models(self) -> dict[str, dict[str, str]]:
        """Find the stage and paths of each evaluated model, by the signature of ``evaluate``."""
        found = {}
        for name, entry in self.stages.items():
            words = shlex.split(entry["cmd"])
            # Old locks have src.evaluate, from when a stage stood in no folder.
            if words[:2] == ["python", "-m"] and re.fullmatch(EVALUATE, words[2]):
                splits, _, predictions, live = words[3:7]
                paths = {"splits": splits, "predictions": predictions, "live": live}
                found[Path(predictions).name] = {"stage": name, **paths}
        return found

    def params(self) -> dict[str, Any]:
        """Read the params by section, of every params file of the pipeline."""
        try:
            params: dict[str, Any] = dvc.api.params_show(rev=self.sha)
        except DvcException as error:
            raise InputError(
                f"DVC can't read the params of {self.name} ({sentence(error)}): correct "
                "params.yaml."
            ) from None
        return params

    def hashes(self, name: str, kind: Literal["deps", "outs"]) -> dict[str, str]:
        """Read the hash of each dependency or output of a stage, by its path."""
        return {item["path"]: str(item.get("md5")) for item in self.stages[name].get(kind, [])}

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

    def frame(self, path: str, columns: Sequence[str]) -> pd.DataFrame | None:
        """Read columns of examples from DVC's cache or its remote; None if they are in neither."""
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "examples.parquet"
            try:
                self._files.get_file(path, str(copy))
            # What is raised without credentials or a network is of the remote's own library.
            except Exception as error:
                self.missing[path] = sentence(error)
                log.warning("%s of %s: %s", path, self.name, self.missing[path])
                return None
            return examples.read(copy)[list(columns)]
