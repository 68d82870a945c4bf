"""How near a diffusion's samples are to real images, with all its noise levels visited and with few.

For each number of steps: the Frechet distance to real training images, and precision and recall, all on two named
feature maps: the first principal components of the pixels, and the last hidden layer of a small classifier trained here
on the same images and their labels. Real test images, as many as there are samples, give the floor. Everything is
seeded; figures compare only among themselves: one data set, one number of samples, one version of this file.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

import lambent
from lambent.data.view import View
from lambent.evaluation.sample_quality import Principal, frechet_distance, precision_recall
from lambent.runs.run import Run

Features = Callable[[Tensor], Tensor]
COMPONENTS, HIDDEN, REFERENCE = 30, 32, 5000
ROWS = 500


class Classifier(nn.Module):
    """Three convolutions, and a hidden layer of 32 units, which are the features."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        sizes = (channels, 16, 32, 64)
        convolutions = [
            layer
            for i in range(3)
            for layer in (nn.Conv2d(sizes[i], sizes[i + 1], 3, stride=1 if i == 0 else 2, padding=1), nn.ReLU())
        ]
        self.body = nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(1024, HIDDEN))
        self.head = nn.Linear(HIDDEN, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes)."""
        return self.head(torch.relu(self.body(x)))

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """(N, 32)."""
        return torch.cat([torch.relu(self.body(rows)) for rows in x.split(ROWS)])


def trained(x: Tensor, labels: Tensor, epochs: int) -> Classifier:
    """A classifier of ``x`` (N, C, H, W), from a fixed seed."""
    torch.manual_seed(0)
    net = Classifier(x.shape[1], int(labels.max()) + 1)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(100):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[rows]), labels[rows]).backward()
            optimizer.step()
    return net


def images(view: View, most: int) -> tuple[Tensor, Tensor]:
    """The first images of a seeded shuffle, and their labels."""
    assert view.dataset.labels is not None, "the classifier needs labels: an array y_train beside x_train"
    chosen = torch.randperm(len(view), generator=torch.Generator().manual_seed(0))[:most]
    return view.batch(chosen), view.dataset.labels[chosen].long()


def sampled(run: Run, n: int, steps: int, noise: float) -> Tensor:
    """``n`` samples, some at a time."""
    counts = [min(100, n - start) for start in range(0, n, 100)]
    return torch.cat([run.sample(m, seed=i, steps=steps, noise=noise) for i, m in enumerate(counts)])


def row(name: str, made: Tensor, real: Tensor, maps: dict[str, Features]) -> str:
    """One line of the table."""
    cells = []
    for features in maps.values():
        first, second = features(real), features(made)
        precision, recall = precision_recall(first[: len(made)], second)
        cells.append(f"{frechet_distance(first, second):10.3f} {precision:9.3f} {recall:6.3f}")
    return f"{name:28s} " + "  ".join(cells)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", default=None, help="images with labels (the run's own source)")
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--steps", type=int, nargs="+", default=[1000, 50, 10])
    parser.add_argument("--noise", type=float, nargs="+", default=[1.0, 0.0], help="1: the chain itself, 0: DDIM")
    parser.add_argument("--epochs", type=int, default=2, help="of the classifier")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    run = lambent.load(args.run, device="cpu")
    source = args.data or run.config.data.source
    x, labels = images(run.prepare(source, "train"), 60_000)
    test, test_labels = images(run.prepare(source, "test"), 10_000)
    middle, half = x.mean(), x.std()

    def scaled(images: Tensor) -> Tensor:
        return (images - middle) / half

    net = trained(scaled(x), labels, args.epochs)
    with torch.no_grad():
        right = torch.cat([net(rows).argmax(1) for rows in scaled(test).split(ROWS)]) == test_labels
    print(f"classifier: {right.float().mean():.4f} of {len(test)} test images right; {args.samples} samples a row")
    principal = Principal.of(scaled(x), COMPONENTS)
    maps: dict[str, Features] = {
        f"pixels, {COMPONENTS} components": lambda v: principal(scaled(v)),
        f"classifier, {HIDDEN} units": lambda v: net.features(scaled(v)),
    }
    real = x[:REFERENCE]
    table = partial(row, real=real, maps=maps)
    print(f"{'':28s} " + "  ".join(f"{name:>27s}" for name in maps))
    print(f"{'':28s} " + "  ".join(f"{'Frechet':>10s} {'precision':>9s} {'recall':>6s}" for _ in maps))
    print(table("real test images", test[: args.samples]))
    for noise in args.noise:
        for steps in args.steps:
            start = time.perf_counter()
            made = sampled(run, args.samples, steps, noise)
            took = (time.perf_counter() - start) / args.samples
            print(table(f"{steps} steps, noise {noise:g} ({took:.2f} s)", made), flush=True)


if __name__ == "__main__":
    main()
