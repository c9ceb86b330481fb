"""Tables of questions: answered in their order, in any form, again after an interruption."""

import csv
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from chat_model import PARAMS
from chat_served import Served, expected, script, serving

from src.chat import judge
from src.core.command_line import bind
from src.core.errors import InputError
from src.predict.chat import __main__ as command
from src.predict.chat import batch
from src.predict.chat.batch import Ask, Options, answer_table
from src.predict.chat.client import Chat, RefusedError, Said
from src.predict.chat.ray_workers import FOLDER
from src.predict.chat.rows import Asked, asked_by
from src.predict.formats import Dialect
from src.tables.places import Place

pytestmark = pytest.mark.skipif(not PARAMS, reason="this clone has no such pipeline")

TOOL = {"name": "find", "description": "d", "parameters": {"type": "object", "properties": {}}}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served")) as found:
        yield found


def answering(place: str, *words: object, most: int = 12) -> None:
    """Run the command."""
    given = [place, *map(str, words), "--max_tokens", str(most)]
    positional, options = bind(command.main, "chat", False, given)
    command.main(*positional, **options)


def write(path: Path, rows: list[Any]) -> Path:
    lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def test_rows_of_each_form_are_answered_and_the_others_told_apart(
    served: Served, tmp_path: Path
) -> None:
    rows: list[Any] = [
        {"messages": [user("where is 1?")], "id": 7},
        {"conversations": [user("who?"), {"role": "assistant", "content": "a right answer"}]},
        "{oops",
        {"query": "where is 1?", "note": "a\u2028b"},
        {"query": "?" * 1000},
        {"messages": [{"role": "assistent", "content": "a"}]},
        {"query": " "},
        {"note": "nothing"},
        {"query": "where?", "history": [["who?", "it"]], "system": "Be brief."},
    ]
    source, found = write(tmp_path / "q.jsonl", rows), tmp_path / "out" / "a.jsonl"
    answering(served.url, "--model", "lora", "--input", source, "--output", found)
    answered = read(found)
    added = ("answer", "calls", "ended", "tokens")
    own = [{key: row[key] for key in row if key not in added} for row in answered]
    assert own == [rows[place] for place in (0, 1, 3, 8)]
    lora = served.engines["lora"]
    texts = [expected(lora, text) for text in ("where is 1?", "who?", "where is 1?")]
    assert [row["answer"] for row in answered[:3]] == texts
    told = served.client.chat.completions.create(
        model="lora",
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "who?"},
            {"role": "assistant", "content": "it"},
            {"role": "user", "content": "where?"},
        ],
        max_tokens=12,
        temperature=0,
    )
    last = answered[3]
    assert last["answer"] == told.choices[0].message.content
    assert (last["calls"], last["ended"]) == ([], told.choices[0].finish_reason == "stop")
    assert last["tokens"] == (told.usage.completion_tokens if told.usage else 0)
    with Path(f"{found}.rejected.csv").open(encoding="utf-8", newline="") as file:
        rejected = [(int(row["line"]), row["reason"]) for row in csv.DictReader(file)]
    assert [line for line, _ in rejected] == [3, 5, 6, 7, 8]
    for part, (_, reason) in zip(
        (
            "not JSON",
            "the model reads at most 512",
            "message 1 has role 'assistent' (did you mean 'assistant'?): one of system",
            "message 1, of the user, is empty",
            "no question",
        ),
        rejected,
        strict=True,
    ):
        assert part in reason


