"""Ladders of maps: what they compute against naive loops, their start at forty levels, singular values."""

import math

import pytest
import torch
from torch import nn

from lambent.config import check, resolve
from lambent.draws import Ancestral, Given, Pathwise
from lambent.errors import CombinationError, ConfigError
from lambent.evaluation.bounds import bounds
from lambent.networks.ladder.image import MapLevels
from lambent.networks.ladder.residual import BLOCKS, Block, Style
from lambent.networks.ladder.spectral import SpectralPenalty, matrix
from lambent.recipes import configure
from lambent.shapes import Shapes

TINY = {
    "model": {"name": "image-ladder", "latent": 2, "levels_per_scale": [1, 2, 1]},
    "posterior": {"name": "residual-normal"},
    "encoder": {"name": "conv", "channels": [4, 6, 5], "smallest": 2},
    "decoder": {"name": "conv", "channels": [4]},
}


def configured(**sections):
    layers = [{section: values} for section, values in sections.items()]
    config = resolve("tiny", TINY, *layers)
    check(config)
    return config


def built(event=(1, 7, 6), condition=0, levels=None, stirred=True, **sections):
    """A model of small images; ``stirred``: with weights as after a training, not nearly zero."""
    torch.manual_seed(0)
    config = configured(**sections)
    model = config.model.build(config, Shapes(event, config.model.latent, condition=condition, levels=levels)).double()
    if stirred:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.15 * torch.randn_like(parameter)
    return model


def images(n=3, event=(1, 7, 6), levels=2):
    return torch.randint(levels, (n, *event), generator=torch.Generator().manual_seed(3)).double()


def values_of(model, k=2, b=3):
    noise = torch.Generator().manual_seed(4)
    return {
        name: torch.randn(k, b, level.latent, generator=noise, dtype=torch.float64)
        for name, level in zip(model.names, model.levels, strict=True)
    }


def numbers_of(trace):
    """All that a trace's distributions are made of, in one vector."""
    parts = [trace.px.logits] if hasattr(trace.px, "logits") else [trace.px.loc]
    for latent in trace.latents:
        for d in (latent.p, latent.q):
            parts += [d.loc, d.log_scale] if hasattr(d, "log_scale") else []
    return torch.cat([part.detach().flatten() for part in parts])


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("posterior", ["normal", "residual-normal", "merged-normal"])
def test_log_weights_are_those_of_a_loop_over_samples_and_levels(block, posterior):
    model = built(model={"block": block}, posterior={"name": posterior}).eval()
    x, values = images(), values_of(model)
    found = model(x, Given(values=values)).log_weight(x)
    for k in range(2):
        for b in range(3):
            expected = naive_log_weight(model, posterior, x[b : b + 1], {n: v[k, b] for n, v in values.items()})
            assert found[k, b].item() == pytest.approx(expected, rel=1e-9)


def naive_log_weight(model, posterior, x, values):
    """One sample of one image, by torch's own densities."""
    seen, state, total = model.bottom(x), None, 0.0
    for i in reversed(range(len(model.levels))):
        level, z = model.levels[i], values[model.names[i]]
        mean, scale = torch.zeros_like(z), torch.ones_like(z)
        if state is not None:
            mean, raw = level.prior_numbers(state, None)[0].chunk(2)
            scale = bounded(raw)
        shift, raw = level.posterior_params(seen[i], state, None)[0].chunk(2)
        q_mean, q_scale = shift, bounded(raw)
        if posterior == "residual-normal" and state is not None:
            q_mean, q_scale = mean + shift, scale * (5 * torch.tanh(raw / 5)).exp()
        if posterior == "merged-normal" and state is not None:
            precision = scale**-2 + q_scale**-2
            q_mean = (mean / scale**2 + shift / q_scale**2) / precision
            q_scale = precision.rsqrt()
        total += torch.distributions.Normal(mean, scale).log_prob(z).sum()
        total -= torch.distributions.Normal(q_mean, q_scale).log_prob(z).sum()
        state = level.next(state, z[None], None)
    logits = model.likelihood.decoder(state.flatten(1))[0, 0]
    return (total + torch.distributions.Bernoulli(logits=logits).log_prob(x[0]).sum()).item()


def bounded(raw):
    """Between e^-7 and e^5, of slope 1 at 0 (by the logistic function)."""
    slope, offset = 12 / 35, math.log(7 / 5)
    return (12 * torch.sigmoid(slope * raw + offset) - 7).exp()


