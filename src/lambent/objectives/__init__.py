"""Objectives: one bound a file, rate functions and penalties beside them; importing this registers them."""

from lambent.objectives.base import Objective
from lambent.objectives.elbo import ELBO
from lambent.objectives.iwae import IWAE, effective_samples
from lambent.objectives.penalties import L1, L2, NoPenalty
from lambent.objectives.rates import Beta, Capacity, FreeBits, RateFunction, SumOfRates, WarmUp
from lambent.objectives.sleep import Sleep

__all__ = [
    "ELBO",
    "IWAE",
    "L1",
    "L2",
    "Beta",
    "Capacity",
    "FreeBits",
    "NoPenalty",
    "Objective",
    "RateFunction",
    "Sleep",
    "SumOfRates",
    "WarmUp",
    "effective_samples",
]
