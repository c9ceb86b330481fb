"""Forests and boosted trees as nodes of ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, numpy_helper
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

if TYPE_CHECKING:
    from src.tabular.graph import Graph

AT_MOST, AMONG = 0, 6  # how a node compares: with a number, or with a set of them


def forest(graph: Graph, model: RandomForestClassifier, features: str) -> str:
    """Add the trees of a forest: the mean of what their leaves say, [rows, classes].

    scikit-learn compares float32 with float64, and so do these nodes.
    """
    rounded = graph.add("Cast", features, to=TensorProto.FLOAT)
    rounded = graph.add("Cast", rounded, to=TensorProto.DOUBLE)
    trees = [tree.tree_ for tree in model.estimators_]
    shares = np.concatenate([tree.value[:, 0, :] for tree in trees])
    shares /= shares.sum(axis=1, keepdims=True)
    found = [
        {
            "is_leaf": tree.children_left == -1,
            "left": tree.children_left,
            "right": tree.children_right,
            "feature": tree.feature,
            "threshold": tree.threshold,
        }
        for tree in trees
    ]
    if shares.shape[1] == 2:
        sums = _ensemble(graph, found, rounded, shares[:, 1], np.zeros(len(trees), np.int64))
        second = graph.apply("Div", sums, float(len(trees)))
        return graph.add("Concat", graph.add("Sub", graph.hold(1.0), second), second, axis=1)
    # Of more classes, each tree gives the number of its node, whose shares a table has.
    numbers = np.arange(len(shares), dtype=np.float64)
    nodes = _ensemble(graph, found, rounded, numbers, np.arange(len(trees)))
    nodes = graph.add("Cast", nodes, to=TensorProto.INT64)
    each = graph.add("Gather", graph.hold(shares), nodes, axis=0)  # [rows, trees, classes]
    return graph.add("ReduceMean", each, graph.hold([1]), keepdims=0)


def boosting(graph: Graph, model: HistGradientBoostingClassifier, features: str) -> str:
    """Add boosted trees: the share of each class, [rows, classes].

    A value that is missing goes where the training sent such values, and one that is not among a
    category's known ones counts as missing.
    """
    found, values, targets = [], [], []
    for trees in model._predictors:
        for k, tree in enumerate(trees):
            nodes = tree.nodes
            found.append(
                {
                    "is_leaf": nodes["is_leaf"] == 1,
                    "left": nodes["left"].astype(np.int64),
                    "right": nodes["right"].astype(np.int64),
                    "feature": nodes["feature_idx"],
                    "threshold": nodes["num_threshold"],
                    "missing": nodes["missing_go_to_left"],
                    "members": [
                        _members(tree.raw_left_cat_bitsets[node["bitset_idx"]])
                        if node["is_categorical"]
                        else None
                        for node in nodes
                    ],
                }
            )
            values.append(nodes["value"])
            targets.append(k)
    sums = _ensemble(graph, found, features, np.concatenate(values), np.array(targets))
    raw = graph.apply("Add", sums, model._baseline_prediction.astype(np.float64))
    if len(model._predictors[0]) == 1:
        second = graph.add("Sigmoid", raw)
        return graph.add("Concat", graph.add("Sub", graph.hold(1.0), second), second, axis=1)
    return graph.add("Softmax", raw, axis=1)


def _members(bitset: Any) -> Any:
    """Return the numbers of the bits that are set in words of 32 bits."""
    return np.flatnonzero(np.unpackbits(bitset.view(np.uint8), bitorder="little"))


def _ensemble(graph: Graph, trees: list[Any], features: str, values: Any, targets: Any) -> str:
    """Add one node for all trees: the sum of the values of their leaves, [rows, targets].

    Args:
        graph: gets it.
        trees: the nodes of each, as arrays.
        features: what they compare, [rows, columns], float64.
        values: of each node of all trees; those of leaves count.
        targets: the column that each tree adds to.
    """
    parts: dict[str, list[Any]] = {
        name: [] for name in ("yes", "no", "yes_leaf", "no_leaf", "feature", "split", "mode", "nan")
    }
    members: list[float] = []
    leaf_values, leaf_targets, roots = [], [], []
    inner = leaves = start = 0
    for tree, target in zip(trees, targets.tolist(), strict=True):
        is_leaf = tree["is_leaf"]
        own = values[start : start + len(is_leaf)]
        start += len(is_leaf)
        number = np.where(is_leaf, leaves + np.cumsum(is_leaf), inner + np.cumsum(~is_leaf)) - 1
        split = np.flatnonzero(~is_leaf)
        leaf_values.append(own[is_leaf])
        leaf_targets += [target] * int(is_leaf.sum())
        roots.append(inner)
        if not len(split):  # a tree of one leaf has a node that leads there either way
            yes = no = np.zeros(1, np.int64)
            split, feature, threshold = yes, yes, np.zeros(1)
        else:
            yes, no = tree["left"][split], tree["right"][split]
            feature, threshold = tree["feature"][split], tree["threshold"][split]
        sets = (
            [tree["members"][node] for node in split] if "members" in tree else [None] * len(split)
        )
        for among in sets:
            members += [] if among is None else [*among.tolist(), np.nan]
        parts["yes"].append(number[yes])
        parts["no"].append(number[no])
        parts["yes_leaf"].append(is_leaf[yes])
        parts["no_leaf"].append(is_leaf[no])
        parts["feature"].append(feature)
        parts["split"].append(threshold)
        parts["mode"].append([AT_MOST if among is None else AMONG for among in sets])
        parts["nan"].append(tree["missing"][split] if "missing" in tree else np.zeros(len(split)))
        inner, leaves = inner + len(split), leaves + int(is_leaf.sum())
    whole = {name: np.concatenate(part) for name, part in parts.items()}
    listed = {name: whole[name].astype(int).tolist() for name in whole if name != "split"}
    sets_too = {"membership_values": numpy_helper.from_array(np.array(members))} if members else {}
    return graph.add(
        "TreeEnsemble",
        features,
        domain="ai.onnx.ml",
        n_targets=int(targets.max()) + 1,
        tree_roots=roots,
        nodes_modes=numpy_helper.from_array(whole["mode"].astype(np.uint8)),
        nodes_featureids=listed["feature"],
        nodes_splits=numpy_helper.from_array(whole["split"].astype(np.float64)),
        nodes_truenodeids=listed["yes"],
        nodes_trueleafs=listed["yes_leaf"],
        nodes_falsenodeids=listed["no"],
        nodes_falseleafs=listed["no_leaf"],
        nodes_missing_value_tracks_true=listed["nan"],
        leaf_targetids=leaf_targets,
        leaf_weights=numpy_helper.from_array(np.concatenate(leaf_values).astype(np.float64)),
        **sets_too,
    )
