"""The client of chat models: in Python, on a terminal, and for a folder."""

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_model import PARAMS
from chat_served import Served, expected, serving
from conftest import ROOT

from src.core.errors import InputError
from src.predict.chat.client import Chat, Request, Way, opened

pytestmark = pytest.mark.skipif(not PARAMS, reason="this clone has no such pipeline")

TWELVE = Way(max_tokens=12)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served")) as found:
        yield found


def test_requests_are_answered_in_their_order_with_what_was_said_before(served: Served) -> None:
    chat = Chat(served.url, "lora", way=TWELVE)
    asked = ["who?", "where is 1?", "who?"]
    replies = chat.answer([Request(one) for one in asked])
    wanted = [expected(served.engines["lora"], one) for one in asked]
    assert [reply.text for reply in replies] == wanted
    assert replies[0].history == (("who?", wanted[0]),)
    (second,) = chat.answer([Request("where?", replies[0].history, "Be brief.")])
    assert second.history == (*replies[0].history, ("where?", second.text))
    told = served.client.chat.completions.create(
        model="lora",
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "who?"},
            {"role": "assistant", "content": wanted[0]},
            {"role": "user", "content": "where?"},
        ],
        max_tokens=12,
        temperature=0,
    )
    assert second.text == told.choices[0].message.content
    assert second.tokens == (told.usage.completion_tokens if told.usage else 0)


def test_python_a_stream_and_the_terminal_say_the_same(served: Served, tmp_path: Path) -> None:
    for model, engine in served.engines.items():
        wanted = expected(engine, "where is 1?")
        chat = Chat(f"{served.url}/v1/", model, way=TWELVE)
        assert "".join(chat.stream(Request("where is 1?"))) == wanted
        words = ["where", "is", "1?", "--model", model, "--max_tokens", "12"]
        assert terminal(served.url, *words, folder=tmp_path) == f"{wanted}\n"


def terminal(url: str, *words: str, folder: Path, lines: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-m", "src.predict.chat", url, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        input=lines.encode(),
        capture_output=True,
        check=True,
    )
    return done.stdout.decode(errors="replace")


def test_a_conversation_has_what_was_said_until_it_is_cleared(
    served: Served, tmp_path: Path
) -> None:
    chat = Chat(served.url, "lora", way=TWELVE)
    first = chat.answer([Request("who?")])[0]
    follows = chat.answer([Request("where?", first.history)])[0]
    alone = chat.answer([Request("a\nb", (), "Be brief.")])[0]
    base = expected(served.engines["base"], "who?")
    assert first.text != base
    lines = ["who?", "where?", "/system Be brief.", "/multi", "a", "b", "/end", "/system"]
    lines += ["/model bass", "/model base", "who?", "/clear", "who?", "/help", "/quit", "who?"]
    said = terminal(
        *(served.url, "--model", "lora", "--max_tokens", "12"),
        folder=tmp_path,
        lines="\n".join(lines),
    )
    told = "has no model 'bass' (did you mean 'base'?): name one of base, lora, ptuning."
    parts = [first.text, follows.text, alone.text, f"{served.url} {told}"]
    parts += ["base answers from now on.", base, "Forgotten.", base]
    assert said.startswith("\n".join(parts) + "\n/clear ")
    assert said.endswith("Ctrl-C ends an answer\n"), "nothing is asked after /quit"


def test_a_person_is_asked_and_goes_on_after_what_is_refused(
    served: Served, tmp_path: Path
) -> None:
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "src.predict.chat", served.url, "--max_tokens", "12"]
    with subprocess.Popen(
        words,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "dumb"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        os.write(ours, b"?" * 1000 + b"\nwho?\n/quit\n")
        seen = b""
        while True:
            try:
                seen += os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
    os.close(ours)
    assert process.returncode == 0
    said = seen.decode(errors="replace").replace("\r", "")
    assert "Talking to base; /help lists the commands." in said
    assert "the model reads at most 512" in said
    assert expected(served.engines["base"], "who?") in said


def test_what_stops_a_client_is_told(served: Served) -> None:
    with pytest.raises(InputError, match=r"There is no server at http://127\.0\.0\.1:9 "):
        Chat("http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"has no model 'lorra' \(did you mean 'lora'\?\)"):
        Chat(served.url, "lorra")
    chat = Chat(served.url, way=Way(max_tokens=1000))
    for answer in (lambda one: chat.answer([one]), lambda one: list(chat.stream(one))):
        with pytest.raises(InputError, match=r"refuses that: The prompt has .* at most 512"):
            answer(Request("who?"))
    with pytest.raises(InputError, match="There is no model in nowhere"), opened("nowhere"):
        pass
    told = r"127\.0\.0\.1:9 is an address: write it as a URL, http://127\.0\.0\.1:9\."
    with pytest.raises(InputError, match=told), opened("127.0.0.1:9"):
        pass
    near = str(served.folder / "made" / "lorra")
    with pytest.raises(InputError, match=r"no folder \(did you mean 'lora'\?\)"), opened(near):
        pass


def test_a_folder_is_served_for_as_long_as_it_is_asked(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base = served.folder / "base" / "base"
    lora = served.folder / "made" / "lora"
    with opened(str(lora), base=str(base), threads=1) as (url, key, model):
        chat = Chat(url, model, key, TWELVE)
        assert chat.model == "lora"
        said = chat.answer([Request("where is 1?")])[0].text
        with pytest.raises(InputError, match="wants a key, or another one"):
            Chat(url)
    assert said == expected(served.engines["lora"], "where is 1?")
    with pytest.raises(InputError, match="There is no server at"):
        Chat(url)
