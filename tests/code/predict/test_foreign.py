"""Model folders that somebody else made: they can be refused, and do nothing else."""

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import make_odd_model
from hypothesis import example, given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from src.core.errors import InputError
from src.predict import __main__ as predict
from src.predict.classifier import Classifier
from src.predict.engines import Engine
from src.predict.foreign import DESCRIBING, SMALL
from src.predict.graph import LEADING, is_fp32_transformer, names_other_files
from src.predict.manifest import list_too, read_manifest

SECRET = b"KEY=12345"


def change(folder: Path, **values: Any) -> None:
    """Set values of a manifest, with files of the right sha256 for all else."""
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def put(folder: Path, name: str, content: bytes) -> None:
    """Write a file that the manifest has the sha256 of."""
    (folder / name).write_bytes(content)
    list_too(folder, name)


def refused(folder: Path, engine: Engine = "onnxruntime") -> str:
    """The sentence for a folder that is not loaded: one line that a terminal can show."""
    with pytest.raises(InputError) as found:
        Classifier(folder, threads=1, engine=engine)
    assert str(found.value).isprintable()
    assert str(found.value).endswith(".")
    return str(found.value)


def elsewhere(location: str) -> TensorProto:
    """A tensor whose values lie in a file."""
    tensor = TensorProto(name="rows", data_type=TensorProto.UINT8, dims=[len(SECRET)])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def graph_of(nodes: list[onnx.NodeProto], weights: list[TensorProto], **more: Any) -> bytes:
    """A graph whose ``rows``, of bytes, become the logits of each text."""
    info = helper.make_tensor_value_info
    inputs = [info(name, TensorProto.INT64, ["n", "t"]) for name in ("input_ids", "attention_mask")]
    nodes = [
        *nodes,
        helper.make_node("Cast", ["rows"], ["row"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["input_ids", "attention_mask"], ["used"]),
        helper.make_node("Cast", ["used"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "one"], ["mean"], keepdims=1),
        helper.make_node("Add", ["mean", "row"], ["logits"]),
    ]
    weights = [*weights, numpy_helper.from_array(np.array([1]), "one")]
    logits = info("logits", TensorProto.FLOAT, ["n", len(SECRET)])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    graph = helper.make_graph(nodes, "graph", inputs, [logits], weights)
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9, **more)
    return bytes(model.SerializeToString())


def as_weight(tensor: TensorProto) -> bytes:
    return graph_of([], [tensor])


def as_constant(tensor: TensorProto) -> bytes:
    return graph_of([helper.make_node("Constant", [], ["rows"], value=tensor)], [])


def in_a_branch(tensor: TensorProto) -> bytes:
    out = [helper.make_tensor_value_info("out", TensorProto.UINT8, [len(SECRET)])]
    constant = helper.make_node("Constant", [], ["out"], value=tensor)
    branch = helper.make_graph([constant], "branch", [], out)
    on = numpy_helper.from_array(np.array(True), "on")
    node = helper.make_node("If", ["on"], ["rows"], then_branch=branch, else_branch=branch)
    return graph_of([node], [on])


def in_a_function(tensor: TensorProto) -> bytes:
    constant = helper.make_node("Constant", [], ["out"], value=tensor)
    opsets = [helper.make_opsetid("", 18)]
    function = helper.make_function("own", "Rows", [], ["out"], [constant], opsets)
    node = helper.make_node("Rows", [], ["rows"], domain="own")
    return graph_of([node], [], functions=[function])


