"""Which parts go together. Everything is legal unless a rule here refuses it, by name and with what would do."""

from __future__ import annotations

from lambent.config.config import USER, Config
from lambent.config.update_rules import updated
from lambent.draws import Draw, Enumerate, NoDraw
from lambent.errors import CombinationError
from lambent.likelihoods import TextFamily
from lambent.models.diffusion.settings import noised
from lambent.networks import (
    AutoregressiveSettings,
    CanvasSettings,
    ConvEncoder,
    DenoiserSettings,
    NoEncoder,
    ReaderSettings,
    UserDecoder,
    UserEncoder,
)
from lambent.objectives import (
    IWAE,
    LogLikelihood,
    NoPenalty,
    RateFunction,
    ReweightedWakeSleep,
    Sleep,
    SumOfRates,
)
from lambent.objectives.base import Objective
from lambent.posteriors import BoundedNormal, DiagonalNormal, NoCorruption, NoPosterior, RelativeNormal
from lambent.priors import AR1PriorSettings, CodeDiffusionSettings, LatentDiffusion, NoPrior
from lambent.settings import registry
from lambent.training.freeze import AUTOENCODER
from lambent.training.schedule import INFERENCE

USUAL_DRAW = {
    "mixed": "mixed",
    "continuous": "pathwise",
    "sphere": "pathwise",
    "codes": "straight-through",
    "bytes": "straight-through",
}
MOST_STATES = 2**20
"""Joint states of the latents that can be summed."""
MOST_ROWS = 2**20
"""States times examples of a batch that can be: of 784 pixels, 3.3 GB a tensor."""
USUAL = {"prior": "normal", "posterior": "normal", "draw": "pathwise", "encoder": "mlp"}
SUMMED = {"prior": "categorical", "posterior": "exact", "draw": "enumerate"}
SMOOTH = ("continuous", "sphere")
"""Kinds of latents whose values a gradient can move."""
PRIOR_FOR = {"one-hot": "categorical", "binary": "bernoulli", "codes": "uniform", "bytes": "bytes", "sphere": "sphere"}
DIFFUSIONS = (CodeDiffusionSettings, LatentDiffusion)
DIFFUSION_FOR = {"codes": "diffusion", "continuous": "latent-diffusion"}
DRAW_FOR = {"path": "pathwise", "none": "detached", "sum": "enumerate", "score": "score"}


def check(config: Config) -> None:
    """Refuses combinations that have no meaning.

    Raises:
        CombinationError: names the parts in conflict and what would do.
    """
    for rule in RULES:
        rule(config)


def biases(config: Config) -> list[str]:
    """What is legal but has a biased gradient, or none for a part of q; one line each."""
    several = config.objective.multi_sample and config.draw.samples > 1
    through_q = "" if _point_held(config) else config.draw.bias(multi_sample=several)
    lines = (through_q, config.objective.bias, _unlearnt(config))
    return [line for line in lines if line]


def _point_held(config: Config) -> bool:
    """Whether q is a point that no gradient is asked through."""
    return config.posterior.deterministic and config.train.freeze in (AUTOENCODER, INFERENCE)


def _unlearnt(config: Config) -> str:
    """What the sum over states takes out of the objective."""
    exact = isinstance(config.objective, LogLikelihood | IWAE) and config.draw.learning == "sum"
    if not exact or not config.model.amortised:
        return ""
    what = "the posterior of the summed latent" if config.model.mixed else "the encoder"
    return f"{_named(config, 'objective', 'draw')}: log p(x) has no q of a sum's latent in it, so {what} learns nothing"


def objective_of(config: Config) -> Objective:
    """The objective with its rate function."""
    return config.objective.with_rate(rate_of(config))


def rate_of(config: Config) -> RateFunction:
    """The rate function, told the number of levels; a prior that learns by itself is charged what it costs."""
    alone = config.train.freeze == AUTOENCODER
    return SumOfRates() if alone else config.rate.over(config.model.level_count)


def _named(config: Config, *sections: str) -> str:
    return " with ".join(f"{s}={_name(s, getattr(config, s))}" for s in sections)


def _name(section: str, part: object) -> str:
    return USER if isinstance(part, UserEncoder | UserDecoder) else registry.name_of(section, part)


def _refuse(config: Config, sections: str, why: str) -> None:
    raise CombinationError(f"{_named(config, *sections.split())}: {why}")


