"""Processes and devices: the only place that knows how many there are.

Everything else asks for a rank, a device and a sum over processes. ``torchrun`` is the launcher; without it there is
one process.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lambent.errors import ConfigError


@dataclass(frozen=True)
class Engine:
    """One process's view of the run.

    Attributes:
        device: Where the model and its batches live.
        rank: This process's number.
        world: Number of processes.
    """

    device: torch.device
    rank: int = 0
    world: int = 1
    fabric: Any = None

    @property
    def leader(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def sum(self, value: Tensor) -> Tensor:
        """The sum of ``value`` over processes, on each of them; in place where there are several."""
        if self.world > 1:
            torch.distributed.all_reduce(value)
        return value

    def barrier(self) -> None:
        """Waits until every process has come here."""
        if self.world > 1:
            self.fabric.barrier()

    def stop(self) -> None:
        """Leaves the process group."""
        if self.world > 1 and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


@contextlib.contextmanager
def running_engine(device: str = "auto") -> Iterator[Engine]:
    """The engine of this process for the time of a ``with``; see `start_engine`."""
    engine = start_engine(device)
    try:
        yield engine
    finally:
        engine.stop()


def start_engine(device: str = "auto") -> Engine:
    """The engine of this process: joined to its group under ``torchrun``, alone otherwise.

    Raises:
        ConfigError: a device that isn't there.
    """
    chosen = choose_device(device)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Engine(chosen)
    from lightning_fabric import Fabric

    local = int(os.environ.get("LOCAL_WORLD_SIZE", str(world)))
    accelerator = "cuda" if chosen.type == "cuda" else "cpu"
    fabric = Fabric(accelerator=accelerator, devices=local, num_nodes=world // local, strategy="ddp")
    fabric.launch()
    return Engine(fabric.device, fabric.global_rank, fabric.world_size, fabric)


def choose_device(device: str) -> torch.device:
    """``auto`` is a GPU where there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"train.device={device!r} is no device; use auto, cpu, cuda or cuda:N") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"train.device={device!r}: no CUDA device is available here; use cpu or auto")
    if chosen.type not in ("cpu", "cuda"):
        raise ConfigError(f"train.device={device!r} is not supported; use auto, cpu, cuda or cuda:N")
    return chosen


def choose_threads(asked: int | None) -> int:
    """Torch threads: as asked, else as OMP_NUM_THREADS says, else the processors at hand up to 4.

    Networks of this kind gain little beyond a few threads, and lose much where other work shares the processors.
    """
    if asked is not None:
        return asked
    from_environment = os.environ.get("OMP_NUM_THREADS", "")
    return int(from_environment) if from_environment.isdigit() else min(4, processors())


def processors() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
