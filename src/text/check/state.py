"""The findings of `check` so far, and a way to run stages on them."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from src.core.command_line import bind
from src.project import params

TEXTS = 2000  # whose tokens are counted, and that `quality` looks at

log = logging.getLogger("src.text.check")


@dataclass
class Check:
    """Everything that is known so far.

    Attributes:
        present: the sections of params.yaml.
        params: the same with what the texts need.
        folder: a temporary one.
        lines: the report.
        warnings: sentences on what is likely wrong.
        stops: whether a stage would stop.
        large: whether each step takes so long that it is told.
    """

    present: dict[str, params.Section]
    params: dict[str, params.Section]
    folder: Path
    lines: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    stops: bool = False
    large: bool = False

    def set(self, section: str, **values: Any) -> None:
        """Note params that the texts need."""
        self.params[section] |= values

    def changes(self) -> dict[str, tuple[Any, Any]]:
        """Return the params that differ: as they are, and as they should be."""
        return {
            f"{section}.{key}": (self.present[section][key], value)
            for section, values in self.params.items()
            for key, value in values.items()
            if value != self.present[section][key]
        }

    def stop(self, name: str, why: object) -> None:
        """Warn that a stage would stop."""
        self.stops = True
        self.warnings.append(f"`{name}` would stop: {why}")

    def bind(self, stage: ModuleType, *paths: str, **changes: Any) -> partial[None]:
        """Prepare a stage with its params, as DVC would run it, and paths in the temporary folder.

        Raises:
            InputError: a param is not what the stage takes.
        """
        name = stage.__name__.rpartition(".")[2]
        words = params.words_of({**self.params[name], **changes})
        places = [str(self.folder / path) for path in paths]
        positional, options = bind(stage.main, name, True, [*places, *words])
        return partial(stage.main, *positional, **options)

    def run(self, stage: ModuleType, *paths: str, **changes: Any) -> None:
        """Run a stage, and keep its warnings.

        Raises:
            InputError: the stage would stop.
        """
        bound = self.bind(stage, *paths, **changes)
        if self.large:
            log.info("running %s", stage.__name__.rpartition(".")[2])
        with hushed() as said:
            bound()
        self.warnings += [sentence for sentence in said if sentence not in self.warnings]

    def read_json(self, path: str) -> dict[str, Any]:
        """Read what a stage wrote in the temporary folder."""
        found: dict[str, Any] = json.loads((self.folder / path).read_text(encoding="utf-8"))
        return found


@contextmanager
def hushed() -> Iterator[list[str]]:
    """Collect the warnings of the project's modules in place of their log."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("src")
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield said
    finally:
        logger.propagate = True
        logger.removeHandler(handler)