def _latents_or_none(config: Config) -> None:
    for section, nothing in (("prior", NoPrior), ("posterior", NoPosterior), ("draw", NoDraw), ("encoder", NoEncoder)):
        absent = isinstance(getattr(config, section), nothing)
        if absent and config.model.latents and (section != "encoder" or config.model.amortised):
            use = (USUAL if config.model.amortised else SUMMED)[section]
            _refuse(config, f"model {section}", f"its latents need one; use {section}={use}")
        if not absent and not config.model.latents:
            _refuse(config, f"model {section}", f"it has no latents; use {section}=none")


def _exact_density(config: Config) -> None:
    if config.model.latents:
        return
    if not isinstance(config.objective, LogLikelihood):
        _refuse(config, "model objective", "log p(x) is exact, not to be bounded; use objective=log-likelihood")
    if config.draw.samples != 1:
        raise CombinationError("draw=none with draw.samples: there is nothing to draw; leave draw.samples at 1")


def _in_order(config: Config) -> None:
    autoregressive = isinstance(config.decoder, AutoregressiveSettings)
    if not config.model.latents and not autoregressive:
        _refuse(config, "model decoder", "its elements would not look at each other; use decoder=made")
    if autoregressive and not config.likelihood.elementwise:
        _refuse(config, "decoder likelihood", "its columns differ in kind; use likelihood=normal")


def _posterior_of_model(config: Config) -> None:
    if config.model.amortised != config.posterior.amortised:
        fix = "posterior=exact" if config.posterior.amortised else "model=mixture"
        _refuse(config, "model posterior", f"it does not go together; use {fix}")
    if config.model.mixed and config.posterior.latent_kind not in SMOOTH:
        _refuse(config, "model posterior", "its discrete latent comes beside a continuous one; use posterior=normal")


def _same_latents(config: Config) -> None:
    prior, posterior = config.prior.latent_kind, config.posterior.latent_kind
    if prior != posterior:
        use = DIFFUSION_FOR.get(posterior) if isinstance(config.prior, DIFFUSIONS) else None
        use = use or PRIOR_FOR.get(posterior, "normal")
        _refuse(config, "prior posterior", f"{prior} against {posterior} latents; use prior={use}")
    classes, others = getattr(config.prior, "classes", None), getattr(config.posterior, "classes", None)
    if classes != others:
        _refuse(config, "prior posterior", f"{classes} against {others} classes a variable; use the same for both")
    for latent in (config.model.latent, *getattr(config.model, "above", ())) if classes is not None else ():
        if latent % classes:
            _refuse(config, "prior posterior", f"latent={latent} is no multiple of classes={classes}; use one that is")


def _same_sequence(config: Config) -> None:
    """A posterior committed to a rate knows its prior."""
    prior, posterior = config.prior, config.posterior
    if not isinstance(posterior, BoundedNormal):
        return
    if not isinstance(prior, AR1PriorSettings):
        _refuse(config, "prior posterior", "its rate is committed against an AR(1) process; use prior=ar1")
        return
    if (prior.steps, prior.alpha) != (posterior.steps, posterior.alpha):
        found = f"steps {prior.steps} against {posterior.steps}, alpha {prior.alpha} against {posterior.alpha}"
        _refuse(config, "prior posterior", f"{found}; use the same for both")


def _around_the_encoder(config: Config) -> None:
    for section, nothing in (("corruption", NoCorruption), ("penalty", NoPenalty)):
        if not config.model.plain and not isinstance(getattr(config, section), nothing):
            _refuse(config, f"model {section}", f"it concerns one latent behind one encoder; use {section}=none")


def _penalised(config: Config) -> None:
    penalty, kind = config.penalty, config.posterior.latent_kind
    if kind not in penalty.kinds:
        _refuse(config, "penalty posterior", f"it has no meaning for {kind} latents; use penalty=none")
    if isinstance(config.objective, Sleep) and not isinstance(penalty, NoPenalty):
        _refuse(config, "objective penalty", "the sleep phase sees dreams, no data to penalise; use penalty=none")
    if penalty.marginal and not config.posterior.marginals:
        _refuse(config, "penalty posterior", "the mean of each dimension isn't known; use penalty=none")
    if config.draw.learning not in penalty.gradients:
        use = "pathwise" if kind in SMOOTH else "straight-through"
        _refuse(config, "penalty draw", f"no gradient of it reaches q through this draw; use draw={use}")
    if penalty.compares and not config.prior.normalised:
        _refuse(config, "penalty prior", "it needs draws of p(z), and this prior has none; use prior=normal")


