"""Densities without latents: normalised, blind to later elements, sampled as they score, and refused what they lack."""

import math

import pytest
import torch
import torch.nn.functional as F

from lambent.distributions.autoregressive import Autoregressive
from lambent.draws import Ancestral, Enumerate, Mode
from lambent.errors import CombinationError, ConfigError, ShapeError
from lambent.evaluation.bounds import bounds
from lambent.likelihoods import (
    CategoricalLikelihood,
    DiscretisedLogisticLikelihood,
    NegativeBinomialLikelihood,
    NormalLikelihood,
    PoissonLikelihood,
)
from lambent.networks import MADE, NADE, MADEDecoder, NADEDecoder
from lambent.networks.autoregressive import made as made_module, nade as nade_module
from lambent.objectives import ELBO, LogLikelihood
from support.binary_images import chi_square, images
from support.density_checks import NETS, SHAPE, density, masses, nade_loop


def total(model, condition=None):
    return masses(model, condition).exp().sum().item()


@pytest.mark.parametrize("name", NETS)
def test_probabilities_of_all_images_sum_to_one(name):
    assert total(density(NETS[name])) == pytest.approx(1, abs=1e-10)
    given = density(NETS[name], condition=2)
    first, second = torch.tensor([[1.0, 0.0]]).double(), torch.tensor([[0.0, 1.0]]).double()
    assert total(given, first) == pytest.approx(1, abs=1e-10)
    difference = (masses(given, first) - masses(given, second)).abs().max()
    assert difference > 0.1, "the condition has no effect"


