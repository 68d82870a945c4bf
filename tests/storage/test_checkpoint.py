"""F4, B10, S1, S2: what is damaged, foreign or hostile is found before it is used."""

import io
import json
import os
import pickle
import random
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from lambent.errors import CheckpointError, ConfigError
from lambent.storage import checkpoint, manifest
from lambent.storage.checkpoint import apply, load, newest, path_of, save
from lambent.storage.tensors import parse_tensors


def weights(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {"layer.weight": torch.randn(4, 3, generator=generator), "layer.bias": torch.randn(4, generator=generator)}


def two_checkpoints(folder):
    for step in (1, 2):
        save(folder, step, {"model": weights(step), "ema": weights(step + 10)}, {"step": step, "lr": 1e-3})
    return path_of(folder, 2)


def test_what_is_saved_is_what_is_loaded_to_the_bit(tmp_path):
    kinds = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool]
    tensors = {str(kind): torch.arange(6).reshape(2, 3).to(kind) for kind in kinds}
    tensors |= {"scalar": torch.tensor(0.1), "empty": torch.zeros(0, 3), "transposed": torch.arange(6.0).view(2, 3).T}
    tensors |= {"nan": torch.tensor([torch.nan, -torch.inf, -0.0]), "tied": tensors["torch.float32"]}
    state = {"f": [1e-08, 0.1, -0.0, float("inf")], "big": 2**70, "ü": "nan", "none": None, "t": (1, True), "d": {}}
    save(tmp_path, 3, {"model": tensors, "random": {"state": torch.get_rng_state()}}, state)
    found = newest(tmp_path)
    assert found.state == state | {"t": [1, True]}
    assert str(found.state["f"][2]) == "-0.0"
    assert found.tensors["model"].keys() == tensors.keys()
    for name, tensor in tensors.items():
        loaded = found.tensors["model"][name]
        assert (loaded.dtype, loaded.shape) == (tensor.dtype, tensor.shape)
        assert loaded.contiguous().view(-1).view(torch.uint8).tolist() == (
            tensor.contiguous().view(-1).view(torch.uint8).tolist()
        )
    assert torch.equal(found.tensors["random"]["state"], torch.get_rng_state())


def test_the_same_contents_give_the_same_bytes(tmp_path):
    for run in ("a", "b"):
        save(tmp_path / run, 1, {"model": weights(), "ema": dict(reversed(weights().items()))}, {"b": 1, "a": 2})
    for file in (tmp_path / "a/checkpoints/000001").iterdir():
        assert file.read_bytes() == (tmp_path / "b/checkpoints/000001" / file.name).read_bytes()


def test_steps_of_a_million_and_more_sort_by_number(tmp_path):
    for step in (999_999, 1_000_000, 20_000_000, 3):
        save(tmp_path, step, {}, {"step": step})
    (tmp_path / "checkpoints" / "0000004").mkdir()
    (tmp_path / "checkpoints" / "best").mkdir()
    assert checkpoint.steps(tmp_path) == [3, 999_999, 1_000_000, 20_000_000]
    assert newest(tmp_path).state == {"step": 20_000_000}
    checkpoint.prune(tmp_path, 2, {3})
    assert checkpoint.steps(tmp_path) == [3, 1_000_000, 20_000_000]


@pytest.mark.parametrize("step", [-1, 1.0, True, "1", 10**18])
def test_steps_that_are_none_are_refused(tmp_path, step):
    with pytest.raises(ConfigError, match="expected a whole number from 0"):
        save(tmp_path, step, {}, {})


@pytest.mark.parametrize(
    ("tensors", "state", "message"),
    [
        ({"../model": {}}, {}, "expected lower-case letters"),
        ({"model": {"w": torch.eye(2).to_sparse()}}, {}, "model.safetensors: can't be written"),
        ({}, {"a": {"b": [torch.ones(1)]}}, r"state\.a\.b\[0\] is Tensor, expected text"),
        ({}, {"a": {1: 2}}, "state.a has the key 1, expected text"),
        ({}, {"a": {"float": 2}}, "state.a has the one key 'float'"),
    ],
)
def test_what_cannot_be_stored_is_refused_before_the_old_one_is_touched(tmp_path, tensors, state, message):
    save(tmp_path, 1, {}, {})
    with pytest.raises(ConfigError, match=message):
        save(tmp_path, 2, tensors, state)
    assert checkpoint.steps(tmp_path) == [1]
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["000001"]


