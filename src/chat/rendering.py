"""From conversations to what a model reads and learns: the one place where its template is asked.

A template that knows tools writes them in its own way. For one that does not, they are written as
Hermes does, which servers can read: the tools in the system message, a call as JSON between
``<tool_call>`` tags, an answer between ``<tool_response>`` tags.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from src.chat.conversations import Conversation, Turn
from src.chat.toolbox import UnusableError
from src.core.errors import InputError
from src.predict.foreign import refusing

Message = dict[str, Any]

# The forms of two families, for a model whose folder has none.
TEMPLATES = {
    "chatml": (
        "{% for message in messages %}"
        "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    ),
    "gemma": (
        "{{ bos_token }}"
        "{% for message in messages %}"
        "{% if message['role'] not in ['user', 'assistant'] %}"
        "{{ raise_exception('this template knows the roles user and assistant alone') }}"
        "{% endif %}"
        "{% set role = 'model' if message['role'] == 'assistant' else 'user' %}"
        "{{ '<start_of_turn>' + role + '\\n' + message['content'] + '<end_of_turn>\\n' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
    ),
}
TOOLS = """\
You can call these tools, each given as JSON:
<tools>
{tools}
</tools>
To call one, answer with its name and arguments as JSON between tags, and nothing else:
<tool_call>
{{"name": "...", "arguments": {{...}}}}
</tool_call>
If none of them fits, say so."""
PROBE = "qzx"  # what no template holds by itself
# For templates that write the day: rows must not change with it.
TODAY = "01 Jan 2025"
UNDATED = f"{{% macro strftime_now(form) %}}{TODAY}{{% endmacro %}}"


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
        knows_tools: whether the template writes tools and calls itself.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Try the template of ``tokenizer``.

        Raises:
            InputError: it has none, or none by which a question can be asked.
        """
        self._tokenizer = tokenizer
        if not tokenizer.chat_template:
            raise InputError(
                "The model has no chat template: set base.chat_template to chatml, gemma or a file."
            )
        dated = "strftime_now" in str(tokenizer.chat_template)
        self._template = UNDATED * dated + tokenizer.chat_template
        user, reply = (
            {"role": "user", "content": PROBE},
            {"role": "assistant", "content": PROBE * 2},
        )
        with refusing(
            "The model's chat template can't write a question and its answer",
            "set base.chat_template to another one",
        ):
            asked = self._render([user], (), prompt=True)
            whole = self._render([user, reply], ())
        if (
            PROBE not in asked
            or not whole.startswith(asked)
            or PROBE * 2 not in whole[len(asked) :]
        ):
            raise InputError(
                "The model's chat template does not write an answer after its prompt for one, so "
                "nobody could tell what is to be learnt: set base.chat_template to another one."
            )
        tail = whole[len(asked) :].rpartition(PROBE * 2)[2]
        self._end = self._special(tail.lstrip())
        if not self._end:
            raise InputError(
                "The model's chat template writes no token that ends an answer, so that no answer "
                "learnt by it would end: set base.chat_template to another one."
            )
        self._has_system = self._writes(
            [{"role": "system", "content": PROBE * 3}, user], (), PROBE * 3
        )
        self.knows_tools = self._knows_tools()
        answer: Message = {"role": "tool", "name": "a", "content": PROBE * 4}
        call: Message = {"role": "assistant", "content": PROBE * 2}
        self._has_tool = self.knows_tools or self._writes([user, call, answer], (), PROBE * 4)

    @property
    def ends(self) -> list[str]:
        """Return what the template writes after an answer, and the tokenizer's own end."""
        own = [self._tokenizer.eos_token] if self._tokenizer.eos_token else []
        return [*dict.fromkeys([self._end, *own])]

    def _special(self, text: str) -> str:
        """Return the token that a text begins with and that stands for no text, "" for none."""
        special = {str(token) for token in self._tokenizer.all_special_tokens}
        special |= {str(token) for token in self._tokenizer.added_tokens_decoder.values()}
        found = [token for token in special if token and text.startswith(token)]
        return max(found, key=len, default="")

    def messages(self, conversation: Conversation) -> list[Message]:
        """Return what the template is given, in the form of OpenAI's messages."""
        return [message for _, message in self._numbered(conversation)]

    def prompt(self, conversation: Conversation, turns: int) -> str:
        """Write the first turns, and the beginning of an answer to them."""
        part = Conversation(conversation.turns[:turns], conversation.tools)
        tools = conversation.tools if self.knows_tools else ()
        return self._render(self.messages(part), tools, prompt=True)

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
        tools = conversation.tools if self.knows_tools else ()
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
        turns = [*conversation.turns]
        system = turns.pop(0) if turns[0].role == "system" else None
        said = [system.content] if system else []
        if conversation.tools and not self.knows_tools:
            tools = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in conversation.tools)
            said.append(TOOLS.format(tools=tools))
        head = "\n\n".join(said)
        if head and self._has_system:
            found.append(([system] if system else [], {"role": "system", "content": head}))
            head = ""
        answers: list[Message] = []  # of calls at once, which come after all of them
        for turn, following in itertools.zip_longest(turns, turns[1:]):
            if turn.role == "user":
                content = f"{head}\n\n{turn.content}" if head else turn.content
                found.append(([turn], {"role": "user", "content": content}))
                head = ""
            elif turn.role == "assistant":
                found.append(([turn], {"role": "assistant", "content": turn.content}))
            else:
                self._add_call(found, turn)
                answers += [self._answer(turn)] if turn.answered else []
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
        if self.knows_tools:
            message.setdefault("tool_calls", []).append({"type": "function", "function": call})
        else:
            text = f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>"
            message["content"] = f"{message['content']}\n{text}".lstrip("\n")

    def _answer(self, turn: Turn) -> Message:
        """Return the message of what a tool answered."""
        content = turn.content
        if not self.knows_tools:
            content = f"<tool_response>\n{content}\n</tool_response>"
        if not self._has_tool:
            return {"role": "user", "content": content}
        return {"role": "tool", "name": turn.name, "content": content}

    def _knows_tools(self) -> bool:
        tool = {
            "name": f"{PROBE}a",
            "description": "",
            "parameters": {"type": "object", "properties": {}},
        }
        call = {"name": f"{PROBE}a", "arguments": {f"{PROBE}b": f"{PROBE}c"}}
        messages: list[Message] = [
            {"role": "user", "content": "a"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"type": "function", "function": call}],
            },
            {"role": "tool", "name": f"{PROBE}a", "content": f"{PROBE}d"},
        ]
        listed = self._writes(messages[:1], (tool,), f"{PROBE}a")
        return listed and all(self._writes(messages, (tool,), f"{PROBE}{k}") for k in "bcd")

    def _writes(
        self, messages: list[Message], tools: Sequence[Mapping[str, Any]], text: str
    ) -> bool:
        try:
            return text in self._render(messages, tools)
        except Exception:  # whatever a template of somebody else's comes to
            return False

    def _render(
        self, messages: list[Message], tools: Sequence[Mapping[str, Any]], prompt: bool = False
    ) -> str:
        given = [{"type": "function", "function": dict(tool)} for tool in tools]
        text: str = self._tokenizer.apply_chat_template(
            messages,
            tools=given or None,
            add_generation_prompt=prompt,
            tokenize=False,
            chat_template=self._template,
            date_string=TODAY,
        )
        return text
