"""What the tests of densities share: small models in float64, all 3 x 3 images, and the paper's recursions as loops."""

import torch

from lambent.likelihoods import AutoregressiveLikelihoodModule, BernoulliLikelihood
from lambent.models import Density
from lambent.networks import MADEDecoder, NADEDecoder
from lambent.shapes import Shapes
from support.binary_images import images

SHAPE = (1, 3, 3)
NETS = {
    "made": MADEDecoder(hidden=(12,)),
    "made, direct": MADEDecoder(hidden=(12,), direct_connections=True),
    "made, deep": MADEDecoder(hidden=(12, 10, 11), activation="tanh"),
    "made, random order": MADEDecoder(hidden=(12,), ordering="random"),
    "made, 4 orders": MADEDecoder(hidden=(12, 9), ordering="random", masks=4, direct_connections=True),
    "made, 4 masks": MADEDecoder(hidden=(12,), masks=4),
    "nade": NADEDecoder(hidden_dim=8),
    "nade, random order": NADEDecoder(hidden_dim=8, ordering="random"),
}


def density(settings, condition=0, shape=SHAPE, family=None, seed=0, levels=None, scale=3.0):
    """A density in float64 whose weights are large enough for its elements to depend on each other strongly."""
    family = family or BernoulliLikelihood()
    shapes = Shapes(shape, 0, condition, levels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = settings.build(0, family.out_shape(shapes), condition)
        model = Density(AutoregressiveLikelihoodModule(family, net, shapes)).double().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                width = parameter.shape[-1] if parameter.dim() > 1 else 9
                parameter.copy_(scale * torch.randn_like(parameter) / width**0.5)
    return model


def masses(model, condition=None):
    """log p(x) of each of them."""
    with torch.no_grad():
        return model.log_prob(images(), None if condition is None else condition.expand(512, -1))


def nade_loop(net, x, ordering=0):
    """Larochelle & Murray 2011, Algorithm 1, one example and one hidden unit at a time."""
    order, hidden = net.order[ordering].tolist(), net.input.out_features
    result = torch.zeros(len(x), dtype=torch.float64)
    for n, image in enumerate(x.flatten(1)):
        activation = net.input.bias.clone()
        for d in order:
            h = [1 / (1 + torch.exp(-activation[k])) for k in range(hidden)]
            logit = net.bias[0, d] + sum(net.weight[d, k, 0] * h[k] for k in range(hidden))
            p = 1 / (1 + torch.exp(-logit))
            result[n] += torch.log(p if image[d] == 1 else 1 - p)
            activation = activation + net.input.weight[:, d] * image[d]
    return result
