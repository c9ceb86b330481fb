"""Export a model of TF-IDF features to an ONNX folder of the same shape as the transformer's.

``tokenizer.json`` turns a text into the ids of its words (or characters) as TfidfVectorizer does.
The graph counts n-grams of ids, weighs and normalizes the counts in float64 like scikit-learn, and
runs the classifier.
"""

import logging
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import joblib
import numpy as np
import onnx
from dvclive.live import Live
from onnx import TensorProto, helper, numpy_helper
from scipy.special import softmax
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from src.core import stage
from src.core.command_line import Count, Interval
from src.core.errors import InputError
from src.core.files import replacing
from src.core.words import TOKENIZERS_LONGER
from src.predict.classifier import Classifier
from src.predict.manifest import write_manifest
from src.tables import examples
from src.text import forest_graph
from src.text.forest import Forest
from src.text.regression import weights_of

OPSETS = {"": 18, "ai.onnx.ml": 5}
IR_VERSION = 10  # of the first release of ONNX with these
UNLIMITED = 1_000_000_000  # such a model reads the whole of a text
SPACE = r"[\s\x1c-\x1f]"  # as Python has it
UNKNOWN = "[UNK]"  # neither a word nor a character, so no n-gram has it

log = logging.getLogger("src.text.export_tfidf")


def main(
    splits: Path,
    model: Path,
    exported: Path,
    live: Path,
    *,
    min_equal_labels: Annotated[float, Interval(ge=0, le=1)],
    batch_tokens: Count,
) -> None:
    """Write the model folder, and stop unless it labels the test texts as scikit-learn does.

    Args:
        splits: the folder with ``test.parquet``, whose texts are compared.
        model: the folder with ``model.joblib``.
        exported: the folder that gets the ONNX model.
        live: the folder that gets the metrics.
    """
    if not (model / "model.joblib").exists():
        raise InputError(f"{model} has no model: run `dvc repro` first.")
    pipeline = joblib.load(model / "model.joblib")
    tfidf, classifier = pipeline["tfidf"], pipeline["classifier"]
    words = sorted({word for ngram in tfidf.vocabulary_ for word in _words(tfidf, ngram)})
    ids = {word: k for k, word in enumerate([*words, UNKNOWN])}
    texts = list(examples.read(splits / "test.parquet")["text"])
    expected = pipeline.predict_proba(texts)
    with replacing(exported) as folder:
        folder.mkdir()
        tokenizer(tfidf, ids).save(str(folder / "tokenizer.json"))
        onnx.save(graph(tfidf, classifier, ids), folder / "model.onnx")
        write_manifest(
            folder,
            labels=list(classifier.classes_),
            max_length=UNLIMITED,
            max_characters=UNLIMITED,
            pad_token_id=ids[UNKNOWN],
        )
        logits = Classifier(folder, threads=1).logits(texts, batch_tokens)
        difference = float(np.abs(softmax(logits.astype(np.float64), axis=1) - expected).max())
        equal = float((logits.argmax(axis=1) == expected.argmax(axis=1)).mean())
        log.info("probabilities within %.2g of scikit-learn's, %.4f of labels", difference, equal)
        if equal < min_equal_labels:
            raise InputError(
                f"{exported.name} gives scikit-learn's label to {equal:.4f} of the "
                f"{len(texts)} test texts, fewer than export_tfidf.min_equal_labels "
                f"{min_equal_labels:g}: lower it if that is near enough."
            )
        with Live(str(live), dvcyaml=False, save_dvc_exp=False) as record:
            record.log_metric("max_probability_difference", difference, plot=False)
            record.log_metric("equal_labels", equal, plot=False)


def tokenizer(tfidf: TfidfVectorizer, ids: dict[str, int]) -> Tokenizer:
    """Build the tokenizer that does to a text what the vectorizer does before it counts."""
    result = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    steps: list[normalizers.Normalizer] = []
    if tfidf.lowercase:
        # Python has a small letter of its own for a capital sigma that ends a word.
        steps += [normalizers.Replace(Regex(r"(?<=\p{L})Σ(?!\p{L})"), "ς"), normalizers.Lowercase()]
    if tfidf.strip_accents == "unicode":
        steps += [normalizers.NFKD(), normalizers.Replace(Regex(_combining()), "")]
    if tfidf.analyzer == "char":
        steps.append(normalizers.Replace(Regex(SPACE + "{2,}"), " "))
    elif tfidf.analyzer == "char_wb":
        # A space on each side of each word: no n-gram of the vocabulary has two, and crosses words.
        steps += [
            normalizers.Replace(Regex(rf"\A{SPACE}+|{SPACE}+\z"), ""),
            normalizers.Replace(Regex(rf"{SPACE}+"), "  "),
            normalizers.Replace(Regex(r"\A(?=[\s\S])|(?<=[\s\S])\z"), " "),
        ]
    if tfidf.analyzer != "word":
        result.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    else:
        result.pre_tokenizer = pre_tokenizers.Split(
            Regex(TOKENIZERS_LONGER), "removed", invert=True
        )
    result.normalizer = normalizers.Sequence(steps)
    return result


