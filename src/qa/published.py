"""Figures that others published, to stand beside ours: EM and F1 in percent."""

from typing import NamedTuple

SHIFTS = "Miller et al., SQuADShifts, 2020: results.json"
EXPLORER = "answers in rajpurkar/SQuAD-explorer, models/1.1, judged here"


class Published(NamedTuple):
    """What a system that was trained on SQuAD 1.1 reaches on a set."""

    system: str
    set: str
    exact_match: float
    f1: float
    source: str


PUBLISHED = (
    Published("logistic regression", "XQuAD, English", 34.5, 45.9, EXPLORER),
    Published("Match-LSTM (boundary, ensemble)", "XQuAD, English", 61.1, 72.7, EXPLORER),
    Published("SLQA+ (ensemble)", "XQuAD, English", 72.2, 82.8, EXPLORER),
    Published("R-NET+ (ensemble)", "XQuAD, English", 72.8, 83.4, EXPLORER),
    Published("BERT (ensemble)", "XQuAD, English", 74.9, 86.3, EXPLORER),
    Published("BiDAF (AllenNLP)", "SQuADShifts, Reddit", 44.4, 59.6, SHIFTS),
    Published("ReasoNet", "SQuADShifts, Reddit", 47.4, 62.5, SHIFTS),
    Published("BiDAF + self-attention", "SQuADShifts, Reddit", 50.7, 65.8, SHIFTS),
    Published("BERT (base)", "SQuADShifts, Reddit", 65.4, 78.1, SHIFTS),
    Published("BiDAF (AllenNLP)", "SQuADShifts, Amazon", 39.8, 56.2, SHIFTS),
    Published("ReasoNet", "SQuADShifts, Amazon", 40.9, 57.8, SHIFTS),
    Published("BiDAF + self-attention", "SQuADShifts, Amazon", 45.2, 61.2, SHIFTS),
    Published("BERT (base)", "SQuADShifts, Amazon", 62.3, 77.1, SHIFTS),
)
