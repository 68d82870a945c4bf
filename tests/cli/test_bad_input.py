"""What a user can get wrong, and the message and exit code that come of it; nothing of it trains a step."""

from __future__ import annotations

import errno
import math
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lambent.cli.app import run
from lambent.storage.metrics import read_metrics


@dataclass(frozen=True)
class Case:
    """A call, its exit code, and what its one line must say."""

    name: str
    arguments: Callable[[Path], list[str]]
    code: int
    says: str


def fit(*arguments: str, data: str = "digits", recipe: str = "vae") -> Callable[[Path], list[str]]:
    return lambda tmp: [
        *["fit", recipe, "epochs=1", "threads=1", "--data", data.replace("TMP", str(tmp)), "--out", str(tmp / "run")],
        *(a.replace("TMP", str(tmp)) for a in arguments),
    ]


def array(values: np.ndarray, *arguments: str, recipe: str = "vae") -> Callable[[Path], list[str]]:
    def make(tmp: Path) -> list[str]:
        np.save(tmp / "x.npy", values)
        return fit(*arguments, data="TMP/x.npy", recipe=recipe)(tmp)

    return make


def file(name: str, content: bytes, *arguments: str, recipe: str = "vae") -> Callable[[Path], list[str]]:
    def make(tmp: Path) -> list[str]:
        (tmp / name).write_bytes(content)
        return fit(*arguments, data=f"TMP/{name}", recipe=recipe)(tmp)

    return make


def folder(*files: tuple[str, bytes | Image.Image]) -> Callable[[Path], list[str]]:
    def make(tmp: Path) -> list[str]:
        (tmp / "images").mkdir()
        for name, content in files:
            if isinstance(content, bytes):
                (tmp / "images" / name).write_bytes(content)
            else:
                content.save(tmp / "images" / name)
        return fit(data="TMP/images")(tmp)

    return make


def occupied(tmp: Path) -> list[str]:
    (tmp / "run").mkdir()
    (tmp / "run" / "thesis.tex").write_text("mine")
    return fit()(tmp)


def a_file_as_run(tmp: Path) -> list[str]:
    (tmp / "run").write_text("mine")
    return fit()(tmp)


def foreign_config(tmp: Path) -> list[str]:
    (tmp / "c.toml").write_text('[train]\nepoch = 3\n[prior]\nname = "os.system"\n')
    return fit("--config", "TMP/c.toml")(tmp)


def misspelt_config(tmp: Path) -> list[str]:
    (tmp / "c.toml").write_text("[train]\nepoch = 3\n")
    return fit("--config", "TMP/c.toml")(tmp)


def grey(n: int = 20, side: int = 6, top: int = 255) -> np.ndarray:
    return np.random.default_rng(0).integers(0, top + 1, (n, 1, side, side), dtype=np.uint8)


def with_value(value: float) -> np.ndarray:
    x = np.random.default_rng(0).random((20, 4)).astype(np.float32)
    x[3, 2] = value
    return x


