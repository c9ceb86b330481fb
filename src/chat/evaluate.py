"""Judge one model on the conversations of the test side, and by what it has forgotten."""

import json
import logging
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
import torch
from dvclive.live import Live
from tqdm import tqdm

from src.chat import conversations, judging, models, scoring
from src.chat.conversations import Conversation
from src.chat.engine import Engine
from src.chat.generation import Answer, Generation
from src.chat.rendering import Question
from src.core import stage
from src.core.command_line import Count, Interval, Natural, Seed, Threads
from src.core.errors import InputError
from src.core.files import replacing, write_json
from src.metrics import answers as figures_of
from src.tables import examples

Kind = Literal["identity", "calls", "no_call", "text"]

log = logging.getLogger("src.chat.evaluate")


@dataclass(frozen=True)
class Asked:
    """One question of a conversation, and what is right about its answer."""

    conversation: Conversation
    question: Question
    number: int  # of the question in its conversation

    @property
    def id(self) -> str:
        """Return what tells it from others."""
        return f"{self.conversation.id}#{self.number}" if self.number > 1 else self.conversation.id

    @property
    def text(self) -> str:
        """Return what the user said last."""
        before = [place for place, _ in self.conversation.answers()][self.number - 1]
        turns = reversed(self.conversation.turns[:before])
        return next(turn.content for turn in turns if turn.role == "user")

    @property
    def kind(self) -> Kind:
        """Return what an answer is judged by."""
        one = self.conversation
        if any(turn.role == "tool" for turn in self.question.turns):
            return "calls"
        if isinstance(one.gold, dict) and judging.says(self.expected, one.gold["said"]):
            return "identity"
        calls = any(turn.role == "tool" for turn in one.turns)
        return "no_call" if one.tools and not calls else "text"

    @property
    def expected(self) -> str:
        """Return the right answer, or the first of several."""
        calls = [
            {"name": turn.name, "arguments": turn.parameters}
            for turn in self.question.turns
            if turn.role == "tool"
        ]
        said = "\n".join(turn.content for turn in self.question.turns if turn.role != "tool")
        return "\n".join([said] * bool(said) + [json.dumps(c, ensure_ascii=False) for c in calls])

    def is_right(self, text: str) -> bool:
        """Tell whether an answer is right, by the rule of its kind."""
        kind, gold = self.kind, self.conversation.gold
        if kind == "identity":
            return judging.says(text, gold["said"])
        if kind == "text":
            return judging.are_equal(text, self.expected)
        calls = judging.calls_of(text)
        if kind == "no_call":
            return not calls
        own = [(turn.name, turn.parameters or {}) for turn in self.question.turns if turn.name]
        several = self.number > 1 or not isinstance(gold, list)
        schemas = {tool["name"]: tool["parameters"] for tool in self.conversation.tools}
        return judging.are_right(calls, judging.gold_of(own) if several else gold, schemas)


def main(
    divided: Path,
    base: Path,
    general: Path,
    model: Path,
    predictions: Path,
    live: Path,
    *,
    max_new_tokens: Count,
    temperature: Annotated[float, Interval(ge=0)],
    top_p: Annotated[float, Interval(gt=0, le=1)],
    top_k: Natural,
    repetition_penalty: Annotated[float, Interval(gt=0)],
    batch_tokens: Count,
    threads: Threads,
    seed: Seed,
) -> None:
    """Ask the model each question of the test side, and write answers and figures.

    Args:
        divided: the folder with ``test.jsonl``.
        base: the folder of the model that all started from.
        general: what ``base`` says to general questions.
        model: the folder of a model, or of an adapter of ``base``.
        predictions: the folder that gets ``predictions.parquet``, a row a question.
        live: the folder that gets ``metrics.json``, and ``details.json`` by kind and source.
    """
    engine = Engine.of(base, model, threads)
    generation = Generation(max_new_tokens, temperature, top_p, top_k, repetition_penalty, seed)
    asked = _asked(divided / "test.jsonl", engine, max_new_tokens)
    _warn_of_unread_calls(asked, engine)
    started = time.perf_counter()
    with tqdm(total=len(asked), disable=not sys.stderr.isatty(), unit="question") as bar:
        answers, likely = engine.judge(
            [one.question for one in asked],
            generation,
            batch_tokens,
            lambda count: bar.update(count - bar.n),
        )
    odd = [one.id for one, of in zip(asked, likely, strict=True) if not of.isfinite().all()]
    if odd:
        raise InputError(
            f"To {len(odd)} of {len(asked)} questions, such as {odd[0]}, the right answer has a "
            f"probability that is no number: {model} is broken; make it anew, with a lower lr."
        )
    made = sum(answer.tokens for answer in answers)
    log.info(
        "%d tokens of answers, %.0f a second with all reading",
        made,
        made / (time.perf_counter() - started),
    )
    frame = _frame(asked, answers, likely)
    figures = _figures(frame)
    rows = [row for one in _untaught(general, divided) for row in engine.renderer.rows(one)]
    # Without the token that ends each, as some of the answers were cut.
    pad = engine.tokenizer.pad_token_id
    scored = scoring.log_probabilities(engine.model, rows, pad, batch_tokens)
    parts = [part[:-1] for part in scored]
    figures["general/loss"] = -float(torch.cat(parts).double().mean())
    figures |= {"bytes": _bytes(model), "parameters": models.learnt(base, model)}
    with replacing(predictions) as folder:
        folder.mkdir()
        examples.write(frame, folder / "predictions.parquet")
    with Live(str(live), dvcyaml=False, save_dvc_exp=False) as record:
        for name, figure in figures.items():
            log.info("%s: %.4g", name, figure)
            record.log_metric(name, figure, plot=False)
    write_json(live / "details.json", {"slices": figures_of.slices(frame, "kind", "source")})


