"""From conversations to what a model reads and learns, by its chat template."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from src.chat import templates
from src.chat.conversations import Conversation, Turn
from src.chat.toolbox import UnusableError

Message = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """What a model reads of a conversation, and what of it it learns."""

    ids: list[int]
    learnt: list[bool]  # of each token


@dataclass(frozen=True)
class Question:
    """What a conversation asks of a model at one place."""

    turns: tuple[Turn, ...]  # the right answer's
    asked: list[int]  # the tokens of the prompt
    right: list[int]  # those of the right answer, with the one that ends it


class Renderer:
    """Writes conversations as a tokenizer's template does.

    Attributes:
        template: it, with what it lacks.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Try the template of ``tokenizer``.

        Raises:
            InputError: it has none, or none by which a question can be asked.
        """
        self._tokenizer = tokenizer
        self._end = templates.end_of(tokenizer)
        self.template = templates.completed(tokenizer)

    @property
    def ends(self) -> list[str]:
        """Return what the template writes after an answer, and the tokenizer's own end."""
        own = [self._tokenizer.eos_token] if self._tokenizer.eos_token else []
        return [*dict.fromkeys([self._end, *own])]

    def messages(self, conversation: Conversation) -> list[Message]:
        """Return what the template is given, in the form of OpenAI's messages."""
        return [message for _, message in self._numbered(conversation)]

    def prompt(self, conversation: Conversation, turns: int) -> str:
        """Write the first turns, and the beginning of an answer to them."""
        part = Conversation(conversation.turns[:turns])
        return self._render(self.messages(part), conversation.tools, prompt=True)

    def questions(self, conversation: Conversation) -> list[Question]:
        """Return each place of a conversation where an answer is learnt.

        Raises:
            UnusableError: the template can't write this conversation.
        """
        _, spans = self._written(conversation)
        answers = [turns for _, turns in conversation.answers()]
        return [
            self._question(prompt, text.rstrip(), turns)
            for (prompt, text), turns in zip(spans, answers, strict=True)
        ]

    def _question(self, prompt: str, text: str, turns: tuple[Turn, ...]) -> Question:
        asked, whole = self.ids(prompt), self.ids(text)
        if whole[: len(asked)] == asked:
            return Question(turns, asked, whole[len(asked) :])
        # A token of the whole lies across the end of the prompt, which no answer to it can have.
        # Behind another token, as some tokenizers begin a text with a space.
        right = self.ids(self._end + text[len(prompt) :])[len(self.ids(self._end)) :]
        return Question(turns, asked, right)

    def ids(self, text: str) -> list[int]:
        """Return the tokens of a text that the template has written."""
        found: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    def rows(self, conversation: Conversation) -> list[Row]:
        """Return a row, or one for each answer if the template writes earlier answers anew.

        Some templates leave the thoughts of earlier answers out, so what came before one answer is
        not what came before the next.

        Raises:
            UnusableError: the template can't write this conversation.
        """
        whole, spans = self._written(conversation)
        if all(whole.startswith(text) for _, text in spans):
            return [self._row(whole, [(len(p), len(text.rstrip())) for p, text in spans])]
        return [self._row(text, [(len(p), len(text.rstrip()))]) for p, text in spans]

    def _written(self, conversation: Conversation) -> tuple[str, list[tuple[str, str]]]:
        """Write it all, and for each answer that is learnt what comes before it and with it."""
        numbered = self._numbered(conversation)
        messages = [message for _, message in numbered]
        tools = conversation.tools
        try:
            whole = self._render(messages, tools)
            spans = []
            for place, (turns, message) in enumerate(numbered):
                if message["role"] == "assistant" and any(turn.learnt for turn in turns):
                    prompt = self._render(messages[:place], tools, prompt=True)
                    text = self._render(messages[: place + 1], tools)
                    spans.append((prompt, text))
                    self._refuse_loss(prompt, text, turns)
        except UnusableError:
            raise
        except Exception as error:  # whatever a template of somebody else's comes to
            raise UnusableError(
                "unwritable", f"the chat template can't write it ({str(error)[:100]})"
            ) from None
        return whole, spans

    def _refuse_loss(self, prompt: str, text: str, turns: Sequence[Turn]) -> None:
        """Stop if a template does not write an answer where it asks for one, or not all of it."""
        if not text.startswith(prompt):
            raise UnusableError(
                "unwritable", "the chat template does not write an answer after its prompt for one"
            )
        answer = text[len(prompt) :]
        said = [turn.name if turn.role == "tool" else turn.content.strip() for turn in turns]
        if lost := next((part for part in said if part not in answer), ""):
            raise UnusableError("unwritable", f"the chat template leaves out {lost[:40]!r}")

    def _row(self, text: str, spans: Sequence[tuple[int, int]]) -> Row:
        found = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        learnt = [
            any(start <= first < end and last > first for start, end in spans)
            for first, last in found["offset_mapping"]
        ]
        return Row(found["input_ids"], learnt)

    def _numbered(self, conversation: Conversation) -> list[tuple[list[Turn], Message]]:
        """Return messages, each with the turns that it is made of."""
        found: list[tuple[list[Turn], Message]] = []
        answers: list[Message] = []  # of calls at once, which come after all of them
        turns = conversation.turns
        for turn, following in itertools.zip_longest(turns, turns[1:]):
            if turn.role == "tool":
                self._add_call(found, turn)
                answer = {"role": "tool", "name": turn.name, "content": turn.content}
                answers += [answer] if turn.answered else []
            else:
                found.append(([turn], {"role": turn.role, "content": turn.content}))
            if not (following and following.parallel):
                found += [([], answer) for answer in answers]
                answers = []
        return found

    def _add_call(self, found: list[tuple[list[Turn], Message]], turn: Turn) -> None:
        """Add a call to the answer that it belongs to."""
        if found[-1][1]["role"] != "assistant":  # else it goes on with what was said, or a call
            found.append(([], {"role": "assistant", "content": ""}))
        of, message = found[-1]
        of.append(turn)
        call = {"name": turn.name, "arguments": turn.parameters}
        message.setdefault("tool_calls", []).append({"type": "function", "function": call})

    def _render(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], prompt: bool = False
    ) -> str:
        return templates.render(self._tokenizer, self.template, messages, tools, prompt)
