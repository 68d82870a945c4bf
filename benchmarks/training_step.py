"""The training step of a 784-500-500-50 VAE, side by side: pythae, by hand, the ceiling, lambent.

Every contender trains the same network (1,361,884 parameters, ReLU, Bernoulli pixels, diagonal Normal posterior) on the
same binarised MNIST, in one process, taking turns. What is timed:

a pythae      BaseTrainer.train_step: its own loop over its DataLoader, one epoch of --steps batches, everything at its
              defaults except the batch size; building the trainer is not counted.
b hand        the best loop written by hand: data in one tensor, index_select, fused Adam, logits summed inside the
              binary cross-entropy, analytic KL; no logging, no checks.
c ceiling     for each affine layer the products X W' (forward), G' X (weight gradient) and G W (input gradient, not
              for the first layer) on ready operands into ready memory, then fused Adam on all parameters. No bias
              sums, activations, noise, loss, autograd or data. No loop that trains this network by Adam on this
              torch can be faster.
d step        lambent's training step (batch, model, objective, gradients, finiteness, optimiser, its line of metrics
              every 100 steps), without run folder, validation and checkpoints.
e fit         lambent.fit's whole loop over one epoch of all images, from its first step to its last, with run folder,
              metrics, checkpoints and a validation on --valid images; not its start.
f compiled    d with train.compile=true, its compilation (once, 15 to 60 s) not counted.
g fit comp.   e with train.compile=true, from the end of the first epoch's validation to that of the second's.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from _data import DEFAULT, binarised
from _peers import HIDDEN, LATENT, PIXELS, pythae_trainer, silence
from _timing import Contender, interleaved, machine_line, per_unit, speedups, table, verdict

PARAMETERS = 1_361_884
A, B, C, D, E = "a pythae", "b hand", "c ceiling", "d lambent step", "e lambent fit"
COMPILED, FIT_COMPILED = "f lambent compiled", "g lambent fit compiled"
RELU = {"encoder__activation": "relu", "decoder__activation": "relu"}
SETTINGS = {"latent": LATENT, "encoder__hidden": [HIDDEN] * 2, "decoder__hidden": [HIDDEN] * 2, **RELU}


def same_size(parameters: Iterable[Tensor]) -> None:
    found = sum(p.numel() for p in parameters)
    assert found == PARAMETERS, f"another network: {found} parameters"


def pythae_epoch(images: Tensor, batch: int, steps: int, folder: str) -> Contender:
    trainer = pythae_trainer(images[: batch * steps], batch, folder)
    same_size(trainer.model.parameters())
    epoch = 0

    def stretch() -> float:
        nonlocal epoch
        epoch += 1
        with silence():
            seconds = per_unit(lambda: trainer.train_step(epoch), steps)
            trainer.callback_handler.on_epoch_end(training_config=trainer.training_config)
        return seconds

    return stretch


def by_hand(images: Tensor, batch: int, steps: int) -> Contender:
    data = images.flatten(1).float()
    encoder = nn.Sequential(
        nn.Linear(PIXELS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2 * LATENT)
    )
    decoder = nn.Sequential(
        nn.Linear(LATENT, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, PIXELS)
    )
    parameters = [*encoder.parameters(), *decoder.parameters()]
    same_size(parameters)
    optimizer = torch.optim.Adam(parameters, lr=1e-3, fused=True)

    def loop() -> None:
        order = torch.randperm(len(data))
        for i in range(steps):
            x = data.index_select(0, order[i * batch : (i + 1) * batch])
            mean, log_scale = encoder(x).chunk(2, 1)
            scale = log_scale.exp()
            logits = decoder(torch.addcmul(mean, scale, torch.randn_like(scale)))
            kl = 0.5 * (mean.square().sum() + scale.square().sum() - x.shape[0] * LATENT) - log_scale.sum()
            loss = (F.binary_cross_entropy_with_logits(logits, x, reduction="sum") + kl) / x.shape[0]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return lambda: per_unit(loop, steps)


class Products:
    """One affine layer's share of the ceiling: its three matrix products, operands and results ready in memory."""

    def __init__(self, inputs: int, outputs: int, batch: int, *, first: bool = False) -> None:
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / inputs**0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.x, self.grad = torch.randn(batch, inputs), torch.randn(batch, outputs)
        self.forward_out, self.input_grad = torch.empty(batch, outputs), None if first else torch.empty(batch, inputs)
        self.weight.grad, self.bias.grad = torch.empty_like(self.weight), torch.randn(outputs)

    def multiply(self) -> None:
        """Forward, weight gradient, input gradient."""
        torch.mm(self.x, self.weight.t(), out=self.forward_out)
        torch.mm(self.grad.t(), self.x, out=self.weight.grad)
        if self.input_grad is not None:
            torch.mm(self.grad, self.weight, out=self.input_grad)


def ceiling(batch: int, steps: int) -> Contender:
    sizes = [(PIXELS, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, 2 * LATENT)]
    sizes += [(LATENT, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, PIXELS)]
    layers = [Products(i, o, batch, first=n == 0) for n, (i, o) in enumerate(sizes)]
    parameters = [p for layer in layers for p in (layer.weight, layer.bias)]
    same_size(parameters)
    optimizer = torch.optim.Adam(parameters, lr=1e-6, fused=True)

    @torch.no_grad()
    def loop() -> None:
        for _ in range(steps):
            for layer in layers:
                layer.multiply()
            optimizer.step()

    return lambda: per_unit(loop, steps)


