"""A run: a trained model with everything needed to use it.

`load` opens a run folder; `lambent.fit` returns the same object. Data go in as the source's raw numbers (or its name);
latents and observations come out as float tensors on the CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lambent.config import Config, layer_of_run, resolve
from lambent.data import (
    Dataset,
    Transform,
    View,
    one_hot,
)
from lambent.data.sources import Source, dataset_of, held_out
from lambent.data.view import CHUNK
from lambent.distributions import point_estimate, sample
from lambent.draws import Ancestral, Detached, Draw, Held, Mode
from lambent.errors import CombinationError, ConfigError, ShapeError
from lambent.evaluation.evaluate import evaluate, means_of_all
from lambent.evaluation.measures import METHODS, Measurement, compare_samples, estimate_log_prob, take_rate_apart
from lambent.evaluation.per_example import as_npz
from lambent.evaluation.result import Evaluation
from lambent.likelihoods import LikelihoodModule
from lambent.models import LatentModel
from lambent.models.diffusion.model import ancestral
from lambent.networks import UserDecoder, UserEncoder
from lambent.runs import hierarchy as levels
from lambent.seeds import derive
from lambent.shapes import Shapes
from lambent.storage import checkpoint
from lambent.storage.files import atomic_write
from lambent.storage.metrics import read_metrics
from lambent.storage.run_folder import RunFolder
from lambent.training.engine import Engine, choose_device, choose_threads


@dataclass(frozen=True, eq=False)
class Run:
    """A trained model in use.

    Attributes:
        config: Every setting in force.
        model: The model, in evaluation mode, with the weights of the best checkpoint.
        transform: What is done to data before it is scored.
        device: Where it computes.
        folder: Where it lives; None for a run kept in memory.
        history: Lines of metrics, oldest first.
        step: The training step of the weights.
        skipped: One line for each damaged checkpoint that was passed over.
        validation: The validation set of a run trained on arrays, as long as it is in memory.
    """

    config: Config
    model: LatentModel
    transform: Transform
    device: torch.device
    folder: RunFolder | None = None
    history: tuple[dict[str, Any], ...] = ()
    step: int = 0
    skipped: tuple[str, ...] = ()
    validation: Dataset | None = None

    @property
    def shapes(self) -> Shapes:
        """The sizes the model was built from."""
        return self.transform.shapes(self.config.model.latent)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels, if the training data had any."""
        return self.transform.classes

    def prepare(self, data: Source | None = None, split: str = "test") -> View:
        """``data`` (by default what the training source kept from training) as this model scores it, checked.

        ``split`` is "test" (everything, where the source has no test split) or "train".

        Raises:
            DataError: it can't be read, has another shape than the training data, or lies outside the support.
        """
        dataset = self._held_out() if data is None else dataset_of(data, self.config.data, split)
        view = self.transform.view(dataset, fixed=True, device=self.device)
        check_support(self.model, view)
        return view

    def _held_out(self) -> Dataset:
        return held_out(self.config.data.source, self.config.data) if self.validation is None else self.validation

    def evaluate(
        self,
        data: Source | None = None,
        *,
        samples: int = 100,
        seed: int = 0,
        threads: int | None = None,
        engine: Engine | None = None,
        precision: str = "float32",
    ) -> Evaluation:
        """ELBO, IWAE-K, rate, distortion, exact log p(x) where it exists, active units: every example once.

        Args:
            data: By default the test split of the training source, else what was held out for validation.
            samples: K; where q is a point on a countable set one sample says all, and one is taken.
            seed: Of the noise.
            threads: Processors to use.
            engine: Where several processes share the work.
            precision: "float32", or "bfloat16" or "int8" for p(x|z) of most samples: a few, computed again, correct
                them, so that the ELBO keeps its mean and IWAE-K stays a lower bound. For models whose cost is the
                decoder's.

        Raises:
            ConfigError: less than one sample, or a precision that there is nothing to compute in.
            NumericsError: a precision in which p(x|z) is too far off for a tight bound.
        """
        return evaluate(
            self.model,
            self.prepare(data),
            draw=self.draw,
            samples=1 if samples > 1 and self.config.deterministic else samples,
            seed=seed,
            threads=choose_threads(threads) if self.device.type == "cpu" else 1,
            precision=precision,
            processes=engine,
        )

    def measure(
        self,
        method: str,
        data: Source | None = None,
        *,
        samples: int | None = None,
        seed: int = 0,
        temperatures: int = 100,
    ) -> Measurement:
        """One of the measurements beside `evaluate`, each number with its error and what it is.

        Args:
            method: "importance", "prior" or "ais": log p(x) by importance sampling from q, by sampling the prior, or by
                annealed importance sampling (Neal 2001), lower bounds on average. "surgery": the rate as mutual
                information and marginal KL (Hoffman & Johnson 2016). "sample-quality": Fréchet distance (Heusel et al.
                2017), precision and recall (Kynkäänniemi et al. 2019) of samples in principal components of the data.
            data: By default the test split of the training source, else what was held out for validation.
            samples: Samples of each example (100, 1000, 10 and, for surgery, 10 by default); for sample quality the
                number of samples drawn, by default as many as there are examples.
            seed: Seed of the noise.
            temperatures: Steps of annealing.

        Raises:
            ConfigError: a method of no such name, or too few samples.
            CombinationError: a model that the method doesn't exist for.

        >>> import lambent
        >>> run = lambent.fit("ppca", latent=1, epochs=1, quiet=True)
        >>> run.measure("importance", samples=5).quantities["log_likelihood"].kind
        'lower bound'
        """
        if method not in METHODS:
            raise ConfigError(f"method={method}: expected one of {', '.join(METHODS)}")
        view = self.prepare(data)
        if method == "surgery":
            return take_rate_apart(self.model, view, samples=samples, seed=seed)
        if method == "sample-quality":
            return self._sample_quality(view, samples, seed)
        return estimate_log_prob(
            self.model, view, method, samples=samples, seed=seed, draw=self.draw, temperatures=temperatures
        )

    def _sample_quality(self, view: View, samples: int | None, seed: int) -> Measurement:
        if self.transform.alphabet is not None:
            raise CombinationError("method=sample-quality compares numbers, and these data are text; use method=iwae")
        real, _ = view.spread(len(view) if samples is None else samples)(0, len(view))
        return compare_samples(real.cpu(), self.sample(len(real), seed=seed), name=view.dataset.name, seed=seed)

    def record(self, found: Evaluation) -> None:
        """Writes ``evaluation.json``, and every example's numbers to ``evaluation.npz``, in the run folder, if any."""
        if self.folder is not None:
            atomic_write(self.folder.evaluation.with_suffix(".npz"), as_npz(found.each))
            self.folder.write_json(self.folder.evaluation, {**found.to_dict(), "step": self.step})

    @property
    def draw(self) -> Draw:
        """How evaluation draws: exactly by enumeration where training did, else true draws of the posterior."""
        draw: Draw = self.config.drawing.evaluating()
        return draw

    def posterior_means(self, prepared: View) -> Tensor:
        """E_q[z] of all levels side by side, (N, latents); a level is inferred from the mode of the one below."""
        return means_of_all(self.model, prepared)

    @torch.inference_mode()
    def encode(self, data: Source | View, *, seed: int | None = None, split: str = "test") -> Tensor:
        """Latents (N, latent): the posterior's mode, or draws of it if a ``seed`` is given."""
        prepared = data if isinstance(data, View) else self.prepare(data, split)
        generator = None if seed is None else torch.Generator(self.device).manual_seed(derive(seed, "encode"))
        latents = []
        for x, condition in prepared.batches():
            draw = Mode() if generator is None else Detached(generator=generator)
            latents.append(self.model.encode(x, draw, condition)[0].cpu())
        return torch.cat(latents)

    @torch.inference_mode()
    def decode(self, z: Tensor, condition: Tensor | None = None, *, seed: int | None = None) -> Tensor:
        """Observations of latents (N, latent): the mean of p(x|z), or draws of it if a ``seed`` is given.

        Where p(x|z) has no mean in closed form (autoregressive decoders), the same draws every time.
        """
        generator = None if seed is None else torch.Generator(self.device).manual_seed(derive(seed, "decode"))
        found = []
        for start in range(0, len(z), CHUNK):
            code = z[start : start + CHUNK].to(self.device).unsqueeze(0)
            part = None if condition is None else condition[start : start + CHUNK].to(self.device)
            px = self.model.decode(code, part)
            found.append((point_estimate(px) if generator is None else sample(px, (), generator))[0].cpu())
        return torch.cat(found)

    @torch.inference_mode()
    def infer(self, data: Source | View, *, split: str = "test") -> dict[str, Tensor]:
        """Each level's latents by name, lowest first: the posterior's modes, (N, *latent).

        Raises:
            ConfigError: the model has fewer than two levels.
        """
        prepared = data if isinstance(data, View) else self.prepare(data, split)
        parts = [levels.infer(self.model, x, condition) for x, condition in prepared.batches()]
        return {name: torch.cat([part[name].cpu() for part in parts]) for name in parts[0]}

    @torch.inference_mode()
    def reconstruct(
        self, data: Source | View, *, top: int | None = None, seed: int | None = None, split: str = "test"
    ) -> Tensor:
        """The mean of p(x|z) at the posterior's mode of each example, (N, *event).

        Args:
            data: The examples.
            top: Number of levels, the highest ones, that are taken from the example; the others follow from p given
                those.
            seed: Draws them from p; they are at its modes otherwise.
            split: "test" or "train".

        Raises:
            ConfigError: ``top`` of a model with fewer than two levels, or fewer than ``top``.
        """
        prepared = data if isinstance(data, View) else self.prepare(data, split)
        if top is None:
            return self.decode(self.encode(prepared), prepared.condition(torch.arange(len(prepared))))
        noise = None if seed is None else torch.Generator(self.device).manual_seed(derive(seed, "reconstruct"))
        made = [levels.reconstruct(self.model, x, top, c, generator=noise) for x, c in prepared.batches()]
        return torch.cat([part.cpu() for part in made])

    @torch.inference_mode()
    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        condition: Tensor | None = None,
        mean: bool = False,
        held: Mapping[str, Tensor] | None = None,
        steps: int | None = None,
        noise: float | None = None,
    ) -> Tensor:
        """``n`` observations (n, *event): z from the prior, x drawn from p(x|z), or its mean.

        A conditional model without ``condition`` (n, c) takes its classes in turn. Levels in ``held`` have the values
        given there, (n, *latent) by name as `infer` gives them, and the others are drawn given those above. A diffusion
        visits ``steps`` levels and adds ``noise`` times the chain's own at each (1, as it is; 0, none: DDIM).

        Raises:
            ConfigError: the prior is flat; ``held`` names a level that doesn't exist; ``steps`` or ``noise`` of a model
                that is no diffusion, or out of range.
            ShapeError: ``held`` has values of another shape.
        """
        if n < 1:
            raise ConfigError(f"n={n}: expected at least 1 sample")
        condition = self.conditions(n) if condition is None else condition
        generator = torch.Generator(self.device).manual_seed(derive(seed, "sample"))
        given = None if condition is None else condition.to(self.device)
        draw: Ancestral | Held = ancestral(self.model, n, generator, steps, noise)
        if held is not None:
            values = levels.held_values(self.model, held, n)
            draw = Held(values=values, batch=n, generator=generator, steps=draw.steps, noise=draw.noise)
        px = self.model(None, draw, given).px
        if mean and not hasattr(px, "greedy"):
            return px.mean[0].cpu()
        return (point_estimate(px) if mean else sample(px, (), generator))[0].cpu()

    def conditions(self, n: int, label: str | None = None) -> Tensor | None:
        """``n`` conditions: of one class, or of all classes in turn; None for an unconditional model.

        Raises:
            ConfigError: an unknown class, or conditions that are not classes.
        """
        if not self.shapes.condition:
            if label is not None:
                raise ConfigError(f"label={label!r}: this model has no condition; train recipe cvae")
            return None
        if self.transform.condition != "labels":
            raise ConfigError("this model is conditioned on vectors; give them as condition (n, c)")
        if label is not None and label not in self.classes:
            raise ConfigError(f"label={label!r} is not a class; known: {', '.join(self.classes)}")
        codes = torch.arange(n) % len(self.classes) if label is None else torch.full((n,), self.classes.index(label))
        return one_hot(codes, len(self.classes))

    def between(self, first: Tensor, second: Tensor, steps: int = 10) -> Tensor:
        """Points on the lines between latents (P, latent), their ends included, (P, steps, latent).

        The lines are straight; on a sphere they are brought to it, where they are parts of great circles.

        Raises:
            ConfigError: a model without latents, or with latents that have nothing between them, or too few steps.
            ShapeError: latents that don't come in pairs.
        """
        self.require_lines()
        if steps < 2:
            raise ConfigError(f"steps={steps}: expected at least 2, the ends of a line")
        if first.dim() != 2 or first.shape != second.shape:
            raise ShapeError(
                f"latents of shapes {tuple(first.shape)} and {tuple(second.shape)}: expected (pairs, latent) twice"
            )
        at = torch.linspace(0, 1, steps).view(1, -1, 1)
        z = first.unsqueeze(1) * (1 - at) + second.unsqueeze(1) * at
        return nn.functional.normalize(z, dim=-1) if self._on_sphere else z

    @property
    def _on_sphere(self) -> bool:
        return self.config.latent_kind == "sphere"

    def require_lines(self) -> None:
        """Refuses a model whose latents have no lines between them.

        Raises:
            ConfigError: it has no latents, or discrete ones.
        """
        config = self.config
        if not config.has_latents:
            raise ConfigError("this model has no latents to go between; use its samples and its log p(x)")
        if not config.continuous and not self._on_sphere:
            raise ConfigError(
                "between discrete latents there is nothing to decode; use a model with continuous latents"
            )

    def interpolate(self, first: Tensor, second: Tensor, steps: int = 10, *, label: str | None = None) -> Tensor:
        """Decoded points on the lines between latents (P, latent), as `between` has them, (P, steps, *event).

        A conditional model decodes all of them as class ``label``, by default its first.

        Raises:
            ConfigError: no such lines, too few steps, or a label that is no class.
            ShapeError: latents that don't come in pairs.
        """
        z = self.between(first, second, steps)
        label = self.classes[0] if label is None and self.shapes.condition and self.classes else label
        condition = self.conditions(z.shape[0] * steps, label)
        return self.decode(z.flatten(0, 1), condition).unflatten(0, (z.shape[0], steps))


