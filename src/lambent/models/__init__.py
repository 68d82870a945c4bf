"""The structures: few, each the arrangement of some latents."""

from lambent.models.base import LatentModel, Penalty
from lambent.models.chain import MarkovChain
from lambent.models.density import Density
from lambent.models.diffusion.model import Diffusion
from lambent.models.diffusion.structure import DiffusionStructure
from lambent.models.image_ladder import ImageLadderStructure
from lambent.models.joint import Joint
from lambent.models.ladder import Ladder
from lambent.models.mixture import Mixture
from lambent.models.quantised import CodeLevel, Quantised
from lambent.models.recurrent import Recurrent
from lambent.models.vae import VAE
from lambent.networks.ladder.base import LadderLevel

__all__ = [
    "VAE",
    "CodeLevel",
    "Density",
    "Diffusion",
    "DiffusionStructure",
    "ImageLadderStructure",
    "Joint",
    "Ladder",
    "LadderLevel",
    "LatentModel",
    "MarkovChain",
    "Mixture",
    "Penalty",
    "Quantised",
    "Recurrent",
]
