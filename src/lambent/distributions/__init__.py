"""What torch.distributions lacks: sampling with a generator, exact numerics, closed-form KLs."""

from lambent.distributions.absorbing_diffusion import MaskedDiffusion
from lambent.distributions.ar1 import AR1
from lambent.distributions.autoregressive import Autoregressive
from lambent.distributions.autoregressive_bernoulli import AutoregressiveBernoulli
from lambent.distributions.base import Distribution
from lambent.distributions.codes import CodeAssignment, EmbeddedCodes
from lambent.distributions.counts import NegativeBinomial, Poisson
from lambent.distributions.discrete import Bernoulli, Categorical, OneHotCategorical
from lambent.distributions.flow import Flow
from lambent.distributions.kl import closed_kl, closed_kl_elements, register_kl, register_kl_elements
from lambent.distributions.logistic import DiscretisedLogistic
from lambent.distributions.logistic_mixture import LogisticMixture
from lambent.distributions.marginals import log_marginals, register_marginals
from lambent.distributions.mixture import NormalMixture
from lambent.distributions.normal import CholeskyNormal, LowRankNormal, Normal, StandardNormal
from lambent.distributions.numerics import bounded_log_scale, unbounded_log_scale
from lambent.distributions.pixel_mixture import PixelMixture
from lambent.distributions.point import Delta, Flat
from lambent.distributions.product import Product
from lambent.distributions.rounded import RoundedNormal, RoundedPoint
from lambent.distributions.sampling import detached, point_estimate, rsample, rsample_and_log_prob, sample
from lambent.distributions.sphere import SphereUniform, VonMisesFisher
from lambent.distributions.text import Strings, after_eos

__all__ = [
    "AR1",
    "Autoregressive",
    "AutoregressiveBernoulli",
    "Bernoulli",
    "Categorical",
    "CholeskyNormal",
    "CodeAssignment",
    "Delta",
    "DiscretisedLogistic",
    "Distribution",
    "EmbeddedCodes",
    "Flat",
    "Flow",
    "LogisticMixture",
    "LowRankNormal",
    "MaskedDiffusion",
    "NegativeBinomial",
    "Normal",
    "NormalMixture",
    "OneHotCategorical",
    "PixelMixture",
    "Poisson",
    "Product",
    "RoundedNormal",
    "RoundedPoint",
    "SphereUniform",
    "StandardNormal",
    "Strings",
    "VonMisesFisher",
    "after_eos",
    "bounded_log_scale",
    "closed_kl",
    "closed_kl_elements",
    "detached",
    "log_marginals",
    "point_estimate",
    "register_kl",
    "register_kl_elements",
    "register_marginals",
    "rsample",
    "rsample_and_log_prob",
    "sample",
    "unbounded_log_scale",
]