@pytest.mark.parametrize("block", BLOCKS)
def test_what_is_generated_is_decoded_from_its_code(block):
    model = built(model={"block": block}).eval()
    trace = model(None, Ancestral(samples=2, batch=3, generator=torch.Generator().manual_seed(1)))
    code = model.code(trace)
    assert code.shape == (2, 3, sum(level.latent for level in model.levels))
    assert torch.equal(model.decode(code).logits, trace.px.logits)
    moved = code.clone()
    moved[..., -1] += 1
    assert (model.decode(moved).logits != trace.px.logits).flatten(2).any(-1).all(), "the top level is seen"


@pytest.mark.parametrize("block", BLOCKS)
def test_training_and_evaluation_compute_the_same_and_no_image_sees_another(block):
    model = built(model={"block": block})
    assert_same_in_any_company(model)


def test_statistics_of_the_batch_would_be_seen():
    model = built()
    model.levels[0].blocks[0].body[0] = nn.BatchNorm2d(4).double()
    with pytest.raises(AssertionError):
        assert_same_in_any_company(model)


def assert_same_in_any_company(model):
    x, values = images(), values_of(model)
    training = numbers_of(model.train()(x, Given(values=values)))
    model.eval()
    assert torch.equal(training, numbers_of(model(x, Given(values=values))))
    alone = model(x[1:2], Given(values={n: v[:, 1:2] for n, v in values.items()}))
    together = model(x, Given(values=values))
    assert torch.allclose(alone.px.logits, together.px.logits[:, 1:2], atol=1e-12)
    assert torch.allclose(alone.latents[0].q.loc, together.latents[0].q.loc[:, 1:2], atol=1e-12)


DEEP = {"levels_per_scale": [10, 15, 15], "latent": 2}


def deep(block, posterior="residual-normal"):
    encoder = {"name": "conv", "channels": [8], "smallest": 2}
    return built(
        event=(1, 8, 8),
        stirred=False,
        model={**DEEP, "block": block},
        posterior={"name": posterior},
        encoder=encoder,
    )


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("posterior", ["normal", "residual-normal"])
def test_forty_levels_start_at_almost_no_rate_with_gradients_of_one_size(block, posterior):
    assert_even_start(deep(block, posterior))


def test_levels_that_add_at_full_size_would_be_seen(monkeypatch):
    monkeypatch.setattr(MapLevels, "gain", property(lambda self: 2.0))
    with pytest.raises(AssertionError):
        assert_even_start(deep("residual"))


def assert_even_start(model):
    x = images(8, (1, 8, 8))
    torch.manual_seed(1)
    trace = model.train()(x, Pathwise())
    assert trace.rate.mean() < 0.5, "nats of 40 levels together"
    scales = torch.cat([d.log_scale.flatten() for z in trace.latents for d in (z.p, z.q) if hasattr(d, "log_scale")])
    assert scales.abs().max() < 0.2
    (trace.rate + trace.distortion(x)).mean().backward()
    norms = torch.stack(
        [level.blocks[0].body[-2 if excited(level) else -1].weight.grad.norm() for level in model.levels]
    )
    assert bool(torch.isfinite(norms).all())
    for place in (norms[:15], norms[15:30], norms[30:]):
        assert place.max() / place.min() < 10
    assert norms.max() / norms.min() < 100
    assert trace.px.logits.abs().max() < 5


def excited(level):
    return not isinstance(level.blocks[0].body[-1], nn.Conv2d)


def test_the_elbo_is_below_the_bound_of_many_samples():
    model = built().eval().float()
    x = images(24).float()
    found = bounds(model, lambda a, b: (x[a:b], None), 24, samples=30)
    assert (found.elbo < found.iwae).all()


def singular_values(penalty):
    return [torch.linalg.svdvals(matrix(layer))[0] for layer in penalty._layers]


def penalty_of_blocks():
    torch.manual_seed(0)
    blocks = [Block(Style(block, "silu"), 6, 7, 0.5) for block in BLOCKS]
    return SpectralPenalty(nn.Sequential(*blocks).double()).double()


def test_singular_values_are_those_of_the_decomposition_with_their_gradient():
    penalty = penalty_of_blocks()
    assert_singular(penalty)


def assert_singular(penalty):
    expected = torch.stack(singular_values(penalty)).sum()
    first = penalty.train()()
    assert first <= expected + 1e-9, "never above"
    for _ in range(200):
        found = penalty()
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    weights = [layer.weight for layer in penalty._layers]
    for mine, theirs in zip(torch.autograd.grad(found, weights), torch.autograd.grad(expected, weights), strict=True):
        assert torch.allclose(mine, theirs, atol=2e-3)


def test_vectors_that_stand_still_would_be_seen(monkeypatch):
    monkeypatch.setattr(SpectralPenalty, "iterate", lambda self, steps: None)
    with pytest.raises(AssertionError):
        assert_singular(penalty_of_blocks())


