"""Sources read as meant: against independent readers, and never over the network."""

import gzip
import hashlib
import io
import os
import struct
import urllib.error
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from sklearn.datasets import load_digits

from lambent.data import DataOptions, Transform, evaluation_set, load, splits_of, training_sets
from lambent.data.readers.idx import FASHION_MNIST, MNIST, Published, cache_folder, load_published
from lambent.errors import ConfigError, DataError, StorageError

RNG = np.random.default_rng(0)


def test_digits_are_the_published_ones_and_their_split_is_fixed():
    truth = load_digits()
    parts = [load("digits", split=s) for s in ("train", "test")]
    assert [len(p) for p in parts] == [1437, 360]
    for part in parts:
        assert np.array_equal(part.x[:, 0].numpy(), truth.images[part.ids].astype(np.uint8))
        assert np.array_equal(part.labels.numpy(), truth.target[part.ids])
        assert (part.levels, part.kind, part.classes) == (17, "image", tuple("0123456789"))
    assert sorted(torch.cat([p.ids for p in parts]).tolist()) == list(range(1797))
    assert hashlib.sha256(parts[1].ids.numpy().tobytes()).hexdigest()[:16] == TEST_SPLIT


TEST_SPLIT = "2def317c2558ddce"


X = {s: RNG.integers(0, 256, (n, 6, 5), dtype=np.uint8) for s, n in [("train", 20), ("valid", 5), ("test", 8)]}
Y = {s: RNG.integers(3, 7, len(x)) for s, x in X.items()}


class TestNpz:
    @pytest.fixture(name="path")
    def saved(self, tmp_path):
        y = {**Y, "test": np.array([3, 9] * 4)}  # 9 occurs nowhere else
        arrays = {f"x_{s}": v for s, v in X.items()} | {f"y_{s}": v for s, v in y.items()}
        np.savez_compressed(tmp_path / "d.npz", **arrays, c_train=np.ones((20, 3)), w=np.arange(20))
        return str(tmp_path / "d.npz")

    def test_splits_have_their_names_and_share_their_classes(self, path):
        assert splits_of(path, DataOptions()) == ("train", "valid", "test")
        for split, x in X.items():
            data = load(path, split=split)
            assert np.array_equal(data.x[:, 0].numpy(), x)
            assert data.classes == load(path).classes
        test = load(path, split="test")
        assert [test.classes[c] for c in test.labels] == ["3", "9"] * 4
        ids = torch.cat([load(path, split=s).ids for s in X])
        assert len(ids.unique()) == len(ids)

    def test_training_and_evaluation_sets(self, path):
        train, valid = training_sets(path)
        assert (len(train), len(valid), len(evaluation_set(path))) == (20, 5, 8)
        train, valid = training_sets("digits", options=DataOptions(valid_fraction=0.2))
        assert (len(train), len(valid), len(evaluation_set("digits"))) == (1150, 287, 360)
        assert training_sets("digits", options=DataOptions(valid_fraction=0.0))[1] is None

    def test_a_key_names_an_array(self, path):
        assert np.array_equal(load(f"{path}:x_test").x[:, 0].numpy(), X["test"])
        assert load(f"{path}:x_test").labels is not None
        assert load(f"{path}:w").event_shape == (1,)
        assert load(f"{path}:w").labels is None
        assert load(path, options=DataOptions(labels="w")).classes[-1] == "19"

    def test_condition_vectors(self, path):
        data = load(path, options=DataOptions(condition="c"))
        assert data.condition.shape == (20, 3)
        assert Transform.fit(data, DataOptions(condition="c")).condition_size == 3

    def test_names_that_need_no_split(self, tmp_path):
        np.savez(tmp_path / "a.npz", x=np.ones((4, 2)), y=np.array(["u", "v", "u", "u"]))
        data = load(str(tmp_path / "a.npz"))
        assert data.labels.tolist() == [0, 1, 0, 0]
        np.savez(tmp_path / "b.npz", anything=np.ones((4, 2)))
        assert load(str(tmp_path / "b.npz")).event_shape == (2,)


def idx(array):
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(header + array.tobytes())


IMAGES = RNG.integers(0, 256, (30, 28, 28), dtype=np.uint8)
LABELS = RNG.integers(0, 10, 30).astype(np.uint8)
FILES = {"train-images-idx3-ubyte.gz": idx(IMAGES), "train-labels-idx1-ubyte.gz": idx(LABELS)}
SUMS = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
TINY = Published("tiny", ("a://", "b://"), SUMS, tuple("0123456789"))


