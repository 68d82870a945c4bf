"""Every combination of registered parts: small configurations, the data that they score, and what is refused."""

import dataclasses
import functools
import itertools

import torch

from lambent.config import check, resolve
from lambent.errors import CombinationError
from lambent.networks import ConvEncoder
from lambent.networks.autoregressive.pixelcnn import MaskedImageSettings
from lambent.settings import options_of, registry
from lambent.shapes import Column, Shapes

B, LATENT = 24, 2
COLUMNS = (
    Column("a", "numeric"),
    Column("b", "numeric"),
    Column("c", "count"),
    Column("d", "categorical", 3),
)
KINDS = ("prior", "posterior", "objective", "draw", "model")
"""All of these with each other; the likelihoods in turn, as they only ask something of the decoder."""
FLAT = ("text", "mixed")
"""Likelihoods of data that are no images."""
SMALL_DECODERS = {
    "made": {"hidden": (4,)},
    "nade": {"hidden_dim": 6},
    "lstm": {"hidden_dim": 6, "embedding": 3},
    "pixelcnn": {"channels": 4, "layers": 2},
    "gated-pixelcnn": {"channels": 4, "layers": 2},
    "transformer": {"model_dim": 8, "layers": 1, "heads": 2},
    "denoising-mlp": {"hidden_dim": 8, "blocks": 1},
    "draw-writer": {"hidden_dim": 4, "patch": 0},
}
SMALL = {
    "vq": {"codebook_size": 6, "embedding_dim": 2},
    "fsq": {"bins": (3, 4)},
    "pixelcnn": {"channels": 4, "layers": 2, "embedding": 3},
    "transformer": {"model_dim": 8, "layers": 1, "heads": 2},
    "diffusion": {"model_dim": 8, "layers": 1, "heads": 2},
    "autoregressive-flow": {"hidden": (4,)},
    "latent-diffusion": {"hidden_dim": 8, "blocks": 1, "eval_timesteps": 4, "sampling_steps": 3},
}
SMALL_MODELS = {"image-ladder": {"levels_per_scale": (1, 1), "spectral": 0.1}, "recurrent": {"glimpses": 2}}
SMALL_PARTS = {"prior": SMALL, "posterior": SMALL, "decoder": SMALL_DECODERS, "model": SMALL_MODELS}
"""Settings that keep a part's networks small."""


@functools.cache
def data_of(likelihood):
    """Examples of 4 numbers that the likelihood scores, and the shapes they fix."""
    noise = torch.Generator().manual_seed(1)
    rand = torch.rand(B, 4, generator=noise)
    if likelihood == "mixed":
        whole = (3 * rand[:, 2:]).floor()
        return torch.cat([rand[:, :2], whole], 1), Shapes((4,), LATENT, columns=COLUMNS)
    data = {
        "bernoulli": (rand < 0.4).float(),
        "normal": torch.randn(B, 4, generator=noise),
        "discretised-logistic": (8 * rand).floor(),
        "logistic-mixture": (8 * rand).floor(),
        "pixel-mixture": (8 * rand).floor(),
        "categorical": (8 * rand).floor(),
    }
    return data.get(likelihood, (6 * rand).floor()), Shapes((4,), LATENT, levels=8)


LEFT_OUT = ("prior", "posterior", "draw", "rate", "penalty", "corruption", "encoder")
"""Sections that some structure doesn't have."""
NETWORKS = {
    "mlp": {"hidden": [4]},
    "draw-reader": {"units": 4, "patch": 0},
    "conv": {"channels": [3], "smallest": 1},
    **SMALL_DECODERS,
}


def names_of(kind):
    """The parts of a kind, and none where a structure may have no such part."""
    return [*registry.names(kind), *(["none"] if kind in LEFT_OUT else [])]


def part_of(kind, name):
    """A part at its defaults, but small; None for none."""
    small = SMALL_PARTS.get(kind, {}).get(name, {})
    return None if name == "none" else registry.find(kind, name)(**small)


@functools.cache
def base_of(model, flat):
    """The configuration of a structure's own defaults, its networks small."""
    structure = registry.find("model", model)
    found = {side: structure.sections[side].default for side in ("encoder", "decoder") if side in structure.sections}
    found |= {"decoder": "linear"} if found["decoder"] == "mlp" else {}
    networks = {side: {"name": name, **NETWORKS.get(name, {})} for side, name in found.items()}
    if model == "quantised" and not flat:
        networks["encoder"] = {"name": "conv", "channels": [3], "smallest": 2}
    return resolve("composed", {"model": {"name": model}, **networks})


def config_of(**names):
    """The configuration of the parts named, each at its defaults but for the number of latents."""
    parts = {kind: part_of(kind, name) for kind, name in names.items()}
    if "latent" in options_of(type(parts["model"])):
        parts["model"] = dataclasses.replace(parts["model"], latent=LATENT)
    base = base_of(names["model"], names.get("likelihood") in FLAT)
    return dataclasses.replace(base, **parts)


def shapes_of(config, likelihood):
    x, shapes = data_of(likelihood)
    images = isinstance(config.encoder, ConvEncoder) or isinstance(config.decoder, MaskedImageSettings)
    images = images or likelihood == "pixel-mixture"
    if images and likelihood not in FLAT:
        x, shapes = x.view(-1, 1, 2, 2), dataclasses.replace(shapes, event=(1, 2, 2))
    if "condition" not in type(config.prior).__name__.lower():
        return x, None, shapes
    condition = torch.eye(3)[torch.arange(B) % 3]
    return x, condition, dataclasses.replace(shapes, condition=3)


def built(config, likelihood):
    torch.manual_seed(0)
    x, condition, shapes = shapes_of(config, likelihood)
    model = config.model.build(config, shapes)
    model.likelihood.support.check(x)
    model.initialise(x, condition)
    return model, x, condition


@functools.cache
def combinations():
    """All, each with what is said against it (None where it is legal)."""
    found = [dict(zip(KINDS, names, strict=True)) for names in itertools.product(*map(names_of, KINDS))]
    return [(names, refusal(**names, likelihood="normal")) for names in found]


def legal():
    return [names for names, said in combinations() if said is None]


def refusal(**names):
    """None where the combination is legal, else what is said against it."""
    try:
        check(config_of(**names))
    except CombinationError as error:
        return str(error)
    return None
