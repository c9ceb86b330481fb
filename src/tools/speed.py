"""Measure exported models in turn on this machine: one text at a time, a list of texts, training.

    python -m src.tools.speed
    python -m src.tools.speed models/shipped models/exported/onnx --engine auto --threads 4

Times are no result of the pipeline, since they are others each time; the comparison leaves them
out, and stands beside what this prints.
"""

import logging
import re
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from src.core import stage
from src.core.command_line import Count, Threads
from src.core.errors import InputError
from src.core.markdown import table
from src.predict.classifier import Classifier
from src.predict.engines import EngineOption
from src.predict.manifest import MANIFEST, read_manifest
from src.tables import examples

EXPORTED = Path("models/exported")
TEST = Path("data/splits/test.parquet")
BATCH_TOKENS = 1024
TOOK = re.compile(r" INFO src\.core\.stage: \S+ took ([\d.]+) s")
# The stages that train what was exported; an encoder starts from its probe.
TRAINED = {
    "baseline-onnx": ("baseline",),
    "linear-onnx": ("linear",),
    "onnx": ("probe", "train"),
    "onnx-int8": ("probe", "train"),
}
HEAD = ["model", "MB", "ms for one text", "texts a second in a list", "training, s"]

log = logging.getLogger("src.tools.speed")


def main(
    *folders: Path,
    texts: Count = 64,
    rounds: Count = 5,
    threads: Threads = 2,
    engine: EngineOption = "onnxruntime",
) -> None:
    """Print a table of the folders, by default all of models/exported.

    Each of ``rounds`` rounds asks every model in turn for ``texts`` test texts, evenly spread,
    first one by one and then as a list; the table has the medians. How long training took is what
    the newest logs of its stages say, whatever else ran then; of a training that was resumed they
    tell the last part.
    """
    places = folders or tuple(sorted(path.parent for path in EXPORTED.glob(f"*/{MANIFEST}")))
    if not places or not TEST.exists():
        missing = TEST if places else EXPORTED
        raise InputError(f"{missing} is not there: `dvc repro` makes it, or `dvc pull` brings it.")
    every = list(examples.read(TEST)["text"])
    chosen = every[:: max(1, len(every) // texts)][:texts]
    models = [Classifier(place, threads, engine) for place in places]
    alone: list[list[float]] = [[] for _ in places]
    together: list[list[float]] = [[] for _ in places]
    for number in range(rounds):
        for k, model in enumerate(models):
            alone[k].append(_seconds(model, [[text] for text in chosen]))
            together[k].append(_seconds(model, [chosen]))
        log.info("round %d of %d", number + 1, rounds)
    # By its graph, as what is shipped is a copy of one of them.
    exported = {
        read_manifest(path.parent)["files"]["model.onnx"]: path.parent.name
        for path in EXPORTED.glob(f"*/{MANIFEST}")
    }
    rows = [
        [
            place.name,
            f"{sum(file.stat().st_size for file in place.iterdir()) / 1e6:.1f}",
            f"{1000 * statistics.median(alone[k]) / len(chosen):.2f}",
            f"{len(chosen) / statistics.median(together[k]):,.0f}",
            _training(TRAINED.get(exported.get(model.manifest["files"]["model.onnx"], ""), ())),
        ]
        for k, (place, model) in enumerate(zip(places, models, strict=True))
    ]
    print(
        table(HEAD, rows),
        f"\n{len(chosen)} test texts, rounds in turn, of which the median: {rounds}, "
        f"threads: {threads}, engine: {', '.join(sorted({model.engine for model in models}))}.",
        sep="\n",
    )


def _seconds(model: Classifier, requests: Sequence[Sequence[str]]) -> float:
    start = time.perf_counter()
    for texts in requests:
        model.logits(texts, BATCH_TOKENS)
    return time.perf_counter() - start


def _training(stages: Sequence[str]) -> str:
    """Say how long stages took when they last ran here; nothing if one has not."""
    seconds = 0.0
    for name in stages:
        told = [
            float(found[-1])
            for path in sorted(stage.LOGS.glob(f"*-{name}-*.log"))
            if re.fullmatch(rf"\w+-{name}-\d+\.log", path.name)  # not of another pipeline
            if (found := TOOK.findall(path.read_text(encoding="utf-8", errors="replace")))
        ]
        if not told:
            return ""
        seconds += told[-1]
    return f"{seconds:.0f}" if stages else ""


if __name__ == "__main__":
    stage.run(main, section=False)
