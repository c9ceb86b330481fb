"""Count words, by which a reader without a model finds answers: what others have to beat."""

from pathlib import Path

from src.core import stage
from src.core.command_line import Natural
from src.core.files import replacing
from src.qa.squad import Questions
from src.qa.wording import Wording


def main(sets: Path, model: Path, *, max_paragraphs: Natural) -> None:
    """Write the folder of a reader by words.

    Args:
        sets: the folder with ``train.json``, whose words are counted.
        model: the folder that gets them.
    """
    train = Questions.read(sets / "train.json")
    most = max_paragraphs or len(train.paragraphs)
    with replacing(model) as folder:
        Wording.of(train.at(range(min(most, len(train.paragraphs))))).write(folder)


if __name__ == "__main__":
    stage.run(main)