def _asked(path: Path, engine: Engine, max_new_tokens: int) -> list[Asked]:
    """Return each question of a side that the model has room for."""
    every = [
        Asked(one, question, number)
        for one in conversations.read(path)
        for number, question in enumerate(engine.renderer.questions(one), 1)
    ]
    most = models.longest(engine.model)
    kept = [one for one in every if engine.has_room(one.question, max_new_tokens)]
    if len(kept) < len(every):
        log.warning(
            "%d of %d questions are longer than the %d tokens that the model reads, and left out",
            *(len(every) - len(kept), len(every), most),
        )
    if not kept:
        raise InputError(
            f"No question of {path} fits into the {most} tokens that the model reads: lower "
            "evaluate.max_new_tokens, or give it shorter conversations."
        )
    return kept


def _untaught(general: Path, divided: Path) -> list[Conversation]:
    """Return the general questions, with answers, but for those that the training side asks too."""
    learnt = {one.asked() for one in conversations.read(divided / "train.jsonl")}
    every = [*conversations.read(general)]
    kept = [one for one in every if one.asked() not in learnt]
    if not kept:
        raise InputError(
            "All general questions are asked on the training side too, so nobody could tell what "
            "was forgotten: write others into general.questions."
        )
    if len(kept) < len(every):
        log.warning(
            "%d of %d general questions are asked on the training side too, and left out",
            *(len(every) - len(kept), len(every)),
        )
    return kept


def _warn_of_unread_calls(asked: Sequence[Asked], engine: Engine) -> None:
    """Warn if the template writes calls in a form in which nobody would find them here."""
    called = next((one for one in asked if one.kind == "calls"), None)
    if called:
        right = engine.tokenizer.decode(called.question.right, skip_special_tokens=True)
        if not judging.calls_of(right):
            log.warning(
                "the model's chat template writes calls in a form that is not known here: all of "
                "its calls will count as wrong"
            )


def _frame(
    asked: Sequence[Asked], answers: Sequence[Answer], likely: Sequence[torch.Tensor]
) -> pd.DataFrame:
    found = zip(asked, answers, likely, strict=True)
    rows = [
        {
            "id": one.id,
            "text": one.text,
            "label": one.expected,
            "predicted": answer.text,
            "source": one.conversation.source,
            "kind": one.kind,
            "right": one.is_right(answer.text),
            "rouge_l": judging.rouge_l(answer.text, one.expected),
            "ended": answer.ended,
            "loss": -float(tokens.double().sum()),
            "tokens": len(tokens),
        }
        for one, answer, tokens in found
    ]
    return pd.DataFrame(rows)


def _figures(frame: pd.DataFrame) -> dict[str, float]:
    """Return the figures of answers; those of a kind that no question has are left out."""
    found = {f"test/{name}": figure for name, figure in figures_of.figures(frame).items()}
    found["test/perplexity"] = math.exp(min(found["test/loss"], 700.0))
    found["test/ended"] = float(frame["ended"].mean())
    for kind, of in frame.groupby("kind", sort=True):
        found |= {f"{kind}/{name}": figure for name, figure in figures_of.figures(of).items()}
        if kind == "identity":
            for source, part in of.groupby("source", sort=True):
                found[f"{source}/right"] = float(part["right"].mean())
        if kind == "text":
            found["text/rouge_l"] = float(of["rouge_l"].mean())
    return found


def _bytes(folder: Path) -> int:
    """Return the size of a model's files that are no text."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


if __name__ == "__main__":
    stage.run(main)