def test_tables_of_other_formats_get_columns(served: Served, tmp_path: Path) -> None:
    wanted = [expected(served.engines["base"], text) for text in ("who?", "where is 1?")]
    source = tmp_path / "q.csv"
    source.write_text("query,n\nwho?,1\nwhere is 1?,2\n")
    answering(served.url, "--input", source, "--output", tmp_path / "a.csv", "--prefix", "x_")
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["n"], row["x_answer"], row["x_calls"]) for row in rows] == [
        ("1", wanted[0], ""),
        ("2", wanted[1], ""),
    ]
    messages = [[user(text)] for text in ("who?", "where is 1?")]
    pq.write_table(pa.table({"messages": messages}), tmp_path / "q.parquet")
    answering(served.url, "--input", tmp_path / "q.parquet", "--output", tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet").to_pydict()
    assert table["messages"] == messages
    assert table["answer"] == wanted
    assert set(map(type, table["tokens"])) == {int}


def test_calls_are_objects_and_judged_by_what_was_expected(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    call = '<tool_call>\n{"name": "find", "arguments": {}}\n</tool_call>'
    script(served, monkeypatch, call, "the answer is here", "no", "anything")
    right = {"role": "tool", "name": "find", "parameters": {}}
    said = {"role": "assistant", "content": "The answer is here!"}
    openais = {"function": {"name": "find", "arguments": "{}"}, "type": "function", "id": "1"}
    rows: list[Any] = [
        {"conversations": [user("a?"), right], "tools": [TOOL]},
        {"messages": [user("b?"), said]},
        {"messages": [user("c?"), {"role": "assistant", "content": None, "tool_calls": [openais]}]}
        | {"tools": [{"type": "function", "function": TOOL}]},
        {"query": "d?"},
    ]
    source, found = write(tmp_path / "q.jsonl", rows), tmp_path / "a.jsonl"
    answering(served.url, "--input", source, "--output", found, "--at_once", 1, most=99)
    assert [row["calls"] for row in read(found)] == [
        [{"name": "find", "arguments": {}}],
        [],
        [],
        [],
    ]
    judge.main(str(found))
    lines = [line.replace(" ", "") for line in capsys.readouterr().out.splitlines()]
    assert lines[2].startswith("|calls|1of2|0.500|")
    assert lines[3].startswith("|text|1of1|1.000|1.000|")
    assert lines[4].startswith("|all|2of3|0.667|")
    table = pa.table({"messages": [rows[1]["messages"]], "n": [1]})
    pq.write_table(table, tmp_path / "q.parquet")
    script(served, monkeypatch, "The answer is here")
    answering(served.url, "--input", tmp_path / "q.parquet", "--output", found, most=99)
    judge.main(str(found))
    assert "1 of 1" in capsys.readouterr().out
    write(found, [{"query": "d?", "answer": "a", "calls": [], "ended": True}])
    with pytest.raises(InputError, match="has no answer that can be judged: each row needs"):
        judge.main(str(found))
    with pytest.raises(InputError, match=r"is no file of JSON lines: answer to one that ends in"):
        judge.main(str(tmp_path / "q.parquet"))


def test_turns_of_tools_are_asked_as_openai_has_them() -> None:
    turns = [
        user("a?"),
        {"role": "assistant", "content": "I look."},
        {"role": "tool", "name": "find", "parameters": {"k": "小"}, "observation": {"n": 1}},
        {"role": "tool", "name": "find", "parameters": {}, "observation": "2", "parallel": True},
        {"role": "assistant", "content": "expected"},
    ]
    found = asked_by({"conversations": turns, "tools": [TOOL]})
    assert [message["role"] for message in found.messages] == ["user", "assistant", "tool", "tool"]
    calls = found.messages[1]["tool_calls"]
    assert [json.loads(one["function"]["arguments"]) for one in calls] == [{"k": "小"}, {}]
    assert [one["tool_call_id"] for one in found.messages[2:]] == [one["id"] for one in calls]
    assert [one["content"] for one in found.messages[2:]] == ['{"n": 1}', "2"]
    assert found.tools == [{"type": "function", "function": TOOL}]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"messages": "[oops"}, "messages is a text that is no JSON"),
        ({"messages": [1]}, "messages is no list of objects"),
        ({"messages": [{"role": "user", "content": 1}]}, "message 1 has no content that is a text"),
        ({"messages": [{"role": "system", "content": "a"}]}, "nobody says anything"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "nobody says anything"),
        ({"query": "a", "history": [["b"]]}, "history is no list of pairs"),
        ({"query": "a", "history": "b"}, "history is a text that is no JSON"),
        ({"query": "a", "tools": [{"function": {}}]}, "a tool has no name"),
        ({"query": 1}, "message 1 has no content that is a text"),
        ({"query": "a\ud800"}, "surrogate"),
        ({"query": "a", "tools": [TOOL | {"description": "\ud800"}]}, "surrogate"),
    ],
)
def test_what_cant_be_asked_is_told(row: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        asked_by(row)


class Model:
    """Answers by a rule, and remembers what it was asked."""

    def __init__(self, depends: Mapping[str, Any] | None = None, gone_at: str = "") -> None:
        self.asked: list[str] = []
        self.depends = {"model": "m", "temperature": 0.0, **(depends or {})}
        self.gone_at = gone_at

    def __call__(self, asked: Asked) -> Said:
        text = asked.messages[-1]["content"]
        if text == self.gone_at:
            raise InputError("There is no server.")
        self.asked.append(text)
        if text == "bad":
            raise RefusedError("u", "too bad")
        return Said(text.upper(), (), True, 1)

    @contextmanager
    def opened(self) -> Iterator[tuple[Ask, Mapping[str, Any]]]:
        yield self, self.depends


def options(folder: Path, resume: bool = False, at_once: int = 1) -> Options:
    source, target, rejected = (
        Place(str(folder / name), setting)
        for name, setting in (("q.jsonl", "--input"), ("a.jsonl", "--output"), ("r.csv", "--r"))
    )
    return Options(source, target, rejected, "auto", Dialect(), "", resume, at_once)


def test_a_run_that_is_interrupted_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "ROWS", 2)
    texts = ["a", "bad", "c", "d", "e"]
    write(tmp_path / "q.jsonl", [{"query": text} for text in texts])
    whole = Model()
    answer_table(whole.opened(), options(tmp_path))
    assert whole.asked == texts
    expected_bytes = [(tmp_path / name).read_bytes() for name in ("a.jsonl", "r.csv")]
    assert [row["answer"] for row in read(tmp_path / "a.jsonl")] == ["A", "C", "D", "E"]
    for name in ("a.jsonl", "r.csv"):
        (tmp_path / name).unlink()
    with pytest.raises(InputError, match="There is no server"):
        answer_table(Model(gone_at="d").opened(), options(tmp_path))
    assert not (tmp_path / "a.jsonl").exists()
    journal = tmp_path / ".a.jsonl.answers"
    with journal.open("ab") as file:
        file.write(b'{"asked": "ha')  # as a kill leaves it
    with pytest.raises(InputError, match=r"answers of an interrupted run: add --resume"):
        answer_table(Model().opened(), options(tmp_path))
    with pytest.raises(InputError, match=r"answers with temperature 0\.0, not 1\.0: run it as bef"):
        answer_table(Model({"temperature": 1.0}).opened(), options(tmp_path, True))
    write(tmp_path / "q.jsonl", [{"query": text} for text in ["a", "b", *texts[2:]]])
    with pytest.raises(
        InputError,
        match=r"question 2 is another one than was answered in \S*/\.a\.jsonl\.answers\. Pass",
    ):
        answer_table(Model().opened(), options(tmp_path, True))
    write(tmp_path / "q.jsonl", [{"query": text} for text in texts])
    again = Model()
    counts = answer_table(again.opened(), options(tmp_path, True))
    assert again.asked in (["d", "e"], ["d"])  # the last one may have been begun
    assert counts.resumed == 5 - len(again.asked)
    assert (counts.scored, counts.rejected) == (4, 1)
    assert [(tmp_path / n).read_bytes() for n in ("a.jsonl", "r.csv")] == expected_bytes
    assert not journal.exists()


