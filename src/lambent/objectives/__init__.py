"""Objectives: one bound a file, rate functions and penalties beside them; importing this registers them."""

from lambent.objectives.base import Objective
from lambent.objectives.elbo import ELBO
from lambent.objectives.evidence import LogLikelihood
from lambent.objectives.grouped import CIWAE, MIWAE, PIWAE
from lambent.objectives.iwae import IWAE, effective_samples
from lambent.objectives.penalties.critics import Adversarial, Factor
from lambent.objectives.penalties.dip import DIP
from lambent.objectives.penalties.l1l2 import L1, L2, PenaltySettings
from lambent.objectives.penalties.mmd import MMD
from lambent.objectives.rates import Beta, Capacity, FreeBits, RateFunction, SumOfRates, WarmUp
from lambent.objectives.rates_by_level import Balanced, LevelWarmUp
from lambent.objectives.rates_by_timestep import NoiseWeighted
from lambent.objectives.sleep import Sleep
from lambent.objectives.tc import Split
from lambent.objectives.wake_sleep import ReweightedWakeSleep, WakeSleep

__all__ = [
    "CIWAE",
    "DIP",
    "ELBO",
    "IWAE",
    "L1",
    "L2",
    "MIWAE",
    "MMD",
    "PIWAE",
    "Adversarial",
    "Balanced",
    "Beta",
    "Capacity",
    "Factor",
    "FreeBits",
    "LevelWarmUp",
    "LogLikelihood",
    "NoiseWeighted",
    "Objective",
    "PenaltySettings",
    "RateFunction",
    "ReweightedWakeSleep",
    "Sleep",
    "Split",
    "SumOfRates",
    "WakeSleep",
    "WarmUp",
    "effective_samples",
]
