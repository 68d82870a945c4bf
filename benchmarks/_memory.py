"""Peak memory of this process (Linux only)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def status(key: str) -> float:
    """A line of this process's status, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


def peak_growth(work: Callable[[], object]) -> float:
    """MiB by which ``work`` raises this process's peak over what it holds before."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    before = status("VmRSS")
    work()
    return status("VmHWM") - before


def available() -> float:
    """MiB that new work could take without swapping."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) / 1024
