"""Keep what the model to start from says to general questions, to see later what was forgotten."""

import logging
from pathlib import Path

from src.chat import conversations
from src.chat.conversations import Conversation, Turn
from src.chat.engine import Engine
from src.chat.generation import Generation
from src.chat.toolbox import UnusableError
from src.core import stage
from src.core.command_line import Count, Threads
from src.core.errors import InputError
from src.core.files import replacing

SOURCE = "general"
QUESTIONS = (
    *("What is the capital of France?", "Name three fruits that are red."),
    *("How many days does a week have?", "Why is the sky blue?", "What is 7 plus 5?"),
    *("Write one sentence about the sea.", "What do bees make?", "Who wrote Hamlet?"),
    *("Give me two tips for sleeping well.", "What is water made of?"),
    *("Translate 'good morning' into Spanish.", "What is the opposite of cold?"),
    *("Explain gravity to a child in two sentences.", "Which planet is the largest?"),
    *("Write a short poem about rain.", "What does a doctor do?", "How do plants grow?"),
    *("List three things to take on a hike.", "What is a computer program?"),
    *("Tell me a fact about elephants.", "How is bread made?", "What is a haiku?"),
    *("Complete the sentence: The early bird", "What causes the seasons?"),
    *("法国的首都是哪里？", "一周有几天？", "请写一句关于春天的话。", "水的沸点是多少？"),
    *("请列出三种水果。", "什么是计算机？", "为什么要多喝水？", "月亮为什么会发光？"),
)

log = logging.getLogger("src.chat.general")


def main(
    base: Path,
    answered: Path,
    *,
    questions: list[str],
    max_new_tokens: Count,
    batch_tokens: Count,
    threads: Threads,
) -> None:
    """Write the likeliest answers of the model to questions that no training has.

    Args:
        base: the folder of the model.
        answered: the file that gets the conversations.
    """
    engine = Engine(base, threads=threads)
    asked = [Turn("user", text, False) for text in questions or QUESTIONS]
    if any(not turn.content.strip() for turn in asked):
        raise InputError("general.questions has an empty one: take it out.")
    prompts = [engine.renderer.prompt(Conversation((turn,)), 1) for turn in asked]
    found = engine.answers(prompts, Generation(max_new_tokens), batch_tokens)
    kept = [
        Conversation((turn, Turn("assistant", answer.text, True)), (), f"{SOURCE}:{number}", SOURCE)
        for number, (turn, answer) in enumerate(zip(asked, found, strict=True), 1)
        if answer.text.strip()
    ]
    kept = [one for one in kept if _is_written_as_it_is(one, engine)]
    if not kept:
        raise InputError(f"{base} answers none of the general questions: start from another model.")
    log.info("%d of %d questions have an answer", len(kept), len(asked))
    with replacing(answered) as file:
        conversations.write(kept, file)


def _is_written_as_it_is(one: Conversation, engine: Engine) -> bool:
    """Tell whether the model's own answer can be kept, and the template writes it as it was."""
    try:
        (row,) = engine.renderer.rows(Conversation.parse(one.written()))
    except (UnusableError, ValueError):
        return False
    learnt = [id for id, is_learnt in zip(row.ids, row.learnt, strict=True) if is_learnt]
    written: str = engine.tokenizer.decode(learnt, skip_special_tokens=True)
    return written.strip() == one.turns[-1].content.strip()


if __name__ == "__main__":
    stage.run(main)
