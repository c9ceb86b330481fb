"""The table of times beside the comparison, of the models of a small project."""

import re

from conftest import Project


def rows(printed: str) -> dict[str, list[str]]:
    table = [line[2:-2].split(" | ") for line in printed.splitlines() if "|" in line]
    assert len({len(row) for row in table}) == 1
    return {row[0]: row[1:] for row in table[2:]}


def test_each_exported_model_is_timed_and_its_training_looked_up(project: Project) -> None:
    took = "2026-01-01 00:00:00,000 INFO src.core.stage: x took {} s and at most 9 MiB\n"
    logs = {"2T1-linear-1": "7.5", "1T1-linear-2": "999.0", "1T1-probe-1": "2.0"}
    logs |= {"1T1-train-1": "30.0", "3T1-numbers-dvc.yaml-train-1": "888.0"}
    (project.root / "logs").mkdir(exist_ok=True)
    for name, seconds in logs.items():
        (project.root / f"logs/9999{name}.log").write_text(took.format(seconds))
    for path in (project.root / "logs").glob("*-baseline-*"):
        path.unlink()
    words = ["--rounds", "1", "--texts", "3", "--threads", "1"]
    printed = project.run("python", "-m", "src.tools.speed", *words)
    found = rows(printed)
    assert [*found] == ["baseline-onnx", "linear-onnx", "onnx", "onnx-int8"]
    assert [row[-1] for row in found.values()] == ["", "8", "32", "32"]
    for name, (size, alone, together, _) in found.items():
        folder = project.root / "models/exported" / name
        assert size == f"{sum(file.stat().st_size for file in folder.iterdir()) / 1e6:.1f}"
        assert float(alone) > 0
        assert float(together.replace(",", "")) > 0
    said = "3 test texts, rounds in turn, of which the median: 1, threads: 1, engine: onnxruntime."
    assert said in printed
    shipped = rows(project.run("python", "-m", "src.tools.speed", "models/shipped", *words))
    assert [*shipped] == ["shipped"]
    assert shipped["shipped"][-1] == "32", "it is onnx"


def test_without_models_or_texts_it_says_where_they_come_from(project: Project) -> None:
    (project.root / "data/splits/test.parquet").rename(project.root / "away")
    try:
        said = project.run("python", "-m", "src.tools.speed", code=1)
    finally:
        (project.root / "away").rename(project.root / "data/splits/test.parquet")
    (project.root / "models/exported").rename(project.root / "away")
    try:
        bare = project.run("python", "-m", "src.tools.speed", code=1)
    finally:
        (project.root / "away").rename(project.root / "models/exported")
    assert re.search(r"models/exported is not there: `dvc repro`", bare)
    assert re.search(r"data/splits/test.parquet is not there: `dvc repro` makes it", said)
