"""The checks of closed-form EM catch planted faults (listed with ``pytest -s``)."""

import dataclasses

import pytest

import lambent.training.em.linear_gaussian as linear
import lambent.training.em.mixture as mixtures
from support.em_checks import (
    agrees_with_sklearn,
    fa_agrees_with_sklearn,
    m_step_is_flat,
    never_falls,
    ppca_reaches_the_maximum,
    q_is_the_posterior,
)


def over_examples(patch):
    def wrong(log_joint):
        log_p, _ = mixtures_real(log_joint)
        return log_p, log_joint.softmax(0)

    mixtures_real = mixtures.responsibilities
    patch.setattr(mixtures, "responsibilities", wrong)


def old_mean(patch):
    seen, real_means, real_scatter = [], mixtures._means, mixtures._scatter

    def means(old, x, mass):
        seen.append(old.clone())
        return real_means(old, x, mass)

    patch.setattr(mixtures, "_means", means)
    patch.setattr(mixtures, "_scatter", lambda mean, x, mass: real_scatter(seen[-1], x, mass))


def no_spread(patch):
    patch.setattr(linear, "spread", lambda weight, covariance: 0.0)


def no_covariance_in_the_second_moment(patch):
    real = linear.regression
    patch.setattr(linear, "regression", lambda flat, b, gain, v: real(flat, b, gain, 1e-9 * v))


def without_prior_weights(patch):
    real = mixtures.responsibilities
    patch.setattr(mixtures, "responsibilities", lambda joint: (real(joint)[0], (joint - joint.mean(0)).softmax(1)))


def unbiased_variance(patch):
    real = mixtures._scatter
    patch.setattr(mixtures, "_scatter", lambda mean, x, mass: real(mean, x, mass) * len(x) / (len(x) - 1))


def transposed_gain(patch):
    real = linear.posterior_map
    patch.setattr(linear, "posterior_map", lambda w, s: (real(w, s)[0] * s.exp(), real(w, s)[1]))


def fa(check):
    def run():
        check("ppca", "normal", "dimension")

    run.__name__ = f"{check.__name__} of factor analysis"
    return run


@dataclasses.dataclass(frozen=True)
class Fault:
    plant: object
    check: object

    def __str__(self):
        return f"{self.plant.__name__}, {self.check.__name__}"


FAULTS = [
    *(Fault(over_examples, check) for check in (never_falls, m_step_is_flat, agrees_with_sklearn)),
    *(Fault(old_mean, check) for check in (m_step_is_flat, agrees_with_sklearn)),
    *(Fault(without_prior_weights, check) for check in (never_falls, m_step_is_flat)),
    *(Fault(unbiased_variance, check) for check in (never_falls, m_step_is_flat, agrees_with_sklearn)),
    *(Fault(no_spread, check) for check in (fa(m_step_is_flat), fa_agrees_with_sklearn)),
    *(Fault(no_covariance_in_the_second_moment, check) for check in (fa(m_step_is_flat), ppca_reaches_the_maximum)),
    *(Fault(transposed_gain, check) for check in (fa(m_step_is_flat), q_is_the_posterior)),
]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_planted_fault_is_caught(fault, monkeypatch):
    fault.plant(monkeypatch)
    with pytest.raises(AssertionError) as caught:
        fault.check()
    print(f"caught: {fault}:", *str(caught.value).splitlines()[:1])
