"""The space of a search: which params, and the values that each may take."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from inspect import Parameter, signature
from typing import Any

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from src.core.command_line import bind
from src.core.errors import InputError
from src.project import graph
from src.project.params import words_of

Distribution = CategoricalDistribution | FloatDistribution | IntDistribution

FORMS = "'PARAM int LOW HIGH', 'PARAM float LOW HIGH', with or without 'log', or 'PARAM one A B'"


def read_space(
    entries: Sequence[str], target: str, section: Mapping[str, Any]
) -> dict[str, Distribution]:
    """Read the values that each param of ``tune.space`` may take.

    Args:
        entries: as params.yaml has them.
        target: the stage whose params are searched.
        section: its params.

    Raises:
        InputError: an entry can't be understood, or has a value that ``target`` would refuse.
    """
    stage_main, space = import_module(graph.module_of(target)).main, dict[str, Distribution]()
    kinds = [p.kind for p in signature(stage_main).parameters.values()]
    paths = ["-"] * kinds.count(Parameter.POSITIONAL_OR_KEYWORD)
    for entry in entries:
        name, *words = entry.split() or [""]
        if name in space:
            raise InputError(f"tune.space has {name} twice: leave one in params.yaml.")
        if name.split(".")[0] != target:
            raise InputError(
                f"tune.space has {entry!r}, which is no param of {target} (others change what is "
                f"measured or come after it): write {target}.PARAM, or change tune.target."
            )
        try:
            space[name], ends = _distribution(words)
        except ValueError as error:
            raise InputError(
                f"tune.space has {entry!r}, but {error}: write {FORMS} in params.yaml."
            ) from None
        for end in ends:  # the stage's own check and sentence
            words = words_of({**section, name.partition(".")[2]: _value(end)})
            bind(stage_main, target, True, [*paths, *words])
    if not space:
        raise InputError(f"tune.space is empty: write {FORMS} in params.yaml.")
    return space


def _distribution(words: Sequence[str]) -> tuple[Distribution, Sequence[str]]:
    """Read what an entry says after the param; give the values to check too.

    Raises:
        ValueError: it is wrong; the message is a part of a sentence.
    """
    match words:
        case ["one", *choices] if len(set(choices)) == len(choices) > 1:
            return CategoricalDistribution(choices), choices
        case ["one", *_]:
            raise ValueError("'one' takes at least two values, each once")
        case ["int", low, high, *scale] if scale in ([], ["log"]):
            whole = IntDistribution(int(low), int(high), log=bool(scale))
            return whole, [str(whole.low), str(whole.high)]
        case ["float", low, high, *scale] if scale in ([], ["log"]):
            real = FloatDistribution(float(low), float(high), log=bool(scale))
            return real, [str(real.low), str(real.high)]
    raise ValueError("it has none of the forms of an entry")


def _value(text: str) -> Any:
    """Read a value as it would be read from params.yaml."""
    try:
        return YAML(typ="safe").load(text)
    except YAMLError:
        return text


def present(space: Mapping[str, Distribution], section: Mapping[str, Any]) -> dict[str, Any]:
    """Give the values of params.yaml that lie in the space, with which a search begins."""
    found: dict[str, Any] = {}
    for name, distribution in space.items():
        value = section[name.partition(".")[2]]
        if isinstance(distribution, CategoricalDistribution):
            if same := [c for c in distribution.choices if _value(str(c)) == value]:
                found[name] = same[0]
        elif isinstance(value, int | float) and distribution.low <= value <= distribution.high:
            found[name] = value
    return found


def identify(target: str, metric: str, space: Mapping[str, Distribution]) -> tuple[str, str]:
    """Name a search after all that its figures depend on; give the file of its metric too.

    Raises:
        InputError: what the target depends on is not there.
    """
    with graph.project() as repo:
        stages = repo.stage.collect(target, with_deps=True)
        made = {out.fs_path for s in stages for out in s.outs}
        facts = dict(
            graph.values_of(dep for s in stages for dep in s.deps if dep.fs_path not in made)
        )
        file = next(str(out) for s in stages if s.name == target for out in s.outs if out.metric)
    for name in space:
        section, _, key = name.partition(".")
        del facts[section][key]
    asked = [target, metric, {name: repr(space[name]) for name in space}, facts]
    text = json.dumps(asked, sort_keys=True, default=str)
    return f"tune-{hashlib.sha256(text.encode()).hexdigest()[:8]}", file
