"""Rows of a table as what a chat model is asked.

A row has one of three forms; in CSV, lists and objects are JSON in a text:

    {"messages": [{"role": "user", "content": "..."}], "tools": [...]}         as OpenAI's API
    {"conversations": [{"role": "user", "content": "..."}], "tools": [...]}    as `data` keeps them
    {"query": "...", "history": [["...", "..."]], "system": "..."}             as Request

What the assistant says at its end is left out: it is what somebody expects, and not asked.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from src.core.errors import InputError, closest
from src.predict.scoring import Values
from src.tables.encodings import why_not_text
from src.tables.parquet_rows import is_text, strings
from src.tables.places import Place

ROLES = ("system", "developer", "user", "assistant", "tool")
FORMS = ("messages", "conversations", "query")
EMPTY: dict[str, Any] = {"type": "object", "properties": {}}


@dataclass(frozen=True)
class Asked:
    """What a row asks.

    Attributes:
        messages: as OpenAI's API has them, the last one not of the assistant.
        tools: likewise.
    """

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]


class AskedRows:
    """The questions of a table, as ``scoring.Reading``."""

    shown = ""
    columns = [*FORMS, "history", "system", "tools"]  # noqa: RUF012, as the protocol has it
    columnar = False

    def refuse_columns(self, found: Sequence[str], place: Place, types: pa.Schema | None) -> None:
        """Stop if there is no column of a form."""
        if not {*FORMS} & {*found}:
            raise InputError(
                f"{place} has no column {', '.join(map(repr, FORMS[:-1]))} or {FORMS[-1]!r}, but "
                f"{', '.join(map(repr, found)) or 'none'}: rename the one that has the "
                "questions."
            )
        for name in self.columns:
            if types is None or name not in found:
                continue
            kind = types.field(name).type
            if not (is_text(kind) or pa.types.is_nested(kind) or pa.types.is_null(kind)):
                raise InputError(
                    f"{place} has {kind} in column {name!r}, which is neither text nor a list: "
                    "save it as one of them, or rename it."
                )

    def take(self, columns: Mapping[str, Values], rows: int) -> tuple[list[Asked], list[str]]:
        """Return what is asked by the rows that can be, and why each row can't be or ""."""
        values = {name: _plain(columns[name]) for name in self.columns if name in columns}
        asked, reasons = [], []
        for row in range(rows):
            given = {name: of[row] for name, of in values.items()}
            try:
                asked.append(asked_by({k: v for k, v in given.items() if v is not None}))
                reasons.append("")
            except ValueError as error:
                reasons.append(str(error))
            except (TypeError, RecursionError):  # dates and bytes of parquet
                reasons.append("it holds what is no JSON, or is nested too deep")
        return asked, reasons


def _plain(values: Values) -> Sequence[Any]:
    if not isinstance(values, pa.Array):
        return values  # type: ignore[no-any-return]
    if pa.types.is_nested(values.type):
        return [_present(value) for value in values.to_pylist()]
    return strings(values)


def _present(value: Any) -> Any:
    """Leave out what parquet has as null, since other objects beside this one have it."""
    if isinstance(value, dict):
        return {key: _present(inner) for key, inner in value.items() if inner is not None}
    return [_present(inner) for inner in value] if isinstance(value, list) else value


def asked_by(row: Mapping[str, Any]) -> Asked:
    """Return what a row asks; ValueError says why it can't be asked."""
    form = next((form for form in FORMS if row.get(form)), "")
    if not form:
        raise ValueError("no question")
    if form == "query":
        found = _of_query(row)
    else:
        turns = _objects(row, form)
        found = _of_turns(turns) if form == "conversations" else [dict(turn) for turn in turns]
        for message in found:
            message["content"] = _joined(message.get("content"))
        while found and found[-1].get("role") == "assistant":
            found.pop()
    for place, message in enumerate(found, 1):
        _refuse(place, message)
    if not found or found[-1]["role"] not in ("user", "tool"):
        raise ValueError("no question: nobody says anything that could be answered")
    tools = [_tool(one) for one in _objects(row, "tools")]
    if reason := why_not_text(json.dumps([found, tools], ensure_ascii=False)):
        raise ValueError(reason)
    return Asked(found, tools)


def _joined(content: Any) -> Any:
    """Return parts that are texts as one text, and anything else as it is."""
    if not isinstance(content, list):
        return content
    texts = [part["text"] for part in content if isinstance(part, dict) and "text" in part]
    whole = len(texts) == len(content) and all(isinstance(text, str) for text in texts)
    return "".join(texts) if whole else content


def _objects(row: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    found = row.get(name) or []
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except ValueError:
            raise ValueError(f"{name} is a text that is no JSON") from None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ValueError(f"{name} is no list of objects")
    return found


def _of_query(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    history = row.get("history") or []
    if isinstance(history, str):
        try:
            history = json.loads(history)
        except ValueError:
            raise ValueError("history is a text that is no JSON") from None
    if not isinstance(history, list) or not all(
        isinstance(pair, list) and len(pair) == 2 for pair in history
    ):
        raise ValueError("history is no list of pairs of a question and its answer")
    system = row.get("system")
    found = [{"role": "system", "content": system}] if system else []
    for asked, said in history:
        found += [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
    return [*found, {"role": "user", "content": row["query"]}]


def _of_turns(turns: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return messages for turns, where one of role tool is a call and what was answered to it."""
    found: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    for place, turn in enumerate(turns):
        if turn.get("role") != "tool":
            found.append({key: turn[key] for key in ("role", "content") if key in turn})
            continue
        id = f"call_{place}"
        arguments = json.dumps(turn.get("parameters") or {}, ensure_ascii=False)
        call = {"name": turn.get("name"), "arguments": arguments}
        if not (found and found[-1]["role"] == "assistant"):  # else it goes on with what was said
            found.append({"role": "assistant", "content": ""})
        calls = found[-1].setdefault("tool_calls", [])
        calls.append({"id": id, "type": "function", "function": call})
        if (said := turn.get("observation")) is not None:
            text = said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)
            # With its name, which some templates write.
            answer = {"role": "tool", "name": turn.get("name"), "content": text}
            answers.append(answer | {"tool_call_id": id})
        following = turns[place + 1] if place + 1 < len(turns) else {}
        if not following.get("parallel"):  # what is called at once is answered at once
            found += answers
            answers = []
    return found


def _refuse(place: int, message: Mapping[str, Any]) -> None:
    """Raise a ValueError if a message is none that a server takes, as some take anything."""
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        hint = closest(str(role), ROLES)
        raise ValueError(
            f"message {place} has role {str(role)[:40]!r}{hint}: one of {', '.join(ROLES)}"
        )
    calls = message.get("tool_calls")
    if not isinstance(content, str) and not (content is None and role == "assistant" and calls):
        raise ValueError(f"message {place} has no content that is a text")
    if role == "user" and not (content or "").strip():
        raise ValueError(f"message {place}, of the user, is empty")


def _tool(found: dict[str, Any]) -> dict[str, Any]:
    """Return a tool as OpenAI's API has it; in conversations it stands without what is around."""
    function = found.get("function", found)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ValueError("a tool has no name")
    return {"type": "function", "function": {"parameters": EMPTY} | function}
