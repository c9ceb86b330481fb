"""Model folders that are served, and are loaded again when they change."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import UNSET, UnsetType

from src.core.errors import InputError
from src.predict.classifier import Classifier
from src.predict.engines import Engine
from src.predict.foreign import json_object, refusing, verified
from src.predict.reader.model import Reader
from src.serve.batching import Scorer
from src.serve.model_card import front_matter
from src.serve.scorers import ReaderScorer, RecordScorer, TextScorer

if TYPE_CHECKING:
    from src.predict.records import Records  # which needs more than texts do
    from src.tables.schema import Column

Files = list[tuple[str, int, int, int]]


class ColumnInfo(msgspec.Struct, omit_defaults=True):
    """A column that a model of tables reads, and a usual value of it."""

    name: str
    kind: Literal["number", "category", "boolean", "date"]
    usual: float | bool | str | None
    minimum: float | None = None
    maximum: float | None = None


class Importance(msgspec.Struct):
    """By how much average precision falls when the values of a feature are shuffled."""

    feature: str
    importance: Annotated[float, msgspec.Meta(ge=-1, le=1)]
    spread: Annotated[
        float,
        msgspec.Meta(ge=0, le=1, description="The standard deviation over repeats."),
    ]


class Described(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A model in a list of models: of texts, with what it reads of one, of tables, or a reader."""

    name: str
    labels: list[str]
    kind: Annotated[
        str,
        msgspec.Meta(description="The architecture; or table, or reader."),
    ]
    max_length: int | UnsetType = UNSET
    max_characters: int | UnsetType = UNSET
    min_score: Annotated[
        float | UnsetType,
        msgspec.Meta(description="The least score with which a label is given; 0: it always is."),
    ] = UNSET
    positive: Annotated[
        str | UnsetType,
        msgspec.Meta(description="Of tables: the label that is looked for; '' if there are more."),
    ] = UNSET
    threshold: Annotated[
        float | UnsetType,
        msgspec.Meta(
            description="Of tables: the least probability of the positive label for it. Of "
            "readers: the least one of an answer."
        ),
    ] = UNSET
    columns: list[ColumnInfo] | UnsetType = UNSET
    importance: Annotated[
        list[Importance] | UnsetType,
        msgspec.Meta(description="Of tables: what the model goes by, on a sample of test rows."),
    ] = UNSET
    sha256: str


@dataclass(frozen=True)
class Loaded:
    """A model, and what its folder tells about it.

    Attributes:
        manifest: that of its folder, by which the files were verified.
        engine: what computes.
        scorer: it at work for the queue.
        takes: what it is and what is sent to it, for messages.
        card: the front matter of README.md, if the manifest lists that file.
        page: the rest of it.
    """

    name: str
    manifest: Mapping[str, Any]
    engine: Engine
    scorer: Scorer
    card: dict[str, Any]
    page: str
    takes: ClassVar[str]

    @property
    def labels(self) -> list[str]:
        """Return the name of each class."""
        return self.scorer.labels

    @property
    def sha256(self) -> str:
        """Return the sha256 of the model's graph and weights."""
        return str(self.manifest["files"]["model.onnx"])

    def described(self) -> Described:
        """Describe it for a list of models."""
        raise NotImplementedError


@dataclass(frozen=True)
class TextModel(Loaded):
    """A model of texts.

    Attributes:
        kind: the architecture, such as ``bert``; ``tfidf`` where no config.json names one.
    """

    classifier: Classifier
    kind: str
    takes: ClassVar[str] = "a model of texts: send inputs"

    def described(self) -> Described:
        """Describe it for a list of models."""
        return Described(
            name=self.name,
            labels=self.labels,
            kind=self.kind,
            max_length=self.manifest["max_length"],
            max_characters=self.manifest["max_characters"],
            min_score=self.classifier.min_score,
            sha256=self.sha256,
        )


