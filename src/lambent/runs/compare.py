"""`compare_runs`: several runs measured on the same data in the same way, side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from lambent.config import Config
from lambent.config.layers import ONE_OF_A_KIND, SECTIONS, USER
from lambent.data import View
from lambent.data.sources import Source
from lambent.errors import CombinationError, ConfigError, StorageError
from lambent.evaluation.per_example import read_each
from lambent.likelihoods import LikelihoodModule
from lambent.runs.run import Run, load
from lambent.settings import options_of, to_values
from lambent.storage.json import from_json, to_json

UNREMARKABLE = ("train.threads", "train.device", "train.keep_checkpoints", "train.log_every", "train.checkpoint_every")
"""Settings that no result hangs on."""


@dataclass(frozen=True)
class Gain:
    """By how much a run's tightest number is above the first run's, on the same examples, nats.

    Attributes:
        value: Mean of the differences.
        se: Standard error of that mean: what both runs find hard in an example is not in it.
        of: The two numbers, the run's own first.
    """

    value: float
    se: float
    of: tuple[str, str]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"value": self.value, "se": self.se, "unit": "nats", "of": list(self.of)}


@dataclass(frozen=True, eq=False)
class Row:
    """One run of a comparison.

    Attributes:
        name: The folder's name, with as much of its path as tells it from the others.
        recipe: What it started from.
        step: The training step of its weights.
        differs: Settings in which it differs from the first run, by dotted name.
        found: Its evaluation, as ``lambent evaluate --json`` prints it.
        each: The same of every example, see `lambent.evaluation.result.Evaluation`.
        gain: Over the first run; None for that one, and where either has no bound.
    """

    name: str
    recipe: str
    step: int
    differs: Mapping[str, Any]
    found: Mapping[str, Any]
    each: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    gain: Gain | None = None

    def figure(self, key: str) -> tuple[float, float, str] | None:
        """Value, standard error and kind of "elbo", "iwae", "log_likelihood", "rate", "distortion" or
        "mutual_information"; None where the run has none.
        """
        if key in ("rate", "distortion"):
            return self.found[key], self.found[f"{key}_se"], self.found.get(f"{key}_kind", "estimate")
        known = self.found.get(f"iwae_{self.found['samples']}" if key == "iwae" else key)
        return None if known is None else (known["value"], known["se"], known["kind"])

    @property
    def tightest(self) -> str | None:
        """The tightest bound on log p(x) there is, by its key in ``each``; None without one."""
        names = ("log_likelihood", f"iwae_{self.found['samples']}", "elbo")
        return next((name for name in names if name in self.each), None) if self.bound else None

    @property
    def bound(self) -> bool:
        """Whether its ELBO is a bound, or exact."""
        return bool(self.found["elbo"]["kind"] != "not a bound")


@dataclass(frozen=True, eq=False)
class RunTable:
    """Runs side by side.

    Attributes:
        data: The data's name.
        n: Examples.
        samples: K, as asked for; 1 where no run has draws of which more say more.
        rows: The runs, the first being what the others are held against.
    """

    data: str
    n: int
    samples: int
    rows: tuple[Row, ...]

    def to_dict(self) -> dict[str, Any]:
        """The object that ``lambent compare --json`` prints."""
        rows = [
            {"name": r.name, "recipe": r.recipe, "step": r.step, "differs": r.differs, "evaluation": r.found}
            | ({} if r.gain is None else {"gain": r.gain.to_dict()})
            for r in self.rows
        ]
        found = {"data": self.data, "n": self.n, "samples": self.samples, "runs": rows}
        return dict(to_json(found, "comparison"))


def compare_runs(
    runs: Sequence[str | Path | Run],
    data: Source | None = None,
    *,
    samples: int = 100,
    seed: int = 0,
    threads: int | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> RunTable:
    """Evaluates runs on the same data, or reads its ``evaluation.json`` where that is of these data, K, seed and step.

    Args:
        runs: Runs or their folders; settings are compared with the first one's.
        data: By default what each run kept from training, which must be the same.
        samples: K.
        seed: Of the noise.
        threads: Processors to use.
        say: Told of each evaluation.

    Raises:
        ConfigError: no run, or one given twice.
        CombinationError: runs that don't score the same data in the same way.

    >>> from lambent import fit
    >>> pair = [fit("vae", "digits", latent=latent, epochs=1, quiet=True) for latent in (2, 3)]
    >>> [row.differs for row in compare_runs(pair, samples=2).rows]
    [{}, {'model.latent': 3}]
    """
    if samples < 1:
        raise ConfigError(f"samples={samples}: expected at least 1")
    opened = [run if isinstance(run, Run) else load(run) for run in runs]
    names = _names(opened)
    views = []
    for name, run in zip(names, opened, strict=True):
        require_alike(opened[0], run, f"{names[0]} and {name}")
        views.append(run.prepare(data))
        _require_same_data(views[0], views[-1], f"{names[0]} and {name}")
    rows = []
    for name, run, view in zip(names, opened, views, strict=True):
        known = _stored(run, view, samples, seed)
        if known is None:
            say(f"measuring {name}")
            measured = run.evaluate(data, samples=samples, seed=seed, threads=threads)
            known = dict(from_json(measured.to_dict())), dict(measured.each)
        rows.append(Row(name, run.config.recipe, run.step, differing(opened[0].config, run.config), *known))
    rows = [rows[0], *(replace(row, gain=gain(row, rows[0])) for row in rows[1:])]
    taken = max(row.found["samples"] for row in rows)  # 1, where every posterior is a point
    return RunTable(views[0].dataset.name, len(views[0]), taken, tuple(rows))


def gain(row: Row, first: Row) -> Gain | None:
    """Mean and standard error of the differences of two runs' tightest numbers; None where either has no bound.

    >>> import torch
    >>> one, two = torch.tensor([-9.0, -1.0]), torch.tensor([-8.0, -1.0])
    >>> found = {"samples": 1, "elbo": {"kind": "lower bound"}}
    >>> over = gain(Row("b", "", 0, {}, found, {"elbo": two}), Row("a", "", 0, {}, found, {"elbo": one}))
    >>> over.value, round(over.se, 6), over.of
    (0.5, 0.5, ('elbo', 'elbo'))
    """
    ours, theirs = row.tightest, first.tightest
    if ours is None or theirs is None:
        return None
    difference = row.each[ours] - first.each[theirs]
    n = len(difference)
    spread = difference.std().item() / math.sqrt(n) if n > 1 else math.nan
    return Gain(difference.mean().item(), spread, (ours, theirs))


def _names(runs: Sequence[Run]) -> list[str]:
    """The last parts of each folder's path that tell it from the others."""
    if not runs:
        raise ConfigError("no run to compare; give the folders of one or more")
    paths = [
        run.folder.path.resolve() if run.folder else Path(f"{run.config.recipe} {i}") for i, run in enumerate(runs)
    ]
    for i, path in enumerate(paths):
        if path in paths[:i]:
            raise ConfigError(f"{path} is given twice; give each run once")
    for length in range(1, max(len(path.parts) for path in paths)):
        names = ["/".join(path.parts[-length:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def require_alike(first: Run, other: Run, which: str) -> None:
    """Refuses runs whose numbers are of different things.

    Raises:
        CombinationError: other shapes, another transform, probabilities against densities, conditions against none.
    """
    ours, theirs = first.transform.to_dict(), other.transform.to_dict()
    for key in [*ours, *(key for key in theirs if key not in ours)]:
        if key != "classes" and ours.get(key) != theirs.get(key):
            raise CombinationError(
                f"{which} don't score the same data in the same way: {key} is {_short(ours.get(key))} in one, "
                f"{_short(theirs.get(key))} in the other; compare runs of the same data.* settings"
            )
    kinds = ["a probability" if _discrete(run) else "a density" for run in (first, other)]
    if kinds[0] != kinds[1]:
        raise CombinationError(
            f"{which} don't score the same data in the same way: the likelihood is {kinds[0]} in one, {kinds[1]} in "
            "the other; compare runs whose likelihoods are both one of them"
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _discrete(run: Run) -> bool:
    likelihood = run.model.likelihood
    return isinstance(likelihood, LikelihoodModule) and likelihood.family.discrete


def _require_same_data(first: View, other: View, which: str) -> None:
    if first.dataset.fingerprint() != other.dataset.fingerprint():
        raise CombinationError(
            f"{which} don't score the same data: {first.dataset.name}, {len(first):,} examples, against "
            f"{other.dataset.name}, {len(other):,}, or other values; name the data to measure all of them on (--data)"
        )


def _stored(run: Run, view: View, samples: int, seed: int) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """The run's own evaluation, and that of every example, if they are what would be measured now."""
    if run.folder is None or not run.folder.evaluation.is_file():
        return None
    try:
        found = run.folder.read_json(run.folder.evaluation)
    except StorageError:
        return None
    step = found.pop("step", None)
    samples = 1 if run.config.deterministic else samples
    asked = {"samples": samples, "seed": seed, "n": len(view), "fingerprint": view.dataset.fingerprint()}
    current = run.folder.evaluation.stat().st_mtime >= run.folder.metrics.stat().st_mtime
    same = step == run.step and all(found.get(key) == value for key, value in asked.items())
    if not (same and current and "mutual_information" in found):
        return None
    each = read_each(run.folder.evaluation.with_suffix(".npz"), _means(found), len(view))
    return None if each is None else (found, each)


def _means(found: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an evaluation that every example has."""
    figures = {k: v["value"] for k, v in found.items() if k in ("elbo", "log_likelihood") or k.startswith("iwae_")}
    return {"elbo": figures.pop("elbo"), "rate": found["rate"], "distortion": found["distortion"], **figures}


def differing(first: Config, other: Config) -> dict[str, Any]:
    """Settings in which ``other`` differs from ``first``; of another part its name, and what is not its default.

    >>> from lambent.recipes import configure
    >>> differing(configure("vae"), configure("vae", tokens=["rate=warm-up", "rate.steps=500", "lr=0.01"]))
    {'rate': 'warm-up', 'rate.steps': 500, 'train.lr': 0.01}
    """
    found: dict[str, Any] = {}
    for section in SECTIONS:
        settings = getattr(other, section)
        name = "" if section in ONE_OF_A_KIND else other.name_of(section)
        exchanged = bool(name) and first.name_of(section) != name
        found |= {section: name} if exchanged else {}
        if settings is None or name == USER:
            continue
        before = _defaults(settings) if exchanged else to_values(getattr(first, section))
        now = to_values(settings)
        found |= {
            f"{section}.{key}": now.get(key) for key in options_of(type(settings)) if now.get(key) != before.get(key)
        }
    return {key: value for key, value in found.items() if key not in UNREMARKABLE}


def _defaults(settings: Any) -> dict[str, Any]:
    """The defaults of a part's settings, plain as `to_values` gives them."""
    plain = {name: field.default for name, field in options_of(type(settings)).items()}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}
