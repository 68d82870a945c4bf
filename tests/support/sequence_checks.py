"""What tests of networks that read elements in order share: small nets in float64, and the truths they must meet."""

import math

import torch

from lambent.distributions.sampling import sample
from lambent.likelihoods import AutoregressiveLikelihoodModule, BernoulliLikelihood, CategoricalLikelihood
from lambent.shapes import Shapes
from support.binary_images import chi_square, images

SHAPE = (1, 3, 3)
CONTEXTS = {
    "none": (0, 0),
    "vector": (3, 0),
    "map": ((2, 2, 2), 0),
    "vector, condition": (3, 2),
    "map, condition": ((2, 2, 2), 2),
}
"""(latent, condition) that a network is built for."""
DRAWS = 20_000


def noise(*shape, seed=3):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def live(net, scale=1.0, seed=0):
    """In float64, every weight moved by noise that keeps outputs at about unit size."""
    net, generator = net.double().eval(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            step = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter += scale * step / (parameter.shape[-1] ** 0.5 if parameter.dim() > 1 else 3)
    return net


def built(settings, context="none", *, event=SHAPE, numbers=1, symbols=2, scale=1.0):
    """The network (P = ``numbers``, *event), moved away from where it starts."""
    latent, condition = CONTEXTS[context]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return live(settings.build(latent, (numbers, *event), condition, symbols), scale)


def context_of(context, items=1, seed=4):
    """Something to see, (items, c); None where there is nothing."""
    latent, condition = CONTEXTS[context]
    size = (latent if isinstance(latent, int) else math.prod(latent)) + condition
    return noise(items, size, seed=seed) if size else None


def masses(net, context=None):
    """log p(x) of each of them, by one logit a pixel."""
    x = images((9,))
    with torch.no_grad():
        logits = net(x, None if context is None else context.expand(512, -1), 0).flatten(1)
    return (x * logits - torch.nn.functional.softplus(logits)).sum(1)


def total(net, context=None):
    return masses(net, context).exp().sum().item()


def influence(net, context=None):
    """[s, t] whether what is given at place s moves any number of place t."""
    order = net.order[0]
    x = noise(1, net.elements).expand(net.elements + 1, -1).clone()
    if net.embeds:
        x = (x > 0).double()
    other = x.clone()
    other[range(net.elements), order] = 1 - other[range(net.elements), order]
    with torch.no_grad():
        context = None if context is None else context.expand(len(x), -1)
        moved = net(x, context, 0) != net(other, context, 0)
    return moved.flatten(2).any(1)[:-1, order]


def jacobian(net, context=None):
    """[s, t] the largest derivative of a number of place t by the input at place s."""
    order = net.order[0]
    found = torch.autograd.functional.jacobian(lambda v: net(v, context, 0), noise(1, net.elements))
    return found.reshape(net.out_shape[0], net.elements, net.elements).abs().amax(0)[order][:, order].T


def sees_exactly_the_past(net, context=None):
    """Nothing of itself and later elements, something of all earlier ones."""
    reach = influence(net, context) if net.embeds else jacobian(net, context) != 0
    return torch.equal(reach, torch.ones_like(reach).triu(1))


def unrolled(net, x, context=None):
    """Parameters (N, P, *event) element by element, the elements of ``x`` given."""
    found = {}

    def choose(element, numbers):
        found[element] = numbers
        return x[:, element]

    net.unroll(len(x), context, 0, choose)
    return torch.stack([found[d] for d in range(net.elements)], 2).unflatten(2, net.out_shape[1:])


def gap_of_unrolling(net, context="none", seed=7):
    """Largest difference between the parameters of one pass and those element by element."""
    x, given = noise(6, net.elements, seed=seed), context_of(context, 6)
    x = (x > 0).double() if net.embeds else x
    with torch.no_grad():
        return (unrolled(net, x, given) - net(x, given, 0)).abs().max().item()


def likelihood(net, family, context="none", levels=None):
    """p(x|context) by the network."""
    latent, condition = CONTEXTS[context]
    size = latent if isinstance(latent, int) else math.prod(latent)
    return (
        AutoregressiveLikelihoodModule(family, net, Shapes(net.out_shape[1:], size, condition, levels)).double().eval()
    )


def drawn(net, items, context=None, family=None, levels=None, seed=5):
    """Samples (items, D) by the library, all of the same context."""
    model = likelihood(net, family or BernoulliLikelihood(), levels=levels)
    z = torch.zeros(1, items, 0, dtype=torch.float64) if context is None else context.expand(1, items, -1)
    with torch.no_grad():
        return model(z).sample((), torch.Generator().manual_seed(seed))[0].flatten(1)


def naive(net, items, context=None, family=None, levels=None, seed=5):
    """The same samples by a whole pass for each element."""
    model, generator = (
        likelihood(net, family or BernoulliLikelihood(), levels=levels),
        torch.Generator().manual_seed(seed),
    )
    x = torch.zeros(items, net.elements, dtype=torch.float64)
    for element in net.order[0].tolist():
        inputs = model._inputs(x.view(items, *net.out_shape[1:]), model.shapes).reshape(items, -1)
        with torch.no_grad():
            numbers = net(inputs, None if context is None else context.expand(items, -1), 0)
        p = model.family.distribution(numbers.flatten(2)[..., element : element + 1], None, model.element)
        x[:, element] = sample(p, (), generator).reshape(items)
    return x


def samples_agree(net, context=None, **given):
    return torch.equal(drawn(net, 7, context, **given), naive(net, 7, context, **given))


def sampling_error(net, context=None):
    """z-score of the counts of samples against their probabilities."""
    return chi_square(drawn(net, DRAWS, context), masses(net, context))


def levels_of(bits=2):
    """A family of 2^bits symbols an element, and how many parameters it needs."""
    return CategoricalLikelihood(bits=bits), 2**bits


def parameters_without_gradient(net, x, context=None):
    """Names of those that no output depends on."""
    out = net(x, context, 0) if hasattr(net, "order") else net(x, context)
    (out * noise(*out.shape, seed=9)).sum().backward()
    return [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]


def one_hot_text(rows, symbols):
    """Items (N, S, D) from equally long rows of symbols."""
    return torch.nn.functional.one_hot(torch.tensor(rows), symbols).transpose(1, 2).double()


def copies(items, elements, back, flip, generator):
    """Coins (items, D) that repeat the one ``back`` places before, but for flips; and their entropy, nats."""
    x = (torch.rand(items, elements, generator=generator) < 0.5).float()
    flips = (torch.rand(items, elements, generator=generator) < flip).float()
    for t in range(back, elements):
        x[:, t] = (x[:, t - back] - flips[:, t]).abs()
    rest = -flip * math.log(flip) - (1 - flip) * math.log(1 - flip)
    return x, back * math.log(2) + (elements - back) * rest


def learnt(settings, steps, elements=12, back=3, flip=0.05):
    """Nats between the entropy of a source and the mean -log p(x) of a net trained on it, on new data; its se."""
    torch.manual_seed(0)
    net, generator = settings.build(0, (1, elements), symbols=2), torch.Generator().manual_seed(1)
    adam = torch.optim.Adam(net.parameters(), 3e-3)
    loss = torch.nn.functional.binary_cross_entropy_with_logits
    for _ in range(steps):
        x, _ = copies(64, elements, back, flip, generator)
        adam.zero_grad()
        (elements * loss(net(x, None, 0).flatten(1), x)).backward()
        adam.step()
    x, entropy = copies(4000, elements, back, flip, generator)
    with torch.no_grad():
        nats = loss(net.eval()(x, None, 0).flatten(1), x, reduction="none").sum(1)
    return nats.mean().item() - entropy, nats.std().item() / len(x) ** 0.5


TEXT = [[1, 2, 0, 0, 0], [2, 1, 0, 0, 0], [1, 2, 2, 1, 2], [0, 0, 0, 0, 0]]
"""Symbols of four texts, 0 the end: one in another order, one without an end, one that begins with it."""


def pad_independent(net):
    """What stands after the first end is not seen, the end itself is, and all of a text without one."""
    x, other = one_hot_text(TEXT, 3), one_hot_text([[*r[:3], 2, 1] for r in TEXT], 3)
    h, moved = net(x), net(other)
    same = torch.allclose(h[:2], moved[:2], atol=1e-13) and torch.allclose(h[3], net(other[3:])[0], atol=1e-13)
    ended = net(one_hot_text([[1, 2, 2, 0, 0]], 3))[0]
    return same and (h[2] - moved[2]).abs().max() > 1e-3 and (h[0] - ended).abs().max() > 1e-3
