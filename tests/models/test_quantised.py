"""Models of codes: their score equals brute force, sums to 1, is a bound; levels hang together; what learns by what."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from lambent import fit
from lambent.distributions.codes import EmbeddedCodes
from lambent.distributions.uniform import DiscreteUniform
from lambent.draws import Ancestral, Detached, Given, Mode, StraightThrough
from lambent.errors import CheckpointError, DataError, ShapeError
from lambent.models import CodeLevel, Quantised, quantised as codes_module
from lambent.objectives import ELBO, IWAE
from lambent.recipes import configure
from lambent.shapes import Shapes
from lambent.training.freeze import frozen
from lambent.training.transfer import take_weights

SMALL = {
    "uniform": (),
    "pixelcnn": ("prior.channels=5", "prior.layers=2", "prior.embedding=3"),
    "transformer": ("prior.model_dim=8", "prior.layers=1", "prior.heads=2"),
    "diffusion": ("prior.model_dim=8", "prior.layers=1", "prior.heads=2", "prior.orderings=2"),
}
ENCODER = "encoder.smallest=2 decoder.smallest=2 encoder.channels=[4] decoder.channels=[4]".split()


def toy(prior="uniform", *tokens, codes=3, above=False, condition=0, seed=0, shape=(1, 2, 2)):
    """Codes of 2 x 2 places (and of one above them) for binary images of ``shape``, in float64, strongly coupled."""
    upper = ("model.halvings=[1]",) if above else ()
    settings = (
        *ENCODER,
        f"prior={prior}",
        *SMALL[prior],
        f"posterior.codebook_size={codes}",
        "posterior.embedding_dim=2",
        *upper,
        *tokens,
    )
    config = configure("vq-vae-ema", tokens=("likelihood=bernoulli", *settings))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = config.model.build(config, Shapes(shape, 1, condition, 2)).double().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn_like(parameter) * (1.5 / max(1, parameter.shape[-1]) ** 0.5))
            for level in model.levels:
                level.quantiser.codes.copy_(torch.randn(codes, 2) * 1.5)
    return model


def images():
    """All 16 images of 2 x 2 coins."""
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=4))).double().view(16, 1, 2, 2)


def grids(model):
    """All values of all levels, as a list of tuples of index tensors, lowest first."""
    each = [
        [torch.tensor(g) for g in itertools.product(range(level.quantiser.size), repeat=level.positions)]
        for level in model.levels
    ]
    return list(itertools.product(*each))


def log_joint(model, x, grid, condition=None):
    """log p(x, z) step by step: the priors' log p of indices from the top down, then the decoder's coins."""
    maps, total = [], torch.zeros(len(x), dtype=torch.float64)
    for level, indices in reversed(list(zip(model.levels, grid, strict=True))):
        context = None
        if maps:
            size = maps[0].shape[-2:]
            context = torch.cat([F.interpolate(m, size=size) for m in maps], 1).flatten(1)
        if condition is not None:
            given = condition.expand(1, -1)
            context = given if context is None else torch.cat([context, given], 1)
        total = total + level.prior(context).log_prob(indices.view(1, *level.grid).double())
        table = level.quantiser.codes[indices]  # (P, d)
        maps.insert(0, table.T.reshape(1, -1, *level.grid))
    size = maps[0].shape[-2:]
    seen = torch.cat([F.interpolate(m, size=size) for m in maps], 1).flatten(1)
    logits = model.likelihood.decoder(seen, None if condition is None else condition.expand(1, -1)).view(-1)
    return total + (x.flatten(1) * F.logsigmoid(logits) + (1 - x.flatten(1)) * F.logsigmoid(-logits)).sum(1)


@torch.no_grad()
def evidence(model, condition=None):
    """log p(x) of all images, by the sum over all codes."""
    x = images()
    return x, torch.logsumexp(torch.stack([log_joint(model, x, g, condition) for g in grids(model)]), 0)


@pytest.mark.parametrize(("prior", "above"), [*((p, False) for p in SMALL), ("pixelcnn", True), ("transformer", True)])
def test_the_score_is_the_joint_at_the_nearest_codes_and_bounds_a_total_of_one(prior, above):
    model = toy(prior, above=above)
    x, exact = evidence(model)
    assert exact.exp().sum().item() == pytest.approx(1, abs=1e-10)
    with torch.no_grad():
        trace = model(x, Detached())
        found = ELBO()(trace, x)
        codes = model.code(trace)[0].long()
    assert found.kind == "lower bound"
    assert bool((found.value <= exact + 1e-10).all())
    assert bool((found.value < exact - 1e-3).any()), "the bound can't be tight for every image"
    split = codes.split([level.positions for level in model.levels], -1)
    by_hand = torch.cat([log_joint(model, x[i : i + 1], [s[i] for s in split]) for i in range(16)]).detach()
    assert torch.allclose(found.value, by_hand, atol=1e-10, rtol=0)
    several = IWAE()(model(x, Detached(samples=3)), x).value
    assert torch.allclose(several, found.value, atol=1e-10), "a point posterior gains nothing by several samples"


def nearest_by_loops(level, vectors):
    codes = level.quantiser.codes
    return torch.tensor([[((v - codes) ** 2).sum(1).argmin().item() for v in example] for example in vectors])


def test_codes_are_the_nearest_to_the_head_of_the_encoder_s_map():
    model = toy()
    x, level = images(), model.levels[0]
    with torch.no_grad():
        features = level.encoder(model.as_input(x).double()).view(16, *level.features)
        vectors = F.conv2d(features, level.head.weight, level.head.bias).permute(0, 2, 3, 1).reshape(16, 4, 2)
        assert torch.equal(model.code(model(x, Mode()))[0].long(), nearest_by_loops(level, vectors))


def test_a_uniform_prior_charges_log_s_a_code():
    model = toy(codes=7)
    with torch.no_grad():
        trace = model(images(), Detached())
    assert trace.rate.flatten().tolist() == pytest.approx([4 * math.log(7)] * 16, abs=1e-12)


def test_conditions_reach_encoder_prior_and_decoder():
    model = toy("transformer", condition=2)
    one, other = torch.tensor([[1.0, 0.0]]).double(), torch.tensor([[0.0, 1.0]]).double()
    x, first = evidence(model, one)
    _, second = evidence(model, other)
    assert first.exp().sum().item() == pytest.approx(1, abs=1e-10)
    assert (first - second).abs().max() > 0.1
    with torch.no_grad():
        value = ELBO()(model(x, Detached(), one.expand(16, -1)), x).value
    assert bool((value <= first + 1e-10).all())


def test_the_upper_codes_reach_the_lower_ones_prior_their_encoder_and_the_decoder():
    model = toy("pixelcnn", above=True)
    x = images()[5:6]
    tables = model.levels[1].quantiser.codes
    base = model(x, Mode())
    changed = []
    for code in tables:
        values = {"z2": code.view(1, 1, 2), "z1": base.latents[0].value}
        given = model(None, Given(values=values))
        changed.append((given.latents[0].log_p.item(), given.log_px(x).item()))
    prior, decoder = (max(column) - min(column) for column in zip(*changed, strict=True))
    assert prior > 1e-3
    assert decoder > 1e-3
    with torch.no_grad():
        features = model._features(model.as_input(x), None)
        encoded = [model.levels[0].posterior(features[0], c.view(1, 1, 2, 1, 1)).encoded for c in tables]
    assert (encoded[0] - encoded[1]).abs().max() > 1e-3


def test_samples_follow_the_prior_then_the_decoder():
    model, n = toy("transformer", codes=2), 20_000
    with torch.no_grad():
        trace = model(None, Ancestral(batch=n, generator=torch.Generator().manual_seed(1)))
        x = trace.px.sample((), torch.Generator().manual_seed(2))[0]
    _, exact = evidence(model)
    numbers = (x.flatten(1) * torch.tensor([8.0, 4, 2, 1]).double()).sum(1).long()
    counts = torch.bincount(numbers, minlength=16).double()
    expected = exact.exp() * n
    chi = ((counts - expected).square() / expected).sum().item()
    assert chi < 15 + 5 * math.sqrt(30), chi


def test_indices_decode_to_what_their_embeddings_do():
    for above in (False, True):
        model, x = toy("uniform", above=above), images()
        with torch.no_grad():
            trace = model(x, Mode())
            again = model.decode(model.code(trace))
            assert torch.equal(again.mean, trace.px.mean)


def gradients(model, x):
    model.train()
    estimate = ELBO()(model(x, StraightThrough()), x)
    parameters = [p for level in model.levels for p in (*level.encoder.parameters(), *level.head.parameters())]
    return torch.autograd.grad(estimate.losses["all"], parameters, allow_unused=True)


def test_the_commitment_weighs_the_same_in_a_batch_of_any_size():
    model, x = toy("uniform", "posterior.commitment=2.0"), images()
    for one, two in zip(gradients(model, x), gradients(model, x.repeat(3, 1, 1, 1)), strict=True):
        assert torch.allclose(one, two, atol=1e-12)
    trace = model(x, StraightThrough())
    q = trace.latents[0].q
    by_hand = 2.0 * (q.encoded - q.embedding.view_as(q.encoded)).square().flatten(1).sum(1)
    assert torch.allclose(trace.penalties["commitment"], by_hand, atol=1e-12)
    model.eval()
    assert not model(x, StraightThrough()).penalties


def test_the_encoder_learns_straight_through_its_codes():
    """Without commitment: the gradient at the vectors is the decoder's at their codes."""
    model, x = toy("uniform", "posterior.commitment=0.0"), images()
    model.train()
    trace = model(x, StraightThrough())
    loss = -trace.log_px(x).mean()
    at_code, at_vectors = torch.autograd.grad(loss, [trace.latents[0].value, trace.latents[0].q.encoded])
    assert torch.equal(at_code[0].view_as(at_vectors), at_vectors)
    assert at_vectors.abs().max() > 0


