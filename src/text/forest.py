"""A random forest whose probabilities can be trusted, and whose memory many classes don't fill."""

import warnings
from typing import Any, Self

import numpy as np
from scipy import sparse
from scipy.special import softmax
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

from src.metrics.classification import Floats

AT_ONCE = 32  # trees that are grown before they are made lighter
ENTRIES = 2**22  # shares of leaves that are added up at once


class Forest(RandomForestClassifier):  # type: ignore[misc]  # scikit-learn has no types
    """scikit-learn's forest, with logits: the logarithms of its shares, over a temperature.

    The mean of the trees' shares is far less sure than it is right, as each has seen other texts
    and features. Each class has half a tree's vote more, so that none has no chance; the order of
    the classes stays.

    scikit-learn keeps a share of each class at each node of each tree, which for 150 classes and
    15,000 texts are gigabytes of zeros. Here a tree only leads to a leaf, and can't predict alone.

    Attributes:
        first_nodes_: the number of each tree's first node among those of all trees, [trees].
        shares_: the shares of the classes in each leaf, and nothing at other nodes, sparse
            [nodes, classes].
    """

    n_estimators: int
    temperature_ = 1.0

    @property
    def half_vote(self) -> float:
        """Half of what one tree adds to a share."""
        return float(0.5 / self.n_estimators)

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:  # noqa: N803
        """Grow the trees that scikit-learn would, some at a time."""
        self.__dict__.pop("estimators_", None)
        shares: list[Any] = []
        trees, each = self.n_estimators, max(AT_ONCE, self.n_jobs or 1)
        self.warm_start = True
        try:
            for grown in range(each, trees + each, each):
                self.n_estimators = min(grown, trees)
                with warnings.catch_warnings():  # which is about other texts, and these are equal
                    warnings.filterwarnings("ignore", "class_weight presets", UserWarning)
                    super().fit(X, y, sample_weight)
                shares += [_lighten(tree) for tree in self.estimators_[len(shares) :]]
        finally:
            self.n_estimators, self.warm_start = trees, False
        self.first_nodes_ = np.cumsum([0, *(each.shape[0] for each in shares[:-1])])
        self.shares_ = sparse.vstack(shares, format="csr")
        return self

    def logits(self, features: Any) -> Floats:
        """Return the logits of texts: [texts, classes]."""
        leaves = self.apply(features) + self.first_nodes_
        trees, classes = len(self.estimators_), len(self.classes_)
        each = max(1, ENTRIES // (trees * int(np.diff(self.shares_.indptr).max())))
        shares = np.empty((len(leaves), classes))
        for start in range(0, len(leaves), each):
            rows = leaves[start : start + each]
            found = self.shares_[rows.ravel()]
            ends = found.indptr[::trees]  # one row for all leaves of a text
            votes = sparse.csr_matrix((found.data, found.indices, ends), (len(rows), classes))
            shares[start : start + each] = votes.toarray() / trees
        logits: Floats = np.log(shares + self.half_vote) / self.temperature_
        return logits

    def predict_proba(self, X: Any) -> Floats:  # noqa: N803, scikit-learn's name
        """Return the probabilities of texts: [texts, classes]."""
        probabilities: Floats = softmax(self.logits(X), axis=1)
        return probabilities


def _lighten(tree: DecisionTreeClassifier) -> Any:
    """Take the shares of the classes out of a tree: sparse [nodes, classes], of leaves alone."""
    kind, (features, _, outputs), state = tree.tree_.__reduce__()
    is_leaf = tree.tree_.children_left == -1
    shares = sparse.csr_matrix(state["values"][:, 0] * is_leaf[:, None])
    tree.tree_ = kind(features, np.array([1], dtype=np.intp), outputs)  # as if of one class
    tree.tree_.__setstate__({**state, "values": np.ones((len(is_leaf), 1, 1))})
    return shares