PLACES = [as_weight, as_constant, in_a_branch, in_a_function]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_graph_reads_no_file(
    place: Callable[[TensorProto], bytes],
    engine: Engine,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels = [str(k) for k in range(len(SECRET))]
    change(folder, labels=labels)
    put(
        folder,
        "model.onnx",
        place(numpy_helper.from_array(np.frombuffer(SECRET, np.uint8), "rows")),
    )
    if engine == "onnxruntime" or place != in_a_function:  # which OpenVINO has not
        assert Classifier(folder, 1, engine).logits(["a"], 1).shape == (1, len(SECRET))
    monkeypatch.chdir(folder.parent)
    (folder.parent / "secret").write_bytes(SECRET)
    (folder / "secret").write_bytes(SECRET)
    for location in ("secret", "./secret", "model/secret", "../" + folder.parent.name + "/secret"):
        put(folder, "model.onnx", place(elsewhere(location)))
        list_too(folder, "secret")  # nor one that is listed, whose bytes are not those hashed
        assert "model.onnx has values that lie in another file, which is not" in refused(
            folder, engine
        )


def test_every_place_of_a_tensor_is_looked_through() -> None:
    found: dict[str, dict[int, str]] = {}
    left = [onnx.ModelProto.DESCRIPTOR]
    while left:
        message = left.pop()
        if message.name in found:
            continue
        parts = [field for field in message.fields if field.message_type]
        found[message.name] = {field.number: field.message_type.name for field in parts}
        left += [field.message_type for field in parts]
    leading = {"TensorProto"}  # the messages in which a tensor stands, or one of these
    while more := {name for name, parts in found.items() if leading & {*parts.values()}} - leading:
        leading |= more
    assert {
        name: {number: part for number, part in found[name].items() if part in leading}
        for name in leading
    } == LEADING
    fields = onnx.TensorProto.DESCRIPTOR.fields_by_name
    assert (fields["external_data"].number, fields["data_location"].number) == (13, 14)


def has_external_data(message: Any) -> bool:
    """Whether a tensor lies elsewhere, by the package that a server does not have."""
    if isinstance(message, TensorProto):
        return message.data_location == TensorProto.EXTERNAL
    return any(
        has_external_data(one)
        for field, value in message.ListFields()
        if field.message_type
        for one in (value if field.is_repeated else [value])
    )


MODELS = [place(elsewhere("location")) for place in PLACES]
HARMLESS = [
    place(numpy_helper.from_array(np.frombuffer(SECRET, np.uint8), "rows")) for place in PLACES
]


@given(st.sampled_from(MODELS), st.lists(st.tuples(st.integers(0, 2000), st.binary(max_size=3))))
@example(MODELS[0], [])
def test_no_bytes_hide_external_data(model: bytes, changes: list[tuple[int, bytes]]) -> None:
    for at, content in changes:
        model = model[:at] + content + model[at + len(content) :]
    with suppress(ValueError):  # and nothing else
        is_fp32_transformer(model)
    try:
        elsewhere = names_other_files(model)
    except ValueError:
        return
    try:
        parsed = onnx.ModelProto.FromString(model)
    except Exception:
        return
    assert elsewhere or b"location" not in model or not has_external_data(parsed)


def test_the_word_alone_names_no_file() -> None:
    for content in HARMLESS:
        model = onnx.ModelProto.FromString(content)
        model.metadata_props.add(key="location", value="secret")
        model.graph.doc_string = "location"
        model.graph.initializer[-1].data_location = TensorProto.DEFAULT
        model.graph.initializer.append(helper.make_tensor("location", 1, [2], [1.0, 2.0]))
        assert not names_other_files(model.SerializeToString())
    for content in (
        b"location",
        b"\x3a\xff\xff\xff\xff\x0flocation",
        b"\x07location",
        b"\x3alocation",
    ):
        with pytest.raises(ValueError, match=r"cut off|written"):
            names_other_files(content)


@pytest.mark.parametrize(
    "values",
    [
        {"labels": ["a"]},
        {"labels": []},
        {"labels": ["a", "a", "b"]},
        {"labels": ["a", "", "b"]},
        {"labels": ["a", 1, "b"]},
        {"labels": ["a", ["b"], "c"]},
        {"labels": ["a", "\ud800", "b"]},
        {"max_length": 0},
        {"max_length": -1},
        {"max_length": True},
        {"max_length": 1.0},
        {"max_length": 2**31},
        {"max_length": 2**70},
        {"max_characters": 0},
        {"max_characters": 2**31},
        {"pad_token_id": -1},
        {"pad_token_id": False},
        {"pad_token_id": 2**31},
        {"min_score": 1},
        {"min_score": 1.0},
        {"min_score": -0.1},
        {"min_score": True},
        {"min_score": None},
        {"min_score": "0.5"},
        {"min_score": [0.5]},
        {"min_score": float("nan")},
        {"min_score": float("inf")},
        {"files": []},
    ],
)
def test_values_that_no_model_has_are_refused(values: dict[str, Any], folder: Path) -> None:
    change(folder, **values)
    (name,) = values
    assert f"manifest.json has no '{name}' as it was exported, " in refused(folder)


NAMES = [
    "",
    ".",
    "..",
    "../secret",
    "a/b",
    "a\\b",
    "/secret",
    "a\0b",
    "a\nb",
    "C:b",
    "\x1b[2J",
    "\ud800",
]


def test_a_manifest_may_name_no_least_score(folder: Path) -> None:
    path = folder / "manifest.json"
    said = json.loads(path.read_text())
    del said["min_score"]
    path.write_text(json.dumps(said))
    assert Classifier(folder, threads=1).min_score == 0
    change(folder, min_score=0)
    assert Classifier(folder, threads=1).fields == ("label", "score")


@pytest.mark.parametrize("name", [*NAMES, "a" * 256, "ä" * 200])
def test_a_manifest_names_plain_files(name: str, folder: Path) -> None:
    (folder.parent / "secret").write_bytes(SECRET)
    digest = hashlib.sha256(SECRET).hexdigest()
    change(folder, files=read_manifest(folder)["files"] | {name: digest})
    assert "manifest.json has no 'files' as it was exported, " in refused(folder)


def test_no_node_of_a_cluster_is_sent_a_file_of_another_place(folder: Path) -> None:
    (folder.parent / "rows.csv").write_text("text\ngoal\n")
    (folder.parent / "secret").write_bytes(SECRET)
    digest = hashlib.sha256(SECRET).hexdigest()
    change(folder, files=read_manifest(folder)["files"] | {"../secret": digest})
    with pytest.raises(InputError, match="has no 'files' as it was exported"):
        predict.main(folder, input=str(folder.parent / "rows.csv"), ray="local")


def test_only_regular_files_of_the_folder_are_read(folder: Path) -> None:
    name = "tokenizer.json"
    content = (folder / name).read_bytes()
    other = folder.parent / "other.json"
    other.write_bytes(content)
    path = folder / name

    def replaced_by(make: Callable[[], Any]) -> str:
        path.unlink(missing_ok=True)
        make()
        return refused(folder)

    kind = "tokenizer.json is a folder, pipe or device: get the model again."
    assert replaced_by(lambda: os.mkfifo(path)).endswith(kind)
    out = "tokenizer.json is a link out of its folder: put the file itself there, as "
    out += "`hf download --local-dir` does."
    for target in (other, "../other.json", "/dev/zero"):
        assert replaced_by(lambda target=target: path.symlink_to(target)).endswith(out)  # type: ignore[misc]
    assert "is missing" in replaced_by(lambda: path.symlink_to("nothing"))
    assert "can't be read, Too many levels" in replaced_by(lambda: path.symlink_to(name))
    path.unlink()
    path.mkdir()
    assert refused(folder).endswith(kind)
    path.rmdir()

    (folder / "..data").mkdir()  # as Kubernetes mounts them
    (folder / "..data" / name).write_bytes(content)
    path.symlink_to(f"..data/{name}")
    Classifier(folder, threads=1)
    path.unlink()
    digest = hashlib.md5(content).hexdigest()  # noqa: S324, as DVC names what it keeps
    cached = folder.parent / "files" / "md5" / digest[:2] / digest[2:]
    cached.parent.mkdir(parents=True)
    cached.write_bytes(content)
    path.symlink_to(cached)
    Classifier(folder, threads=1)


@pytest.mark.parametrize("name", [name for name in DESCRIBING if name != "schema.json"])
def test_files_that_describe_have_a_limit(name: str, folder: Path) -> None:
    if name != "manifest.json":
        put(folder, name, b"{}")
    with (folder / name).open("r+b") as file:
        file.truncate(SMALL + 1)
    assert refused(folder) == (f"{folder / name} has more than {SMALL} bytes: get the model again.")


DEEP = b'{"files":' + b"[" * 100_000
TOKENIZER = "tokenizer.json is not a tokenizer ("


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("tokenizer.json", b"{", TOKENIZER),
        ("tokenizer.json", b"\xff", TOKENIZER),
        ("tokenizer.json", b"\x1b[2J", TOKENIZER),
        ("tokenizer.json", DEEP, TOKENIZER),
        ("model.onnx", b"", "model.onnx is not a graph that onnxruntime loads ("),
        ("model.onnx", b"<net/>", "model.onnx is not a graph that onnxruntime loads ("),
        ("model.onnx", b"location", "model.onnx is not a graph in ONNX ("),
    ],
)
def test_what_is_broken_but_has_the_right_sha256_is_one_sentence(
    name: str, content: bytes, sentence: str, folder: Path
) -> None:
    put(folder, name, content)
    assert sentence in refused(folder)


