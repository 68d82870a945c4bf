"""Seeds of independent streams of random numbers: `derive` gives each purpose its own, by name.

Two purposes must never share their noise by accident, so every seed is asked for by the name of its stream. Streams in
`USE` are hashed with their name and can't meet any other. Those in `TRAINING`, `EVALUATION` and `GRADIENTS` mix small
numbers, as they always did, so that old runs repeat to the same bytes and evaluate to the same numbers; within each of
these tables their numbers are the reason why no stream may be added there.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import NamedTuple

from lambent.errors import ConfigError


class Mixed(NamedTuple):
    """A stream whose seed mixes (seed, *before, *indices, *after)."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


TRAINING: Mapping[str, Mixed] = {
    "weights": Mixed((0,)),
    "initial examples": Mixed((4,)),
    "initialisation": Mixed((5,)),
    "validation": Mixed((6,)),
    "monitor": Mixed((7,)),
    "prior initialisation": Mixed((8,)),
    "prior initial latents": Mixed((9,)),
    "training step": Mixed(),
}
"""Weights; examples that a model starts from; its initialisation; the noise of validation and of the collapse monitor;
the prior's initialisation and the latents it starts from; the noise of a step, by (step, rank)."""

EVALUATION: Mapping[str, Mixed] = {
    "evaluation block": Mixed(),
    "mutual information": Mixed((7,)),
    "unit rates": Mixed((8,)),
}
"""The noise of a block of examples, by its index; of the mutual information; of the rates of single latents."""

GRADIENTS: Mapping[str, Mixed] = {
    "control variate": Mixed((8,)),
    "gradient comparison": Mixed((9,)),
    "gradient batch": Mixed((10,)),
    "gradient warm-up": Mixed((), (0,)),
    "gradient reference": Mixed((0, 1)),
    "gradient repetitions": Mixed((), (2,)),
}
"""Of `lambent gradients`: fresh control variates; the comparison; its batches, by number; warm-up, reference and
repetitions of an estimator, by its index."""

ORDER = ("epoch", "batch")
"""The order of the examples, by epoch; data augmentation of a batch, by (epoch, position, rank)."""

_MIXED = {**TRAINING, **EVALUATION, **GRADIENTS}

USE = ("encode", "decode", "reconstruct", "sample", "sample chunk")
"""Draws of the posterior; of p(x|z) at given latents; of lower levels below given ones; of the model; and of the model
in chunks, by the first sample's index."""


def derive(seed: int, stream: str, *indices: int) -> int:
    """The seed, in 0..2^63-1, of a named stream of random numbers.

    Args:
        seed: The seed that a user gave.
        stream: A name from `TRAINING`, `EVALUATION`, `GRADIENTS`, `ORDER` or `USE`.
        indices: What the stream is counted by, as its table says: a step and a rank, a block, an epoch.

    Raises:
        ConfigError: a stream of no such name.

    >>> derive(0, "sample") == derive(0, "sample"), derive(0, "sample") == derive(0, "decode")
    (True, False)
    >>> derive(0, "evaluation block", 3) == derive(0, "evaluation block", 4)
    False
    """
    if stream in ORDER:
        return _hashed(stream, seed, *indices)
    if stream in USE:
        return _hashed("use", stream, seed, *indices)
    if stream not in _MIXED:
        raise ConfigError(f"stream {stream!r} is not known: expected one of {', '.join([*_MIXED, *ORDER, *USE])}")
    before, after = _MIXED[stream]
    return _mixed(seed, *before, *indices, *after)


def _mixed(*numbers: int) -> int:
    """A well-spread 63-bit seed from several small numbers (the finaliser of SplitMix64)."""
    state = 0x9E3779B97F4A7C15
    for number in numbers:
        state = (state ^ (number & 0xFFFFFFFFFFFFFFFF)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1


def _hashed(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part and their order."""
    text = "\0".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
