"""Strings that END closes: their probabilities sum to 1, samples follow them, and padding changes nothing."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

import lambent.distributions.text as module
from lambent.distributions import Strings
from lambent.errors import CombinationError, ConfigError
from lambent.evaluation.result import scored
from lambent.likelihoods import AutoregressiveLikelihoodModule, LikelihoodModule, TextLikelihood
from lambent.networks import LSTMDecoder, MADEDecoder, MLPDecoder, NADEDecoder, TransformerDecoder
from lambent.shapes import Shapes

S, D, END = 3, 4, 2
CLOSED = Shapes((D,), 2, levels=S, end=True)
OPEN = Shapes((D,), 2, levels=S)
DRAWS = 20_000
NETS = {
    "made": MADEDecoder(hidden=(20,)),
    "nade": NADEDecoder(hidden_dim=10),
    "lstm": LSTMDecoder(hidden_dim=8, embedding=4),
    "transformer": TransformerDecoder(layers=1, model_dim=8, heads=2),
}


def model(name, shapes=CLOSED):
    """A likelihood of random weights, far from uniform, in float64; "mlp" has positions independent given z."""
    torch.manual_seed(1)
    family = TextLikelihood()
    out = family.out_shape(shapes)
    if name == "mlp":
        likelihood = LikelihoodModule(family, MLPDecoder((8,)).build(2, out), shapes)
    else:
        network = NETS[name].build(2, out, symbols=family.symbols(shapes))
        likelihood = AutoregressiveLikelihoodModule(family, network, shapes)
    with torch.no_grad():
        for parameter in likelihood.parameters():
            parameter.add_(0.4 * torch.randn_like(parameter))
    return likelihood.double().eval()


Z = torch.tensor([[[0.5, -1.0]]], dtype=torch.float64)


def words(length=D, symbols=S - 1):
    """Every string of up to ``length`` symbols other than END, END after each."""
    found = [w for n in range(length + 1) for w in itertools.product(range(symbols), repeat=n)]
    return torch.tensor([[*w, *[symbols] * (length - len(w))] for w in found])


def masses(px, x):
    """log p of strings (M, D) under p(x|z) of batch (1, 1)."""
    return torch.cat([px.log_prob(row.view(1, -1)).flatten() for row in x]).detach()


ALL = ["mlp", *NETS]


@pytest.mark.parametrize("name", ALL)
def test_the_strings_of_up_to_d_symbols_have_probability_one(name):
    assert len(words()) == 1 + 2 + 4 + 8 + 16
    assert masses(model(name)(Z), words()).exp().sum().item() == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize("name", ALL)
def test_without_end_all_sequences_have_probability_one(name):
    x = torch.tensor(list(itertools.product(range(S), repeat=D)))
    assert masses(model(name, OPEN)(Z), x).exp().sum().item() == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize("name", ALL)
def test_what_no_string_is_has_no_probability(name):
    x = torch.tensor(list(itertools.product(range(S), repeat=D)))
    found = masses(model(name)(Z), x)
    proper = (x[:, None] == words()).all(-1).any(1)
    assert bool(torch.isneginf(found[~proper]).all())
    assert bool(torch.isfinite(found[proper]).all())
    assert int(proper.sum()) == 31


def by_loops(logits, row, end):
    """log p(x) as the definition has it."""
    total = 0.0
    for position, symbol in enumerate(row):
        total += logits[position][symbol] - math.log(sum(math.exp(v) for v in logits[position]))
        if end is not None and symbol == end:
            break
    return total


@pytest.mark.parametrize("end", [True, False])
def test_log_prob_is_the_sum_up_to_the_first_end(end):
    logits = torch.randn(2, 5, 7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.randint(0, 4, (5, 7), generator=torch.Generator().manual_seed(1))
    p = Strings(logits, end=end)
    x = p._closed(x)
    found = p.log_prob(x.float())
    for k, b in itertools.product(range(2), range(5)):
        assert found[k, b].item() == pytest.approx(by_loops(logits[k, b].tolist(), x[b].tolist(), 3 if end else None))


def follows(likelihood, seed=0):
    """The p-value of samples against the enumerated masses; 0 where a sample is no string."""
    px = likelihood(Z.expand(1, DRAWS, 2))
    drawn = px.sample(generator=torch.Generator().manual_seed(seed))[0].long()
    counts = (drawn[:, None] == words()).all(-1).sum(0).numpy()
    if counts.sum() < DRAWS:
        return 0.0
    expected = DRAWS * masses(likelihood(Z), words()).exp().numpy()
    rare = expected < 5
    if rare.any():
        counts = np.append(counts[~rare], counts[rare].sum())
        expected = np.append(expected[~rare], expected[rare].sum())
    return stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue


@pytest.mark.parametrize("name", ALL)
def test_samples_follow_the_masses_and_none_goes_on_after_end(name):
    assert follows(model(name)) > 1e-6


@pytest.mark.parametrize("name", list(NETS))
def test_samples_are_those_of_a_loop_of_whole_passes(name):
    """Element by element by `forward`; END is kept once it has come."""
    likelihood = model(name)
    context = torch.randn(40, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    noise = torch.Generator().manual_seed(3)
    x = torch.zeros(40, D, dtype=torch.float64)
    with torch.no_grad():
        for d in range(D):
            logits = likelihood.all(x, context, 0).logits[:, d]
            p = logits.softmax(-1)
            done = x[:, d - 1] == END if d else torch.zeros(40, dtype=torch.bool)
            p[done] = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
            x[:, d] = torch.multinomial(p, 1, generator=noise).squeeze(1).double()
        found = likelihood(context.unsqueeze(0)).sample(generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(found[0], x, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["lstm", "transformer"])
def test_padding_changes_nothing(name):
    """The same strings in rows of 4 and of 9 symbols, under the same network, have the same log p."""
    family, longer = TextLikelihood(), Shapes((9,), 2, levels=S, end=True)
    short = model(name)
    torch.manual_seed(0)
    long = AutoregressiveLikelihoodModule(family, NETS[name].build(2, (S, 9), symbols=S), longer).double().eval()
    own = short.state_dict()
    with torch.no_grad():
        for key, value in long.state_dict().items():
            part = own.get(key)
            if part is not None and part.shape == value.shape:
                value.copy_(part)
            elif part is not None and part.is_floating_point():  # numbers of their own for each place
                value[tuple(slice(n) for n in part.shape)].copy_(part)
    strings = words()[:15]  # those of at most three symbols, which END closes in both
    padded = torch.cat([strings, torch.full((15, 5), END)], 1)
    torch.testing.assert_close(masses(long(Z), padded), masses(short(Z), strings), rtol=1e-12, atol=1e-12)


def test_uniform_text_costs_log2_s_bits_a_symbol_exactly():
    for end, symbols in ((True, 257), (False, 64), (True, 3)):
        shapes = Shapes((20,), 2, levels=symbols, end=end)
        p = Strings(torch.zeros(50, 20, symbols, dtype=torch.float64), end=end)
        x = p.sample(generator=torch.Generator().manual_seed(0))
        x[:10], x[10:20, 5:] = symbols - 1, symbols - 1
        counts = TextLikelihood().scored(x, shapes)
        found = -p.log_prob(x).mean() / math.log(2) / scored(p.log_prob(x), counts).mean
        assert found.item() == pytest.approx(math.log2(symbols), abs=1e-12)
        assert scored(p.log_prob(x), counts).bits_se == pytest.approx(0, abs=1e-12)
        if end:
            assert counts[:10].tolist() == [1] * 10
            assert int(counts[10:20].max()) <= 6


def test_the_error_of_bits_a_symbol_is_that_of_a_ratio():
    """Against the spread of the ratio over 2,000 data sets of their own."""
    noise = np.random.default_rng(0)
    ratios, errors = [], []
    for _ in range(2000):
        counts = torch.tensor(noise.integers(1, 30, 200))
        values = -counts * 1.5 - torch.tensor(noise.normal(0, 2, 200)) * counts.sqrt()
        found = scored(values, counts)
        ratios.append(-values.mean().item() / math.log(2) / found.mean)
        errors.append(found.bits_se)
    spread = np.std(ratios, ddof=1)
    assert abs(np.mean(errors) / spread - 1) < 5 / math.sqrt(2 * 2000)


def test_the_greedy_string_is_each_positions_best_up_to_end():
    logits = torch.tensor(
        [[[0.0, 2, 1], [3, 0, 1], [0, 1, 2], [5, 0, 0]], [[0, 0, 1.0], [9, 0, 0], [9, 0, 0], [9, 0, 0]]]
    )
    assert Strings(logits, end=True).greedy.tolist() == [[1, 0, 2, 2], [2, 2, 2, 2]]
    assert Strings(logits, end=False).greedy.tolist() == [[1, 0, 2, 0], [2, 0, 0, 0]]
    with pytest.raises(ConfigError, match="have no mean"):
        _ = Strings(logits, end=True).mean


def test_encoders_see_one_hot_symbols_and_networks_in_order_see_numbers_or_symbols():
    family, x = TextLikelihood(), torch.tensor([[0.0, 1, 2, 2]])
    assert family.input_shape(CLOSED) == (S, D)
    assert family.as_input(x, CLOSED).tolist() == [[[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1]]]
    assert family.as_elements(x, CLOSED).tolist() == [[-1, 0, 1, 1]]


@pytest.mark.parametrize("name", ["mlp", "made", "lstm"])
def test_training_starts_at_the_frequencies_of_the_scored_symbols(name):
    likelihood = model(name)
    with torch.no_grad():
        for parameter in likelihood.parameters():
            parameter.zero_()
    x = torch.tensor([[0.0, 0, 1, 2], [0, 2, 2, 2], [0, 1, 0, 0]])  # 6 zeros, 2 ones, 2 ENDs are scored
    likelihood.initialise(x)
    p = likelihood.family.distribution(_numbers(likelihood), None, CLOSED).logits.softmax(-1)
    expected = torch.tensor([6.5, 2.5, 2.5], dtype=torch.float64) / 11.5
    torch.testing.assert_close(p[0, 0], expected.expand(D, S), rtol=1e-6, atol=0)


def _numbers(likelihood):
    if isinstance(likelihood, AutoregressiveLikelihoodModule):
        return likelihood.decoder(torch.zeros(1, D, dtype=torch.float64), Z[0], 0).unsqueeze(0)
    return likelihood.decoder(Z[0]).unsqueeze(0)


def test_what_end_closes_is_not_generated_out_of_order():
    net = MADEDecoder(ordering="random").build(0, (S, D))
    with pytest.raises(CombinationError, match=r"decoder.ordering=random .* use decoder.ordering=natural"):
        AutoregressiveLikelihoodModule(TextLikelihood(), net, CLOSED)
    assert AutoregressiveLikelihoodModule(TextLikelihood(), net, OPEN).orderings == 1


@pytest.mark.parametrize("shapes", [Shapes((1, 2, 2), 2, levels=3), Shapes((4,), 2)], ids=["image", "no levels"])
def test_what_is_no_text_is_refused(shapes):
    with pytest.raises(ConfigError, match=r"likelihood=text scores sequences of symbols, .* give a .txt file"):
        TextLikelihood().out_shape(shapes)


def end_not_counted(self, value):
    terms, over = self.each.log_prob(value), (value == self.last)
    return terms.masked_fill(over, 0.0).sum(-1)


def padding_counted(self, value):
    return self.each.log_prob(value).sum(-1)


def one_late(x, end):
    return REAL(x, end) & torch.nn.functional.pad(REAL(x, end), (1, 0))[..., :-1]


REAL = module.after_eos


@pytest.mark.parametrize(
    ("owner", "attribute", "fault"),
    [
        (Strings, "log_prob", end_not_counted),
        (Strings, "log_prob", padding_counted),
        (module, "after_eos", one_late),
    ],
    ids=["END not counted", "padding counted", "END twice"],
)
@pytest.mark.parametrize("name", ["mlp", "lstm"])
def test_the_sum_over_all_strings_catches_wrong_scores(monkeypatch, owner, attribute, fault, name):
    monkeypatch.setattr(owner, attribute, fault)
    assert abs(masses(model(name)(Z), words()).exp().sum().item() - 1) > 1e-3


@pytest.mark.parametrize(
    ("name", "owner", "attribute", "fault"),
    [
        ("mlp", Strings, "_closed", lambda self, x: x),
        ("lstm", TextLikelihood, "given_previous", lambda self, p, before: p),
        ("lstm", Strings, "following", lambda self, before: Strings(torch.zeros_like(self.logits), end=True)),
    ],
    ids=["goes on after END", "goes on after END, in order", "uniform after the first"],
)
def test_the_test_of_samples_catches_wrong_draws(monkeypatch, name, owner, attribute, fault):
    monkeypatch.setattr(owner, attribute, fault)
    assert follows(model(name)) < 1e-6


@pytest.mark.parametrize(
    "fault",
    [
        lambda self, x, shapes: torch.full((len(x),), x.shape[1]),
        lambda self, x, shapes: REAL_SCORED(self, x, shapes) - 1,
    ],
    ids=["padding in the denominator", "END not in the denominator"],
)
def test_uniform_text_catches_wrong_denominators(monkeypatch, fault):
    monkeypatch.setattr(TextLikelihood, "scored", fault)
    with pytest.raises(AssertionError):
        test_uniform_text_costs_log2_s_bits_a_symbol_exactly()


REAL_SCORED = TextLikelihood.scored
