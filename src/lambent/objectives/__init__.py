"""Objectives: one bound a file, rate functions and penalties beside them; importing this registers them."""

from lambent.objectives.base import Objective
from lambent.objectives.elbo import ELBO
from lambent.objectives.evidence import LogLikelihood
from lambent.objectives.grouped import CIWAE, MIWAE, PIWAE
from lambent.objectives.iwae import IWAE, effective_samples
from lambent.objectives.penalties.critics import AdversarialPenalty, FactorPenalty
from lambent.objectives.penalties.dip import DIPPenalty
from lambent.objectives.penalties.l1l2 import L1Penalty, L2Penalty, PenaltySettings
from lambent.objectives.penalties.mmd import MMDPenalty
from lambent.objectives.rates import Beta, Capacity, FreeBits, RateFunction, SumOfRates, WarmUp
from lambent.objectives.rates_by_level import KLBalancing, LevelWarmUp
from lambent.objectives.rates_by_timestep import SNRWeighted
from lambent.objectives.sleep import Sleep
from lambent.objectives.tc import TotalCorrelationRate
from lambent.objectives.wake_sleep import ReweightedWakeSleep, WakeSleep

__all__ = [
    "CIWAE",
    "ELBO",
    "IWAE",
    "MIWAE",
    "PIWAE",
    "AdversarialPenalty",
    "Beta",
    "Capacity",
    "DIPPenalty",
    "FactorPenalty",
    "FreeBits",
    "KLBalancing",
    "L1Penalty",
    "L2Penalty",
    "LevelWarmUp",
    "LogLikelihood",
    "MMDPenalty",
    "Objective",
    "PenaltySettings",
    "RateFunction",
    "ReweightedWakeSleep",
    "SNRWeighted",
    "Sleep",
    "SumOfRates",
    "TotalCorrelationRate",
    "WakeSleep",
    "WarmUp",
    "effective_samples",
]
