"""What `lambent sample`, `reconstruct`, `encode` and `interpolate` write: read back, it is the run's own."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image

from lambent import fit
from lambent.data import DataOptions, Transform, load as load_data
from lambent.data.pictures import GAP, sheet, to_bytes
from lambent.errors import ConfigError, StorageError
from lambent.runs.export import write_encodings, write_interpolations, write_reconstructions, write_samples

SMALL = {"encoder__hidden": (16,), "decoder__hidden": (16,)}
COLUMNS = ("height", "=weight", "children", "kind")
KINDS = ("=1+1", "-5", "plain")


def train(recipe, data="digits", **settings):
    small = {} if recipe in ("gmm", "linear-ae") else SMALL
    return fit(recipe, data, quiet=True, **{"epochs": 3, "threads": 1} | small | settings)


@pytest.fixture(scope="module")
def binary():
    return train("vae", latent=2)


@pytest.fixture(scope="module")
def levels():
    return train("vae", latent=3, likelihood="discretised-logistic", data__binarize="none")


@pytest.fixture(scope="module")
def scaled():
    return train("gaussian-vae", latent=2)


@pytest.fixture(scope="module")
def conditional():
    return train("cvae", latent=2)


@pytest.fixture(scope="module")
def flat():
    return train("ae", latent=2, epochs=1)


@pytest.fixture(scope="module")
def mixture():
    return train("gmm", epochs=1)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "people.csv"
    rng = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for _ in range(200):
            height = rng.normal(170, 8)
            row = [f"{height:.1f}", f"{0.8 * height - 65:.1f}", rng.poisson(2), rng.choice(KINDS, p=[0.2, 0.3, 0.5])]
            writer.writerow(row)
    return train(
        "vae",
        str(path),
        latent=2,
        likelihood="mixed",
        data__binarize="none",
        data__counts=("children",),
        data__categorical=("kind",),
    )


def arrays(path):
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def test_samples_are_the_runs_and_integers_where_the_data_are(binary, levels, tmp_path):
    for run, top in ((binary, 1), (levels, 31)):
        write_samples(run, 50, tmp_path / "x.npz", seed=3)
        x = arrays(tmp_path / "x.npz")["x"]
        assert x.dtype == np.uint8
        assert x.shape == (50, 1, 8, 8)
        assert 0 < x.max() <= top
        assert np.array_equal(x, run.sample(50, seed=3).numpy())


def test_samples_of_scaled_data_are_in_the_datas_own_unit(scaled, tmp_path):
    write_samples(scaled, 300, tmp_path / "x.npz", mean=True)
    x = arrays(tmp_path / "x.npz")["x"]
    assert np.allclose(x, 16 * scaled.sample(300, mean=True).numpy(), atol=1e-5)
    assert x.mean() == pytest.approx(float(load_data("digits").x.float().mean()), abs=1)  # grey levels 0..16, not 0..1


def test_a_seed_decides_and_a_longer_file_begins_like_a_shorter_one(binary, tmp_path):
    for name, n, seed in (("a", 1000, 1), ("b", 2500, 1), ("c", 1000, 2)):
        write_samples(binary, n, tmp_path / f"{name}.npz", seed=seed)
    a, b, c = (arrays(tmp_path / f"{name}.npz")["x"] for name in "abc")
    assert np.array_equal(a, b[:1000])
    assert not np.array_equal(b[:1000], b[1000:2000])
    assert not np.array_equal(a, c)


def test_the_mean_of_a_sample_is_the_likelihoods_mean(binary, tmp_path):
    write_samples(binary, 20, tmp_path / "x.npz", mean=True)
    x = arrays(tmp_path / "x.npz")["x"]
    assert np.array_equal(x, binary.sample(20, mean=True).numpy())
    assert len(np.unique(x)) > 100


def test_classes_come_in_turn_or_as_asked(conditional, tmp_path):
    write_samples(conditional, 23, tmp_path / "x.npz")
    found = arrays(tmp_path / "x.npz")
    assert found["labels"].tolist() == [i % 10 for i in range(23)]
    assert found["classes"].tolist() == list("0123456789")
    write_samples(conditional, 4, tmp_path / "x.npz", label="7")
    found = arrays(tmp_path / "x.npz")
    assert found["labels"].tolist() == [7] * 4
    assert np.array_equal(found["x"], conditional.sample(4, condition=conditional.conditions(4, "7")).numpy())


def test_reconstructions_stand_beside_what_was_scored(binary, scaled, tmp_path):
    data = load_data("digits", options=DataOptions(), split="test")
    write_reconstructions(scaled, "digits", tmp_path / "r.npz")
    found = arrays(tmp_path / "r.npz")
    assert np.allclose(found["original"], data.x.numpy(), atol=1e-5)
    assert np.allclose(found["reconstruction"], 16 * scaled.reconstruct("digits").numpy(), atol=1e-4)
    assert np.array_equal(found["labels"], data.labels.numpy())
    write_reconstructions(binary, "digits", tmp_path / "r.npz", number=30)
    found = arrays(tmp_path / "r.npz")
    view = binary.prepare("digits")
    assert found["original"].dtype == np.uint8
    assert np.array_equal(found["original"], view.batch(torch.arange(30)).numpy())
    assert np.allclose(found["z"], binary.encode("digits")[:30].numpy(), atol=1e-5)


def test_the_unit_test_would_see_a_transform_that_is_not_undone(scaled, tmp_path, monkeypatch):
    monkeypatch.setattr(Transform, "invert", lambda self, y: y)
    with pytest.raises(AssertionError):
        test_samples_of_scaled_data_are_in_the_datas_own_unit(scaled, tmp_path)


def test_encodings_are_the_mode_or_draws_of_the_posterior(binary, mixture, tmp_path):
    write_encodings(binary, "digits", tmp_path / "mode.npz")
    mode = arrays(tmp_path / "mode.npz")
    assert np.array_equal(mode["z"], binary.encode("digits").numpy())
    labels = load_data("digits", options=DataOptions(), split="test").labels
    assert np.array_equal(mode["labels"], labels.numpy())
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_encodings(binary, "digits", tmp_path / f"{name}.npz", seed=seed)
    a, b, c = (arrays(tmp_path / f"{name}.npz")["z"] for name in "abc")
    assert np.array_equal(a, b)
    assert not np.allclose(a, c)
    assert not np.allclose(a, mode["z"])
    write_encodings(mixture, "digits", tmp_path / "m.npz", split="train")
    states = arrays(tmp_path / "m.npz")["z"]
    assert states.shape == (1437, 10)
    assert np.array_equal(states.sum(1), np.ones(1437))


def test_a_line_between_codes_starts_and_ends_at_the_reconstructions(binary, scaled, tmp_path):
    for run in (binary, scaled):
        write_interpolations(run, "digits", tmp_path / "i.npz", pairs=3, steps=5)
        found = arrays(tmp_path / "i.npz")
        whole, z = run.transform.invert(run.reconstruct("digits")[:6]).numpy(), run.encode("digits")[:6].numpy()
        assert found["x"].shape == (3, 5, 1, 8, 8)
        assert np.allclose(found["x"][:, 0], whole[0::2], atol=1e-4)
        assert np.allclose(found["x"][:, -1], whole[1::2], atol=1e-4)
        assert np.allclose(found["z"][:, 2], (z[0::2] + z[1::2]) / 2, atol=1e-5)
        original = run.transform.invert(run.prepare("digits").batch(torch.arange(6))).numpy()
        assert np.allclose(found["ends"].reshape(6, 1, 8, 8), original, atol=1e-4)


def test_a_line_keeps_the_condition_of_its_first_end(conditional, tmp_path):
    write_interpolations(conditional, "digits", tmp_path / "i.npz", pairs=2, steps=3)
    found = arrays(tmp_path / "i.npz")
    given = conditional.prepare("digits").condition(torch.tensor([0, 0, 0, 2, 2, 2]))
    decoded = conditional.decode(torch.from_numpy(found["z"]).flatten(0, 1), given)
    assert np.allclose(found["x"].reshape(6, 1, 8, 8), decoded.numpy(), atol=1e-5)


def test_interpolations_on_a_sphere_stay_on_it(tmp_path):
    run = train("hyperspherical-vae", latent=3, epochs=1)
    write_interpolations(run, "digits", tmp_path / "i.npz", pairs=3, steps=5)
    z = np.load(tmp_path / "i.npz")["z"]
    np.testing.assert_allclose(np.linalg.norm(z, axis=-1), 1, rtol=1e-6)
    for ends, between in zip(z[:, [0, -1]], z[:, 2], strict=True):  # halfway: the direction of the sum
        np.testing.assert_allclose(between, ends.sum(0) / np.linalg.norm(ends.sum(0)), atol=1e-6)


def test_a_sheet_holds_each_image_in_its_place(binary, tmp_path):
    write_samples(binary, 10, tmp_path / "s.png", seed=5)
    picture = np.asarray(Image.open(tmp_path / "s.png"))
    side = 56
    assert picture.shape == (3 * side + 2 * GAP, 4 * side + 3 * GAP)  # 10 images in 3 rows of 4
    cell = picture[(side + GAP) : (2 * side + GAP), 2 * (side + GAP) : 2 * (side + GAP) + side]
    assert np.array_equal(cell[::7, ::7], 255 * binary.sample(10, seed=5).numpy()[6, 0].astype(np.uint8))
    assert (picture[side : side + GAP] == 255).all()
    assert (picture[-side:, 2 * (side + GAP) :] == 255).all()  # the last row is not full


def test_sheets_of_pairs_and_lines_have_their_sizes(conditional, tmp_path):
    write_reconstructions(conditional, "digits", tmp_path / "r.png", number=33)
    assert Image.open(tmp_path / "r.png").size == (20 * 56 + 19 * GAP, 4 * 56 + 3 * GAP + 3 * GAP)
    write_interpolations(conditional, "digits", tmp_path / "i.png", pairs=2, steps=4)
    assert Image.open(tmp_path / "i.png").size == (6 * 56 + 5 * GAP, 2 * 56 + GAP)
    write_samples(conditional, 20, tmp_path / "s.png")
    assert Image.open(tmp_path / "s.png").size == (10 * 56 + 9 * GAP, 2 * 56 + GAP)  # a column a class


def test_grey_levels_black_and_white_are_the_ends_of_the_levels():
    x = torch.tensor([[[[0, 16], [8, 4]]]], dtype=torch.uint8)
    assert to_bytes(x, Transform((1, 2, 2), "image", levels=17))[0, ..., 0].tolist() == [[0, 255], [128, 64]]
    colour = torch.zeros(2, 3, 4, 4)
    colour[1, 0] = 1.0
    canvas = sheet(to_bytes(colour, Transform((3, 4, 4), "image")), 2)
    assert canvas.shape == (56, 2 * 56 + GAP, 3)
    assert canvas[10, -10].tolist() == [255, 0, 0]
    assert canvas[10, 10].tolist() == [0, 0, 0]


def test_a_table_is_written_with_its_names_and_cells_no_spreadsheet_runs(table, tmp_path):
    write_samples(table, 60, tmp_path / "x.csv", seed=4)
    write_samples(table, 60, tmp_path / "x.npz", seed=4)
    x = arrays(tmp_path / "x.npz")["x"]
    with (tmp_path / "x.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["height", "'=weight", "children", "kind"]
    names = table.transform.categories[3]
    assert [r[3].removeprefix("'") for r in rows] == [names[int(code)] for code in x[:, 3]]
    assert {r[3] for r in rows} == {"'=1+1", "-5", "plain"}
    assert [float(r[0]) for r in rows] == pytest.approx(x[:, 0], rel=1e-5)
    assert np.abs(x[:, 0].mean() - 170) < 10
    assert all(r[2].isdigit() for r in rows)


def test_the_mean_of_a_category_is_its_most_probable_one(table, tmp_path):
    write_samples(table, 40, tmp_path / "x.npz", mean=True)
    x = arrays(tmp_path / "x.npz")["x"]
    assert set(x[:, 3]) <= {0.0, 1.0, 2.0}
    write_reconstructions(table, table.config.data.source, tmp_path / "r.npz")
    found = arrays(tmp_path / "r.npz")
    assert set(found["reconstruction"][:, 3]) <= {0.0, 1.0, 2.0}
    assert found["original"][:, 0] == pytest.approx(
        load_data(table.config.data.source, options=table.config.data).x[:, 0].numpy(), rel=1e-5
    )
    assert (
        np.std(table.reconstruct(table.config.data.source)[:, 3].numpy() % 1) > 0
    )  # plain means would be between codes


REFUSALS = {
    "another suffix": (lambda r, p: write_samples(r["binary"], 2, p / "x.jpg"), r"'\.jpg'.*\.npz, \.png or \.csv"),
    "no suffix": (lambda r, p: write_reconstructions(r["binary"], "digits", p / "x"), r"no suffix.*\.npz or \.png"),
    "a folder": (lambda r, p: write_samples(r["binary"], 2, p / "folder.npz"), r"a folder.*\.npz"),
    "encodings as a picture": (lambda r, p: write_encodings(r["binary"], "digits", p / "z.png"), r"'\.png'.*\.npz"),
    "a table as a picture": (lambda r, p: write_samples(r["table"], 2, p / "x.png"), r"no images.*\.npz"),
    "images as a table": (lambda r, p: write_samples(r["binary"], 2, p / "x.csv"), r"no table.*\.npz or \.png"),
    "no samples": (lambda r, p: write_samples(r["binary"], 0, p / "x.npz"), r"number=0: expected at least 1"),
    "too many samples": (lambda r, p: write_samples(r["binary"], 10**7, p / "x.npz"), r"at most 1,000,000"),
    "too large a sheet": (lambda r, p: write_samples(r["binary"], 10_001, p / "x.png"), r"10,000.*write \.npz"),
    "a flat prior": (lambda r, p: write_samples(r["flat"], 2, p / "x.npz"), r"flat"),
    "an unknown class": (
        lambda r, p: write_samples(r["conditional"], 2, p / "x.npz", label="x"),
        r"'x' is not a class",
    ),
    "a class of no condition": (lambda r, p: write_samples(r["binary"], 2, p / "x.npz", label="1"), r"no condition"),
    "more than there are": (
        lambda r, p: write_reconstructions(r["binary"], "digits", p / "x.npz", number=361),
        r"361 examples asked for.*has 360",
    ),
    "fewer than one": (
        lambda r, p: write_reconstructions(r["binary"], "digits", p / "x.npz", number=0),
        r"0 examples asked for",
    ),
    "too few for the pairs": (
        lambda r, p: write_interpolations(r["binary"], "digits", p / "x.npz", pairs=181),
        r"362 examples asked for.*has 360",
    ),
    "one step": (lambda r, p: write_interpolations(r["binary"], "digits", p / "x.npz", steps=1), r"at least.*2 steps"),
    "between states": (lambda r, p: write_interpolations(r["mixture"], "digits", p / "x.npz"), r"continuous latents"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_written_is_refused_with_the_way_out(name, binary, table, flat, conditional, mixture, tmp_path):
    runs = {"binary": binary, "table": table, "flat": flat, "conditional": conditional, "mixture": mixture}
    (tmp_path / "folder.npz").mkdir()
    call, message = REFUSALS[name]
    with pytest.raises(ConfigError, match=message) as error:
        call(runs, tmp_path)
    assert "\n" not in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["folder.npz"]


@pytest.mark.parametrize("kind", ["npz", "png", "csv"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(kind, binary, table, tmp_path, monkeypatch):
    path, run = tmp_path / "new" / f"x.{kind}", table if kind == "csv" else binary
    write_samples(run, 2, path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(StorageError, match="the disk is full"):
        write_samples(run, 3, path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]
