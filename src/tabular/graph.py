"""A model of a table as a graph of ONNX: an input for each feature, one output of probabilities.

Numbers, booleans and the parts of a date come as float64 [rows, 1], NaN where they are missing;
categories as strings [rows, 1], "" where they are missing. All is computed in float64, as
scikit-learn does, so that a row near a threshold gets the same label.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pandas as pd
from onnx import TensorProto, helper, numpy_helper
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from src.metrics.classification import Floats
from src.tables.schema import Schema
from src.tabular import graph_trees
from src.tabular.decision import LEAST, Decision, Method
from src.tabular.features import NUMBERS

OPSETS = {"": 18, "ai.onnx.ml": 5}
IR_VERSION = 10  # of the first release of ONNX with these
OUTPUT = "probabilities"  # after a mark where a feature is called so


class Graph:
    """The nodes of a graph so far."""

    def __init__(self, features: Sequence[str]) -> None:
        """Begin a graph; its own names differ from those of features."""
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []
        self._mark = "_"
        while any(name.startswith(self._mark) for name in features):
            self._mark += "_"
        self.output = f"{self._mark}{OUTPUT}" if OUTPUT in features else OUTPUT

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node, and name what it gives."""
        name = f"{self._mark}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, [*inputs], [name], **attributes))
        return name

    def hold(self, value: Any) -> str:
        """Add a constant, and name it."""
        name = f"{self._mark}c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def apply(self, operator: str, value: str, constant: Any) -> str:
        """Add a node of a value and a constant."""
        return self.add(operator, value, self.hold(constant))


def build(pipeline: Pipeline, schema: Schema, decision: Decision, classes: int) -> onnx.ModelProto:
    """Build the graph from the features of ``schema`` to calibrated probabilities [rows, classes].

    Args:
        pipeline: of ``training.train``.
        schema: of the columns that it was trained on.
        decision: its calibration.
        classes: the number of labels.
    """
    numbers, categories = schema.features(*NUMBERS), schema.features("category")
    inputs = [(name, TensorProto.DOUBLE) for name in numbers]
    inputs += [(name, TensorProto.STRING) for name in categories]
    graph = Graph([*numbers, *categories])
    classifier = pipeline["classify"]
    parts = _prepared(graph, pipeline, numbers, categories)
    if isinstance(classifier, RandomForestClassifier):
        found = graph_trees.forest(graph, classifier, parts)
    elif isinstance(classifier, HistGradientBoostingClassifier):
        found = graph_trees.boosting(graph, classifier, parts)
    else:
        weight, bias = classifier.coef_, classifier.intercept_
        if classes == 2:  # one row, the logit of the second minus that of the first
            weight, bias = np.vstack([0 * weight, weight]), np.append(0, bias)
        logits = graph.add("MatMul", parts, graph.hold(np.ascontiguousarray(weight.T)))
        found = graph.add("Softmax", graph.apply("Add", logits, bias), axis=1)
    calibrated = _calibrated(graph, found, decision, classes)
    graph.nodes.append(helper.make_node("Identity", [calibrated], [graph.output]))
    return helper.make_model(
        helper.make_graph(
            graph.nodes,
            "table",
            [helper.make_tensor_value_info(name, kind, ["rows", 1]) for name, kind in inputs],
            [helper.make_tensor_value_info(graph.output, TensorProto.DOUBLE, ["rows", classes])],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid(*opset) for opset in OPSETS.items()],
        ir_version=IR_VERSION,
    )


def _prepared(
    graph: Graph, pipeline: Pipeline, numbers: Sequence[str], categories: Sequence[str]
) -> str:
    """Add what the classifier takes, [rows, columns]."""
    steps = {name: fitted for name, fitted, _ in pipeline["prepare"].transformers_}
    trees = pipeline["classify"]
    parts = []
    if numbers:
        joined = graph.add("Concat", *numbers, axis=1)
        parts.append(_numbers(graph, joined, steps["numbers"]))
    if categories:
        encoder = steps["categories"]
        tables = _one_hot(encoder) if isinstance(encoder, OneHotEncoder) else _ordinal(encoder)
        if isinstance(trees, HistGradientBoostingClassifier):  # which numbers the numbers anew
            own = trees._preprocessor.named_transformers_["encoder"].categories_
            tables = [_renumbered(table, known) for table, known in zip(tables, own, strict=True)]
        made = [
            _category(graph, *each)
            for each in zip(categories, encoder.categories_, tables, strict=True)
        ]
        # and which puts categories first
        parts = made + parts if isinstance(trees, HistGradientBoostingClassifier) else parts + made
    return parts[0] if len(parts) == 1 else graph.add("Concat", *parts, axis=1)


