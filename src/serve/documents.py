"""The documents that questions are asked about: indexed once, and again when they change."""

from pathlib import Path

from src.predict.reader.library import Library, listed, read_library


class Documents:
    """A folder of documents, and what was read of it last.

    Attributes:
        name: for the log.
        now: what is asked about; a reload makes another, and a request keeps the one it began with.
    """

    def __init__(self, place: Path) -> None:
        """Read the documents.

        Raises:
            InputError: there is none that can be read.
        """
        self.name = f"documents of {place}"
        self._place = place
        self._tried = self._latest = listed(place)
        self.now: Library = read_library(place)

    def settled_on_another(self) -> bool:
        """Tell whether documents differ from those last read, and none changed since last asked."""
        before, self._latest = self._latest, listed(self._place)
        return before == self._latest != self._tried

    def reload(self) -> None:
        """Read the documents anew and swap; what was read stays if there is none any more.

        Raises:
            InputError: as on the first load.
        """
        self._tried = listed(self._place)
        self.now = read_library(self._place)
