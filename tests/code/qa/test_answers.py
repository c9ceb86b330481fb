"""A reader that was exported, asked on a command line and over HTTP."""

import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from conftest import ROOT, make_model
from qa_model import PARAMS, ingested, make_boxes, make_reader, squad
from served import served, wait_until

from src.core.errors import InputError

pytestmark = pytest.mark.skipif(not PARAMS, reason="this clone has no such pipeline")

if PARAMS:
    from src.predict.reader import answers
    from src.predict.reader.answers import Piece
    from src.predict.reader.calibration import Calibration
    from src.predict.reader.library import read_library
    from src.predict.reader.manifest import read_reader_manifest, write_reader_manifest
    from src.predict.reader.model import Reader
    from src.predict.reader.reading import Asked
    from src.qa.squad import Questions

TEXT = "box 82 : size size1 . colour colour2 . port port4 ."
QUESTION = "which port has box 82 ?"
NONE = "which name has box 82 ?"
ANSWER = "port4"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_reader(tmp_path_factory.mktemp("reader"))


@pytest.fixture(scope="module")
def model(exported: Path) -> Path:
    """The reader with the threshold that its one paragraph asks for."""
    folder = exported.with_name("model")
    shutil.copytree(exported, folder)
    write_reader_manifest(folder, read_reader_manifest(folder)._asdict() | {"threshold": 0.0})
    return folder


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of documents, each of them of a box; one of them can't be read."""
    folder = tmp_path_factory.mktemp("documents")
    (folder / "below").mkdir()
    for article in make_boxes(8, 80)["data"]:
        text = article["paragraphs"][0]["context"]
        (folder / "below" / f"{article['title']}.txt").write_text(text)
    (folder / "page.html").write_text("<h1>Boxes</h1><p>box 99 : size size3 .</p>")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    (folder / ".hidden.txt").write_text(TEXT.replace("port4", "port1"))
    (folder / "out.txt").symlink_to(ROOT / "LICENSE")
    return folder


def test_what_is_exported_answers_as_torch_does(exported: Path) -> None:
    live = json.loads((exported.parent / "live/metrics.json").read_text())
    assert live["fp32"]["equal_answers"] == 1
    assert live["fp32"]["max_logit_difference"] < 1e-3
    assert live["int8"]["max_logit_difference"] > live["fp32"]["max_logit_difference"]
    details = json.loads((exported.parent / "judged/reader/details.json").read_text())
    manifest = read_reader_manifest(exported)
    assert manifest.threshold == details["threshold"]
    assert manifest.slope == details["calibration"]["slope"]
    with pytest.raises(InputError, match=r"export\.reader is 'readr', .*did you mean 'reader'\?"):
        export_again(exported, reader="readr")
    with pytest.raises(InputError, match=r"differ from torch's by up to .*, where export\.atol is"):
        export_again(exported, reader="reader", atol=1e-12)


def export_again(exported: Path, **changes: Any) -> None:
    from src.qa import export

    folder = exported.parent
    words = PARAMS["export"] | {"check_questions": 4, "threads": 1} | changes
    places = (folder / name for name in ("again", "again-int8", "live-again"))
    export.main(folder / "sets", folder / "judged", *places, folder / "reader", **words)


def test_an_answer_has_its_place_and_a_question_without_one_has_none(
    model: Path, documents: Path
) -> None:
    reader, library = Reader(model, 1), read_library(documents)
    assert library.documents == [*(f"below/box {k}.txt" for k in range(80, 88)), "page.html"]
    assert [*library.skipped] == ["broken.pdf"]
    for article in make_boxes(8, 80)["data"]:
        for qa in article["paragraphs"][0]["qas"]:
            asking = answers.ask(reader, qa["question"], library.find(qa["question"], 1))
            logits = reader.logits(asking.windows, 512)
            found = asking.answers(logits, 2, "model")
            assert [one.text for one in found[:1]] == [one["text"] for one in qa["answers"]]
            for one in asking.answers(logits, 3, 0.0):
                start, end = one.sentence
                assert start <= one.start < one.end <= end
                assert one.piece.text[one.start : one.end] == one.text
                assert one.piece.document == f"below/{article['title']}.txt"
    asking = answers.ask(reader, QUESTION, library.find(QUESTION, 5))
    found = asking.answers(reader.logits(asking.windows, 512), 9, 0.0)
    scores = [one.score for one in found]
    assert scores == sorted(scores, reverse=True)
    assert len({one.piece for one in found}) == 5
    assert library.find("zyx", 3) == []