class TestPublished:
    @pytest.fixture(autouse=True)
    def own_cache(self, tmp_path, monkeypatch):
        monkeypatch.setenv("LAMBENT_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("urllib.request.urlopen", self.never)
        self.folder = tmp_path / "cache" / "tiny"

    @staticmethod
    def never(*_, **__):
        raise urllib.error.URLError("no network in tests")

    def opener(self, url):
        self.asked.append(url)
        if url.startswith("a://"):
            raise TimeoutError("timed out")
        return io.BytesIO(FILES[url.removeprefix("b://")])

    def test_files_are_fetched_once_checked_and_read(self):
        self.asked = []
        for _ in range(2):
            data = load_published(TINY, "train", self.opener)
            assert np.array_equal(data.x[:, 0].numpy(), IMAGES)
            assert np.array_equal(data.labels.numpy(), LABELS)
        assert len(self.asked) == 4  # two files, the second mirror each
        assert sorted(os.listdir(self.folder)) == sorted(FILES)

    def test_files_put_there_by_hand_are_used(self):
        self.folder.mkdir(parents=True)
        for name, content in FILES.items():
            (self.folder / name).write_bytes(content)
        assert len(load_published(TINY, "train")) == 30

    def test_without_network_the_way_by_hand_is_told(self):
        with pytest.raises(
            DataError, match=r"put train-images-idx3-ubyte.gz, .* into .*tiny, or give .* an \.npz with"
        ):
            load_published(TINY, "train")
        with pytest.raises(
            DataError, match=r"mnist: train-images-idx3-ubyte.gz can't be downloaded \(<urlopen error no"
        ):
            load("mnist")

    def test_another_file_is_not_taken_for_it(self):
        with pytest.raises(DataError, match="gave another file"):
            load_published(TINY, "train", lambda _: io.BytesIO(b"a login page"))
        assert not self.folder.exists()
        self.folder.mkdir(parents=True)
        (self.folder / "train-images-idx3-ubyte.gz").write_bytes(b"truncated")
        with pytest.raises(DataError, match=r"sha256 .* not the published file; delete it"):
            load_published(TINY, "train")

    def test_damaged_idx_files_of_the_right_sum_are_refused(self):
        for content in (
            gzip.compress(b"\0\0\x08\x01\0\0\0\x09abc"),
            gzip.compress(b"\0\0\x0d\x01"),
            b"\x1f\x8b",
            b"",
            b"x",
        ):
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "train-images-idx3-ubyte.gz").write_bytes(content)
            sums = {**SUMS, "train-images-idx3-ubyte.gz": hashlib.sha256(content).hexdigest()}
            with pytest.raises(DataError, match=r"ubyte.gz: (not a whole gzipped idx file|3 values, its)"):
                load_published(Published("tiny", ("a://",), sums, ()), "train")

    def test_a_cache_that_cannot_be_written_says_so(self, tmp_path):
        self.asked = []
        (tmp_path / "cache").write_text("a file where a folder is due")
        with pytest.raises((StorageError, DataError), match="cache"):
            load_published(TINY, "train", self.opener)

    def test_cache_folder(self, monkeypatch, tmp_path):
        monkeypatch.delenv("LAMBENT_CACHE")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert cache_folder() == tmp_path / "lambent"

    def test_the_sums_are_of_four_files_each(self):
        for published in (MNIST, FASHION_MNIST):
            assert len({*published.sha256.values()}) == 4
            assert all(len(v) == 64 for v in published.sha256.values())
            assert len(published.classes) == 10


