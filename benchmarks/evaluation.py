"""log p(x) by K importance samples, side by side: pythae's get_nll and lambent's evaluation of the same weights.

pythae's ``get_nll(data, n_samples, batch_size)`` takes ``batch_size`` samples of each image where n_samples <=
batch_size, else n_samples // batch_size times batch_size; so it draws exactly K only where batch_size divides K or
equals it. This is counted here at the decoder, for each batch size tried, and only exact ones compete. It is called
under no_grad (it doesn't switch gradients off itself), on one and on all threads, and its best of all these counts.

lambent's is ``Run.evaluate(samples=K, threads=T, precision=P)``: also the ELBO, rate, distortion, standard errors,
effective sample size and active units. In bfloat16 and int8 all K samples are decoded roughly and a few again in
float32, which keeps the estimate of p(x) unbiased; printed with it is what that does to the number and to its spread.

Memory is the growth of the process's peak over what it held before the evaluation, in a fresh process for each K.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from _data import DEFAULT, binarised
from _memory import peak_growth
from _peers import HIDDEN, LATENT, pythae_vae
from _timing import Contender, interleaved, machine_line, per_unit, speedups, table, verdict

OURS = "lambent"
PRECISIONS = ("float32", "bfloat16", "int8")


def trained(images: Tensor, steps: int) -> Any:
    """A lambent run kept in memory, trained for some steps, so that posteriors are narrow as in use."""
    import lambent
    from lambent.data import Dataset

    data = Dataset(images, levels=2)
    sizes = {"latent": LATENT, "encoder__hidden": [HIDDEN] * 2, "decoder__hidden": [HIDDEN] * 2}
    sizes |= {"encoder__activation": "relu", "decoder__activation": "relu"}
    return lambent.fit(
        "vae", data, valid=data.head(100), steps=steps, device="cpu", data__binarize="none", quiet=True, **sizes
    )


def affine_maps(module: nn.Module) -> list[nn.Linear]:
    return [m for m in module.modules() if isinstance(m, nn.Linear)]


@torch.no_grad()
def same_weights(run: Any) -> Any:
    """Pythae's model with the run's weights: its log variance is twice our log scale."""
    peer, posterior, likelihood = pythae_vae(), run.model.posterior, run.model.likelihood
    ours = affine_maps(posterior.encoder) + affine_maps(likelihood.decoder)
    theirs = affine_maps(peer.encoder.layers) + affine_maps(peer.decoder)
    pairs = [(t.weight, o.weight) for t, o in zip(theirs, ours, strict=True)]
    pairs += [(t.bias, o.bias) for t, o in zip(theirs, ours, strict=True)]
    (mean, log_scale), (mean_bias, log_scale_bias) = posterior.head.weight.chunk(2), posterior.head.bias.chunk(2)
    pairs += [(peer.encoder.embedding.weight, mean), (peer.encoder.embedding.bias, mean_bias)]
    pairs += [(peer.encoder.log_var.weight, 2 * log_scale), (peer.encoder.log_var.bias, 2 * log_scale_bias)]
    for theirs_, ours_ in pairs:
        theirs_.copy_(ours_)
    return peer.eval()


def drawn_per_image(peer: Any, images: Tensor, samples: int, batch: int) -> float:
    """Latents that really go through pythae's decoder, per image."""
    count = 0

    def tally(_module: nn.Module, inputs: tuple[Tensor, ...], _output: Any) -> None:
        nonlocal count
        count += len(inputs[0])

    hook = peer.decoder.register_forward_hook(tally)
    with torch.no_grad():
        peer.get_nll(images, n_samples=samples, batch_size=batch)
    hook.remove()
    return count / len(images)


def with_threads(threads: int, work: Callable[[], Any]) -> Any:
    torch.set_num_threads(threads)
    return work()


def peer_contenders(peer: Any, x: Tensor, samples: int, batches: list[int], threads: int) -> dict[str, Contender]:
    found: dict[str, Contender] = {}
    for batch in batches:
        drawn = drawn_per_image(peer, x[:2], samples, batch)
        print(f"pythae, batch_size={batch}: draws {drawn:g} samples an image where {samples} were asked")
        if drawn != samples:
            continue
        for t in sorted({1, threads}):

            def stretch(batch: int = batch, t: int = t) -> float:
                nll = torch.no_grad()(lambda: peer.get_nll(x, n_samples=samples, batch_size=batch))
                return with_threads(t, lambda: per_unit(nll, len(x)))

            found[f"pythae batch_size={batch} threads={t}"] = stretch
    return found