def jacobian(net, ordering, context=None):
    """Of all numbers by all inputs, [d, p, e] = d number p of element d / d input e."""
    x = torch.randn(1, net.elements, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    found = torch.autograd.functional.jacobian(lambda v: net(v, context, ordering), x)
    return found.reshape(net.out_shape[0], net.elements, net.elements).transpose(0, 1)


def sees_only_the_past(net):
    """Exactly zero by itself and all later elements; not zero for some pair of places at each distance back."""
    for m in range(net.orderings):
        order = net.order[m]
        by_place = jacobian(net, m).abs().amax(1)[order][:, order]
        later = torch.ones_like(by_place).triu().bool()
        if bool((by_place[later] != 0).any()) or not bool((by_place.diagonal(-1) != 0).all()):
            return False
    return True


@pytest.mark.parametrize("name", NETS)
def test_every_output_is_blind_to_itself_and_all_later_inputs_and_sees_the_one_before(name):
    # wide, so that units of every degree exist
    settings = NETS[name]
    wide = {"hidden_dim": 40} if isinstance(settings, NADEDecoder) else {"hidden": tuple(200 for _ in settings.hidden)}
    net = density(type(settings)(**{**vars(settings), **wide, **smooth(settings)})).likelihood.decoder
    assert sees_only_the_past(net)
    assert jacobian(net, 0).shape == (9, 1, 9)


def smooth(settings):
    return {"activation": "tanh"} if isinstance(settings, MADEDecoder) else {}


@pytest.mark.parametrize("name", ["made", "made, 4 orders", "nade"])
def test_several_numbers_an_element_are_all_blind_to_later_inputs(name):
    settings = NETS[name]
    net = density(type(settings)(**{**vars(settings), **smooth(settings)}), family=NormalLikelihood(scale="element"))
    found = jacobian(net.likelihood.decoder, 0)
    order = net.likelihood.decoder.order[0]
    assert found.shape == (9, 2, 9)
    assert not found[order][:, :, order].permute(1, 0, 2).triu().any()


def test_a_made_agrees_with_a_net_whose_masks_are_written_out():
    """Germain et al. 2015, eq. 12 and 13, connection by connection."""
    net = density(NETS["made, 4 orders"]).likelihood.decoder
    x = images().flatten(1)
    for m in range(4):
        place = {int(element): t + 1 for t, element in enumerate(net.order[m])}
        below, h = [place[d] for d in range(9)], x
        for i, layer in enumerate(net.layers):
            here = getattr(net, f"degrees_{i}")[m].tolist()
            mask = torch.tensor([[float(k >= j) for j in below] for k in here])
            h, below = torch.relu(h @ (mask * layer.weight).T + layer.bias), here
        out = torch.tensor([[float(place[d] > j) for j in below] for d in range(9)])
        direct = torch.tensor([[float(place[d] > place[e]) for e in range(9)] for d in range(9)])
        numbers = h @ (out * net.output.weight).T + x @ (direct * net.direct.weight).T + net.output.bias
        assert torch.allclose(net(x, None, m).flatten(1), numbers, atol=1e-12)


def test_the_degrees_of_units_are_uniform_and_keep_every_output_connected():
    net = density(MADEDecoder(hidden=(4000, 4000))).likelihood.decoder
    for degrees in net.degrees(0)[1:]:
        counts = torch.bincount(degrees, minlength=9)
        assert counts[0] == 0
        assert len(counts) == 9, "no unit may see all inputs"
        assert ((counts[1:] - 500) / math.sqrt(500 * 7 / 8)).abs().max() < 5


@pytest.mark.parametrize("name", ["nade", "nade, random order"])
def test_nade_agrees_with_the_papers_loop(name):
    model = density(NETS[name])
    x = images()[::37]
    with torch.no_grad():
        assert torch.allclose(model.log_prob(x), nade_loop(model.likelihood.decoder, x), atol=1e-12)


def test_nades_gradient_by_hand_is_the_true_one():
    net = density(NADEDecoder(hidden_dim=5), shape=(4,), family=NormalLikelihood(scale="element")).likelihood.decoder
    x = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    rows, weight, first = net.input.weight.T, net.weight, net.input.bias.expand(3, -1)
    arguments = tuple(t.detach().clone().requires_grad_() for t in (x, rows, weight, first))
    assert torch.autograd.gradcheck(nade_module._Recursion.apply, arguments)


def test_a_mixture_of_orderings_averages_probabilities():
    model = density(NETS["made, 4 orders"])
    px = model(images(), Enumerate()).px
    with torch.no_grad():
        each = torch.stack([px.only(m).log_prob(images())[0] for m in range(4)])
        assert torch.allclose(px.log_prob(images())[0].exp(), each.exp().mean(0), atol=1e-14)
        assert each.std(0).max() > 0.1, "the orderings agree, so that the check sees nothing"
        assert each.mean(0).exp().sum() < 0.99, "the mean of logarithms would pass for a density"


DRAWS = 40_000


def drawn(model):
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        return model(None, Ancestral(batch=DRAWS)).px.sample((), generator)[0]


@pytest.mark.parametrize("name", NETS)
def test_samples_have_the_probabilities_that_are_scored(name):
    model = density(NETS[name], scale=1.5)
    assert abs(chi_square(drawn(model), masses(model))) < 5


@pytest.mark.parametrize(
    "settings",
    [
        MADEDecoder(hidden=(30, 20), ordering="random", masks=2, direct_connections=True),
        NADEDecoder(hidden_dim=9, ordering="random"),
    ],
)
@pytest.mark.parametrize(
    "family",
    [
        NormalLikelihood(scale="dimension"),
        NormalLikelihood(scale="element"),
        DiscretisedLogisticLikelihood(scale="model"),
        CategoricalLikelihood(),
        PoissonLikelihood(),
        NegativeBinomialLikelihood(),
    ],
)
def test_element_by_element_is_the_same_as_in_one_pass(settings, family):
    """The parameters by which a sample was drawn are those by which it is scored, with a condition, in every family."""
    model = density(settings, condition=2, shape=(2, 3), family=family, levels=4, scale=0.7)
    if model.likelihood.own is not None:
        with torch.no_grad():
            model.likelihood.own.copy_(
                torch.randn(model.likelihood.own.shape, generator=torch.Generator().manual_seed(1))
            )
    condition = torch.randn(50, 2, generator=torch.Generator().manual_seed(2)).double()
    px = model(None, Ancestral(batch=50), condition).px
    for m in px.orderings:
        with torch.no_grad():
            x = px.only(m).sample((), torch.Generator().manual_seed(3))[0]
            terms = []

            def given(element, p, x=x, terms=terms):
                value = x.flatten(1)[:, element]
                terms.append(p.log_prob(value.unsqueeze(1)))
                return value

            model.likelihood.one_by_one(condition, m, given)
            log_p = torch.stack(terms).sum(0)
            assert torch.allclose(log_p, px.only(m).log_prob(x)[0], atol=1e-10)
    assert x.std() > 0


def test_a_seed_decides_a_sample():
    model = density(NETS["made, 4 orders"])
    one, same, other = (
        model(None, Ancestral(batch=20)).px.sample((), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_latent_is_context_like_a_condition_with_k_samples_of_each_example():
    model = density(NETS["made, 4 orders"], condition=5)
    noise = torch.Generator().manual_seed(4)
    z, condition = torch.randn(3, 8, 2, generator=noise).double(), torch.randn(8, 3, generator=noise).double()
    x = images()[::64]
    with torch.no_grad():
        px = model.likelihood(z, condition)
        assert px.batch_shape == (3, 8)
        each = [model.log_prob(x, torch.cat([z[k], condition], 1)) for k in range(3)]
        assert torch.allclose(px.log_prob(x), torch.stack(each), atol=1e-12)
        assert px.sample((2,), noise).shape == (2, 3, 8, *SHAPE)


@pytest.mark.parametrize("levels", [2, 3])
def test_grey_levels_sum_to_one(levels):
    for family in (CategoricalLikelihood(bits=2), DiscretisedLogisticLikelihood(bits=2, scale="element")):
        model = density(MADEDecoder(hidden=(20,), masks=3, ordering="random"), shape=(levels,), family=family)
        grid = torch.cartesian_prod(*[torch.arange(4.0)] * levels).double()
        with torch.no_grad():
            assert model.log_prob(grid).exp().sum().item() == pytest.approx(1, abs=1e-10)


def test_a_normal_density_integrates_to_one():
    model = density(NADEDecoder(hidden_dim=6), shape=(2,), family=NormalLikelihood(scale="element"), scale=0.8)
    edges = torch.linspace(-25, 25, 1001).double()
    with torch.no_grad():
        mass = model.log_prob(torch.cartesian_prod(edges, edges)).exp().sum().item() * 0.05**2
    assert mass == pytest.approx(1, abs=1e-6)


def test_a_density_of_one_number_is_its_bias():
    model = density(MADEDecoder(hidden=(3,)), shape=(1,))
    with torch.no_grad():
        assert model.log_prob(torch.tensor([[0.0], [1.0]]).double()).exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_measured_exactly_and_trained_by_a_bound_where_orderings_are_mixed():
    model = density(NETS["made, 4 orders"])
    x = images()
    found = bounds(model, lambda a, b: (x[a:b], None), len(x), samples=7, draw=Enumerate())
    assert (found.elbo_kind, found.iwae, found.rate.abs().max().item()) == ("exact", None, 0.0)
    assert torch.allclose(found.elbo, masses(model), atol=1e-12)
    model.train()
    traces = [model(x, Enumerate(generator=torch.Generator().manual_seed(s))) for s in range(40)]
    values = torch.stack([LogLikelihood()(trace, x).value for trace in traces])
    assert {LogLikelihood()(trace, x).kind for trace in traces} == {"lower bound"}
    assert all(trace.rate.abs().max() == 0 for trace in traces)
    assert len(values.unique(dim=0)) == 4, "all four orderings are trained, none else"
    assert (values.unique(dim=0).mean(0) <= masses(model) + 1e-12).all()
    assert torch.allclose(ELBO()(traces[0], x).value, values[0], atol=1e-12)


def test_one_ordering_is_trained_on_what_it_is_measured_by():
    model = density(NETS["made"]).train()
    estimate = LogLikelihood()(model(images(), Enumerate()), images())
    assert estimate.kind == "exact"
    assert torch.allclose(estimate.value, masses(model), atol=1e-12)


def test_what_a_density_lacks_is_refused_by_name():
    model = density(NETS["made"])
    with pytest.raises(ConfigError, match="no latents, so nothing to encode"):
        model.code(model(images(), Mode()))
    with pytest.raises(ConfigError, match="no latents, so nothing to decode"):
        model.decode(torch.zeros(1, 2, 0))
    with pytest.raises(CombinationError, match="Mode does not; use Ancestral"):
        model(None, Mode())
    with pytest.raises(ConfigError, match="draw samples instead"):
        _ = model(images(), Enumerate()).px.mean
    with pytest.raises(ShapeError, match=r"x has shape \(512, 3, 3\)"):
        model.log_prob(images().squeeze(1))
    with pytest.raises(ShapeError, match="found none, expected"):
        density(NETS["nade"], condition=2).log_prob(images())


def strict_layers(self, x, context, ordering):
    """MADE with > for >= between the hidden layers and the input."""
    degrees = self.degrees(ordering)
    h, places = x.to(self.output.weight.dtype), degrees[0]
    for layer, below, here in zip(self.layers, degrees, degrees[1:], strict=False):
        h = self.activation(F.linear(h, layer.weight * (here.unsqueeze(1) > below), layer.bias))
    return F.linear(h, self._earlier(self.output.weight, places, degrees[-1]), self.output.bias).view(
        -1, *self.out_shape
    )


def not_strict_outputs(self, weight, outputs, below):
    mask = outputs.unsqueeze(1) >= below
    return (weight.view(-1, *mask.shape) * mask).view_as(weight)


def off_by_one(self, weight, outputs, below):
    mask = outputs.unsqueeze(1) > below - 1
    return (weight.view(-1, *mask.shape) * mask).view_as(weight)


WIDE = MADEDecoder(hidden=(200,), activation="tanh")


def outputs_see_themselves(patch):
    patch.setattr(MADE, "_earlier", not_strict_outputs)
    model = density(WIDE)
    assert not sees_only_the_past(model.likelihood.decoder)
    return abs(total(model) - 1) > 1e-6


def masks_off_by_one(patch):
    patch.setattr(MADE, "_earlier", off_by_one)
    return not sees_only_the_past(density(WIDE).likelihood.decoder)


def units_blind_to_their_own_degree(patch):
    patch.setattr(MADE, "forward", strict_layers)
    return not sees_only_the_past(density(WIDE).likelihood.decoder)  # normalised still: only the reach is lost


def drawn_in_another_order_than_scored(patch):
    model = density(NETS["made, random order"], scale=1.5)
    unroll, order = MADE.unroll, model.likelihood.decoder.order

    def backwards(self, items, context, ordering, choose):
        self.order = order.flip(1)
        unroll(self, items, context, ordering, choose)

    patch.setattr(MADE, "unroll", backwards)
    draws = drawn(model)
    model.likelihood.decoder.order = order
    return abs(chi_square(draws, masses(model))) > 5


def mean_of_logarithms(patch):
    def log_prob(self, value):
        return torch.stack([self.only(m).log_prob(value) for m in self.orderings]).mean(0)

    model = density(NETS["made, 4 orders"])
    whole = Autoregressive.log_prob
    patch.setattr(Autoregressive, "log_prob", lambda s, v: whole(s, v) if len(s.orderings) == 1 else log_prob(s, v))
    return abs(total(model) - 1) > 1e-6


def only_the_first_ordering_sampled(patch):
    model = density(NETS["made, 4 orders"], scale=1.5)
    patch.setattr(Autoregressive, "_chosen", lambda self, items, generator: torch.zeros(items, dtype=torch.long))
    return abs(chi_square(drawn(model), masses(model))) > 5


def nade_updates_before_it_scores(patch):
    def forward(ctx, x, rows, weight, first):
        total, numbers = first.clone(), x.new_empty(len(weight), len(x), weight.shape[2])
        for d in range(len(weight)):
            total.addr_(x[:, d], rows[d])
            numbers[d] = total.sigmoid() @ weight[d]
        return numbers

    patch.setattr(nade_module._Recursion, "forward", staticmethod(forward))
    model = density(NETS["nade"])
    x = images()[::37]
    with torch.no_grad():
        assert not torch.allclose(model.log_prob(x), nade_loop(model.likelihood.decoder, x), atol=1e-6)
    return abs(total(model) - 1) > 1e-6


def nade_sampled_without_updates(patch):
    model = density(NETS["nade"], scale=1.5)
    unroll = NADE.unroll

    def forgetful(self, items, context, ordering, choose):
        unroll(self, items, context, ordering, lambda element, numbers: 0 * choose(element, numbers))

    patch.setattr(NADE, "unroll", forgetful)
    return abs(chi_square(drawn(model), masses(model))) > 5


@pytest.mark.parametrize(
    "fault",
    [
        outputs_see_themselves,
        masks_off_by_one,
        units_blind_to_their_own_degree,
        drawn_in_another_order_than_scored,
        mean_of_logarithms,
        only_the_first_ordering_sampled,
        nade_updates_before_it_scores,
        nade_sampled_without_updates,
    ],
)
def test_planted_faults_are_seen(fault, monkeypatch):
    assert fault(monkeypatch), "the check above would let this pass"


def test_the_faults_are_planted_in_what_is_tested():
    assert made_module.MADE is MADE
    assert density(NETS["made"]).likelihood.decoder.out_shape == (1, *SHAPE)
