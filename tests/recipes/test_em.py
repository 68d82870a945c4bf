"""The EM recipes as a user runs them: monotone, at the maximum where it is known, refused where nothing is closed."""

from itertools import pairwise

import pytest

import lambent
from lambent.config import settings_of_tokens
from lambent.data import DataOptions, load
from lambent.errors import CombinationError, ConfigError
from support.em_checks import ppca_evidence


@pytest.fixture(scope="module")
def digits():
    return load("digits", options=DataOptions(), split="train")


def bounds_of(run):
    return [row["train"]["bound"] for row in run.history if "train" in row]


@pytest.mark.parametrize("recipe", ["em-gmm", "em-ppca", "em-fa"])
def test_the_log_of_a_run_rises_to_the_end(recipe, digits):
    run = lambent.fit(recipe, digits, valid=digits, latent=5, epochs=40, quiet=True)
    found, logged = run.evaluate(digits, samples=1), bounds_of(run)
    assert len(logged) == 40
    assert all(after >= before - 1e-3 for before, after in pairwise(logged))
    assert logged[-1] > logged[0] + 10
    assert found.log_likelihood.value >= logged[-1] - 1e-3
    if found.iwae.kind != "exact":  # one weight at the exact posterior is p(x)
        assert abs(found.iwae.value - found.log_likelihood.value) < 1e-3


def test_ppca_ends_at_the_closed_form(digits):
    run = lambent.fit("em-ppca", digits, valid=digits, latent=5, quiet=True)
    truth = ppca_evidence(digits.x.flatten(1).double() / 16, 5)
    short = truth - run.evaluate(digits, samples=1).log_likelihood.value
    print(f"em-ppca: {short:.1e} nats short of the maximum after 100 iterations")
    assert -1e-6 < short < 1e-3


def test_what_em_cannot_do_is_refused(digits):
    for tokens, error in ((("decoder=mlp",), CombinationError), (("batch_size=100",), ConfigError)):
        with pytest.raises(error, match="schedule=em"):
            lambent.fit("em-ppca", digits, valid=digits, latent=2, epochs=1, quiet=True, **settings_of_tokens(tokens))
