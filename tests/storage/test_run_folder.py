"""The run folder: whose it is, what it holds, what changed since."""

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
import tomllib

import pytest
from hypothesis import given, settings, strategies as st

from lambent.errors import ConfigError, StorageError
from lambent.storage.run_folder import RunFolder, difference, environment, require_same
from lambent.storage.toml import to_toml

HOLD = """
import sys, time
from lambent.storage.run_folder import RunFolder
run = RunFolder(sys.argv[1])
try:
    run.claim(resume=True)
except Exception as error:
    print(type(error).__name__, getattr(error, "exit_code", None), error, flush=True)
    sys.exit(error.exit_code)
run.write_recipe({"latent": 2})
print("held", flush=True)
time.sleep(60)
"""


def start(folder):
    child = subprocess.Popen([sys.executable, "-c", HOLD, folder], stdout=subprocess.PIPE, text=True)
    return child, child.stdout.readline()


def test_a_second_process_is_refused_by_name_until_the_first_is_killed(tmp_path):
    first, said = start(tmp_path / "run")
    try:
        assert said == "held\n"
        second, said = start(tmp_path / "run")
        assert second.wait(20) == 2
        holder = f"process {first.pid} on '{socket.gethostname()}' is training here"
        assert said.startswith("ConfigError 2 ")
        assert holder in said
        with pytest.raises(ConfigError, match=holder):
            RunFolder(tmp_path / "run").claim(resume=True)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    with RunFolder(tmp_path / "run") as run:
        assert run.claim(resume=True) is True
        assert json.loads((run.path / ".owner.json").read_text())["pid"] == os.getpid()


def test_without_the_lock_two_processes_would_both_write(tmp_path, monkeypatch):
    """Planted: it is the lock that refuses above, and nothing else."""
    monkeypatch.setattr("filelock.FileLock.acquire", lambda self, *a, **k: None)
    first, second = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "run")
    first.claim()
    second.claim()


def test_one_process_cannot_claim_twice_either_and_release_frees(tmp_path):
    with RunFolder(tmp_path / "run") as one:
        assert one.claim() is False
        with pytest.raises(ConfigError, match=f"process {os.getpid()} on"):
            RunFolder(tmp_path / "run").claim()
        one.release()
        one.release()
        with RunFolder(tmp_path / "run") as two:
            assert two.claim() is False
    with RunFolder(tmp_path / "run") as three:
        assert three.claim() is False


def test_a_refused_claim_lets_go_of_the_lock(tmp_path):
    with RunFolder(tmp_path / "run") as run:
        run.claim()
        run.write_recipe({})
    with pytest.raises(ConfigError, match="holds a run already; continue it with --resume"):
        RunFolder(tmp_path / "run").claim()
    with RunFolder(tmp_path / "run") as run:
        assert run.claim(resume=True) is True


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_of_something_else_is_refused_untouched(tmp_path, resume):
    for name in ("thesis.tex", "photos", "a", "b"):
        (tmp_path / name).mkdir()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ConfigError, match=r"found a, b, photos, \.\.\., expected a run or an empty folder") as caught:
        RunFolder(tmp_path).claim(resume=resume)
    assert caught.value.exit_code == 2
    assert sorted(tmp_path.iterdir()) == before
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="found a file, expected a folder"):
        RunFolder(tmp_path / "file").claim(resume=resume)


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Not a directory"):
        RunFolder(tmp_path / "file" / "run").claim()


def test_resuming_where_nothing_is_begins_anew(tmp_path):
    for path in (tmp_path / "deep" / "run", tmp_path):
        with RunFolder(path) as run:
            assert run.claim(resume=True) is False
            assert run.path.is_dir()
        if path is not tmp_path:
            (path / ".lock").unlink(missing_ok=True)
            path.rmdir()
            path.parent.rmdir()


def test_the_next_start_clears_what_a_crash_left(tmp_path):
    with RunFolder(tmp_path) as run:
        run.claim()
        run.write_recipe({})
    for name in (".tmp-000003", ".trash-000001", ".old-000002"):
        (run.checkpoints / name).mkdir(parents=True)
        (run.checkpoints / name / "model.safetensors").write_bytes(b"x")
    for name, age in ((".tmp-report.html-12", 7200), (".tmp-report.html-13", 0)):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    with RunFolder(tmp_path) as run:
        assert run.claim(resume=True) is True
    assert [p.name for p in run.checkpoints.iterdir()] == ["000002"]
    assert [p.name for p in tmp_path.glob(".tmp-*")] == [".tmp-report.html-13"]  # a living process may be writing it


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
scalar = text | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()
value = st.recursive(scalar, lambda c: st.lists(c, max_size=3) | st.dictionaries(text, c, max_size=3), max_leaves=12)


def typed(v):
    """What == doesn't tell apart: 1, 1.0 and True; 0.0 and -0.0."""
    if isinstance(v, dict):
        return {k: typed(x) for k, x in v.items()}
    return [typed(x) for x in v] if isinstance(v, list) else (type(v).__name__, repr(v))


@settings(max_examples=500, deadline=None)
@given(values=st.dictionaries(text, value, max_size=5))
def test_toml_reads_back_as_the_same_values(values):
    assert typed(tomllib.loads(to_toml(values))) == typed(values)


