"""Score function against pathwise on the toy problem: minimise E|z - c|^2 over the mean of z ~ N(mu, I), c = (5, 5).

Both give 2 (mu - c) on average. Pathwise has variance 4 in each dimension wherever mu is; the score function's grows
with the fourth power of the distance, and a baseline takes off most of it. Measured values beside the closed forms.

    python examples/gradient_estimators.py
"""

from __future__ import annotations

import math

import torch

import lambent

DISTANCES = (0.0, 3.0, 7.0)


def closed_form(distance: float) -> float:
    """Of (|z - c|^2 + log pi) (z - mu), summed over both dimensions: log pi is the Normal likelihood's own constant."""
    b = distance**2 + math.log(math.pi)
    return 48 + 16 * b + 2 * b**2 + 12 * distance**2


def main(repetitions: int = 1000) -> dict[float, dict[str, float]]:
    run = lambent.fit("toy-gradients", train__steps=0, quiet=True)
    found = {}
    print(f"{'|mu - c|':>8}  {'pathwise':>8} {'exact':>8}  {'score':>8} {'exact':>8}  {'score, running mean':>19}")
    for distance in DISTANCES:
        with torch.no_grad():
            run.model.posterior.head.bias.copy_(torch.tensor([5 - distance, 5.0]))
        rows = lambent.compare_gradients(run, repetitions=repetitions, warm_up=200).rows
        variance = {row.name: row.variance for row in rows}
        pathwise, score = variance["pathwise"], variance["score baseline=none"]
        centred, exact = variance["score baseline=running-mean"], closed_form(distance)
        print(f"{distance:>8g}  {pathwise:>8.3f} {8:>8}  {score:>8.1f} {exact:>8.1f}  {centred:>19.1f}")
        found[distance] = variance
    return found


if __name__ == "__main__":
    main()
