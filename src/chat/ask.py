"""Ask a model of this pipeline, or an adapter on its base.

    python -m src.chat.ask models/chat/merged "Who are you?"
    python -m src.chat.ask models/chat/lora --input questions.jsonl --output answers.jsonl

A file has a conversation a line, as data/chat/conversations has them, whose last turn is answered.
Answers that are in the other file already, of the same model and by the same options, stay there.
"""

import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

from tqdm import tqdm

from src.chat.conversations import Conversation
from src.chat.engine import Engine
from src.chat.generation import Answer, Generation
from src.chat.toolbox import UnusableError
from src.core import stage
from src.core.command_line import Count, Interval, Natural, Seed, Threads
from src.core.errors import InputError

AT_ONCE = 64  # conversations that are answered between two writes

log = logging.getLogger("src.chat.ask")


def main(
    model: Path,
    *question: str,
    base: str = "models/chat/base",
    system: str = "",
    input: str = "",
    output: str = "",
    max_new_tokens: Count = 256,
    temperature: Annotated[float, Interval(ge=0)] = 0.0,
    top_p: Annotated[float, Interval(gt=0, le=1)] = 1.0,
    top_k: Natural = 0,
    repetition_penalty: Annotated[float, Interval(gt=0)] = 1.0,
    batch_tokens: Count = 16384,
    threads: Threads = 2,
    seed: Seed = 42,
) -> None:
    """Print the answer to a question as it comes, or write those to a file of conversations.

    ``base`` is the model that an adapter was trained on. With ``temperature`` 0 each token is the
    likeliest, whatever follows.
    """
    if bool(question) == bool(input or output) or bool(input) != bool(output):
        raise InputError("Give a question, or --input and --output, both of them.")
    if input and Path(input).resolve() == Path(output).resolve():
        raise InputError(f"--input and --output are both {input}: name another file in --output.")
    generation = Generation(max_new_tokens, temperature, top_p, top_k, repetition_penalty, seed)
    asked = _read(Path(input)) if input else [_asked(" ".join(question))]
    asked = [one.with_system(system) for one in asked]
    engine = Engine.of(Path(base), model, threads)
    if input:
        by = {"model": str(model), **asdict(generation)}
        _answer(engine, asked, Path(output), by, generation, batch_tokens)
        return
    prompt = engine.renderer.prompt(asked[0], len(asked[0].turns))
    for piece in engine.stream(prompt, generation):
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")


def _asked(text: str) -> Conversation:
    try:
        return _question({"conversations": [{"role": "user", "content": text}]})
    except UnusableError as error:
        raise InputError(f"The question can't be answered ({error}): write another one.") from None


def _question(found: Any) -> Conversation:
    """Read a conversation that is to be answered; UnusableError if it is none."""
    turns = found.get("conversations") if isinstance(found, dict) else None
    if not isinstance(turns, list):
        raise UnusableError("malformed", "it has no conversations, a list of turns")
    if turns and isinstance(turns[-1], dict) and turns[-1].get("role") == "assistant":
        raise UnusableError("misordered", "its last turn is an answer already: take it out")
    # With an answer it is what any file of conversations has.
    whole = found | {"conversations": [*turns, {"role": "assistant", "content": "-"}]}
    parsed = Conversation.parse(whole | {"gold": None})
    return replace(parsed, turns=parsed.turns[:-1])


def _read(path: Path) -> list[Conversation]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise InputError(f"There is no file at {path}: correct --input.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} can't be read as UTF-8 ({error}): correct --input.") from None
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                found.append(_question(json.loads(line)))
            except (UnusableError, ValueError, RecursionError) as error:
                said = str(error)
                if isinstance(error, json.JSONDecodeError):  # which counts lines of its own
                    said = f"not JSON: {error.msg}, column {error.colno}"
                raise InputError(
                    f"{path}, line {number} can't be answered ({said}): correct it."
                ) from None
    if not found:
        raise InputError(f"{path} has no conversations: add some.")
    return found


def _answer(
    engine: Engine,
    asked: Sequence[Conversation],
    output: Path,
    by: dict[str, Any],
    generation: Generation,
    batch_tokens: int,
) -> None:
    """Write an answer a line, in the order of the questions, after those that are there."""
    done = _kept(output, asked, by)
    if done:
        log.info("%s has %d of %d answers already", output, done, len(asked))
    output.parent.mkdir(parents=True, exist_ok=True)
    with (
        output.open("a", encoding="utf-8", newline="\n") as file,
        tqdm(total=len(asked), initial=done, disable=not sys.stderr.isatty()) as bar,
    ):
        for start in range(done, len(asked), AT_ONCE):
            some = asked[start : start + AT_ONCE]
            prompts = [engine.renderer.prompt(one, len(one.turns)) for one in some]
            answers = engine.answers(prompts, generation, batch_tokens)
            for one, answer in zip(some, answers, strict=True):
                file.write(f"{_line(one, answer, by)}\n")
            file.flush()
            bar.update(len(some))


def _line(one: Conversation, answer: Answer, by: dict[str, Any]) -> str:
    said = {"role": "assistant", "content": answer.text}
    written = one.written()
    written["conversations"].append(said)
    return json.dumps(written | {"ended": answer.ended, "by": by}, ensure_ascii=False)


def _kept(output: Path, asked: Sequence[Conversation], by: dict[str, Any]) -> int:
    """Count the answers that are there, without one that was being written.

    Raises:
        InputError: they are to other questions, of another model or by other options.
    """
    if not output.exists():
        return 0
    content = output.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    # By line feeds alone: an answer may hold other ends of lines as they are.
    lines = whole.decode(encoding="utf-8", errors="replace").split("\n")[:-1]
    questions = [one.written()["conversations"] for one in asked]
    for number, line in enumerate(lines):
        try:
            found = json.loads(line)
            same = found["by"] == by and found["conversations"][:-1] == questions[number]
        except (ValueError, KeyError, TypeError, IndexError):
            same = False
        if not same:
            raise InputError(
                f"{output}, line {number + 1} is no answer of this model to this question by these "
                "options: name another file in --output, or delete it."
            )
    if len(whole) < len(content):
        with output.open("r+b") as file:
            file.truncate(len(whole))
    return len(lines)


if __name__ == "__main__":
    stage.run(main, section=False)
