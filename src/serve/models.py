"""Model folders that are served, and are loaded again when they change."""

import contextlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import yaml

from src.core.errors import InputError
from src.predict.classifier import Classifier, Manifest

Files = list[tuple[str, int, int, int]]


class Described(msgspec.Struct):
    """A model in a list of models."""

    name: str
    labels: list[str]
    kind: str
    max_length: int
    max_characters: int
    sha256: str


@dataclass(frozen=True)
class Loaded:
    """A classifier, and what its folder tells about it.

    Attributes:
        kind: the architecture, such as ``bert``; ``baseline`` where no config.json names one.
        card: the front matter of README.md.
        page: the rest of it.
    """

    name: str
    classifier: Classifier
    kind: str
    card: dict[str, Any]
    page: str

    @property
    def manifest(self) -> Manifest:
        """Return the manifest that the folder's files were verified against."""
        return self.classifier.manifest

    @property
    def sha256(self) -> str:
        """Return the sha256 of the model's graph and weights."""
        return self.manifest["files"]["model.onnx"]

    def described(self) -> Described:
        """Describe it for a list of models."""
        return Described(
            self.name,
            self.classifier.labels,
            self.kind,
            self.manifest["max_length"],
            self.manifest["max_characters"],
            self.sha256,
        )


class Model:
    """A folder, and what was loaded from it last.

    Attributes:
        now: what answers; a reload makes another, and a request keeps the one it began with.
    """

    def __init__(self, folder: Path, load: Callable[[Path], Classifier]) -> None:
        """Load the folder.

        Raises:
            InputError: it is no model folder, or a file in it is not the one of its manifest.
        """
        self.name = folder.name or folder.resolve().name
        self._folder = folder
        self._load = load
        self._tried = self._latest = self._files()
        self.now = self._loaded()

    def settled_on_another(self) -> bool:
        """Tell whether the files differ from those last loaded, and have come to rest.

        They have if none changed since the last call: a folder being copied is left alone.
        """
        before, self._latest = self._latest, self._files()
        return before == self._latest != self._tried

    def reload(self) -> None:
        """Load the folder anew, warm it up and swap; what was loaded stays if this fails.

        Raises:
            InputError: as on the first load.
        """
        self._tried = self._files()
        self.now = self._loaded()

    def _loaded(self) -> Loaded:
        classifier = self._load(self._folder)
        classifier.logits(["warm up"], batch_tokens=1)
        config, card = (self._folder / name for name in ("config.json", "README.md"))
        described = json.loads(config.read_bytes()) if config.exists() else {}
        return Loaded(
            self.name,
            classifier,
            str(described.get("model_type", "baseline")),
            *_front_matter(card),
        )

    def _files(self) -> Files:
        with contextlib.suppress(OSError):  # it is just being replaced
            stats = [(path.name, path.stat()) for path in sorted(self._folder.iterdir())]
            return [(name, s.st_mtime_ns, s.st_size, s.st_ino) for name, s in stats]
        return []


def _front_matter(card: Path) -> tuple[dict[str, Any], str]:
    """Read the YAML between two lines of three dashes at the top of a model card, and the rest."""
    page = card.read_text(encoding="utf-8", errors="replace") if card.exists() else ""
    match = re.match(r"---\n(.*?)\n---\n(.*)", page, re.DOTALL)
    try:
        found = yaml.safe_load(match[1]) if match else {}
    except yaml.YAMLError as error:
        place = " ".join(str(error).split())
        raise InputError(f"The top of {card} is not valid YAML ({place}): correct it.") from None
    return (_named(found), match[2]) if match and isinstance(found, dict) else ({}, page)


def _named(value: Any) -> Any:
    """Replace keys of YAML that JSON can't have by texts."""
    if isinstance(value, dict):
        return {
            json.dumps(key) if key is None or isinstance(key, bool) else key: _named(one)
            for key, one in value.items()
        }
    return [_named(one) for one in value] if isinstance(value, list) else value
