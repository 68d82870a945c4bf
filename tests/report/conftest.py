"""Small runs, trained once, that the tests of the report look at."""

import csv

import numpy as np
import pytest

from lambent import fit

PEOPLE = ("height <b>", "weight", "children", "=cmd()")
NAMES = ("<img src=x onerror=alert(1)>", "=1+1", "plain")

SMALL = {"encoder__hidden": (16,), "decoder__hidden": (16,)}


@pytest.fixture(scope="session")
def table(tmp_path_factory):
    """A table whose names are as bad as they get: 300 rows of two numbers, a count and a category."""
    path = tmp_path_factory.mktemp("data") / "people.csv"
    rng = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(PEOPLE)
        for _ in range(300):
            height = rng.normal(170, 8)
            row = [f"{height:.1f}", f"{0.8 * height - 65 + rng.normal(0, 6):.1f}", rng.poisson(2), rng.choice(NAMES)]
            writer.writerow(row)
    return path


@pytest.fixture(scope="session")
def train(tmp_path_factory):
    """Trains a recipe for a few steps into a folder of its own, once for the same arguments."""
    done = {}

    def run(recipe, data="digits", name="run", **settings):
        key = (recipe, str(data), name, *sorted(settings.items()))
        if key not in done:
            out = tmp_path_factory.mktemp("runs") / name
            small = {} if recipe in ("gmm", "linear-ae", "ppca", "made") else SMALL
            settings = {"epochs": 3, "threads": 1, "log_every": 5} | small | settings
            done[key] = fit(recipe, data, out=out, quiet=True, **settings)
        return done[key]

    return run
