"""Params that a user's own file needs are found, told and, if wanted, written into params.yaml."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import LOAD, PROBE, QUALITY, ROOT, SPLIT, TRAIN, Project, make_texts, set_params
from dvc.utils.serialize import modify_yaml
from ruamel.yaml import YAML

from src.core.errors import InputError
from src.tables import download, examples, guess_encoding
from src.tables.places import File
from src.text import findings, load
from src.text.check import __main__ as check
from src.text.check import guess, guess_columns, timing

TEXTS = make_texts(60)
# Whatever the project's own texts need, these tests begin with the same params.
PARAMS: dict[str, dict[str, Any]] = {
    "load": LOAD | {"source": ["other.csv"], "sha256": "0" * 64, "encoding": ["utf-8", "cp1252"]},
    "quality": QUALITY,
    "split": SPLIT | {"validation_size": 0.1, "test_size": 0.2},
    "baseline": {"analyzer": "word"},
    "probe": PROBE,
    "train": TRAIN | {"epochs": 3, "batch_size": 16},
    "evaluate": {"slices": []},
    "card": {"languages": []},
}
BYTES = bytes(range(1, 256))


@pytest.fixture(autouse=True)
def _in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> None:
    """A folder that has what the command needs of a project."""
    monkeypatch.chdir(tmp_path)
    Path("data/source").mkdir(parents=True)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    fixed = {f"{name}.{key}": value for name in PARAMS for key, value in PARAMS[name].items()}
    places = {f"{name}.checkpoint": str(checkpoint) for name in ("quality", "probe")}
    set_params(Project(tmp_path), fixed | places)


# The tests that let Trainer do its few steps; for the others a text takes a hundredth of a second.
TIMED = (
    "test_the_report_tells_what_the_stages_will_make_of_the_file",
    "test_enough_steps_of_training_are_left_as_they_are",
    "test_what_other_processes_take_is_no_work_of_training",
)


@pytest.fixture(autouse=True)
def _clock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.name not in TIMED:
        monkeypatch.setattr(timing, "time_steps", lambda *_: timing.Timed(1, 0.01, 0.01))


def params() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = YAML(typ="safe").load(Path("params.yaml"))
    return found


def loaded() -> pd.DataFrame:
    """The rows that the stage itself reads by params.yaml as it is."""
    load.main(Path("data/source"), Path("raw"), Path("rejected.csv"), **params()["load"])
    return examples.read(Path("raw/examples.parquet"))


def written(name: str, data: str, encoding: str = "utf-8") -> str:
    path = Path("data/source", name)
    path.write_bytes(data.encode(encoding))
    return str(path)


def table(sign: str, names: str, row: Callable[[int, dict[str, str]], list[str]]) -> str:
    lines = [sign.join(row(k, text)) for k, text in enumerate(TEXTS)]
    return "\n".join([*([names.replace(" ", sign)] if names else []), *lines, ""])


def as_commas() -> str:
    return written(
        "a.csv",
        table(",", "id text label", lambda k, t: [f"x{k}", f'"{t["text"]}, ü"', t["label"]]),
    )


def as_semicolons() -> str:
    def row(k: int, t: dict[str, str]) -> list[str]:
        return [str(k), f"{k % 3},5", f"{t['text']} schön, für", t["label"], t["language"]]

    return written("a.csv", table(";", "nr punkte kritik sterne sprache", row), "cp1252")


def as_utf_16() -> str:
    text = table("\t", "topic body", lambda _, t: [t["label"], t["text"]])
    return written("export.csv", text, "utf-16")


def with_lone_quotes() -> str:
    return written(
        "a.tsv", table("\t", "sentence label", lambda _, t: [f'"6 {t["text"]}', t["label"]])
    )


def without_a_header() -> str:
    return written("a.csv", table(",", "", lambda _, t: [t["label"], f"a {t['text']}"]))


def in_cyrillic() -> str:
    def row(k: int, t: dict[str, str]) -> list[str]:
        return [f"Это {k} предложение на русском языке о разных вещах", t["label"]]

    return written("a.dat", table("|", "текст class", row), "cp1251")


def as_json_lines() -> str:
    rows = [
        {"review": t["text"], "stars": k % 3 + 1, "url": f"https://e.org/{'x' * 80}{k}"}
        for k, t in enumerate(TEXTS)
    ]
    return written("a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def as_parquet() -> str:
    frame = pd.DataFrame(TEXTS).rename(columns={"text": "content", "label": "category"})
    frame.assign(price=[k / 7 for k in range(60)]).to_parquet("data/source/a.parquet")
    return "data/source/a.parquet"


def as_a_folder() -> str:
    for k, t in enumerate(TEXTS):
        path = Path("data/source", t["label"], f"{k}.txt")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(f"{t['text']} é".encode("cp1252" if k == 7 else "utf-8"))
    return "data/source"


FORMS: dict[Callable[[], str], dict[str, Any]] = {
    as_commas: {},
    as_semicolons: {
        "text_column": "kritik",
        "label_column": "sterne",
        "id_column": "nr",
        "encoding": ["cp1252"],
        "delimiter": ";",
    },
    as_utf_16: {
        "format": "tsv",
        "text_column": "body",
        "label_column": "topic",
        "encoding": ["utf-16"],
    },
    with_lone_quotes: {"text_column": "sentence", "quote": ""},
    without_a_header: {
        "text_column": "column_2",
        "label_column": "column_1",
        "column_names": ["column_1", "column_2"],
    },
    in_cyrillic: {
        "format": "csv",
        "text_column": "текст",
        "label_column": "class",
        "encoding": ["cp1251"],
        "delimiter": "|",
    },
    as_json_lines: {"text_column": "review", "label_column": "stars"},
    as_parquet: {"text_column": "content", "label_column": "category"},
    as_a_folder: {},
}


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_load_reads_every_row_by_the_params_that_are_written(
    form: Callable[[], str], capsys: pytest.CaptureFixture[str]
) -> None:
    source, before = form(), params()
    check.main(source, write=True)
    after = params()
    expected = before["load"] | {"source": [source], "sha256": ""} | FORMS[form]
    assert after["load"] == expected
    frame = loaded()
    assert len(frame) == 60
    labels = {"1", "2", "3"} if form is as_json_lines else {t["label"] for t in TEXTS}
    assert {*frame["label"]} == labels
    assert not frame["text"].str.contains("�").any()
    wanted = ["sprache"] if form is as_semicolons else ["language"] if form is as_parquet else []
    assert after["evaluate"]["slices"] == after["quality"]["slices"] == wanted
    told = capsys.readouterr().out
    assert "Training: about " in told
    assert (", encoding " in told) is (form is not as_parquet)


def comments(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.lstrip().startswith("#")]


def test_comments_and_all_other_params_stay(capsys: pytest.CaptureFixture[str]) -> None:
    source, text, before = as_semicolons(), Path("params.yaml").read_text(), params()
    check.main(source, write=True)
    after = params()
    changed = {
        f"{name}.{key}"
        for name, section in after.items()
        for key, value in section.items()
        if value != before[name][key]
    }
    assert changed == {
        *(f"load.{key}" for key in ("source", "sha256", *FORMS[as_semicolons])),
        *("quality.slices", "evaluate.slices", "card.languages", "train.epochs"),
    }
    assert comments(Path("params.yaml").read_text()) == comments(text)
    assert [path.name for path in Path().iterdir() if path.name.startswith(".")] == []
    text = Path("params.yaml").read_text()
    with modify_yaml("params.yaml"):
        pass
    assert Path("params.yaml").read_text() == text, "as DVC writes it"
    check.main(source, write=True)  # when nothing is left to be changed
    assert "params.yaml has all params" in capsys.readouterr().out


@pytest.mark.parametrize(("answer", "writes"), [("y", True), ("", False), (None, False)])
def test_nothing_is_written_without_a_yes(
    answer: str | None, writes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, before = as_commas(), Path("params.yaml").read_bytes()
    asked = []

    def said(question: str) -> str:
        asked.append(question)
        return str(answer)

    monkeypatch.setattr("sys.stdin.isatty", lambda: answer is not None)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", said)
    check.main(source)
    assert asked == ["Write these into params.yaml? [y/N] "] * (answer is not None)
    assert (Path("params.yaml").read_bytes() != before) is writes
    assert {path.name for path in Path().iterdir()} == {"data", "params.yaml"}
    assert [path.name for path in Path("data").rglob("*")] == ["source", "a.csv"]


def test_the_report_tells_what_the_stages_will_make_of_the_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, checkpoint: Path
) -> None:
    monkeypatch.setattr(timing, "ENGLISH", str(checkpoint))
    monkeypatch.setattr(timing, "LONG", 0)
    rows = [
        [t["text"] + " word" * (20 * (k < 6)), t["label"], t["language"], f"a{k % 30}", "train"]
        for k, t in enumerate(TEXTS)
    ]
    for k, side in enumerate(["dev", "test"] * 9):
        rows[k][-1] = side
    rows += [["one more", "", "en", "a1", "train"], ["rare", "Rare", "en", "a1", "train"]]
    rows += [rows[20], [*rows[21][:1], "film", *rows[21][2:]], [*rows[22][:4], "test"]]
    frame = pd.DataFrame(rows, columns=["text", "label", "language", "author", "set"])
    frame.to_csv("data/source/a.csv", index=False)
    check.main("data/source/a.csv", write=True)
    told = capsys.readouterr().out
    assert "Rows: 65, of which 60 are kept; dropped: 1 no_label, 2 conflicting_label" in told
    assert "1 duplicate, 1 rare_class" in told
    assert "such as 'Rare'; load.min_class_texts 3 leaves them out." in told
    assert "`load` would stop: it would drop more than load.max_dropped_fraction 0.05" in told
    assert "  split   set\n" in told
    assert "  groups  author, if texts of one value are alike" in told
    assert "  slices  language" in told
    assert "probe.max_length 16 cuts 10.0 % of the texts" in told
    assert "the longest 29" in told
    assert "; 29 would cut at most 5 %" in told
    assert "9 steps of training, 3 an epoch, are too few" in told
    assert "train.epochs 20 makes 60" in told
    assert "20 epochs of 40 texts, by 64 texts in steps of 16 timed here\n" in told
    assert "Scripts: LATIN 100.0 %" in told
    assert "pretrained on English, and there are texts in fr: choose a multilingual" in told
    assert "Training would take about " in told
    assert "params.yaml has them now; what would stop, see above, is next." in told
    found = params()
    assert found["load"]["missing_labels"] == "drop"
    assert found["load"]["min_class_texts"] == 3
    assert found["train"]["epochs"] == 20
    assert found["split"]["strategy"] == "predefined"
    assert (found["split"]["column"], found["split"]["overlap"]) == ("set", "drop")
    assert found["card"]["languages"] == ["en", "fr"]


def test_enough_steps_of_training_are_left_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    set_params(Project(Path()), {"train.batch_size": 1})  # 42 texts, 3 epochs
    check.main(as_commas(), write=True)
    assert params()["train"]["epochs"] == 3
    assert "steps of training" not in capsys.readouterr().out


def test_what_other_processes_take_is_no_work_of_training(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, time_steps = time.perf_counter, timing.time_steps
    found = []

    def timed(*words: Any) -> timing.Timed:
        found.append(time_steps(*words))
        return found[0]

    # 100 times as fast, as if the cores had been elsewhere.
    monkeypatch.setattr(time, "perf_counter", lambda: 100 * clock())
    monkeypatch.setattr(timing, "time_steps", timed)
    check.main(as_commas())
    assert found[0].alone < found[0].wall / 20
    assert " beside what else runs here now): 20 epochs of " in capsys.readouterr().out


def test_a_param_that_params_lack_is_named() -> None:
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("  delimiter: ','\n", ""))
    with pytest.raises(InputError, match=r"^load\.delimiter is missing"):
        check.main(as_commas())


@pytest.mark.parametrize(("codes", "are"), [(("en", "fr"), True), (("ok", "xx"), False)])
def test_languages_are_told_from_other_words_of_two_letters(
    codes: tuple[str, str], are: bool
) -> None:
    source = written(
        "a.csv", table(",", "text label code", lambda k, t: [t["text"], t["label"], codes[k % 2]])
    )
    check.main(source, write=True)
    assert params()["evaluate"]["slices"] == (["code"] if are else [])
    assert params()["card"]["languages"] == ([*codes] if are else [])


def test_texts_without_spaces_need_features_of_characters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    half = {
        "sport": "今天的比赛非常精彩球员进了两个球观众都很高兴",
        "money": "股票市场今天下跌投资者担心银行的利润和贷款",
    }
    rows = [f"{text}第{k}场,{label}" for k in range(20) for label, text in half.items()]
    source = written("a.csv", "\n".join(["text,label", *rows]))
    check.main(source, write=True)
    told = capsys.readouterr().out
    assert params()["baseline"]["analyzer"] == "char"
    assert "Scripts: CJK 100.0 %" in told
    assert "are unknown to the tokenizer" in told
    assert "choose a checkpoint of these languages" in told
    assert "`probe` would stop: The tokenizer of " in told


def test_what_can_not_be_measured_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    set_params(Project(Path()), {"probe.checkpoint": "nobody/nothing"})
    check.main(as_commas())
    told = capsys.readouterr().out
    assert "Tokens and training time: not measured. nobody/nothing can't be loaded" in told
    assert "load.source: [other.csv] -> [data/source/a.csv]" in told


def test_a_file_elsewhere_is_named_by_its_whole_path(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path_factory.mktemp("elsewhere") / "a.csv"
    shutil.copy(as_commas(), place)
    check.main(str(place), write=True)
    assert params()["load"]["source"] == [str(place)]
    assert f"DVC can't see when {place} changes: move it into" in capsys.readouterr().out


REFUSED: dict[str, tuple[bytes, str]] = {
    "empty.csv": (b"", "(0 bytes)"),
    "header.csv": (b"text,label\n", "header"),
    "binary.csv": (b"\1\0" + BYTES, "binary.csv has zero bytes"),
    "table.xlsx": (b"PK\x03\x04" + BYTES, "a zip archive, "),
    "lines.csv": (b"text\n" + b"a line\n" * 30, "lines.csv has one column only, 'text'"),
    "notes.txt": (b"a line of prose\n" * 30, "notes.txt has one column only"),
    "texts.csv": (
        "".join(f"{t['text']},{k}\n" for k, t in enumerate([{"text": "text"}, *TEXTS])).encode(),
        "No column of labels, with few different values, stands beside 'text' among text, ",
    ),
}


def labelled(k: int) -> str:
    return f"{TEXTS[k]['text']},{TEXTS[k]['label']}\n"


def objects(last: str) -> bytes:
    rows = [json.dumps({"text": t["text"], "label": t["label"]}) for t in TEXTS]
    return "\n".join([*rows, last, rows[0], ""]).encode()


# What is wrong with one row, or with the header, is not covered by a way that reads it all as well.
REFUSED |= {
    "mixed.csv": (
        b"text,label\n"
        + "".join(f"\u00e9 {labelled(k)}" for k in range(60)).encode()
        + b"\xff,film\n",
        "while other places are utf-8",
    ),
    "rare.csv": (
        ("text,label\n" + "".join(f"{t['text']},film\n" for t in TEXTS[:40]) + "x,rare\n").encode(),
        "classes of 3 texts, one for each side of the split, found 40 of 'film', 1 of 'rare': add",
    ),
    "nested.json": (
        json.dumps({"data": [{"text": t["text"], "label": t["label"]} for t in TEXTS]}).encode(),
        "nested.json has one column only, 'data': make each text an object of its own",
    ),
    "broken.jsonl": (objects('{"text": "x", '), "line 61"),
    "broken.ndjson": (objects('{"text": NaN, "label": "film"}'), "NaN, which is not JSON"),
    "list.jsonl": (objects('{"text": ["a", "b"], "label": "film"}'), "line 61 has a list"),
    "broken.json": (b"[" + objects("{}") + b"]", "',' or ']' after an item"),
    "twice.csv": (
        ("text,label,text\n" + "".join(f"a,{labelled(k)}" for k in range(60))).encode(),
        "columns 'text', numbers 1 and 3",
    ),
    "quotes.csv": (
        (
            "text,label\n"
            + "".join(f'"a, {t["text"]}",{t["label"]}\n' for t in TEXTS[:50])
            + f'"never closed {labelled(50)}'
            + "".join(f'"b, {t["text"]}",{t["label"]}\n' for t in TEXTS[51:])
        ).encode(),
        "load.quote",
    ),
    "one.csv": (
        ("text,label\n" + "".join(f"{t['text']},film\n" for t in TEXTS)).encode(),
        "Column 'label' must have at least 2 classes, and has 1 ",
    ),
    "excel.csv": (
        ("sep=;\r\ntext;label\r\n" + "".join(map(labelled, range(60)))).encode(),
        "excel.csv has 'sep=;' on line 1",
    ),
    "index.csv": (
        (",text\n" + "".join(f"{k % 3},{t['text']}\n" for k, t in enumerate(TEXTS))).encode(),
        "No column of labels, with few different values, stands beside 'text' among",
    ),
    "lists.jsonl": (
        b"".join(b'{"text": "a text %d", "labels": ["a"]}\n' % k for k in range(60)),
        "among text (labels left out, for lists or objects)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_table_of_labelled_texts_is_refused(name: str) -> None:
    data, sentence = REFUSED[name]
    path, before = Path("data/source", name), Path("params.yaml").read_bytes()
    path.write_bytes(data)
    with pytest.raises(InputError) as raised:
        check.main(str(path), write=True)
    assert sentence in str(raised.value)
    assert Path("params.yaml").read_bytes() == before


WESTERN = {
    "sv": "Jag är mycket nöjd med min beställning.\nLeveransen tog för lång tid, hjälp mig.\n"
    "Väldigt bra kvalitet på tröjan.\nDet går inte att logga in på kontot.\n",
    "pt": "Não recebi a encomenda até agora.\nA qualidade é ótima, recomendo.\n"
    "O atendimento foi péssimo e ninguém respondeu à minha reclamação.\n",
    "it": "Il pacco non è ancora arrivato.\nLa qualità è ottima, perché funziona.\n"
    "Non riesco più ad accedere, la password è già scaduta.\n",
    "fr": "Le colis n’est pas arrivé à la maison.\nÇa marche très bien, merci à l’équipe.\n"
    "La facture est erronée, j’ai déjà payé il y a deux mois.\n",
    "nl": "De kwaliteit is prima, één ster minder.\nHet reünie feest was vóór acht uur.\n"
    "Café is dicht, geïnteresseerd in een ruil? Prijs € 20.\n",
}


@pytest.mark.parametrize("language", WESTERN)
def test_files_of_western_europe_are_read_as_the_most_common_encoding(language: str) -> None:
    path = Path(written("a.csv", WESTERN[language] * 9, "cp1252"))
    files = [File("a.csv", "load.source", path, 10**9)]
    assert guess_encoding.encodings(files, ["utf-8"]) == ["cp1252"]
    path.write_bytes("Это предложение на русском языке о разных вещах\n".encode("cp1251"))
    assert guess_encoding.encodings(files, ["utf-8", "cp1252"]) == ["cp1251"]


def test_further_encodings_of_the_params_go_first() -> None:
    path = Path(
        written("a.csv", "Sipariş henüz gelmedi, iki ay önce ödeme yaptım.\n" * 9, "cp1254")
    )
    files = [File("a.csv", "load.source", path, 10**9)]
    assert guess_encoding.encodings(files, ["utf-8", "cp1254"]) == ["cp1254"]


def as_a_doubled_header() -> str:
    return written("a.csv", "text,label\n" + "".join(map(labelled, range(60))) + "text,label\n")


def with_a_nul() -> str:
    rows = [f"{t['text']}{chr(0) * (k == 5)},{t['label']}\n" for k, t in enumerate(TEXTS)]
    return written("a.csv", "text,label\n" + "".join(rows))


def with_nested_values() -> str:
    rows = [
        {
            "meta": {"source": "a longer text in words than that of the text itself", "k": k},
            "text": t["text"],
            "body": f"{t['text']} in {k} more words that are longer",
            "label": t["label"],
            "tags": [t["label"]],
        }
        for k, t in enumerate(TEXTS)
    ]
    return written("a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("form", [as_a_doubled_header, with_a_nul, with_nested_values])
def test_what_load_reads_is_read_with_the_columns_of_the_params(form: Callable[[], str]) -> None:
    source, load_params = form(), params()["load"]
    files = [File(source, "load.source", Path(source), 10**9)]
    settings, frame, _ = guess.reading(files, load_params)
    assert settings == load_params | settings
    assert (settings["text_column"], settings["label_column"]) == ("text", "label")
    assert (settings["format"], settings["column_names"]) == ("auto", [])
    assert len(frame) >= 60
    assert "meta" not in frame


def test_what_a_person_has_named_stays() -> None:
    def row(k: int, t: dict[str, str]) -> list[str]:
        return [f"t{k}", t["text"], t["label"], ["de", "fr"][k % 2]]

    names = "ticket message topic country"
    named = {"load.text_column": "message", "load.label_column": "topic"}
    named |= {"load.id_column": "ticket"}
    set_params(Project(Path()), named | {"card.languages": ["en"]})
    check.main(written("a.csv", table(",", names, row)), write=True)
    assert params()["load"]["id_column"] == "ticket"
    assert params()["card"]["languages"] == ["en"], "countries are no languages"
    set_params(Project(Path()), {"load.column_names": names.split()})
    check.main(written("b.csv", table(",", "", row)), write=True)
    assert params()["load"]["column_names"] == names.split()
    assert (params()["load"]["text_column"], params()["load"]["id_column"]) == ("message", "ticket")
    assert len(loaded()) == 60
    check.main(written("c.csv", table(",", names, row)), write=True)
    assert params()["load"]["column_names"] == []


def test_a_header_of_a_label_and_a_word_is_none_of_the_texts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    check.main(without_a_header(), write=True)
    assert "The first line of a.csv is taken for a row, not for the" in capsys.readouterr().out
    rows = table(",", "frage sport", lambda _, t: [f"so {t['text']}", t["label"]])
    check.main(written("a.csv", rows), write=True)
    assert params()["load"]["column_names"] == []
    assert params()["load"]["text_column"] == "frage"
    assert "is taken for a row" not in capsys.readouterr().out


def test_an_id_that_repeats_where_nobody_looked_is_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(guess_columns, "ROWS", 20)
    rows = [f"{k - (k == 59)},{labelled(k)}" for k in range(60)]
    check.main(written("a.csv", "nr,text,label\n" + "".join(rows)), write=True)
    assert params()["load"]["id_column"] == ""
    assert "  id      none: rows are numbered, for nr repeats\n" in capsys.readouterr().out


def test_rows_are_numbered_where_ids_repeat(capsys: pytest.CaptureFixture[str]) -> None:
    rows = table(",", "id text label", lambda k, t: [str(k // 2), t["text"], t["label"]])
    for _ in range(2):  # the second time with the param
        check.main(written("a.csv", rows), write=True)
        assert params()["load"]["id_column"] == "#"
        assert "  id      none: rows are numbered" in capsys.readouterr().out
    assert list(loaded()["id"][:2]) == ["a:1", "a:2"]
    assert set(loaded()["source_id"][:2]) == {"0"}


def test_load_is_tried_again_for_its_ids_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = 0
    main = load.main

    @wraps(main)
    def counted(*args: Any, **kwargs: Any) -> None:
        nonlocal runs
        runs += 1
        main(*args, **kwargs)

    monkeypatch.setattr(load, "main", counted)
    of_one = table(",", "id text label", lambda k, t: [str(k), t["text"], "one"])
    with pytest.raises(InputError, match="must have at least 2 classes"):
        check.main(written("a.csv", of_one))
    assert runs == 1
    repeated = table(",", "id text label", lambda k, t: [str(k // 2), t["text"], t["label"]])
    check.main(written("a.csv", repeated))
    assert runs == 3


def test_params_of_training_are_as_the_stage_takes_them(capsys: pytest.CaptureFixture[str]) -> None:
    source = as_commas()
    for found in ("many", 0):
        set_params(Project(Path()), {"train.batch_size": found})
        check.main(source)
        assert "`train` would stop: train.batch_size is " in capsys.readouterr().out
    set_params(Project(Path()), {"train.batch_size": 16, "train.epochs": 30})
    check.main(source, write=True)
    assert params()["train"]["epochs"] == 30
    assert "too few for a transformer to learn: add texts." in capsys.readouterr().out


@pytest.mark.parametrize("name", ["ID", "Nr", "Ticket_ID", "UUID", "ticketId"])
def test_an_id_is_found_in_any_case(name: str) -> None:
    """Else rows of equal texts would differ in it, and be kept."""
    check.main(written("a.csv", table(",", f"text label {name}", with_ids)), write=True)
    assert params()["load"]["id_column"] == name


def with_ids(k: int, t: dict[str, str]) -> list[str]:
    return [t["text"], t["label"], str(1000 + k)]


def test_what_else_the_labels_may_be_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_params(Project(Path()), {"probe.checkpoint": "nobody/nothing"})
    monkeypatch.setattr(check, "LARGE", 0)
    logged: list[str] = []
    monkeypatch.setattr(check.log, "info", lambda *words: logged.append(words[0] % words[1:]))
    labels = ["sport", "film", "sport|film", "money|sport", "money"]
    source = written(
        "a.csv",
        table(
            ",",
            "text tags kind tone language",
            lambda k, t: [f"{t['text']} café", labels[k % 5], *"xyz"[k % 3] * 2, t["language"]],
        ),
        "cp1252",
    )
    check.main(source)
    told = capsys.readouterr().out
    assert "The labels may also be 'kind' or 'tone': --label_column names" in told
    assert guess_columns.combined(["A", "A+", "B", "B+", "arts, film", "arts, music"]) == ""
    assert "Labels such as 'money|sport' look like several of one text" in told
    assert "slices  kind, tone, language, for evaluate.slices (set: language; may be added" in told
    assert "  encoding cp1252 is a guess, by which a line has '" in told
    assert "café" in told
    assert logged[0] == f"reading {source}"
    assert "running split" in logged


def test_places_that_are_not_there_are_told_as_they_were_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(download, "PAUSE", 0.0)
    Path("data/source/a.csv.dvc").touch()
    for name, sentence in (
        ("data/source/a.csv", "does not exist: `dvc pull data/source/a.csv` brings it."),
        ("", "has an empty name"),
        ("x" * 300, "does not exist: correct the path."),
        ("http://127.0.0.1:9/a.csv", "check the address."),
    ):
        with pytest.raises(InputError) as raised:
            check.main(name)
        assert sentence in str(raised.value)


@pytest.mark.parametrize("text", ["one: 1\n", "just words\n", ""])
def test_params_that_are_no_sections_are_refused(text: str) -> None:
    source, before = as_commas(), Path("params.yaml").read_text()
    Path("params.yaml").write_text(before + text if ":" in text else text)
    with pytest.raises(InputError, match=r"one in params.yaml is 1|no sections"):
        check.main(source)


def test_columns_that_are_named_are_taken_or_refused() -> None:
    source = written("a.csv", table(",", "a b c", lambda _, t: [t["text"], t["label"], t["label"]]))
    with pytest.raises(InputError, match=r"^--label_column is 'bb' .*: choose among a, b, c\."):
        check.main(source, label_column="bb")
    check.main(source, label_column="c", write=True)
    assert params()["load"]["label_column"] == "c"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.2, "1 seconds"), (89, "89 seconds"), (150, "2.5 minutes"), (4.5e6, "1,250 hours")],
)
def test_a_duration_is_one_number(seconds: float, told: str) -> None:
    assert timing.duration(seconds) == f"about {told}"


def test_the_command_says_a_mistake_in_one_sentence() -> None:
    as_commas()
    for words, sentence in (
        ([], "No file is named"),
        (["data/source/b.csv"], "does not exist (did you mean 'a.csv'?): correct the path."),
        (["data/source/a.csv", "--writes"], "--writes is not known (did you mean '--write'?)"),
    ):
        command = [sys.executable, "-m", "src.text.check", *words]
        env = {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert sentence in done.stderr
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("words", ["train eval", "TRAIN Dev TEST", "training testing"])
def test_a_split_of_the_authors_is_taken(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    sides = words.split()
    source = written(
        "a.csv",
        table(
            ",", "text label part", lambda k, t: [t["text"], t["label"], sides[k // 3 % len(sides)]]
        ),
    )
    check.main(source, write=True)
    assert params()["split"]["strategy"] == "predefined"
    assert params()["split"]["column"] == "part"
    told = capsys.readouterr().out
    assert ("'eval' is taken for validation" in told) is ("eval" in words)


@pytest.mark.parametrize(
    ("name", "words", "warned"),
    [
        ("split", "0 1", "'0', '1'"),
        ("is_test", "no yes", "'no', 'yes'"),
        ("source", "train extra test", "'extra'"),
        ("source", "web mail", ""),
    ],
)
def test_a_split_in_other_words_is_not_passed_over(
    name: str, words: str, warned: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sides = words.split()
    source = written(
        "a.csv",
        table(
            ",", f"text label {name}", lambda k, t: [t["text"], t["label"], sides[k % len(sides)]]
        ),
    )
    check.main(source, write=True)
    assert params()["split"]["strategy"] == "stratified"
    told = capsys.readouterr().out
    sentence = f"Column {name!r} looks like a split of your own, and {warned} in it name no side"
    assert (sentence in told) is bool(warned)


@pytest.mark.parametrize("label", ["", "label"])
def test_labels_in_lists_are_told_with_a_remedy_that_helps(label: str) -> None:
    rows = [{"text": t["text"], "label": [t["label"]]} for t in TEXTS]
    Path("a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pd.DataFrame(rows).to_parquet("a.parquet")
    for name in ("a.jsonl", "a.parquet"):
        with pytest.raises(InputError) as raised:
            check.main(name, label_column=label)
        told = str(raised.value)
        if label:
            assert told == (
                "--label_column is 'label', which holds lists or objects: give each row one value."
            )
        else:
            assert "among text (label left out, for lists or objects): give each row one " in told
    pd.DataFrame({"messages": [["a"]] * 60}).to_parquet("a.parquet")
    with pytest.raises(InputError, match=r"has lists or objects in all columns \(messages\): give"):
        check.main("a.parquet")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\x0b", "\u2028"])
def test_a_line_end_in_a_header_stays_out_of_the_command_line(end: str) -> None:
    source = written(
        "a.csv",
        f'"What do{end}you think?","Your{end}{end}rating ","Seen{end}on",id\n'
        + "".join(f"{t['text']},{t['label']},{t['language']},{k}\n" for k, t in enumerate(TEXTS)),
    )
    check.main(source, write=True)
    assert params()["load"]["text_column"] == "What do you think?"
    assert params()["load"]["label_column"] == "Your rating"
    assert params()["evaluate"]["slices"] == []
    assert len(loaded()) == 60
    before = Path("params.yaml").read_bytes()
    check.main(source, text_column="what do you think?", label_column="Your rating", write=True)
    assert Path("params.yaml").read_bytes() == before


def test_what_no_command_line_can_name_is_refused() -> None:
    rows = "".join(f"{t['text']},{t['label']},0\n" for t in TEXTS)
    items = "".join(f'{{"a\\u0000b": "{t["text"]}", "label": "{t["label"]}"}}\n' for t in TEXTS)
    before = Path("params.yaml").read_bytes()
    table, objects = f'"a\nb",label,a b\n{rows}', written("a.jsonl", items)
    for source, name in ((written("a.csv", table), "a\nb"), (objects, "a\0b")):
        with pytest.raises(InputError) as raised:
            check.main(source, label_column="label", write=True)
        assert str(raised.value) == (
            f"load.text_column would be {name!r}, and DVC can't run a command with a line end or a "
            "zero byte in it: rename that first."
        )
    source = written("a\nb.csv", "text,label,n\n" + rows)
    with pytest.raises(InputError, match=r"^load\.source would be 'data/source/a\\nb\.csv', and"):
        check.main(source, write=True)
    assert Path("params.yaml").read_bytes() == before


def test_columns_of_one_class_each_are_no_label(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["film", "money", "sport"]
    alone, several = (
        [[t["text"], *(str(int(t["label"] == n or k % 5 < odd)) for n in names)]
         for k, t in enumerate(TEXTS)]
        for odd in (0, 2)
    )  # fmt: skip
    for rows, told in (
        (alone, "Columns film, money, sport are one for each class: make one column of labels of"),
        (several, "Columns film, money, sport look like several labels of a text, of which only"),
    ):
        for true, false in (("1", "0"), ("True", "False")):
            lines = [",".join(row).replace(",1", f",{true}").replace(",0", f",{false}")
                     for row in rows]  # fmt: skip
            source = written("a.csv", "\n".join(["text,film,money,sport", *lines, ""]))
            with pytest.raises(InputError) as raised:
                check.main(source)
            assert str(raised.value).startswith(told)
    check.main(source, label_column="film")
    assert "label   film" in capsys.readouterr().out
    two = "".join(f"{t['text']},{k % 2},{k % 3 // 2}\n" for k, t in enumerate(TEXTS))
    check.main(written("a.csv", "text,label,is_reply\n" + two))
    assert "label   label" in capsys.readouterr().out


def test_a_few_words_without_spaces_do_not_change_the_features(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [f"{t['text']},{t['label']}\n" for t in TEXTS]
    rows += [f"{chr(97 + k) * 6000},sport\n" for k in range(6)]
    check.main(written("a.csv", "text,label\n" + "".join(rows)), write=True)
    assert params()["baseline"]["analyzer"] == "word"
    told = capsys.readouterr().out
    assert "Texts of one word of more than 200 characters" in told
    assert "tokenizer knows little: 6. Are they encoded" in told
    genes = "".join(f"{'ACGT'[k % 4] * 30}{'TCAG'[k % 3] * k},{k % 2}\n" for k in range(60))
    check.main(written("a.csv", "text,label\n" + genes), text_column="text", write=True)
    assert params()["baseline"]["analyzer"] == "char"


def test_no_param_is_named_that_does_not_join_the_labels() -> None:
    told = findings.sentence({"code": "label_variants", "labels": ["0", "0.0"]})
    assert told == "Labels ['0', '0.0'] may be one: write them alike in the source, if they are."
    for labels in (["Pos", "pos"], ["a ", "a"], ["1", "1.0", "1 "]):
        told = findings.sentence({"code": "label_variants", "labels": labels})
        assert "load.normalize_labels joins those" in told


def test_texts_without_an_ending_in_folders_of_their_labels_are_found() -> None:
    for k, t in enumerate(TEXTS):
        path = Path("data/source", t["label"], str(5000 + k))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(f"From: a, b; c\n{t['text']} é".encode("cp1252" if k == 7 else "utf-8"))
    check.main("data/source", write=True)
    assert params()["load"]["format"] == "folder"
    assert {*loaded()["label"]} == {t["label"] for t in TEXTS}
    assert len(loaded()) == 60


@pytest.mark.parametrize("form", ["__label__{} {}", "{}:x\t{}"])
def test_labels_before_texts_are_told_with_a_command_that_parts_them(form: str) -> None:
    label = str if form.startswith("_") else str.upper
    lines = [form.format(label(t["label"]), f'{t["text"]}, yes, " or no') for t in TEXTS]
    source = written("a b.txt", "\n".join([*lines, ""]))
    with pytest.raises(InputError) as raised:
        check.main(source)
    assert "a b.txt has the label before each text, as " in str(raised.value)
    command = str(raised.value).split("`")[1].replace("> texts", "> data/source/texts")
    subprocess.run(["bash", "-c", command], check=True)
    check.main("data/source/texts.tsv", write=True)
    found = loaded()
    assert len(found) == 60
    assert {*found["label"]} == {lines[k].split()[0].removeprefix("__label__") for k in range(3)}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_all_lines_of_the_params_keep_their_kind_of_end(end: str) -> None:
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text, newline=end)
    check.main(as_semicolons(), write=True)
    data = Path("params.yaml").read_bytes().decode()
    assert data.count(end) == data.count("\n") > 100
    assert data.count("\r") == (data.count("\n") if end == "\r\n" else 0)
    assert comments(data) == comments(text)
    assert params()["load"]["delimiter"] == ";"
