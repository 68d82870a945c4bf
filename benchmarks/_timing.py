"""Timings that can be compared: contenders take turns in one process, and ratios are taken round by round."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

Contender = Callable[[], float]
"""Runs one stretch of work and returns seconds per unit of it (a step, an image)."""


def machine_line(threads: int) -> str:
    """What the numbers were taken on; the load tells how busy the machine was with other work."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    load = " ".join(f"{x:.1f}" for x in os.getloadavg())
    return f"{cpu}, {os.cpu_count()} processors, {threads} torch threads, torch {torch.__version__}, load {load}"


def per_unit(work: Callable[[], object], units: int) -> float:
    """Seconds per unit of one run of ``work``."""
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) / units


def interleaved(contenders: Mapping[str, Contender], rounds: int) -> dict[str, list[float]]:
    """Seconds per unit, by contender and round; a round that isn't counted comes first.

    The order rotates, so that nobody always follows the same neighbour (caches, clock rate).
    """
    names = list(contenders)
    for name in names:
        contenders[name]()
    times: dict[str, list[float]] = {name: [] for name in names}
    for i in range(rounds):
        shift = i % len(names)
        for name in names[shift:] + names[:shift]:
            times[name].append(contenders[name]())
    return times


def speedups(slow: Sequence[float], fast: Sequence[float]) -> list[float]:
    """How many times faster ``fast`` was, in each round."""
    return [a / b for a, b in zip(slow, fast, strict=True)]


def spread(values: Sequence[float], form: str = "7.3f") -> str:
    """Median, and the least and the greatest."""
    return f"{statistics.median(values):{form}} [{min(values):{form}} -{max(values):{form}}]"


def table(times: Mapping[str, Sequence[float]], baseline: str, unit: str = "step") -> str:
    """A line a contender: milliseconds per unit, and its speed over the baseline's (median of the rounds' ratios)."""
    width = max(map(len, times))
    lines = [f"{'':{width}}  ms per {unit}, median [min - max]   speed over {baseline!r}"]
    for name, seconds in times.items():
        ratios = speedups(times[baseline], seconds)
        lines.append(f"{name:{width}}  {spread([1e3 * s for s in seconds])}   {spread(ratios, '5.2f')}")
    return "\n".join(lines)


def verdict(what: str, found: float, least: float) -> str:
    """A figure beside what was aimed for."""
    return f"{'ok  ' if found >= least else 'MISS'}  {what}: {found:.2f} (aim: at least {least:g})"
