"""Turn benchmarks/results/*.json into docs/performance.md, its picture, and docs/data.md.

python benchmarks/report.py
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from measure import RESULTS, ROOT

DOCS = ROOT / "docs"
FIGURE = "performance.svg"
COLORS = {"bbc": "tab:blue", "tweets": "tab:orange", "sst2": "tab:green"}
NAMES = {"bbc": "BBC News", "tweets": "English tweets", "sst2": "SST-2"}
BF16 = {"avx512_bf16", "amx_bf16"}
NO_BF16 = "This processor has no instructions for bf16, which would speed these up most.\n  "
OURS = {"train", "train, shortcuts off", "onnx", "onnx-int8", "onnx, openvino"}

Report = dict[str, Any]


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def span(figure: Report, digits: int) -> str:
    """A median with its range."""
    low, high = figure["min"], figure["max"]
    return f"{figure['median']:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def training(reports: dict[str, Report]) -> str:
    """Texts a second against run_classification.py."""
    rows = []
    for name, report in reports.items():
        for row_name, row in report["rows"].items():
            found = row["figures"]
            accuracy = found["accuracy"]
            rows.append(
                [
                    f"{report['texts']} of {NAMES[name]}",
                    f"`{row_name}`" if row_name.endswith(".py") else row_name,
                    f"{report['texts'] / found['loop_s']['median']:.1f}",
                    span(row["ratio"], 1),
                    f"{row['accuracy_mean']:.3f} ({accuracy['min']:.3f} to {accuracy['max']:.3f})",
                    f"{found['cpu_s']['median']:.0f}",
                    f"{found['peak_mib']['median']:.0f}",
                ]
            )
    head = ["texts", "", "texts/s", "times as fast", "test accuracy, mean", "CPU, s", "MiB"]
    return table(head, rows)


def inference(reports: dict[str, Report]) -> str:
    """Latency and throughput against every peer."""
    rows = []
    for name, report in reports.items():
        for row_name, row in report["rows"].items():
            rows.append(
                [
                    NAMES[name],
                    f"**{row_name}**" if row_name in OURS else row_name,
                    f"{row['p50_ms']:.1f}",
                    span(row["latency_ratio"], 1),
                    f"{row['texts_per_s']:.0f}",
                    span(row["throughput_ratio"], 1),
                    f"{row['share_of_peak']:.2f}",
                    f"{100 * row['labels_as_torch']:.1f} %",
                    f"{row['accuracy']:.4f}",
                    f"{row['peak_mib']:.0f}",
                ]
            )
    head = ["texts", "", "p50, ms", "times as fast", "texts/s", "times as fast", "of peak"]
    return table([*head, "labels as torch", "accuracy", "MiB"], rows)


def loaded(reports: dict[str, Report]) -> str:
    """Latency and throughput beside other processes, where that was measured."""
    rows = [
        [
            NAMES[name],
            f"**{row_name}**" if row_name in OURS else row_name,
            f"{row['loaded']['p50_ms']:.1f}",
            span(row["loaded"]["latency_ratio"], 1),
            f"{row['loaded']['texts_per_s']:.0f}",
            span(row["loaded"]["throughput_ratio"], 1),
            span(row["loaded"]["cost"], 2),
        ]
        for name, report in reports.items()
        for row_name, row in report["rows"].items()
        if "loaded" in row
    ]
    head = ["texts", "", "p50, ms", "times as fast", "texts/s", "times as fast", "idle / loaded"]
    said = (
        "In the same rounds beside two processes that are always busy; the last column is texts/s."
    )
    return f"\n\n{said}\n\n{table(head, rows)}" if rows else ""


def limits(reports: dict[str, Report]) -> str:
    """The most that the machine could do, from the rates measured in the same rounds."""
    rows = []
    for name, report in reports.items():
        gflop, weights = report["gflop_per_text"], report["weights_mb"]
        by_flops = 1000 * gflop / report["peak_gflops"]
        by_bytes = weights / report["gb_per_s"]
        best = max(report["rows"].items(), key=lambda row: row[1]["texts_per_s"])
        rows.append(
            [
                NAMES[name],
                f"{report['tokens'] / report['texts']:.0f}",
                f"{gflop:.2f}",
                f"{by_flops:.2f}",
                f"{by_bytes:.2f}",
                f"{1000 / report['rows']['onnx']['texts_per_s']:.2f}",
                f"{1000 / best[1]['texts_per_s']:.2f} ({best[0]})",
            ]
        )
    head = ["texts", "tokens a text", "GFLOP a text", "ms by arithmetic", "ms to read the weights"]
    return table([*head, "ms, onnx", "ms, fastest"], rows)


def stages(report: Report) -> str:
    """The cost of each stage."""
    rows = []
    for name, row in report["rows"].items():
        found = row["figures"]
        rows.append(
            [
                f"`{name}`",
                f"{found['wall_s']['median']:.1f}",
                f"{row['startup_s']:.1f}",
                f"{found['cpu_s']['median']:.1f}",
                f"{found['peak_mib']['median']:.0f}",
            ]
        )
    return table(["stage", "wall, s", "of it start-up, s", "CPU, s", "peak memory, MiB"], rows)


def shared(report: Report) -> str:
    """What other processes cost, before and after."""
    head = ["", "idle, now / before", "beside others / idle, before", "beside others / idle, now"]
    rows = [
        [name, *(span(row[key], 2) for key in ("cost", "before", "after"))]
        for name, row in report["rows"].items()
    ]
    return table(head, rows)


def forest(report: Report) -> str:
    """The baseline against scikit-learn's own settings."""
    rows = []
    for name, row in report["rows"].items():
        found = row["figures"]
        rows.append(
            [
                name,
                f"{found['fit_s']['median']:.1f}",
                f"{found['mb']['median']:.1f}",
                f"{found['one_ms']['median']:.0f}",
                span(found["accuracy"], 4),
            ]
        )
    return table(["", "fit, s", "file, MB", "one text, ms", "test accuracy"], rows)


