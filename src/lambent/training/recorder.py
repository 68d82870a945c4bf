"""The listener of a run: its folder, the console, the memory of a run without a folder; and the signals."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from torch import Tensor

from lambent.models import LatentModel
from lambent.storage import checkpoint
from lambent.storage.metrics import LogWriter, MetricsWriter
from lambent.storage.run_folder import RunFolder
from lambent.training.console import Console, validation_line
from lambent.training.listener import Listener, TrainingState


@dataclass(frozen=True, eq=False)
class RunFiles:
    """The open files of a run folder.

    Attributes:
        folder: The run folder, claimed by this process.
        metrics: Writes ``metrics.jsonl``.
        log: Writes ``log.txt``.
        keep: Number of newest checkpoints to keep, beside the best one.
    """

    folder: RunFolder
    metrics: MetricsWriter
    log: LogWriter
    keep: int

    def save(self, state: TrainingState) -> tuple[str, ...]:
        """Writes a checkpoint, removes those no longer needed, and returns what went wrong in removing them."""
        self.metrics.sync()
        progress = state.progress
        checkpoint.save(self.folder.path, progress.step, state.tensors, {"progress": progress.to_state()})
        return checkpoint.prune(self.folder.path, self.keep, {progress.best_step})


@dataclass(eq=False)
class Recorder(Listener):
    """Writes a training to its files and the console; without files it keeps rows and best weights in memory.

    Attributes:
        console: The terminal.
        leader: Whether this process is the one that writes and speaks.
        files: The run's files, open; None in other processes, and for a run without a folder.
        in_memory: Whether the run has no folder, so that its best weights are kept here.
    """

    console: Console
    leader: bool = True
    files: RunFiles | None = None
    in_memory: bool = True
    rows: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Tensor] | None = None
    best_step: int = 0
    signal: int = 0

    def say(self, text: str) -> None:
        """Prints a line, and writes it to the log."""
        if not self.leader:
            return
        if self.files is not None:
            self.files.log.write(text)
        self.console.say(text)

    warn = say

    def record(self, row: Mapping[str, Any]) -> int:
        """Writes a line of metrics, shows it, and keeps it in memory."""
        if not self.leader:
            return 0
        self.console.row(row)
        if "valid" in row:
            self.say(validation_line(row))
        self.rows.append(dict(row))
        if self.files is None:
            return 0
        self.files.metrics.write(row)
        return self.files.metrics.offset

    def improved(self, step: int, model: LatentModel) -> None:
        """Keeps the weights of a run without a folder."""
        if self.in_memory:
            self.best = {name: value.clone() for name, value in model.state_dict().items()}
            self.best_step = step

    def save(self, state: TrainingState) -> None:
        """Writes a checkpoint, where there is a folder."""
        if self.files is not None:
            for problem in self.files.save(state):
                self.say(problem)

    def interrupted(self) -> int:
        """The signal that asked for a stop."""
        return self.signal


@contextlib.contextmanager
def stopped_by_signals(recorder: Recorder) -> Iterator[None]:
    """SIGINT, SIGTERM and SIGUSR1 end the step and save; a second one stops at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

    def handle(number: int, frame: FrameType | None) -> None:
        if recorder.signal:
            raise KeyboardInterrupt
        recorder.signal = number

    before = {n: signal.signal(n, handle) for n in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
