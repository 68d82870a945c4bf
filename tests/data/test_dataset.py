"""Data sets: memory-mapped and in memory give the same, nothing given is changed, fingerprints tell contents apart."""

import numpy as np
import pytest
import torch

from lambent.data import DataOptions, Dataset, dataset as dataset_module, from_arrays, load, one_hot, split_off
from lambent.data.labels import encode, recode
from lambent.errors import DataError


@pytest.fixture(name="both", params=[np.uint8, np.float32, np.float64, np.int16, ">f4", np.bool_, np.float16])
def saved_and_mapped(request, tmp_path):
    x = (np.random.default_rng(0).random((50, 3, 4, 5)) * 200 - (0 if request.param == np.uint8 else 100)).astype(
        request.param
    )
    np.save(tmp_path / "x.npy", x)
    memory, mapped = load(str(tmp_path / "x.npy")), load(str(tmp_path / "x.npy"), options=_tiny(tmp_path))
    assert not memory.mapped
    assert mapped.mapped
    return x, memory, mapped


def _tiny(tmp_path):
    class Tiny(DataOptions):
        budget = 16

    return Tiny()


def test_mapped_data_give_what_data_in_memory_give(both):
    x, memory, mapped = both
    indices = torch.tensor([7, 3, 3, 49, 0])
    for data in (memory, mapped):
        assert data.event_shape == (3, 4, 5)
        batch = data.batch(indices)
        assert batch.dtype == (torch.uint8 if x.dtype in (np.uint8, np.bool_) else torch.float32)
        assert np.array_equal(batch.numpy(), x[indices.numpy()].astype(batch.numpy().dtype))
        assert np.array_equal(torch.cat([c for _, c in data.chunks(7)]).numpy(), x.astype(batch.numpy().dtype))
        part = data.subset(torch.tensor([4, 9, 2])).subset(torch.tensor([2, 0]))
        assert np.array_equal(part.batch(torch.tensor([1, 0])).numpy(), x[[4, 2]].astype(batch.numpy().dtype))
        assert part.ids.tolist() == [2, 4]
        assert [start for start, _ in part.chunks(1)] == [0, 1]
        assert torch.equal(torch.cat([c for _, c in part.chunks()]), part.batch(torch.arange(2)))
    assert mapped.subset(torch.arange(20)).mapped
    assert len(mapped.head(3)) == 3
    assert len(mapped.head(99)) == 50


def test_layout_and_axes_of_mapped_data(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (20, 6, 5, 3), dtype=np.uint8)
    np.save(tmp_path / "x.npy", x)
    for options in (DataOptions(layout="hwc"), type("Tiny", (DataOptions,), {"budget": 16})(layout="hwc")):
        data = load(str(tmp_path / "x.npy"), options=options)
        assert data.event_shape == (3, 6, 5)
        assert np.array_equal(data.batch(torch.tensor([2])).numpy()[0], x[2].transpose(2, 0, 1))


def test_what_is_given_is_neither_changed_nor_shared():
    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    labels = np.array([3, 1, 3, 1])
    before = x.copy()
    x.flags.writeable = labels.flags.writeable = False
    data = from_arrays(x, labels)
    assert data.classes == ("1", "3")
    assert data.labels.tolist() == [1, 0, 1, 0]
    batch = data.batch(torch.tensor([0, 1]))
    batch += 100
    assert torch.equal(data.batch(torch.tensor([0, 1])), torch.from_numpy(before[:2].copy()))
    x.flags.writeable = True
    x += 1
    assert torch.equal(data.x, torch.from_numpy(before))
    tensor = torch.rand(3, 2, requires_grad=True)
    assert not from_arrays(tensor).x.requires_grad


def test_arrays_are_understood_by_their_axes():
    for shape, event, kind in [((9,), (1,), "array"), ((9, 4), (4,), "array"), ((9, 4, 5), (1, 4, 5), "image")]:
        data = from_arrays(np.zeros(shape))
        assert (data.event_shape, data.kind, data.levels) == (event, kind, None)
    assert from_arrays(np.zeros((9, 2, 2), bool)).levels == 2
    assert from_arrays(torch.zeros(9, 2, 2, dtype=torch.uint8)).levels == 256