def drift(report: Report) -> str:
    """The distance of predictions and trainings from one setting to another."""

    def shown(value: float) -> str:
        return f"{value:.1g}" if value else "0"  # 0 is the same bits

    lines = [
        [engine, setting, "", shown(row["logit"]), f"{row['flips']:.0f}"]
        for engine, found in report["engines"].items()
        for setting, row in found["rows"].items()
    ]
    lines += [
        ["training", setting, shown(row["weight"]), shown(row["logit"]), f"{row['flips']:.0f}"]
        for setting, row in report["training"]["rows"].items()
    ]
    head = ["", "setting", "largest difference of a weight", "of a logit"]
    return table([*head, "labels that changed of 1,000"], lines)


def noop(report: Report) -> str:
    """A repro that has nothing to do, against DVC itself."""
    lines = [
        [name, span(row["figures"]["cpu_s"], 2), f"{row['figures']['peak_mib']['median']:.0f}"]
        for name, row in report["rows"].items()
    ]
    return table(["", "CPU, s", "MiB"], lines)


def rows(report: Report) -> str:
    """Time and memory by the number of rows."""
    lines = []
    for count, row in report["rows"].items():
        found = row["figures"]
        line = [f"{int(count):,}"]
        for name in ("load", "quality", "split"):
            line.append(f"{found[f'{name}_s']['median']:.1f}")
            line.append(f"{found[f'{name}_mib']['median']:.0f}")
        lines.append([*line, f"{found['all_s']['median']:.1f}"])
    parts = [f"{name}, {unit}" for name in ("load", "quality", "split") for unit in ("s", "MiB")]
    return table(["rows", *parts, "all, s"], lines)


def growth(report: Report) -> str:
    """The growth of time and memory, in a sentence."""
    sizes = sorted(map(int, report["rows"]))

    def median(size: int, figure: str) -> float:
        value: float = report["rows"][str(size)]["figures"][figure]["median"]
        return value

    small, middle, large = sizes[0], sizes[1], sizes[-1]
    times = median(large, "all_s") / median(small, "all_s")
    peaks = [
        f"{name} {median(large, f'{name}_mib') / median(middle, f'{name}_mib'):.2f}"
        for name in ("load", "quality", "split")
    ]
    return (
        f"{large / small:.0f} times the rows take {times:.1f} times the time. From {middle:,} rows "
        f"to {large:,}, peak memory grows by these factors: {', '.join(peaks)}."
    )


def languages(report: Report) -> str:
    """Macro F1 by language of each model, a table an experiment."""
    parts = []
    for name, found in report["rows"].items():
        values = list(next(iter(found.values())))
        lines = [[model, *(f"{scores[v]:.3f}" for v in values)] for model, scores in found.items()]
        parts.append(f"**{name}**\n\n{table(['macro F1', *values], lines)}")
    return "\n\n".join(parts)


