"""Conversations of sources: read, checked, named and measured; what can't be used is set apart."""

import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from src.chat import formats
from src.chat.conversations import Conversation
from src.chat.formats import Format
from src.chat.rendering import Renderer
from src.chat.toolbox import Code, UnusableError
from src.core.errors import InputError
from src.tables import sources
from src.tables.places import File

NAMED = 10  # of those that can't be used, that the log names

Names = Mapping[str, tuple[str, str]]  # the name of the model and its author, by language

log = logging.getLogger("src.chat.reading")


@dataclass(frozen=True)
class Measured:
    """The tokens of a conversation."""

    tokens: int  # of all rows that it becomes
    longest: int  # of the longest of them
    learnt: int  # of all
    lost: int  # of these, beyond max_length


@dataclass(frozen=True)
class Kept:
    """A conversation that can be used."""

    conversation: Conversation
    side: str  # that it must be on, or ""
    measured: Measured


@dataclass(frozen=True)
class Rejected:
    """What can't be used, by its place."""

    file: str
    line: int
    code: Code
    reason: str
    setting: str  # the param that names its file


class Reader:
    """Reads sources.

    Attributes:
        kept: what can be used.
        rejected: what can't.
        dropped: how many were left out, by reason.
        rows: how many were read, by the param that names their files.
    """

    def __init__(
        self, renderer: Renderer, format: Format, names: Names, system: str, max_length: int
    ) -> None:
        """Read by the params of these names."""
        self.kept: list[Kept] = []
        self.rejected: list[Rejected] = []
        self.dropped: Counter[str] = Counter()
        self.rows: Counter[str] = Counter()
        self._renderer, self._format, self._max_length = renderer, format, max_length
        self._names, self._system = names, system

    def read(
        self,
        places: Mapping[str, Sequence[str]],
        folder: Path,
        max_bytes: int,
        max_rows: int,
        seed: int,
    ) -> None:
        """Read the files of sources.

        Args:
            places: by the param that names them; those of data.test_source are all for the test.
            folder: gets what is not on this machine.
            max_bytes: what a packed file may have.
            max_rows: the most conversations of a file, drawn; 0 for all.
            seed: of the draw.
        """
        files = [
            (file, setting)
            for setting, listed in places.items()
            for file in _find(listed, setting, folder / setting, max_bytes)
        ]
        answers: dict[str, Any] = {}
        asked = []
        for file, setting in files:
            if (found := formats.answers_of(file)) is None:
                asked.append((file, setting))
            else:
                answers |= found
        used: set[str] = set()
        for (file, setting), called in zip(asked, _called([f for f, _ in asked]), strict=True):
            rows = self.rows[setting]
            drawn = [*self._read(file, called, setting, answers, used)]
            if self.rows[setting] == rows:
                raise InputError(f"{file} has no conversations: add some, or take it out.")
            if max_rows and len(drawn) > max_rows:
                chosen = np.random.default_rng(seed).permutation(len(drawn))[:max_rows]
                self.tell("beyond_max_rows", len(drawn) - max_rows)
                drawn = [drawn[k] for k in sorted(chosen)]
            self.kept += drawn
            log.info("%s: %d of %d", file, len(drawn), self.rows[setting] - rows)
        if idle := answers.keys() - used:
            log.warning("%d answers are of no question, such as %.60r", len(idle), min(idle))

    def add(self, made: Conversation) -> None:
        """Keep a conversation that no source has."""
        one = made.with_system(self._system)
        self.kept.append(Kept(one, "", self._measured(one)))

    def _read(
        self, file: File, called: str, setting: str, answers: Mapping[str, Any], used: set[str]
    ) -> Iterator[Kept]:
        side = "test" if setting == "data.test_source" else ""
        for number, raw in enumerate(formats.read(file, self._format, answers), 1):
            self.rows[setting] += 1
            try:
                if isinstance(raw.found, UnusableError):
                    raise raw.found
                used.add(str(raw.found.get("id")))
                found = Conversation.parse(self._named(raw.found))
                named = replace(found, id=found.id or f"{called}:{number}", source=called)
                one = named.with_system(self._system)
                kept = Kept(one, side, self._measured(one))
            except UnusableError as error:
                self.dropped[error.code] += 1
                self.rejected.append(Rejected(str(file), raw.line, error.code, str(error), setting))
                if len(self.rejected) <= NAMED:
                    log.warning("%s, line %d: %s", file, raw.line, error)
                continue
            yield kept

    def _measured(self, conversation: Conversation) -> Measured:
        rows = self._renderer.rows(conversation)
        lost = sum(sum(row.learnt[self._max_length :]) for row in rows)
        lengths = [len(row.ids) for row in rows]
        return Measured(sum(lengths), max(lengths), sum(sum(row.learnt) for row in rows), lost)

    def _named(self, found: Any) -> Any:
        """Put the name and the author where a source has {{name}} and {{author}}."""
        turns = found.get("conversations")
        said = str(turns)
        if "{{name}}" not in said and "{{author}}" not in said:
            return found
        name, author = self._names["zh" if _is_chinese(said) else "en"]

        def filled(turn: Any) -> Any:
            if not isinstance(turn, dict) or not isinstance(turn.get("content"), str):
                return turn
            content = turn["content"].replace("{{name}}", name).replace("{{author}}", author)
            return turn | {"content": content}

        made = found | {"conversations": [filled(turn) for turn in turns]}
        both = "{{name}}" in said and "{{author}}" in said
        return made | {"gold": {"said": [name, author]}} if both and "gold" not in found else made

    def drop_repeated(self) -> None:
        """Keep the first of equal conversations; of those on two sides, the one on test."""
        keys = [str((one.conversation.turns, one.conversation.tools)) for one in self.kept]
        tested = {key for key, one in zip(keys, self.kept, strict=True) if one.side}
        seen: set[str] = set()
        kept = []
        for key, one in zip(keys, self.kept, strict=True):
            if key not in seen and (one.side or key not in tested):
                kept.append(one)
                seen.add(key)
        self.tell("duplicate", len(self.kept) - len(kept))
        self.kept = kept

    def drop_longer(self) -> None:
        """Leave out what has more tokens than max_length."""
        kept = [one for one in self.kept if one.measured.longest <= self._max_length]
        self.tell("too_long", len(self.kept) - len(kept))
        self.kept = kept

    def tell(self, code: str, count: int) -> None:
        """Count what is left out for a reason that is no fault of one row."""
        self.dropped[code] += count


