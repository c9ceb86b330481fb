"""Look over the texts before anything is trained on them, and report what a person should know."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from src.core import markdown, stage
from src.core.command_line import Count, Interval, Share
from src.core.errors import InputError, closest
from src.core.files import replacing, write_json
from src.tables import examples
from src.text import quality_checks, quality_tokens
from src.text.findings import Survey, sentence

BAR = 24  # characters of the longest bar

log = logging.getLogger("src.text.quality")


def main(
    raw: Path,
    quality: Path,
    page: Path,
    *,
    texts: Count,
    slices: list[str],
    scripts: list[str],
    near_duplicates: Annotated[float, Interval(ge=0, le=1)],
    max_imbalance: Annotated[float, Interval(ge=1)],
    max_unknown: Share,
    checkpoint: str,
    max_length: Annotated[int, Interval(ge=4)],
    max_characters: Count,
) -> None:
    """Write the figures that a reviewer compares, and a page about them.

    Args:
        raw: the folder with ``examples.parquet`` and ``counts.json``.
        quality: the JSON file that gets the figures, and what is likely wrong as entries with a
            code and values.
        page: the Markdown file that gets the same for a person, with examples.
    """
    path = raw / "examples.parquet"
    found = examples.column_names(path)
    for column in slices:
        if column not in found:
            raise InputError(
                f"quality.slices has {column!r}: expected columns of the source, which are "
                f"{', '.join(found)}{closest(column, found)}."
            )
    counts = json.loads((raw / "counts.json").read_text(encoding="utf-8"))
    survey = Survey(counts.pop("source"), counts)
    step = max(1, -(-counts["kept"] // texts))
    sample = quality_checks.scan(path, survey, slices, step, max_characters)
    log.info("%d of %d texts are looked at in detail", len(sample), counts["kept"])
    quality_checks.labels(survey, max_imbalance)
    quality_tokens.tokens(survey, sample, slices, checkpoint, max_length, max_unknown)
    quality_tokens.scripts(survey, sample, scripts)
    quality_checks.leaks(survey, sample)
    if near_duplicates:
        quality_checks.near_duplicates(survey, sample, near_duplicates)
    survey.figures |= {"warnings": len(survey.findings), "findings": survey.findings}
    for finding in survey.findings:
        log.warning("%s", sentence(finding))
    with replacing(quality) as figures, replacing(page) as text:
        write_json(figures, survey.figures)
        text.write_text(_page(survey, checkpoint, max_length), encoding="utf-8", newline="\n")


def _page(survey: Survey, checkpoint: str, max_length: int) -> str:
    figures = survey.figures
    places = ", ".join(markdown.code(markdown.public(place)) for place in survey.source)
    rows = f"{figures['rows']} rows came in from {places}, {figures['kept']} were kept."
    lines = ["# The data", "", rows, ""]
    if survey.findings:
        found = [f"- {markdown.plain(sentence(finding))}" for finding in survey.findings]
        lines += ["## What to look at", "", *found, ""]
    dropped = {reason: count for reason, count in figures["dropped"].items() if count}
    if dropped:
        lines += ["## Dropped", "", _bars("reason", dropped), ""]
        lines += ["Each of these rows stands in `data/rejected.csv`, with its file and line.", ""]
    lines += ["## Classes", "", _bars("class", figures["classes"]), ""]
    tokens, shown = figures["tokens"], markdown.code(markdown.public(checkpoint))
    unknown = [
        [markdown.code(name), f"{100 * share:.2f} %", str(tokens["characters"].get(name, ""))]
        for name, share in tokens["unknown"].items()
    ]
    scripts = [[name, f"{100 * share:.1f} %"] for name, share in figures["scripts"].items()]
    lines += [
        *("## Tokens", ""),
        f"Of {tokens['texts']} texts, by the tokenizer of {shown}: the median text has "
        f"{tokens['median']:.0f} tokens, {100 * tokens['over_max_length']:.1f} % have more than "
        f"{max_length}, and {100 * tokens['lost']:.1f} % of all tokens are not read.",
        "",
        markdown.table(["texts", "unknown tokens", "characters a token"], unknown),
        *("", "## Scripts", "", markdown.table(["script", "letters"], scripts), ""),
    ]
    for name, texts in survey.examples.items():
        lines += [f"## Examples: {name.replace('_', ' ')}", ""]
        lines += [f"- {markdown.code(text[:300])}" for text in texts] + [""]
    return "\n".join(lines)


def _bars(head: str, counts: Mapping[str, int]) -> str:
    most = max(counts.values())
    rows = [
        [markdown.code(name), str(count), "█" * round(BAR * count / most)]
        for name, count in counts.items()
    ]
    return markdown.table([head, "texts", ""], rows)


if __name__ == "__main__":
    stage.run(main)