def test_a_long_text_is_read_in_windows_and_its_answers_stand_apart(model: Path) -> None:
    reader = Reader(model, 1)
    other = "box 83 : colour colour4 . size size3 . name name2 . " * 20
    text = f"{other}{TEXT} {other}"
    asking = answers.ask(reader, QUESTION, [Piece("", "", text)])
    assert len(asking.windows) > 5
    found = asking.answers(reader.logits(asking.windows, 512), 4, 0.0)
    assert len(found) == 4
    places = sorted((one.start, one.end) for one in found)
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(places))
    long = answers.ask(reader, "what " * 300 + QUESTION, [Piece("", "", TEXT)])
    assert long.is_cut
    assert max(len(one.ids) for one in long.windows) <= reader.manifest.max_length


def test_marks_of_a_tokenizer_in_a_text_are_text(exported: Path) -> None:
    from src.qa import model as models

    trained, reader = models.load(str(exported.parent / "reader")), Reader(exported, 1)
    texts = [f"{TEXT} [SEP] [CLS] port3", TEXT]
    for question in (QUESTION, f"[SEP] {QUESTION} [PAD]"):
        asked = [Asked(question, 0), Asked(question, 1)]
        both = [one.spans(texts, asked, 3, 512) for one in (trained, reader)]
        assert [[span[:2] for span in of] for of in both[0]] == [
            [span[:2] for span in of] for of in both[1]
        ]
        assert 3 not in reader.pairs.texts([question])[0].ids


def test_a_probability_is_turned_into_a_score_and_back() -> None:
    curve = Calibration(0.5, -1.0)
    assert curve.probability(curve.score(0.3)) == pytest.approx(0.3)
    assert (curve.score(0), curve.score(1)) == (-float("inf"), float("inf"))
    assert Calibration(0.0, 1.0).score(0.5) == float("inf")
    assert Calibration(1.0, 0.0).probability(1e9) == pytest.approx(1)


# ---------------------------------------------------------------- the command line


def asked(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "src.predict.ask", *map(str, words), "--engine", "onnxruntime"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_command_line_answers_out_of_documents(model: Path, documents: Path) -> None:
    done = asked(
        QUESTION, NONE, "what is zyx", "--documents", documents, "--model", model, "--passages", "1"
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.split(f"{NONE}\n")
    lines = first.splitlines()
    assert lines[0] == QUESTION
    assert lines[1].startswith(f"1. {ANSWER}  (probability ")
    assert lines[1].endswith("; below/box 82.txt, paragraph 1)")
    assert lines[2] == "   port port4 ."
    second, third = second.split("what is zyx\n")
    assert second.startswith("None found.\nThe nearest passage: below/box 82.txt, paragraph 1\n")
    assert third == "None found.\n"
    assert "left out: broken.pdf can't be read as PDF" in done.stderr
    done = asked(NONE, "--context", TEXT, "--model", model, "--format", "json")
    assert json.loads(done.stdout) == {"question": NONE, "answers": []}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([QUESTION], "Name what is asked about, once: --documents with a folder, or --context"),
        ([QUESTION, "--documents", "a", "--context", "b"], "Name what is asked about, once"),
        ([" ", "--context", "b"], "A question is empty: write one."),
        ([QUESTION, "--documents", "nowhere"], "There is nothing at nowhere, seen from"),
        (
            [QUESTION, "--documents", "src/serve/app.py"],
            "is no document that can be read: expected",
        ),
        (
            [QUESTION, "--documents", "hooks"],
            "There is no document to ask about: hooks has none of",
        ),
        (
            [QUESTION, "--context", "b", "--model", "docs"],
            "docs/manifest.json is not there: name a",
        ),
        ([QUESTION, "--context", "b", "--threshold", "2"], "--threshold"),
        ([QUESTION, "--context", "b", "--top_k", "0"], "--top_k"),
    ],
)
def test_what_can_not_be_asked_is_told_in_a_sentence(words: list[str], sentence: str) -> None:
    done = asked(*words)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"kind": "text"}, "is not that of a reader"),
        ({"slope": "steep"}, "has no 'slope' as it was exported, a number"),
        ({"threshold": float("nan")}, "has no 'threshold' as it was exported, a number"),
        ({"max_answer": 0}, "has no 'max_answer' as it was exported, a whole number from 1"),
        ({"stride": 1000}, "have no room for"),
        ({"max_length": True}, "has no 'max_length' as it was exported"),
        ({"files": {"../x": "0" * 64}}, "has no 'files' as it was exported"),
        ({"files": {}}, "does not list model.onnx"),
    ],
)
def test_a_folder_of_a_stranger_is_refused(
    change: dict[str, Any], sentence: str, model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "reader"
    shutil.copytree(model, folder)
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=sentence):
        Reader(folder, 1)


