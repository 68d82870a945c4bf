"""Trainings whose console is the test's own: what was said, and when."""

from dataclasses import dataclass
from unittest.mock import patch

import lambent
from lambent.training.console import Console
from lambent.training.listener import Listener
from lambent.training.loop import Trainer


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


@dataclass
class Watched:
    """A trainer and the listener of its run."""

    trainer: Trainer
    listener: Listener

    def run(self):
        return self.trainer.run(self.listener)

    @property
    def progress(self):
        return self.trainer.progress

    @property
    def model(self):
        return self.trainer.model
