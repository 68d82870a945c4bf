"""Bad input: every row is one input, and the error, exit code and words that must come before the first step."""

# ruff: noqa: E501 (the table has a row a line)

import ast
import io
import os
import pickle
import random as random_module
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from PIL import Image

import lambent.data
from lambent.data import DataOptions, Dataset, Transform, from_arrays, load
from lambent.data.support import binary, counts, grey_levels, reals
from lambent.errors import ConfigError, DataError, StorageError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 8, 8), dtype=np.uint8)


def png(width, height, depth=8, colour=0):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    rows = zlib.compress(b"\0" * min(10**6, height * (1 + width * depth * (3 if colour == 2 else 1) // 8)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def refused(source, support=None, **options):
    """What is done before the first step, on a source or an array."""
    asked = DataOptions(**options)
    data = source if isinstance(source, Dataset) else load(str(source), options=asked)
    Transform.fit(data, asked).view(data, fixed=False).check(support or reals())


def array(values, support=None, **options):
    return lambda folder: refused(from_arrays(np.asarray(values)), support, **options)


def file(name, content, support=None, suffix="", **options):
    def row(folder):
        path = folder / name
        content(path) if callable(content) else path.write_bytes(
            content if isinstance(content, bytes) else content.encode()
        )
        refused(f"{path}{suffix}", support, **options)

    return row


def images(contents, **options):
    """A folder of images: names with arrays, raw bytes, Pillow images, or None for an empty folder."""

    def row(folder):
        for name, content in contents.items():
            path = folder / "images" / name
            (path if content is None else path.parent).mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
            elif content is not None:
                (content if isinstance(content, Image.Image) else Image.fromarray(content)).save(path)
        refused(folder / "images", **options)

    return row


def link_loop(folder):
    (folder / "images").mkdir()
    os.symlink("loop.png", folder / "images" / "loop.png")
    refused(folder / "images")


def in_a_folder(folder):
    (folder / "mnist_data.npz").write_bytes(b"")
    refused(folder / "mnist_dat.npz")


def with_value(value, at=(2, 3, 4)):
    x = GREY.astype(np.float32)
    x[at] = value
    return x


def saved(function, *arguments):
    return lambda path: function(path, *arguments)


def csv(text, **options):
    return file("t.csv", text, **options)


def parquet(**columns):
    def write(path):
        arrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet as writer

        writer.write_table(arrow.table(columns), path)

    return write


def truncated(save, keep):
    def write(path):
        save(path)
        path.write_bytes(path.read_bytes()[:keep])

    return write


def dump(value):
    return lambda path: path.write_bytes(pickle.dumps(value))


def pickled_inside(path):
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)


def pickled_member(path):
    with zipfile.ZipFile(path, "w") as archive, archive.open("x.npy", "w") as member:
        np.lib.format.write_array(member, np.array([{"a": 1}], dtype=object), allow_pickle=True)


def flipped(path):
    np.savez_compressed(path, x=RNG.random((50, 4)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


NPZ = saved(lambda path: np.savez(path, images=GREY, other=GREY))
JPEG = images({"a.jpg": RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)})

TABLE = {
    # values that a likelihood doesn't score
    "NaN pixel": (array(with_value(np.nan)), DataError, "1 of 384 values are NaN or infinite in float32, first at x[2,0,3,4]; remove"),
    "many NaN": (array(np.full((3, 4), np.nan)), DataError, "12 of 12 values are NaN or infinite in float32, first at x[0,0], x[0,1], x[0,2], x[0,3], x[1,0];"),
    "infinite pixel": (array(with_value(-np.inf)), DataError, "NaN or infinite"),
    "beyond float32": (array(np.full((3, 2), 1e300)), DataError, "6 of 6 values are NaN or infinite"),
    "grey into Bernoulli": (array(GREY, binary()), DataError, "values 0..255 outside {0, 1}: 379 of 384|use data.binarize=dynamic or"),
    "0-255 floats into Bernoulli": (array(GREY.astype(float), binary()), DataError, "use data.binarize=dynamic or likelihood=discretised-logistic"),
    "-1..1 into Bernoulli": (array(GREY / 127.5 - 1, binary()), DataError, "values -1..1 outside {0, 1}|use likelihood=normal"),
    "0..1 into Bernoulli": (array(GREY / 255, binary()), DataError, "use data.binarize=dynamic or likelihood=normal"),
    "0-255 floats to binarise": (array(GREY.astype(float), binary(), binarize="dynamic"), DataError, "set data.grey_levels"),
    "-1..1 to binarise": (array(GREY / 127.5 - 1, binary(), binarize="static"), DataError, "values -1..1 outside [0, 1]|or give numbers in [0, 1]"),
    "negative count": (array([[3.0, -1.0]], counts()), DataError, "values -1..3 outside {0, 1, 2, ...}: 1 of 2, first at x[0,1]"),
    "fractional count": (array([[0.5, 1.0]], counts()), DataError, "give whole numbers from 0"),
    "17 into 4 bits": (array([[17, 3]], grey_levels(16)), DataError, "values 3..17 outside {0..15}|use likelihood.bits=5"),
    "level beyond levels": (array(GREY, grey_levels=17, binarize="dynamic"), DataError, "values 0..255 outside {0..16}|correct data.grey_levels, which is 17"),
    # shapes and types
    "no axis of examples": (array(3.0), DataError, "shape (), expected (N,), (N,D), (N,H,W) or (N,C,H,W)"),
    "five axes": (array(np.zeros((2, 2, 2, 2, 2))), DataError, "shape (2, 2, 2, 2, 2), expected (N,)"),
    "channels last": (array(np.zeros((2, 28, 28, 3))), DataError, "looks channels last|set data.layout=hwc"),
    "no examples": (array(np.zeros((0, 3))), DataError, "array is empty"),
    "no values": (array(np.zeros((3, 0))), DataError, "shape (3, 0), expected (examples, ...)"),
    "complex": (array(np.zeros((3, 2), complex)), DataError, "complex128, expected real numbers"),
    "text": (array([["a", "b"]]), DataError, "expected real numbers"),
    "dates": (array(np.zeros((3, 2), "datetime64[s]")), DataError, "datetime64[s], expected real numbers"),
    "labels of another length": (lambda _: from_arrays(np.zeros((3, 2)), np.zeros(4)), DataError, "4 labels for 3 examples"),
    "fractional labels": (lambda _: from_arrays(np.zeros((2, 2)), np.array([0.5, 1])), DataError, "1 of 2 labels are not whole numbers, first 0.5"),
    "object array": (lambda _: from_arrays(np.array([[{}]], dtype=object)), DataError, "object array, which is a pickle"),
    # files
    "missing file": (lambda folder: refused(folder / "gone.npy"), DataError, "gone.npy: no such file or folder"),
    "misspelt file": (in_a_folder, DataError, "mnist_dat.npz: no such file or folder; did you mean 'mnist_data.npz'"),
    "misspelt name": (lambda _: refused("digts"), DataError, "'digts' is not known; did you mean 'digits'"),
    "no such split": (lambda _: load("digits", split="valid"), DataError, "digits has no 'valid' split; it has train, test"),
    "unknown suffix": (file("a.dat", "1 2 3"), DataError, "text content under suffix '.dat'; expected a folder"),
    "empty npy": (file("a.npy", b""), DataError, "a.npy is empty (0 bytes)"),
    "truncated npy": (file("a.npy", truncated(saved(np.save, GREY), 200)), DataError, "not a whole .npy file"),
    "npy header only": (file("a.npy", truncated(saved(np.save, GREY), 20)), DataError, "not a whole .npy file"),
    "npy of no rows": (file("a.npy", saved(np.save, np.zeros((0, 4)))), DataError, "a.npy is empty; expected at least one"),
    "text as npy": (file("a.npy", "hello, this is text"), DataError, "its content is text, expected .npy"),
    "image as npy": (file("a.npy", png(8, 8)), DataError, "its content is an image, expected .npy"),
    "object npy": (file("a.npy", pickled_inside), DataError, "object array, which is a pickle: loading a pickle runs code"),
    "records npy": (file("a.npy", saved(np.save, np.zeros(3, "i4,f4"))), DataError, "expected real numbers"),
    "pickle as npy": (file("a.npy", dump([1, 2])), DataError, "a.npy holds a Python pickle: loading a pickle runs code"),
    "pickle as npz": (file("a.npz", dump({"x": 1})), DataError, "a.npz holds a Python pickle"),
    "pickle as csv": (file("a.csv", dump("a,b")), DataError, "a.csv holds a Python pickle"),
    "pickle as parquet": (file("a.parquet", dump("a")), DataError, "a.parquet holds a Python pickle"),
    "torch file": (file("a.pt", lambda path: torch.save({"x": torch.zeros(2)}, path)), DataError, "a.pt holds a Python pickle"),
    "torch file as npz": (file("a.npz", lambda path: torch.save({"x": torch.zeros(2)}, path)), DataError, "a.npz holds a Python pickle"),
    "old torch file as npy": (file("a.npy", lambda path: torch.save(1, path, _use_new_zipfile_serialization=False)), DataError, "holds a Python pickle"),
    "joblib": (file("a.joblib", saved(lambda path: joblib.dump(GREY, path))), DataError, "a.joblib holds a Python pickle"),
    "joblib as npy": (file("a.npy", saved(lambda path: joblib.dump(GREY, path))), DataError, "a.npy holds a Python pickle"),
    "misspelt npz key": (file("a.npz", NPZ, suffix=":image"), DataError, "no array 'image'; did you mean 'images'?; it has images, other"),
    "npz without key": (file("a.npz", NPZ), DataError, "several arrays (images, other), none named x or x_train; say which"),
    "object in npz": (file("a.npz", pickled_member), DataError, "array 'x' is an object array, which is a pickle"),
    "flipped bit in npz": (file("a.npz", flipped), DataError, "array 'x': not a whole .npz file (Bad CRC-32"),
    "truncated npz": (file("a.npz", truncated(NPZ, 300)), DataError, "not a whole zip archive"),
    "misspelt labels key": (file("a.npz", NPZ, suffix=":images", labels="othr"), DataError, "no array 'othr'; did you mean 'other'"),
    # folders of images
    "empty folder": (images({".": None}), DataError, "images is an empty folder; expected images"),
    "empty class folder": (images({"a/1.png": GREY[0], "b": None}), DataError, "b is an empty class folder"),
    "files beside classes": (images({"a/1.png": GREY[0], "2.png": GREY[1]}), DataError, "'2.png' beside class folders"),
    "folder in a class": (images({"a/b/1.png": GREY[0]}), DataError, "a/b is a folder within a class folder"),
    "corrupt image": (images({"a.png": GREY[0], "b.png": png(8, 8)[:40] + b"??" + png(8, 8)[42:]}), DataError, "1 of 2 files can't be used: 'b.png'"),
    "truncated image": (images({"a.png": png(64, 64)[:60]}), DataError, "'a.png' ("),
    "zero bytes": (images({"a.png": GREY[0], "b.png": b""}), DataError, "'b.png' (empty, 0 bytes)"),
    "text as png": (images({"a.png": b"not an image"}), DataError, "'a.png' (no readable PNG, JPEG, WebP or TIFF)"),
    "pdf": (images({"a.pdf": Image.new("RGB", (8, 8))}), DataError, "'a.pdf' (no readable PNG, JPEG, WebP or TIFF)"),
    "gif": (images({"a.gif": Image.new("L", (8, 8))}), DataError, "'a.gif' (no readable PNG, JPEG, WebP or TIFF)"),
    "symlink loop": (link_loop, DataError, "'loop.png' (Too many levels of symbolic links)"),
    "16-bit grey": (images({"a.png": Image.new("I;16", (8, 8))}), DataError, "'a.png' (16 bits a channel"),
    "16-bit colour": (images({"a.png": png(8, 8, 16, 2)}), DataError, "'a.png' (16 bits a channel; use .npy and data.grey_levels"),
    "float tiff": (images({"a.tif": Image.new("F", (8, 8))}), DataError, "'a.tif' (32-bit numbers, expected 8-bit grey or RGB)"),
    "CMYK": (images({"a.jpg": Image.new("CMYK", (8, 8))}), DataError, "'a.jpg' (CMYK colours, expected 8-bit grey or RGB)"),
    "transparent": (images({"a.png": Image.new("RGBA", (8, 8))}), DataError, "transparent pixels; lay it over a background"),
    "mixed sizes": (images({"a.png": GREY[0], "b.png": GREY[0], "c.png": GREY[0, :4]}), DataError, "2 of (1, 8, 8) such as 'a.png', 1 of (1, 4, 8) such as 'c.png'; set data.size=[8, 8]"),
    "mixed modes": (images({"a.png": GREY[0], "b.png": Image.new("RGB", (8, 8))}), DataError, "several shapes|set data.grayscale=true"),
    "every file bad": (images({"a.png": b"x", "b.png": b"y"}, skip_bad=True), DataError, "2 of 2 files can't be used|none is left"),
    "too many for memory": (images({f"{i}.png": Image.new("RGB", (300, 300)) for i in range(5)}, memory=1), DataError, "more than data.memory=1"),
    "three sizes": (images({"a.png": GREY[0]}, size=(1, 2, 3)), ConfigError, "data.size=[1, 2, 3], expected [height, width]"),
    # tables
    "empty csv": (csv(""), DataError, "t.csv is empty (0 bytes)"),
    "blank csv": (csv("\n\n"), DataError, "holds no table"),
    "header only": (csv("a,b\n"), DataError, "has a header and no rows"),
    "no header": (csv("5.1,3.5\n4.9,3.0\n"), DataError, "the first line (5.1, 3.5) holds numbers; add a line with the columns' names"),
    "same name twice": (csv("a,b,a\n1,2,3\n"), DataError, "the header has the columns 'a' more than once"),
    "column without a name": (csv("a,\n1,2\n"), DataError, "a column without a name"),
    "ragged": (csv("a,b\n1,2\n3\n4,5,6\n7,8\n"), DataError, "2 lines don't have 2 cells: line 3 has 1, line 4 has 3"),
    "missing cells": (csv("a,b\n1,\nNA,2\n3,?\n"), DataError, "3 cells are missing, first line 2 column 'b', line 3 column 'a', line 4 column 'b'"),
    "text among numbers": (csv("a,b\n1,2\nx,3\n1,y\n"), DataError, "column 'a' has 1 cells of 3 that are not numbers: line 3 holds 'x'|data.categorical"),
    "infinite cell": (csv("a\n1\ninf\n"), DataError, "column 'a' has 1 cells that are infinite in float64: line 3"),
    "cell beyond float32": (csv("a\n1\n1e200\n"), DataError, "infinite in float32: line 3"),
    "no variation left in float32": (csv("a\n" + "\n".join(str(1600000000 + i) for i in range(99))), DataError, "column 'a' varies by 28.6 around 1.60000005e+09|subtract"),
    "semicolons": (csv("a;b\n1;2\n"), DataError, "the header is one cell, 'a;b'; separate cells by commas"),
    "latin-1": (csv("näme\n1\n".encode("latin-1")), DataError, "not UTF-8 text"),
    "open quote": (csv('a,b\n1,"2\n3,4\n'), DataError, "no readable CSV"),
    "NUL in csv": (csv(b"a,b\n1,2\n3,\x004\n" + b"\0" * 20), DataError, "unknown kind, expected text"),
    "unknown column": (csv("age,sex\n1,2\n", labels="sexx"), DataError, "no column 'sexx' (data.labels); did you mean 'sex'?; it has age, sex"),
    "unknown column to drop": (csv("age,sex\n1,2\n", drop=("agee",)), DataError, "no column 'agee' (data.drop); did you mean 'age'"),
    "nothing left": (csv("a\n1\n", labels="a"), DataError, "no column is left"),
    "negative counts": (csv("a\n1\n-2\n", counts=("a",)), DataError, "1 cells that are no counts 0..2^24: line 3 holds -2"),
    "too many categories": (csv("id\n" + "\n".join(f"id{i}" for i in range(1001))), DataError, "1001 different values, more than the 1000"),
    "table options for an array": (lambda _: refused("digits", counts=("a",)), ConfigError, "data.counts names columns of a table, and digits is none"),
    "damaged parquet": (file("a.parquet", b"PAR1" + b"?" * 50 + b"PAR1"), DataError, "not a whole .parquet file"),
    "null in parquet": (file("a.parquet", parquet(a=[1.0, None, float("nan")], b=["x", None, "y"])), DataError, "3 cells are missing, first row 1 column 'a', row 1 column 'b', row 2 column 'a'"),
    "list in parquet": (file("a.parquet", parquet(a=[[1.0], [2.0]])), DataError, "column 'a' holds list<"),
    "empty parquet": (file("a.parquet", parquet(a=np.zeros(0))), DataError, "has 0 rows and 1 columns"),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_bad_input_is_refused_before_the_first_step(name, tmp_path):
    run, error, words = TABLE[name]
    with pytest.raises(error) as raised:
        run(tmp_path)
    message = str(raised.value)
    for fragment in words.split("|"):
        assert fragment in message
    assert "\n" not in message
    assert raised.value.exit_code == {DataError: 3, ConfigError: 2, StorageError: 6}[error]


def test_unreadable_files_are_storage_errors(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", GREY)

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(StorageError, match=r"x\.npy: can't be read \(Permission denied\)") as raised:
        load(str(tmp_path / "x.npy"))
    assert raised.value.exit_code == 6


def test_all_bad_files_are_found_and_ten_listed(tmp_path):
    for i in range(30):
        Image.fromarray(GREY[0]).save(tmp_path / f"{i:02}.png")
    for i in range(12):
        (tmp_path / f"{i:02}.png").write_bytes(b"" if i % 2 else b"text")
    with pytest.raises(DataError, match="12 of 30 files can't be used") as raised:
        load(str(tmp_path))
    assert all(f"'{i:02}.png'" in str(raised.value) for i in range(10))
    assert str(raised.value).endswith("and 2 more; repair or remove them, or set data.skip_bad=true")


BOMBS = """
import resource, sys, time
from lambent.data import load
import PIL.Image
PIL.Image.init()
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
try:
    load(sys.argv[1])
except ValueError as error:
    print(type(error).__name__, error)
print(time.process_time() - start)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_decompression_bombs_are_refused_from_their_headers(tmp_path):
    (tmp_path / "large.png").write_bytes(png(50_000, 50_000))
    (tmp_path / "below.png").write_bytes(png(9_000, 9_000))
    fields = [(256, 4, 1, 100_000), (257, 4, 1, 100_000), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8),
              (277, 3, 1, 1), (278, 4, 1, 100_000), (279, 4, 1, 10**9)]  # fmt: skip
    header = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(fields))
    (tmp_path / "large.tif").write_bytes(header + b"".join(struct.pack("<HHII", *f) for f in fields) + b"\0" * 64)
    run = subprocess.run([sys.executable, "-c", BOMBS, str(tmp_path)], capture_output=True, text=True, check=True)
    message, seconds, mebibytes = run.stdout.splitlines()
    assert message.startswith("DataError")
    assert "3 of 3 files can't be used" in message
    assert "9000x9000 is more than 50000000 pixels" in message
    assert float(seconds) < 1
    assert float(mebibytes) < 200


def written(save, *arguments, **keywords):
    stream = io.BytesIO()
    save(stream, *arguments, **keywords)
    return stream.getvalue()


WHOLE = {
    "x.npy": written(np.save, GREY),
    "x.npz": written(np.savez_compressed, x=GREY, y=np.arange(6)),
    "x.csv": b"a,b,c\n" + b"".join(f"{i},{'xyz'[i % 3]},{i / 3}\n".encode() for i in range(12)),
    **{
        f"x/a.{f}": written(Image.fromarray(np.stack([GREY[0]] * 3, -1)).save, f)
        for f in ("png", "jpeg", "webp", "tiff")
    },
}


def mutated(content, random):
    """A few bytes changed, put in or taken out, or the end cut off."""
    content = bytearray(content)
    for _ in range(random.choice([1, 1, 2, 5])):
        at, size = random.randrange(len(content) or 1), random.randrange(1, 9)
        change = random.random()
        if change < 0.6:
            content[at : at + 1] = random.randbytes(1)
        elif change < 0.75:
            del content[at:]
        else:
            content[at : at + size * (change > 0.9)] = random.randbytes(size) if change < 0.9 else b""
    return bytes(content)


def outcome(path):
    """The error's message, or nothing where examples came of it; other exceptions pass."""
    try:
        data = load(str(path), options=DataOptions(memory=16))
    except DataError as error:
        return str(error)
    assert data.batch(torch.tensor([0])).dtype in (torch.uint8, torch.float32)
    return ""


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.filterwarnings("ignore")
def test_damage_anywhere_gives_a_typed_error_or_numbers(name, tmp_path):
    random, path, errors = random_module.Random(0), tmp_path / name, 0
    path.parent.mkdir(exist_ok=True)
    for _ in range(200):
        path.write_bytes(mutated(WHOLE[name], random))
        message = outcome(tmp_path / "x" if "/" in name else path)
        assert "\n" not in message
        errors += bool(message)
    assert errors > 20


def test_one_row_works(tmp_path):
    for x, options in [(GREY[:1], {"binarize": "dynamic"}), (GREY[:1], {"scale": "unit"})]:
        refused(from_arrays(x), **options)
    (tmp_path / "t.csv").write_text("a,b\n1,x\n")
    with pytest.warns(lambent.data.DataWarning, match="'a' are constant"):
        refused(tmp_path / "t.csv")


def test_nothing_in_the_package_can_run_code_from_data():
    forbidden = {
        "eval",
        "exec",
        "pickle",
        "joblib",
        "cloudpickle",
        "dill",
        "marshal",
        "shelve",
        "extractall",
        "extract",
    }
    for path in Path(lambent.data.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert ast.unparse(node.value) == "False", path
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert not {a.name.split(".")[0] for a in node.names} & forbidden, path
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called.split(".")[-1] not in forbidden, path
                assert called not in {"torch.load", "torch.save"}, path
                assert called not in {"np.load", "npy.read_array"} or "allow_pickle" in ast.unparse(node), path


def test_refusing_is_fast_for_a_large_clean_array():
    x = from_arrays(np.zeros((2000, 784), np.float32))
    start = time.process_time()
    refused(x, binary())
    assert time.process_time() - start < 1