def test_vectors_move_in_training_only_and_weights_of_zero_cost_nothing():
    penalty = penalty_of_blocks()
    before = {name: value.clone() for name, value in penalty.named_buffers()}
    penalty.eval()()
    assert all(torch.equal(before[name], value) for name, value in penalty.named_buffers())
    layer = nn.Conv2d(2, 3, 3)
    nn.init.zeros_(layer.weight)
    value = SpectralPenalty(layer)()
    value.backward()
    assert value.item() == 0
    assert not layer.weight.grad.any()


def test_the_penalty_is_of_every_convolution_and_of_the_training_loss_only():
    model = built(model={"spectral": 0.5})
    x = images()
    torch.manual_seed(5)
    found = [model.train()(x, Pathwise()).penalties["spectral"] for _ in range(60)][-1]
    convolutions = [m for part in (model.bottom, *model.levels) for m in part.modules() if isinstance(m, nn.Conv2d)]
    expected = sum(torch.linalg.svdvals(layer.weight.flatten(1))[0] for layer in convolutions)
    assert found.item() == pytest.approx(0.5 * expected.item(), rel=1e-3)
    assert model.eval()(x, Pathwise()).penalties == {}


def test_each_side_has_its_own_parameters():
    model = built()
    groups = model.groups()
    assert {id(p) for side in groups.values() for p in side} == {id(p) for p in model.parameters()}
    before = [latent.p.loc for latent in model(images(), Given(values=values_of(model))).latents[:-1]]
    with torch.no_grad():
        for parameter in groups["inference"]:
            parameter += 1
    after = [latent.p.loc for latent in model(images(), Given(values=values_of(model))).latents[:-1]]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True)), "p hangs on no parameter of q"


@pytest.mark.parametrize(
    ("event", "levels", "likelihood", "model"),
    [
        ((3, 5, 9), 256, "discretised-logistic", {"levels_per_scale": [1, 0, 1]}),
        ((1, 9, 9), 4, "categorical", {"levels_per_scale": [1, 0, 1, 1], "block": "bottleneck"}),
        ((4, 4), None, "bernoulli", {"levels_per_scale": [2], "block": "depthwise"}),
    ],
)
def test_images_of_any_size_and_support_learn(event, levels, likelihood, model):
    model = built(event, 3, levels, stirred=False, likelihood={"name": likelihood}, model=model).train()
    x, condition = images(16, event, levels or 2), torch.eye(3, dtype=torch.float64)[torch.arange(16) % 3]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(12):
        trace = model(x, Pathwise(), condition)
        losses.append((trace.rate + trace.distortion(x)).mean())
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    values = values_of(model, b=16)
    other = numbers_of(model(x, Given(values=values), condition.roll(1, 1)))
    assert not torch.equal(other, numbers_of(model(x, Given(values=values), condition)))


def test_the_last_map_may_be_read_by_an_autoregressive_decoder():
    model = built(decoder={"name": "pixelcnn", "channels": 4, "layers": 2}).eval()
    x, values = images(), values_of(model)
    moved = {name: value + 1 for name, value in values.items()}
    near, far = (model(x, Given(values=given)).log_px(x) for given in (values, moved))
    assert (near != far).all()


@pytest.mark.parametrize(
    ("recipe", "shapes", "levels", "millions"),
    [
        ("vdvae", Shapes((3, 32, 32), 16, levels=256), 43, (39, 42)),  # published: 39 million
        ("nvae", Shapes((1, 28, 28), 20), 15, (25, 30)),
        ("vdvae-small", Shapes((1, 28, 28), 4), 10, (0.1, 1)),
        ("nvae-small", Shapes((1, 28, 28), 4), 7, (0.5, 1.5)),
    ],
)
def test_recipes_build_at_the_sizes_they_name(recipe, shapes, levels, millions):
    config = configure(recipe)
    with torch.device("meta"):
        model = config.model.build(config, shapes)
    assert len(model.levels) == config.model.level_count == levels
    low, high = millions
    assert low <= sum(p.numel() for p in model.parameters()) / 1e6 <= high


def test_what_does_not_fit_is_refused():
    with pytest.raises(CombinationError, match="model=image-ladder with encoder=mlp"):
        configured(encoder={"name": "mlp"})
    with pytest.raises(CombinationError, match="model=image-ladder with posterior=full-cov"):
        configured(posterior={"name": "full-cov"})
    with pytest.raises(ConfigError, match="give one or more"):
        built(model={"levels_per_scale": [0, 0]})


def test_levels_of_resolutions_that_an_image_lacks_are_of_its_largest():
    many, few = built(model={"levels_per_scale": [1, 1, 1, 2, 1]}), built(model={"levels_per_scale": [1, 1, 4]})
    assert [level.latent for level in many.levels] == [level.latent for level in few.levels]
    assert len(many.levels) == 6
