"""Compare the models on the same test texts, and say which differences are real."""

import logging
from pathlib import Path

from dvclive.live import Live

from src.core import stage
from src.core.command_line import Count, Seed, Share
from src.core.errors import InputError
from src.core.files import replacing
from src.metrics import bootstrap, classification
from src.metrics.classification import Floats
from src.tables import examples

KEYS = ("accuracy", "macro_f1")  # that the models are compared by
LEGEND = """
p is how often chance alone would make so large a difference on these texts (paired bootstrap,
two sides); from about 0.05 up, a difference is not shown to be real. Intervals from a few dozen
texts are too narrow.
"""

log = logging.getLogger("src.text.compare")


def main(live: Path, *predictions: Path, resamples: Count, confidence: Share, seed: Seed) -> None:
    """Write the comparison table and the paired bootstrap of each model against the first.

    Args:
        live: the folder that gets ``metrics.json`` and ``comparison.md``.
        predictions: a folder of predictions for each model, the reference first.
    """
    if not predictions:
        raise InputError("No predictions are named: name their folders, the reference first.")
    frames = {folder.name: examples.read(folder / "predictions.parquet") for folder in predictions}
    reference = next(iter(frames))
    for name, frame in frames.items():
        if not frame[["id", "label"]].equals(frames[reference][["id", "label"]]):
            raise InputError(
                f"The predictions of {reference} and {name} are not of the same texts: run "
                "`dvc repro` to evaluate both on the present split."
            )
    names = [c.removeprefix("p_") for c in map(str, frames[reference]) if c.startswith("p_")]
    labels = examples.label_ids(frames[reference], names)
    predicted = [examples.label_ids(f.assign(label=f["predicted"]), names) for f in frames.values()]
    scores = bootstrap.bootstrap(labels, predicted, len(names), resamples, seed)

    figures = [
        classification.summary(labels, frame[[f"p_{n}" for n in names]].to_numpy())
        for frame in frames.values()
    ]
    against = [f"accuracy minus {reference}'s", f"macro F1 minus {reference}'s"]
    rows = [["model", "accuracy", "macro F1", "log loss", "ECE", *against]]
    with Live(str(live), dvcyaml=False, save_dvc_exp=False) as record:
        for k, name in enumerate(frames):
            row = [name]
            for key in KEYS:
                low, high = bootstrap.interval(scores[key][k], confidence)
                row.append(f"{figures[k][key]:.4f} ({low:.4f} to {high:.4f})")
            row += [f"{figures[k]['log_loss']:.4f}", f"{figures[k]['ece']:.4f}"]
            for key in KEYS if k else ():
                point = figures[k][key] - figures[0][key]
                resampled = scores[key][k] - scores[key][0]
                row.append(_difference(record, f"{name}/{key}", point, resampled, confidence))
            rows.append(row + ["" for _ in range(len(rows[0]) - len(row))])
    heading = f"{len(labels)} test texts, {100 * confidence:g}% bootstrap intervals"
    text = f"{heading}\n\n{_table(rows)}{LEGEND}"
    log.info("%s", text)
    with replacing(live / "comparison.md") as file:
        file.write_text(text, encoding="utf-8", newline="\n")


def _difference(record: Live, name: str, point: float, resampled: Floats, confidence: float) -> str:
    """Record the interval and the p-value of a difference, and return its cell of the table."""
    low, high = bootstrap.interval(resampled, confidence)
    p_value = bootstrap.p_value(resampled)
    for figure, value in (("low", low), ("high", high), ("p_value", p_value)):
        record.log_metric(f"{name}_difference_{figure}", value, plot=False)
    p = f"p = {p_value:.3f}" if p_value >= 0.001 else "p < 0.001"
    return f"{point:+.4f} ({low:+.4f} to {high:+.4f}), {p}"


def _table(rows: list[list[str]]) -> str:
    """Lay out a Markdown table whose columns also line up as plain text."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows = [rows[0], ["-" * width for width in widths], *rows[1:]]
    lines = (" | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows)
    return "".join(f"| {line} |\n" for line in lines)


if __name__ == "__main__":
    stage.run(main)
