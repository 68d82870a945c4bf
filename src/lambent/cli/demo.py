"""`lambent demo`: trains a model, evaluates it and writes its report in about a minute."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

from lambent.errors import ConfigError
from lambent.likelihoods import DiscretisedLogisticLikelihood
from lambent.runs.export import write_samples
from lambent.runs.fit import fit
from lambent.runs.run import Run

SETTINGS: dict[str, Any] = {
    "latent": 2,
    "likelihood": DiscretisedLogisticLikelihood(scale="model"),
    "binarize": "none",
    "hidden": (200, 200),
    "epochs": 250,
    "lr": 2e-3,
    "lr_schedule": "cosine",
    "weight_decay": 0.2,
    "validate_every": 10,
    "log_every": 26,
    "threads": 1,
}
"""Grey levels rather than binarised pixels, so that the plane sorts the digits; one thread, which such small steps like
best, above all where other work shares the processors."""
SAMPLES = 1000


def demo(out: Path) -> None:
    """Trains a VAE with a latent plane on the digits, evaluates it, and writes its report and samples.

    Args:
        out: Folder of the run; where there is something already, a numbered one beside it.
    """
    folder = free_folder(out)
    print("A VAE with 2 latent dimensions on the UCI handwritten digits: 1437 images of 8 x 8 pixels, 17 grey levels.")
    run = fit("vae", "digits", out=folder, **SETTINGS)
    print(f"Measuring on the 360 test images with K = {SAMPLES} importance samples each.")
    found = run.evaluate(samples=SAMPLES)
    run.record(found)
    print(found)
    shown = [_report(run, folder / "report.html"), _samples(run, folder / "samples" / "samples.png")]
    print("\n".join([*shown, "", "Next:", *next_steps(folder)]))


def free_folder(out: Path) -> Path:
    """``out`` if it is free (absent or empty), else the first free of ``out-2``, ``out-3``, ..."""
    candidates = (out if i == 1 else out.with_name(f"{out.name}-{i}") for i in count(1))
    return next(c for c in candidates if not c.exists() or (c.is_dir() and not any(c.iterdir())))


def _report(run: Run, path: Path) -> str:
    from lambent.report import write_report

    try:
        write_report(run, path)
    except ConfigError as error:
        return f"No report: {error}"
    return f"Report:  {path}"


def _samples(run: Run, path: Path) -> str:
    write_samples(run, 100, path, mean=True)
    return f"Samples: {path}"


def next_steps(folder: Path) -> list[str]:
    """Three commands to go on with."""
    return [
        f"  lambent reconstruct {folder} --data digits --out reconstructions.png",
        f"  lambent fit cvae --data digits --out {folder.with_name('cvae')}     # or your own .npy, .csv, image folder",
        "  lambent recipes                                        # everything else it can train",
    ]
