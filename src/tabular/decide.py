"""Calibrate a model on the validation split, and choose the threshold of its decisions there."""

import logging
from pathlib import Path
from typing import Annotated

from dvclive.live import Live

from src.core import stage
from src.core.command_line import Interval, Share
from src.core.files import replacing
from src.metrics import imbalance
from src.tables import examples
from src.tables.schema import Schema
from src.tabular import decision, features, models
from src.tabular.decision import Decision, Method, Rule

log = logging.getLogger("src.tabular.decide")


def main(
    splits: Path,
    model: Path,
    decided: Path,
    live: Path,
    *,
    calibration: Method,
    threshold: Share | Rule,
    wanted: Share,
    miss_cost: Annotated[float, Interval(gt=0)],
    false_alarm_cost: Annotated[float, Interval(gt=0)],
) -> None:
    """Write what turns the probabilities of a model into decisions.

    Args:
        splits: the folder with the split, ``schema.json`` and ``labels.json``.
        model: the folder with ``model.joblib``.
        decided: the JSON file that gets the calibration and the threshold.
        live: the folder that gets the figures of the validation split.
    """
    schema, names = Schema.read(splits / "schema.json"), examples.read_labels(splits)
    positive = schema.positive_of(names)
    rows = features.read(splits, "validation", schema, names)
    raw = models.load(model, names).predict_proba(rows.features)
    curves = decision.fit(calibration, rows.labels, raw)
    found = Decision(calibration, curves, 0.0, miss_cost, false_alarm_cost)
    probabilities = found.calibrated(raw)
    if positive is None:
        log.info("more than two labels: the likeliest one is decided for, whatever the threshold")
    elif isinstance(threshold, float):
        found = Decision(calibration, curves, threshold, miss_cost, false_alarm_cost)
    else:
        costs = miss_cost, false_alarm_cost
        truth = rows.labels == positive
        level, reached = decision.threshold(
            threshold, wanted, costs, truth, probabilities[:, positive]
        )
        if not reached:
            log.warning("no threshold has a %s of %g on the validation rows", threshold, wanted)
        found = Decision(calibration, curves, level, miss_cost, false_alarm_cost)
        log.info("threshold %.4f, by %s", level, threshold)
    labels = found.labels(probabilities, positive)
    figures = imbalance.ranking(rows.labels, probabilities, positive)
    figures |= imbalance.decided(rows.labels, labels, positive)
    if positive is not None:
        figures["cost"] = found.cost(rows.labels, labels, positive)
        figures["threshold"] = found.threshold
    log.info("validation: %s", figures)
    with replacing(decided) as file:
        found.write(file)
    with Live(str(live), dvcyaml=False, save_dvc_exp=False) as record:
        for name, figure in figures.items():
            record.log_metric(f"validation/{name}", figure, plot=False)


if __name__ == "__main__":
    stage.run(main)