def test_a_table_that_cant_be_answered_is_told_before_a_model_is_asked(tmp_path: Path) -> None:
    nowhere = "http://127.0.0.1:9"
    write(tmp_path / "q.jsonl", [{"quary": "a"}])
    q = tmp_path / "q.jsonl"
    a = write(tmp_path / "b.jsonl", [{"query": "a", "answer": "there already"}])
    good = write(tmp_path / "good.jsonl", [{"query": "a"}])
    cases: list[tuple[list[Any], str]] = [
        (["a?", "--input", q], "There are both a question and --input"),
        (["--output", q], "--output is for tables: add --input"),
        (["a?", "--resume"], "--resume is for tables: add --input"),
        (["--input", q, "--output", q], "--output is the same file as --input"),
        (["--input", q, "--resume"], "--resume needs an --output that is a file"),
        (["--input", tmp_path / "q.json"], r"There is no file|Can't tell the format"),
        (["--input", q, "--output", tmp_path / "a.jsonl"], r"has no column 'messages', 'conver.*q"),
        (
            ["--input", a, "--output", "b.jsonl"],
            "a column 'answer', as the predictions have: set --p",
        ),
        (["--input", good, "--ray", "local"], "--ray is for a folder, and http"),
    ]
    for words, told in cases:
        with pytest.raises(InputError, match=told):
            answering(nowhere, *words)
    write(q, [{"query": "a"}])
    with pytest.raises(InputError, match=r"There is no server at http://127\.0\.0\.1:9 "):
        answering(nowhere, "--input", q, "--output", tmp_path / "a.jsonl")
    write(q, [{"query": "bad"}])
    with pytest.raises(InputError, match=r"no row that can be answered, all 1 are rejected .*bad"):
        answer_table(Model().opened(), options(tmp_path))
    assert [*tmp_path.glob("*a.jsonl*")] == []


