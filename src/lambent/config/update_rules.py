"""Which parts are compatible with an update schedule, and with a frozen side."""

from __future__ import annotations

from lambent.config.config import Config
from lambent.draws import Enumerate
from lambent.errors import CombinationError
from lambent.objectives import ELBO, IWAE, LogLikelihood, SumOfRates
from lambent.training.freeze import AUTOENCODER
from lambent.training.schedule import GENERATIVE, INFERENCE

TOGETHER = "use schedule=joint"


def updated(config: Config) -> None:
    """Refuses sides that have nothing to train, and schedules that would not know what to look at.

    Raises:
        CombinationError: names the parts in conflict and what would do.
    """
    _encoder_to_train(config)
    _sides_to_alternate(config)
    _prior_alone(config)
    _information(config)
    if config.schedule.closed_form:
        _solved(config)


def _name(config: Config, section: str) -> str:
    return f"{section}={config.name_of(section)}"


def _refuse(config: Config, sections: str, why: str) -> None:
    named = [f"train.freeze={config.train.freeze}" if s == "freeze" else _name(config, s) for s in sections.split()]
    raise CombinationError(f"{' with '.join(named)}: {why}")


def _encoder_to_train(config: Config) -> None:
    if not config.amortised and config.train.freeze != "none":
        _refuse(config, "model freeze", "it has one side only; use train.freeze=none")
    side = _only_side(config)
    if side == INFERENCE and not config.amortised:
        _refuse(config, "objective model", "it trains an encoder, and there is none; use objective=elbo")
    if side and config.train.freeze == side:
        _refuse(config, "objective freeze", f"it trains the {side} side alone; use train.freeze=none")


def _only_side(config: Config) -> str | None:
    """The one side that the objective trains; None where it trains both."""
    if config.objective.without_data:
        return INFERENCE
    exact = isinstance(config.objective, LogLikelihood | IWAE) and isinstance(config.draw, Enumerate)
    return GENERATIVE if exact else None  # log p(x) has no q in it


def _sides_to_alternate(config: Config) -> None:
    if not config.schedule.two_sided:
        return
    if not config.amortised:
        _refuse(config, "schedule model", f"it has no encoder to take turns with; {TOGETHER}")
    if _only_side(config):
        _refuse(config, "schedule objective", f"it trains the {_only_side(config)} side alone; {TOGETHER}")
    if config.train.freeze != "none":
        _refuse(config, "schedule freeze", f"a frozen side has no turn; {TOGETHER}")


def _prior_alone(config: Config) -> None:
    """Two stages need an encoder to be frozen, and the second one a prior that learns, and from inferred latents."""
    staged, alone = config.schedule.staged, config.train.freeze == AUTOENCODER
    if staged and not config.amortised:
        _refuse(config, "schedule model", f"its stages need an encoder to freeze; {TOGETHER}")
    if alone and (config.prior is None or not config.prior.learns):
        _refuse(config, "freeze prior", "nothing would be left to train; use train.freeze=none")
    if (alone or staged) and config.objective.without_data:
        _refuse(config, "schedule objective", "the sleep phase teaches no prior; use objective=elbo")


def _information(config: Config) -> None:
    if not config.schedule.informed:
        return
    if "penalty" not in config.model.sections:
        _refuse(config, "schedule model", f"I_q(x;z) is estimated for one level of latents only; {TOGETHER}")
    if config.deterministic:
        _refuse(config, "schedule posterior", f"of a point, I_q(x;z) is the entropy of where it is; {TOGETHER}")
    for section in ("prior", "posterior"):
        if not config.part(section).normalised:
            _refuse(config, f"schedule {section}", f"no I_q(x;z) without a density; use {section}=normal")


def _solved(config: Config) -> None:
    for section, kind, use in (
        ("objective", ELBO, "elbo"),
        ("rate", SumOfRates, "sum"),
        ("penalty", type(None), "none"),
    ):
        if not isinstance(config.part(section), kind):
            _refuse(config, f"schedule {section}", f"EM maximises the plain ELBO; use {section}={use}")
    if config.train.precision != "float32":
        raise CombinationError(
            f"schedule=em with train.precision={config.train.precision}: its equations are solved in full precision; "
            "use train.precision=float32"
        )
    if config.data.binarize == "dynamic":
        raise CombinationError(
            "schedule=em with data.binarize=dynamic: the data would change from step to step; use data.binarize=static"
        )