class TestImages:
    def save(self, path, array, **options):
        path.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(array).save(path, **options)

    def test_folders_are_classes_and_formats_are_told_by_content(self, tmp_path):
        grey = RNG.integers(0, 256, (6, 9, 7), dtype=np.uint8)
        names = ["b/2.png", "b/10.tif", "a/x.webp", "a/y.jpg", "a/ü ñ 長い名前.png", f"c c/{'n' * 200}.png"]
        for name, array in zip(names, grey, strict=True):
            lossless = {"lossless": True} if name.endswith("webp") else {}
            self.save(tmp_path / name, np.stack([array] * 3, -1) if lossless else array, **lossless)
        (tmp_path / "b/10.tif").rename(tmp_path / "b/10.png")
        (tmp_path / ".hidden").write_text("no image")
        data = load(str(tmp_path), options=DataOptions(grayscale=True))
        assert data.classes == ("a", "b", "c c")
        assert data.labels.tolist() == [0, 0, 0, 1, 1, 2]
        order = [2, 3, 4, 1, 0, 5]  # by name within a class
        for at, source in enumerate(order):
            tolerance = 30 if source == 3 else 0  # JPEG is lossy
            assert np.abs(data.x[at, 0].numpy().astype(int) - grey[source]).mean() <= tolerance
        assert data.event_shape == (1, 9, 7)

    def test_exif_rotation_is_applied(self, tmp_path):
        array = RNG.integers(0, 256, (4, 6, 3), dtype=np.uint8)
        turns = {1: lambda a: a, 3: lambda a: a[::-1, ::-1], 6: lambda a: np.rot90(a, -1), 8: np.rot90}
        for orientation, turn in turns.items():
            folder = tmp_path / str(orientation)
            exif = Image.Exif()
            exif[274] = orientation
            self.save(folder / "a.png", array, exif=exif)
            data = load(str(folder))
            assert np.array_equal(data.x[0].numpy(), turn(array).transpose(2, 0, 1))

    def test_palettes_bits_and_opaque_alpha(self, tmp_path):
        array = RNG.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        opaque = np.concatenate([array, np.full((5, 5, 1), 255, np.uint8)], -1)
        self.save(tmp_path / "rgb/a.png", array)
        self.save(tmp_path / "rgb/b.png", opaque)
        Image.fromarray(array).quantize(256).save(tmp_path / "rgb/c.png")
        data = load(str(tmp_path / "rgb"))
        assert all(np.array_equal(x.numpy(), array.transpose(2, 0, 1)) for x in data.x)
        (tmp_path / "bits").mkdir()
        Image.fromarray(array[..., 0] > 99).save(tmp_path / "bits/a.png")
        assert np.array_equal(load(str(tmp_path / "bits")).x[0, 0].numpy(), (array[..., 0] > 99) * 255)

    def test_size_and_grayscale_do_what_they_say(self, tmp_path):
        array = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
        self.save(tmp_path / "a.png", array)
        self.save(tmp_path / "b.png", array[..., 0])
        data = load(str(tmp_path), options=DataOptions(size=(8, 12), grayscale=True))
        assert data.event_shape == (1, 8, 12)
        truth = ImageOps.fit(Image.fromarray(array).convert("L"), (12, 8), Image.Resampling.LANCZOS)
        assert np.array_equal(data.x[0, 0].numpy(), np.asarray(truth))
        grey = load(str(tmp_path), options=DataOptions(size=(20, 30), grayscale=True)).x[0, 0].double().numpy()
        assert np.abs(grey - array @ [0.299, 0.587, 0.114]).max() <= 1

    def test_bad_files_can_be_left_out_and_are_recorded(self, tmp_path):
        for i in range(5):
            self.save(tmp_path / f"{i}.png", RNG.integers(0, 256, (4, 4), dtype=np.uint8))
        (tmp_path / "2.png").write_bytes(b"text")
        whole = (tmp_path / "3.png").read_bytes()
        (tmp_path / "3.png").write_bytes(whole[:-20])
        data = load(str(tmp_path), options=DataOptions(skip_bad=True))
        assert len(data) == 3  # the truncated one decodes to all its pixels, and lacks its checksum
        assert "2 of 5 files can't be used: '2.png' (no readable PNG, JPEG, WebP or TIFF), '3.png'" in data.notes[0]
        for row, name in zip(data.x, ("0.png", "1.png", "4.png"), strict=True):
            assert np.array_equal(row[0].numpy(), np.asarray(Image.open(tmp_path / name)))

    def test_grey_arrays_as_grey_folders(self, tmp_path):
        array = RNG.integers(0, 256, (2, 3, 6, 5), dtype=np.uint8)
        np.save(tmp_path / "x.npy", array)
        grey = load(str(tmp_path / "x.npy"), options=DataOptions(grayscale=True))
        assert grey.event_shape == (1, 6, 5)
        assert grey.x.dtype == torch.uint8
        truth = np.asarray(Image.fromarray(array[1].transpose(1, 2, 0)).convert("L")).astype(int)
        assert np.abs(grey.x[1, 0].numpy() - truth).max() <= 1
        with pytest.raises(DataError, match="arrays aren't resized"):
            load(str(tmp_path / "x.npy"), options=DataOptions(size=(8,)))


