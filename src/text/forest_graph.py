"""A forest as nodes of ONNX: its trees, and the tables of what their leaves say."""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from src.text.forest import Forest


def nodes_of(forest: Forest) -> tuple[list[onnx.NodeProto], list[TensorProto]]:
    """Build the nodes from ``features`` to ``logits``, and their constants.

    Each tree gives the number of an outcome, which many leaves share: some classes, and the share
    of each. Tables have as many columns as an outcome has classes at most; where few have many, a
    second table has those that the first has no room for.
    """
    classes, shares, outcomes = outcomes_of(forest)
    widths = np.count_nonzero(shares, axis=1)
    room = _room(widths)
    long = widths > room
    constants = {
        "few_classes": classes[:, :room],
        "few_shares": shares[:, :room],
        "of_each_text": np.array([0, -1]),
        "class_axis": np.array([1]),
        "no_shares": np.zeros((1, len(forest.classes_)), np.float32),
        "trees": np.float32(len(forest.estimators_)),
        "half_vote": np.float32(forest.half_vote),
        "temperature": np.float32(forest.temperature_),
    }
    node = helper.make_node
    nodes = [
        _trees(forest, outcomes),
        node("Cast", ["outcome_of_tree"], ["outcome"], to=TensorProto.INT64),
        node("Shape", ["outcome"], ["texts"], end=1),
        node("Concat", ["texts", "class_axis"], ["rows"], axis=0),
        node("Expand", ["no_shares", "rows"], ["none"]),
        *_adding("few", "outcome", "none", "few_sum"),
    ]
    total = "few_sum"
    if long.any():
        none, rest = np.zeros((1, classes.shape[1] - room)), np.cumsum(long) * long
        constants |= {
            "more_row": rest,  # the first one is empty
            "more_classes": np.concatenate([none, classes[long, room:]]).astype(np.int32),
            "more_shares": np.concatenate([none, shares[long, room:]]).astype(np.float32),
        }
        nodes.append(node("Gather", ["more_row", "outcome"], ["more_outcome"]))
        nodes += _adding("more", "more_outcome", total, "sum")
        total = "sum"
    nodes += [
        node("Div", [total, "trees"], ["mean"]),
        node("Add", ["mean", "half_vote"], ["positive"]),
        node("Log", ["positive"], ["log_shares"]),
        node("Div", ["log_shares", "temperature"], ["logits"]),
    ]
    return nodes, [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()]


def _room(widths: Any) -> int:
    """Return for how many columns of the first table both are smallest together."""
    most = int(widths.max())
    longer = [np.count_nonzero(widths > room) for room in range(1, most + 1)]
    sizes = [len(widths) * k + (n + 1) * (most - k) for k, n in enumerate(longer, 1)]
    return 1 + int(np.argmin(sizes))


def _adding(table: str, row: str, before: str, after: str) -> list[onnx.NodeProto]:
    """Build the nodes that add to each text's shares those of the rows of a table."""
    node = helper.make_node
    return [
        node("Gather", [f"{table}_classes", row], [f"{table}_classes_by_tree"]),
        node("Gather", [f"{table}_shares", row], [f"{table}_shares_by_tree"]),
        node("Reshape", [f"{table}_classes_by_tree", "of_each_text"], [f"{table}_voted"]),
        node("Reshape", [f"{table}_shares_by_tree", "of_each_text"], [f"{table}_votes"]),
        node(
            "ScatterElements",
            [before, f"{table}_voted", f"{table}_votes"],
            [after],
            axis=1,
            reduction="add",
        ),
    ]


def outcomes_of(forest: Forest) -> tuple[Any, Any, Any]:
    """List what a leaf can say: one class, which is most, or shares of several.

    Returns:
        The classes of each outcome and their shares, [outcomes, most classes of any] with a share
        of 0 after the last one, and the outcome of each node, [nodes of all trees].
    """
    table = forest.shares_
    counts = np.diff(table.indptr)
    pure, several = counts == 1, np.flatnonzero(counts > 1)
    filled = np.arange(counts.max()) < counts[several, None]
    rows = np.zeros((len(several), counts.max()), [("class", np.int32), ("share", np.float32)])
    rows["class"][filled] = table[several].indices
    rows["share"][filled] = table[several].data
    kinds, kind_of = np.unique(rows.view(f"V{rows.strides[0]}")[:, 0], return_inverse=True)
    certain = np.zeros((table.shape[1], counts.max()), rows.dtype)
    certain["class"][:, 0], certain["share"][:, 0] = np.arange(len(certain)), 1
    known = np.concatenate([certain, kinds.view(rows.dtype).reshape(-1, counts.max())])
    outcomes = np.zeros(len(counts), np.int64)
    outcomes[pure] = table[pure].indices
    outcomes[several] = len(certain) + kind_of
    return known["class"], known["share"], outcomes


def _trees(forest: Forest, outcomes: Any) -> onnx.NodeProto:
    """Build the node from ``features`` to the outcome of each tree, [texts, trees]."""
    found = [tree.tree_ for tree in forest.estimators_]
    left, right, feature, threshold = (
        np.concatenate([getattr(tree, name) for tree in found])
        for name in ("children_left", "children_right", "feature", "threshold")
    )
    is_leaf = left == -1
    number = np.where(is_leaf, np.cumsum(is_leaf), np.cumsum(~is_leaf)) - 1  # of its own kind
    # A tree of one leaf has a node that leads there either way, after all others.
    roots = forest.first_nodes_
    lone = roots[is_leaf[roots]]
    tree_roots = number[roots]
    tree_roots[is_leaf[roots]] = np.count_nonzero(~is_leaf) + np.arange(len(lone))
    split = ~is_leaf
    first = np.repeat(roots, [tree.node_count for tree in found])[split]
    yes = np.concatenate([first + left[split], lone])
    no = np.concatenate([first + right[split], lone])
    # A float32 is above a float64 just where it is above the next lower float32.
    values = threshold[split].astype(np.float32)
    too_high = values > threshold[split]
    values[too_high] = np.nextafter(values[too_high], np.float32(-np.inf))
    none = np.zeros(len(lone))
    sizes = [tree.n_leaves for tree in found]
    return helper.make_node(
        "TreeEnsemble",
        ["features"],
        ["outcome_of_tree"],
        domain="ai.onnx.ml",
        n_targets=len(found),
        tree_roots=tree_roots.tolist(),
        nodes_modes=numpy_helper.from_array(np.zeros(len(yes), np.uint8)),  # at most
        nodes_featureids=np.append(feature[split], none.astype(int)).tolist(),
        nodes_splits=numpy_helper.from_array(np.append(values, none).astype(np.float32)),
        nodes_truenodeids=number[yes].tolist(),
        nodes_trueleafs=is_leaf[yes].astype(int).tolist(),
        nodes_falsenodeids=number[no].tolist(),
        nodes_falseleafs=is_leaf[no].astype(int).tolist(),
        leaf_targetids=np.repeat(np.arange(len(sizes)), sizes).tolist(),
        leaf_weights=numpy_helper.from_array(outcomes[is_leaf].astype(np.float32)),  # exactly
    )