def agreement(run: Any, peer: Any, x: Tensor, samples: int) -> str:
    """Both estimates on the same images: the same number within noise, or the timings compare different things."""
    with torch.no_grad():
        theirs = peer.get_nll(x.float(), n_samples=samples, batch_size=samples)
    lines = [f"log p(x), IWAE-{samples}, nats: pythae {theirs:.3f}"]
    for precision in PRECISIONS:
        first, second = (run.evaluate(x, samples=samples, seed=s, precision=precision) for s in (0, 1))
        values = [found.each[f"iwae_{samples}"] for found in (first, second)]
        spread = (values[0] - values[1]).std().item() / 2**0.5
        lines.append(f"  lambent in {precision}: {values[0].mean():.3f}, another seed {values[1].mean():.3f}; ")
        lines[-1] += f"an image's number varies by {spread:.3f} from seed to seed"
        assert abs(values[0].mean().item() - theirs) < 0.02 * abs(theirs), lines[-1]
    return "\n".join(lines)


def race(run: Any, images: Tensor, options: argparse.Namespace) -> None:
    x, peer = images[: options.images], same_weights(run)
    print(machine_line(options.threads))
    print(agreement(run, peer, x, options.samples))
    contenders = peer_contenders(peer, x.float(), options.samples, options.batch_size, options.threads)
    names = list(contenders)

    def ours(precision: str) -> float:
        torch.set_num_threads(options.threads)
        settings = {"samples": options.samples, "threads": options.threads, "precision": precision}
        return per_unit(lambda: run.evaluate(x, **settings), len(x))

    lambents = {f"{OURS} {precision}": partial(ours, precision) for precision in PRECISIONS}
    times = interleaved({**contenders, **lambents}, options.rounds)
    best = min(names, key=lambda name: statistics.median(times[name]))
    print(f"K = {options.samples}, {len(x)} images, {options.rounds} rounds\n{table(times, best, 'image')}")
    for name in lambents:
        print(verdict(f"{name} over pythae's best", statistics.median(speedups(times[best], times[name])), 5))


def growth(options: argparse.Namespace) -> float:
    """MiB by which one evaluation raises this process's peak over what it holds before (Linux only)."""
    run, x = trained(binarised(options.data, most=200), steps=1), binarised(options.data, "x_test", options.images)
    torch.set_num_threads(options.threads)
    floats, peer = x.float(), same_weights(run)

    @torch.no_grad()
    def evaluate(samples: int) -> None:
        if options.child in PRECISIONS:
            run.evaluate(x, samples=samples, threads=options.threads, precision=options.child)
        else:
            peer.get_nll(floats, n_samples=samples, batch_size=samples)

    evaluate(3)
    return peak_growth(lambda: evaluate(options.samples))


def memory(options: argparse.Namespace) -> None:
    print(f"\npeak memory of evaluating {options.memory_images} images, growth in MiB")
    print(f"{'K':>6}  lambent float32     int8  pythae (batch_size=K)")
    for samples in options.memory:
        row = [_in_child(name, samples, options) for name in ("float32", "int8", "pythae")]
        print(f"{samples:6d}  {row[0]:15.1f}  {row[1]:7.1f}  {row[2]:7.1f}", flush=True)


def _in_child(name: str, samples: int, options: argparse.Namespace) -> float:
    flags = ["--child", name, "--samples", samples, "--images", options.memory_images, "--threads", options.threads]
    command = [sys.executable, __file__, *map(str, flags), "--data", str(options.data)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEFAULT, help=".npz with x_train and x_test (N, 28, 28) uint8")
    parser.add_argument("--samples", type=int, default=1000, help="K")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, nargs="+", default=[100, 250, 500, 1000], help="pythae's, tried")
    parser.add_argument("--steps", type=int, default=500, help="training steps before")
    parser.add_argument("--memory", type=int, nargs="*", default=[100, 1000, 5000], help="values of K")
    parser.add_argument("--memory-images", type=int, default=32)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(growth(options))
        return
    race(trained(binarised(options.data), options.steps), binarised(options.data, "x_test", options.images), options)
    memory(options)


if __name__ == "__main__":
    main()
