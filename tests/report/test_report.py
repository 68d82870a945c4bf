"""The report: alone, harmless, complete, and every number in it the run's own."""

import os
import shutil
import sys

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier

from lambent import fit, load
from lambent.errors import ConfigError, StorageError
from lambent.report import write_report
from lambent.report.drawing import with_error
from lambent.report.examples import gather
from lambent.report.sections import generated, latents
from support.page_parser import Page, loads, numbers_in


def report(run, folder, **given):
    path = folder / "report.html"
    write_report(run, path, **given)
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def plane(train):
    run = train("vae", latent=2, epochs=6)
    run.record(run.evaluate(samples=7))
    return run


@pytest.fixture(scope="module")
def page(plane, tmp_path_factory):
    return report(plane, tmp_path_factory.mktemp("report"))


HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def hostile(train, table, tmp_path_factory):
    run = train("vae", table, name=HOSTILE, likelihood="mixed", latent=2, data__binarize="none")
    return report(run, tmp_path_factory.mktemp("report"))


KINDS = {
    "vae": ({"latent": 10}, {"Samples", "Reconstructions", "Latent space"}),
    "linear-ae": ({"latent": 4}, {"Samples", "Reconstructions", "Latent space"}),
    "gmm": ({}, {"Samples", "Reconstructions", "Latent states"}),
    "cvae": ({}, {"Samples", "Reconstructions", "Latent space"}),
    "denoising-ae": ({}, {"Samples", "Reconstructions", "Latent space"}),
    "fullcov-vae": ({"latent": 3}, {"Samples", "Reconstructions", "Latent space"}),
    "regularised-ae": ({"latent": 2}, {"Samples", "Reconstructions", "Latent space"}),
    "iwae": ({"latent": 2}, {"Samples", "Reconstructions", "Latent space"}),
}


def test_a_density_has_samples_and_its_exact_number_and_nothing_of_latents(train, tmp_path):
    run = train("made")
    found = report(run, tmp_path)
    assert set(found.sections) == {"Evaluation", "Training", "Samples", "Settings"}
    exact = run.evaluate().log_likelihood
    assert f"log p(x) {with_error(exact.value, exact.se)} nats" in found.text
    assert "latent dimensions active" not in found.text
    assert not {"ELBO", "KL(q‖p)", "IWAE"} & set(found.text.split())
    vectors = report(train("made", normals(), likelihood="normal", data__binarize="none"), tmp_path)
    assert "Data and samples" in {f.title for f in vectors.figures}


