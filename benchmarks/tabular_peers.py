"""The peers of benchmarks/tabular.py, in an environment of their own.

    python tabular_peers.py train.parquet test.parquet scores.npz

writes the score of each test row by each peer with its defaults, and with the weights that it has
for a rare class, and the seconds of each training. The last column is the label.
"""

import sys
import time
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import xgboost


def main() -> None:
    """Train each peer, and score."""
    train, test = (pd.read_parquet(path) for path in sys.argv[1:3])
    features, labels = train.iloc[:, :-1], train.iloc[:, -1].to_numpy()
    weight = float((labels == 0).sum() / (labels == 1).sum())
    quiet: dict[str, Any] = {"verbose": -1, "n_jobs": 2, "random_state": 42}
    peers = {
        "LightGBM": lightgbm.LGBMClassifier(**quiet),
        "LightGBM, is_unbalance": lightgbm.LGBMClassifier(is_unbalance=True, **quiet),
        "XGBoost": xgboost.XGBClassifier(n_jobs=2, random_state=42),
        "XGBoost, scale_pos_weight": xgboost.XGBClassifier(
            n_jobs=2, random_state=42, scale_pos_weight=weight
        ),
    }
    found: dict[str, Any] = {}
    for name, peer in peers.items():
        start = time.perf_counter()
        peer.fit(features, labels)
        found[f"{name} seconds"] = np.array(time.perf_counter() - start)
        found[name] = peer.predict_proba(test.iloc[:, :-1])[:, 1]
    np.savez(sys.argv[3], **found)


if __name__ == "__main__":
    main()
