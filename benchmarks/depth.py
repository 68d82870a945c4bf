"""The cost of a level: time and peak memory of a training step against depth, with straight lines through them.

Systems of levels that are all alike (10 latents each, networks of 100 units; on images 4 channels of latents, of 16
of features), on images of 8 x 8, batches of 50: a chain inferred upwards, a fully connected ladder, a ladder of maps at
two resolutions. Time is processor time of one thread, so that other work on the machine counts for little, the least
of --rounds rounds, the systems and depths taking turns. Memory is the growth of a fresh process's peak from before the
model is built to after three steps: weights, Adam's two moments, gradients, and what the step holds.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from _memory import peak_growth
from _timing import machine_line

DEPTHS = (2, 5, 10, 20, 40)
BATCH, STEPS = 50, 3
VECTORS = ("encoder.hidden=[100]", "decoder.hidden=[100]", "latent=10")
MAPS = ("encoder=conv", "decoder=conv", "encoder.channels=[16,16]", "decoder.channels=[16]", "encoder.smallest=4")
SYSTEMS = ("chain", "ladder", "image-ladder")


def settings(system: str, levels: int) -> tuple[str, ...]:
    above = f"upper_latents={[10] * (levels - 1)}"
    return {
        "chain": ("model=chain", above, *VECTORS),
        "ladder": ("model=ladder", "posterior=residual-normal", above, *VECTORS),
        "image-ladder": (
            "model=image-ladder",
            "posterior=residual-normal",
            f"model.levels_per_scale=[{levels // 2},{levels - levels // 2}]",
            "latent=4",
            *MAPS,
        ),
    }[system]


def stepper(system: str, levels: int) -> Callable[[], None]:
    """One training step of the system at every call."""
    from lambent.data import Dataset
    from lambent.recipes import configure
    from lambent.runs.session import open_session
    from lambent.training.engine import start_engine

    common = ("data.binarize=none", f"batch_size={BATCH}", "device=cpu", "grad_clip=100", "grad_spike_factor=10")
    config = configure("vae", tokens=(*settings(system, levels), *common))
    x = torch.bernoulli(torch.full((500, 1, 8, 8), 0.3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    data = Dataset(x, levels=2)
    session = open_session(config, data, data.head(BATCH), start_engine("cpu"), torch.get_num_threads())
    trainer = session.trainer()
    trainer.model.train()
    return trainer.step


def steps(step: Callable[[], None], count: int = STEPS) -> None:
    for _ in range(count):
        step()


def growth(system: str, levels: int) -> float:
    """MiB that building the system and three steps add to a fresh process's peak."""
    command = [sys.executable, __file__, "--child", system, "--depths", str(levels)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def child(system: str, levels: int) -> float:
    steps(stepper("chain", 1))  # what any first training allocates
    return peak_growth(lambda: steps(stepper(system, levels)))


def times(depths: Sequence[int], rounds: int) -> dict[tuple[str, int], float]:
    """Seconds of processor time a step: the least of the rounds."""
    contenders = {(system, levels): stepper(system, levels) for system in SYSTEMS for levels in depths}
    least = dict.fromkeys(contenders, float("inf"))
    for round_ in range(rounds + 1):
        for key, step in contenders.items():
            begun = time.process_time()
            steps(step)
            if round_:  # the first isn't counted
                least[key] = min(least[key], (time.process_time() - begun) / STEPS)
    return least


def line(depths: Sequence[int], values: Sequence[float]) -> tuple[float, float, float]:
    """Start, slope and R^2 of the straight line of least squares."""
    slope, start = np.polyfit(depths, values, 1)
    left = np.asarray(values) - (start + slope * np.asarray(depths))
    return float(start), float(slope), float(1 - left.var() / np.var(values))


def plot(found: Mapping[str, Mapping[str, Sequence[float]]], depths: Sequence[int], out: Path) -> None:
    from lambent.report.drawing import CLASSES, MARKERS, write_figure

    def painter(unit: str, label: str) -> Callable[[Any], None]:
        def paint(axes: Any) -> None:
            for system, colour, marker in zip(SYSTEMS, CLASSES[1:], MARKERS, strict=False):
                start, slope, _ = line(depths, found[unit][system])
                ends = np.array([0.0, max(depths)])
                axes.plot(ends, start + slope * ends, color=colour, linewidth=1)
                axes.plot(depths, found[unit][system], marker, color=colour, markersize=5, label=system)
            axes.set(xlabel="levels of latents", ylabel=label, xlim=(0, 1.03 * max(depths)))
            axes.set_ylim(bottom=0)
            axes.legend(loc="upper left")

        return paint

    paints = [painter("ms", "processor time of a step, ms"), painter("MiB", "growth of peak memory, MiB")]
    note = f"Batches of {BATCH} images of 8 x 8, one thread; straight lines of least squares."
    write_figure(paints, out, title="A level costs the same at any depth", note=note, size=(8.6, 3.6))


def report(found: Mapping[str, Mapping[str, Sequence[float]]], depths: Sequence[int]) -> None:
    for unit, what in (("ms", "processor time a step"), ("MiB", "growth of peak memory")):
        print(f"\n{what}, {unit}, at levels:{''.join(f'{d:>9}' for d in depths)}     a level      R^2")
        for system in SYSTEMS:
            _, slope, fit = line(depths, found[unit][system])
            values = "".join(f"{value:9.2f}" for value in found[unit][system])
            print(f"{system:{len(what) + len(unit) + 14}}{values}   {slope:9.3f}   {fit:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depths", type=int, nargs="+", default=list(DEPTHS), help="levels of latents")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="where to draw the picture: .svg or .png")
    parser.add_argument("--child", choices=SYSTEMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.child:
        print(child(options.child, options.depths[0]))
        return
    print(machine_line(1), flush=True)
    memory = {system: [growth(system, levels) for levels in options.depths] for system in SYSTEMS}
    seconds = times(options.depths, options.rounds)
    ms = {system: [1e3 * seconds[system, levels] for levels in options.depths] for system in SYSTEMS}
    found = {"ms": ms, "MiB": memory}
    report(found, options.depths)
    if options.out:
        plot(found, options.depths, options.out)


if __name__ == "__main__":
    main()
