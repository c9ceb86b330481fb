"""Ship a model of a table: copy its exported folder, and write its model card into the copy."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any, Literal

import dvc.api
from huggingface_hub import EvalResult, ModelCardData

from src.core import stage
from src.core.errors import InputError
from src.core.files import replacing, write_json
from src.core.markdown import public
from src.predict.manifest import list_too, read_table_manifest
from src.tables.schema import Schema
from src.tabular import card_page
from src.tabular.card_page import KINDS, SCORES, Facts
from src.training import cards

PACKAGES = ("scikit-learn", "scipy", "onnx", "onnxruntime", "numpy")
# What other stages were told; DVC reads it, as it reads it for them.
SECTIONS = ("load", "split", "linear", "forest", "boosting", "decide", "evaluate")

log = logging.getLogger("src.tabular.card")


def main(
    exported: Path,
    splits: Path,
    quality: Path,
    judged: Path,
    compared: Path,
    model: Path,
    *,
    ship: Literal["best", "linear", "forest", "boosting"],
    name: str,
    license: str,
    intended_use: str,
    contact: str,
) -> None:
    """Write the folder that is shipped: the exported one, and a card in Hugging Face's format.

    Args:
        exported: the folder of the exported models.
        splits: the folder with the split.
        quality: the JSON file with the figures of the data and what was found in it.
        judged: the folder with a folder of each model's metrics, details and plots.
        compared: the folder with the ``metrics.json`` of the comparison.
        model: the folder that gets the model and its card, ``README.md``.
    """
    cards.expect_license(license, "tabular/params.yaml")
    chosen = _json(compared / "metrics.json")["best"] if ship == "best" else ship
    facts = _facts(chosen, exported / chosen, splits, quality, judged)
    manifest = read_table_manifest(facts.folder)
    title = " ".join(name.split()) or "Classifier of a table"
    body = [
        f"# {title}",
        card_page.purpose(facts, manifest["labels"], manifest["positive"], manifest["threshold"]),
        *cards.intended_use(intended_use, License=license, Contact=contact),
        *card_page.sections(facts, model),
        *cards.files(facts.folder, PACKAGES),
    ]
    front = _front_matter(facts, title, license)
    text = f"---\n{front}\n---\n\n" + "\n\n".join(part.strip() for part in body) + "\n"
    with replacing(model) as folder:
        # Without the modes, as files that DVC has linked to its cache are read-only.
        shutil.copytree(facts.folder, folder, copy_function=shutil.copyfile)
        (folder / "README.md").write_text(text, encoding="utf-8", newline="\n")
        write_json(folder / "importance.json", facts.importance)  # which the server's page draws
        for file in ("README.md", "importance.json"):
            list_too(folder, file)
    log.info("%s is %s, with a card of %d lines", model, facts.name, text.count("\n"))


def _facts(name: str, folder: Path, splits: Path, quality: Path, judged: Path) -> Facts:
    import pyarrow.parquet as pq

    drawn = judged / name / "plots/custom/importance.json"
    params = dvc.api.params_show("tabular/params.yaml")
    return Facts(
        name=name,
        folder=folder,
        params={section: params[section] for section in SECTIONS},
        schema=Schema.read(splits / "schema.json"),
        quality=_json(quality),
        figures={each: _json(judged / each / "metrics.json") for each in KINDS},
        details=_json(judged / name / "details.json"),
        importance=_drawn(drawn),
        sides={
            side: pq.ParquetFile(splits / f"{side}.parquet").metadata.num_rows
            for side in ("train", "validation", "test")
        },
    )


def _drawn(path: Path) -> dict[str, dict[str, float]]:
    """Read what the plot of importance shows, by feature; nothing where none was drawn."""
    rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return {
        row["feature"]: {key: float(row[key]) for key in ("importance", "spread")} for row in rows
    }


def _json(path: Path) -> Any:
    if not path.exists():
        raise InputError(f"{path} is missing: run `dvc repro tabular/dvc.yaml` first.")
    return json.loads(path.read_text(encoding="utf-8"))


def _front_matter(facts: Facts, title: str, license: str) -> str:
    """Write what Hugging Face's tools read as YAML, without what is not known."""
    results = [
        EvalResult(
            task_type="tabular-classification",
            task_name="Tabular classification",
            dataset_type="table",
            dataset_name=", ".join(map(public, facts.params["load"]["source"])),
            dataset_split="test",
            metric_type=kind,
            metric_name=shown,
            metric_value=facts.test[key],
        )
        for key, (kind, shown) in SCORES.items()
        if key in facts.test
    ]
    card = ModelCardData(
        license=license or None,
        library_name="onnx",
        pipeline_tag="tabular-classification",
        tags=["onnx", "onnxruntime", "tabular", facts.name],
        model_name=title,
        eval_results=results,
    )
    return str(card.to_yaml(line_break="\n"))


if __name__ == "__main__":
    stage.run(main)
