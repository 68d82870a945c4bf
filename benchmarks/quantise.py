"""A training step of a quantiser by running means, side by side: vector-quantize-pytorch and lambent's codebook.

Both take encoder outputs (batch, positions, 64) with gradient and the same codes, and do in training mode: nearest
codes, straight-through value, commitment term (factor 0.25), the gradient of both at the outputs, and the codes' update
(decay 0.99, Laplace smoothing 1e-5). Neither revives dead codes here; the peer's rotation of gradients is switched off.
lambent's step also counts the codes used. Before timing, both must find the same codes for 99.9 % of the outputs: the
peer takes roots of distances in float32, so that near ties may differ; lambent's are checked against float64.

Memory is the growth of the process's peak during one step over what it held before, in a fresh process. Where the peer
would need more than half of what the machine has free it isn't run.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Callable

import torch
from torch import Tensor

from _memory import available, peak_growth
from _timing import Contender, interleaved, machine_line, per_unit, speedups, table, verdict
from lambent.networks import Codebook, Learning

DIM, BATCH, COMMITMENT, DECAY, SMOOTHING = 64, 100, 0.25, 0.99, 1e-5
OURS, PEER = "lambent", "vector-quantize-pytorch"
PEER_BYTES = 20
"""A one-hot of whole numbers, the same as floats, and two matrices of distances, for each output and code."""

Step = Callable[[], Tensor]
"""One step; returns the indices."""


def inputs(size: int, positions: int) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, encoder outputs and the gradient that comes back from a decoder."""
    generator = torch.Generator().manual_seed(0)
    shapes = (size, DIM), (BATCH, positions, DIM), (BATCH, positions, DIM)
    codes, z, slope = (torch.randn(shape, generator=generator) for shape in shapes)
    return codes, z.requires_grad_(), slope


def ours(size: int, positions: int) -> Step:
    codes, z, slope = inputs(size, positions)
    learning = Learning(
        decay=DECAY, smoothing=SMOOTHING, revive=0, commitment=COMMITMENT / z[0].numel() / BATCH, start="random"
    )
    book = Codebook(size, DIM, learning)
    book.codes.copy_(codes)
    book.sums.copy_(codes)

    def step() -> Tensor:
        z.grad = None
        value, indices = book.quantise(z)
        commitment = book.penalties(z, indices)["commitment"].sum()
        torch.autograd.backward([value, commitment], [slope, None])
        book.update_buffers(z, indices)
        return indices

    return step


def peer(size: int, positions: int) -> Step:
    try:
        from vector_quantize_pytorch import VectorQuantize
    except ImportError as error:
        sys.exit(f"{PEER} can't be imported ({error}); install it as benchmarks/README.md says and set PYTHONPATH")
    codes, z, slope = inputs(size, positions)
    book = VectorQuantize(
        DIM, size, decay=DECAY, eps=SMOOTHING, commitment_weight=COMMITMENT, rotation_trick=False
    ).train()
    book._codebook.embed.copy_(codes[None])
    book._codebook.embed_avg.copy_(codes[None])

    def step() -> Tensor:
        z.grad = None
        value, indices, commitment = book(z)
        torch.autograd.backward([value, commitment], [slope, None])
        return indices

    return step


STEPS = {OURS: ours, PEER: peer}


def same_codes(size: int, positions: int) -> str:
    """The shares of outputs whose codes are those of both, and those of float64."""
    codes, z, _ = inputs(size, positions)
    found, theirs = ours(size, positions)().flatten(), peer(size, positions)().flatten()
    some = torch.arange(0, len(found), max(1, len(found) // 500))
    exact = torch.cdist(z.detach().flatten(0, 1)[some].double(), codes.double()).argmin(1)
    agreed, right = ((found == theirs).double().mean(), (found[some] == exact).double().mean())
    line = f"same codes as the peer's: {agreed:.2%}; as float64's, of {len(some)} outputs: {right:.2%}"
    assert agreed > 0.999, line
    assert right == 1, line
    return line


def contender(name: str, size: int, positions: int, seconds: float) -> Contender:
    step = STEPS[name](size, positions)
    step()
    units = max(1, int(seconds / per_unit(step, 1)))

    def stretch() -> float:
        return per_unit(lambda: [step() for _ in range(units)], units)

    return stretch


def race(size: int, positions: int, options: argparse.Namespace) -> None:
    vectors = BATCH * positions
    print(f"\nS = {size} codes of {DIM}, {BATCH} x {positions} outputs")
    needed = vectors * size * PEER_BYTES / 2**20
    if needed > available() / 2:
        print(f"the peer would need about {needed / 1024:.0f} GiB: not run")
        names = [OURS]
    else:
        print(same_codes(size, positions))
        names = [PEER, OURS]
    times = interleaved({name: contender(name, size, positions, options.seconds) for name in names}, options.rounds)
    print(table(times, names[0]))
    growth = {name: in_child(name, size, positions, options.threads) for name in names}
    print("peak memory of a step, MiB: " + ", ".join(f"{name} {value:.1f}" for name, value in growth.items()))
    if len(names) > 1:
        print(verdict("speed over the peer's", statistics.median(speedups(times[PEER], times[OURS])), 3))
        print(verdict("the peer's memory over ours", growth[PEER] / max(growth[OURS], 0.1), 1))


def in_child(name: str, size: int, positions: int, threads: int) -> float:
    flags = ["--child", name, "--codes", size, "--positions", positions, "--threads", threads]
    command = [sys.executable, __file__, *map(str, flags)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def child(name: str, size: int, positions: int) -> float:
    """Growth of the peak in the first full step, after a small one has loaded what needs loading."""
    STEPS[name](16, 2)()
    return peak_growth(STEPS[name](size, positions))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codes", type=int, nargs="+", default=[512, 8192], help="S")
    parser.add_argument("--positions", type=int, nargs="+", default=[49, 256, 1024], help="of each of 100 examples")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each contender in a round, about")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", choices=STEPS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.child:
        print(child(options.child, options.codes[0], options.positions[0]))
        return
    print(machine_line(options.threads))
    for size in options.codes:
        for positions in options.positions:
            race(size, positions, options)


if __name__ == "__main__":
    main()