def _numbers(graph: Graph, joined: str, transformer: Any) -> str:
    """Add what fills in and scales numbers; boosted trees take them as they are."""
    for _, step in transformer.steps if isinstance(transformer, Pipeline) else ():
        if isinstance(step, StandardScaler):
            joined = graph.apply("Div", graph.apply("Sub", joined, step.mean_), step.scale_)
            continue
        missing = graph.add("IsNaN", joined)
        joined = graph.add("Where", missing, graph.hold(step.statistics_[None, :]), joined)
        if step.indicator_ is not None and len(step.indicator_.features_):
            told = graph.add(
                "Gather", missing, graph.hold(step.indicator_.features_.astype(np.int64)), axis=1
            )
            told = graph.add("Cast", told, to=TensorProto.DOUBLE)
            joined = graph.add("Concat", joined, told, axis=1)
    return joined


def _category(graph: Graph, name: str, known: Any, table: Floats) -> str:
    """Add the columns that a category becomes: the row of ``table`` of its value."""
    place = graph.add(
        "LabelEncoder",
        name,
        domain="ai.onnx.ml",
        keys_strings=[str(value) for value in known],
        values_int64s=[*range(len(known))],
        default_int64=len(known),
    )
    return graph.add("Gather", graph.hold(table), graph.apply("Reshape", place, [-1]), axis=0)


def _encoded(encoder: OneHotEncoder | OrdinalEncoder) -> list[Floats]:
    """Encode each known value of each category, and one that is not known, in all columns."""
    made = []
    for name, known in zip(encoder.feature_names_in_, encoder.categories_, strict=True):
        values = [*known, "".join(known) + "?"]
        names = zip(encoder.feature_names_in_, encoder.categories_, strict=True)
        frame = pd.DataFrame({other: [its[0]] * len(values) for other, its in names})
        frame[name] = values
        made.append(np.asarray(encoder.transform(frame), np.float64))
    return made


def _one_hot(encoder: OneHotEncoder) -> list[Floats]:
    """Return what each category's values become, [values and one for others, columns]."""
    rare = [() if found is None else found for found in encoder.infrequent_categories_]
    widths = [
        len(known) - len(few) + bool(len(few))
        for known, few in zip(encoder.categories_, rare, strict=True)
    ]
    ends = np.cumsum(widths)
    return [
        table[:, end - width : end]
        for table, width, end in zip(_encoded(encoder), widths, ends, strict=True)
    ]


def _ordinal(encoder: OrdinalEncoder) -> list[Floats]:
    """Return the number that each category's values become, [values and one for others, 1]."""
    return [table[:, k : k + 1] for k, table in enumerate(_encoded(encoder))]


def _renumbered(table: Floats, known: Floats) -> Floats:
    """Return the places of numbers among those that are known, NaN where they are not."""
    places = np.searchsorted(known, table).clip(max=len(known) - 1)
    return np.where(known[places] == table, places, np.nan)


def _calibrated(graph: Graph, found: str, decision: Decision, classes: int) -> str:
    """Add what ``Decision.calibrated`` does."""
    if decision.method == "none":
        return found
    two = len(decision.curves) == 1
    columns = [1] if two else range(classes)
    bent = [
        _bent(graph, graph.add("Gather", found, graph.hold([k]), axis=1), decision.method, curve)
        for k, curve in zip(columns, decision.curves, strict=True)
    ]
    if two:
        return graph.add("Concat", graph.add("Sub", graph.hold(1.0), bent[0]), bent[0], axis=1)
    positive = graph.apply("Max", graph.add("Concat", *bent, axis=1), LEAST)
    total = graph.add("ReduceSum", positive, graph.hold([1]), keepdims=1)
    return graph.add("Div", positive, total)


def _bent(graph: Graph, column: str, method: Method, curve: Mapping[str, list[float]]) -> str:
    """Add the curve of a class, from probabilities [rows, 1] to others."""
    if method == "sigmoid":
        clipped = graph.add("Clip", column, graph.hold(LEAST), graph.hold(1 - LEAST))
        odds = graph.add("Div", clipped, graph.add("Sub", graph.hold(1.0), clipped))
        line = graph.apply("Mul", graph.add("Log", odds), curve["slope"][0])
        return graph.add("Sigmoid", graph.apply("Add", line, curve["offset"][0]))
    x, y = (np.asarray(curve[name], np.float64) for name in ("x", "y"))
    if len(x) == 1:
        x, y = np.append(x, x + 1), np.append(y, y)
    inside = graph.add("Clip", column, graph.hold(x[0]), graph.hold(x[-1]))
    above = graph.add("Cast", graph.apply("GreaterOrEqual", inside, x), to=TensorProto.INT64)
    place = graph.apply("Sub", graph.add("ReduceSum", above, graph.hold([1]), keepdims=1), 1)
    place = graph.add("Min", place, graph.hold(len(x) - 2))
    slopes = np.diff(y) / np.diff(x)
    start, low, slope = (
        graph.add("Gather", graph.hold(v), place) for v in (x[:-1], y[:-1], slopes)
    )
    risen = graph.add("Mul", graph.add("Sub", inside, start), slope)
    return graph.add("Clip", graph.add("Add", low, risen), graph.hold(LEAST), graph.hold(1 - LEAST))
