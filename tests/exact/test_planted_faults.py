"""The checks of the exact truths catch planted faults, and pass without them.

``pytest tests/exact/test_planted_faults.py -s`` lists them.
"""

import pytest
import torch

from exact import (
    checks,
    score_faults,  # noqa: F401 - it enters its faults into the list
)
from exact.faults import FAULTS, _softmax_weighted
from exact.tiny import ones, tiny
from exact.truths import LOG_P
from lambent.draws import Pathwise


@pytest.mark.parametrize("check", sorted({fault.check for fault in FAULTS}, key=lambda check: check.__name__))
def test_the_real_code_passes(check):
    check()


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_planted_fault_is_caught(fault, monkeypatch):
    fault.plant(monkeypatch)
    with pytest.raises(AssertionError) as caught:
        fault.check()
    print(f"caught: {fault.name}:", *str(caught.value).splitlines()[:1])


def test_at_least_fifteen_faults_are_planted():
    names = [fault.name for fault in FAULTS]
    print(f"{len(names)} planted faults")
    assert len(set(names)) == len(names) >= 15


def test_the_softmax_weighted_value_is_above_the_evidence():
    """What pythae reports as its IWAE loss reads -1.3171 on C2 at K = 10, 0.198 nats above log p(x)."""
    n = 100_000
    x = ones(n)
    with torch.no_grad():
        found = _softmax_weighted(tiny("C2", n)(x, Pathwise(10, checks.generator(0))).log_weight(x))
    se = found.std().item() / n**0.5
    assert abs(found.mean().item() + 1.3171) <= 5 * se + 5e-5
    assert found.mean().item() - LOG_P > 0.19
