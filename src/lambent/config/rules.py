"""Which parts go together. Everything is legal unless a rule here refuses it, by name and with what would do."""

from __future__ import annotations

from lambent.config.config import Config, fields_of
from lambent.config.layers import ONE_OF_A_KIND, SECTIONS
from lambent.config.update_rules import updated
from lambent.draws import Enumerate
from lambent.errors import CombinationError
from lambent.networks import AutoregressiveSettings
from lambent.objectives import IWAE, LogLikelihood
from lambent.priors.base import SMOOTH
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
DRAW_FOR = {"path": "pathwise", "none": "detached", "sum": "enumerate", "score": "score"}


def check(config: Config) -> None:
    """Refuses combinations that have no meaning.

    Raises:
        CombinationError: names the parts in conflict and what would do.
    """
    _fitting(config)
    _in_accord(config)
    for rule in RULES:
        rule(config)


def biases(config: Config) -> list[str]:
    """What is legal but has a biased gradient, or none for a part of q; one line each."""
    several = config.objective.multi_sample and config.drawing.samples > 1
    through_q = "" if _point_held(config) else config.drawing.bias(multi_sample=several)
    lines = (through_q, config.objective.bias, _unlearnt(config))
    return [line for line in lines if line]


def _point_held(config: Config) -> bool:
    """Whether q is a point that no gradient is asked through."""
    return config.deterministic and config.train.freeze in (AUTOENCODER, INFERENCE)


def _unlearnt(config: Config) -> str:
    """What the sum over states takes out of the objective."""
    exact = isinstance(config.objective, LogLikelihood | IWAE) and config.drawing.learning == "sum"
    if not exact or not config.amortised:
        return ""
    what = "the posterior of the summed latent" if config.latent_kind == "mixed" else "the encoder"
    return f"{_named(config, 'objective', 'draw')}: log p(x) has no q of a sum's latent in it, so {what} learns nothing"


def _named(config: Config, *sections: str) -> str:
    return " with ".join(f"{section}={_name(config, section)}" for section in sections)


def _name(config: Config, section: str) -> object:
    """The name of a section's part, or, as in "data.examples", the value of a setting."""
    section, dot, option = section.partition(".")
    return getattr(config.part(section), option) if dot else config.name_of(section)


def _refuse(config: Config, sections: str, why: str) -> None:
    raise CombinationError(f"{_named(config, *sections.split())}: {why}")


def _fitting(config: Config) -> None:
    """Holds every part to what the structure takes in its section."""
    for section in (s for s in SECTIONS if s != "model" and s not in ONE_OF_A_KIND):
        part, slot = config.part(section), config.model.sections.get(section)
        if slot is None:
            if part is not None:
                _refuse(config, f"model {section}", f"{config.model.absent[section].why}; leave {section} out")
            continue
        why = slot.refusal(section, part)
        if why:
            _refuse(config, f"model {section}", why)


def _in_accord(config: Config) -> None:
    """Refuses what a part itself is incompatible with."""
    for _, part in fields_of(config):
        conflict = part.conflicts(config)
        if conflict is not None:
            named = f"{_named(config, *conflict.sections)}: " if conflict.sections else ""
            raise CombinationError(f"{named}{conflict.why}")


def _in_order(config: Config) -> None:
    if isinstance(config.decoder, AutoregressiveSettings) and not config.likelihood.elementwise:
        _refuse(config, "decoder likelihood", "its columns differ in kind; use likelihood=normal")


def _split(config: Config) -> None:
    posterior = config.posterior
    if config.rate is None or not config.rate.one_level or posterior is None:
        return
    if "penalty" not in config.model.sections:
        _refuse(config, "rate model", "it compares posteriors of one level of latents; use model=vae")
    if not (posterior.normalised and posterior.marginals):
        use = "posterior=normal" if posterior.latent_kind in SMOOTH else "posterior=bernoulli"
        _refuse(config, "rate posterior", f"the density of each dimension isn't known; use {use}")


def _by_level(config: Config) -> None:
    if config.rate is not None and config.rate.by_level and config.model.level_count < 2:
        _refuse(config, "rate model", "the model has no hierarchy of levels to weight; use rate=warm-up")


def _weights(config: Config) -> None:
    for section in ("prior", "posterior") if config.objective.needs_weights else ():
        family = config.part(section)
        if family is not None and not family.normalised:
            why = f"no log q(z|x) or log p(z) exists without a density; use {section}=normal, or objective=elbo"
            _refuse(config, f"objective {section}", why)
    several = config.drawing.samples > 1 or config.drawing.learning == "sum"
    joint = config.objective.multi_sample or isinstance(config.objective, LogLikelihood)
    if joint and several and config.prior is not None and config.prior.estimated:
        _refuse(config, "objective prior", "its log p(z) is estimated, which weights don't forgive; use objective=elbo")


def _drawable(config: Config) -> None:
    draw, posterior, kind = config.draw, config.posterior, config.latent_kind
    if draw is None:
        return
    if kind not in draw.kinds:
        use = USUAL_DRAW.get(kind, "enumerate")
        whose = "draw model" if kind == "mixed" or posterior is None else "draw posterior"
        _refuse(config, whose, f"{kind} latents; use draw={use}")
    if draw.learning in ("control", "double") and "penalty" not in config.model.sections:
        _refuse(config, "draw model", "it can draw the first level only; use draw=score or draw=pathwise")
    if posterior is None:
        return
    if draw.learning in ("score", "control") and not posterior.normalised:
        _refuse(config, "draw posterior", "a point has no log q to score, so that q would not learn; use draw=pathwise")
    if draw.relaxes and not posterior.relaxable:
        _refuse(config, "draw posterior", "it has no continuous relaxation; use draw=score")


def _enumerable(config: Config) -> None:
    if not isinstance(config.draw, Enumerate):
        return
    states = config.model.state_count(config)
    if states is not None and states > MOST_STATES:
        _refuse(config, "draw model", f"2^{states.bit_length() - 1} states are too many to sum; use draw=score")
    rows = (states or 1) * config.train.batch_size
    if config.amortised and rows > MOST_ROWS:
        fix = f"use train.batch_size={MOST_ROWS // (states or 1)} or less, or draw=score"
        _refuse(config, "draw model", f"{states:,} states of {config.train.batch_size} examples at once; {fix}")


def _compilable(config: Config) -> None:
    if config.train.compile and config.schedule.closed_form:
        raise CombinationError("schedule=em has no gradient steps to compile; use train.compile=false")
    if config.train.compile and config.draw is not None and config.draw.learning not in ("path", "none"):
        name = registry.name_of("draw", config.draw)
        raise CombinationError(
            f"train.compile=true doesn't go with draw={name}; use draw=pathwise, or train.compile=false"
        )


def _learnable(config: Config) -> None:
    draw, objective = config.drawing, config.objective
    if draw.learning not in objective.gradients:
        use = DRAW_FOR[objective.gradients[0]]
        use = "score" if use == "pathwise" and config.latent_kind not in SMOOTH else use
        _refuse(config, "draw objective", f"it can't learn from this draw; use draw={use}, or objective=elbo")
    if objective.without_data and config.deterministic:
        _refuse(config, "objective posterior", "a point has no log q to learn from; use objective=elbo")


def _rated(config: Config) -> None:
    try:
        config.objective.with_rate(config.charged)
    except CombinationError as error:
        _refuse(config, "objective rate", str(error))


RULES = (
    _in_order,
    _split,
    _by_level,
    _weights,
    _drawable,
    _enumerable,
    _compilable,
    _learnable,
    _rated,
    updated,
)