def _split(config: Config) -> None:
    if not config.rate.one_level:
        return
    if config.model.amortised and not config.model.plain:
        _refuse(config, "rate model", "it compares posteriors of one level of latents; use model=vae")
    if not (config.posterior.normalised and config.posterior.marginals):
        use = "posterior=normal" if config.posterior.latent_kind in SMOOTH else "posterior=bernoulli"
        _refuse(config, "rate posterior", f"the density of each dimension isn't known; use {use}")


def _by_level(config: Config) -> None:
    if config.rate.by_level and config.model.level_count < 2:
        _refuse(config, "rate model", "there are no levels, one above the other, to tell apart; use rate=warm-up")


def _weights(config: Config) -> None:
    for section in ("prior", "posterior") if config.objective.needs_weights else ():
        if not getattr(config, section).normalised:
            why = f"no log q(z|x) or log p(z) exists without a density; use {section}=normal, or objective=elbo"
            _refuse(config, f"objective {section}", why)
    several = config.draw.samples > 1 or config.draw.learning == "sum"
    joint = config.objective.multi_sample or isinstance(config.objective, LogLikelihood)
    if joint and several and config.prior.estimated:
        _refuse(config, "objective prior", "its log p(z) is estimated, which weights don't forgive; use objective=elbo")


def _drawable(config: Config) -> None:
    draw: Draw = config.draw
    kind = "mixed" if config.model.mixed else config.posterior.latent_kind
    if kind not in draw.kinds:
        use = USUAL_DRAW.get(kind, "enumerate")
        _refuse(config, "draw posterior" if kind != "mixed" else "draw model", f"{kind} latents; use draw={use}")
    summed = config.model.latents and not config.model.amortised and not config.model.denoising
    if summed and not isinstance(draw, Enumerate):
        _refuse(config, "draw model", "its posterior is the exact one, summed; use draw=enumerate")
    if draw.learning in ("score", "control") and not config.posterior.normalised:
        _refuse(config, "draw posterior", "a point has no log q to score, so that q would not learn; use draw=pathwise")
    if draw.relaxes and not config.posterior.relaxable:
        _refuse(config, "draw posterior", "it has no continuous relaxation; use draw=score")
    if draw.learning in ("control", "double") and not config.model.plain:
        _refuse(config, "draw model", "it can draw the first level only; use draw=score or draw=pathwise")


def _enumerable(config: Config) -> None:
    if not isinstance(config.draw, Enumerate):
        return
    if config.draw.samples != 1:
        raise CombinationError("draw=enumerate takes every state once; leave draw.samples at 1")
    states = config.model.state_count(config)
    if states is not None and states > MOST_STATES:
        _refuse(config, "draw model", f"2^{states.bit_length() - 1} states are too many to sum; use draw=score")
    rows = (states or 1) * config.train.batch_size
    if config.model.amortised and rows > MOST_ROWS:
        fix = f"use train.batch_size={MOST_ROWS // (states or 1)} or less, or draw=score"
        _refuse(config, "draw model", f"{states:,} states of {config.train.batch_size} examples at once; {fix}")


def _compilable(config: Config) -> None:
    if config.train.compile and config.schedule.closed_form:
        raise CombinationError("schedule=em has no gradient steps to compile; use train.compile=false")
    if config.train.compile and config.draw.learning not in ("path", "none") and config.model.latents:
        name = registry.name_of("draw", config.draw)
        raise CombinationError(
            f"train.compile=true doesn't go with draw={name}; use draw=pathwise, or train.compile=false"
        )


def _learnable(config: Config) -> None:
    draw, objective = config.draw, config.objective
    if draw.learning not in objective.gradients:
        use = DRAW_FOR[objective.gradients[0]]
        use = "score" if use == "pathwise" and config.posterior.latent_kind not in SMOOTH else use
        _refuse(config, "draw objective", f"it can't learn from this draw; use draw={use}, or objective=elbo")
    if isinstance(objective, Sleep) and config.posterior.deterministic:
        _refuse(config, "objective posterior", "a point has no log q to learn from; use objective=elbo")
    if draw.learning == "score" and getattr(draw, "baseline", "") == "leave-one-out" and draw.samples < 2:
        raise CombinationError("draw.baseline=leave-one-out needs draw.samples >= 2; use draw.baseline=learned")


def _levels(config: Config) -> None:
    if hasattr(config.model, "above") and not config.posterior.normalised:
        _refuse(config, "model posterior", "p of a lower level would be a point, without a density; use model=vae")


