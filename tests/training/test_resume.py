"""A run killed at any moment and resumed ends in the bytes of the unbroken run."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lambent.storage import checkpoint
from lambent.storage.metrics import read_metrics

SETTINGS = (
    "latent=3 hidden=[32] train.steps=400 batch_size=50 ema=500 rate=warm-up rate.steps=150 lr_schedule=cosine "
    "warmup_steps=20 grad_clip=5 checkpoint_every=40 log_every=7 validate_every=2 threads=1"
).split()
LEADING = "schedule=aggressive-encoder window=2 inner_steps=4 measure_every=8".split()
"""The encoder leads for the first 160 of 400 steps."""


def command(out: Path, *extra: str) -> list[str]:
    return [sys.executable, "-m", "lambent", "fit", "vae", *SETTINGS, "--data", "digits", "--out", str(out), *extra]


def digest(run: Path) -> tuple[str, str]:
    """sha256 of the last checkpoint's tensors and of the metrics."""
    last = checkpoint.path_of(run, 400)
    weights = b"".join((last / f"{name}.safetensors").read_bytes() for name in ("model", "ema", "optimizer"))
    return hashlib.sha256(weights).hexdigest(), hashlib.sha256((run / "metrics.jsonl").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    run = tmp_path_factory.mktemp("unbroken") / "run"
    subprocess.run(command(run), check=True, capture_output=True, timeout=240)
    return digest(run)


def lines(run: Path) -> int:
    """Lines of metrics so far; about 75 in all."""
    metrics = run / "metrics.jsonl"
    return metrics.read_bytes().count(b"\n") if metrics.exists() else -1


def kill_then_resume(
    run: Path, after: int, delay: float, number: signal.Signals = signal.SIGKILL, settings: tuple[str, ...] = ()
) -> int:
    """Starts, sends the signal ``delay`` s after so many lines of metrics, resumes; the broken part's exit code."""
    process = subprocess.Popen(command(run, *settings), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and lines(run) < after:
        time.sleep(0.002)
    time.sleep(delay)
    if process.poll() is None:
        os.kill(process.pid, number)
    code = process.wait(240)
    subprocess.run(command(run, "--resume", *settings), check=True, capture_output=True, timeout=240)
    return code


def check_kills(folder: Path, expected: tuple[str, str], times: int, seed: int, *settings: str) -> int:
    chance, killed = random.Random(seed), 0
    for i in range(times):
        run = folder / f"run{i}"
        code = kill_then_resume(run, chance.randrange(-1, 65), chance.uniform(0, 0.05), settings=settings)
        killed += code == -signal.SIGKILL
        assert digest(run) == expected, f"kill {i} of {times}"
    return killed


def test_killed_runs_resume_to_the_same_bytes(unbroken, tmp_path):
    assert check_kills(tmp_path, unbroken, 3, seed=1) >= 2


def test_a_killed_schedule_goes_on_in_the_middle_of_its_window(tmp_path):
    """Its running sums, turn and largest information are in the checkpoint: the same turns, to the same bytes."""
    whole = tmp_path / "whole"
    subprocess.run(command(whole, *LEADING), check=True, capture_output=True, timeout=240)
    phases = [row["schedule"] for row in read_metrics(whole / "metrics.jsonl") if "schedule" in row]
    assert phases[0]["leading"]
    assert not phases[-1]["leading"]
    assert len({phase.get("information") for phase in phases}) >= 3
    assert kill_then_resume(tmp_path / "stopped", 6, 0.01, signal.SIGTERM, tuple(LEADING)) == 143
    assert digest(tmp_path / "stopped") == digest(whole)
    assert check_kills(tmp_path, digest(whole), 1, 1, *LEADING) == 1


@pytest.mark.parametrize("draw", ["score", "relax"])
def test_a_killed_run_goes_on_with_what_its_draw_has_learnt(draw, tmp_path):
    coins = ("prior=bernoulli", "posterior=bernoulli", f"draw={draw}")
    subprocess.run(command(tmp_path / "whole", *coins), check=True, capture_output=True, timeout=240)
    assert check_kills(tmp_path, digest(tmp_path / "whole"), 1, 4, *coins) == 1


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_twenty_killed_runs_resume_to_the_same_bytes(unbroken, tmp_path):
    killed = check_kills(tmp_path, unbroken, 20, seed=2)
    print(f"killed in flight: {killed} of 20; same bytes: 20 of 20")
    assert killed >= 18


def test_sigterm_saves_and_exits_143_and_resumes_to_the_same_bytes(unbroken, tmp_path):
    run = tmp_path / "run"
    assert kill_then_resume(run, 20, 0.01, signal.SIGTERM) == 143
    assert digest(run) == unbroken


def test_a_damaged_newest_checkpoint_is_passed_over_and_the_run_still_ends_in_the_same_bytes(unbroken, tmp_path):
    run = tmp_path / "run"
    subprocess.run(command(run), check=True, capture_output=True, timeout=120)
    weights = checkpoint.path_of(run, 400) / "model.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    weights.write_bytes(damaged)
    resumed = subprocess.run(command(run, "--resume"), check=True, capture_output=True, text=True, timeout=120)
    assert "skipped" in resumed.stderr
    assert digest(run) == unbroken


def test_other_noise_gives_other_bytes(unbroken, tmp_path):
    """The digests above can differ at all."""
    run = tmp_path / "run"
    subprocess.run(command(run, "--seed", "1"), check=True, capture_output=True, timeout=120)
    assert digest(run)[0] != unbroken[0]
    assert digest(run)[1] != unbroken[1]
