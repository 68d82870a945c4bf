"""Remedies for posterior collapse, as the settings that switch them on."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace

from lambent.config.config import Config
from lambent.config.rules import check
from lambent.config.tokens import settings_of_tokens
from lambent.errors import ConfigError
from lambent.objectives.rates import Beta
from lambent.settings import registry


@dataclass(frozen=True)
class Remedy:
    """A switch against posterior collapse.

    Attributes:
        name: What it is called.
        tokens: ``key=value`` settings that switch it on; the first shows whether it is on already.
        source: Where it was proposed.
    """

    name: str
    tokens: tuple[str, ...]
    source: str = ""


REMEDIES = (
    Remedy("warm-up", ("rate=warm-up",), "Bowman et al. 2016; Sonderby et al. 2016"),
    Remedy("free bits", ("rate=free-bits",), "Kingma et al. 2016"),
    Remedy("aggressive encoder", ("schedule=aggressive-encoder",), "He et al. 2019"),
    Remedy("inputs dropped", ("decoder.input_dropout=0.3",), "Bowman et al. 2016"),
    Remedy("limited receptive field", ("decoder.receptive_field=5",), "Chen et al. 2017"),
    Remedy("fixed-κ vMF", ("posterior=von-mises-fisher", "prior=sphere"), "Davidson et al. 2018; Xu & Durrett 2018"),
    Remedy("delta-VAE", ("prior=ar1", "posterior=bounded-normal"), "Razavi et al. 2019"),
)

LEVEL_REMEDIES = (
    Remedy("warm-up level by level", ("rate=level-warm-up",), "Sonderby et al. 2016"),
    Remedy("KL balancing", ("rate=kl-balancing",), "Vahdat & Kautz 2020"),
    Remedy("free bits", ("rate=free-bits",), "Kingma et al. 2016"),
)
"""Against a level that falls idle while others are in use."""
TIMED = ("rate=warm-up", "rate=level-warm-up", "rate=kl-balancing")


def remedies(config: Config, steps: int) -> list[Remedy]:
    """The remedies that this configuration can be given (it passes `check` with them) and has not got yet.

    Args:
        config: The configuration.
        steps: Of the whole training: a warm-up takes a quarter of them.

    >>> from lambent.recipes import configure
    >>> [" ".join(remedy.tokens) for remedy in remedies(configure("vae"), 4000)][:2]
    ['rate=warm-up rate.steps=1000', 'rate=free-bits']
    """
    found = [_fitted(remedy, steps) for remedy in REMEDIES if not in_force(config, remedy)]
    if isinstance(config.rate, Beta) and config.rate.beta > 1:
        found = [Remedy("the rate charged once", ("rate=sum",)), *found]
    return [remedy for remedy in found if possible(config, remedy)]


def level_remedies(config: Config, steps: int) -> list[Remedy]:
    """Those of `LEVEL_REMEDIES` that this configuration can be given and has not got yet, as `remedies` gives them.

    >>> from lambent.recipes import configure
    >>> level_remedies(configure("vae", {"model": {"name": "chain"}}), 4000)[0].tokens
    ('rate=level-warm-up', 'rate.steps=1000')
    """
    found = [_fitted(remedy, steps) for remedy in LEVEL_REMEDIES if not in_force(config, remedy)]
    return [remedy for remedy in found if possible(config, remedy)]


def _fitted(remedy: Remedy, steps: int) -> Remedy:
    """The remedy with what depends on the training's length."""
    if len(remedy.tokens) == 1 and remedy.tokens[0] in TIMED:
        return replace(remedy, tokens=(*remedy.tokens, f"rate.steps={max(1, steps // 4)}"))
    return remedy


def in_force(config: Config, remedy: Remedy) -> bool:
    """Whether the remedy's first setting is on: that part chosen, or that option moved from its default."""
    key, _, value = remedy.tokens[0].partition("=")
    section, _, option = key.partition(".")
    settings = config.part(section)
    if not option:
        return registry.parts[section].get(value) is type(settings)
    defaults = {f.name: f.default for f in fields(settings)} if is_dataclass(settings) else {}
    return option in defaults and getattr(settings, option) != defaults[option]


def possible(config: Config, remedy: Remedy) -> bool:
    """Whether the configuration with the remedy is one that `check` passes."""
    try:
        check(config.with_(**settings_of_tokens(remedy.tokens)))
    except ConfigError:
        return False
    return True
