"""Chat templates: what a model reads of messages, in the form that OpenAI's API has them.

A template that knows no tools, or no message of the system, gets a beginning by which it does, so
that whoever writes messages by it, a trainer or a server, writes the same. Tools are written as
Hermes does, which servers can read: their schemas in the system message, a call as JSON between
``<tool_call>`` tags, an answer between ``<tool_response>`` tags.
"""

import string
from collections.abc import Mapping, Sequence
from typing import Any

from src.core.errors import InputError
from src.predict.foreign import refusing

Message = Mapping[str, Any]
Tool = Mapping[str, Any]

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
# What a template begins with that is given messages in place of these. HEAD is what comes before
# all others: in a message of the system or, where there is no such role, in the first of the user.
BEGINNING = """\
{#- Put before the model's own template, which follows: it knows no $lacks. -#}
{%- set told = namespace(head='', messages=[]) -%}
{%- if messages and messages[0].role == 'system' -%}
{%- set told.head = messages[0].content -%}
{%- endif -%}
$tools$head\
{%- for message in messages -%}
{%- if loop.first and message.role == 'system' -%}
{%- elif told.head and message.role == 'user' -%}
{%- set told.messages = told.messages + [{'role': 'user', 'content': told.head ~ '\\n\\n' ~ \
message.content}] -%}
{%- set told.head = '' -%}
$calls\
{%- else -%}
{%- set told.messages = told.messages + [message] -%}
{%- endif -%}
{%- endfor -%}
{%- set messages = told.messages %}
"""
HEAD = """\
{%- if told.head -%}
{%- set told.messages = [{'role': 'system', 'content': told.head}] -%}
{%- set told.head = '' -%}
{%- endif -%}
"""
TOOLS = """\
{%- if tools -%}
{%- set told.head = (told.head ~ '\\n\\n' if told.head else '') ~ 'You can call these tools, each \
given as JSON:\\n<tools>\\n' -%}
{%- for tool in tools -%}
{%- set tool = tool.function if tool.function is defined else tool -%}
{%- set told.head = told.head ~ {'name': tool.name, 'description': tool.description or '', \
'parameters': tool.parameters} | tojson ~ '\\n' -%}
{%- endfor -%}
{%- set told.head = told.head ~ '</tools>\\nTo call one, answer with its name and arguments as \
JSON between tags, and nothing else:\\n<tool_call>\\n{"name": "...", "arguments": {...}}\\n\
</tool_call>\\nIf none of them fits, say so.' -%}
{%- set tools = none -%}
{%- endif -%}
"""
CALLS = """\
{%- elif message.role == 'assistant' and message.tool_calls -%}
{%- set called = namespace(text=message.content or '') -%}
{%- for call in message.tool_calls -%}
{%- set call = call.function if call.function is defined else call -%}
{%- set given = call.arguments if call.arguments is string else call.arguments | tojson -%}
{%- set called.text = (called.text ~ '\\n<tool_call>\\n{"name": ' ~ call.name | tojson ~ ', \
"arguments": ' ~ given ~ '}\\n</tool_call>').lstrip('\\n') -%}
{%- endfor -%}
{%- set told.messages = told.messages + [{'role': 'assistant', 'content': called.text}] -%}
{%- elif message.role == 'tool' -%}
{%- set told.messages = told.messages + [{'role': '$role', 'name': message.name, 'content': \
'<tool_response>\\n' ~ message.content ~ '\\n</tool_response>'}] -%}
"""
PROBE = "qzx"  # what no template holds by itself
ASKED: Message = {"role": "user", "content": PROBE}
# For templates that write the day: rows must not change with it.
TODAY = "01 Jan 2025"
UNDATED = f"{{% macro strftime_now(form) %}}{TODAY}{{% endmacro %}}"


def render(
    tokenizer: Any,
    template: str,
    messages: Sequence[Message],
    tools: Sequence[Tool] = (),
    prompt: bool = False,
) -> str:
    """Write messages by a template, on a day that is always the same.

    Args:
        tokenizer: whose special tokens it may name.
        template: of Jinja.
        messages: as in OpenAI's API, with arguments of calls as objects.
        tools: each with name, description and parameters.
        prompt: whether to begin an answer to them.

    Raises:
        Exception: whatever a template of somebody else's comes to.
    """
    given = [{"type": "function", "function": dict(tool)} for tool in tools]
    text: str = tokenizer.apply_chat_template(
        list(messages),
        tools=given or None,
        add_generation_prompt=prompt,
        tokenize=False,
        chat_template=UNDATED * ("strftime_now" in template) + template,
        date_string=TODAY,
    )
    return text


