"""Tables of what experiments found in each language.

    python benchmarks/languages.py multilingual zero-shot

Reads the metrics that `dvc exp run --name ...` keeps, prints macro F1 by language for each model,
and writes benchmarks/results/languages.json.
"""

import argparse
import json
import subprocess
import sys
from typing import Any

from measure import ROOT, write

MODELS = ("baseline", "transformer", "onnx-int8")


def git(*words: str) -> str:
    """The output of a git command."""
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603, S607
    return done.stdout


def revision(name: str) -> str:
    """The commit of an experiment, by the name that it was given."""
    refs = git("for-each-ref", "refs/exps", "--sort=committerdate", "--format=%(refname)").split()
    found = [ref for ref in refs if ref.endswith(f"/{name}")]
    if not found:
        sys.exit(f"Expected an experiment {name}, found none: run `make multilingual` first.")
    return found[-1]


def slices(name: str, column: str) -> dict[str, dict[str, float]]:
    """Macro F1 of each model, by the values of a column."""
    ref = revision(name)
    found = {}
    for model in MODELS:
        path = f"{ref}:dvclive/evaluate/{model}/details.json"
        details: dict[str, Any] = json.loads(git("show", path))
        by_value = details["slices"][column]
        found[model] = {value: row["macro_f1"] for value, row in by_value.items()}
        found[model]["mean"] = sum(found[model].values()) / len(by_value)
    return found


def main() -> None:
    """Print a table for each experiment, and write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", help="of experiments")
    parser.add_argument("--column", default="language")
    arguments = parser.parse_args()
    rows = {name: slices(name, arguments.column) for name in arguments.names}
    for name, found in rows.items():
        values = list(next(iter(found.values())))
        print(f"\n{name}, macro F1\n\n| model | {' | '.join(values)} |")
        print(f"| --- |{' --- |' * len(values)}")
        for model, scores in found.items():
            print(f"| {model} | {' | '.join(f'{scores[value]:.3f}' for value in values)} |")
    write("languages", {"rows": rows})


if __name__ == "__main__":
    main()