# F4


def damage(path, seed=0, flips=1000, cuts=64):
    """Each damage done to one file of a checkpoint, one after the other: (file, its bytes now)."""
    files = {file: file.read_bytes() for file in sorted(path.iterdir())}
    places = [(file, i) for file, data in files.items() for i in range(len(data))]
    for k in range(cuts):
        file, length = places[k * len(places) // cuts]
        yield file, files[file][:length]
    chosen = random.Random(seed)
    for _ in range(flips):
        file, i = chosen.choice(places)
        yield file, flipped(files[file], i, chosen.randrange(8))
    for i in range(len(files[path / "manifest.json"])):
        yield path / "manifest.json", flipped(files[path / "manifest.json"], i, i % 8)


def flipped(data, i, bit):
    changed = bytearray(data)
    changed[i] ^= 1 << bit
    return bytes(changed)


def undetected(folder):
    """How many damages of the newest checkpoint were not answered by the previous one and a line naming the damaged."""
    path, missed, done = two_checkpoints(folder), 0, 0
    whole = {file: file.read_bytes() for file in path.iterdir()}
    for file, data in damage(path):
        file.write_bytes(data)
        try:
            found = newest(folder)
            good = found.step == 1 and len(found.skipped) == 1 and str(file) in found.skipped[0]
            good = good and torch.equal(found.tensors["model"]["layer.bias"], weights(1)["layer.bias"])
        except CheckpointError:
            good = False
        missed, done = missed + (not good), done + 1
        file.write_bytes(whole[file])
    return missed, done


def test_every_truncation_and_bit_flip_is_found_and_the_previous_checkpoint_used(tmp_path):
    missed, done = undetected(tmp_path)
    assert missed == 0
    assert done > 1500


def test_the_same_check_catches_a_loader_without_hashes(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(manifest, "_compare", lambda file, entry: manifest._file_size(file))
        missed, _ = undetected(tmp_path / "a")
    assert missed > 100
    with monkeypatch.context() as patch:
        patch.setattr(manifest, "canonical", lambda content: json.dumps(content).encode())
        patch.setattr(manifest, "_digest", lambda content: content.get("sha256"))
        missed, _ = undetected(tmp_path / "b")
    assert missed > 100


@pytest.mark.parametrize("name", ["model.safetensors", "ema.safetensors", "state.json", "manifest.json"])
def test_a_missing_file_and_one_of_another_checkpoint_are_found(tmp_path, name):
    path = two_checkpoints(tmp_path)
    data = (path / name).read_bytes()
    (path / name).unlink()
    assert "not found" in newest(tmp_path).skipped[0]
    (path / name).write_bytes((path_of(tmp_path, 1) / name).read_bytes())
    assert newest(tmp_path).step == 1
    (path / name).write_bytes(data)
    assert newest(tmp_path).step == 2


def test_a_renamed_checkpoint_folder_is_found(tmp_path):
    two_checkpoints(tmp_path).rename(path_of(tmp_path, 50))
    found = newest(tmp_path)
    assert found.step == 1
    assert "holds step 2; a checkpoint's folder is not to be renamed" in found.skipped[0]


def test_damage_in_a_file_that_was_not_asked_for_is_found_too(tmp_path):
    path = two_checkpoints(tmp_path)
    (path / "ema.safetensors").write_bytes(flipped((path / "ema.safetensors").read_bytes(), 200, 1))
    assert newest(tmp_path, ["model"]).step == 1


def test_without_any_that_verifies_the_error_names_each_and_exits_4(tmp_path):
    path = two_checkpoints(tmp_path)
    for step in (1, 2):
        (path_of(tmp_path, step) / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError) as caught:
        newest(tmp_path)
    assert caught.value.exit_code == 4
    assert "no checkpoint verifies, of 2 found" in str(caught.value)
    assert str(path) in str(caught.value)
    assert str(path_of(tmp_path, 1)) in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match="found no checkpoint"):
        newest(tmp_path / "elsewhere")


# B10


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 4)
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))