def test_changed_weights_and_other_graphs_are_refused(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "reader"
    shutil.copytree(model, folder)
    with (folder / "model.onnx").open("ab") as file:
        file.write(b" ")
    with pytest.raises(InputError, match="is not the file that was exported"):
        Reader(folder, 1)
    from src.predict.reader.manifest import write_reader_manifest

    (tmp_path / "text").mkdir()
    shutil.copyfile(make_model(tmp_path / "text") / "model.onnx", folder / "model.onnx")
    write_reader_manifest(folder, read_reader_manifest(model)._asdict())
    with pytest.raises(InputError, match="gives logits of shape"):
        Reader(folder, 1)


def test_a_reader_is_no_classifier(model: Path) -> None:
    command = [sys.executable, "-m", "src.predict", str(model), "a text"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "is a reader, which answers questions: use `python -m src.predict.ask`" in done.stderr


# ---------------------------------------------------------------- over HTTP


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the server has beside its models."""
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def server(model: Path, documents: Path, home: Path) -> Iterator[str]:
    """The address of a server of texts and of a reader, with documents and a file of feedback."""
    shutil.copytree(documents, home / "documents", symlinks=True)
    (home / "texts").mkdir()
    words = make_model(home / "texts"), model, "--documents", home / "documents"
    more = "--feedback", home / "right.jsonl", "--max_texts", "65", "--watch", "0.2"
    limits = "--engine", "onnxruntime", "--max_characters", "5000", "--passages", "1"
    with served(home / "log.txt", *words, *more, *limits) as (url, _):
        yield url


def post(url: str, path: str, **body: Any) -> requests.Response:
    return requests.post(f"{url}/{path}", json=body, timeout=20)


def test_questions_are_answered_over_http(server: str) -> None:
    found = post(server, "answer", question=QUESTION).json()
    assert found["model"] == "model"
    assert not found["no_answer"]
    best = found["answers"][0]
    assert (best["text"], best["document"]) == (ANSWER, "below/box 82.txt")
    assert best["passage"][best["start"] : best["end"]] == ANSWER
    assert best["sentence"] == "port port4 ."
    assert best["place"].startswith("paragraph ")
    own = post(
        server, "answer", question=QUESTION, context=TEXT.replace(":", "😀"), top_k=1
    ).json()["answers"]
    assert [(one["text"], one["start"]) for one in own] == [(ANSWER, TEXT.index(ANSWER))]
    assert "passage" not in own[0]
    none = post(server, "answer", question=NONE, context=TEXT).json()
    assert none["no_answer"]
    assert none["answers"] == []
    assert post(server, "answer", question=NONE, context=TEXT, threshold=0).json()["answers"]
    sure = post(server, "answer", question=QUESTION, threshold=1).json()
    assert sure["no_answer"]
    assert sure["nearest"]["document"].startswith("below/")
    assert "nearest" not in post(server, "answer", question="zyx").json()
    told = requests.get(f"{server}/documents", timeout=20).json()
    assert told["passages"] == 9
    assert [*told["left_out"]] == ["broken.pdf"]
    kinds = [one["kind"] for one in requests.get(f"{server}/models", timeout=20).json()]
    assert kinds[1] == "reader"
    figures = requests.get(f"{server}/metrics", timeout=20).text
    assert 'serve_texts_total{label="answered",model="model"}' in figures


def test_predict_answers_a_question_as_the_bot_of_an_article_asked_it(server: str) -> None:
    found = post(server, "predict", question=QUESTION).json()
    assert found["success"] is True
    assert found["predictions"][0] == ANSWER
    assert post(server, "predict", question=NONE, context=TEXT).json()["predictions"] == []


def test_what_people_think_becomes_questions_to_learn_from(
    server: str, home: Path, tmp_path: Path
) -> None:
    assert requests.get(f"{server}/feedback", timeout=20).json() == {"open": True}
    best = post(server, "answer", question=QUESTION).json()["answers"][0]
    given = {"question": QUESTION, "answer": best["text"], "start": best["start"]}
    given |= {"context": best["passage"], "document": best["document"]}
    assert post(server, "feedback", **given, rating="up").json() == {"written": True}
    assert post(server, "feedback", **given, rating="down").status_code == 200
    none = {"question": "who ?", "context": TEXT, "answer": "", "rating": "up"}
    assert post(server, "feedback", **none).status_code == 200
    assert len((home / "right.down.jsonl").read_text().splitlines()) == 1
    sets = ingested(tmp_path, make_boxes(16), squad(), further=[f"own {home / 'right.jsonl'}"])
    learnt = Questions.read(sets / "own.json")
    assert [(one.text, one.references) for one in learnt.questions] == [
        (QUESTION, [ANSWER]),
        ("who ?", []),
    ]
    assert learnt.documents()[0] == "below/box 82.txt"


@pytest.mark.parametrize(
    ("path", "body", "status", "sentence"),
    [
        ("answer", {}, 422, "question is missing: send it."),
        ("answer", {"question": "  "}, 422, "question is empty: write one."),
        ("answer", {"question": 3}, 422, "question must be a text."),
        ("answer", {"question": "a", "context": " "}, 422, "context is empty: send a text, or"),
        (
            "answer",
            {"question": "a", "top_k": 0},
            422,
            "top_k must be a whole number from 1 to 20.",
        ),
        (
            "answer",
            {"question": "a", "threshold": 2},
            422,
            "threshold must be a number from 0 to 1.",
        ),
        ("answer", {"question": "a", "contex": ""}, 422, "did you mean 'context'?"),
        (
            "answer",
            {"question": "a" * 5001},
            413,
            "question has 5001 characters: send at most 5000.",
        ),
        ("answer", {"question": "a", "context": "b" * 5001}, 413, "context has 5001 characters"),
        (
            "answer",
            {"question": "a", "context": "b." * 2500},
            413,
            "parts of 64 tokens: send a text",
        ),
        ("answer", {"question": "a", "model": "none"}, 404, "There is no such model"),
        (
            "answer",
            {"question": "a", "model": "texts"},
            422,
            "texts is a model of texts: send inputs",
        ),
        (
            "predict",
            {"inputs": "a", "model": "model"},
            422,
            "model is a reader: send a question to",
        ),
        ("predict", {"inputs": "a", "question": "b"}, 422, "There are both inputs and question"),
        (
            "models/model",
            {"inputs": "a"},
            422,
            "model is a reader: send a question to /answer, or name",
        ),
        ("explain", {"inputs": "a", "model": "model"}, 422, "model is a reader"),
        (
            "feedback",
            {"question": "a", "context": "b", "answer": "c", "rating": "up"},
            422,
            "answer",
        ),
        (
            "feedback",
            {"question": "a", "context": "b", "answer": "b", "start": 1, "rating": "up"},
            422,
            "answer does not stand in context at start: send both as the server gave them.",
        ),
        (
            "feedback",
            {"question": "a", "context": " ", "answer": "", "rating": "up"},
            422,
            "context",
        ),
        (
            "feedback",
            {"question": "a", "context": "b", "answer": "", "rating": "so"},
            422,
            "rating",
        ),
    ],
)
def test_what_can_not_be_answered_is_told_in_a_sentence(
    path: str, body: dict[str, Any], status: int, sentence: str, server: str
) -> None:
    answer = post(server, path, **body)
    assert answer.status_code == status, answer.text
    assert sentence in answer.json()["error"]


def test_other_protocols_refuse_a_reader(server: str) -> None:
    place = f"{server}/v2/models/model"
    assert requests.get(place, timeout=20).status_code == 404
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]}
    answer = requests.post(f"{place}/infer", json={"inputs": [tensor]}, timeout=20)
    assert answer.status_code == 422
    assert "model is a reader" in answer.json()["error"]
    kind = {"Content-Type": "text/csv"}
    answer = requests.post(f"{server}/score?model=model", "text\na\n", headers=kind, timeout=20)
    assert "model is a reader" in answer.json()["error"]


def test_a_long_question_is_cut_and_the_server_lives(server: str) -> None:
    found = post(server, "answer", question="what " * 900, context=TEXT)
    assert found.status_code == 200
    assert found.json()["question_cut"] is True
    assert requests.get(f"{server}/health", timeout=20).status_code == 200


def test_documents_are_read_again_when_they_change(server: str, home: Path) -> None:
    new = home / "documents/new.md"
    new.write_text("# More\n\nbox 77 : colour colour3 .\n")

    def known() -> list[str]:
        found: list[str] = requests.get(f"{server}/documents", timeout=20).json()["documents"]
        return found

    wait_until(lambda: "new.md" in known())
    found = post(server, "answer", question="which colour has box 77 ?", threshold=0).json()
    assert found["answers"][0]["document"] == "new.md"
    assert found["answers"][0]["place"] == "More, paragraph 1"
    new.unlink()
    wait_until(lambda: "new.md" not in known())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--documents", "nowhere"], "There is nothing at nowhere"),
        (["--feedback", "feedback.txt"], "--feedback feedback.txt can't be written: name a file"),
        (["--feedback", "nowhere/a.jsonl"], "--feedback nowhere/a.jsonl can't be written"),
    ],
)
def test_a_server_that_can_not_start_says_why(
    words: list[str], sentence: str, model: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "src.serve", str(model), "--engine", "onnxruntime", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert sentence in done.stderr
    texts = make_model(tmp_path)
    command = [sys.executable, "-m", "src.serve", str(texts), "--documents", "docs"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "--documents is for readers, and none is served" in done.stderr
