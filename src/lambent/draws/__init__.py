"""Draws: how one latent gets its value and its gradient.

The only effect in a model. Training, generation, reconstruction and "set these latents" are one loop in the model,
run with another draw. ``draw(name, prior, posterior)`` gives a `Latent` whose value leads with (K, B).
"""

from lambent.draws.base import Draw
from lambent.draws.baselines import LearnedBaseline, RunningMean, leave_one_out
from lambent.draws.by_kind import Mixed
from lambent.draws.controlled import ControlVariate, Rebar, Relax
from lambent.draws.discrete import Detached, Enumerate, Score
from lambent.draws.generation import Ancestral, Given, Held, Mode
from lambent.draws.pathwise import DoublyReparameterised, Pathwise, StickingTheLanding
from lambent.draws.relaxed import Gumbel, StraightThrough, StraightThroughGumbel

__all__ = [
    "Ancestral",
    "ControlVariate",
    "Detached",
    "DoublyReparameterised",
    "Draw",
    "Enumerate",
    "Given",
    "Gumbel",
    "Held",
    "LearnedBaseline",
    "Mixed",
    "Mode",
    "Pathwise",
    "Rebar",
    "Relax",
    "RunningMean",
    "Score",
    "StickingTheLanding",
    "StraightThrough",
    "StraightThroughGumbel",
    "leave_one_out",
]
