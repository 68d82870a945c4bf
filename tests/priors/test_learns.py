"""Whether a prior learns follows from the parameters of what it builds."""

import pytest
import torch

from lambent.priors import AR1Prior, BernoulliPrior, BytePrior, CategoricalPrior
from lambent.priors.base import CodePriorSettings
from lambent.settings import registry

FIXED = {"ar1", "flat", "normal", "sphere", "uniform"}


@pytest.mark.parametrize("name", registry.names("prior"))
def test_a_prior_learns_where_it_has_parameters(name):
    before = torch.get_rng_state()
    assert registry.find("prior", name)().learns == (name not in FIXED)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("prior", "learns"),
    [
        (CategoricalPrior(learned=False), False),
        (CategoricalPrior(classes=7), True),
        (BernoulliPrior(learned=False), False),
        (BytePrior(learned="none"), False),
        (AR1Prior(sequence_length=3, alpha=(0.1, 0.5)), False),
    ],
    ids=repr,
)
def test_what_is_held_fixed_does_not_learn_and_any_setting_can_be_asked(prior, learns):
    assert prior.learns == learns


def test_priors_over_codes_are_asked_on_a_grid():
    assert all(isinstance(registry.find("prior", n)(), CodePriorSettings) for n in ("uniform", "pixelcnn"))
