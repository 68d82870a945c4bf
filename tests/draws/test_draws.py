"""Draws: shapes, replay, determinism, and refusals that name the latent and what would do."""

import pytest
import torch

from lambent.distributions import Bernoulli, Flat, Normal, NormalMixture, OneHotCategorical, StandardNormal
from lambent.draws import (
    Ancestral,
    DoublyReparameterised,
    Enumerate,
    Given,
    Held,
    Mode,
    Pathwise,
    StickingTheLanding,
)
from lambent.errors import CombinationError, ConfigError, ShapeError
from lambent.models import VAE, MarkovChain
from support.random_numbers import generator

ZERO = torch.zeros(())
PRIOR = StandardNormal((2,))
Q = Normal(torch.arange(10.0).view(5, 2), ZERO)
PATHS = (Pathwise, StickingTheLanding, DoublyReparameterised)


def conditional(batch):
    return Normal(torch.arange(2.0 * batch).view(batch, 2), ZERO)


@pytest.mark.parametrize("draw", PATHS)
@pytest.mark.parametrize("samples", [1, 4])
def test_samples_lead_the_batch_and_the_mean_is_qs(draw, samples):
    z = draw(samples, generator())("z", PRIOR, Q)
    assert z.value.shape == (samples, 5, 2)
    assert z.log_p.shape == z.log_q.shape == z.rate.shape == (samples, 5)
    many = draw(40_000, generator())("z", PRIOR, Q).value
    assert float(((many.mean(0) - Q.loc) * 200).abs().max()) < 5
    assert float((many.var(0) - 1).abs().max()) < 0.05


@pytest.mark.parametrize("draw", [Pathwise, StickingTheLanding])
def test_a_level_below_keeps_the_samples_of_the_level_above(draw):
    """K never multiplies twice: a posterior of batch (K, B) gives one value for each of its K x B."""
    above = draw(3, generator())("z2", PRIOR, Q)
    below = draw(3, generator(1))("z1", Normal(above.value, ZERO), Normal(above.value + 1, ZERO))
    assert below.value.shape == (3, 5, 2)
    assert below.rate.shape == (3, 5)


def test_doubly_reparameterised_gradients_are_refused_below_another_level():
    """With K = 5 the mean gradient of the upper level would be wrong by many standard errors: the path is cut."""
    above = DoublyReparameterised(3, generator())("z2", PRIOR, Q)
    with pytest.raises(CombinationError, match=r"latent 'z1': dreg below another level is biased.*use draw=pathwise"):
        DoublyReparameterised(3, generator())("z1", Normal(above.value, ZERO), Normal(above.value + 1, ZERO))


@pytest.mark.parametrize("draw", [Pathwise(), Enumerate(), Given(values={"z": torch.zeros(1, 5, 2)})])
def test_prior_and_posterior_of_different_latents_are_refused(draw):
    with pytest.raises(ShapeError, match=r"latent 'z': q has event shape \(3,\), p has \(2,\)"):
        draw("z", PRIOR, Normal(torch.zeros(5, 3), ZERO))


@pytest.mark.parametrize("q", [Normal(torch.zeros(2), ZERO), Normal(torch.zeros(1, 3, 5, 2), ZERO)])
def test_a_posterior_without_a_batch_or_with_too_much_of_it_is_refused(q):
    with pytest.raises(ShapeError, match=r"latent 'z': q has batch shape .*expected \(B,\) or \(K, B\)"):
        Pathwise(3)("z", PRIOR, q)


def test_undeclared_event_dimensions_are_refused():
    for q in (torch.zeros(5, 2), torch.zeros(5, 2, 2)):
        with pytest.raises(ShapeError, match=r"latent 'z': q has event shape \(\), p has \(2,\)"):
            Pathwise()("z", PRIOR, torch.distributions.Normal(q, 1.0))


def test_drawing_without_x_says_what_would_do():
    for draw in (*(cls() for cls in PATHS), Enumerate()):
        with pytest.raises(
            CombinationError, match="latent 'z' has no posterior here: give x, or use Ancestral or Given"
        ):
            draw("z", PRIOR)