def test_onnxruntime_loads_no_other_format(folder: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder.parent / "model.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    graph = (folder / "model.onnx").read_bytes()
    onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    put(folder, "model.onnx", (folder.parent / "model.ort").read_bytes())
    assert "model.onnx is not a graph that onnxruntime loads (" in refused(folder)


def test_openvino_loads_no_other_format(folder: Path) -> None:
    put(folder, "model.onnx", b'<?xml version="1.0"?><net name="x" version="11"><layers/></net>')
    assert "model.onnx is not a graph that OpenVINO loads (" in refused(folder, "openvino")


@pytest.mark.parametrize("content", [b"", b"\xff", DEEP, b"[]", b"1" * 5000, b'{"a": 1'])
def test_a_manifest_that_is_broken_is_one_sentence(content: bytes, folder: Path) -> None:
    (folder / "manifest.json").write_bytes(content)
    assert f"{folder / 'manifest.json'} is not " in refused(folder)


def set_tokenizer(folder: Path, **values: Any) -> None:
    content = json.loads((folder / "tokenizer.json").read_bytes()) | values
    put(folder, "tokenizer.json", json.dumps(content).encode())


def test_a_panic_is_one_sentence(folder: Path) -> None:
    regex = {
        "type": "Split",
        "pattern": {"Regex": "(a+)+$"},
        "behavior": "Isolated",
        "invert": False,
    }
    set_tokenizer(folder, pre_tokenizer=regex)
    classifier = Classifier(folder, threads=1)
    assert len(classifier.logits(["a", ""], 9)) == 2
    with pytest.raises(InputError, match=r"tokenizer.json can't make tokens of a text \(.*retry"):
        classifier.logits(["a" * 40 + "!"], 9)
    set_tokenizer(folder, normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"})
    assert TOKENIZER in refused(folder)


def test_an_interrupt_is_no_fault_of_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("src.predict.classifier.Tokenizer.from_str", interrupt, raising=False)
    monkeypatch.setattr("src.predict.classifier.Tokenizer", type("T", (), {"from_str": interrupt}))
    with pytest.raises(KeyboardInterrupt):
        Classifier(folder, threads=1)


def logits_of(kind: int, columns: int, rows: int | None) -> bytes:
    """A graph that gives logits of a type and shape; of the texts' number if ``rows`` is None."""
    nodes = [
        helper.make_node("Shape", ["input_ids"], ["texts"], end=1),
        helper.make_node("Add", ["texts", "nothing"], ["n"]),
        helper.make_node("Concat", ["n" if rows is None else "rows", "columns"], ["all"], axis=0),
        helper.make_node("ConstantOfShape", ["all"], ["zero"]),
        helper.make_node("ReduceSum", ["attention_mask"], ["unused"]),
        helper.make_node("Cast", ["zero"], ["logits"], to=kind),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "graph\x1b[2J\n",
        [info(name, TensorProto.INT64, ["n", "t"]) for name in ("input_ids", "attention_mask")],
        [info("logits", kind, None)],
        [
            numpy_helper.from_array(np.array([0]), "nothing"),
            numpy_helper.from_array(np.array([rows or 0]), "rows"),
            numpy_helper.from_array(np.array([columns]), "columns"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("kind", "columns", "rows"),
    [
        (TensorProto.FLOAT, 1, None),  # which numpy would spread over three
        (TensorProto.FLOAT, 3, 1),
        (TensorProto.FLOAT, 3, 2),  # as many as are tried
        (TensorProto.FLOAT, 4, None),
        (TensorProto.INT64, 3, None),
        (TensorProto.STRING, 3, None),
    ],
)
def test_logits_of_another_shape_are_refused(
    kind: int, columns: int, rows: int | None, folder: Path
) -> None:
    put(folder, "model.onnx", logits_of(TensorProto.FLOAT, 3, None))
    assert Classifier(folder, threads=1).logits(["a", "b"], 9).shape == (2, 3)
    put(folder, "model.onnx", logits_of(kind, columns, rows))
    assert "texts logits of shape [" in refused(folder)


def test_a_graph_with_other_outputs_is_refused(folder: Path) -> None:
    model = onnx.ModelProto.FromString(logits_of(TensorProto.FLOAT, 3, None))
    model.graph.node[-1].output[0] = model.graph.output[0].name = "\x1b[2J\nscores"
    put(folder, "model.onnx", model.SerializeToString())
    assert "model.onnx can't score texts (" in refused(folder)


def test_a_text_that_a_model_fails_on_is_one_sentence(tmp_path: Path) -> None:
    classifier = Classifier(make_odd_model(tmp_path), threads=1)
    assert classifier.logits(["a", "text"], 9).tolist() == [[0, 1], [1, 0]]
    with pytest.raises(InputError, match="logits that are no finite numbers"):
        classifier.logits(["a", "nan"], 9)
    with pytest.raises(InputError, match=r"model.onnx can't score texts \(.*out of data bounds"):
        classifier.logits(["far"], 9)
