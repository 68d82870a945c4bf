"""The collapse panel: its numbers against loops written out, its alarm against planted models, its advice tried."""

import dataclasses
import math
import os
import signal

import pytest
import torch
from torch import nn

import lambent.config.remedies as remedies_module
import lambent.evaluation.mutual_information as measured
import lambent.training.collapse_monitor as collapse
from lambent import fit
from lambent.config import check, settings_of_tokens
from lambent.config.remedies import REMEDIES, Remedy, level_remedies, remedies
from lambent.data import View
from lambent.data.view import spread_out
from lambent.distributions import Normal, OneHotCategorical
from lambent.draws import Mode
from lambent.errors import ConfigError, InterruptedRunError
from lambent.evaluation.mutual_information import of_posteriors
from lambent.objectives.rates import Capacity, FreeBits, WarmUp
from lambent.recipes import configure
from lambent.recipes.named import RECIPES
from lambent.runs.initialise import build_model
from lambent.runs.monitors import information
from lambent.seeds import derive
from lambent.shapes import Shapes
from lambent.storage.metrics import read_metrics
from lambent.training.collapse_monitor import CollapseAlarm
from lambent.training.progress import Progress, Validation
from support.listening import Heard, fit_heard

SMALL = {"encoder__hidden": (16,), "decoder__hidden": (16,), "threads": 1}
X = torch.randn(200, 6, generator=torch.Generator().manual_seed(0)) @ torch.randn(
    6, 6, generator=torch.Generator().manual_seed(1)
)
LONGER = {"epochs": 6, "batch_size": 10, "lr": 0.05}
REAL = {"data__binarize": "none", "likelihood": "normal", "latent": 3}


class Blind(nn.Module):
    """Numbers of p(x|z) that z has nothing to do with."""

    def __init__(self):
        super().__init__()
        self.numbers = nn.Parameter(torch.zeros(6))

    def forward(self, z):
        return self.numbers.expand(len(z), 6)


def trained(recipe="vae", x=X, console=None, **settings):
    small = SMALL if recipe not in ("gmm", "made", "linear-ae", "ppca") else {"threads": 1}
    if "decoder" in settings:
        small = {k: v for k, v in small.items() if not k.startswith("decoder")}
    return fit_heard(console or Heard(), recipe, x, **(small | {"epochs": 3} | settings))


def rows(run):
    return [row for row in run.history if "valid" in row]


def pairwise(q, z):
    """I of draws z (N, L) of q, its N posteriors, one pair at a time."""
    n = len(z)
    total = 0.0
    for i in range(n):
        alone = [
            float(q.map_parameters(lambda t, j=j: t[j : j + 1].double()).log_prob(z[i].double())) for j in range(n)
        ]
        highest = max(alone)
        total += alone[i] - highest - math.log(math.fsum(math.exp(a - highest) for a in alone) / n)
    return total / n


def first_posterior(run, view):
    with torch.inference_mode():
        return run.model(view.slice(0, len(view))[0], Mode()).latents[0].q


def check_row_of(run):
    """The last row (that of the weights in use) is what the loops, and the evaluation of these examples, say."""
    view, row = run.prepare(), next(row["valid"] for row in rows(run) if row["step"] == run.step)
    q = first_posterior(run, view)
    z = q.sample((), torch.Generator().manual_seed(derive(run.config.train.seed, "monitor")))
    assert row["mutual_information"] == pytest.approx(pairwise(q, z), abs=1e-5)
    found = run.evaluate(samples=2)
    assert row["mutual_information"] == pytest.approx(found.information.value, abs=1e-6)
    assert found.information.n == row["examples"] == len(view) == row["n"]
    with torch.inference_mode():
        trace = run.model(view.slice(0, len(view))[0], Mode())
    variances = torch.cat([z.q.mean.reshape(len(view), -1) for z in trace.latents], 1).var(0)
    assert row["active_units"] == found.active_units == sum(v > 0.01 for v in variances.tolist())
    assert row["latent"] == len(variances)
    assert row["mutual_information"] < row["rate"] + 0.3


@pytest.mark.parametrize("recipe", ["vae", "chain"])
def test_the_row_is_what_loops_and_the_evaluation_say(recipe):
    above = {"model": "chain", "upper_latents": (2,)} if recipe == "chain" else {}
    check_row_of(trained(x=X[:80], data__valid_fraction=0.3, epochs=8, **REAL, **above))


