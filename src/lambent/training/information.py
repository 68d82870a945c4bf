"""The mutual information between data and latents, as a schedule asks for it while training."""

from __future__ import annotations

import torch

from lambent.draws import Mode
from lambent.errors import CombinationError
from lambent.evaluation.aggregated import mutual_information
from lambent.evaluation.bounds import Batch, _evaluating
from lambent.models import LatentModel

EXAMPLES = 2000
"""Most examples looked at: the cost is their square, and the truth at most their logarithm."""


def information(model: LatentModel, batch: Batch, n: int, *, seed: int, device: torch.device) -> float:
    """I_q(x;z) on the first of ``n`` examples (2,000 at most), nats, its noise the same every time.

    Raises:
        CombinationError: the model has several levels, or a posterior without a density.
    """
    with torch.inference_mode(), _evaluating(model):
        x, condition = batch(0, min(n, EXAMPLES))
        latents = model(x, Mode(), condition).latents
        q = latents[0].q if len(latents) == 1 and latents[0].normalised else None
        if q is None:
            raise CombinationError(
                "updates=encoder-first measures I_q(x;z), which is known of one level of latents with a density; "
                "use updates=together"
            )
        return float(mutual_information(q, generator=torch.Generator(device).manual_seed(seed)))
