"""The structures: few, each the arrangement of some latents."""

from lambent.models.base import LatentModel, Penalty
from lambent.models.mixture import Mixture
from lambent.models.vae import VAE

__all__ = ["VAE", "LatentModel", "Mixture", "Penalty"]
