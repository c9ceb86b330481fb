"""Drift of the same model and training on other instructions, threads and batches.

    python benchmarks/drift.py

Each setting scores test texts with the models of the pipeline in a process of its own, and is
compared with the first of its engine. Then a few texts are trained on for one epoch under some of
them; what came out is scored under the first setting, so that only the training differs.
Nothing is timed.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from measure import ROOT, command, machine, params, say, words_of, write

from src.tables import examples

SEED = "another seed"

Logits = npt.NDArray[np.float32]


class Setting(NamedTuple):
    """The settings that may differ between two machines, or two ways to ask one."""

    name: str
    environment: str = ""  # NAME=value, several with spaces between
    threads: int = 2
    batch_tokens: int = 1024
    needs: str = ""  # an instruction set that not every processor has

    @property
    def variables(self) -> dict[str, str]:
        """The variables that are added to the environment of the process."""
        pairs = [pair.partition("=") for pair in self.environment.split()]
        return {name: value for name, _, value in pairs} | {"PYTHONPATH": str(ROOT)}


LEAST = ("ATEN_CPU_CAPABILITY=default", "ONEDNN_MAX_CPU_ISA=SSE41", "MKL_CBWR=COMPATIBLE")
FIRST = Setting("2 threads, 1,024 tokens a batch")
AGAIN = Setting("the same again")
TORCH, ONEDNN, MKL = (Setting(one, one) for one in LEAST)
ALL = Setting("these three", " ".join(LEAST))
AVX2 = [
    Setting(one, one, needs="avx2")
    for one in ("ATEN_CPU_CAPABILITY=avx2", "ONEDNN_MAX_CPU_ISA=AVX2")
]
AVX512 = Setting("ATEN_CPU_CAPABILITY=avx512", "ATEN_CPU_CAPABILITY=avx512", needs="avx512f")
ONE = Setting("1 thread", threads=1)
ALONE = Setting("one text at a time", batch_tokens=1)
FOLDERS = {engine: f"exported/{engine}" for engine in ("onnx", "onnx-int8")}
SETTINGS = {
    "transformer": [FIRST, AGAIN, *AVX2, AVX512, TORCH, ONEDNN, MKL, ALL, ONE, ALONE],
    "onnx": [FIRST, AGAIN, ONE, ALONE],
    "onnx-int8": [FIRST, AGAIN, ONE, ALONE],
}
TRAININGS = [FIRST, AGAIN, AVX512, ALL, ONE]


def available(settings: list[Setting]) -> Iterator[Setting]:
    """The settings that this processor can compute; torch told to use what is not there crashes."""
    for setting in settings:
        if not setting.needs or setting.needs in machine()["instructions"]:
            yield setting


def score(model: Path, texts: Path, setting: Setting, place: Path) -> Logits:
    """The logits of a model folder, from a process of its own; see ``_child``."""
    out = place / "logits.npy"
    words = [sys.executable, __file__, "--child", model, texts, out]
    command(
        [*words, setting.threads, setting.batch_tokens], place / "log", ROOT, **setting.variables
    )
    found: Logits = np.load(out)
    return found


def _child(model: Path, texts: Path, out: Path, threads: int, batch_tokens: int) -> None:
    """Score texts by torch or onnxruntime, whichever the folder is for."""
    if (model / "model.onnx").exists():
        from src.predict.classifier import Classifier
    else:
        from src.text.encoder import TorchClassifier as Classifier  # type: ignore[assignment]
    classifier = Classifier(model, threads)
    np.save(out, classifier.logits(list(examples.read(texts)["text"]), batch_tokens))


def sample(path: Path, target: Path, count: int) -> int:
    """Write as many texts of a split, drawn at random, or all; how many they are."""
    frame = examples.read(path)
    frame = frame.sample(min(count, len(frame)), random_state=0)
    examples.write(frame, target)
    return len(frame)


def compare(found: Logits, reference: Logits) -> dict[str, float]:
    """The largest difference of a logit, and labels that changed of 1,000."""
    flips = found.argmax(axis=1) != reference.argmax(axis=1)
    return {"logit": float(np.abs(found - reference).max()), "flips": 1000 * float(flips.mean())}


def margin(logits: Logits) -> float:
    """The distance of the two best labels of the closest text."""
    best = np.sort(logits, axis=1)
    return float((best[:, -1] - best[:, -2]).min())


def predictions(models: Path, texts: Path, place: Path) -> dict[str, Any]:
    """Each engine under each setting, against its first."""
    engines: dict[str, Any] = {}
    for engine, settings in SETTINGS.items():
        rows = {}
        for setting in available(settings):
            found = score(models / FOLDERS.get(engine, engine), texts, setting, place)
            if setting is FIRST:
                reference = found
            else:
                rows[setting.name] = compare(found, reference)
                say(f"{engine}, {setting.name}: {rows[setting.name]}")
        spread = float(np.abs(reference).max())
        engines[engine] = {"margin": margin(reference), "largest": spread, "rows": rows}
    return engines


def trainings(splits: Path, texts: Path, count: int, place: Path) -> dict[str, Any]:
    """One epoch on a few texts under each setting, and under another seed to measure them by."""
    few = place / "splits"
    few.mkdir()
    for name in ("labels.json", "test.parquet"):
        (few / name).write_bytes((splits / name).read_bytes())
    for name, kept in (("train", count), ("validation", 64)):
        sample(splits / f"{name}.parquet", few / f"{name}.parquet", kept)
    seed = params("train")["seed"]
    rows = {}
    settings = [*available(TRAININGS), FIRST._replace(name=SEED)]
    for number, setting in enumerate(settings):
        probe, model, live = (place / f"{number}" / name for name in ("probe", "model", "live"))
        start = words_of("probe", few, probe, live / "probe", threads=setting.threads)
        command([*start], place / "log", place, **setting.variables)
        words = words_of(
            "train",
            *(few, probe, model, live),
            epochs=1,
            threads=setting.threads,
            seed=seed + (setting.name == SEED),
        )
        command([*words], place / "log", place, **setting.variables)
        logits, weights = score(model, texts, FIRST, place), _weights(model)
        if setting is FIRST:
            reference, reference_weights = logits, weights
            continue
        moved = max(np.abs(weights[key] - reference_weights[key]).max() for key in weights)
        rows[setting.name] = compare(logits, reference) | {"weight": float(moved)}
        say(f"training, {setting.name}: {rows[setting.name]}")
    return {"texts": count, "margin": margin(reference), "rows": rows}


def _weights(model: Path) -> dict[str, npt.NDArray[np.float32]]:
    from safetensors.numpy import load_file

    weights: dict[str, npt.NDArray[np.float32]] = load_file(model / "model.safetensors")
    return weights


def main() -> None:
    """Measure, print tables and write benchmarks/results/drift.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=ROOT / "models")
    parser.add_argument("--splits", type=Path, default=ROOT / "data/splits")
    parser.add_argument("--texts", type=int, default=200, help="of the test split, at random")
    parser.add_argument("--train-texts", type=int, default=160)
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        model, texts, out, threads, batch_tokens = arguments.child
        _child(Path(model), Path(texts), Path(out), int(threads), int(batch_tokens))
        return
    splits = arguments.splits.resolve()
    with tempfile.TemporaryDirectory() as place:
        texts = Path(place, "texts.parquet")
        count = sample(splits / "test.parquet", texts, arguments.texts)
        engines = predictions(arguments.models.resolve(), texts, Path(place))
        trained = trainings(splits, texts, arguments.train_texts, Path(place))
    print("| | setting | largest difference of a logit | labels that changed of 1,000 |")
    print("| --- | --- | --- | --- |")
    for engine, report in (*engines.items(), ("training", trained)):
        for name, row in report["rows"].items():
            print(f"| {engine} | {name} | {row['logit']:.1e} | {row['flips']:.1f} |")
    report = {"texts": count, "engines": engines, "training": trained}
    write("drift", report)


if __name__ == "__main__":
    main()
