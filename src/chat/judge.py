"""Judge the answers of a file, as `evaluate` judges those of the test side.

    python -m src.predict.chat models/chat/lora --input test.jsonl --output answers.jsonl
    python -m src.chat.judge answers.jsonl

What is right is the answer that each conversation ends with, or its ``gold``.
"""

import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pandas as pd

from src.chat import judging
from src.chat.conversations import Conversation
from src.chat.converters import CONVERTERS
from src.chat.evaluate import Asked
from src.chat.rendering import Question
from src.chat.toolbox import UnusableError
from src.core import stage
from src.core.errors import InputError
from src.core.markdown import aligned
from src.tables.encodings import text_of
from src.tables.json_rows import TYPED, Item, json_lines
from src.tables.lines import Lines
from src.tables.places import Place

NAMED = 5  # rows that can't be judged, that the log names
FIELD = 1 << 26  # characters of one line at most

log = logging.getLogger("src.chat.judge")


def main(answers: str, *, prefix: str = "") -> None:
    """Print how many answers of each kind are right, and how near those of texts come.

    ANSWERS is a file of JSON lines that `python -m src.predict.chat` wrote, whose conversations end
    with the answer that is expected; --prefix is what was given there.
    """
    rows, odd = [], 0
    if Place(answers, "ANSWERS").format not in (None, "jsonl"):
        raise InputError(f"{answers} is no file of JSON lines: answer to one that ends in .jsonl.")
    for line, found in _items(Place(answers, "ANSWERS")):
        try:
            rows.append(_judged(found, prefix))
        except (UnusableError, ValueError, KeyError, TypeError, AttributeError) as error:
            odd += 1
            if odd <= NAMED:
                said = str(error) if isinstance(error, UnusableError) else "it is no answered row"
                log.warning("line %d can't be judged: %s", line, said)
    if not rows:
        raise InputError(
            f"{answers} has no answer that can be judged: each row needs the answer that is "
            "expected, as the last of its messages or conversations."
        )
    if odd:
        log.warning("%d of %d rows can't be judged, and are left out", odd, odd + len(rows))
    sys.stdout.write(_table(pd.DataFrame(rows)))


def _items(place: Place) -> Iterator[tuple[int, dict[str, Any]]]:
    with place.open() as stream:
        place.refuse_other_kinds(stream.peek(64), "a jsonl file")
        text = text_of(stream, "utf-8", "surrogateescape")
        for item in json_lines(Lines(text, FIELD), TYPED):
            yield item.line, item.value if isinstance(item, Item) else {}


def _judged(found: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Return what came of one answer.

    Raises:
        UnusableError: nobody can tell what is right.
    """
    if f"{prefix}answer" not in found:
        raise UnusableError("malformed", f"it has no {prefix}answer")
    said, calls, ended = (found[f"{prefix}{name}"] for name in ("answer", "calls", "ended"))
    calls = TYPED.decode(calls) if isinstance(calls, str) else calls or []
    text = "\n".join([said] * bool(said) + [json.dumps(c, ensure_ascii=False) for c in calls])
    if not {"messages", "conversations"} & {*found}:
        raise UnusableError("malformed", "it has no messages or conversations")
    if "messages" in found:
        converted = next(CONVERTERS["messages"](found, {}))
        if isinstance(converted, UnusableError):
            raise converted
        found = converted | {"gold": found.get("gold")}
    conversation = Conversation.parse(found)
    expected = [turns for _, turns in conversation.answers()]
    last = conversation.turns[-1]
    if last not in expected[-1] or (last.role == "tool" and last.answered):
        raise UnusableError("misordered", "it does not end with the answer that is expected")
    asked = Asked(conversation, Question(expected[-1], [], []), len(expected))
    return {
        "kind": asked.kind,
        "right": asked.is_right(text),
        "rouge_l": judging.rouge_l(text, asked.expected),
        "ended": bool(ended),
    }


def _table(frame: pd.DataFrame) -> str:
    """Write a line for each kind of question, and one for all."""
    kinds = [*frame.groupby("kind", sort=True), *[("all", frame)]]
    rows = [
        [
            str(kind),
            f"{of['right'].sum()} of {len(of)}",
            f"{of['right'].mean():.3f}",
            f"{of['rouge_l'].mean():.3f}",
            f"{of['ended'].mean():.3f}",
        ]
        for kind, of in kinds
    ]
    return aligned([["answers", "right", "share", "ROUGE-L", "ended"], *rows])


if __name__ == "__main__":
    stage.run(main, section=False)