def _is_chinese(text: str) -> bool:
    return any("\u4e00" <= character <= "\u9fff" for character in text)


def _find(places: Sequence[str], setting: str, folder: Path, max_bytes: int) -> list[File]:
    """Find the files of places, each under a name that is the same on every machine."""
    found: list[File] = []
    for number, place in enumerate(places):
        (below := folder / str(number)).mkdir(parents=True)
        files = sources.find([place], below, "", max_bytes, setting)
        if "://" in place:
            several = len(files) > 1
            found += [
                replace(
                    file, name=f"{place.rstrip('/')}/{Path(file.name).name}" if several else place
                )
                for file in files
            ]
        else:
            found += [replace(file, name=os.path.relpath(file.name)) for file in files]
    paths = [file.path.resolve() for file in found]
    if twice := next((file for file in found if paths.count(file.path.resolve()) > 1), None):
        raise InputError(f"{twice} is in {setting} twice: take one of them out.")
    return found


def _called(files: Sequence[File]) -> list[str]:
    """Name files by the end of their path, as short as tells them apart."""
    parts = [PurePosixPath(file.name).parts for file in files]
    names = []
    for own in parts:
        tails = (own[-length:] for length in range(1, len(own) + 1))
        alone = (tail for tail in tails if sum(p[-len(tail) :] == tail for p in parts) == 1)
        names.append("/".join(next(alone, own)))
    return names