def normals():
    return torch.randn(200, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("recipe", KINDS)
def test_every_kind_of_run_has_its_figures_each_with_words_and_a_description(recipe, train, tmp_path):
    settings, expected = KINDS[recipe]
    found = report(train(recipe, **settings), tmp_path)
    assert expected | {"Evaluation", "Training", "Settings"} <= set(found.sections)
    assert all(len(f.drawn) == 1 and f.alt and len(f.words) > 20 for f in found.figures)
    titles = " | ".join(f.title for f in found.figures)
    assert ("Score field" in titles) == (recipe == "denoising-ae")
    assert ("States against labels" in titles) == (recipe == "gmm")
    assert ("Samples: the mean" in titles) == (recipe not in ("linear-ae", "denoising-ae", "regularised-ae"))
    assert ("Manifold" in titles) == (settings.get("latent") == 2)
    assert not loads(found)


def test_nothing_is_loaded_or_run_and_the_policy_forbids_it(page, hostile):
    for found in (page, hostile):
        assert not loads(found)
        assert "http" not in "".join(str(e) for e in found.elements).replace("http-equiv", "")
        policy = next(a["content"] for t, a in found.elements if a.get("http-equiv") == "Content-Security-Policy")
        assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@pytest.mark.parametrize(
    "planted",
    [
        "<script>1</script>",
        '<img src="https://example.org/a.png">',
        '<img src="data:image/png;base64,AA" onerror="alert(1)">',
        "<style>@import 'a.css'</style>",
        '<p style="background:url(a.png)"></p>',
        '<a href="https://example.org">a</a>',
        '<link rel="stylesheet" href="a.css">',
    ],
)
def test_the_check_for_loads_sees_each_kind(planted):
    assert loads(Page(planted))


def test_user_text_is_text(hostile):
    assert hostile.headings == [HOSTILE, HOSTILE]
    images = [a for t, a in hostile.elements if t == "img"]
    assert all(a["src"].startswith("data:image/png;base64,") for a in images)
    assert not any(t in ("b", "script") for t, _ in hostile.elements)
    assert {"height <b>", "=cmd()"} <= {f.title for f in hostile.figures}
    assert HOSTILE in hostile.figure("=cmd()").words or "=1+1" in hostile.figure("=cmd()").words
    assert "<img src=x onea" not in hostile.text
    assert "<img src=x on" in hostile.text  # as a bar's name, cut to its length


def test_ids_on_the_page_are_unique_and_references_find_them(page):
    ids = [a["id"] for _, a in page.elements if "id" in a]
    wanted = {a["href"][1:] for _, a in page.elements if a.get("href", "").startswith("#")}
    assert len(ids) == len(set(ids)) > 50
    assert wanted <= set(ids)


def test_the_same_run_gives_the_same_bytes(plane, tmp_path):
    for name in ("a.html", "b.html"):
        write_report(plane, tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_the_measured_numbers_are_the_evaluations(plane, page):
    stored = plane.evaluate(samples=7).to_dict()
    for name, key in (("ELBO", "elbo"), ("IWAE-7", "iwae_7")):
        value, error = numbers_in(page.row(name)[0])
        assert value == pytest.approx(stored[key]["value"], abs=5e-4)
        assert error == pytest.approx(stored[key]["se"], abs=5e-4)
        assert page.row(name)[1] == "lower bound on log p(x)"
    for name in ("rate", "distortion"):
        assert numbers_in(page.row(name)[0])[0] == pytest.approx(stored[name], abs=5e-4)
    assert numbers_in(page.row("bits/dim")[0])[0] == pytest.approx(stored["bits_per_dim"], abs=5e-5)
    assert int(page.row("active units")[0].split()[0]) == stored["active_units"]
    assert "all 360 examples" in page.text


def test_an_evaluation_older_than_the_training_is_not_shown(plane, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(plane.folder.path, folder)
    times = (folder / "metrics.jsonl").stat().st_mtime - 10
    os.utime(folder / "evaluation.json", (times, times))
    found = report(load(folder), tmp_path)
    assert "K = 50 draws" in found.text
    assert "IWAE-7" not in found.text


def test_the_curves_words_are_the_metrics(plane, page):
    assert page.sections.index("Collapse") == page.sections.index("Training") + 1
    best = max((row["valid"]["bound"], row["step"], row["valid"]["se"]) for row in plane.history if "valid" in row)
    value, error, step = numbers_in(page.figure("ELBO (lower bound)").words)[:3]
    assert (value, error, step) == (pytest.approx(best[0], abs=5e-3), pytest.approx(best[2], abs=5e-3), best[1])
    row = next(row["valid"] for row in plane.history if row["step"] == plane.step and "valid" in row)
    assert numbers_in(page.figure("Rate KL").words)[0] == pytest.approx(row["rate"], abs=5e-3)
    assert numbers_in(page.figure("Distortion").words)[0] == pytest.approx(row["distortion"], abs=5e-3)


def test_the_plane_s_words_are_the_encodings(plane, page):
    z = plane.encode("digits").double().numpy()
    labels = gather(plane).labels.numpy()
    found = numbers_in(page.figure("Latent plane").words)
    assert found[:4] == pytest.approx([*z.mean(0), *z.std(0, ddof=1)], abs=5.1e-3)
    neighbours = KNeighborsClassifier(6).fit(z, labels).kneighbors(z, return_distance=False)[:, 1:]
    votes = [np.bincount(labels[row], minlength=10) for row in neighbours]
    agreed = np.mean([vote[label] == vote.max() for vote, label in zip(votes, labels, strict=True)])
    strict = np.mean([np.sum(v == v.max()) == 1 and v[lab] == v.max() for v, lab in zip(votes, labels, strict=True)])
    assert strict - 1e-3 <= found[4] / 100 <= agreed + 1e-3


def test_principal_axes_agree_with_scikit_learn(train, tmp_path):
    run = train("vae", latent=10)
    found = numbers_in(report(run, tmp_path).figure("Latent space, 10").words)
    share = PCA().fit(run.encode("digits").double().numpy()).explained_variance_ratio_
    assert found[:2] == pytest.approx(100 * share[:2], abs=0.051)


def test_the_rates_of_dimensions_add_up_to_the_rate(plane):
    held = gather(plane)
    rates = latents.dimension_rates(held)
    head = plane.model.posterior.head(plane.model.posterior.encoder(plane.model.as_input(held.x), None))
    q = plane.model.posterior.family.distribution(head, 2)
    by_hand = 0.5 * (q.variance + q.mean.square() - 1 - q.variance.log()).double().mean(0)
    assert torch.allclose(rates, by_hand, atol=1e-5)
    assert float(rates.sum()) == pytest.approx(plane.evaluate(samples=1).rate.value, abs=1e-4)


def test_reconstructions_words_are_their_error(plane, page):
    held = gather(plane)
    error = (plane.reconstruct("digits").double() - held.x.double()).square()
    explained = 1 - error.sum() / (held.x.double() - held.x.double().mean(0)).square().sum()
    found = numbers_in(page.figure("Reconstructions").words)
    assert found[1] == pytest.approx(float(error.mean().sqrt()), abs=5e-4)
    assert found[2] == pytest.approx(100 * float(explained), abs=0.051)


def test_the_manifold_lies_at_the_priors_quantiles_right_and_up(plane):
    grid = generated._normal_grid(plane, None).reshape(generated.GRID, generated.GRID, 2).double().numpy()
    levels = norm.ppf((np.arange(generated.GRID) + 0.5) / generated.GRID)
    assert grid[0, :, 0] == pytest.approx(levels, abs=1e-6)
    assert grid[:, 0, 1] == pytest.approx(levels[::-1], abs=1e-6)


def test_columns_words_are_the_tables_and_the_samples(train, table, hostile):
    run = train("vae", table, name=HOSTILE, likelihood="mixed", latent=2, data__binarize="none")
    held = gather(run)
    rows = held.run.transform.invert(held.x)
    drawn = run.transform.invert(run.sample(5000, seed=0))
    found = numbers_in(hostile.figure("weight").words)
    truth = [rows[:, 1].mean(), drawn[:, 1].mean(), rows[:, 1].std(), drawn[:, 1].std()]
    assert found == pytest.approx([float(t) for t in truth], rel=1e-3)
    assert len(held.dataset) == 30


def test_a_missing_matplotlib_is_named_with_the_way_to_get_it(plane, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r'pip install "lambent\[plots\]"'):
        write_report(plane, tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["report.pdf", "report", "folder.html"])
def test_only_a_html_file_is_written(plane, tmp_path, name):
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(ConfigError, match=r"ends in \.html"):
        write_report(plane, tmp_path / name)


def test_a_folder_that_cannot_be_made_is_a_storage_error(plane, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        write_report(plane, tmp_path / "file" / "report.html")


def test_other_data_under_the_same_name_are_not_passed_off_as_the_runs_own(tmp_path, train):
    source = tmp_path / "x.npy"
    rng = np.random.default_rng(0)
    np.save(source, rng.normal(size=(60, 3)).astype(np.float32))
    run = train("ppca", source, latent=2)
    assert "Data and model" in report(run, tmp_path).sections
    np.save(source, rng.normal(size=(60, 3)).astype(np.float32))
    found = report(load(run.folder.path), tmp_path)
    assert "the sha256 differs" in found.text
    assert "Data and model" not in found.sections
    given = report(load(run.folder.path), tmp_path, data=rng.normal(size=(7, 3)).astype(np.float32))
    assert "7 examples" in given.text


def test_without_data_a_run_still_shows_its_training_and_its_samples(tmp_path):
    x = (np.random.default_rng(0).random((80, 1, 6, 6)) < 0.3).astype(np.uint8)
    settings = {"latent": 2, "epochs": 3, "threads": 1, "quiet": True}
    assert "Reconstructions" in report(fit("vae", x, **settings), tmp_path).sections  # the arrays are still at hand
    fit("vae", x, out=tmp_path / "run", **settings)
    found = report(load(tmp_path / "run"), tmp_path)
    assert "give the data" in found.text
    assert {"Training", "Samples", "Latent interpolations"} <= set(found.sections)
    assert "Reconstructions" not in found.sections


def test_changed_settings_are_named_and_the_published_figure_is_not_claimed(train, tmp_path):
    plain = report(train("vae", latent=10), tmp_path)
    assert "86.76" in plain.row("Published")[0]
    other = report(train("vae", latent=2, likelihood="discretised-logistic", data__binarize="none"), tmp_path)
    assert "Recipe vae with likelihood discretised-logistic" in other.text
    assert {"model.latent = 2", "likelihood discretised-logistic"} <= set(other.row("Changed")[0].split("; "))
    assert "86.76" not in other.text


def test_the_page_counts_coins_that_are_active_as_the_evaluation_does(train, tmp_path):
    """By posterior means, on all levels: coins that fall on another side now and then need not be."""
    coins = {"model": "chain", "prior": "bernoulli", "posterior": "bernoulli", "draw": "score"}
    run = train("vae", name="coins", latent=12, upper_latents=(3,), epochs=2, **coins)
    found = run.evaluate(samples=7)
    assert found.active_units < int((run.encode("digits").var(0) > 0.01).sum())
    write_report(run, tmp_path / "coins.html")
    text = (tmp_path / "coins.html").read_text()
    assert f"{found.active_units} of 15 dimensions are active" in text
