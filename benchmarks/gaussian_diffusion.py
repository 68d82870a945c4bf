"""The diffusion bound on Gaussian data with the best denoiser, as T grows: beside the exact entropy and the limit.

    python benchmarks/gaussian_diffusion.py

Every level counts and the noise's expectation is exact, so that no number has an error.
"""

import sys
from pathlib import Path

import torch

from lambent.networks.diffusion.schedules import SCHEDULES

sys.path.append(str(Path(__file__).parents[1] / "tests" / "exact"))
import diffusion_truths as truth
from test_diffusion import DATA, bound, every_level

LOW, HIGH = -10.0, 9.0


def main() -> None:
    """Prints nats per example of three dimensions."""
    print(f"entropy {truth.entropy():.4f}, limit of infinitely many levels {truth.limit(LOW, HIGH):.4f}")
    for name in SCHEDULES:
        if name == "learned":  # its start is all but linear
            continue
        row = [_bound(name, steps) for steps in (10, 100, 1000, None)]
        print(f"{name:8s}", *(f"{value:10.4f}" for value in row))


def _bound(name: str, steps: int | None) -> float:
    levels = truth.nodes(400) if steps is None else every_level(steps)
    with torch.no_grad():
        return bound(truth.chain(name, steps, low=LOW, high=HIGH), DATA, *levels).mean().item()


if __name__ == "__main__":
    main()
