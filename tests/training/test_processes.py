"""Two processes: the same global batch and steps, a bound within 3 standard errors, and every example counted once."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lambent.data import Batches
from lambent.storage.metrics import read_metrics

SETTINGS = "latent=4 hidden=[64] epochs=15 batch_size=101 ema=2000 grad_clip=20 threads=1 --data digits".split()
ALONE = [sys.executable, "-m", "lambent"]
TOGETHER = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "lambent"]


def call(launcher: list[str], *arguments: str) -> str:
    done = subprocess.run([*launcher, *arguments], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def evaluate(launcher: list[str], run: Path) -> dict[str, Any]:
    out = call(launcher, "evaluate", str(run), "--samples", "50", "--threads", "1", "--json")
    return json.loads(out[out.index("{") :])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("processes")
    for launcher, name in ((ALONE, "one"), (TOGETHER, "two")):
        call(launcher, "fit", "vae", *SETTINGS, "--out", str(folder / name))
    return folder / "one", folder / "two"


def test_two_processes_train_as_many_steps_to_the_same_bound(runs):
    one, two = (read_metrics(run / "metrics.jsonl")[-1] for run in runs)
    assert one["step"] == two["step"]
    assert one["valid"]["n"] == two["valid"]["n"]
    z = (one["valid"]["bound"] - two["valid"]["bound"]) / math.hypot(one["valid"]["se"], two["valid"]["se"])
    assert abs(z) <= 3


def test_two_processes_evaluate_to_the_number_of_one(runs):
    alone, together = evaluate(ALONE, runs[1]), evaluate(TOGETHER, runs[1])
    assert alone["n"] == together["n"] == 360
    for name in ("elbo", "iwae_50"):
        assert together[name]["value"] == pytest.approx(alone[name]["value"], rel=1e-12)
        assert together[name]["se"] == pytest.approx(alone[name]["se"], rel=1e-12)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_global_batch_is_the_same_set_for_any_number_of_processes(world):
    whole = Batches(range(103), 10, seed=3)
    parts = [Batches(range(103), 10, seed=3, rank=rank, world=world) for rank in range(world)]
    for position in range(len(whole)):
        together = torch.cat([p.share(2, position).indices for p in parts])
        assert sorted(together.tolist()) == sorted(whole.indices(2, position).tolist())
        assert sum(p.share(2, position).weight for p in parts) == pytest.approx(world)


CODES = """
import os, sys
import numpy as np
from lambent import fit

conv = {"smallest": 2, "channels": (8,), "blocks": 1}
networks = {f"{side}__{name}": value for side in ("encoder", "decoder") for name, value in conv.items()}
prior = {"prior": "transformer", "prior__model_dim": 8, "prior__layers": 1, "prior__heads": 2}
run = fit("vq-vae-ema", "digits", quiet=True, codebook_size=16, posterior__embedding_dim=3, epochs=3, batch_size=101,
          threads=1, dead_code_threshold=float(sys.argv[2]), lr=1e-2, **networks, **prior)
tensors = {name: tensor.numpy() for name, tensor in run.model.state_dict().items()}
np.savez(f"{sys.argv[1]}/{os.environ.get('RANK', 'alone')}.npz", **tensors)
"""


def codes_by(folder: Path, launcher: list[str], revive: str) -> None:
    script = folder / "codes.py"
    script.write_text(CODES)
    call([*launcher, str(script)], str(folder), revive)


def test_two_processes_learn_the_same_codes_in_both_stages_with_no_folder_between_them(tmp_path):
    """Bit by bit alike on both, dead codes revived; without revival, the codes of one process up to rounding."""
    codes_by(tmp_path, TOGETHER[:-2], "0.5")
    first, second = (dict(np.load(tmp_path / f"{rank}.npz")) for rank in (0, 1))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    codes_by(tmp_path, TOGETHER[:-2], "0.0")
    codes_by(tmp_path, ALONE[:1], "0.0")
    together, alone = (dict(np.load(tmp_path / f"{name}.npz")) for name in ("0", "alone"))
    for name in ("codes", "counts"):
        found, expected = (file[f"levels.0.quantiser.{name}"] for file in (together, alone))
        assert np.allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert not np.allclose(first["levels.0.quantiser.codes"], alone["levels.0.quantiser.codes"], atol=1e-3)


OUTLIERS = """
import os, sys
from lambent import fit

run = fit("vae", "digits", quiet=True, out=f"{sys.argv[1]}/run", hidden=(8,), latent=2, steps=60,
          batch_size=101, threads=1, grad_spike_factor=1.01, log_every=20, lr=1e-5)
weights = run.model.state_dict()
with open(f"{sys.argv[1]}/{os.environ['RANK']}.txt", "w") as file:
    print([float(w.double().sum()) for w in weights.values()], file=file)
"""


def test_two_processes_leave_out_the_same_steps(tmp_path):
    """A factor so small that every third step is an outlier: one that disagreed would wait for the other for ever."""
    script = tmp_path / "outliers.py"
    script.write_text(OUTLIERS)
    call([*TOGETHER[:-2], str(script)], str(tmp_path))
    assert (tmp_path / "0.txt").read_text() == (tmp_path / "1.txt").read_text()
    assert read_metrics(tmp_path / "run" / "metrics.jsonl")[-2]["outliers"] > 5