picture = Image.fromarray(grey()[0, 0])
CASES = [
    Case("unknown recipe", fit(recipe="vea"), 2, "did you mean 'vae'?"),
    Case("misspelt key", fit("latnt=3"), 2, "did you mean 'latent'?"),
    Case("misspelt dotted key", fit("train.epoch=3"), 2, "train.epoch is not a setting; did you mean 'epochs'?"),
    Case("misspelt flag", fit("--epoch", "3"), 2, "--epochs"),
    Case("unknown part", fit("prior=mixtre"), 2, "did you mean 'mixture'?"),
    Case("not key=value", fit("latent"), 2, "expected key=value"),
    Case("wrong type", fit("lr=fast"), 2, "train.lr='fast' is text, expected a number"),
    Case("out of range", fit("lr=-1"), 2, "expected more than 0"),
    Case("infinite value", fit("lr=inf"), 2, "not finite"),
    Case("wrong choice", fit("binarize=dynamc"), 2, "did you mean 'dynamic'?"),
    Case("repeated key", fit("lr=1e-3", "lr=1e-4"), 2, "given 2 times"),
    Case("ambiguous key", fit("rate=warm-up", "steps=3"), 2, "use one of"),
    Case("flag of the wrong type", fit("--latent", "two"), 2, "latent"),
    Case("no such device", fit("device=tpu"), 2, "use auto, cpu"),
    Case("illegal combination", fit("posterior=delta", "objective=iwae"), 2, "posterior=delta"),
    Case("misspelt key in a file", misspelt_config, 2, "train.epoch is not a setting; did you mean 'epochs'?"),
    Case("a file that names code", foreign_config, 2, "not"),
    Case("no such file", fit("--config", "TMP/none.toml"), 2, "none.toml"),
    Case("occupied folder", occupied, 2, "thesis.tex"),
    Case("file instead of folder", a_file_as_run, 2, "choose another --out"),
    Case("missing data", fit(data="TMP/none.npz"), 3, "none.npz"),
    Case("unknown source", fit(data="mnits"), 3, "mnits"),
    Case("grey levels into Bernoulli", array(grey(), "binarize=none"), 3, "outside {0, 1}"),
    Case("floats 0..255 into Bernoulli", array(grey().astype(np.float32), "binarize=none"), 3, "outside {0, 1}"),
    Case("data -1..1 into Bernoulli", array(grey() / 127.5 - 1, "binarize=none"), 3, "outside {0, 1}"),
    Case("17 into 4 bits", array(grey(top=17), "binarize=none", "likelihood=discretised-logistic", "bits=4"), 3, "17"),
    Case("negative counts", array(grey().astype(float) - 9, "binarize=none", "likelihood=poisson"), 3, "outside"),
    Case("NaN pixel", array(with_value(np.nan), recipe="gaussian-vae"), 3, "NaN"),
    Case("infinite value in data", array(with_value(np.inf), recipe="gaussian-vae"), 3, "inf"),
    Case("no examples", array(np.zeros((0, 4), np.float32), recipe="gaussian-vae"), 3, "empty"),
    Case("complex numbers", array(np.zeros((9, 4), complex), recipe="gaussian-vae"), 3, "complex"),
    Case("text", array(np.array([["a", "b"]] * 9), recipe="gaussian-vae"), 3, "number"),
    Case("labels missing", array(grey(), recipe="cvae"), 3, "labels"),
    Case("empty file", file("x.npy", b""), 3, "x.npy"),
    Case("pickle as .npy", file("x.npy", pickle.dumps([1, 2])), 3, "x.npy"),
    Case("pickle as .npz", file("x.npz", pickle.dumps([1, 2])), 3, "x.npz"),
    Case("torch file", file("x.pt", pickle.dumps([1, 2])), 3, "x.pt"),
    Case("ragged table", file("t.csv", b"a,b\n1,2\n3\n"), 3, "t.csv"),
    Case("missing cell", file("t.csv", b"a,b\n1,2\n3,\n5,6\n", "likelihood=mixed", "binarize=none"), 3, "b"),
    Case("empty folder", folder(), 3, "images"),
    Case("corrupt image", folder(("a.png", picture), ("b.png", b"\x89PNG\r\n\x1a\nrest")), 3, "b.png"),
    Case("text as .png", folder(("a.png", picture), ("b.png", b"hello")), 3, "b.png"),
    Case("mixed sizes", folder(("a.png", picture), ("b.png", picture.resize((9, 9)))), 3, "size"),
    Case("no run", lambda tmp: ["evaluate", str(tmp)], 2, "run"),
    Case("bad K", lambda tmp: ["evaluate", str(tmp), "--samples", "0"], 2, ""),
    Case("unwritable folder", fit("--out", "/proc/lambent-run"), 6, "/proc"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_refused_in_one_line_with_the_right_exit_code(case: Case, tmp_path, capsys):
    arguments = case.arguments(tmp_path)
    if arguments.count("--out") > 1:
        del arguments[arguments.index("--out") : arguments.index("--out") + 2]
    code = run(arguments)
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if line.startswith("lambent: ") and "warning" not in line]
    assert code == case.code, err
    assert len(lines) == 1, err
    assert "Traceback" not in err
    assert case.says.lower() in err.lower()
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_the_table_is_as_long_as_promised():
    assert len(CASES) >= 25


GOOD = [
    Case("constant column", array(np.hstack([np.zeros((20, 1)), with_value(0.5)]), recipe="sigma-vae"), 0, ""),
    Case("one example", array(with_value(0.5)[:1], recipe="sigma-vae"), 0, ""),
    Case("fewer examples than a batch", array(with_value(0.5)[:5], recipe="sigma-vae"), 0, ""),
    Case("all-zero images", array(np.zeros((20, 1, 5, 3), np.uint8), "binarize=threshold"), 0, ""),
    Case("colour images of odd size", array(np.repeat(grey(side=5), 3, 1), "encoder=conv", "decoder=conv"), 0, ""),
]


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.name.replace(" ", "-"))
def test_odd_but_honest_data_trains(case: Case, tmp_path, capsys):
    assert run(case.arguments(tmp_path)) == 0, capsys.readouterr().err
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert rows
    assert all(math.isfinite(row["valid"]["bound"]) for row in rows if "valid" in row)


def test_a_full_disk_is_refused_before_the_first_step(tmp_path, capsys, monkeypatch):
    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", no_space)
    code = run(fit()(tmp_path))
    err = capsys.readouterr().err
    assert code == 6, err
    assert "bytes" in err
    assert str(tmp_path / "run") in err
    assert not (tmp_path / "run" / "checkpoints").exists()
