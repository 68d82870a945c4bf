"""The page of a model of codes speaks of codes: how many, how often, and never of dimensions, variances or planes."""

import math
import re

import numpy as np
import pytest
import torch

from lambent import fit
from lambent.data import from_arrays
from lambent.report.build import build
from lambent.report.examples import gather
from lambent.report.sections.codes import section
from lambent.runs.export import write_reconstructions, write_samples

SMALL = {"codebook_size": 8, "posterior__embedding_dim": 3, "epochs": 1, "batch_size": 20, "threads": 1}
CONV = {f"{s}__{k}": v for s in ("encoder", "decoder") for k, v in (("smallest", 4), ("channels", (4,)), ("blocks", 1))}
MLP = {"encoder": "mlp", "decoder": "mlp", "encoder__hidden": [8], "decoder__hidden": [8], "latent": 3}
PRIOR = {"prior": "transformer", "prior__model_dim": 8, "prior__layers": 1, "prior__heads": 2}


@pytest.fixture(scope="module")
def run():
    """Two levels, 4 x 4 and 2 x 2 codes of 8."""
    x = np.random.default_rng(0).integers(0, 256, (60, 3, 8, 8)).astype(np.uint8)
    return fit("vq-vae-2", x, quiet=True, **SMALL, **CONV)


def test_the_page_counts_codes_as_a_loop_does(run):
    page = build(run)
    assert "4 × 4 codes of 8 and 2 × 2 codes of 8" in page
    for word in ("latent dimensions", "principal", "active units", "IWAE", "Collapse"):
        assert word not in page, word
    held = gather(run)
    found = section(held)
    assert f"{20 * math.log(8):.2f} nats" in found.text
    for panel, part, places in zip(found.panels, held.z.long().split([16, 4], 1), (16, 4), strict=True):
        counts = [sum(int(index) == code for index in part.flatten()) for code in range(8)]
        used = sum(count > 0 for count in counts)
        assert panel.words.startswith(f"{used} of 8 codes occur at {places} positions of {len(part)} examples;")
        p = [count / sum(counts) for count in counts if count]
        perplexity = math.exp(-sum(q * math.log(q) for q in p))
        shown = re.search(r"perplexity is ([\d.]+):", panel.words)
        assert shown is not None
        assert float(shown[1]) == pytest.approx(perplexity, abs=0.051)


def test_training_takes_no_active_units_of_indices(run):
    valid = [row["valid"] for row in run.history if "valid" in row]
    assert all("active_units" not in row and row["codes"].keys() == {"z1", "z2"} for row in valid)


def labelled(x):
    return from_arrays(x, labels=np.arange(len(x)) % 2)


def test_a_conditional_model_of_codes_draws_and_reconstructs_by_its_labels(tmp_path):
    """Dark images of one class and bright ones of the other: samples of each class are so."""
    noise = np.random.default_rng(1).integers(0, 40, (200, 1, 8, 8))
    x = (noise + 200 * (np.arange(200) % 2)[:, None, None, None]).astype(np.uint8)
    settings = {**SMALL, "epochs": 30, "lr": 1e-2, "condition": "labels", "posterior__embedding_dim": 2}
    run = fit("vq-vae-ema", labelled(x), quiet=True, **settings, **CONV, **PRIOR)
    first, second = (run.sample(40, seed=1, condition=run.conditions(40, name)).mean() for name in run.classes)
    assert second - first > 100
    write_samples(run, 4, tmp_path / "s.npz", label=run.classes[1])
    write_reconstructions(run, labelled(x), tmp_path / "r.npz", number=6)
    with np.load(tmp_path / "s.npz") as drawn, np.load(tmp_path / "r.npz") as file:
        assert drawn["labels"].tolist() == [1] * 4
        assert drawn["x"].mean() > 120
        dark, bright = (file["reconstruction"][file["labels"][:6] == label].mean() for label in (0, 1))
        assert bright - dark > 100


def test_a_table_with_categories_is_reconstructed_from_its_codes(tmp_path):
    """The most probable category of p(x|z) at the codes of each row."""
    path = tmp_path / "t.csv"
    rng = np.random.default_rng(2)
    rows = [f"{rng.normal():.4f},{'abc'[rng.integers(3)]}" for _ in range(80)]
    path.write_text("\n".join(["size,kind", *rows]) + "\n")
    settings = {**SMALL, **MLP, "likelihood": "mixed", "prior": "uniform"}
    run = fit("vq-vae-ema", path, quiet=True, **settings)
    write_reconstructions(run, path, tmp_path / "r.npz")
    with np.load(tmp_path / "r.npz") as file:
        z, found = torch.from_numpy(file["z"]), file["reconstruction"]
    with torch.no_grad():
        expected = run.model.decode(z.unsqueeze(0)).mode[0, :, 1]
    assert z.shape == (80, 3)
    assert np.array_equal(found[:, 1], expected.numpy())
    assert "3 codes of 8" in build(run)