def test_what_was_answered_behind_a_question_that_fails_is_kept(tmp_path: Path) -> None:
    write(tmp_path / "q.jsonl", [{"query": text} for text in "abcd"])
    others = threading.Barrier(4)

    class Late(Model):
        def __call__(self, asked: Asked) -> Said:
            if asked.messages[-1]["content"] != "a":
                said = super().__call__(asked)
                threading.Timer(0.2, others.wait).start()
                return said
            others.wait(60)
            time.sleep(0.2)
            raise InputError("There is no server.")

    with pytest.raises(InputError, match="There is no server"):
        answer_table(Late().opened(), options(tmp_path, at_once=4))
    again = Model()
    answer_table(again.opened(), options(tmp_path, True))
    assert again.asked == ["a"]
    assert [row["answer"] for row in read(tmp_path / "a.jsonl")] == ["A", "B", "C", "D"]


@pytest.mark.parametrize(
    ("status", "body", "told", "refused"),
    [
        (400, {"error": {"message": "too long"}}, "refuses that: too long", True),
        (429, {"error": {"message": "later"}}, r"does not answer \(later\): try again", False),
        (404, {"error": {"message": "gone"}}, r"does not answer \(gone\)", False),
        (500, {}, r"does not answer \(", False),
        (200, {"choices": []}, "in another form than OpenAI's API", False),
        (200, {"error": "x"}, "in another form than OpenAI's API", False),
        (200, "<html>", "in another form than OpenAI's API", False),
        (200, "{", "in another form than OpenAI's API", False),
    ],
)
def test_a_server_that_answers_oddly_is_told_and_takes_no_row_away(
    status: int, body: Any, told: str, refused: bool
) -> None:
    class Odd(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(200, json.dumps({"object": "list", "data": [{"id": "m"}]}))

        def do_POST(self) -> None:
            self.answer(status, body if isinstance(body, str) else json.dumps(body))

        def answer(self, code: int, text: str) -> None:
            self.send_response(code)
            kind = "text/html" if text.startswith("<") else "application/json"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Odd) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        chat = Chat(f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(InputError, match=told) as error:
            chat.say([user("a?")], [])
        server.shutdown()
    assert isinstance(error.value, RefusedError) == refused


def test_columns_of_other_types_are_told(tmp_path: Path) -> None:
    pq.write_table(pa.table({"query": [1]}), tmp_path / "q.parquet")
    with pytest.raises(InputError, match=r"has int64 in column 'query', which is neither text nor"):
        answering("http://127.0.0.1:9", "--input", tmp_path / "q.parquet")
    dated = [[{"role": "user", "content": "a", "at": datetime(2026, 1, 1)}]]
    pq.write_table(pa.table({"messages": dated}), tmp_path / "q.parquet")
    source = Place(str(tmp_path / "q.parquet"), "--input")
    with pytest.raises(InputError, match=r"all 1 are rejected .*it holds what is no JSON"):
        answer_table(Model().opened(), replace(options(tmp_path), input=source, format="jsonl"))


@pytest.mark.slow
def test_a_cluster_answers_as_one_engine_does(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = write(
        tmp_path / "q.jsonl", [{"query": "who?"}, {"query": "?" * 1000}, {"query": "where is 1?"}]
    )
    before = {*Path(gettempdir()).glob(f"{FOLDER}*")}
    place, base = served.folder / "made" / "lora", served.folder / "base" / "base"
    words = ["--input", source, "--output", tmp_path / "a.jsonl", "--base", base, "--threads", 1]
    answering(str(place), *words, "--ray", "local")
    wanted = [expected(served.engines["lora"], text) for text in ("who?", "where is 1?")]
    assert [row["answer"] for row in read(tmp_path / "a.jsonl")] == wanted
    assert "at most 512" in (tmp_path / "a.jsonl.rejected.csv").read_text()
    assert {*Path(gettempdir()).glob(f"{FOLDER}*")} <= before, (
        "the nodes have nothing of the model any more"
    )