@dataclass(frozen=True)
class TableModel(Loaded):
    """A model of tables.

    Attributes:
        importance: of its features, the largest first, if the folder tells it.
    """

    scorer: RecordScorer
    records: "Records"
    importance: list[Importance]
    takes: ClassVar[str] = "a model of tables: send records"

    def leading(self, most: int) -> "list[Column]":
        """Return the columns that it goes by, at most so many: the most important ones first."""
        rank = {one.feature: place for place, one in enumerate(self.importance)}
        places = {
            column.name: min(rank.get(name, len(rank)) for name in column.features)
            for column in self.records.schema.columns
        }
        ranked = sorted(self.records.schema.columns, key=lambda one: places[one.name])
        return ranked[:most]

    def described(self) -> Described:
        """Describe it for a list of models."""
        usual = self.records.usual
        return Described(
            name=self.name,
            labels=self.labels,
            kind="table",
            positive=self.records.positive,
            threshold=self.records.threshold,
            columns=[
                ColumnInfo(c.name, c.kind, usual[c.name], c.minimum, c.maximum)
                for c in self.records.schema.columns
            ],
            importance=self.importance or UNSET,
            sha256=self.sha256,
        )


@dataclass(frozen=True)
class ReaderModel(Loaded):
    """A reader."""

    reader: Reader
    takes: ClassVar[str] = "a reader: send a question to /answer"

    @property
    def labels(self) -> list[str]:
        """Return nothing: what it answers stands in a text."""
        return []

    def described(self) -> Described:
        """Describe it for a list of models."""
        manifest = self.reader.manifest
        return Described(
            name=self.name,
            labels=self.labels,
            kind="reader",
            max_length=manifest.max_length,
            threshold=self.reader.calibration.probability(manifest.threshold),
            sha256=self.sha256,
        )


class Model:
    """A folder, and what was loaded from it last.

    Attributes:
        now: what answers; a reload makes another, and a request keeps the one it began with.
    """

    def __init__(
        self, folder: Path, load: Callable[[Path], "Classifier | Records | Reader"], name: str = ""
    ) -> None:
        """Load the folder, whose model has its name or another.

        Raises:
            InputError: it is no model folder, or a file in it is not the one of its manifest.
        """
        self.name = name or folder.name or folder.resolve().name
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
        model = self._load(self._folder)
        manifest: Mapping[str, Any] = (
            model.manifest._asdict() if isinstance(model, Reader) else model.manifest
        )
        card = self._listed(manifest, "README.md").decode("utf-8", "replace")
        top, page = front_matter(card, self._folder / "README.md")
        if isinstance(model, Classifier):
            scorer = TextScorer(model)
            kind = self._architecture(manifest)
            loaded: Loaded = TextModel(
                self.name, manifest, model.engine, scorer, top, page, model, kind
            )
        elif isinstance(model, Reader):
            of_windows = ReaderScorer(model)
            loaded = ReaderModel(self.name, manifest, model.engine, of_windows, top, page, model)
        else:
            of_records = RecordScorer(model)
            features = {name for column in model.schema.columns for name in column.features}
            found = self._importance(manifest, features)
            loaded = TableModel(
                self.name, manifest, model.engine, of_records, top, page, model, found
            )
        with refusing(f"{self._folder} has what no answer can hold in README.md or config.json"):
            msgspec.json.encode((loaded.described(), loaded.card))
        return loaded

    def _architecture(self, manifest: Mapping[str, Any]) -> str:
        config = self._listed(manifest, "config.json")
        described = json_object(config, self._folder / "config.json") if config else {}
        kind = described.get("model_type", "tfidf")
        if not isinstance(kind, str):
            raise InputError(
                f"{self._folder / 'config.json'} has a model_type that is no text: get the model "
                "again."
            )
        return kind

    def _importance(self, manifest: Mapping[str, Any], features: set[str]) -> list[Importance]:
        path = self._folder / "importance.json"
        content = self._listed(manifest, path.name) or b"{}"
        with refusing(f"{path} does not tell the importance of features"):
            found = msgspec.json.decode(content, type=dict[str, dict[str, float]])
            rows = [{"feature": name, **values} for name, values in found.items()]
            told = msgspec.convert(rows, list[Importance])
        if odd := found.keys() - features:
            raise InputError(
                f"{path} has {min(odd)[:100]!r}, which is no feature of schema.json: get the model "
                "again."
            )
        return sorted(told, key=lambda one: -one.importance)

    def _listed(self, manifest: Mapping[str, Any], name: str) -> bytes:
        """Read a file that a folder need not have; one that the manifest does not list is none."""
        expected = manifest["files"].get(name)
        return verified(self._folder / name, expected) if expected else b""

    def _files(self) -> Files:
        with contextlib.suppress(OSError):  # it is just being replaced
            stats = [(path.name, path.stat()) for path in sorted(self._folder.iterdir())]
            return [(name, s.st_mtime_ns, s.st_size, s.st_ino) for name, s in stats]
        return []
