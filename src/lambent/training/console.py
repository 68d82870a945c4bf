"""What a training tells the person who started it: a moving bar on a terminal, a line a validation elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import IO, Any


class Console:
    """Writes to standard error; quiet between validations unless it is a terminal.

    Args:
        stream: Where to; standard error by default.
        quiet: Says nothing at all.
    """

    def __init__(self, stream: IO[str] | None = None, *, quiet: bool = False) -> None:
        self.stream = sys.stderr if stream is None else stream
        self.quiet = quiet
        self._bar: Any = None
        self._task: Any = None
        self._started = time.monotonic()
        self._first = 0

    def say(self, text: str) -> None:
        """Prints a line of its own."""
        if self.quiet:
            return
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=self.stream, flush=True)

    def start(self, step: int, total: int) -> None:
        """The training goes from ``step`` to ``total``."""
        self._started, self._first = time.monotonic(), step
        if self.quiet or not self.stream.isatty():
            return
        from rich.console import Console as Terminal
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
        self._bar = Progress(*columns, console=Terminal(file=self.stream), transient=True)
        self._task = self._bar.add_task("", total=total, completed=step)
        self._bar.start()

    def row(self, row: Mapping[str, Any]) -> None:
        """Moves the bar on by a line of metrics."""
        if self._bar is not None:
            self._bar.update(self._task, completed=row["step"])
        if "train" in row and self._bar is not None:
            self._bar.update(self._task, description=_terms("train", row["train"]))

    def stop(self, step: int) -> str:
        """Takes the bar away; returns how long the training took until ``step``, "" if no step was taken."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        seconds = time.monotonic() - self._started
        done = step - self._first
        if not done:
            return ""
        return f"{done} steps in {seconds:.1f} s ({1000 * seconds / done:.2f} ms a step, validation included)"


def validation_line(row: Mapping[str, Any]) -> str:
    """A validation in one line; a star marks the best one so far."""
    return f"epoch {row['epoch']:g}  {_terms('valid', row['valid'])}{'  *' if _is_best(row) else ''}"


def _is_best(row: Mapping[str, Any]) -> bool:
    return bool(row.get("best_step") == row["step"])


def _terms(name: str, terms: Mapping[str, Any]) -> str:
    error = f" ± {terms['se']:.2f}" if "se" in terms else ""
    shown = f"{name} {terms['bound']:.3f}{error} nats ({terms['kind']})"
    return f"{shown}, rate {terms['rate']:.2f}, distortion {terms['distortion']:.2f}{_panel(terms)}"


def _panel(terms: Mapping[str, Any]) -> str:
    """Mutual information and active units, where they were looked at."""
    information = f", I(x;z) {terms['mutual_information']:.2f}" if "mutual_information" in terms else ""
    units = f", {terms['active_units']} of {terms['latent']} units active" if "active_units" in terms else ""
    return information + units + "".join(_codes(*level) for level in terms.get("codes", {}).items())


def _codes(name: str, found: Mapping[str, float]) -> str:
    """What a level's codebook was used for since the last line."""
    return f", {found['usage']:.0%} of codes {name} used, perplexity {found['perplexity']:.0f}"
