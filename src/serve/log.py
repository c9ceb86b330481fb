"""A log that clients can neither fill nor stop."""

import logging
import os
import select
import sys
import time
from collections import Counter

MOST = 10  # lines from one place in the code, in
WINDOW = 10.0  # seconds


class Lines(logging.Handler):
    """Lines of a log, of which those are left out that come too often or would have to wait.

    The next line tells how many were left out.
    """

    def __init__(self, file: int) -> None:
        """Write to a file descriptor."""
        super().__init__()
        self._file = file
        self._ready = select.poll()
        self._ready.register(file, select.POLLOUT)
        self._left_out = 0
        self._since = -WINDOW
        self._seen: Counter[tuple[str, int]] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, or leave it out."""
        now = time.monotonic()
        if now - self._since >= WINDOW:
            self._since = now
            self._seen.clear()
        place = record.pathname, record.lineno
        self._seen[place] += 1
        try:
            line = self.format(record)
        except Exception:  # as every handler does, so that a wrong line of the log ends no request
            self.handleError(record)
            return
        if self._left_out:
            line = f"{self._left_out} lines of this log were left out\n{line}"
        if self._seen[place] <= MOST and self._write(f"{line}\n".encode(errors="replace")):
            self._left_out = 0
        else:
            self._left_out += 1

    def _write(self, line: bytes) -> bool:
        """Write a line without waiting for its reader; tell whether it is all there."""
        for start in range(0, len(line), select.PIPE_BUF):  # what never waits if poll says so
            if not self._ready.poll(0):
                return False
            try:
                os.write(self._file, line[start : start + select.PIPE_BUF])
            except OSError:  # the reader has gone, or the disk is full
                return False
        return True


def start() -> None:
    """Write the log by `Lines` to standard error, in the format that it has."""
    root = logging.getLogger()
    lines = Lines(sys.stderr.fileno())
    lines.setFormatter(root.handlers[0].formatter)
    root.handlers = [lines]
