"""The mutual information between data and latents, as a schedule asks for it while training."""

from __future__ import annotations

import torch

from lambent.errors import CombinationError
from lambent.evaluation.bounds import Batch
from lambent.evaluation.information import EXAMPLES
from lambent.evaluation.information import information as measured
from lambent.models import LatentModel


def information(model: LatentModel, batch: Batch, n: int, *, seed: int, device: torch.device) -> float:
    """I_q(x;z) on the first of ``n`` examples (2,000 at most), its noise the same every time.

    Raises:
        CombinationError: the model has several levels, or a posterior without a density.
    """
    found = measured(model, batch, min(n, EXAMPLES), seed=seed, device=device)
    if found is None:
        raise CombinationError(
            "updates=encoder-first measures I_q(x;z), which is known of one level of latents with a density; "
            "use updates=together"
        )
    return found.value
