"""What torch.distributions lacks: sampling with a generator, exact numerics, closed-form KLs."""

from lambent.distributions.autoregressive import AutoregressiveBernoulli
from lambent.distributions.base import Distribution
from lambent.distributions.codes import Code, Coded
from lambent.distributions.counts import NegativeBinomial, Poisson
from lambent.distributions.discrete import Bernoulli, CategoricalLevels, OneHotCategorical
from lambent.distributions.kl import closed_kl, closed_kl_elements, register_kl, register_kl_elements
from lambent.distributions.logistic import DiscretisedLogistic
from lambent.distributions.marginals import log_marginals, register_marginals
from lambent.distributions.mixture import NormalMixture
from lambent.distributions.normal import CholeskyNormal, LowRankNormal, Normal, StandardNormal
from lambent.distributions.numerics import bounded_log_scale, unbounded_log_scale
from lambent.distributions.point import Delta, Flat
from lambent.distributions.product import Product
from lambent.distributions.rounded import RoundedNormal, RoundedPoint
from lambent.distributions.sampling import detached, rsample, rsample_and_log_prob, sample
from lambent.distributions.sequential import Autoregressive

__all__ = [
    "Autoregressive",
    "AutoregressiveBernoulli",
    "Bernoulli",
    "CategoricalLevels",
    "CholeskyNormal",
    "Code",
    "Coded",
    "Delta",
    "DiscretisedLogistic",
    "Distribution",
    "Flat",
    "LowRankNormal",
    "NegativeBinomial",
    "Normal",
    "NormalMixture",
    "OneHotCategorical",
    "Poisson",
    "Product",
    "RoundedNormal",
    "RoundedPoint",
    "StandardNormal",
    "bounded_log_scale",
    "closed_kl",
    "closed_kl_elements",
    "detached",
    "log_marginals",
    "register_kl",
    "register_kl_elements",
    "register_marginals",
    "rsample",
    "rsample_and_log_prob",
    "sample",
    "unbounded_log_scale",
]