@pytest.mark.parametrize("what", ["none", "inference", "generative", "autoencoder"])
def test_codes_are_the_decoder_s_side_and_stay_where_it_is_frozen(what):
    model, x = toy("transformer"), images()
    model.train()
    before = model.levels[0].quantiser.codes.clone()
    with frozen(model, what):
        model.update_buffers(model(x, StraightThrough()), lambda t: t)
    assert torch.equal(before, model.levels[0].quantiser.codes) == (what in ("generative", "autoencoder"))


def test_weights_of_the_generative_side_are_taken_with_their_codes():
    source, model = toy(seed=1), toy(seed=2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    take_weights(model, source.state_dict(), "generative", "generative", "there")
    found, there = model.state_dict(), source.state_dict()
    taken = {name for name in found if not torch.equal(found[name], before[name])}
    assert "levels.0.quantiser.codes" in taken
    assert all(torch.equal(found[name], there[name]) for name in taken)
    assert not any("encoder" in name or "head" in name for name in taken)
    without = {name: tensor for name, tensor in there.items() if "codes" not in name}
    with pytest.raises(CheckpointError, match=r"found no levels\.0\.quantiser\.codes"):
        take_weights(model, without, "all", "autoencoder", "there")


def test_groups_share_nothing_and_leave_nothing_out():
    for above in (False, True):
        for learning in ("ema", "gradient"):
            model = toy("pixelcnn", f"posterior.codebook_update={learning}", above=above)
            named = [id(p) for group in model.groups().values() for p in group]
            assert len(named) == len(set(named)) == len(list(model.parameters()))
            assert model.groups()["prior"]


def _prior_of_the_wrong_size(self, context=None):
    return DiscreteUniform(self.symbols - 1, self.like, self.grid)


def _upper_unseen(maps, stacked=codes_module._stacked):
    found = stacked(maps)
    return found if found is None else torch.cat([found[:, :, :2], 0 * found[:, :, 2:]], 2)


def _misplaced(self, value):
    return value.unflatten(2, (-1, *self.grid))


def _unscored(self, context):
    found = EmbeddedCodes(self.prior(context), self.quantiser)
    found.log_prob_of = lambda indices: torch.zeros(indices.shape[:-1], dtype=torch.float64)
    return found


@pytest.mark.parametrize(
    ("where", "name", "fault"),
    [
        ("lambent.priors.uniform.UniformPriorModule", "forward", _prior_of_the_wrong_size),
        (codes_module, "_stacked", _upper_unseen),
        (CodeLevel, "as_map", _misplaced),
        (CodeLevel, "given", _unscored),
        (Quantised, "_seen", staticmethod(lambda maps: codes_module._stacked(maps).flatten(2).flip(-1))),
    ],
    ids=["size of the uniform prior", "levels above unseen", "map transposed", "prior not charged", "map reversed"],
)
def test_planted_faults_are_caught(monkeypatch, where, name, fault):
    if isinstance(where, str):
        module, _, cls = where.rpartition(".")
        where = getattr(__import__(module, fromlist=[cls]), cls)
    monkeypatch.setattr(where, name, fault)
    with pytest.raises(AssertionError):
        _checks()


def _checks():
    test_a_uniform_prior_charges_log_s_a_code()
    test_the_score_is_the_joint_at_the_nearest_codes_and_bounds_a_total_of_one("uniform", above=False)
    test_the_score_is_the_joint_at_the_nearest_codes_and_bounds_a_total_of_one("uniform", above=True)


def test_structure_is_what_it_says():
    assert isinstance(toy(), Quantised)
    assert [level.grid for level in toy("uniform", above=True).levels] == [(2, 2), (1, 1)]


def test_indices_outside_the_codebook_are_refused():
    for recipe, size in (("vq-vae", {"codebook_size": 8}), ("fsq-vae", {"posterior__bins": [3, 3]})):
        run = fit(
            recipe,
            "digits",
            latent=4,
            encoder="mlp",
            decoder="mlp",
            hidden=[8],
            epochs=0,
            threads=1,
            quiet=True,
            **size,
        )
        most = 8 if "codebook_size" in size else 9
        for outside in (-1.0, float(most)):
            with pytest.raises(DataError, match=f"expected 0..{most - 1}, indices of the codebook"):
                run.decode(torch.full((2, 4), outside))
        with pytest.raises(ShapeError, match="latents of 5 numbers, expected 4"):
            run.decode(torch.zeros(2, 5))
