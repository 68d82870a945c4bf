"""Samples of autoregressive networks element by element, against the loop that makes a whole pass for each element.

The quick way is ``Autoregressive.sample``, which keeps what the network has computed (caches of keys and values,
states, sums). The naive loop calls ``forward`` on all elements for each one that it draws. All its passes cost the
same, so it is timed on the first ``--passes`` elements and its time is counted for all; those elements must be the
same bits.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from _timing import interleaved, machine_line, per_unit, speedups, spread, verdict
from lambent.distributions.sampling import sample
from lambent.likelihoods import AutoregressiveLikelihoodModule, BernoulliLikelihood
from lambent.networks import (
    AutoregressiveSettings,
    GatedPixelCNNDecoder,
    LSTMDecoder,
    MADEDecoder,
    NADEDecoder,
    PixelCNNDecoder,
    TransformerDecoder,
)
from lambent.shapes import Shapes

NETWORKS: dict[str, AutoregressiveSettings] = {
    "made": MADEDecoder(),
    "nade": NADEDecoder(),
    "lstm": LSTMDecoder(),
    "transformer": TransformerDecoder(),
    "pixelcnn": PixelCNNDecoder(channels=64, layers=7),
    "gated-pixelcnn": GatedPixelCNNDecoder(channels=32, layers=4),
}
LEAST = 10


def model_of(settings: AutoregressiveSettings, side: int) -> AutoregressiveLikelihoodModule:
    """Binary images of that side, weights as they start but for biases that make pixels differ."""
    torch.manual_seed(0)
    family, shapes = BernoulliLikelihood(), Shapes((1, side, side), 0, levels=2)
    net = settings.build(0, family.out_shape(shapes), symbols=family.symbols(shapes))
    with torch.no_grad():
        net.output_bias().normal_()
    return AutoregressiveLikelihoodModule(family, net, shapes).eval()


@torch.no_grad()
def quick(model: AutoregressiveLikelihoodModule, items: int) -> Tensor:
    """Samples (items, D)."""
    return model(torch.zeros(1, items, 0)).sample((), torch.Generator().manual_seed(1))[0].flatten(1)


@torch.no_grad()
def naive(model: AutoregressiveLikelihoodModule, items: int, passes: int) -> Tensor:
    """The same, (items, D), but elements after the first ``passes`` stay 0."""
    net, generator = model.decoder, torch.Generator().manual_seed(1)
    x = torch.zeros(items, net.elements)
    for element in net.order[0, :passes].tolist():
        numbers = net(x, None, 0).flatten(2)[..., element : element + 1]
        x[:, element] = sample(model.family.distribution(numbers, None, model.element), (), generator).squeeze(1)
    return x


def compare(name: str, side: int, items: int, passes: int, rounds: int) -> None:
    """One line: both times, their ratio, and whether the samples agree."""
    model = model_of(NETWORKS[name], side)
    first = model.decoder.order[0, :passes]
    same = torch.equal(quick(model, items)[:, first], naive(model, items, passes)[:, first])
    whole = model.decoder.elements / passes
    contenders = {
        "naive": lambda: whole * per_unit(lambda: naive(model, items, passes), 1),
        "quick": lambda: per_unit(lambda: quick(model, items), 1),
    }
    times = interleaved(contenders, rounds)
    ratios = speedups(times["naive"], times["quick"])
    print(f"{name:14} x {items:2}  s: quick {spread(times['quick'])}   naive {spread(times['naive'])}")
    print(f"  {verdict('times as fast', sorted(ratios)[len(ratios) // 2], LEAST)}; {'same' if same else 'OTHER'} bits")


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--side", type=int, default=32, help="pixels a side; 32 makes 1024 elements")
    parser.add_argument("--items", type=int, nargs="+", default=[4, 16], help="samples at once")
    parser.add_argument("--passes", type=int, default=8, help="elements on which the naive loop is timed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(machine_line(given.threads))
    for name in given.networks:
        for items in given.items:
            compare(name, given.side, items, given.passes, given.rounds)


if __name__ == "__main__":
    main()