class TestTables:
    text = 'age,sex,"n, of",note,when\n20,f,1,x,1.5\n-3.5e1, m ,0,"y, z",2\n0,f,12,x,+3\n'

    def test_columns_by_kind(self, tmp_path):
        (tmp_path / "t.csv").write_text("\ufeff" + self.text, encoding="utf-8")
        data = load(str(tmp_path / "t.csv"), options=DataOptions(counts=("n, of",), drop=("when",)))
        assert [(c.name, c.kind, c.categories) for c in data.columns] == [
            ("age", "numeric", 0),
            ("sex", "categorical", 2),
            ("n, of", "count", 0),
            ("note", "categorical", 2),
        ]
        assert data.categories == ((), ("f", "m"), (), ("x", "y, z"))
        assert data.x.tolist() == [[20, 0, 1, 0], [-35, 1, 0, 1], [0, 0, 12, 0]]
        assert data.kind == "table"

    def test_labels_and_condition_are_taken_out(self, tmp_path):
        (tmp_path / "t.csv").write_text(self.text)
        options = DataOptions(labels="sex", condition="when", categorical=("n, of",))
        data = load(str(tmp_path / "t.csv"), options=options)
        assert [c.name for c in data.columns] == ["age", "n, of", "note"]
        assert (data.classes, data.labels.tolist()) == (("f", "m"), [0, 1, 0])
        assert data.condition.tolist() == [[1.5], [2], [3]]
        assert data.categories[1] == ("0", "1", "12")

    def test_parquet_gives_what_csv_gives(self, tmp_path):
        arrow = pytest.importorskip("pyarrow")
        from pyarrow import csv, parquet

        (tmp_path / "t.csv").write_text(self.text.replace(" m ", "m"))
        table = csv.read_csv(tmp_path / "t.csv")
        encoded = table.set_column(3, "note", table["note"].dictionary_encode())
        parquet.write_table(encoded.append_column("b", arrow.array([True, False, True])), tmp_path / "t.parquet")
        options = DataOptions(counts=("n, of",), labels="sex")
        a = load(str(tmp_path / "t.csv"), options=options)
        b = load(str(tmp_path / "t.parquet"), options=DataOptions(counts=("n, of",), labels="sex", drop=("b",)))
        assert torch.equal(a.x, b.x)
        assert (a.columns, a.categories, a.classes) == (b.columns, b.categories, b.classes)
        whole = load(str(tmp_path / "t.parquet"), options=options)
        assert whole.categories[-1] == ("False", "True")

    def test_numbered_headers_are_headers(self, tmp_path):
        (tmp_path / "t.csv").write_text("0,1,2\n5,6,7\n")
        assert load(str(tmp_path / "t.csv")).x.tolist() == [[5, 6, 7]]

    def test_without_pyarrow_the_extra_is_named(self, tmp_path, monkeypatch):
        (tmp_path / "t.parquet").write_bytes(b"PAR1....")
        monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
        with pytest.raises(ConfigError, match=r"pip install 'lambent\[parquet\]'"):
            load(str(tmp_path / "t.parquet"))


def test_archives_are_streamed_within_their_caps(tmp_path):
    bomb = tmp_path / "bomb.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (1 << 33, 2)})
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header.getvalue() + b"\0" * 1000)
    with pytest.raises(DataError, match="its header says 17179869"):
        load(str(bomb))
    np.savez_compressed(tmp_path / "large.npz", x=np.zeros((3000, 1000), np.uint8))
    assert (tmp_path / "large.npz").stat().st_size < 20_000
    with pytest.raises(DataError, match=r"3 MiB, more than data\.memory=1; save it as \.npy"):
        load(str(tmp_path / "large.npz"), options=DataOptions(memory=1))
    many = tmp_path / "many.npz"
    with zipfile.ZipFile(many, "w") as archive:
        for i in range(1001):
            archive.writestr(f"{i}.npy", b"")
    with pytest.raises(DataError, match="1001 entries"):
        load(str(many))
    outside = tmp_path / "outside.npz"
    with zipfile.ZipFile(outside, "w") as archive:
        for name in ("../evil.npy", "/abs.npy"):
            array = io.BytesIO()
            np.save(array, np.ones((2, 2)))
            archive.writestr(name, array.getvalue())
    assert load(f"{outside}:../evil").event_shape == (2,)  # read as a name, never as a path
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bomb.npz", "large.npz", "many.npz", "outside.npz"]