def load(
    path: str | Path,
    *,
    device: str = "auto",
    step: int | None = None,
    encoder: nn.Module | None = None,
    decoder: nn.Module | None = None,
) -> Run:
    """Opens a run folder: the model at its best checkpoint (or that of ``step``), ready for use.

    A run trained with modules of yours needs them again, as ``encoder`` and ``decoder``.

    Raises:
        ConfigError: no run there.
        CheckpointError: no checkpoint that verifies.
    """
    folder = RunFolder(path)
    values = folder.read_recipe()
    config = with_modules(resolve(values["recipe"], layer_of_run(values)), encoder, decoder)
    transform = Transform.from_dict(values["transform"])
    model = config.model.build(config, transform.shapes(config.model.latent))
    found = _checkpoint(folder, step)
    checkpoint.apply(model, found.tensors.get("ema") or found.tensors["model"])
    chosen = choose_device(device)
    model.to(chosen).eval()
    history = tuple(read_metrics(folder.metrics))
    return Run(config, model, transform, chosen, folder, history, found.step, found.skipped)


def with_modules(config: Config, encoder: nn.Module | None, decoder: nn.Module | None) -> Config:
    """The configuration with a user's own modules in place of the networks it names."""
    if encoder is not None:
        config = replace(config, encoder=UserEncoder(encoder))
    return config if decoder is None else replace(config, decoder=UserDecoder(decoder))


def _checkpoint(folder: RunFolder, step: int | None) -> checkpoint.Checkpoint:
    """The checkpoint of ``step``, else the best that verifies, else the newest."""
    return checkpoint.best(folder.path) if step is None else checkpoint.load(checkpoint.path_of(folder.path, step))


def check_support(model: LatentModel, view: View) -> None:
    """Refuses data that the likelihood can't score, with the fix in the message."""
    if isinstance(model.likelihood, LikelihoodModule):
        view.check(model.likelihood.support)
