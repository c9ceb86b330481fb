"""Questions from the command line, and files of them."""

import json
from pathlib import Path
from typing import Any

import pytest
from chat_model import PARAMS, make_started

from src.chat import ask
from src.chat.conversations import Conversation, Turn
from src.chat.engine import Engine
from src.chat.generation import Answer, Generation
from src.core.command_line import bind
from src.core.errors import InputError

pytestmark = pytest.mark.skipif(not PARAMS, reason="this clone has no such pipeline")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_started(tmp_path_factory.mktemp("base"))


def asking(base: Path, *words: str) -> None:
    """Run the command."""
    positional, options = bind(ask.main, "ask", False, [str(base), *words, "--max-new-tokens", "6"])
    ask.main(*positional, **options)


def write(path: Path, texts: list[str]) -> list[Any]:
    rows = [{"conversations": [{"role": "user", "content": text}]} for text in texts]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return rows


def test_a_question_is_answered_as_it_comes(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asking(base, "where", "is it?", "--system", "You are brief.")
    engine = Engine(base, threads=1)
    turns = (Turn("system", "You are brief.", False), Turn("user", "where is it?", False))
    prompt = engine.renderer.prompt(Conversation(turns), 2)
    (answer,) = engine.answers([prompt], Generation(6), 100)
    assert capsys.readouterr().out == f"{answer.text}\n"


def test_a_file_is_answered_and_goes_on_where_it_stopped(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ask, "AT_ONCE", 2)
    questions, answers = tmp_path / "questions.jsonl", tmp_path / "a" / "answers.jsonl"
    rows = write(questions, [f"where is {k}?" for k in range(5)])
    words = ("--input", str(questions), "--output", str(answers))
    asking(base, *words)
    found = [json.loads(line) for line in answers.read_text().splitlines()]
    assert [one["conversations"][:-1] for one in found] == [r["conversations"] for r in rows]
    assert all(one["conversations"][-1]["role"] == "assistant" for one in found)
    whole = answers.read_bytes()
    lines = whole.splitlines(keepends=True)
    answers.write_bytes(b"".join(lines[:2]) + lines[2][:9])
    made: list[int] = []
    own = Engine.answers

    def counted(engine: Engine, prompts: list[str], *further: Any) -> Any:
        made.append(len(prompts))
        return own(engine, prompts, *further)

    monkeypatch.setattr(Engine, "answers", counted)
    asking(base, *words)
    assert answers.read_bytes() == whole
    assert made == [2, 1], "the first two are kept"
    asking(base, *words)
    assert made == [2, 1], "all are"
    told = r"answers\.jsonl, line 1 is no answer of this model to this question by these options"
    with pytest.raises(InputError, match=told):
        asking(base, *words, "--temperature", "1")
    write(questions, ["another?"])
    with pytest.raises(InputError, match=told):
        asking(base, *words)
    assert answers.read_bytes() == whole


def test_an_answer_may_hold_any_end_of_a_line(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = Answer("one\u2028two\x85three\x1cfour\nfive", 3, True)
    monkeypatch.setattr(Engine, "answers", lambda _, prompts, *__: [said] * len(prompts))
    questions, answers = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    write(questions, ["a\u2028b?", "c?"])
    for _ in range(2):  # the second finds all of the first
        asking(base, "--input", str(questions), "--output", str(answers))
    found = [json.loads(line) for line in answers.read_text(encoding="utf-8").split("\n")[:-1]]
    assert [one["conversations"][-1]["content"] for one in found] == [said.text] * 2


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 2 can't be answered .not JSON: .*, column 2.: correct it"),
        ("[]", "line 2 can't be answered .it has no conversations, a list of turns"),
        ('{"conversations": [{"role": "bot", "content": "a"}]}', "line 2 .*has role 'bot'"),
        (
            '{"conversations": [{"role": "user", "content": "a"}, '
            '{"role": "assistant", "content": "b"}]}',
            "line 2 .*its last turn is an answer already: take it out",
        ),
        ('{"conversations": [{"role": "user", "content": " "}]}', "line 2 .*is empty"),
    ],
)
def test_what_cant_be_answered_is_told_before_any_work(
    line: str, told: str, base: Path, tmp_path: Path
) -> None:
    questions = tmp_path / "questions.jsonl"
    write(questions, ["one?"])
    questions.write_text(questions.read_text() + line)
    with pytest.raises(InputError, match=told):
        asking(base, "--input", str(questions), "--output", str(tmp_path / "answers.jsonl"))
    assert not (tmp_path / "answers.jsonl").exists()


def test_words_that_do_not_go_together_are_refused(base: Path, tmp_path: Path) -> None:
    one = "Give a question, or --input and --output, both of them"
    both = ("--input", "b", "--output", "c")
    for words in ((), ("a?", *both), both[:2], both[2:], ("a?", *both[2:])):
        with pytest.raises(InputError, match=one):
            asking(base, *words)
    with pytest.raises(InputError, match=r"are both b: name another file in --output"):
        asking(base, "--input", "b", "--output", "./b")
    for folder, told in (
        (tmp_path / "absent", r"no base.json in .*absent, which is no folder: name another folder"),
        (tmp_path, r"no base.json in \S*: name another folder, or .*`dvc checkout chat/dvc.yaml`"),
        (base.parent, r"no base.json in \S*: name one of those in it, .*/base,"),
    ):
        with pytest.raises(InputError, match=told):
            asking(folder, "a?")
    for odd, told in ((" ", "is empty"), ("\udcff", "not UTF-8")):
        with pytest.raises(InputError, match=rf"The question can't be answered .*({told})"):
            asking(base, odd)
    nothing = tmp_path / "nothing"
    with pytest.raises(InputError, match=r"There is no file at .*nothing: correct --input"):
        asking(base, "--input", str(nothing), "--output", "c")
    nothing.write_bytes(b"\n")
    with pytest.raises(InputError, match=r"nothing has no conversations: add some"):
        asking(base, "--input", str(nothing), "--output", "c")
    nothing.write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"nothing can't be read as UTF-8"):
        asking(base, "--input", str(nothing), "--output", "c")