def draws_for_means(trace):
    return torch.cat([z.q.sample().reshape(len(z.q.mean), -1) for z in trace.latents], 1)


def mean_of_logs(q, generator=None):
    pairs = measured._pairs(q, measured.sample(q, (), generator))
    return measured.Information((pairs.diagonal() - pairs.mean(1)).mean().item(), 0.0, len(pairs))


def no_log_n(q, generator=None):
    found = of_posteriors(q, generator)
    return dataclasses.replace(found, value=found.value - found.most)


@pytest.mark.parametrize(
    ("place", "name", "fault"),
    [
        (collapse, "posterior_means", draws_for_means),
        (measured, "of_posteriors", mean_of_logs),
        (measured, "of_posteriors", no_log_n),
        (measured, "_first_level", lambda model, trace: trace.latents[-1].q),
    ],
)
def test_wrong_panels_are_caught(place, name, fault, monkeypatch):
    monkeypatch.setattr(place, name, fault)
    above = {"model": "chain", "upper_latents": (2,)} if name == "_first_level" else {}
    loc = {"rate": "beta", "rate__beta": 200.0, **LONGER, "epochs": 30} if name == "posterior_means" else {}
    with pytest.raises((AssertionError, IndexError, RuntimeError)):
        check_row_of(trained(x=X[:80], data__valid_fraction=0.3, select_checkpoint="last", **REAL, **above, **loc))


@pytest.fixture(scope="module")
def many():
    """Estimates of I, with their errors, of 1,000 data sets of 60 posteriors, drawn anew each time."""
    found = []
    for seed in range(1000):
        noise = torch.Generator().manual_seed(seed)
        loc = 1.5 * torch.randn(60, 1, generator=noise, dtype=torch.float64)
        found.append((of_posteriors(Normal(loc, torch.tensor(-0.3, dtype=torch.float64)), noise), loc))
    return found


def test_the_standard_error_is_the_spread_over_data_sets(many):
    values = torch.tensor([f.value for f, _ in many])
    claimed = torch.tensor([f.se for f, _ in many]).square().mean().sqrt()
    assert float(claimed / values.std()) == pytest.approx(1, abs=5 / math.sqrt(2 * len(many)) + 0.03)


def test_it_is_below_the_information_of_all_data_and_near_it(many):
    values, scale = torch.tensor([f.value for f, _ in many]), math.exp(-0.3)
    truth = 0.5 * math.log(1 + (1.5 / scale) ** 2)
    mean, error = float(values.mean()), float(values.std()) / math.sqrt(len(values))
    assert truth - 0.1 < mean < truth + 5 * error
    far = Normal(torch.arange(7.0).view(-1, 1) * 1000, torch.tensor(0.0))
    assert of_posteriors(far).value == pytest.approx(of_posteriors(far).most) == pytest.approx(math.log(7))
    assert of_posteriors(far).se == pytest.approx(0, abs=1e-12)
    same = of_posteriors(Normal(torch.zeros(9, 2), torch.tensor(0.0)))
    assert (same.value, same.se) == (pytest.approx(0, abs=1e-6), pytest.approx(0, abs=1e-6))
    states = OneHotCategorical(torch.tensor([[50.0, 0.0], [0.0, 50.0], [50.0, 0.0], [0.0, 50.0]]))
    assert of_posteriors(states).value == pytest.approx(math.log(2), abs=1e-6)


def test_examples_are_spread_over_sorted_data():
    assert spread_out(1000, 7).tolist() == [0, 142, 285, 428, 571, 714, 857]
    x = torch.cat([X[:100] - 30, X[:100] + 30])
    run = trained(x=x[:160], valid=x, epochs=12, monitor_examples=20, data__scale="none", **REAL)
    last = rows(run)[-1]["valid"]
    assert last["examples"] == 20
    assert last["mutual_information"] > math.log(2) - 0.05


KNOWN = {
    "vae": (REAL, {"mutual_information", "active_units", "alarms"}),
    "probabilistic-ae": ({"data__binarize": "none"}, {"mutual_information", "active_units"}),
    "linear-ae": ({}, {"active_units"}),
    "gmm": ({}, {"mutual_information", "active_units"}),
    "joint": ({"model": "discrete-continuous", "draw": "mixed", **REAL}, {"active_units", "alarms"}),
    "made": ({"likelihood": "normal", "data__binarize": "none"}, set()),
}


