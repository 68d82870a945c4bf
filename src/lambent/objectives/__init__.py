"""Objectives: one bound a file, rate functions and penalties beside them; importing this registers them."""

from lambent.objectives.aggregated import Split
from lambent.objectives.base import Objective
from lambent.objectives.covariance import DIP
from lambent.objectives.critics import Adversarial, Factor
from lambent.objectives.discrepancy import MMD
from lambent.objectives.elbo import ELBO
from lambent.objectives.iwae import IWAE, effective_samples
from lambent.objectives.penalties import L1, L2, NoPenalty, PenaltySettings
from lambent.objectives.rates import Beta, Capacity, FreeBits, RateFunction, SumOfRates, WarmUp
from lambent.objectives.sleep import Sleep

__all__ = [
    "DIP",
    "ELBO",
    "IWAE",
    "L1",
    "L2",
    "MMD",
    "Adversarial",
    "Beta",
    "Capacity",
    "Factor",
    "FreeBits",
    "NoPenalty",
    "Objective",
    "PenaltySettings",
    "RateFunction",
    "Sleep",
    "Split",
    "SumOfRates",
    "WarmUp",
    "effective_samples",
]