def _laddered(config: Config) -> None:
    posterior = config.posterior
    if not config.model.laddered:
        if posterior.relative:
            _refuse(config, "model posterior", "only a ladder knows the prior of a level in time; use posterior=normal")
        return
    for latent in (config.model.latent, *getattr(config.model, "above", ())):
        if posterior.own_size(latent):
            _refuse(config, "model posterior", "a level has no numbers alike for all examples; use posterior=normal")


def _mapped(config: Config) -> None:
    if not config.model.mapped:
        return
    if not isinstance(config.encoder, ConvEncoder):
        _refuse(config, "model encoder", "its levels are maps at the resolutions of convolutions; use encoder=conv")
    if not isinstance(config.posterior, DiagonalNormal | RelativeNormal):
        _refuse(config, "model posterior", "its numbers come as maps, a few for each of z; use posterior=normal")


def _samples(config: Config) -> None:
    """Refuses numbers of samples that the objective makes nothing of."""
    objective, samples = config.objective, config.draw.samples
    groups = getattr(objective, "groups", 1)
    if samples % groups:
        raise CombinationError(f"objective.groups={groups} does not divide draw.samples={samples}; give a divisor")
    if isinstance(objective, Sleep) and samples != 1:
        raise CombinationError(f"draw.samples={samples} with objective=sleep: it dreams once; leave draw.samples at 1")
    if isinstance(objective, ReweightedWakeSleep) and samples == 1 and not objective.dreams:
        raise CombinationError(
            "objective.dreams=0 with draw.samples=1: a single weight is 1, which teaches q nothing; use draw.samples=5"
        )


def _rated(config: Config) -> None:
    try:
        config.objective.with_rate(config.rate)
    except CombinationError as error:
        _refuse(config, "objective rate", str(error))


def _codes(config: Config) -> None:
    """Grids of codes and a model of them go together only."""
    of_codes = config.posterior.latent_kind == "codes"
    if config.model.of_codes and not of_codes:
        _refuse(config, "model posterior", "its latents are grids of codes; use posterior=vq")
    if of_codes and not config.model.of_codes and config.model.latents:
        _refuse(config, "model posterior", "codes come in a grid that only a model of codes knows; use model=quantised")


def _denoising(config: Config) -> None:
    """Denoisers and a model of noisy values go together only."""
    denoiser = isinstance(config.decoder, DenoiserSettings)
    if denoiser and not config.model.denoising:
        why = "a denoiser gives a value for a noisy one, no parameters of p(x|z); use model=diffusion, or decoder=mlp"
        _refuse(config, "model decoder", why)
    if config.model.denoising and not denoiser:
        why = "it needs a network that is told the noise level; use decoder=unet (images) or decoder=denoising-mlp"
        _refuse(config, "model decoder", why)


def _recurrent(config: Config) -> None:
    """A reader, a canvas and a model that goes step by step are of no use without each other."""
    for section, own in (("encoder", ReaderSettings), ("decoder", CanvasSettings)):
        found = isinstance(getattr(config, section), own)
        if found and not config.model.recurrent:
            _refuse(config, f"model {section}", f"it goes step by step; use model=recurrent, or {section}=mlp")
        if config.model.recurrent and not found:
            use = "draw-reader" if section == "encoder" else "draw-writer"
            _refuse(config, f"model {section}", f"it needs a network that goes step by step; use {section}={use}")
    if not config.model.recurrent:
        return
    if config.posterior.latent_kind not in SMOOTH:
        _refuse(config, "model posterior", "its steps have continuous latents; use posterior=normal")
    if isinstance(config.likelihood, TextFamily) or not config.likelihood.elementwise:
        why = "its canvas is compared with an example, element by element; use likelihood=bernoulli"
        _refuse(config, "model likelihood", why)


def _ended(config: Config) -> None:
    """Refuses an encoder that stops at an END which the text doesn't have."""
    marked = getattr(config.encoder, "end", None) is not None
    if marked and isinstance(config.likelihood, TextFamily) and config.data.examples == "blocks":
        raise CombinationError(
            f"encoder.end={config.encoder.end} with data.examples=blocks: blocks have no END, and the encoder would "
            "stop at a symbol like others; use encoder.end=none, or data.examples=lines"
        )


RULES = (
    _codes,
    _denoising,
    _recurrent,
    noised,
    _latents_or_none,
    _in_order,
    _exact_density,
    _posterior_of_model,
    _same_latents,
    _same_sequence,
    _around_the_encoder,
    _penalised,
    _split,
    _by_level,
    _weights,
    _drawable,
    _enumerable,
    _compilable,
    _learnable,
    _samples,
    _levels,
    _laddered,
    _mapped,
    _rated,
    _ended,
    updated,
)