def altered(**changes):
    tensors = {name: t.clone() for name, t in Net().state_dict().items()}
    for name, tensor in changes.items():
        tensors[name.replace("__", ".")] = tensor
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


UNFIT = {
    "another model": (
        {"a": torch.ones(1)},
        ["missing layer.weight float32[4, 3]", "missing layer.bias float32[4]", "missing mask", "extra a float32[1]"],
    ),
    "missing": (altered(layer__bias=None), ["does not fit Net: missing layer.bias float32[4];"]),
    "extra": (altered(more=torch.ones(2, dtype=torch.int64)), ["does not fit Net: extra more int64[2];"]),
    "shape": (altered(layer__bias=torch.ones(5)), ["Net: layer.bias is float32[5], expected float32[4];"]),
    "transposed": (altered(layer__weight=torch.ones(3, 4)), ["layer.weight is float32[3, 4], expected float32[4, 3]"]),
    "broadcast": (altered(layer__bias=torch.ones(())), ["layer.bias is float32[], expected float32[4]"]),
    "type": (altered(layer__bias=torch.ones(4).half()), ["layer.bias is float16[4], expected float32[4]"]),
    "NaN": (
        altered(layer__bias=torch.tensor([0, torch.nan, torch.inf, 1])),
        ["NaN or infinite", "layer.bias (2 of 4)"],
    ),
}


@pytest.mark.parametrize("case", UNFIT)
def test_tensors_that_do_not_fit_are_listed_exactly_and_none_is_loaded(case):
    tensors, parts = UNFIT[case]
    net = Net()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        apply(net, tensors, where="run/checkpoints/000002")
    text = str(caught.value)
    assert caught.value.exit_code == 4
    assert text.startswith("run/checkpoints/000002: ")
    assert all(part in text for part in parts), text
    assert "\n" not in text
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())


def test_tensors_that_fit_are_loaded_and_infinity_in_a_buffer_is_fine():
    net, tensors = Net(), altered(layer__bias=torch.arange(4.0))
    apply(net, tensors)
    assert all(torch.equal(t, tensors[name]) for name, t in net.state_dict().items())
    apply(net, UNFIT["NaN"][0], finite=False)
    assert net.layer.bias.isnan().any()


def test_non_finite_weights_fall_back_where_asked(tmp_path):
    two_checkpoints(tmp_path)
    save(tmp_path, 3, {"model": {"w": torch.tensor([1.0, torch.nan])}}, {})
    assert newest(tmp_path).step == 3
    found = newest(tmp_path, finite=("model",))
    assert found.step == 2
    assert "000003/model.safetensors: NaN or infinite values in w (1 of 2)" in found.skipped[0]


def test_a_newer_format_asks_for_a_newer_lambent(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "FORMAT", 2)
    path = save(tmp_path, 1, {}, {})
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="format 2, this lambent reads up to 1; upgrade lambent"):
        load(path)


def test_what_is_no_checkpoint_is_said_so(tmp_path):
    path = two_checkpoints(tmp_path)
    with pytest.raises(CheckpointError, match="expected a checkpoint's folder"):
        load(path / "model.safetensors")
    with pytest.raises(CheckpointError, match="holds no optimizer; it holds ema, model"):
        load(path, ["model", "optimizer"])
    for make in (os.mkfifo, os.mkdir, lambda file: os.symlink("/dev/zero", file)):
        (path / "model.safetensors").unlink()
        make(path / "model.safetensors")
        with pytest.raises(CheckpointError, match=r"model\.safetensors: not a regular file"):
            load(path)
        if (path / "model.safetensors").is_dir():
            (path / "model.safetensors").rmdir()
            (path / "model.safetensors").touch()


# S1, S2: the manifest is right here, as whoever forges a checkpoint forges that too


def forged(folder, name, data):
    """A checkpoint whose file ``name`` is ``data``, with a manifest to match."""
    path = two_checkpoints(folder)
    (path / name).write_bytes(data)
    entries = {f.name: manifest.file_entry(f.read_bytes()) for f in path.iterdir() if f.name != "manifest.json"}
    (path / "manifest.json").write_bytes(manifest.manifest_bytes(2, entries))
    return path


class Exploit:
    def __reduce__(self):
        return os.system, ("touch executed",)