@pytest.mark.parametrize("draw", PATHS)
def test_discrete_latents_have_no_path(draw):
    with pytest.raises(
        CombinationError, match="latent 'c': OneHotCategorical has no rsample; use draw=score, or enumerate"
    ):
        draw()("c", OneHotCategorical(torch.zeros(3)), OneHotCategorical(torch.zeros(5, 3)))


def test_continuous_latents_cannot_be_enumerated():
    with pytest.raises(
        CombinationError, match="latent 'z': Normal can't be enumerated; use draw=pathwise, stl or dreg"
    ):
        Enumerate()("z", PRIOR, Q)


def test_enumeration_lists_every_state_with_its_mass():
    q = OneHotCategorical(torch.tensor([[0.0, 1.0, 2.0], [3.0, 0.0, 0.0]]))
    z = Enumerate()("c", OneHotCategorical(torch.zeros(3)), q)
    assert torch.equal(z.value, torch.eye(3).unsqueeze(1).expand(3, 2, 3))
    torch.testing.assert_close(z.log_mass.exp().T, q.logits.softmax(-1))
    assert torch.equal(z.log_mass, z.log_q)


@pytest.mark.parametrize(
    ("draw", "analytic"), [(Pathwise, True), (StickingTheLanding, False), (DoublyReparameterised, False)]
)
def test_only_the_plain_path_differentiates_log_q_in_its_parameters(draw, analytic):
    loc = torch.zeros(5, 2, requires_grad=True)
    z = draw(3, generator())("z", PRIOR, Normal(loc, ZERO))
    assert (z.analytic, z.doubly is not None) == (analytic, draw is DoublyReparameterised)
    gradient = torch.autograd.grad(z.log_q.sum(), loc)[0]
    # log q(m + eps; m) does not depend on m; with q held fixed it is -|z - m|^2/2 of slope -eps
    expected = torch.zeros(5, 2) if analytic else -z.value.detach().sum(0)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize(
    ("prior", "shape"),
    [(PRIOR, (4, 7, 2)), (conditional(6), (4, 6, 2)), (Normal(torch.zeros(4, 6, 2), ZERO), (4, 6, 2))],
)
def test_ancestral_and_mode_take_the_batch_from_the_prior_where_it_has_one(prior, shape):
    assert Ancestral(4, generator(), batch=7)("z", prior).value.shape == shape
    mode = Mode(4, batch=7)("z", prior).value
    assert mode.shape == shape
    assert torch.equal(mode, prior.mean.expand(shape))


def test_ancestral_draws_the_prior_outside_the_graph():
    loc = torch.zeros(6, 2, requires_grad=True)
    z = Ancestral(20_000, generator())("z", Normal(loc + 3, ZERO))
    assert not z.value.requires_grad
    assert float(((z.value.mean(0) - 3) * 20_000**0.5).abs().max()) < 5
    with pytest.raises(CombinationError, match=r"latent .z. was drawn without a q"):
        _ = z.log_q


@pytest.mark.parametrize("draw", [Ancestral(), Mode()])
def test_a_flat_prior_generates_nothing(draw):
    with pytest.raises(ConfigError, match=r"prior=flat is no distribution.*use prior=normal"):
        draw("z", Flat((2,)))


@pytest.mark.parametrize(
    ("p", "q"),
    [
        (PRIOR, Q),
        (OneHotCategorical(torch.zeros(3)), OneHotCategorical(torch.tensor([[0.0, 2.0, 1.0]]))),
        (Bernoulli(torch.zeros(3)), Bernoulli(torch.tensor([[-1.0, 2.0, 1.0]]))),
        (NormalMixture(torch.zeros(2), torch.eye(2), ZERO), None),
    ],
)
def test_mode_is_deterministic_and_most_probable(p, q):
    first, second = (Mode()("z", p, q) for _ in range(2))
    assert torch.equal(first.value, second.value)
    source = p if q is None else q
    others = source.sample((200,), generator())
    others = others if q is not None else others.unsqueeze(1)
    assert bool((source.log_prob(first.value) >= source.log_prob(others) - 1e-6).all())


