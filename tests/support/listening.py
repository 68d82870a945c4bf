"""Trainings whose console is the test's own: what was said, and when."""

from unittest.mock import patch

import lambent
from lambent.training.console import Console


class Heard(Console):
    """Keeps what was said."""

    def __init__(self):
        super().__init__(quiet=True)
        self.lines = []

    def say(self, text):
        self.lines.append(text)
        super().say(text)

    @property
    def warnings(self):
        return [line for line in self.lines if line.startswith("warning")]


def fit_heard(console, *args, **settings):
    """`lambent.fit` with ``console`` in place of the terminal's."""
    with patch("lambent.runs.fit.Console", lambda **_: console):
        return lambent.fit(*args, **settings)
