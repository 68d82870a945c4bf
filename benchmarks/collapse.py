"""Posterior collapse on text, and its remedies: a sentence VAE, plain and with each remedy, for equally many steps.

Every run is a folder under --out and every step of every schedule counts, the encoder's own too. What is there already
is not trained again, and a run that was stopped goes on where it was; so the script can be ended and started at will.
The table (and runs.json, and the plot) comes of the same code as ``lambent compare``. All runs are measured on the
lines that training never saw.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import lambent
from lambent.config import check, settings_of_tokens
from lambent.errors import ConfigError
from lambent.recipes import configure
from lambent.report.runs.file import write_comparison
from lambent.report.runs.text_table import runs_text

RECIPE = "sentence-vae"


@dataclass(frozen=True)
class Contender:
    """A run: its folder's name, and its settings ({part} of the steps filled in)."""

    name: str
    tokens: tuple[str, ...] = ()

    def settings(self, steps: int) -> tuple[str, ...]:
        """The ``key=value`` settings for a training of so many steps."""
        return tuple(token.format(half=max(1, steps // 2)) for token in self.tokens)


CONTENDERS = (
    Contender("plain"),
    Contender("warm-up", ("rate=warm-up", "rate.steps={half}")),
    Contender("free-bits", ("rate=free-bits", "rate.nats=0.1")),
    Contender(
        "aggressive-encoder",
        ("schedule=aggressive-encoder", "schedule.window=5", "schedule.inner_steps=15", "schedule.measure_every=50"),
    ),
    Contender("words-dropped", ("decoder.input_dropout=0.5",)),
    Contender(
        "limited-receptive-field",
        ("decoder=transformer", "decoder.model_dim=128", "decoder.layers=2", "decoder.receptive_field=5"),
    ),
    Contender("fixed-kappa-vmf", ("posterior=von-mises-fisher", "prior=sphere", "posterior.concentration=30")),
    Contender("delta-vae", ("prior=ar1", "posterior=bounded-normal", "posterior.rate=2")),
)


def possible(contender: Contender, common: tuple[str, ...], steps: int) -> str:
    """Why the recipe can't be given this remedy; "" where it can."""
    try:
        check(configure(RECIPE, tokens=(*common, *contender.settings(steps))))
    except ConfigError as error:
        return str(error)
    return ""


def trained(contender: Contender, data: str, out: Path, common: tuple[str, ...], steps: int, samples: int) -> Path:
    """The run's folder, trained to the end and measured."""
    print(f"== {contender.name} {' '.join(contender.settings(steps))}", flush=True)
    folder = out / contender.name
    tokens = (*common, *contender.settings(steps))
    run = lambent.fit(RECIPE, data, out=folder, resume=True, **settings_of_tokens(tokens))
    known = run.folder.read_json(run.folder.evaluation) if run.folder.evaluation.is_file() else {}
    if known.get("samples") != samples or known.get("step") != run.step:
        run.record(run.evaluate(samples=samples))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="a text file, such as tinyshakespeare.txt; a line is an example")
    parser.add_argument("--out", type=Path, default=Path("runs/collapse"), help="folder of the runs, table and plot")
    parser.add_argument("--steps", type=int, default=2500, help="training steps of each run")
    parser.add_argument("--samples", type=int, default=10, help="importance samples K of the measurements")
    parser.add_argument("--only", action="append", default=[], help="name of a run (repeat it for more); else all")
    parser.add_argument("settings", nargs="*", help="key=value settings of all runs", default=[])
    given = parser.parse_intermixed_args()
    common = (f"train.steps={given.steps}", "train.threads=1", *given.settings)
    folders = []
    for contender in CONTENDERS:
        if given.only and contender.name not in given.only:
            continue
        why = possible(contender, common, given.steps)
        if why:
            print(f"== {contender.name} is left out: {why}", flush=True)
            continue
        folders.append(trained(contender, given.data, given.out, common, given.steps, given.samples))
    found = lambent.compare_runs(folders, samples=given.samples)
    print(runs_text(found))
    (given.out / "runs.json").write_text(json.dumps(found.to_dict(), indent=1, ensure_ascii=False) + "\n")
    for suffix in ("svg", "html"):
        write_comparison(found, given.out / f"runs.{suffix}")


if __name__ == "__main__":
    main()
