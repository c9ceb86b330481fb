"""Faults that the data likely have: a code and values for programs, a sentence for people."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from src.tables.examples import fold

# A JSON object: "code", and the values that the sentence of this code is made of. `quality` writes
# them into data/quality.json; whoever decides by one reads its code, and not its sentence.
Finding = dict[str, Any]

EXAMPLES = 5  # texts that the page shows for a figure


@dataclass
class Survey:
    """The figures of the data, and what is likely wrong with it."""

    source: list[str]  # where the texts come from
    figures: dict[str, Any]  # numbers by name, in groups
    findings: list[Finding] = field(default_factory=list)  # one for each thing that is likely wrong
    # Texts that show a figure, by its name.
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


def _part(name: str) -> str:
    """Name a part of the texts, such as "all" or "label=sport", in a sentence."""
    column, _, value = name.partition("=")
    return f"{column} {value!r}" if value else "the texts"


# By code; a finding has the values that its sentence takes, and no others.
SENTENCES: dict[str, Callable[..., str]] = {
    "mojibake": lambda texts: (
        f"Texts that look as if they had been decoded wrongly (mojibake): {texts}. Was the file "
        "saved in one encoding and read in another before it came here?"
    ),
    "directed": lambda texts: (
        f"Texts with invisible characters that turn the direction of writing or hide text: {texts}."
    ),
    "repeated": lambda texts, conflicting: (
        f"Texts that are in an earlier row too: {texts}, {conflicting} of them with another label; "
        "other columns of these rows differ, so load kept them."
    ),
    "small_classes": lambda classes, fewest, example: (
        f"Classes of fewer than {fewest} texts, too few for one on each side of the split: "
        f"{classes}, such as {example!r}; load.min_class_texts leaves them out."
    ),
    "single_texts": lambda classes, of: (
        f"{classes} of {of} classes have one text each: is the label a number or an id?"
    ),
    "imbalance": lambda times: (
        f"The largest class has {times:.0f} times the texts of the smallest: macro F1 says more "
        "than accuracy, and train.class_weight balanced may help."
    ),
    "label_variants": lambda labels: (
        f"Labels {list(labels)} may be one: "
        + (
            "load.normalize_labels joins those that differ in case, spaces or Unicode form alone."
            if len(set(map(fold, labels))) < len(labels)
            else "write them alike in the source, if they are."
        )
    ),
    "unknown_tokens": lambda part, share, checkpoint: (
        f"{100 * share:.1f} % of the tokens of {_part(part)} are unknown to the tokenizer of "
        f"{checkpoint}: choose a checkpoint of these languages."
    ),
    "letter_by_letter": lambda part, characters, checkpoint: (
        f"The tokenizer of {checkpoint} reads {_part(part)} nearly letter by letter, "
        f"{characters:.1f} characters a token: choose a checkpoint of these languages."
    ),
    "over_max_length": lambda share, lost, max_length: (
        f"{100 * share:.1f} % of the texts have more than {max_length} tokens, and "
        f"{100 * lost:.1f} % of all tokens are not read: raise probe.max_length if accuracy is "
        "worth the time."
    ),
    "unspaced": lambda share: (
        f"{100 * share:.0f} % of the texts have no spaces between words: make baseline.analyzer "
        "char."
    ),
    "long_words": lambda texts, longest: (
        f"Texts of one word of more than {longest} characters, of which a tokenizer knows little: "
        f"{texts}. Are they encoded, or the spaces lost?"
    ),
    "other_scripts": lambda share, scripts, expected: (
        f"{100 * share:.0f} % of the letters are not of quality.scripts {list(expected)}, but of "
        f"{', '.join(scripts)}."
    ),
    "leaks": lambda words: (
        "One word tells the label: "
        + ", ".join("{word!r} for {label!r}".format(**leak) for leak in words)
        + ". Does the text hold its label?"
    ),
    "id_like": lambda example: (
        f"The texts look like ids, such as {example!r:.60}: is load.text_column the right one?"
    ),
    "near_duplicates": lambda texts, of: (
        f"Texts that are nearly the same as an earlier one: {texts} of {of}; they may stand on two "
        "sides of the split and make the test look easier than it is."
    ),
}
