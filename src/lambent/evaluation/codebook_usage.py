"""Which codes a data set uses."""

from __future__ import annotations

import torch
from torch import Tensor

from lambent.models import LatentModel, Quantised


def code_usage(model: LatentModel, codes: Tensor) -> dict[str, dict[str, float]] | None:
    """Usage and perplexity of each level's codebook over all places of all examples; None for a model without codes.

    Args:
        model: Any model.
        codes: Indices of all levels side by side, (N, places).
    """
    if not isinstance(model, Quantised):
        return None
    parts = codes.long().split([level.positions for level in model.levels], -1)
    sizes = [level.quantiser.size for level in model.levels]
    return {name: _usage(p, size) for name, p, size in zip(model.names, parts, sizes, strict=True)}


def _usage(indices: Tensor, size: int) -> dict[str, float]:
    """The share of ``size`` codes that occurs, and exp of the entropy of how often each does.

    >>> _usage(torch.tensor([[0, 1], [0, 1]]), 4)
    {'usage': 0.5, 'perplexity': 2.0}
    """
    counts = torch.bincount(indices.flatten(), minlength=size).double()
    p = counts / counts.sum()
    return {"usage": float((counts > 0).double().mean()), "perplexity": float(torch.exp(-torch.xlogy(p, p).sum()))}
