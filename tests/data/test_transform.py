"""Transforms: fixed by the training set, exact in unit, the same for batches and single examples, mapped or not."""

import json
import math
import warnings

import numpy as np
import pytest
import torch
from scipy import stats

from lambent.data import DataOptions, Dataset, DataWarning, Transform, from_arrays, load
from lambent.data.support import binary, grey_levels, mixed_columns
from lambent.errors import ConfigError, DataError
from lambent.shapes import Column

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (60, 3, 4, 5), dtype=np.uint8)
TABLE = (RNG.standard_normal((80, 3)) * [1, 30, 0.01] + [0, -100, 2]).astype(np.float32)


def table(x=TABLE, kinds=("numeric",) * 3):
    categories = tuple(tuple("abcdef"[:2]) if k == "categorical" else () for k in kinds)
    columns = tuple(Column(f"c{i}", k, len(c)) for i, (k, c) in enumerate(zip(kinds, categories, strict=True)))
    return Dataset(x, kind="table", columns=columns, categories=categories, name="table")


def fitted(data, **options):
    return Transform.fit(data, DataOptions(**options))


def test_standardize_is_by_the_training_set_with_the_deviation_of_n():
    transform = fitted(table())
    y = transform(table().x).double().numpy()
    assert np.allclose(y.mean(0), 0, atol=2e-4)
    assert np.allclose(y.std(0), 1, atol=2e-4)
    assert np.allclose(transform.shift, TABLE.astype(np.float64).mean(0), rtol=1e-12)
    assert np.allclose(transform.divisor, TABLE.astype(np.float64).std(0), rtol=1e-10)
    assert not np.allclose(
        transform.divisor, TABLE.astype(np.float64).std(0, ddof=1), rtol=1e-10
    )  # n-1 would be caught
    other = table(TABLE[:20] * 3)
    expected = (TABLE[:20].astype(np.float64) * 3 - transform.shift) / transform.divisor
    assert np.allclose(transform.view(other, fixed=True).batch(torch.arange(20)), expected, atol=1e-4)


