"""Which examples the numbers of a page are of."""

import numpy as np
import pytest

from lambent import fit, load
from lambent.report.build import build
from lambent.report.sections.curves import Curve, _painter

SEEN = "The model was trained on these examples"


def test_numbers_of_examples_kept_from_training_are_not_said_to_be_seen(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("train", "test"):
        np.save(tmp_path / f"{name}.npy", rng.normal(size=(40, 3)).astype(np.float32))
    small = {"latent": 1, "hidden": [4], "epochs": 1, "valid_fraction": 0.0, "threads": 1}
    fit("sigma-vae", str(tmp_path / "train.npy"), out=tmp_path / "run", quiet=True, **small)
    run = load(tmp_path / "run")
    for name, seen in (("test", False), ("train", True)):
        run.record(run.evaluate(str(tmp_path / f"{name}.npy"), samples=2))
        page = build(run)
        assert f"{name}.npy: all 40 examples" in page
        assert (SEEN in page) == seen


@pytest.mark.parametrize(("points", "marks", "named"), [(0, 0, False), (1, 1, True), (5, 0, True)])
def test_a_curve_of_training_values_is_named_if_there_are_any_and_seen_if_there_is_one(points, marks, named):
    from matplotlib.figure import Figure

    def curve(count):
        return np.stack([np.arange(1.0, count + 1), np.arange(1.0, count + 1)], 1)

    axes = Figure().add_subplot()
    _painter(Curve(curve(points), curve(4)), "nats", 2, 2.0)(axes)
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert ("training" in lines) == named
    if named:
        assert (lines["training"].get_marker() == "o") == bool(marks)
