"""Hold models as they are served against the models as they were trained.

    python -m src.chat.served models/chat/base models/chat/lora
    python -m src.chat.served models/chat/ptuning --engine transformers

Each model is asked the same questions, first one after the other, and then all models at once by
many clients, as a server puts requests together that then are computed in another order.
"""

import itertools
import logging
import math
import random
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import openai
import torch
from tqdm import tqdm

from src.chat import conversations
from src.chat.engine import Engine
from src.chat.generation import Generation
from src.chat.rendering import Question
from src.core import stage
from src.core.command_line import Count, Interval, Threads
from src.core.errors import InputError
from src.core.markdown import aligned
from src.predict.chat.client import PATIENCE, started
from src.predict.chat.models import ChatModel, EngineName, chat_models
from src.predict.chat.rows import Asked, asked_by

BATCH_TOKENS = 16384
HEAD = ["model", "asked", "prompts equal", "difference", "largest", "equal answers", "gap"]

log = logging.getLogger("src.chat.served")


@dataclass(frozen=True)
class Asking:
    """A question as a server is asked it.

    Attributes:
        question: its tokens, and those of the right answer.
        asked: the same as OpenAI's API has it.
    """

    question: Question
    asked: Asked


@dataclass(frozen=True)
class Served:
    """What a server said of a question.

    Attributes:
        prompt: the tokens that it has made of the messages.
        answer: those of its answer.
        likely: the log-probability of each token of the right answer.
    """

    prompt: list[int]
    answer: list[int]
    likely: torch.Tensor


@dataclass(frozen=True)
class Compared:
    """By how much what is served differs from what was trained.

    Attributes:
        prompts: how many prompts are other tokens.
        mean: difference of the log-probability of a token of right answers.
        most: likewise.
        equal: the share of answers that are the same tokens.
        gap: where answers part, how much likelier the trained model finds its own next token than
            the one that was served, at most; 0 if none parts.
    """

    prompts: int
    mean: float
    most: float
    equal: float
    gap: float


def main(
    model: Path,
    *more: Path,
    base: str = "models/chat/base",
    divided: str = "data/chat/conversations",
    engine: EngineName = "vllm",
    rows: Count = 16,
    max_new_tokens: Count = 32,
    at_once: Count = 8,
    tolerance: Annotated[float, Interval(gt=0)] = 0.1,
    tie: Annotated[float, Interval(gt=0)] = 1.0,
    threads: Threads = 2,
) -> None:
    """Ask a server what the models themselves are asked, and print by how much it differs.

    The folders are those of `python -m src.serve.chat`, a whole model and its adapters. Asked are
    the first --rows conversations of the validation side in --divided, whose answers have
    --max_new_tokens at most, one after the other, and then of all models at once, --at_once
    together. It fails if a prompt is other tokens, if the log-probability of a token of the right
    answers differs by more than --tolerance on average, or if answers part where the model finds
    one of two tokens likelier by more than --tie: where it does not, the order of sums decides. The
    last line of each model tells by how much it differs from itself in float32.
    """
    models = chat_models([model, *more], Path(base))
    kept = [*itertools.islice(conversations.read(Path(divided) / "validation.jsonl"), rows)]
    whole = Engine.of(models[0].folder, models[0].folder, threads)
    asked = _askings(whole, kept, max_new_tokens)
    del whole
    log.info("%d questions to %d models", len(asked), len(models))
    with started(models, engine, threads, log.info) as (url, key):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=PATIENCE)
        said = {
            "alone": _ask(client, models, asked, max_new_tokens, 1),
            f"{at_once} at once": _ask(client, models, asked, max_new_tokens, at_once),
        }
    lines, wrong = [], []
    for one in models:
        trained = Engine.of(models[0].folder, one.folder, threads)
        questions = [each.question for each in asked]
        answers, likely = trained.judge(questions, Generation(max_new_tokens), BATCH_TOKENS)
        ids = [[*answer.ids] for answer in answers]
        for how, by_name in said.items():
            found = _compared(trained, questions, ids, likely, by_name[one.name])
            lines.append(_line(one.name, how, found))
            wrong += _wrong(f"{one.name}, {how}", found, tolerance, tie)
        exact = _in_float32(trained, questions, max_new_tokens)
        found = _compared(trained, questions, ids, likely, exact)
        lines.append(_line(one.name, "not, but in float32", found))
        del trained
    sys.stdout.write(aligned([HEAD, *lines]))
    if wrong:
        raise InputError(
            f"What {engine} serves is not what was trained: {'; '.join(wrong)}. Use another engine "
            "or another dtype, or raise --tolerance or --tie if so much is to be expected."
        )


def _askings(
    engine: Engine, kept: Sequence[conversations.Conversation], max_new_tokens: int
) -> list[Asking]:
    """Return what conversations ask, as far as the model has room for it."""
    found = []
    for one in kept:
        places = [place for place, _ in one.answers()]
        for place, question in zip(places, engine.renderer.questions(one), strict=True):
            before = conversations.Conversation(one.turns[:place], one.tools)
            if engine.has_room(question, max_new_tokens):
                found.append(Asking(question, asked_by(before.written())))
    if not found:
        raise InputError("No question fits into what the model reads: raise --rows.")
    return found


