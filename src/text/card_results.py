"""The section of a model card that tells how the model was judged, in Markdown."""

from collections import Counter
from collections.abc import Iterable

from src.core.markdown import code, table
from src.metrics import bootstrap, significance
from src.text.card_facts import Facts

SCORES = {  # the metrics' names here, and the types and names that Hugging Face's cards give them
    "accuracy": ("accuracy", "Accuracy"),
    "macro_f1": ("f1", "Macro F1"),
    "weighted_f1": ("f1", "Weighted F1"),
    "log_loss": ("log_loss", "Log loss"),
    "ece": ("expected_calibration_error", "Expected calibration error"),
}
MATRIX = 12  # labels up to which the confusion matrix is still read as one


def results(facts: Facts) -> list[str]:
    """Tell the figures on the test split, by label and by slice too."""
    test, confidence = facts.test, facts.params["evaluate"]["confidence"]
    rows = []
    for key, (_, shown) in SCORES.items():
        low, high = test.get(f"{key}_low"), test.get(f"{key}_high")
        interval = "" if low is None else f"{low:.4f} to {high:.4f}"
        rows.append([shown, f"{test[key]:.4f}", interval])
    surer = float(facts.scores.mean()) - test["accuracy"]
    bias = "surer than it is right" if surer > 0 else "less sure than it is right"
    parts = [
        "## How it was judged",
        f"On {len(facts.predictions):,} test texts, which no stage trains on or chooses by.",
        table(["figure", "value", f"{100 * confidence:g} % interval (bootstrap)"], rows),
        f"Calibration: the labels it gives have a mean probability of {facts.scores.mean():.4f}, "
        f"and {test['accuracy']:.4f} of them are right, so that on the whole it is {bias}, by "
        f"{abs(surer):.4f}. The expected calibration error is over 15 bins, log loss in nats.",
        *_answers(facts),
        *_comparison(facts),
        "By label:",
        table(
            ["label", "precision", "recall", "F1", "test texts"],
            [
                [
                    code(label),
                    *(f"{scores[key]:.4f}" for key in ("precision", "recall", "f1")),
                    f"{scores['texts']:,.0f}",
                ]
                for label, scores in facts.details["classes"].items()
            ],
        ),
        *_confusion(facts),
    ]
    for column, values in facts.details["slices"].items():
        trained = facts.counts["train"][column].fillna("(none)").value_counts()
        rows = [
            [
                code(value),
                *(f"{scores[key]:.4f}" for key in SCORES),
                f"{scores['texts']:,}",
                f"{trained.get(value, 0):,}",
            ]
            for value, scores in values.items()
        ]
        head = [code(column), *(shown for _, shown in SCORES.values()), "test texts", "trained on"]
        parts += [f"By {code(column)}:", table(head, rows)]
    return parts


def _answers(facts: Facts) -> Iterable[str]:
    """Tell what becomes of the least score of an answer, and of texts that no label fits."""
    found = facts.answers
    if least := facts.params["compare"]["min_score"]:
        said = (
            f"It gives a label from a probability of {least:g} on: to {found['coverage']:.4f} of "
        )
        said += "these texts"
        if "answered_accuracy" in found:
            said += f", of which {found['answered_accuracy']:.4f} get the right one"
        if "out_of_scope_coverage" in found:
            said += f"; to {found['out_of_scope_coverage']:.4f} of the texts that no label fits"
        yield f"{said}."
    if "out_of_scope_auroc" in facts.test:
        labels = ", ".join(map(code, facts.params["split"]["out_of_scope"]))
        yield (
            f"The labels that it gives to texts of {labels}, which no label fits, have a lower "
            f"probability than those of the test texts in {facts.test['out_of_scope_auroc']:.4f} "
            "of all pairs (area under the ROC curve)."
        )


def _confusion(facts: Facts) -> list[str]:
    labels = facts.manifest["labels"]
    if len(labels) > MATRIX:
        return []
    pairs = Counter(zip(facts.predictions["label"], facts.predictions["predicted"], strict=True))
    rows = [[code(true), *(f"{pairs[true, given]:,}" for given in labels)] for true in labels]
    head = ["label", *(code(label) for label in labels)]
    return ["Test texts by their label, in rows, and the label it gave:", table(head, rows)]


def _comparison(facts: Facts) -> Iterable[str]:
    name, figures = facts.reference, facts.reference_test
    confidence = facts.params["compare"]["confidence"]
    yield (
        f"Against the model {code(name)} on the same texts (paired bootstrap, "
        f"{100 * confidence:g} % intervals):"
    )
    rows = []
    for key in ("accuracy", "macro_f1"):
        drawn = facts.differences[key]
        low, high = bootstrap.interval(drawn, confidence)
        p_value = bootstrap.p_value(drawn)
        point = facts.test[key] - figures[key]
        p = significance.said(p_value).removeprefix("p ").removeprefix("= ")
        verdict = "better" if point > 0 else "worse"
        if p_value >= significance.REAL:
            verdict = "not shown to be real"
        difference = f"{point:+.4f} ({low:+.4f} to {high:+.4f})"
        rows.append([SCORES[key][1], f"{figures[key]:.4f}", difference, p, verdict])
    yield table(["figure", f"of {code(name)}", "difference", "p", "the difference is"], rows)