def test_given_replays_the_same_weights():
    model = VAE(Part(PRIOR), Part(Q), DecoderModule())
    x = torch.ones(5, 2)
    drawn = model(x, Pathwise(3, generator()))
    replayed = model(x, Given(values={"z": drawn.latents[0].value}))
    assert torch.equal(replayed.log_weight(x), drawn.log_weight(x))
    assert torch.equal(replayed.rate, drawn.rate)


def test_a_generator_repeats_a_draw_and_leaves_the_global_one_alone():
    before = torch.get_rng_state()
    draws = [cls(3, generator(1))("z", PRIOR, Q).value for cls in PATHS for _ in range(2)]
    assert all(torch.equal(draws[0], other) for other in draws)
    assert torch.equal(Pathwise(3).using(generator(1))("z", PRIOR, Q).value, draws[0])
    assert not torch.equal(Pathwise(3, generator(2))("z", PRIOR, Q).value, draws[0])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("shape", [(5, 2), (2,), (1, 5, 3), (1, 1, 5, 2), (2, 5)])
def test_given_values_of_another_shape_are_refused(shape):
    with pytest.raises(ShapeError, match=r"latent 'z': given .*expected \(K, B\) \+ \(2,\)"):
        Given(values={"z": torch.zeros(shape)})("z", PRIOR, Q)


def test_given_without_a_value_names_what_is_given():
    with pytest.raises(ConfigError, match="no value given for latent 'z'; given: y"):
        Given(values={"y": torch.zeros(1, 5, 2)})("z", PRIOR, Q)


def chain():
    """p(z3) p(z2|z3) p(z1|z2), each level's mean twice the value above."""
    return MarkovChain(Part(PRIOR), [Part(Q)] * 3, [DecoderModule(), DecoderModule()], DecoderModule())


@pytest.mark.parametrize("name", ["z1", "z2", "z3"])
def test_a_held_level_keeps_its_value_and_the_others_are_drawn_given_it(name):
    """Levels below follow twice the value above with variance 1; levels above come from the prior."""
    held = torch.tensor([[5.0, -5.0]]).expand(1, 20_000, 2)
    levels = chain()(None, Held(generator=generator(), values={name: held})).latents
    values = {z.name: z.value for z in levels}
    assert torch.equal(values[name], held)
    at = int(name[1])
    for i in range(3, at, -1):
        off = values[f"z{i}"] - (2 * values[f"z{i + 1}"] if i < 3 else 0)
        assert float(off.mean((0, 1)).abs().max()) < 5 / 20_000**0.5
    for i in range(1, at):
        off = values[f"z{i}"] - 2 * values[f"z{i + 1}"]
        assert float(off.mean((0, 1)).abs().max()) < 5 / 20_000**0.5
        assert float((off.var((0, 1)) - 1).abs().max()) < 0.05


def test_levels_that_are_not_held_may_take_their_modes():
    held = torch.tensor([[[1.0, 3.0]]])
    levels = chain()(None, Held(values={"z3": held}, mode=True)).latents
    assert torch.equal(levels[1].value, 2 * held)
    assert torch.equal(levels[0].value, 4 * held)


def test_nothing_held_is_ancestral_sampling():
    """With the same noise the same values; `batch` where the prior fixes none."""
    model = chain()
    free = model(None, Held(3, generator(), batch=4)).latents
    drawn = model(None, Ancestral(3, generator(), batch=4)).latents
    assert free[0].value.shape == (3, 4, 2)
    assert all(torch.equal(one.value, other.value) for one, other in zip(free, drawn, strict=True))


def test_held_values_of_another_shape_are_refused():
    with pytest.raises(ShapeError, match=r"latent 'z2': given .*expected \(K, B\) \+ \(2,\)"):
        chain()(None, Held(values={"z2": torch.zeros(1, 4, 3)}))


class Part(torch.nn.Module):
    def __init__(self, distribution):
        super().__init__()
        self.distribution = distribution

    def forward(self, *context):
        return self.distribution


class DecoderModule(torch.nn.Module):
    def forward(self, z, condition=None):
        return Normal(2 * z, ZERO)

    given = forward