def lambent_step(images: Tensor, batch: int, steps: int, *, compiled: bool = False) -> Contender:
    from lambent.data import Dataset
    from lambent.recipes import configure
    from lambent.runs.session import open_session
    from lambent.training.engine import start_engine

    tokens = [
        f"{k.replace('__', '.')}={v}"
        for k, v in {**SETTINGS, "batch_size": batch, "compile": str(compiled).lower()}.items()
    ]
    config = configure("vae", tokens=[*tokens, "data.binarize=none", "device=cpu"])
    data = Dataset(images, levels=2)
    session = open_session(config, data, data.head(batch), start_engine("cpu"), torch.get_num_threads())
    same_size(session.model.parameters())
    trainer = session.trainer()
    trainer.model.train()

    def loop() -> None:
        for _ in range(steps):
            trainer.step()

    return lambda: per_unit(loop, steps)


def lambent_fit(images: Tensor, batch: int, threads: int, valid: int, *, compiled: bool = False) -> Contender:
    import lambent
    from lambent.data import Dataset
    from lambent.training.console import Console

    class Stopwatch(Console):
        """The loop's own start and end, and its validations."""

        def start(self, step: int, total: int) -> None:
            self.marks, self.total = [time.perf_counter()], total

        def row(self, row: Mapping[str, Any]) -> None:
            if "valid" in row:
                self.marks.append(time.perf_counter())

        def stop(self, step: int) -> None:
            assert step == self.total
            self.marks.append(time.perf_counter())

        @property
        def seconds(self) -> float:
            """A step's, over the whole of one epoch, or from the first of two validations to the second."""
            steps = self.total // 2 if compiled else self.total
            return (self.marks[2] - self.marks[1] if compiled else self.marks[-1] - self.marks[0]) / steps

    data = Dataset(images, levels=2)

    def stretch() -> float:
        watch = Stopwatch(quiet=True)
        with tempfile.TemporaryDirectory() as folder, patch("lambent.runs.fit.Console", lambda **_: watch):
            run = lambent.fit(
                "vae",
                data,
                valid=data.head(valid),
                out=Path(folder) / "run",
                epochs=2 if compiled else 1,
                compile=compiled,
                batch_size=batch,
                threads=threads,
                device="cpu",
                data__binarize="none",
                **SETTINGS,
            )
        same_size(run.model.parameters())
        return watch.seconds

    return stretch


def report(times: dict[str, list[float]], batch: int) -> str:
    lines = [table(times, A)]
    over_pythae, of_ceiling = (1.3, 0.80) if batch <= 100 else (1.15, 0.87)
    for name in (D, COMPILED):
        if name in times:
            found = statistics.median(speedups(times[A], times[name]))
            lines.append(verdict(f"{name} over pythae's", found, over_pythae))
            found = statistics.median(speedups(times[C], times[name]))
            lines.append(verdict(f"{name} as a share of the ceiling's speed", found, of_ceiling))
    for name in (E, FIT_COMPILED):
        if name in times:
            extra = statistics.median(1e3 * (e - b) for e, b in zip(times[name], times[B], strict=True))
            lines.append(
                f"{'ok  ' if extra <= 0.7 else 'MISS'}  {name} over the hand-written loop: {extra:+.2f} ms a step "
                "(aim: at most 0.7)"
            )
    return "\n".join(lines)


def compare(images: Tensor, batch: int, threads: int, options: argparse.Namespace) -> None:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    steps = min(options.steps if batch <= 100 else options.steps // 4, len(images) // batch)
    with tempfile.TemporaryDirectory() as folder:
        contenders: dict[str, Contender] = {
            A: pythae_epoch(images, batch, steps, folder),
            B: by_hand(images, batch, steps),
            C: ceiling(batch, steps),
            D: lambent_step(images, batch, steps),
            E: lambent_fit(images, batch, threads, options.valid),
            COMPILED: lambent_step(images, batch, steps, compiled=True),
            FIT_COMPILED: lambent_fit(images, batch, threads, options.valid, compiled=True),
        }
        chosen = {name: c for name, c in contenders.items() if name[0] in options.only}
        times = interleaved(chosen, options.rounds)
    print(f"\nbatch {batch}, {options.rounds} rounds of {steps} steps\n{machine_line(threads)}", flush=True)
    print(report(times, batch), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEFAULT, help=".npz with x_train (N, 28, 28) uint8")
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds")
    parser.add_argument("--steps", type=int, default=100, help="steps a round at batch 100; a quarter of it at 1000")
    parser.add_argument("--batch", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--valid", type=int, default=1000, help="images in lambent.fit's validation")
    parser.add_argument("--only", default="abcdefg", help="contenders by letter; a, b and c are always needed")
    options = parser.parse_args()
    options.only = set(options.only) | set("abc")
    images = binarised(options.data)
    for threads in options.threads:
        for batch in options.batch:
            compare(images, batch, threads, options)


if __name__ == "__main__":
    main()
