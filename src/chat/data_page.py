"""Figures of conversations, and the page that shows them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from src.chat.reading import Kept
from src.core.markdown import code, table
from src.tables.examples import SPLITS

BAR = 30  # characters of the longest bar
PARTS = 12  # of the picture of lengths


def figures(
    kept: Sequence[Kept],
    sides: Sequence[int],
    rows: int,
    dropped: Mapping[str, int],
    max_length: int,
) -> dict[str, Any]:
    """Return what ``page`` shows, and DVC compares."""
    found, measured = [one.conversation for one in kept], [one.measured for one in kept]
    by_source: dict[str, Counter[str]] = {}
    for one, side in zip(found, sides, strict=True):
        by_source.setdefault(one.source, Counter())[SPLITS[side]] += 1
    tokens = np.array([each.longest for each in measured])
    calls = [turn for one in found for turn in one.turns if turn.role == "tool"]
    too_long = [each for each in measured if each.longest > max_length]
    return {
        "rows": rows,
        "made": sum(one.source.startswith("self_cognition/") for one in found),
        "kept": len(found),
        "dropped": {key: n for key, n in sorted(dropped.items()) if n},
        "sources": {name: dict(n) for name, n in sorted(by_source.items())},
        "turns": sum(len(one.turns) for one in found),
        "calls": len(calls),
        "tools": len({tool["name"] for one in found for tool in one.tools}),
        "tokens": {
            "sum": sum(each.tokens for each in measured),
            "median": float(np.median(tokens)),
            "p95": float(np.quantile(tokens, 0.95)),
            "max": int(tokens.max()),
            "learnt": sum(each.learnt for each in measured),
        },
        "max_length": max_length,
        "too_long": len(too_long),
        "learnt_tokens_lost": sum(each.lost for each in measured),
        "nothing_left_to_learn": sum(each.lost == each.learnt for each in measured),
        "lengths": _histogram(tokens),
    }


def _histogram(tokens: np.ndarray) -> list[list[int]]:
    """Count conversations by their length, in parts that double."""
    edges = [0, *(2**k for k in range(4, 4 + PARTS - 1)), int(max(tokens.max(), 2**15)) + 1]
    counts, _ = np.histogram(tokens, edges)
    return [
        [low, high, int(count)]
        for low, high, count in zip(edges, edges[1:], counts, strict=False)
        if count
    ]


def page(found: Mapping[str, Any]) -> str:
    """Write the page in Markdown."""
    tokens = found["tokens"]
    lines = ["# The conversations", ""]
    made = f", {found['made']} were made" if found["made"] else ""
    lines += [f"{found['rows']} came in{made}, and {found['kept']} are kept.", ""]
    if said := _to_look_at(found):
        lines += ["## What to look at", "", *(f"- {sentence}" for sentence in said), ""]
    if found["dropped"]:
        rows = [[code(key), str(count)] for key, count in found["dropped"].items()]
        lines += ["## Left out", "", table(["reason", "conversations"], rows), ""]
    head = ["source", *SPLITS]
    rows = [
        [code(name), *(str(sides.get(side, 0)) for side in SPLITS)]
        for name, sides in found["sources"].items()
    ]
    lines += ["## Sources", "", table(head, rows), ""]
    lines += [
        "## Lengths",
        "",
        f"{tokens['sum']:,} tokens, of which {tokens['learnt']:,} are learnt; half of the "
        f"conversations have at most {tokens['median']:.0f}, 95 % at most {tokens['p95']:.0f}, "
        f"the longest {tokens['max']:,}. They have {found['turns']:,} turns, and "
        f"{found['calls']:,} calls of {found['tools']:,} tools.",
        "",
    ]
    most = max(count for *_, count in found["lengths"])
    rows = [
        [f"{low} to {high - 1}", str(count), "█" * round(BAR * count / most)]
        for low, high, count in found["lengths"]
    ]
    lines += [table(["tokens", "conversations", ""], rows), ""]
    return "\n".join(lines)


def _to_look_at(found: Mapping[str, Any]) -> list[str]:
    said = []
    if found["too_long"]:
        share = found["learnt_tokens_lost"] / max(1, found["tokens"]["learnt"])
        said.append(
            f"{found['too_long']} conversations have more than {found['max_length']} tokens: "
            f"{found['learnt_tokens_lost']:,} of those that are learnt ({100 * share:.1f} %) lie "
            "beyond."
        )
    if found["nothing_left_to_learn"]:
        said.append(
            f"{found['nothing_left_to_learn']} conversations have nothing left to learn within "
            f"{found['max_length']} tokens."
        )
    return said