def torch_file(**options):
    buffer = io.BytesIO()
    torch.save({"a": Exploit()}, buffer, **options)
    return buffer.getvalue()


def numpy_file():
    buffer = io.BytesIO()
    np.save(buffer, np.array([Exploit()], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def with_header(header, data=b"", size=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data


def one(name="a", dtype="F32", shape=(1,), offsets=(0, 4)):
    return {name: {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}}


TWICE = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}'
ATTACKS = {
    **{f"pickle protocol {p}": pickle.dumps({"a": Exploit()}, protocol=p) for p in range(6)},
    "torch.save": torch_file(),
    "torch.save, old": torch_file(_use_new_zipfile_serialization=False),
    "numpy objects": numpy_file(),
    "empty": b"",
    "seven bytes": b"\1\0\0\0\0\0\0",
    "header of 2^63": with_header({}, size=2**63),
    "header of 2^64-1": with_header({}, size=2**64 - 1),
    "header of 100 MB": with_header({}, size=100_000_000),
    "header beyond the file": with_header({}, size=3),
    "no header": with_header(b""),
    "header is a list": with_header([]),
    "header is no JSON": with_header(b"{x}"),
    "header is no text": with_header(b'{"\xff\xfe": 1}'),
    "deep header": with_header(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "a name twice": with_header(TWICE, bytes(8)),
    "overlapping offsets": with_header(one("a") | one("b"), bytes(4)),
    "partly overlapping offsets": with_header(
        one("a", shape=(2,), offsets=(0, 8)) | one("b", offsets=(4, 8)), bytes(8)
    ),
    "a hole": with_header(one("a") | one("b", offsets=(8, 12)), bytes(12)),
    "a hole at the start": with_header(one(offsets=(4, 8)), bytes(8)),
    "more bytes than tensors": with_header(one(), bytes(400)),
    "offsets beyond the file": with_header(one(offsets=(0, 4000), shape=(1000,)), bytes(4)),
    "offsets backwards": with_header(one(offsets=(4, 0)), bytes(4)),
    "negative offsets": with_header(one(offsets=(-4, 0)), bytes(4)),
    "offsets of 2^64": with_header(one(offsets=(0, 2**64)), bytes(4)),
    "fractional offsets": with_header(one(offsets=(0, 4.0)), bytes(4)),
    "shape against size": with_header(one(shape=(2,)), bytes(4)),
    "shape overflows": with_header(one(shape=(2**32, 2**32), offsets=(0, 0))),
    "shape overflows to the size": with_header(one(shape=(2**62 + 1,)), bytes(4)),
    "negative shape": with_header(one(shape=(-1, -1)), bytes(4)),
    "unknown type": with_header(one(dtype="F33"), bytes(4)),
    "object type": with_header(one(dtype="O"), bytes(4)),
    "no type": with_header({"a": {"shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
    "metadata is a number": with_header({"__metadata__": 3} | one(), bytes(4)),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_hostile_tensor_file_is_a_checkpoint_error_and_nothing_runs(tmp_path, monkeypatch, attack):
    monkeypatch.chdir(tmp_path)
    path = forged(tmp_path, "model.safetensors", ATTACKS[attack])
    with pytest.raises(CheckpointError) as caught:
        load(path)
    assert str(path / "model.safetensors") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    assert newest(tmp_path).step == 1
    assert not (tmp_path / "executed").exists()


def test_the_exploit_would_run_if_it_were_unpickled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(ATTACKS["pickle protocol 4"])
    assert (tmp_path / "executed").exists()


def test_a_pickle_is_called_a_pickle(tmp_path):
    for attack, kind in {
        "pickle protocol 4": "a pickle",
        "torch.save": "a zip archive",
        "numpy objects": "numpy",
    }.items():
        with pytest.raises(CheckpointError, match=f"found .*{kind}.*expected safetensors; nothing is ever unpickled"):
            parse_tensors(ATTACKS[attack], "model.safetensors")


HOSTILE_STATES = {
    "no JSON": b"{",
    "deep": b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "a list": b"[]\n",
    "a huge number": b'{"a": ' + b"9" * 10_000 + b"}",
    "no text": b'{"a": "\xff"}',
    "a pickle": pickle.dumps(Exploit()),
}


@pytest.mark.parametrize("case", HOSTILE_STATES)
@pytest.mark.parametrize("name", ["state.json", "manifest.json"])
def test_a_hostile_json_file_is_a_checkpoint_error(tmp_path, case, name):
    if name == "state.json":
        path = forged(tmp_path, name, HOSTILE_STATES[case])
    else:
        path = two_checkpoints(tmp_path)
        (path / name).write_bytes(HOSTILE_STATES[case])
    with pytest.raises(CheckpointError, match=name):
        load(path)


@pytest.mark.parametrize("name", ["../../../outside.json", "/etc/passwd", "a/b.json", "model.pt", "..", ""])
def test_a_manifest_cannot_name_files_elsewhere(tmp_path, name):
    path = two_checkpoints(tmp_path)
    (tmp_path / "outside.json").write_bytes(b"{}")
    entries = {"state.json": manifest.file_entry((path / "state.json").read_bytes()), name: manifest.file_entry(b"{}")}
    (path / "manifest.json").write_bytes(manifest.manifest_bytes(2, entries))
    with pytest.raises(CheckpointError, match="not a checkpoint's manifest"):
        load(path)


def test_fuzzed_tensor_files_are_parsed_or_refused_and_nothing_else():
    valid = safetensors.torch.save(
        {"w": torch.ones(3, 2), "b": torch.zeros(2, dtype=torch.int64), "s": torch.tensor(1.0)}
    )
    chosen, refused = random.Random(5), 0
    for _ in range(100_000):
        data = bytearray(valid)
        for _ in range(chosen.choice((1, 1, 2, 8))):
            i = chosen.randrange(len(data))
            data[i : i + chosen.choice((0, 1, 1, 3))] = chosen.randbytes(chosen.choice((0, 1, 1, 2)))
        try:
            parse_tensors(bytes(data), "fuzzed")
        except CheckpointError:
            refused += 1
    assert 30_000 < refused < 95_000


GROWTH = """
import json, struct, sys
from pathlib import Path
from lambent.errors import CheckpointError
from lambent.storage import checkpoint
from lambent.storage.tensors import parse_tensors

def memory(field):
    return next(int(x.split()[1]) * 1024 for x in Path("/proc/self/status").read_text().splitlines() if field in x)

def growth(function):
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = memory("VmRSS")
    result = function()
    return result, memory("VmHWM") - before
"""
MILLION = """
count = int(sys.argv[1])
tensor = '"t%d":{"dtype":"U8","shape":[1],"data_offsets":[%d,%d]}'
header = ("{" + ",".join(tensor % (i, i, i + 1) for i in range(count)) + "}").encode()
data = struct.pack("<Q", len(header)) + header + bytes(count)
def parse():
    try:
        return len(parse_tensors(data, "x"))
    except CheckpointError:
        return 0
(read, grown) = growth(parse)
print(read, len(data), grown)
"""
LOADING = """
found, grown = growth(lambda: checkpoint.newest(Path(sys.argv[1])))
print(grown / checkpoint.size(found.tensors))
"""
linux = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures memory by Linux's /proc")


def measured(script, argument):
    command = [sys.executable, "-c", GROWTH + script, argument]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [float(word) for word in done.stdout.split()]


@linux
@pytest.mark.parametrize(("count", "expected"), [(1_000_000, 0), (50_000, 50_000)])
def test_very_many_tensors_take_bounded_memory(count, expected):
    read, size, grown = measured(MILLION, str(count))
    assert read == expected
    assert grown < 2 * size + 100e6


@linux
def test_loading_takes_less_than_twice_the_files(tmp_path):
    save(tmp_path, 1, {name: {"w": torch.zeros(8_000_000)} for name in ("model", "ema")}, {})
    [ratio] = measured(LOADING, str(tmp_path))
    assert 0.9 < ratio < 2.2


def test_more_names_than_a_loader_would_read_are_refused_by_the_save(tmp_path):
    many = {f"{'name' * 30}{i}": torch.zeros(()) for i in range(30_000)}
    with pytest.raises(ConfigError, match=r"a header of \d+ bytes, expected at most"):
        save(tmp_path, 1, {"model": many}, {})
    assert checkpoint.steps(tmp_path) == []