def _ask(
    client: openai.OpenAI,
    models: Sequence[ChatModel],
    asked: Sequence[Asking],
    max_new_tokens: int,
    at_once: int,
) -> Mapping[str, list[Served]]:
    """Ask all models all questions, so many at once, in an order in which models are mixed."""
    work = [(one.name, place) for one in models for place in range(len(asked))]
    random.Random(0).shuffle(work)  # noqa: S311, any order does

    def one(task: tuple[str, int]) -> Served:
        return _served(client, task[0], asked[task[1]], max_new_tokens)

    with (
        ThreadPoolExecutor(at_once) as pool,
        tqdm(total=len(work), disable=not sys.stderr.isatty(), desc=f"{at_once} at once") as bar,
    ):
        found = {}
        for task, served in zip(work, pool.map(one, work), strict=True):
            found[task] = served
            bar.update()
    return {one.name: [found[one.name, place] for place in range(len(asked))] for one in models}


def _served(client: openai.OpenAI, model: str, asked: Asking, max_new_tokens: int) -> Served:
    given: Any = asked.asked.messages
    more: dict[str, Any] = {"tools": asked.asked.tools} if asked.asked.tools else {}
    try:
        chat: Any = client.chat.completions.create(
            model=model,
            messages=given,
            temperature=0,
            max_tokens=max_new_tokens,
            extra_body={"return_token_ids": True},
            **more,
        )
        right = asked.question.right
        scored: Any = client.completions.create(
            model=model,
            prompt=[*asked.question.asked, *right],
            max_tokens=1,
            extra_body={"prompt_logprobs": 0},
        )
    except openai.APIError as error:
        raise InputError(f"The server can't be asked what {model} says ({error}).") from None
    listed = scored.choices[0].prompt_logprobs[-len(right) :]
    likely = [one[str(id)]["logprob"] for id, one in zip(right, listed, strict=True)]
    return Served(chat.prompt_token_ids, chat.choices[0].token_ids, torch.tensor(likely))


def _in_float32(
    trained: Engine, questions: Sequence[Question], max_new_tokens: int
) -> list[Served]:
    """Return what the model itself says where nothing is rounded to 16 bits."""
    torch.nn.Module.float(trained.model)  # transformers refuses it for weights that were packed
    answers, likely = trained.judge(questions, Generation(max_new_tokens), BATCH_TOKENS)
    found = zip(questions, answers, likely, strict=True)
    return [Served(question.asked, [*answer.ids], of) for question, answer, of in found]


def _compared(
    trained: Engine,
    questions: Sequence[Question],
    answers: Sequence[list[int]],
    likely: Sequence[torch.Tensor],
    served: Sequence[Served],
) -> Compared:
    apart = torch.cat([*likely]).double() - torch.cat([one.likely for one in served]).double()
    differ = [
        (question.asked, ours, one.answer)
        for question, ours, one in zip(questions, answers, served, strict=True)
        if ours != one.answer
    ]
    return Compared(
        prompts=sum(q.asked != one.prompt for q, one in zip(questions, served, strict=True)),
        mean=float(apart.abs().mean()),
        most=float(apart.abs().max()),
        equal=1 - len(differ) / len(served),
        gap=max((_gap(trained, *one) for one in differ), default=0.0),
    )


def _gap(trained: Engine, asked: list[int], ours: list[int], theirs: list[int]) -> float:
    """Return how much likelier the trained model finds its own token where two answers part."""
    pairs = enumerate(zip(ours, theirs, strict=False))
    place = next((place for place, (one, other) in pairs if one != other), None)
    if place is None:  # one goes on where the other has ended
        return math.inf
    before = [*asked, *ours[:place]]
    own, other = (float(trained.likely([*before, of[place]])[-1]) for of in (ours, theirs))
    return abs(own - other)


def _line(name: str, how: str, found: Compared) -> list[str]:
    return [
        *(name, how, "all" if not found.prompts else f"{found.prompts} differ"),
        *(f"{found.mean:.4f}", f"{found.most:.3f}", f"{100 * found.equal:.0f} %"),
        f"{found.gap:.3f}",
    ]


def _wrong(which: str, found: Compared, tolerance: float, tie: float) -> list[str]:
    """Return what is more than may be."""
    told = []
    if found.prompts:
        told.append(f"{which}: {found.prompts} prompts are other tokens than in training")
    if not found.mean <= tolerance:  # or no number
        told.append(f"{which}: a token's log-probability differs by {found.mean:.4f}")
    if not found.gap <= tie:
        told.append(f"{which}: an answer parts where the model is sure, by {found.gap:.3f}")
    return told


if __name__ == "__main__":
    stage.run(main, section=False)
