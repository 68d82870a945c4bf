"""A complete configuration: one settings object a part, from layers of plain values.

Precedence: what the structure takes by default < recipe < configuration file < settings given by hand. Everything is
strict: an unknown key or value is refused with its nearest neighbour, and names are looked up in the registry only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lambent.config.layers import (
    NONE,
    ONE_OF_A_KIND,
    RECORDED,
    SECTIONS,
    USER,
    Layer,
    layer_of_run,
    layer_of_settings,
    layer_of_values,
    merged,
)
from lambent.data import DataOptions
from lambent.draws import Draw, Enumerate
from lambent.errors import CombinationError, ConfigError
from lambent.likelihoods import LikelihoodSettings
from lambent.models.structure import Slot, Structure
from lambent.networks import UserDecoder, UserEncoder
from lambent.objectives import Objective, RateFunction, SumOfRates
from lambent.objectives.penalties.l1l2 import PenaltySettings
from lambent.posteriors import Corruption, PosteriorSettings
from lambent.priors import PriorSettings
from lambent.priors.base import LatentKind
from lambent.settings import build, registry, to_values
from lambent.training.freeze import AUTOENCODER
from lambent.training.options import TrainOptions
from lambent.training.schedule import UpdateSchedule


@dataclass(frozen=True)
class Config:
    """Every setting in force, by section; ``recipe`` is the name it started from.

    A section is None where the structure has no such part, or where an optional part is left out. ``objective`` is the
    objective in force: with the rate function of ``rate``.
    """

    recipe: str
    model: Structure
    prior: PriorSettings | None
    posterior: PosteriorSettings | None
    likelihood: LikelihoodSettings
    encoder: Any
    decoder: Any
    objective: Objective
    rate: RateFunction | None
    draw: Draw | None
    corruption: Corruption | None
    penalty: PenaltySettings | None
    schedule: UpdateSchedule
    data: DataOptions
    train: TrainOptions

    def __post_init__(self) -> None:
        try:
            charged = self.objective.with_rate(self.charged)
        except CombinationError:  # `check` refuses the two, by name
            return
        object.__setattr__(self, "objective", charged)

    @property
    def charged(self) -> RateFunction:
        """How the loss is charged for the latents; a prior that learns by itself is charged what it costs."""
        alone = self.train.freeze == AUTOENCODER
        return SumOfRates() if alone or self.rate is None else self.rate.over(self.model.level_count)

    @property
    def drawing(self) -> Draw:
        """The draw; without latents all (no) values are enumerated, so that log p(x) is exact."""
        return Enumerate() if self.draw is None else self.draw

    @property
    def latent_kind(self) -> LatentKind:
        """The kind of the latents' values."""
        return self.model.latent_kind(self)

    @property
    def has_latents(self) -> bool:
        """Whether there are any."""
        return self.draw is not None

    @property
    def amortised(self) -> bool:
        """Whether an encoder computes the posterior."""
        return self.encoder is not None

    @property
    def deterministic(self) -> bool:
        """Whether q is a point among discrete values, so that every sample is the same."""
        return self.posterior is not None and self.posterior.deterministic

    @property
    def samplable(self) -> bool:
        """Whether x can be drawn from the model: its prior, if any, is a density."""
        return self.prior is None or self.prior.normalised

    @property
    def continuous(self) -> bool:
        """Whether all latents are continuous, so that points between two codes are codes too."""
        return self.latent_kind == "continuous"

    def part(self, section: str) -> Any:
        """The settings of a section, None where there is no part."""
        return getattr(self, section)

    def name_of(self, section: str) -> str:
        """The name of a section's part; "none" where there is none, "user" for a user's own network."""
        settings = self.part(section)
        if settings is None:
            return NONE
        return USER if isinstance(settings, UserEncoder | UserDecoder) else registry.name_of(section, settings)

    def choices(self, section: str) -> list[str]:
        """The names of the parts that this structure takes in a section, "none" among them where it may be left out.

        >>> from lambent.recipes import configure
        >>> configure("vae", settings={"model": "mixture"}).choices("prior")
        ['categorical']
        """
        slot, names = self.model.sections.get(section, Slot(section)), registry.names(section)
        fitting = [name for name in names if not slot.refusal(section, registry.find(section, name)())]
        return [*fitting, *([NONE] if slot.optional else [])]

    def values(self) -> dict[str, Any]:
        """Plain nested values, complete: what ``recipe.toml`` holds and `resolve` reads back."""
        sections = {section: self._section(section) for section in SECTIONS if self.part(section) is not None}
        return {"recipe": self.recipe, **sections}

    def _section(self, section: str) -> dict[str, Any]:
        settings = self.part(section)
        if isinstance(settings, UserEncoder | UserDecoder):
            return {"name": USER, "module": type(settings.module).__name__}
        name = {} if section in ONE_OF_A_KIND else {"name": self.name_of(section)}
        return {**name, **to_values(settings)}

    def with_(self, **settings: Any) -> Config:
        """The configuration with other settings, named as in `lambent.fit`; a user's own networks are kept.

        >>> from lambent.recipes import configure
        >>> configure("vae").with_(prior="mixture", prior__components=3).prior.components
        3

        Raises:
            ConfigError: a setting that doesn't exist here.
        """
        below = layer_of_values(self.values())
        changed = resolve(self.recipe, below, layer_of_settings(settings, [below]))
        own = {s: self.part(s) for s in ("encoder", "decoder")}
        kept: dict[str, Any] = {
            s: network for s, network in own.items() if isinstance(network, UserEncoder | UserDecoder)
        }
        return replace(changed, **kept)


def resolve(recipe: str, *layers: Layer) -> Config:
    """The configuration of ``layers`` laid over each other, the last one winning.

    A layer that renames a part drops what earlier layers set of the old one; one that chooses another structure also
    drops the parts below it that the new structure has no use for, as far as these were defaults.

    Raises:
        ConfigError: unknown section, part or key, or a value of the wrong type or out of range.
        CombinationError: a section that the structure doesn't have.
    """
    values = merged(layers, note=True)
    parts: dict[str, Any] = {s: _build(s, values[s]) if s in values else None for s in SECTIONS}
    return Config(recipe, **parts)


def _build(section: str, values: Mapping[str, Any]) -> Any:
    settings = {key: value for key, value in values.items() if key != "name"}
    if not isinstance(values["name"], str):
        raise ConfigError(f"{section}.name={values['name']!r} is not text; known: {', '.join(registry.names(section))}")
    return build(registry.find(section, values["name"]), settings, section)


def completed(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a ``recipe.toml`` holds, with the options that its parts have been given since it was written."""
    today = resolve(values["recipe"], layer_of_run(values)).values()
    kept = {s: v for s, v in values.items() if s in RECORDED or (isinstance(v, dict) and v.get("name") == USER)}
    return {**today, **kept}


def fields_of(config: Config) -> list[tuple[str, Any]]:
    """Section and settings object of each section that there is, in order."""
    return [(section, config.part(section)) for section in SECTIONS if config.part(section) is not None]
