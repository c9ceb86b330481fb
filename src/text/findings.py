"""What is likely wrong with the data: a code and values for programs, a sentence for people."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# A JSON object: "code", and the values that the sentence of this code is made of. `quality` writes
# them into data/quality.json; whoever decides by one reads its code, and not its sentence.
Finding = dict[str, Any]

EXAMPLES = 5  # texts that the page shows for a figure


@dataclass
class Survey:
    """The figures of the data, and what is likely wrong with it.

    Attributes:
        source: where the texts come from.
        figures: numbers by name, in groups.
        findings: an entry for each thing that is likely wrong.
        examples: texts that show a figure, by its name.
    """

    source: list[str]
    figures: dict[str, Any]
    findings: list[Finding] = field(default_factory=list)
    examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def find(self, code: str, **values: Any) -> None:
        """Note something that is likely wrong, with the values that its sentence takes."""
        self.findings.append({"code": code, **values})

    def show(self, name: str, text: str) -> None:
        """Keep a text as an example, unless there are enough."""
        if len(self.examples[name]) < EXAMPLES:
            self.examples[name].append(text)


def sentence(finding: Mapping[str, Any]) -> str:
    """Say a finding in words, as plain text."""
    values = {name: value for name, value in finding.items() if name != "code"}
    return SENTENCES[finding["code"]](**values)


def _mojibake(texts: int) -> str:
    return (
        f"Texts that look as if they had been decoded wrongly (mojibake): {texts}. Was the file "
        "saved in one encoding and read in another before it came here?"
    )


def _directed(texts: int) -> str:
    return (
        f"Texts with invisible characters that turn the direction of writing or hide text: {texts}."
    )


def _repeated(texts: int, conflicting: int) -> str:
    return (
        f"Texts that are in an earlier row too: {texts}, {conflicting} of them with another label; "
        "other columns of these rows differ, so load kept them."
    )


def _small_classes(classes: int, fewest: int, example: str) -> str:
    return (
        f"Classes of fewer than {fewest} texts, too few for one on each side of the split: "
        f"{classes}, such as {example!r}; load.min_class_texts leaves them out."
    )


def _single_texts(classes: int, of: int) -> str:
    return f"{classes} of {of} classes have one text each: is the label a number or an id?"


def _imbalance(times: float) -> str:
    return (
        f"The largest class has {times:.0f} times the texts of the smallest: macro F1 says more "
        "than accuracy, and train.class_weight balanced may help."
    )


def _label_variants(labels: Sequence[str]) -> str:
    return (
        f"Labels {list(labels)} may be one: load.normalize_labels joins those that differ in case, "
        "spaces or Unicode form alone."
    )


def _unknown_tokens(part: str, share: float, checkpoint: str) -> str:
    return (
        f"{100 * share:.1f} % of the tokens of {_part(part)} are unknown to the tokenizer of "
        f"{checkpoint}: choose a checkpoint of these languages."
    )


def _letter_by_letter(part: str, characters: float, checkpoint: str) -> str:
    return (
        f"The tokenizer of {checkpoint} reads {_part(part)} nearly letter by letter, "
        f"{characters:.1f} characters a token: choose a checkpoint of these languages."
    )


def _part(name: str) -> str:
    """Name a part of the texts, such as "all" or "label=sport", in a sentence."""
    column, _, value = name.partition("=")
    return f"{column} {value!r}" if value else "the texts"


def _over_max_length(share: float, lost: float, max_length: int) -> str:
    return (
        f"{100 * share:.1f} % of the texts have more than {max_length} tokens, and "
        f"{100 * lost:.1f} % of all tokens are not read: raise train.max_length if accuracy is "
        "worth the time."
    )


def _unspaced(share: float) -> str:
    return (
        f"{100 * share:.0f} % of the texts have no spaces between words: make baseline.analyzer "
        "char."
    )


def _other_scripts(share: float, scripts: Sequence[str], expected: Sequence[str]) -> str:
    return (
        f"{100 * share:.0f} % of the letters are not of quality.scripts {list(expected)}, but of "
        f"{', '.join(scripts)}."
    )


def _leaks(words: Sequence[Mapping[str, str]]) -> str:
    told = ", ".join(f"{leak['word']!r} for {leak['label']!r}" for leak in words)
    return f"One word tells the label: {told}. Does the text hold its label?"


def _id_like(example: str) -> str:
    return f"The texts look like ids, such as {example!r:.60}: is load.text_column the right one?"


def _near_duplicates(texts: int, of: int) -> str:
    return (
        f"Texts that are nearly the same as an earlier one: {texts} of {of}; they may stand on two "
        "sides of the split and make the test look easier than it is."
    )


SENTENCES: dict[str, Callable[..., str]] = {
    "mojibake": _mojibake,
    "directed": _directed,
    "repeated": _repeated,
    "small_classes": _small_classes,
    "single_texts": _single_texts,
    "imbalance": _imbalance,
    "label_variants": _label_variants,
    "unknown_tokens": _unknown_tokens,
    "letter_by_letter": _letter_by_letter,
    "over_max_length": _over_max_length,
    "unspaced": _unspaced,
    "other_scripts": _other_scripts,
    "leaks": _leaks,
    "id_like": _id_like,
    "near_duplicates": _near_duplicates,
}
