"""Judge one model on the test split, whatever it is made of."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from dvclive.live import Live
from scipy.special import softmax

from src.core import stage
from src.core.command_line import Count, Natural, Seed, Share, Threads
from src.core.errors import InputError, closest
from src.core.files import replacing, write_json
from src.metrics import bootstrap, classification, selective
from src.metrics.classification import Floats, Integers
from src.tables import delimited, examples

CHUNK = 1024  # texts between two lines of progress

Score = Callable[[Sequence[str]], Floats]

log = logging.getLogger("src.text.evaluate")


def main(
    splits: Path,
    model: Path,
    predictions: Path,
    live: Path,
    *,
    slices: list[str],
    resamples: Count,
    confidence: Share,
    mistakes: Natural,
    batch_tokens: Count,
    threads: Threads,
    seed: Seed,
) -> None:
    """Score the test split, and write predictions, metrics and plots.

    The metrics have figures of the validation split too, which models are chosen by, and the size
    of the folder in bytes.

    Args:
        splits: the folder with ``validation.parquet``, ``test.parquet`` and ``labels.json``, and
            maybe ``out_of_scope.parquet``, texts that no label fits.
        model: a folder with ``model.joblib``, ``model.onnx`` or ``model.safetensors``.
        predictions: the folder that gets ``predictions.parquet`` and ``mistakes.csv``, and
            ``out_of_scope.parquet`` of texts that no label fits; ``validation.parquet`` has what
            is predicted for the validation texts.
        live: the folder that gets ``metrics.json``, ``details.json`` by class and slice, and plots.
    """
    test = examples.read(splits / "test.parquet")
    _expect_columns(slices, test)
    names = examples.read_labels(splits)
    labels = examples.label_ids(test, names)
    score = _scorer(model, names, batch_tokens, threads)
    probabilities = _probabilities(score, list(test["text"]))
    predicted = probabilities.argmax(axis=1)

    figures = classification.summary(labels, probabilities)
    scores = bootstrap.bootstrap(labels, [predicted], len(names), resamples, seed)
    for name, resampled in scores.items():
        low, high = bootstrap.interval(resampled[0], confidence)
        figures |= {f"{name}_low": low, f"{name}_high": high}
        log.info(
            "%s %.4f, %g%% between %.4f and %.4f", name, figures[name], 100 * confidence, low, high
        )
    surest = probabilities.max(axis=1)
    figures["aurc"] = selective.area_under_risk_coverage(labels == predicted, surest)
    unknown = _out_of_scope(splits / "out_of_scope.parquet", score, names)
    if unknown is not None:
        figures["out_of_scope_auroc"] = selective.separation(surest, unknown["score"].to_numpy())
    validation = examples.read(splits / "validation.parquet")
    checked = _probabilities(score, list(validation["text"]))
    validated = classification.summary(examples.label_ids(validation, names), checked)
    size = sum(path.stat().st_size for path in model.rglob("*") if path.is_file())
    with Live(str(live), dvcyaml=False, save_dvc_exp=False) as record:
        for split, found in (("test", figures), ("validation", validated)):
            for name, figure in found.items():
                record.log_metric(f"{split}/{name}", figure, plot=False)
        record.log_metric("bytes", size, plot=False)
        _plot(record, labels, probabilities, names)
    write_json(live / "details.json", _details(test, labels, probabilities, names, slices))
    with replacing(predictions) as folder:
        folder.mkdir()
        _write_predictions(folder, test, labels, probabilities, names, mistakes)
        said = validation[["id", "label"]]
        said = said.assign(predicted=[names[k] for k in checked.argmax(axis=1)])
        examples.write(said, folder / "validation.parquet")
        if unknown is not None:
            examples.write(unknown, folder / "out_of_scope.parquet")


def _out_of_scope(path: Path, score: Score, names: list[str]) -> pd.DataFrame | None:
    """Score the texts that no label fits, if there are any: what they are taken for."""
    if not path.exists():
        return None
    found = examples.read(path)
    probabilities = _probabilities(score, list(found["text"]))
    predicted = [names[k] for k in probabilities.argmax(axis=1)]
    return found[["id", "label"]].assign(predicted=predicted, score=probabilities.max(axis=1))


def _expect_columns(slices: Sequence[str], test: pd.DataFrame) -> None:
    for column in slices:
        if column not in test:
            raise InputError(
                f"evaluate.slices has {column!r}, which is no column of the source: choose among "
                f"{', '.join(test.columns)}{closest(column, test.columns)}."
            )


def _write_predictions(
    folder: Path,
    test: pd.DataFrame,
    labels: Integers,
    probabilities: Floats,
    names: list[str],
    mistakes: int,
) -> None:
    predicted = probabilities.argmax(axis=1)
    frame = test[["id", "label"]].assign(predicted=[names[k] for k in predicted])
    for k, name in enumerate(names):
        frame[f"p_{name}"] = probabilities[:, k]
    examples.write(frame, folder / "predictions.parquet")
    wrong = frame.assign(score=probabilities.max(axis=1), text=test["text"])
    wrong = wrong[labels != predicted].sort_values("score", ascending=False, kind="stable")
    columns = ["id", "label", "predicted", "score", "text"]
    with (folder / "mistakes.csv").open("w", encoding="utf-8", newline="") as stream:
        out = delimited.writer(stream)
        out.writerow(columns)
        out.writerows(wrong[columns].head(mistakes).itertuples(index=False, name=None))


def _scorer(model: Path, names: list[str], batch_tokens: int, threads: int) -> Score:
    """Return what scores texts, by the engine of the model folder."""
    known, score = _engine(model, batch_tokens, threads)
    examples.expect_labels(model, known, names)
    return score


def _probabilities(score: Score, texts: Sequence[str]) -> Floats:
    """Score texts, and tell of progress: probabilities [texts, classes]."""
    parts = []
    for start in range(0, len(texts), CHUNK):
        parts.append(score(texts[start : start + CHUNK]))
        log.info("scored %d of %d texts", min(start + CHUNK, len(texts)), len(texts))
    return np.concatenate(parts)


def _engine(model: Path, batch_tokens: int, threads: int) -> tuple[list[str], Score]:
    if (model / "model.joblib").exists():
        import joblib

        import src.text.forest  # noqa: F401, whose class may be in the file

        pipeline = joblib.load(model / "model.joblib")
        return list(pipeline.classes_), pipeline.predict_proba

    if (model / "manifest.json").exists():
        from src.predict.classifier import Classifier

        exported = Classifier(model, threads)
        return exported.labels, lambda texts: _shares(exported.logits(texts, batch_tokens))

    if (model / "model.safetensors").exists():
        from src.text.encoder import TorchClassifier

        trained = TorchClassifier(model, threads)
        return trained.labels, lambda texts: _shares(trained.logits(texts, batch_tokens))

    raise InputError(f"{model} has no model: run `dvc repro` first.")


def _shares(logits: npt.NDArray[np.float32]) -> Floats:
    result: Floats = softmax(logits.astype(np.float64), axis=1)
    return result


def _details(
    test: pd.DataFrame, labels: Integers, probabilities: Floats, names: list[str], slices: list[str]
) -> dict[str, object]:
    by_slice: dict[str, dict[str, dict[str, float]]] = {}
    for column in slices:
        by_value = test.fillna({column: "(none)"}).groupby(column).indices
        by_slice[column] = {
            str(value): classification.summary(labels[rows], probabilities[rows])
            | {"texts": len(rows)}
            for value, rows in by_value.items()
        }
    by_class = classification.by_class(labels, probabilities.argmax(axis=1), names)
    return {"classes": by_class, "slices": by_slice}


def _plot(record: Live, labels: Integers, probabilities: Floats, names: list[str]) -> None:
    """Plot the confusion matrix, PR and ROC over all (text, class) pairs, reliability and risk."""
    predicted = probabilities.argmax(axis=1)
    truth = [names[k] for k in labels]
    record.log_sklearn_plot("confusion_matrix", truth, [names[k] for k in predicted], "confusion")
    is_class = np.eye(len(names), dtype=int)[labels].ravel()
    # Three decimals bound the points of a curve, however many texts there are.
    scores = probabilities.round(3).ravel()
    record.log_sklearn_plot("precision_recall", is_class, scores, "precision_recall")
    record.log_sklearn_plot("roc", is_class, scores, "roc")
    correct, confidence = (labels == predicted).astype(int), probabilities.max(axis=1)
    record.log_sklearn_plot(
        "calibration", correct, confidence, "reliability", n_bins=10, strategy="quantile"
    )
    curve = selective.risk_coverage(labels == predicted, confidence.round(3))
    columns = pd.DataFrame(dict(zip(("score", "coverage", "risk"), curve, strict=True)))
    record.log_plot("risk_coverage", columns, x="coverage", y="risk")


if __name__ == "__main__":
    stage.run(main)