def draw(train: dict[str, Report], predict: dict[str, Report]) -> None:
    """Two panels: how many times as fast as Hugging Face's own, training and prediction."""
    mpl.rcParams["svg.hashsalt"] = "performance"  # the same bytes for the same figures
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    _bars(axes[0], train, "Training, against run_classification.py", lambda row: row["ratio"])
    title = "A list of texts, against transformers.pipeline"
    _bars(axes[1], predict, title, lambda row: row["throughput_ratio"])
    figure.savefig(DOCS / FIGURE, metadata={"Date": None})


def _bars(axis: Any, reports: dict[str, Report], title: str, ratio: Any) -> None:
    names = list(next(iter(reports.values()))["rows"])[::-1]
    height = 0.8 / len(reports)
    for k, (name, report) in enumerate(reports.items()):
        found = [ratio(report["rows"][row]) for row in names]
        places = [i + (len(reports) / 2 - k - 0.5) * height for i in range(len(names))]
        medians = [one["median"] for one in found]
        errors = [
            [one["median"] - one["min"] for one in found],
            [one["max"] - one["median"] for one in found],
        ]
        style: Report = {"label": NAMES[name], "color": COLORS[name], "ecolor": "gray"}
        bars = axis.barh(places, medians, height, xerr=errors, **style)
        axis.bar_label(bars, fmt="%.1f", padding=4, fontsize=8)
    axis.set_yticks(range(len(names)), names)
    axis.axvline(1, color="black", linewidth=0.8)
    axis.margins(x=0.12)  # room for the figures
    axis.set_xlabel("times as fast, median and range of the rounds")
    axis.set_title(title, fontsize=11)
    axis.legend(fontsize=8, loc="upper right")
    axis.spines[["top", "right"]].set_visible(False)


def load(prefix: str) -> dict[str, Report]:
    """The reports whose names begin so, in the order of NAMES."""
    paths = {name: RESULTS / f"{prefix}-{name}.json" for name in NAMES}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


def main() -> None:
    """Write both files."""
    train, predict = load("training"), load("inference")
    names = ("stages", "forest", "drift", "noop")
    steps, trees, moved, idle = (json.loads((RESULTS / f"{n}.json").read_text()) for n in names)
    beside = json.loads((RESULTS / "shared.json").read_text())
    draw(train, predict)
    machine = steps["machine"]
    for report in (*train.values(), *predict.values(), trees, moved, idle):
        if report["machine"]["processor"] != machine["processor"]:
            sys.exit("Expected reports from one machine, found several: measure all of them anew.")
    wall = {name: row["figures"]["wall_s"]["median"] for name, row in steps["rows"].items()}
    share = wall["baseline"] / sum(wall.values())
    text = (ROOT / "benchmarks" / "performance.md").read_text()
    filled = text.format(
        processor=machine["processor"],
        cores=machine["cores"],
        instructions=", ".join(machine["instructions"]),
        packages=", ".join(f"{name} {version}" for name, version in machine["packages"].items()),
        figure=FIGURE,
        training=training(train),
        inference=inference(predict) + loaded(predict),
        limits=limits(predict),
        peak=f"{next(iter(predict.values()))['peak_gflops']:.0f}",
        stages=stages(steps),
        runs=steps["runs"],
        total=f"{sum(wall.values()):.0f}",
        shared=shared(beside),
        shared_rounds=beside["rounds"],
        shared_processor=beside["machine"]["processor"],
        forest=forest(trees),
        drift=drift(moved),
        drift_texts=moved["texts"],
        drift_train=moved["training"]["texts"],
        noop=noop(idle),
        noop_ratio=span(idle["ratio"]["cpu_s"], 2),
        noop_rounds=idle["rounds"],
        **{f"noop_{key}": f"{count:,}" for key, count in idle["counts"].items()},
        share=f"{100 * share:.0f} %",
        rounds=min(
            len(row["runs"]) for report in train.values() for row in report["rows"].values()
        ),
        instructions_of_16_bits="" if BF16 & set(machine["instructions"]) else NO_BF16,
    )
    Path(DOCS / "performance.md").write_text(filled)
    data, spoken = (json.loads((RESULTS / f"{n}.json").read_text()) for n in ("data", "languages"))
    text = (ROOT / "benchmarks" / "data.md").read_text()
    filled = text.format(
        processor=data["machine"]["processor"],
        cores=data["machine"]["cores"],
        rounds=data["rounds"],
        rows=rows(data),
        growth=growth(data),
        languages=languages(spoken),
    )
    Path(DOCS / "data.md").write_text(filled)
    print(f"wrote docs/performance.md, docs/{FIGURE} and docs/data.md")


if __name__ == "__main__":
    main()
