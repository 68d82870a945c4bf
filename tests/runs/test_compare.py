"""Runs side by side: the numbers of their evaluations, refusals of unlike runs, and the picture's texts and marks."""

import dataclasses
import itertools
import json
import math
import os
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch

import lambent.runs.compare as module
from lambent import compare_runs, fit, load
from lambent.cli.app import run as lambent
from lambent.errors import CombinationError, ConfigError
from lambent.evaluation.per_example import as_npz
from lambent.recipes import configure
from lambent.report.runs import plot as runs_plot
from lambent.report.runs.file import write_comparison
from lambent.report.runs.page import runs_page
from lambent.report.runs.text_table import runs_text

SMALL = {"hidden": [16], "threads": 1, "epochs": 2, "quiet": True}
X = np.random.default_rng(0).normal(size=(150, 6)).astype(np.float32)
K = 5


def trained(folder, name, recipe="vae", data="digits", **settings):
    small = {k: v for k, v in SMALL.items() if recipe not in ("made", "gmm") or k != "hidden"}
    return fit(recipe, data, out=folder / name, **(small | settings))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("compare")


@pytest.fixture(scope="module")
def runs(folder):
    made = [
        trained(folder, "plain", latent=3),
        trained(folder, "warm-up", latent=3, rate="warm-up", rate__steps=10),
        trained(folder, "four", latent=4, prior="mixture", components=3),
        trained(folder, "density", "made"),
        trained(folder, "autoencoder", "ae", latent=3, likelihood="bernoulli", data__binarize="dynamic"),
    ]
    return [run.folder.path for run in made]


@pytest.fixture(scope="module")
def found(runs):
    return compare_runs(runs, samples=K)