@pytest.mark.parametrize("recipe", KNOWN)
def test_what_is_not_known_of_a_model_is_left_out(recipe):
    settings, expected = KNOWN[recipe]
    run = trained("vae" if recipe == "joint" else recipe, **settings)
    for row in rows(run):
        assert {key for key in ("mutual_information", "active_units", "alarms") if key in {**row, **row["valid"]}} == (
            expected
        )


def test_with_a_condition_the_information_is_left_out():
    run = fit("cvae", "digits", quiet=True, epochs=1, latent=2, **SMALL)
    assert not any("mutual_information" in row["valid"] for row in rows(run))
    assert all("active_units" in row["valid"] for row in rows(run))
    assert run.evaluate(samples=1).information is None


def test_the_panel_can_be_switched_off_and_changes_no_weight():
    on, off = (
        trained(**REAL, monitor_examples=panel, collapse_threshold=alarm) for panel, alarm in ((500, 0.1), (0, 0))
    )
    assert not any({"active_units", "mutual_information"} & set(row["valid"]) for row in rows(off))
    assert not any("alarms" in row for row in off.history)
    assert all(torch.equal(a, b) for a, b in zip(on.model.parameters(), off.model.parameters(), strict=True))
    assert [row["valid"]["bound"] for row in rows(on)] == [row["valid"]["bound"] for row in rows(off)]


def collapsed(**settings):
    heard = Heard()
    run = trained(console=heard, decoder=Blind(), **LONGER, **REAL, **settings)
    return heard, run


def check_alarm(**settings):
    """A decoder blind to z raises the alarm once, with advice; the number is in the metrics from then on."""
    heard, run = collapsed(**settings)
    rates = [row["valid"]["rate"] for row in rows(run)]
    low = [i for i, rate in enumerate(rates) if rate < 0.1]
    assert low, rates
    assert len(heard.warnings) == 1, heard.warnings
    assert "rate=warm-up rate.steps=" in heard.warnings[0]
    step = rows(run)[max(1, low[0])]["step"]
    assert f"step {step:,}: the posterior has collapsed" in heard.warnings[0]
    assert [row["alarms"] for row in rows(run)] == [int(row["step"] >= step) for row in rows(run)]


def test_a_decoder_blind_to_z_raises_the_alarm_once_and_a_healthy_one_does_not():
    check_alarm()
    heard = Heard()
    run = trained(console=heard, **LONGER, **REAL)
    assert rows(run)[-1]["valid"]["rate"] > 0.2
    assert not heard.warnings
    assert {row["alarms"] for row in rows(run)} == {0}
    assert not trained(decoder=Blind(), collapse_threshold=0, **REAL).history[-1].get("alarms")


def deaf(self, progress, found, *, early):
    return ""


def each_time(self, progress, found, *, early):
    low = found.rate < self.under and not early
    progress.alarms += low
    return self._text(progress.step, found.rate) if low else ""


def upside_down(self, progress, found, *, early):
    return each_time(self, progress, dataclasses.replace(found, rate=-found.rate), early=early)


@pytest.mark.parametrize("fault", [deaf, each_time, upside_down])
def test_wrong_alarms_are_caught(fault, monkeypatch):
    monkeypatch.setattr(CollapseAlarm, "on_validation", fault)
    with pytest.raises(AssertionError):
        check_alarm()


def heard_of(rates, *, settled=lambda step: True, under=0.1):
    """The steps at which an alarm speaks, and its count."""
    alarm, progress, spoken = CollapseAlarm(under, settled, lambda: ["a=b"]), Progress(), []
    for step, rate in enumerate(rates, 1):
        progress.step = step
        found = Validation(-1.0, 0.1, "lower bound", rate, 1.0, 10)
        if alarm.on_validation(progress, found, early=step == 1 and len(rates) > 1):
            spoken.append(step)
    return spoken, progress.alarms


def level_warnings(rates, total=5.0):
    """What is said over validations of two levels' rates."""
    alarm, progress = CollapseAlarm(0.1, lambda step: step != 2, lambda: ["a=b"], lambda: ["c=d"]), Progress()
    spoken = {}
    for step, (low, high) in enumerate(rates, 1):
        progress.step = step
        found = Validation(-1.0, 0.1, "lower bound", total, 1.0, 10, {"z1": low, "z2": high})
        spoken[step] = alarm.on_validation(progress, found, early=step == 1)
    return {step: text for step, text in spoken.items() if text}


