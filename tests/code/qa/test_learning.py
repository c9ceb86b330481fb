"""What a reader learns from, and the loss of each objective."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from qa_model import PARAMS, make_encoder
from tokenizers import Tokenizer

pytestmark = pytest.mark.skipif(not PARAMS, reason="this clone has no such pipeline")

if PARAMS:
    from src.predict.reader.index import Index
    from src.predict.reader.windows import Pairs
    from src.qa import dividing, learning, retrieval, training
    from src.qa.answering import located
    from src.qa.learning import Group, Groups
    from src.qa.squad import Answer, Paragraph, Question, Questions

BOOK = [("a", "the port is v1 ."), ("a", "the port of b is v2 ."), ("b", "the name is v3 .")]


def asked(text: str, paragraph: int, *answers: str) -> "Question":
    context = BOOK[paragraph][1]
    spans = tuple(Answer(answer, context.index(answer)) for answer in answers)
    return Question(f"{text}-{paragraph}", text, paragraph, spans)


def book(*questions: "Question") -> "Questions":
    paragraphs = [Paragraph(name, text, "paragraph 1") for name, text in BOOK]
    return Questions(paragraphs, list(questions))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> "Pairs":
    folder = make_encoder(tmp_path_factory.mktemp("encoder") / "made")
    return Pairs(Tokenizer.from_file(str(folder / "tokenizer.json")), 64, 8, 16)


def test_an_answer_becomes_the_tokens_that_hold_it_by_how_many_people_gave_it(
    pairs: "Pairs",
) -> None:
    question = asked("what is the port ?", 0, "v1", "v1", "is v1")
    (group,) = learning.groups(book(question), pairs, "paragraph", 0)
    (target,) = group.targets
    first = target.window.at
    assert target.spans == {(first + 3, first + 3): 2 / 3, (first + 2, first + 3): 1 / 3}
    cut = Question("x", "what ?", 0, (Answer("ort i", 5),))
    (group,) = learning.groups(book(cut), pairs, "paragraph", 0)
    (target,) = group.targets
    assert target.spans == {(target.window.at + 1, target.window.at + 2): 1.0}, "whole tokens"


def test_each_objective_has_its_groups(pairs: "Pairs") -> None:
    questions = book(asked("the port ?", 0, "v1"), asked("the size ?", 2))
    (alone,) = learning.groups(questions, pairs, "paragraph", 2)
    assert len(alone.targets) == 1, "a question without an answer teaches nothing"
    assert not alone.targets[0].null
    single = learning.groups(questions, pairs, "no_answer", 1)
    assert [len(group.targets) for group in single] == [1, 1, 1, 1]
    assert [bool(group.targets[0].spans) for group in single] == [True, False, False, False]
    assert all(group.targets[0].null for group in single)
    (shared,) = learning.groups(questions, pairs, "shared", 2)
    assert [bool(target.spans) for target in shared.targets] == [True, False, False]
    index = Index(questions.texts)
    wrong = learning.misleading(index, questions, questions.questions[0])
    assert wrong[0] == 1, "of those without the answer, the one that looks most like it"


def loss_of(groups: list["Group"], logits: torch.Tensor) -> float:
    rows = [Groups(groups)[k] for k in range(len(groups))]
    batch = learning.collate(rows, 0, True)
    outputs = {"start_logits": logits[..., 0], "end_logits": logits[..., 1]}
    return float(learning.loss(outputs, batch["labels"]))


@pytest.mark.parametrize("objective", ["paragraph", "no_answer", "shared"])
def test_the_loss_is_the_cross_entropy_over_what_the_objective_compares(
    objective: Any, pairs: "Pairs"
) -> None:
    question = asked("the port ?", 0, "v1", "is v1")
    groups = learning.groups(book(question), pairs, objective, 1)
    targets = [target for group in groups for target in group.targets]
    longest = max(len(target.window.ids) for target in targets)
    logits = torch.randn(
        len(targets), longest, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    wanted, row = [], 0
    for group in groups:
        places = []
        for target in group.targets:
            window = target.window
            allowed = [*range(window.at, window.at + window.length)] + [0] * target.null
            places += [(row, k) for k in allowed]
            row += 1
        for side in (0, 1):
            share: dict[tuple[int, int], float] = {}
            for k, target in enumerate(group.targets, row - len(group.targets)):
                for span, weight in (
                    target.spans or ({(0, 0): 1.0} if target.null else {})
                ).items():
                    share[k, span[side]] = share.get((k, span[side]), 0.0) + weight
            total = np.logaddexp.reduce([float(logits[place][side]) for place in places])
            wanted.append(sum(w * (total - float(logits[at][side])) for at, w in share.items()))
    assert loss_of(groups, logits.float()) == pytest.approx(sum(wanted) / 2 / len(groups), rel=1e-4)


def test_an_answer_is_found_where_it_is_or_what_is_most_like_it() -> None:
    context = "Fees of two euros, and later of Two  Euros, fall due."
    assert located(context, "two euros", 8, 0.5) == (Answer("two euros", 8), "right")
    assert located(context, " two euros", 7, 0.5) == (Answer("two euros", 8), "right")
    assert located(context, "euros", 9, 0.5) == (Answer("euros", 12), "moved")
    assert located(context, "of", 30, 0.5) == (Answer("of", 29), "moved"), "the nearest"
    assert located(context, "two  euros", None, 0.5) == (Answer("two euros", 8), "respelt")
    assert located(context, "FALL DUE", None, 0.5) == (Answer("fall due", 44), "respelt")
    assert located(context, "two euros later", None, 0.5)[1] == "mapped"
    assert located(context, "fees in euros", None, 0.9) == (None, "dropped")
    assert located(context, "...", None, 0.0) == (None, "dropped")
    assert located("黑豹队的防守", "豹队防守", None, 0.5) == (Answer("豹队的防守", 1), "mapped")


def test_documents_stay_whole_and_long_paragraphs_are_cut_with_their_answers() -> None:
    questions = book(asked("p ?", 0, "v1"), asked("q ?", 1, "v2"), asked("r ?", 2, "v3"))
    kept, drawn = dividing.by_document(questions, 0.3, 0, "x.size")
    assert {kept.documents()[0], drawn.documents()[0]} == {"a", "b"}
    assert len(kept.questions) + len(drawn.questions) == 3
    assert all(one.text in ("p ?", "q ?", "r ?") for one in kept.questions)
    whole = dividing.by_document(questions, 0, 0, "x.size")
    assert (len(whole[0].questions), len(whole[1].questions)) == (3, 0)

    text = "One is here. Two is there. Three is where?"
    long = Questions(
        [Paragraph("a", text, "paragraph 1")],
        [
            Question("1", "?", 0, (Answer("there", 20),)),
            Question("2", "?", 0, (Answer("here. Two", 7),)),
            Question("3", "?", 0, ()),
        ],
    )
    short, lost = dividing.shortened(long, 20)
    assert "".join(one.text for one in short.paragraphs) == text
    assert [one.id for one in lost] == ["2"]
    for one in short.questions:
        for answer in one.answers:
            part = short.paragraphs[one.paragraph].text
            assert part[answer.start : answer.start + len(answer.text)] == answer.text == "there"
    assert short.paragraphs[1].place == "paragraph 1, part 2"


def test_what_two_sets_share_is_found() -> None:
    text = "this is a paragraph of more than eight words, which a test has as well"
    ours = Questions([Paragraph("a", text, ""), Paragraph("a", "something else", "")], [])
    theirs = Questions([Paragraph("b", text.upper().replace("well", "bad"), "")], [])
    assert dividing.leaks(ours, [theirs]) == [0]
    assert dividing.leaks(ours, []) == []
    assert [one.text for one in dividing.without(ours, [0]).paragraphs] == ["something else"]


def test_similar_documents_are_drawn_first() -> None:
    questions = book(asked("p ?", 0, "v1"), asked("q ?", 1, "v2"), asked("r ?", 2, "v3"))
    like = Questions([Paragraph("x", "a name it is, name", "")], [])
    assert [one.text for one in training.drawn(questions, 1, like, 0).questions] == ["r ?"]
    assert len(training.drawn(questions, 2, None, 0).questions) == 2
    assert training.drawn(questions, 0, None, 0) is questions


def test_a_file_holds_all_that_was_written(tmp_path: Path) -> None:
    questions = book(asked("p ?", 0, "v1", "is v1"), asked("q ?", 2))
    questions.write(tmp_path / "x.json")
    again = Questions.read(tmp_path / "x.json")
    assert (again.paragraphs, again.questions) == (questions.paragraphs, questions.questions)


def read_of(*spans: tuple[int, float, float, float], own: int = 0) -> "retrieval.Read":
    """A question with paragraphs in their order: row, logit, null and log-probability of each."""
    from src.predict.reader.spans import Span

    found = {row: Span(0, 2, logit, null, share) for row, logit, null, share in spans}
    question = Question("x", "?", own, (Answer("v1", 12),))
    wrong = next((span for row, span in found.items() if row != own), None)
    return retrieval.Read(question, [row for row, *_ in spans], found, wrong)


def test_the_three_scores_choose_each_its_own_and_reading_can_end_early() -> None:
    one = read_of((2, 9.0, 8.5, -0.1), (1, 8.0, 6.0, -2.0), (0, 5.0, 0.0, -1.0))
    chosen = {score: one.best(3, score) for score in retrieval.SCORES}
    assert {score: best[0] for score, best in chosen.items() if best} == {
        "softmax": 2,
        "logit": 2,
        "minus_null": 0,
    }
    best = one.best(2, "minus_null")
    assert best is not None
    assert best[0] == 1
    assert one.until(1.5)[0] == 2
    assert one.until(4.0)[0] == 3
    assert one.until(99.0)[0] == 3


def test_probabilities_and_the_threshold_are_those_of_validation() -> None:
    unsure = [read_of((1, 1.0 + k / 10, 0.0, 0.0), (0, 0.5, 0.0, 0.0)) for k in range(10)]
    sure = [read_of((0, 5.0 + k / 10, 0.0, 0.0), (1, 0.2, 0.0, 0.0)) for k in range(10)]
    texts = Questions([Paragraph("a", "v1 v2", ""), Paragraph("a", "no", "")], [])
    fit = retrieval.fitted(texts, unsure + sure, "words")
    assert fit.probability(5.5) > 0.9 > 0.1 > fit.probability(1.0)
    assert fit.probability(fit.score(0.7)) == pytest.approx(0.7)
    limit = retrieval.threshold(sure)
    assert 0.2 < limit < 5.0
    assert retrieval.answerability(sure, limit) == {"auc": 1.0, "answered": 1.0, "refused": 1.0}
    none = retrieval.fitted(texts, unsure, "words")
    assert none.probability(1.0) == pytest.approx(1 / 12), "as if one more had been right"
    assert none.score(0.9) == float("inf")


def test_attention_with_a_shorter_way_back_gives_the_same(tmp_path: Path) -> None:
    from transformers import AutoModelForQuestionAnswering

    from src.qa import attention

    folder = make_encoder(tmp_path / "made")
    auto: Any = AutoModelForQuestionAnswering
    ids = torch.randint(5, 40, (3, 20), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(ids)
    mask[1, 12:] = 0
    results = []
    for shorter in (False, True):
        torch.manual_seed(1)
        model = auto.from_pretrained(folder)
        for part in model.modules():
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.0
        if shorter:
            assert attention.shorten(model)
        model.train()
        outputs = model(input_ids=ids, attention_mask=mask)
        outputs.start_logits[mask.bool()].square().sum().backward()
        weight = model.base_model.embeddings.word_embeddings.weight.grad
        model.eval()
        with torch.inference_mode():
            read = model(input_ids=ids, attention_mask=mask).start_logits
        results.append((outputs.start_logits[mask.bool()].detach(), weight, read[mask.bool()]))
    for before, after in zip(*results, strict=True):
        torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-5)
    assert not attention.shorten(SimpleNamespace(config=SimpleNamespace(model_type="xlnet")))