def end_of(tokenizer: Any) -> str:
    """Return the token that a tokenizer's template writes after an answer.

    Raises:
        InputError: there is no template, or none by which a question can be asked and answered.
    """
    template = tokenizer.chat_template
    if not template:
        raise InputError(
            "The model has no chat template: set base.chat_template to chatml, gemma or a file."
        )
    with refusing(
        "The model's chat template can't write a question and its answer",
        "set base.chat_template to another one",
    ):
        asked = render(tokenizer, template, [ASKED], prompt=True)
        whole = render(tokenizer, template, [ASKED, {"role": "assistant", "content": PROBE * 2}])
    if PROBE not in asked or not whole.startswith(asked) or PROBE * 2 not in whole[len(asked) :]:
        raise InputError(
            "The model's chat template does not write an answer after its prompt for one, so "
            "nobody could tell what is to be learnt: set base.chat_template to another one."
        )
    tail = whole[len(asked) :].rpartition(PROBE * 2)[2].lstrip()
    special = {str(token) for token in tokenizer.all_special_tokens}
    special |= {str(token) for token in tokenizer.added_tokens_decoder.values()}
    found = [token for token in special if token and tail.startswith(token)]
    if not found:
        raise InputError(
            "The model's chat template writes no token that ends an answer, so that no answer "
            "learnt by it would end: set base.chat_template to another one."
        )
    return max(found, key=len)


def completed(tokenizer: Any) -> str:
    """Return a tokenizer's template, with a beginning if it knows no tools or no system message."""
    template: str = tokenizer.chat_template
    system = _writes(tokenizer, [{"role": "system", "content": PROBE * 3}, ASKED], (), [PROBE * 3])
    tools = _knows_tools(tokenizer)
    if system and tools:
        return template
    answer = {"role": "tool", "name": "a", "content": PROBE * 4}
    answered = [ASKED, {"role": "assistant", "content": PROBE * 2}, answer]
    role = "tool" if _writes(tokenizer, answered, (), [PROBE * 4]) else "user"
    lacks = ["message of the system"] * (not system) + ["tools"] * (not tools)
    beginning = string.Template(BEGINNING).substitute(
        lacks=" and no ".join(lacks),
        head=HEAD * system,
        tools=TOOLS * (not tools),
        calls=string.Template(CALLS).substitute(role=role) * (not tools),
    )
    return beginning + template  # which still begins a line: the end of a block's line is dropped


def call_form(tokenizer: Any) -> str:
    """Name how a template writes calls, as parsers of servers are named: hermes, or ''."""
    call = {"name": f"{PROBE}a", "arguments": {}}
    asks: Message = {"role": "assistant", "content": "", "tool_calls": [_called(call)]}
    hermes = ['<tool_call>\n{"name": ', "</tool_call>"]
    return "hermes" if _writes(tokenizer, [ASKED, asks], (), hermes) else ""


def _knows_tools(tokenizer: Any) -> bool:
    tool = {
        "name": f"{PROBE}a",
        "description": "",
        "parameters": {"type": "object", "properties": {}},
    }
    call = {"name": f"{PROBE}a", "arguments": {f"{PROBE}b": f"{PROBE}c"}}
    messages: list[Message] = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "", "tool_calls": [_called(call)]},
        {"role": "tool", "name": f"{PROBE}a", "content": f"{PROBE}d"},
    ]
    listed = _writes(tokenizer, messages[:1], (tool,), [f"{PROBE}a"])
    return listed and _writes(tokenizer, messages, (tool,), [f"{PROBE}{k}" for k in "bcd"])


def _called(call: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": call}


def _writes(
    tokenizer: Any, messages: Sequence[Message], tools: Sequence[Tool], texts: Sequence[str]
) -> bool:
    try:
        text = render(tokenizer, tokenizer.chat_template, messages, tools)
    except Exception:  # whatever a template of somebody else's comes to
        return False
    return all(one in text for one in texts)
