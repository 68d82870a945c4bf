"""Who hears of a training: the run folder, the console, the memory of a run without a folder; and the signals."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from torch import Tensor

from lambent.storage import checkpoint
from lambent.storage.metrics import MetricsWriter
from lambent.storage.run_folder import RunFolder
from lambent.training.console import Console
from lambent.training.engine import Engine
from lambent.training.loop import Trainer
from lambent.training.optimizer_state import optimizer_tensors
from lambent.training.progress import Progress


@dataclass
class Recorder:
    """Hears of the training for the run folder and the console; keeps the best weights of a run in memory."""

    engine: Engine
    keep: int
    folder: RunFolder | None
    console: Console
    trainer: Trainer | None = None
    metrics: MetricsWriter | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Tensor] | None = None
    best_step: int = 0
    signal: int = 0

    def record(self, row: Mapping[str, Any]) -> int:
        """A line of metrics to the file, the console, and the memory."""
        if row.get("best_step") == row["step"]:
            self._keep_best(row["step"])
        if not self.engine.leader:
            return 0
        self.console.row(row)
        self.rows.append(dict(row))
        if self.metrics is None:
            return 0
        self.metrics.write(row)
        return self.metrics.offset

    def _keep_best(self, step: int) -> None:
        assert self.trainer is not None
        if self.folder is None:
            self.best = {k: v.clone() for k, v in self.trainer.measured.state_dict().items()}
            self.best_step = step

    def save(self, progress: Progress) -> None:
        """A checkpoint, and the removal of those no longer needed."""
        if self.folder is None or not self.engine.leader:
            return
        assert self.trainer is not None
        assert self.metrics is not None
        self.metrics.sync()
        tensors = {
            "model": self.trainer.model.state_dict(),
            "optimizer": optimizer_tensors(self.trainer.optimizer, self.trainer.model.named_parameters()),
        }
        if self.trainer.average is not None:
            tensors["ema"] = self.trainer.average.model.state_dict()
        checkpoint.save(self.folder.path, progress.step, tensors, {"progress": progress.to_state()})
        for problem in checkpoint.prune(self.folder.path, self.keep, {progress.best_step}):
            self.console.say(problem)

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