def check_numbers(found, runs, capsys):
    """Every number of the table is the one that ``lambent evaluate --json`` prints."""
    text = runs_text(found)
    for row, path in zip(found.rows, runs, strict=True):
        assert lambent(["evaluate", str(path), "--samples", str(K), "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert dict(row.found) == said
        line = next(line for line in text.splitlines() if line.startswith(row.name))
        shown = [float(n) for n in re.findall(r"-?\d+\.\d+", line)]
        for name in ("elbo", f"iwae_{K}", "log_likelihood"):
            if name in said:
                assert round(said[name]["value"], 3) in shown, (row.name, name)
        assert round(said["distortion"], 3) in shown
        if said["mutual_information"]:
            assert round(said["mutual_information"]["value"], 3) in shown
            assert f"{said['active_units']} of {said['latent']}" in line
        if said["bits_per_dim"] is not None:
            assert round(said["bits_per_dim"], 4) in shown


def test_it_says_how_a_ladders_units_are_counted_and_that_a_rate_is_an_upper_bound(found):
    """As `lambent evaluate` says it of a ladder, and of a prior whose log density is known by a bound."""
    plain = runs_text(found)
    assert "active in" not in plain
    assert "<=" not in plain
    first, second, *others = found.rows
    first = dataclasses.replace(first, found={**first.found, "active_units_by": "rate"})
    second = dataclasses.replace(second, found={**second.found, "rate_kind": "upper bound"})
    changed = dataclasses.replace(found, rows=(first, second, *others))
    text = runs_text(changed)
    assert "Active in plain: latents whose rate has a mean above 0.01 nats." in runs_page(changed)
    assert "active in plain: latents whose rate has a mean above 0.01 nats" in text
    assert "active in warm-up, " in text
    assert f"<= {second.found['rate']:.3f}" in text
    assert "<= upper bound" in text


def test_its_numbers_are_those_of_evaluate(found, runs, capsys):
    check_numbers(found, runs, capsys)
    os.remove(runs[0] / "evaluation.json")


def test_kinds_and_absent_numbers_are_said(found):
    table = runs_text(found).partition("what differs")[0]
    lines = {line.split()[0]: line for line in table.splitlines() if line.strip()}
    assert ">= -" in lines["plain"]
    assert " = -" in lines["density"]
    assert "~ -" in lines["autoencoder"]
    assert "I(x;z) is a lower bound, from 360 examples, at most log 360 = 5.89" in runs_text(found)
    autoencoder = next(row for row in found.rows if row.name == "autoencoder")
    assert autoencoder.found["mutual_information"] is None
    assert not autoencoder.bound


def test_what_differs_is_named_as_settings(found, runs):
    differs = {row.name: row.differs for row in found.rows}
    assert differs["plain"] == {}
    assert differs["warm-up"] == {"rate": "warm-up", "rate.steps": 10}
    assert differs["four"] == {"model.latent": 4, "prior": "mixture", "prior.components": 3}
    rebuilt = configure("vae", tokens=[f"{k}={v}" for k, v in differs["four"].items()])
    assert module.differing(load(runs[2]).config, rebuilt).keys() <= {
        "encoder.hidden",
        "decoder.hidden",
        "train.epochs",
    }


def test_an_evaluation_is_read_only_if_it_is_of_this_data_k_seed_and_step(runs, monkeypatch):
    run = load(runs[1])
    run.record(run.evaluate(samples=K))
    calls = []
    real = module.Run.evaluate
    monkeypatch.setattr(module.Run, "evaluate", lambda self, *a, **k: calls.append(1) or real(self, *a, **k))
    first = compare_runs([runs[1]], samples=K)
    assert not calls
    assert compare_runs([run], samples=K, seed=1).rows[0].found["seed"] == 1
    assert compare_runs([run], samples=K + 1).rows[0].found["samples"] == K + 1
    assert compare_runs([run], "digits", samples=K).rows[0].found["n"] == 360
    assert len(calls) == 2
    stored = run.folder.read_json(run.folder.evaluation)
    for change in ({"step": run.step + 1}, {"fingerprint": "other"}, {"n": 7}):
        run.folder.write_json(run.folder.evaluation, {**stored, **change})
        calls.clear()
        assert compare_runs([run], samples=K).rows[0].found == first.rows[0].found
        assert calls, change
    run.folder.write_json(run.folder.evaluation, stored)
    os.utime(run.folder.evaluation, (1, 1))  # older than the training
    calls.clear()
    compare_runs([run], samples=K)
    assert calls


def blind(run, view, samples, seed):
    """Reads whatever evaluation there is."""
    return run.folder.read_json(run.folder.evaluation), {}


real_figure = module.Row.figure


def by_bootstrap(differences):
    """The standard error of a mean, from 4,000 resamples."""
    chosen = np.random.default_rng(0).integers(0, len(differences), (4000, len(differences)))
    return differences[chosen].mean(1).std()


def check_gains(found, paths):
    """Against the bounds of each run measured by itself, and resampling."""
    each = [load(path).evaluate(samples=K).each for path in paths]
    first = each[0][f"iwae_{K}"].numpy()
    assert found.rows[0].gain is None
    for row, own in zip(found.rows[1:4], each[1:4], strict=True):
        differences = own["log_likelihood" if row.recipe == "made" else f"iwae_{K}"].numpy() - first
        assert row.gain.value == pytest.approx(differences.mean(), abs=1e-12)
        assert row.gain.se == pytest.approx(by_bootstrap(differences), rel=0.06)  # 5 errors of 4,000 resamples
        assert f"{row.gain.value:+.3f} ± " in runs_text(found)
    assert found.rows[4].gain is None, "an autoencoder has no bound"


def test_gains_are_of_the_same_examples(found, runs):
    check_gains(found, runs)
    plain, warm = found.rows[:2]
    apart = math.hypot(plain.figure("iwae")[1], warm.figure("iwae")[1])
    assert warm.gain.se < 0.5 * apart, "what is hard for one run is hard for the other"
    assert f"gain: each run's iwae-{K} or log-likelihood less that of plain, example by example" in runs_text(found)


def out_of_order(run, view, samples, seed):
    """Every example's numbers, but for another example."""
    measured = run.evaluate(samples=samples, seed=seed)
    return dict(module.from_json(measured.to_dict())), {k: v.flip(0) for k, v in measured.each.items()}


def test_gains_of_other_examples_are_caught(runs, monkeypatch):
    kept = module._stored
    monkeypatch.setattr(
        module, "_stored", lambda run, *a: (kept if run.config.recipe == "made" else out_of_order)(run, *a)
    )
    with pytest.raises(AssertionError):
        check_gains(compare_runs(runs, samples=K), runs)


def test_numbers_of_every_example_are_kept_and_a_damaged_file_is_measured_anew(runs, monkeypatch):
    run = load(runs[2])
    measured = run.evaluate(samples=K)
    run.record(measured)
    path = runs[2] / "evaluation.npz"
    with np.load(path) as file:
        assert {*file} == {"elbo", "rate", "distortion", f"iwae_{K}"}
        assert file["elbo"].mean() == pytest.approx(measured.elbo.value, rel=1e-14)  # summed in another order
    kept = path.read_bytes()
    calls, real = [], module.Run.evaluate
    monkeypatch.setattr(module.Run, "evaluate", lambda self, *a, **k: calls.append(1) or real(self, *a, **k))
    shifted = {name: values + 1 for name, values in measured.each.items()}
    for data in (kept, as_npz(shifted), kept[:-20], b"", None):
        path.unlink(missing_ok=True) if data is None else path.write_bytes(data)
        calls.clear()
        assert compare_runs([runs[2]], samples=K).rows[0].found["elbo"]["value"] == measured.elbo.value
        assert bool(calls) == (data != kept)
    path.write_bytes(kept)


@pytest.mark.parametrize("fault", ["stale", "swapped"])
def test_wrong_numbers_are_caught(fault, runs, monkeypatch, capsys):
    if fault == "stale":
        for path in runs[:2]:
            run = load(path)
            run.record(run.evaluate(samples=K, seed=9))
        monkeypatch.setattr(module, "_stored", blind)
    else:
        monkeypatch.setattr(module.Row, "figure", lambda s, key: real_figure(s, "rate" if key == "distortion" else key))
    with pytest.raises((AssertionError, TypeError)):
        check_numbers(compare_runs(runs[:2], samples=K), runs[:2], capsys)


def unlike(folder):
    return {
        "shape": (trained(folder, "arrays", data=X, likelihood="normal", data__binarize="none"), "event is"),
        "binarisation": (trained(folder, "threshold", data__binarize="threshold"), "binarize is 'dynamic' in one"),
        "condition": (trained(folder, "given", "cvae"), "condition is 'none' in one, 'labels' in the other"),
        "levels": (trained(folder, "grey", likelihood="discretised-logistic", data__binarize="none"), "binarize is"),
    }


def test_unlike_runs_are_refused_by_name(runs, folder, capsys):
    for other, says in unlike(folder).values():
        with pytest.raises(CombinationError, match=says):
            compare_runs([runs[0], other.folder.path], samples=2)
    assert lambent(["compare", str(runs[0]), str(folder / "given"), "--samples", "2"]) == 2
    assert "plain and given don't score the same data in the same way" in capsys.readouterr().err


def test_a_density_and_a_probability_of_the_same_grey_levels_are_refused(folder):
    plain = {"data__binarize": "none", "data__scale": "none"}
    levels = trained(folder, "levels", likelihood="discretised-logistic", **plain)
    real = trained(folder, "real", likelihood="normal", **plain)
    with pytest.raises(CombinationError, match="a probability in one, a density in the other"):
        compare_runs([levels, real], samples=2)


def test_other_data_other_splits_and_no_data_are_refused(runs, folder):
    halves = [
        trained(folder, f"half{i}", data=torch.tensor(X[i * 75 : 75 + i * 75]), likelihood="normal", data__scale="none",
                data__binarize="none") for i in range(2)
    ]  # fmt: skip
    with pytest.raises(CombinationError, match=r"don't score the same data: .*--data"):
        compare_runs(halves, samples=2)
    together = compare_runs(halves, X[:50], samples=2)
    assert {row.found["n"] for row in together.rows} == {50}
    with pytest.raises(ConfigError, match="no run"):
        compare_runs([])
    with pytest.raises(ConfigError, match="given twice"):
        compare_runs([runs[0], runs[0]])
    with pytest.raises(ConfigError, match="samples=0"):
        compare_runs(runs, samples=0)


def test_runs_of_one_name_are_told_apart_by_their_path(folder):
    pair = [trained(folder / side, "run", latent=2) for side in ("left", "right")]
    assert [row.name for row in compare_runs(pair, samples=2).rows] == ["left/run", "right/run"]


def texts(path):
    return [" ".join("".join(e.itertext()).split()) for e in ET.parse(path).iter() if e.tag.endswith("}text")]


def check_picture(found, path):
    """A mark and a name a run that has a bound; the numbers beside the bars; lines of equal ELBO where they belong."""
    write_comparison(found, path)
    said, root = texts(path), ET.parse(path).getroot()
    shown = [row for row in found.rows if row.found["elbo"]["kind"] != "not a bound"]
    for row in shown:
        assert row.name in said
        assert root.find(f".//*[@id='run {row.name}']") is not None
        if row.found["latent"]:
            assert f"{row.found['active_units']} of {row.found['latent']}" in said
            assert f"−{abs(row.found['elbo']['value']):.2f} ± {row.found['elbo']['se']:.2f}" in said
    hidden = [row.name for row in found.rows if row not in shown]
    assert not [name for name in hidden if root.find(f".//*[@id='run {name}']") is not None]
    assert all(any(name in text for text in said if text.startswith("Not shown")) for name in hidden)
    assert {"rate, nats", "distortion, nats", "Use of the latents", "active", "ELBO"} <= set(said)
    totals = [
        float(text.removeprefix("ELBO ").replace("−", "-")) for text in said if re.fullmatch(r"ELBO −[\d.]+", text)
    ]
    assert len(totals) >= 2
    ends = [-row.found["elbo"]["value"] for row in shown]
    assert min(-t for t in totals) < max(ends) + 5
    return said


def test_the_picture_has_a_mark_and_a_name_for_each_bound(found, tmp_path):
    check_picture(found, tmp_path / "runs.svg")
    write_comparison(found, tmp_path / "runs.png")
    assert (tmp_path / "runs.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("name", ["_names", "_bars", "shown"])
def test_wrong_pictures_are_caught(name, found, tmp_path, monkeypatch):
    faults = {
        "_names": lambda axes, rows: None,
        "_bars": lambda axes, rows: axes.barh(range(len(rows)), [1.0] * len(rows)),
        "shown": lambda found: list(found.rows),
    }
    monkeypatch.setattr(runs_plot, name, faults[name])
    with pytest.raises(AssertionError):
        check_picture(found, tmp_path / "runs.svg")


def drawn(found):
    """The plane as it is drawn."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4))
    axes = figure.add_subplot()
    runs_plot._plane(axes, runs_plot.shown(found), found.rows)
    FigureCanvasAgg(figure).draw()
    return axes


def check_lines(found):
    """Marks and lines lie where their ELBO is, and each line's label is its ELBO."""
    axes = drawn(found)
    marks = {line.get_gid(): line.get_xydata()[0] for line in axes.lines if line.get_gid()}
    for row in runs_plot.shown(found):
        assert -sum(marks[f"run {row.name}"]) == pytest.approx(row.found["elbo"]["value"], abs=1e-9)
    lines = [line.get_xydata().sum(1) for line in axes.lines if not line.get_gid()]
    labels = [
        -float(t.get_text()[5:].replace("−", "-").replace(",", "")) for t in axes.texts if "ELBO " in t.get_text()
    ]
    assert len(lines) == len(labels) >= 2
    for ends, label in zip(lines, labels, strict=True):
        assert ends.tolist() == pytest.approx([label, label], abs=1e-6)


def moved(found, scale):
    """The same runs, rates and distortions this many times as large."""
    rows = []
    for row in found.rows:
        rate, distortion = scale * row.found["rate"], 90 + scale * row.found["distortion"]
        elbo = {**row.found["elbo"], "value": -rate - distortion}
        rows.append(dataclasses.replace(row, found={**row.found, "rate": rate, "distortion": distortion, "elbo": elbo}))
    return dataclasses.replace(found, rows=tuple(rows))


@pytest.mark.parametrize("scale", [1e-3, 0.03, 0.3, 0.7, 1.0, 1.3, 4.0, 90.0, 1e3])
def test_marks_lines_and_labels_lie_on_their_elbo_at_every_scale(scale, found):
    check_lines(moved(found, scale))


def test_labels_rounded_away_from_their_lines_are_caught(found, monkeypatch):
    monkeypatch.setattr(runs_plot, "number", lambda value, digits: f"{value:.0f}")
    with pytest.raises(AssertionError):
        check_lines(moved(found, 0.03))


def check_names(found):
    """No name touches another, though some marks nearly do."""
    from matplotlib.text import Text

    names = {row.name for row in found.rows}
    boxes = [Text.get_window_extent(t) for t in drawn(found).texts if t.get_text() in names]
    boxes.sort(key=lambda box: box.y0)
    assert len(boxes) == len(runs_plot.shown(found))
    assert all(low.y1 <= high.y0 + 1 for low, high in itertools.pairwise(boxes)), boxes


def test_names_do_not_touch(found, monkeypatch):
    near = [
        dataclasses.replace(row, found={**row.found, "distortion": 20 + i / 100}) for i, row in enumerate(found.rows)
    ]
    crowd = dataclasses.replace(found, rows=(*near, dataclasses.replace(found.rows[0], name="apart")))
    check_names(crowd)
    monkeypatch.setattr(runs_plot, "spread", lambda heights, apart: heights)
    with pytest.raises(AssertionError):
        check_names(crowd)


def test_one_point_alone_and_runs_without_a_bound_can_be_drawn(runs, tmp_path):
    write_comparison(compare_runs(runs[:1], samples=2), tmp_path / "one.svg")
    with pytest.raises(ConfigError, match="no run whose rate and distortion make a bound"):
        write_comparison(compare_runs(runs[4:], samples=2), tmp_path / "none.svg")
    write_comparison(compare_runs(runs[4:], samples=2), tmp_path / "none.html")


def test_the_command_prints_a_table_or_json_and_writes_a_page(runs, found, tmp_path, capsys):
    page = tmp_path / "runs.html"
    assert lambent(["compare", *map(str, runs), "--samples", str(K), "--out", str(page)]) == 0
    assert capsys.readouterr().out.strip() == runs_text(found)
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert text.count("<svg") == 2
    for row in found.rows:
        assert f">{row.name}<" in text
    assert lambent(["compare", *map(str, runs), "--samples", str(K), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in said["runs"]] == [row.name for row in found.rows]
    assert said["runs"][1]["differs"] == {"rate": "warm-up", "rate.steps": 10}
    assert math.isfinite(said["runs"][0]["evaluation"]["elbo"]["value"])
    assert lambent(["compare", str(runs[0]), "--out", str(tmp_path / "x.pdf")]) == 2
    assert "ends in .svg, .png, .html" in capsys.readouterr().err