def test_fingerprints_tell_contents_apart(both):
    x, memory, mapped = both
    assert memory.fingerprint() == mapped.fingerprint()
    changed = x.copy()
    changed.flat[17] = not changed.flat[17] if x.dtype == np.bool_ else changed.flat[17] + 1
    prints = {
        memory.fingerprint(),
        from_arrays(changed).fingerprint(),
        from_arrays(x[:49]).fingerprint(),
        from_arrays(x.reshape(50, 60)).fingerprint(),
        from_arrays(x, np.zeros(50, int)).fingerprint(),
        from_arrays(x, np.arange(50) % 2).fingerprint(),
    }
    assert len(prints) == 6


def test_large_mapped_sets_are_sampled_and_say_so(both, monkeypatch):
    _, memory, mapped = both
    monkeypatch.setattr(dataset_module, "_FINGERPRINT_BUDGET", 100)
    assert mapped.fingerprint().startswith("sha256-sampled:")
    assert mapped.fingerprint() == mapped.fingerprint()
    assert memory.fingerprint().startswith("sha256:")


def test_float64_beyond_float32_and_large_whole_numbers():
    with pytest.raises(DataError, match="whole numbers up to 16777217, beyond 2\\^24"):
        from_arrays(np.full((3, 2), 2**24 + 1))
    assert from_arrays(np.full((3, 2), 2**24)).x.double().max() == 2**24
    assert from_arrays(np.array([[-128]], np.int8)).x.item() == -128
    assert torch.isinf(from_arrays(np.full((3, 2), 1e300)).x).all()


@pytest.mark.parametrize(("n", "fraction", "held"), [(100, 0.1, 10), (3, 0.1, 1), (2, 0.9, 1), (1437, 0.1, 144)])
def test_split_off_parts_the_set(n, fraction, held):
    data = Dataset(np.arange(n)[:, None])
    kept, out = split_off(data, fraction, seed=0)
    assert len(out) == held
    assert sorted(kept.x.flatten().tolist() + out.x.flatten().tolist()) == list(range(n))
    assert torch.equal(kept.ids, kept.x.flatten().long())
    again = split_off(data, fraction, seed=0)[1]
    assert torch.equal(again.x, out.x)
    if n > 50:
        assert not torch.equal(split_off(data, fraction, seed=1)[1].x, out.x)
        assert abs(out.x.mean() - (n - 1) / 2) < 5 * n / (12 * held) ** 0.5


def test_what_cannot_be_split_comes_back_whole():
    one = Dataset(np.zeros((1, 2)))
    assert split_off(one, 0.5, 0) == (one, None)
    assert split_off(Dataset(np.zeros((9, 2))), 0.0, 0)[1] is None


def test_labels_are_coded_by_rising_name_and_recoded_by_name():
    codes, classes = encode(np.array([10, 9, 100, 9]), "y")
    assert (codes.tolist(), classes) == ([1, 0, 2, 0], ("9", "10", "100"))
    assert encode(np.array([1.0, 0.0]), "y")[1] == ("0", "1")
    assert encode(np.array([b"b", b"a"]), "y")[1] == ("a", "b")
    assert recode(torch.tensor([0, 1]), ("a", "b"), ("b", "c", "a"), "y").tolist() == [2, 0]
    assert recode(torch.tensor([1]), ("gone", "b"), ("b",), "y").tolist() == [0]  # only names that occur matter
    with pytest.raises(DataError, match=r"'bb' is not among the 2 known names \(bbb, c\); did you mean 'bbb'"):
        recode(torch.tensor([0]), ("bb",), ("bbb", "c"), "y")


def test_one_hot():
    assert one_hot(torch.tensor([[2], [0]]), 3).tolist() == [[[0, 0, 1]], [[1, 0, 0]]]
    with pytest.raises(DataError, match=r"labels 0\.\.3 outside 0\.\.2"):
        one_hot(torch.tensor([0, 3]), 3)
