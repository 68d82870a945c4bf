"""What a user may give as data, as a data set that a run can use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from lambent.data import Dataset, View, evaluation_set, from_arrays, splits_of, training_sets
from lambent.data import load as load_data
from lambent.errors import ConfigError
from lambent.models import LatentModel
from lambent.recipes import Config

Source = str | Path | np.ndarray | Tensor | Dataset
ARRAYS = "(arrays)"
"""The source's name in a run that was trained on arrays."""


def dataset_of(source: Source, config: Config, split: str) -> Dataset:
    """A source's name, an array or a tensor as a data set."""
    if isinstance(source, Dataset):
        return source
    if not isinstance(source, str | Path):
        return from_arrays(source, options=config.data)
    if split == "train":
        return load_data(str(source), options=config.data, split=split)
    return evaluation_set(str(source), options=config.data)


def held_out(config: Config) -> Dataset:
    """What the training source keeps from training: its test split, else the part held out for validation.

    Raises:
        ConfigError: the run was trained on arrays, or nothing was held out.
    """
    source = config.data.source
    if source == ARRAYS:
        raise ConfigError("this run was trained on arrays; give the data to measure it on")
    if "test" in splits_of(source, config.data):
        return evaluation_set(source, options=config.data)
    valid = training_sets(source, options=config.data)[1]
    if valid is None:
        raise ConfigError(f"{source} has no test split and nothing was held out of it; name the data to use")
    return valid


def check_support(model: LatentModel, view: View) -> None:
    """Refuses data that the likelihood can't score, with the fix in the message."""
    support = getattr(model.likelihood, "support", None)
    if support is not None:
        view.check(support)