def test_it_warns_of_a_level_that_falls_idle_once():
    """Not at the first validation, not while a warm-up lasts (step 2), and never twice of one level."""
    spoken = level_warnings([(5.0, 0.0), (5.0, 0.0), (5.0, 0.05), (5.0, 0.2), (5.0, 0.01), (0.02, 0.01), (0.1, 3.0)])
    assert list(spoken) == [3, 6]
    assert spoken[3].endswith(
        "of 5 nats of validation rate z2 0.05, under train.collapse_threshold=0.1; what may help, each by itself in a "
        "new run: c=d"
    )
    assert "z1 0.02, under" in spoken[6]
    assert "z2" not in spoken[6]
    assert not level_warnings([(5.0, 0.5), (5.0, 0.5), (0.1, math.nan)])


def test_a_chain_is_not_told_that_a_lower_level_is_idle():
    model = build_model(configure("vae", tokens=("model=chain", "model.upper_latents=[2]")), Shapes((6,), 4))
    job = dataclasses.replace(CollapseAlarm(0.1, lambda step: True, list), judged=collapse.judged_levels(model))
    found, progress = Validation(-1.0, 0.1, "lower bound", 5.0, 1.0, 10, {"z1": -0.5, "z2": 5.5}), Progress()
    assert job.on_validation(progress, found, early=False) == ""
    low = dataclasses.replace(found, rates={"z1": 5.0, "z2": 0.05})
    assert "z2 0.05" in job.on_validation(progress, low, early=False)


def test_a_whole_collapse_is_told_instead_of_its_levels():
    spoken = level_warnings([(1.0, 1.0), (1.0, 1.0), (0.01, 0.01)], total=0.02)
    assert list(spoken) == [3]
    assert "the posterior has collapsed" in spoken[3]


def test_a_chain_hears_of_its_idle_top_and_of_what_may_help():
    """Six numbers need no two levels: the top falls idle; the metrics say when, and the advice passes the check."""
    heard, longer = Heard(), LONGER | {"epochs": 10, "lr": 0.02}
    run = trained(x=X, console=heard, **REAL, **longer, model="chain", upper_latents=(2,), collapse_threshold=0.5)
    fell = [row["step"] for row in rows(run)[1:] if row["valid"]["rates"]["z2"] < 0.5]
    (line,) = heard.warnings
    assert f"step {fell[0]:,}: levels carry almost no information beyond those above them" in line
    advised = level_remedies(run.config, run.history[-1]["step"])
    assert [remedy.tokens[0] for remedy in advised] == ["rate=level-warm-up", "rate=kl-balancing", "rate=free-bits"]
    for remedy in advised:
        assert " ".join(remedy.tokens) in line
        check(run.config.with_(**settings_of_tokens(remedy.tokens)))


def test_it_speaks_once_a_fall_and_never_at_the_first_of_several_validations():
    assert heard_of([0.0, 0.05, 0.01, 5.0, 0.05, 0.05, 0.1, 0.09]) == ([2, 5, 8], 3)
    assert heard_of([0.0]) == ([1], 1)
    assert heard_of([5.0, -math.inf, math.nan, 3.0]) == ([], 0)
    assert heard_of([0.0] * 6, settled=lambda step: step >= 4) == ([4], 1)


def test_a_rate_that_is_not_charged_in_full_yet_raises_no_alarm():
    assert [WarmUp(steps=10).at(step).settled for step in (0, 9, 10)] == [False, False, True]
    assert [Capacity(steps=10, maximum=2.0).at(step).settled for step in (0, 9, 10)] == [False, False, True]
    assert FreeBits().settled
    heard, run = collapsed(rate="capacity", maximum=0.5, rate__steps=10**6)
    assert rows(run)[-1]["valid"]["rate"] < 0.1
    assert not heard.warnings


def shapes_of(config):
    """Data that the configuration can be built for."""
    condition = 10 if config.data.condition != "none" else 0
    for event, levels in (((1, 8, 8), 2), ((1, 8, 8), 256), ((1, 28, 28), 2), ((2,), None), ((12,), 20)):
        try:
            found = Shapes(event, config.model.latent, condition, levels)
            build_model(config, found)
        except ConfigError:
            continue
        return found
    raise AssertionError("no data to build it for")


@pytest.mark.parametrize("recipe", RECIPES)
def test_advice_is_of_settings_that_exist_here_and_of_models_that_can_be_built(recipe):
    config = configure(recipe)
    for remedy in remedies(config, 1000):
        changed = config.with_(**settings_of_tokens(remedy.tokens))
        check(changed)
        assert changed != config, remedy
        build_model(changed, shapes_of(config))