def test_toml_of_awkward_values():
    values = {
        "lr": 1e-08, "big": 1e16, "tiny": 5e-324, "zero": -0.0, "n": 2**64, "on": True,
        "quotes": '"""\\\'', "lines": "a\r\n\tb\x00\x7f", "ünï": "☃", "": {"a.b": {"c": {}}},
        "list": [], "nested": [[1, 2], []], "tables": [{"a": 1}, {}], "tuple": (1, 2.5),
    }  # fmt: skip
    read = tomllib.loads(to_toml(values))
    assert typed(read) == typed(values | {"tuple": [1, 2.5]})
    assert "lr = 1e-08\n" in to_toml(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"a": {"lr": math.inf}}, r"a\.lr=inf is not finite"),
        ({"a": [1.0, math.nan]}, r"a\.1=nan is not finite"),
        ({"a": {"b": None}}, r"a\.b is NoneType, expected text"),
        ({"a": {"b": object()}}, r"a\.b is object"),
        ({"a": {1: 2}}, "a has the key 1, expected text"),
        ({"a": "\ud800"}, "a' holds a character that is no Unicode text"),
    ],
)
def test_toml_refuses_by_dotted_name(values, message):
    with pytest.raises(ConfigError, match=message):
        to_toml(values)


def test_recipe_environment_and_evaluation_round_trip(tmp_path):
    run = RunFolder(tmp_path)
    recipe = {"recipe": "vae", "seed": 3, "optimiser": {"lr": 1e-08, "betas": [0.9, 0.999]}}
    run.write_recipe(recipe)
    assert run.read_recipe() == recipe
    values = {"elbo": {"value": -1.0000000000000002, "se": math.inf}, "n": 1797, "unit": "nats"}
    run.write_json(run.evaluation, values)
    assert run.read_json(run.evaluation) == values
    assert "Infinity" not in run.evaluation.read_text()


@pytest.mark.parametrize("data", [b"a = ", b"\xff", b"a = 1\na = 2\n", b"!!python/object: os.system", b"\x80\x04N."])
def test_a_recipe_that_is_not_toml_is_a_config_error(tmp_path, data):
    run = RunFolder(tmp_path)
    with pytest.raises(ConfigError, match="expected the folder of a run"):
        run.read_recipe()
    run.recipe.write_bytes(data)
    with pytest.raises(ConfigError, match=r"recipe.toml: not valid TOML"):
        run.read_recipe()


@pytest.mark.parametrize("data", [b"", b"[1]", b"3", b"[" * 100_000, b"\xff"])
def test_a_json_file_that_is_not_an_object_is_a_storage_error(tmp_path, data):
    run = RunFolder(tmp_path)
    run.evaluation.write_bytes(data)
    with pytest.raises(StorageError, match=r"evaluation.json: not a JSON object"):
        run.read_json(run.evaluation)


def test_the_environment_says_what_the_bytes_depend_on(tmp_path):
    import numpy
    import torch

    found = environment("cpu", 1)
    assert found["torch"] == torch.__version__
    assert found["numpy"] == numpy.__version__
    assert found["python"] == sys.version.split()[0]
    assert (found["device"], found["threads"]) == ("cpu", 1)
    assert 1 <= found["processors"] <= os.cpu_count()
    RunFolder(tmp_path).write_json(tmp_path / "environment.json", found)
    assert RunFolder(tmp_path).read_json(tmp_path / "environment.json") == found


OLD = {"recipe": "vae", "epochs": 3, "adam": {"lr": 0.001, "betas": [0.9, 0.99]}, "flag": True, "same": {}}


def test_differences_are_listed_field_by_field():
    new = {"recipe": "vae", "epochs": 5, "adam": {"lr": 0.001, "betas": [0.9, 0.5], "eps": 1e-8}, "flag": 1, "same": {}}
    assert difference(OLD, new) == [
        "epochs: 3 -> 5",
        "adam.betas: [0.9, 0.99] -> [0.9, 0.5]",
        "flag: True -> 1",
        "adam.eps: absent -> 1e-08",
    ]
    assert difference(new, {}) == [f"{name}: {value!r} -> absent" for name, value in FLAT_NEW.items()]
    assert difference(OLD, OLD | {"adam": {"lr": 0.001, "betas": (0.9, 0.99)}}) == []


FLAT_NEW = {
    "recipe": "vae", "epochs": 5, "adam.lr": 0.001, "adam.betas": [0.9, 0.5], "adam.eps": 1e-8, "flag": 1, "same": {},
}  # fmt: skip


def test_a_changed_recipe_is_refused_unless_overridden_by_name():
    new = OLD | {"epochs": 5, "adam": {"lr": 0.1, "betas": [0.9, 0.99]}, "epochs_more": 1}
    with pytest.raises(ConfigError) as caught:
        require_same(OLD, new, "recipe.toml", allowed=["epochs"])
    assert caught.value.exit_code == 2
    assert "recipe.toml differs" in str(caught.value)
    assert "adam.lr: 0.001 -> 0.1; epochs_more: absent -> 1;" in str(caught.value)
    require_same(OLD, new, "recipe.toml", allowed=["epochs", "adam", "epochs_more"])
    require_same(OLD, OLD, "recipe.toml")