def test_standardize_images_by_channel():
    transform = fitted(from_arrays(IMAGES), scale="standardize")
    flat = IMAGES.transpose(1, 0, 2, 3).reshape(3, -1).astype(np.float64)
    assert np.allclose(transform.shift, flat.mean(1))
    assert np.allclose(transform.divisor, flat.std(1))
    expected = (IMAGES - flat.mean(1)[:, None, None]) / flat.std(1)[:, None, None]
    assert np.allclose(transform(torch.from_numpy(IMAGES)), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("data", "options"),
    [
        (table(), {}),
        (from_arrays(IMAGES), {"scale": "standardize"}),
        (from_arrays(IMAGES), {"scale": "unit"}),
        (from_arrays(TABLE), {"scale": "standardize"}),
        (from_arrays(IMAGES), {"scale": "none"}),
    ],
)
def test_log_jacobian_is_the_one_of_autograd_and_makes_densities_of_the_original_unit(data, options):
    transform = fitted(data, **options)
    x = data.batch(torch.arange(1)).float()
    jacobian = torch.autograd.functional.jacobian(lambda v: transform.scaled(v.view(x.shape)).flatten(), x.flatten())
    assert torch.linalg.slogdet(jacobian.double())[1].item() == pytest.approx(
        transform.log_jacobian, rel=1e-5, abs=1e-6
    )
    n = math.prod(data.event_shape)
    shift = np.resize(np.repeat(transform.shift or (0.0,), n // len(transform.shift or (0.0,))), n)
    divisor = np.repeat(transform.divisor or (1.0,), n // len(transform.divisor or (1.0,)))
    y = (x.flatten().double().numpy() - shift) / divisor
    in_unit = stats.norm.logpdf(x.flatten().double().numpy(), loc=shift + 0.3 * divisor, scale=2 * divisor).sum()
    scored = stats.norm.logpdf(y, loc=0.3, scale=2).sum()
    assert scored + transform.log_jacobian == pytest.approx(in_unit, rel=1e-12)
    if transform.divisor:  # the wrong sign, and one number for all columns, would be caught
        assert scored - transform.log_jacobian != pytest.approx(in_unit, rel=1e-6)
        assert scored + transform.log_jacobian / n != pytest.approx(in_unit, rel=1e-6)


def test_unit_divides_by_the_largest_level():
    digits = load("digits")
    for data, top in [(from_arrays(IMAGES), 255), (digits, 16)]:
        transform = fitted(data, scale="unit")
        assert transform.divisor == (float(top),)
        assert torch.equal(transform(data.x), data.x.float() / top)
        assert transform.out_levels is None
    assert fitted(digits, scale="unit")(digits.x).max() == 1.0  # 17 for 16 would be caught
    assert fitted(from_arrays(TABLE), scale="unit").divisor == ()
    assert fitted(from_arrays(IMAGES // 128), scale="unit").divisor == ()


def test_levels_of_what_the_likelihood_scores():
    digits = load("digits")
    assert (fitted(digits).levels, fitted(digits).out_levels) == (17, 17)
    assert fitted(digits, binarize="dynamic").out_levels == 2
    assert fitted(from_arrays(IMAGES // 128)).levels == 2
    assert fitted(from_arrays(IMAGES)).levels == 256
    assert fitted(from_arrays(IMAGES.astype(np.int64))).levels is None
    assert fitted(from_arrays(IMAGES.astype(np.int64)), grey_levels=256).levels == 256
    shapes = fitted(digits, condition="labels").shapes(5)
    assert (shapes.event, shapes.latent, shapes.levels, shapes.condition) == ((1, 8, 8), 5, 17, 10)


@pytest.mark.parametrize(
    ("data", "options"),
    [
        (load("digits"), {"binarize": "static", "binarize_seed": 3, "condition": "labels"}),
        (table(), {}),
        (table(np.abs(TABLE).round() % 2, ("numeric", "count", "categorical")), {}),
        (from_arrays(IMAGES), {"scale": "standardize"}),
    ],
)
def test_a_record_of_the_transform_gives_the_transform_back(data, options):
    transform = fitted(data, **options)
    plain = transform.to_dict()
    assert None not in plain.values()
    assert Transform.from_dict(json.loads(json.dumps(plain))) == transform


def test_a_changed_record_is_refused():
    plain = fitted(table()).to_dict()
    with pytest.raises(DataError, match=r"transform.shfit is not known; did you mean 'shift'"):
        Transform.from_dict({**plain, "shfit": [1.0]})
    with pytest.raises(DataError, match="can't be read"):
        Transform.from_dict({k: v for k, v in plain.items() if k != "event"})
    with pytest.raises(DataError, match="can't be read"):
        Transform.from_dict({**plain, "column_kinds": plain["column_kinds"][:1]})


def test_invert_undoes_the_scale():
    for data, options in [
        (table(), {}),
        (from_arrays(IMAGES), {"scale": "standardize"}),
        (from_arrays(IMAGES), {"scale": "unit"}),
    ]:
        transform = fitted(data, **options)
        assert torch.allclose(transform.invert(transform(data.x)), data.x.float(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("binarize", ["threshold", "static", "dynamic", "none"])
@pytest.mark.parametrize("fixed", [True, False])
def test_views_of_mapped_data_and_of_data_in_memory_agree(binarize, fixed, tmp_path):
    np.save(tmp_path / "x.npy", IMAGES)
    options = DataOptions(binarize=binarize)
    memory = load(str(tmp_path / "x.npy"), options=options)
    mapped = load(str(tmp_path / "x.npy"), options=type("Tiny", (DataOptions,), {"budget": 16})(binarize=binarize))
    assert mapped.mapped
    transform = Transform.fit(memory, options)
    assert Transform.fit(mapped, options) == transform
    a, b = transform.view(memory, fixed=fixed), transform.view(mapped, fixed=fixed)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    draws = [v.batch(order, torch.Generator().manual_seed(1)) for v in (a, b)]
    assert torch.equal(*draws)
    assert draws[0].dtype == torch.float32
    assert torch.equal(torch.cat([c for _, c in a.chunks()]), torch.cat([c for _, c in b.chunks()]))
    if fixed or binarize in ("threshold", "static", "none"):
        assert torch.equal(torch.cat([a.batch(i[None]) for i in order]), draws[0])
        assert torch.equal(torch.cat([c for _, c in a.chunks()])[order], draws[0])
    else:
        assert not torch.equal(a.batch(order), a.batch(order))


def test_a_subset_is_binarised_as_the_whole_is():
    data = load("digits")
    transform = fitted(data, binarize="static")
    whole, part = transform.view(data, fixed=True), transform.view(data.subset(torch.tensor([5, 2])), fixed=True)
    assert torch.equal(part.batch(torch.tensor([0, 1])), whole.batch(torch.tensor([5, 2])))
    test = load("digits", split="test")
    assert not set(test.ids.tolist()) & set(data.ids.tolist())


def test_raw_data_are_not_changed():
    data = from_arrays(IMAGES)
    before = data.x.clone()
    for options in ({"scale": "unit"}, {"binarize": "dynamic"}, {"scale": "standardize"}):
        view = fitted(data, **options).view(data, fixed=False)
        view.batch(torch.arange(60)).add_(7)
        assert torch.equal(data.x, before)


def test_conditions():
    digits = load("digits")
    view = fitted(digits, condition="labels").view(load("digits", split="test"), fixed=True)
    condition = view.condition(torch.tensor([4, 0]))
    assert condition.argmax(1).tolist() == view.dataset.labels[[4, 0]].tolist()
    assert condition.sum(1).tolist() == [1, 1]
    assert fitted(digits).view(digits, fixed=True).condition(torch.tensor([0])) is None
    vectors = Dataset(TABLE, condition=torch.from_numpy(TABLE[:, :2].copy()))
    assert torch.equal(
        fitted(vectors, condition="c").view(vectors, fixed=True).condition(torch.tensor([3])), vectors.x[3:4, :2]
    )


class TestAlign:
    kinds = ("numeric", "categorical", "numeric")
    x = np.stack([TABLE[:4, 0], [0, 1, 1, 0], TABLE[:4, 2]], 1).astype(np.float32)

    def other(self, order=(0, 1, 2), names=("b", "a"), kinds=None):
        kinds = kinds or self.kinds
        columns = tuple(Column(f"c{i}", kinds[i], 2 if kinds[i] == "categorical" else 0) for i in order)
        categories = tuple(tuple(names) if kinds[i] == "categorical" else () for i in order)
        return Dataset(self.x[:, order], kind="table", columns=columns, categories=categories, name="other")

    def test_columns_are_found_by_name_and_categories_by_theirs(self):
        transform = fitted(table(self.x, self.kinds))  # categories a, b
        aligned = transform.align(self.other((2, 0, 1)))
        assert aligned.x[:, 1].tolist() == [1, 0, 0, 1]
        assert torch.equal(aligned.x[:, [0, 2]], torch.from_numpy(self.x[:, [0, 2]]))
        assert aligned.columns == transform.columns
        assert self.other((2, 0, 1)).x[:, 2].tolist() == [0, 1, 1, 0]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"order": (0, 1)}, r"missing \['c2'\], unknown none"),
            ({"names": ("a", "z")}, "column 'c1': 'z' is not among the 2 known names"),
            ({"kinds": ("numeric", "numeric", "numeric")}, "column 'c1' is numeric, and was categorical in training"),
        ],
    )
    def test_what_was_never_trained_on_is_refused(self, change, message):
        with pytest.raises(DataError, match=message):
            fitted(table(self.x, self.kinds)).align(self.other(**change))

    def test_labels_are_recoded_by_class(self):
        train = from_arrays(TABLE[:4], np.array(["x", "y", "z", "x"]))
        test = from_arrays(TABLE[:2], np.array(["z", "y"]))
        assert fitted(train, condition="labels").align(test).labels.tolist() == [2, 1]
        strange = from_arrays(TABLE[:2], np.array(["z", "w"]))
        assert fitted(train).align(strange).classes == ("w", "z")
        with pytest.raises(DataError, match="'w' is not among the 3 known names"):
            fitted(train, condition="labels").align(strange)
        with pytest.raises(DataError, match="has no labels, and the model is conditioned on them"):
            fitted(train, condition="labels").align(from_arrays(TABLE[:2]))

    @pytest.mark.parametrize(
        ("shape", "message"),
        [
            ((2, 3, 28, 28), r"expected examples of shape \(1,28,28\), got \(3,28,28\); set data.grayscale=true$"),
            ((2, 3, 32, 32), r"got \(3,32,32\); set data.grayscale=true and data.size=\[28, 28\]"),
            ((2, 1, 32, 32), r"got \(1,32,32\); set data.size=\[28, 28\]"),
            ((2, 28, 28, 1), "data.layout=hwc"),
            ((2, 784), r"expected examples of shape \(1,28,28\), got \(784\); give data like"),
        ],
    )
    def test_another_shape_is_refused_with_the_fix(self, shape, message):
        transform = fitted(from_arrays(np.zeros((2, 28, 28), np.uint8)))
        with pytest.raises(DataError, match=message):
            transform.view(from_arrays(np.zeros(shape, np.uint8)), fixed=True)


def test_supports_are_checked_on_what_the_likelihood_is_given():
    data = from_arrays(IMAGES)
    fitted(data, binarize="dynamic").view(data, fixed=False).check(binary())
    with pytest.raises(
        DataError, match=r"values 0\.\.255 outside \{0, 1\}: .* use data\.binarize=dynamic or likelihood"
    ):
        fitted(data).view(data, fixed=False).check(binary())
    fitted(data).view(data, fixed=False).check(grey_levels(256))
    mixed = table(np.abs(TABLE).round() % 2, ("numeric", "count", "categorical"))
    fitted(mixed).view(mixed, fixed=True).check(mixed_columns(mixed.columns))


def test_every_set_is_held_to_the_training_sets_levels():
    data = load("digits")
    for options in ({"binarize": "static"}, {"scale": "unit"}):
        with pytest.raises(DataError, match=r"values 0\.\.255 outside \{0\.\.16\}"):
            fitted(data, **options).view(from_arrays(np.tile(IMAGES[:, :1], (1, 1, 2, 2))[..., :8]), fixed=True)


@pytest.mark.parametrize(
    ("data", "options", "warning"),
    [
        (table(TABLE * [1, 0, 1] + [0, 5, 0]), {}, "columns 'c1' are constant"),
        (table(TABLE[:, [0, 1, 0]]), {}, "columns 'c2' are copies of columns before them"),
        (from_arrays(np.full((5, 2), 7.0)), {"scale": "standardize"}, "columns 0, 1 are constant"),
        (table(TABLE[:1]), {}, "columns 'c0', 'c1', 'c2' are constant"),
        (from_arrays(IMAGES % 17), {"binarize": "dynamic"}, "largest grey level is 16 of 255; set data.grey_levels=17"),
    ],
)
def test_odd_data_work_with_a_warning(data, options, warning):
    with pytest.warns(DataWarning, match=warning):
        transform = fitted(data, **options)
    y = transform.view(data, fixed=True).batch(torch.arange(len(data)))
    assert torch.isfinite(y).all()
    assert min(transform.divisor, default=1) > 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted(table())


@pytest.mark.parametrize(
    ("data", "options", "error", "message"),
    [
        (
            from_arrays(IMAGES.astype(int)),
            {"binarize": "dynamic"},
            DataError,
            r"outside \[0, 1\].*set data\.grey_levels to",
        ),
        (
            from_arrays(IMAGES),
            {"binarize": "static", "grey_levels": 17},
            DataError,
            r"values 0\.\.255 outside \{0\.\.16\}",
        ),
        (table(), {"binarize": "static"}, ConfigError, "binarize=static is for grey levels, and table is a table"),
        (from_arrays(IMAGES), {"binarize": "static", "scale": "standardize"}, ConfigError, "leave data.scale at auto"),
        (from_arrays(IMAGES), {"condition": "labels"}, DataError, "has no labels for data.condition=labels"),
        (from_arrays(IMAGES), {"condition": "c"}, DataError, "has no 'c' for data.condition"),
        (
            from_arrays(np.array([[1.0], [np.nan]])),
            {},
            DataError,
            r"1 of 2 values are NaN or infinite in float32, first at x\[1,0\]",
        ),
    ],
)
def test_what_cannot_be_transformed_is_refused(data, options, error, message):
    with pytest.raises(error, match=message):
        fitted(data, **options)