def test_remedies_in_force_are_not_advised_and_a_rate_charged_too_often_is_named():
    names = [remedy.name for remedy in remedies(configure("vae"), 1000)]
    assert {"warm-up", "free bits", "aggressive encoder"} <= set(names)
    assert "warm-up" not in [r.name for r in remedies(configure("vae", tokens=["rate=warm-up"]), 1000)]
    assert "aggressive encoder" not in [r.name for r in remedies(configure("lagging-vae"), 1000)]
    assert remedies(configure("beta-vae"), 1000)[0].tokens == ("rate=sum",)
    assert not remedies_module.possible(configure("vae"), Remedy("nonsense", ("decoder.receptive_field=5",)))
    assert not remedies_module.possible(configure("vae"), Remedy("nonsense", ("posterior=delta", "objective=iwae")))
    assert len({remedy.name for remedy in REMEDIES}) == len(REMEDIES)


class Stopping(Heard):
    """Asks for a stop at one validation."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def row(self, row):
        super().row(row)
        if "valid" in row and row["step"] == self.at:
            os.kill(os.getpid(), signal.SIGTERM)


def check_resumed(folder, at):
    settings = {**SMALL, **REAL, "rate": "beta", "beta": 100.0, **LONGER, "log_every": 1, "ema": 50}
    fit("vae", X, out=folder / "whole", quiet=True, **settings)
    with pytest.raises(InterruptedRunError):
        fit_heard(Stopping(at), "vae", X, out=folder / "parts", **settings)
    heard = Heard()
    fit_heard(heard, "vae", X, out=folder / "parts", resume=True, **settings)
    whole, parts = ((folder / name / "metrics.jsonl").read_bytes() for name in ("whole", "parts"))
    assert whole == parts
    rows_ = [row for row in read_metrics(folder / "parts" / "metrics.jsonl") if "valid" in row]
    assert {row["alarms"] for row in rows_ if row["step"] >= at} == {1}
    assert not heard.warnings
    assert "collapsed" in (folder / "parts" / "log.txt").read_text()


def test_resuming_after_an_alarm_ends_in_the_same_bytes_and_says_it_no_more(tmp_path):
    check_resumed(tmp_path, 72)


def test_a_forgotten_alarm_is_caught(tmp_path, monkeypatch):
    real = Progress.from_state.__func__
    forgets = classmethod(lambda cls, state: dataclasses.replace(real(cls, state), low=False, alarms=0))
    monkeypatch.setattr(Progress, "from_state", forgets)
    with pytest.raises(AssertionError):
        check_resumed(tmp_path, 72)


def test_the_encoder_that_leads_and_the_panel_measure_once(monkeypatch):
    """Where both are due at one step, the schedule's measure is the panel's; else each is its own."""
    calls = []
    real = measured.of_posteriors
    monkeypatch.setattr(measured, "of_posteriors", lambda *a: calls.append(1) or real(*a))
    leading = {"schedule": "aggressive-encoder", "window": 1, "inner_steps": 1, "measure_every": 1, "batch_size": 45}
    run = trained(epochs=3, log_every=1, monitor_examples=50, **REAL, **leading)
    tries, together = 2, [row for row in rows(run) if row["valid"]["mutual_information"] is not None]
    outer = [row["schedule"] for row in run.history if "schedule" in row]
    measures = max(phase["generative"] for phase in outer)
    coincide = sum(row["step"] % 2 == 0 and row["step"] / 2 <= measures for row in together)
    assert coincide >= 1
    assert len(calls) == tries + measures + len(together) - coincide
    shared = next(row for row in together if row["step"] % 2 == 0 and row["step"] / 2 <= measures)
    view = run.prepare()
    assert shared["valid"]["examples"] == len(view)
    told = next(r["schedule"] for r in run.history if "schedule" in r and r["step"] == shared["step"])
    assert shared["valid"]["mutual_information"] <= told["information"] + 1e-12


def test_the_schedule_sees_the_same_number_as_the_panel():
    run = trained(**REAL)
    view: View = run.prepare()
    found = information(
        run.model, lambda a, b: view.slice(a, b), len(view), seed=derive(0, "monitor"), device=torch.device("cpu")
    )
    row = next(row["valid"] for row in rows(run) if row["step"] == run.step)
    assert found == pytest.approx(row["mutual_information"], abs=1e-12)
