"""Streams of random numbers: trainings repeat, and no two purposes share their noise."""

import itertools

import pytest
import torch

import lambent
from lambent import seeds
from lambent.errors import ConfigError
from lambent.seeds import derive

INDICES = {
    "training step": [(step, rank) for step in range(20) for rank in range(4)],
    "evaluation block": [(block,) for block in range(200)],
    "gradient batch": [(i,) for i in range(20)],
    "gradient warm-up": [(i,) for i in range(20)],
    "gradient repetitions": [(i,) for i in range(20)],
    "epoch": [(i,) for i in range(50)],
    "batch": [(e, p, r) for e in range(4) for p in range(10) for r in range(3)],
    "sample chunk": [(i,) for i in range(200)],
}


def seeds_of(streams):
    return [(n, s, derive(s, n, *i)) for n in streams for s in range(3) for i in INDICES.get(n, [()])]


@pytest.mark.parametrize(
    ("stream", "indices", "expected"),
    [
        ("weights", (), 985363666577631307),
        ("initial examples", (), 8545870754645080491),
        ("initialisation", (), 5921022579797597485),
        ("validation", (), 2676704365526218614),
        ("monitor", (), 7226660514274547784),
        ("prior initialisation", (), 3848826380882742721),
        ("prior initial latents", (), 8068443963291334032),
        ("evaluation block", (3,), 1920140327098352202),
        ("epoch", (1,), 1994079396155987902),
        ("batch", (1, 2, 0), 472392973883300717),
    ],
)
def test_old_trainings_and_evaluations_repeat(stream, indices, expected):
    assert derive(0, stream, *indices) == expected


def test_the_noise_of_a_training_step_is_that_of_old_trainings():
    assert derive(3, "training step", 17, 1) == 2546495037196645401


@pytest.mark.parametrize("table", ["training", "use"])
def test_streams_with_small_indices_are_pairwise_different(table):
    everything = [*seeds.TRAINING, *seeds.EVALUATION, *seeds.GRADIENTS, *seeds.ORDER]
    training = [*seeds.TRAINING, *seeds.ORDER]
    found = seeds_of(training if table == "training" else seeds.USE)
    numbers = [number for _, _, number in found]
    assert len(set(numbers)) == len(numbers)
    if table == "use":  # none of them meets any stream of training, evaluation or comparisons either
        assert not set(numbers) & {number for _, _, number in seeds_of(everything)}


def test_a_stream_of_no_name_is_refused():
    with pytest.raises(ConfigError, match=r"stream 'sampel' is not known: expected one of weights"):
        derive(0, "sampel")


def test_a_sample_and_an_evaluation_of_one_seed_use_different_noise():
    run = lambent.fit("vae", "digits", latent=2, hidden=[4], epochs=0, quiet=True)
    chunks = [derive(0, "evaluation block", block) for block in range(1000)]
    noise = [torch.Generator().manual_seed(derive(0, "sample")).initial_seed()]
    assert not set(noise) & set(chunks)
    made = [run.sample(5, seed=0), run.decode(torch.zeros(5, 2), seed=0)]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(made, 2))
