"""Tools that a model can call: their schemas, and whether a call fits one.

Schemas are somebody else's: what of one could run for ever, or be fetched, is left out of trying.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend
from referencing import Registry

from src.core.errors import closest

# Why a conversation can't be used.
Code = Literal[
    "malformed",
    "not_text",
    "unknown_role",
    "empty_turn",
    "misordered",
    "broken_tools",
    "unknown_tool",
    "bad_arguments",
    "nothing_to_learn",
    "unwritable",
]
# Kinds of values that other makers of tools write, as JSON Schema names them; "" for any.
KINDS = {"dict": "object", "float": "number", "tuple": "array", "any": "", "int": "integer"}
KINDS |= {
    "str": "string",
    "bool": "boolean",
    "list": "array",
    "double": "number",
    "long": "integer",
}
DEEP = 50  # levels of a schema
REFERENCES = 1000  # that are followed for one call: a few lines of them can stand for any number
# Schemas that somebody else wrote: a pattern can take for ever, and another dialect has its own.
UNTRIED = ("$schema", "$dynamicRef", "pattern", "patternProperties", "format")
NAMED = ("properties", "$defs", "definitions", "dependentSchemas")  # which hold schemas by name
VALUES = ("enum", "const", "default", "examples")  # which hold none


class UnusableError(Exception):
    """A conversation that can't be used: why, for programs and for people."""

    def __init__(self, code: Code, reason: str) -> None:
        """Keep both."""
        super().__init__(reason)
        self.code = code


def _follow(validator: Any, place: Any, instance: Any, schema: Any) -> Iterator[Any]:
    _followed.append(place)
    if len(_followed) > REFERENCES:
        raise RecursionError
    yield from Draft202012Validator.VALIDATORS["$ref"](validator, place, instance, schema) or ()


_followed: list[Any] = []  # references, for one call
_Validator: Any = extend(Draft202012Validator, {"$ref": _follow})  # type: ignore[no-untyped-call]


def tool_of(found: Any) -> Mapping[str, Any]:
    """Read the description of a tool, also as OpenAI writes it.

    Raises:
        UnusableError: it is none.
    """
    if isinstance(found, dict) and isinstance(found.get("function"), dict):
        found = found["function"]
    if not isinstance(found, dict) or not isinstance(found.get("name"), str):
        raise UnusableError("broken_tools", f"a tool is no object with a name: {str(found)[:60]}")
    name = found["name"]
    schema = _schema(found.get("parameters") or {"type": "object", "properties": {}}, name)
    try:
        Draft202012Validator.check_schema(_tried(schema))
    except Exception as error:  # whatever a schema of somebody else's comes to
        reason = str(getattr(error, "message", error))[:100]
        raise UnusableError(
            "broken_tools", f"the parameters of tool {name!r} are no JSON Schema: {reason}"
        ) from None
    return {"name": name, "description": str(found.get("description") or ""), "parameters": schema}


def _schema(found: Any, name: str, level: int = 0) -> Any:
    """Write a schema as JSON Schema does; others call an object a dict and a number a float."""
    if level > DEEP:
        raise UnusableError("broken_tools", f"the parameters of tool {name!r} are nested too deep")
    if isinstance(found, list):
        return [_schema(one, name, level + 1) for one in found]
    if not isinstance(found, dict):
        return found
    fixed = {key: _schema(value, name, level + 1) for key, value in found.items()}
    kind = found.get("type")
    if isinstance(kind, str) and kind.lower() in KINDS:
        fixed["type"] = KINDS[kind.lower()]
        if not fixed["type"]:
            del fixed["type"]
    return fixed


def _tried(schema: Any) -> Any:
    """Return what of a schema arguments are held against."""
    if isinstance(schema, list):
        return [_tried(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {}
    for key, value in schema.items():
        if key in NAMED and isinstance(value, dict):
            kept[key] = {name: _tried(one) for name, one in value.items()}
        elif key not in UNTRIED:
            kept[key] = value if key in VALUES else _tried(value)
    return kept


def refuse_call(place: int, name: str, arguments: Any, known: Mapping[str, Any]) -> None:
    """Stop if a call is of no known tool, or its arguments are none that the tool's schema takes.

    Raises:
        UnusableError: so; it names the turn at ``place``.
    """
    if name not in known:
        hint = closest(name, known) if known else ", for there are no tools"
        raise UnusableError("unknown_tool", f"turn {place} calls {name!r}, which is no tool{hint}")
    _followed.clear()
    try:
        _Validator(_tried(known[name]), registry=Registry()).validate(arguments)
    except ValidationError as error:
        where = "".join(f" {part!r}" for part in error.path)
        raise UnusableError(
            "bad_arguments",
            f"turn {place} calls {name!r} with what its schema refuses:{where} "
            f"{error.message[:100]}",
        ) from None
    except Exception as error:  # whatever a schema of somebody else's comes to
        raise UnusableError(
            "broken_tools",
            f"nothing can be held against the schema of tool {name!r} "
            f"({type(error).__name__}): it may refer to what is not in it",
        ) from None