def _combining() -> str:
    """Return a pattern of what strip_accents="unicode" removes: any combining class."""
    marks = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.combining(chr(code))]
    return f"[{''.join(marks)}]"


def graph(
    tfidf: TfidfVectorizer, classifier: Forest | LogisticRegression, ids: dict[str, int]
) -> onnx.ModelProto:
    """Build the graph from ``input_ids``, [texts, tokens], to ``logits``, [texts, classes]."""
    forest = isinstance(classifier, Forest)
    scoring, weights = forest_graph.nodes_of(classifier) if forest else _linear(classifier)
    nodes = [*_counting(tfidf, ids), *_weighing(tfidf.sublinear_tf), *scoring]
    constants: dict[str, Any] = {"one": np.float64(1)} if tfidf.sublinear_tf else {}
    constants |= {
        "idf": tfidf.idf_,
        "axis": np.array([1]),
        "tiny": np.float64(np.finfo(np.float64).tiny),
    }
    tokens = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["texts", "tokens"])
        for name in ("input_ids", "attention_mask")  # the mask adds nothing: padding is unknown
    ]
    logits = helper.make_tensor_value_info(
        "logits", TensorProto.FLOAT, ["texts", len(classifier.classes_)]
    )
    return helper.make_model(
        helper.make_graph(
            nodes,
            "tfidf",
            tokens,
            [logits],
            [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()]
            + weights,
        ),
        opset_imports=[helper.make_opsetid(*opset) for opset in OPSETS.items()],
        ir_version=IR_VERSION,
    )


def _linear(model: LogisticRegression) -> tuple[list[onnx.NodeProto], list[TensorProto]]:
    """Build the nodes from ``features`` to ``logits``, and their constants."""
    weight, bias = weights_of(model)
    constants = {"coef": weight.T, "intercept": bias}
    return [helper.make_node("Gemm", ["features", "coef", "intercept"], ["logits"])], [
        numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name)
        for name, value in constants.items()
    ]


def _counting(tfidf: TfidfVectorizer, ids: dict[str, int]) -> list[onnx.NodeProto]:
    """Build the nodes from ``input_ids`` to ``tf``, the count of each n-gram in float64."""
    ngrams = sorted(tfidf.vocabulary_, key=lambda n: (len(_words(tfidf, n)), tfidf.vocabulary_[n]))
    sizes = np.array([len(_words(tfidf, ngram)) for ngram in ngrams])
    return [
        helper.make_node(
            "TfIdfVectorizer",
            ["input_ids"],
            ["counts"],
            mode="TF",
            min_gram_length=int(sizes.min()),  # char_wb keeps words that are shorter than the range
            max_gram_length=int(sizes.max()),
            max_skip_count=0,
            ngram_counts=[
                int(sizes[sizes < length].sum()) for length in range(1, int(sizes.max()) + 1)
            ],
            ngram_indexes=[tfidf.vocabulary_[ngram] for ngram in ngrams],
            pool_int64s=[ids[word] for ngram in ngrams for word in _words(tfidf, ngram)],
        ),
        helper.make_node("Cast", ["counts"], ["tf"], to=TensorProto.DOUBLE),
    ]


def _weighing(sublinear_tf: bool) -> list[onnx.NodeProto]:
    """Build the nodes from ``tf`` to ``features``, weighed and of unit length, in float32."""
    logarithm = [
        helper.make_node("Max", ["tf", "one"], ["at_least_one"]),
        helper.make_node("Log", ["at_least_one"], ["log"]),
        helper.make_node("Min", ["tf", "one"], ["seen"]),
        helper.make_node("Add", ["log", "seen"], ["weight"]),  # 1 + log(tf), and 0 for 0
    ]
    return [
        *(logarithm if sublinear_tf else []),
        helper.make_node("Mul", ["weight" if sublinear_tf else "tf", "idf"], ["tfidf"]),
        helper.make_node("ReduceL2", ["tfidf", "axis"], ["norm"], keepdims=1),
        helper.make_node("Max", ["norm", "tiny"], ["divisor"]),  # a text without features stays 0
        helper.make_node("Div", ["tfidf", "divisor"], ["unit"]),
        helper.make_node("Cast", ["unit"], ["features"], to=TensorProto.FLOAT),
    ]


def _words(tfidf: TfidfVectorizer, ngram: str) -> Sequence[str]:
    """Return the parts of an n-gram: its words, or its characters."""
    return ngram.split(" ") if tfidf.analyzer == "word" else ngram


if __name__ == "__main__":
    stage.run(main)
