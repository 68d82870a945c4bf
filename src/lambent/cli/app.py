"""The verbs and flags of ``lambent``."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import App, Parameter

from lambent.errors import LambentError, RenamedSetting

app = App(
    name="lambent",
    help="Train, measure and use latent-variable models. Every number is in nats unless it says otherwise.",
    version_flags=["--version"],
    help_format="plaintext",
    result_action="return_value",
)

Data = Annotated[
    str, Parameter(help="digits, mnist, fashion-mnist, FILE.npy, FILE.npz[:key], a folder, .csv, .parquet, .txt")
]
Out = Annotated[Path, Parameter(help="where to write it")]
RunPath = Annotated[Path, Parameter(help="the folder that `lambent fit` wrote")]


def run(arguments: list[str]) -> int:
    """The exit code of ``lambent ARGUMENTS``; errors are one line on standard error, with a traceback under --debug."""
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            app(arguments or ["--help"], exit_on_error=False, print_error=False)
    except cyclopts.CycloptsError as error:
        return _fail(" ".join(str(error).split()), 2, debug=debug)
    except LambentError as error:
        return _fail(str(error), error.exit_code, debug=debug)
    except KeyboardInterrupt:
        return _fail("stopped", 130, debug=debug)
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:
        return _fail(f"{error.filename or 'input/output'}: {error.strerror or error}", 6, debug=debug)
    return 0


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    kind = "note" if isinstance(message, RenamedSetting) else "lambent: warning"
    print(f"{kind}: {' '.join(str(message).split())}", file=sys.stderr)


def _fail(message: str, code: int, *, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exc()
    print(f"lambent: {' '.join(message.splitlines())}", file=sys.stderr)
    return code


@app.command
def recipes(*, json_: Annotated[bool, Parameter(name="--json", help="as a JSON list")] = False) -> None:
    """List the named systems."""
    from lambent.cli.listing import recipe_rows, recipe_text

    print(json.dumps(recipe_rows(), indent=1, ensure_ascii=False) if json_ else recipe_text())


@app.command
def show(recipe: str, *settings: str) -> None:
    """Show every setting of a recipe: its value, type, range and meaning.

    Give key=value to see what a choice brings (for example prior=mixture).
    """
    from lambent.cli.listing import settings_text

    print(settings_text(recipe, settings))


@app.command
def fit(
    recipe: str,
    *settings: str,
    data: Annotated[str | None, Parameter(help="what to train on (the recipe's own, or digits)")] = None,
    out: Annotated[Path, Parameter(help="folder of the run, new or to be resumed")],
    config: Annotated[Path | None, Parameter(help="TOML file of settings, such as another run's recipe.toml")] = None,
    valid: Annotated[str | None, Parameter(help="validation source; else a part of the data is held out")] = None,
    latent: Annotated[int | None, Parameter(help="latent dimensions, or states")] = None,
    prior: Annotated[str | None, Parameter(help="the prior; schedule=two-stage learns it in a second stage")] = None,
    epochs: Annotated[int | None, Parameter(help="passes over the training set")] = None,
    batch_size: Annotated[int | None, Parameter(help="examples a step, over all processes")] = None,
    seed: Annotated[int | None, Parameter(help="of weights, batches and noise")] = None,
    resume: Annotated[bool, Parameter(help="continue the run in --out, to the same bytes")] = False,
    threads: Annotated[int | None, Parameter(help="torch threads")] = None,
    device: Annotated[str | None, Parameter(help="auto, cpu, cuda, cuda:N")] = None,
) -> None:
    """Train a recipe (see `lambent recipes`) on data and write a run folder.

    Settings are key=value, any that `lambent show RECIPE` lists.
    """
    from lambent.config import settings_of_tokens
    from lambent.runs.fit import fit_settings

    flags: dict[str, Any] = {"latent": latent, "prior": prior, "epochs": epochs, "batch_size": batch_size}
    flags |= {"seed": seed, "threads": threads, "device": device}
    given = [f"{key}={value}" for key, value in flags.items() if value is not None]
    chosen = settings_of_tokens((*settings, *given))
    fit_settings(recipe, chosen, data, out=out, valid=valid, config=config, resume=resume)


@app.command
def evaluate(
    run: RunPath,
    *,
    data: Annotated[str | None, Parameter(help="source; else the test split of the training source")] = None,
    samples: Annotated[int, Parameter(help="importance samples K per example")] = 100,
    seed: Annotated[int, Parameter(help="of the noise")] = 0,
    threads: Annotated[int | None, Parameter(help="processors to use")] = None,
    precision: Annotated[str, Parameter(help="of p(x|z): float32, or bfloat16 or int8, corrected")] = "float32",
    json_: Annotated[bool, Parameter(name="--json", help="print one JSON object")] = False,
) -> None:
    """Measure a run: ELBO, IWAE-K, rate, distortion, exact log-likelihood where it exists, each with its error."""
    from lambent.runs.run import load
    from lambent.training.engine import start_engine

    opened = load(run)
    engine = start_engine(str(opened.device))
    try:
        settings: dict[str, Any] = {"samples": samples, "seed": seed, "threads": threads, "precision": precision}
        found = opened.evaluate(data, engine=engine, **settings)
        if engine.leader:
            opened.record(found)
            print(json.dumps(found.to_dict(), indent=1, allow_nan=False) if json_ else str(found))
    finally:
        engine.stop()


@app.command
def sample(
    run: RunPath,
    *,
    number: Annotated[int, Parameter(name=["-n", "--number"], help="how many")],
    out: Out,
    seed: Annotated[int, Parameter(help="of the draws")] = 0,
    label: Annotated[str | None, Parameter(help="class to draw, for conditional models; else all in turn")] = None,
    mean: Annotated[bool, Parameter(help="the mean of p(x|z) instead of a draw")] = False,
    steps: Annotated[int | None, Parameter(help="levels of a diffusion to visit")] = None,
    noise: Annotated[float | None, Parameter(help="fresh noise at each: 1 the chain's own, 0 none (DDIM)")] = None,
) -> None:
    """Draw from the model: z from the prior, x from the likelihood; to .npz, .png, .csv (a table) or .txt (text)."""
    from lambent.runs.export import write_samples
    from lambent.runs.run import load

    write_samples(load(run), number, out, seed=seed, label=label, mean=mean, steps=steps, noise=noise)


@app.command
def reconstruct(
    run: RunPath,
    *,
    data: Data,
    out: Out,
    number: Annotated[int | None, Parameter(name=["-n", "--number"], help="only the first so many")] = None,
    split: Annotated[str, Parameter(help="train or test, where the source has both")] = "test",
) -> None:
    """Encode (deterministically) and decode data; to .npz, a picture .png of pairs or text .txt."""
    from lambent.runs.export import write_reconstructions
    from lambent.runs.run import load

    write_reconstructions(load(run), data, out, number=number, split=split)


@app.command
def encode(
    run: RunPath,
    *,
    data: Data,
    out: Out,
    sample: Annotated[bool, Parameter(help="draws of q(z|x) instead of its mode")] = False,
    seed: Annotated[int, Parameter(help="of the draws")] = 0,
    split: Annotated[str, Parameter(help="train or test, where the source has both")] = "test",
) -> None:
    """Latents of data, as z in an .npz (with the labels, if there are any)."""
    from lambent.runs.export import write_encodings
    from lambent.runs.run import load

    write_encodings(load(run), data, out, seed=seed if sample else None, split=split)


@app.command
def interpolate(
    run: RunPath,
    *,
    data: Data,
    out: Out,
    pairs: Annotated[int, Parameter(help="how many pairs of neighbouring examples")] = 8,
    steps: Annotated[int, Parameter(help="points from one end to the other")] = 10,
    split: Annotated[str, Parameter(help="train or test, where the source has both")] = "test",
) -> None:
    """Decode points between the encodings of pairs of examples; to .npz, a picture .png or text .txt."""
    from lambent.runs.export import write_interpolations
    from lambent.runs.run import load

    write_interpolations(load(run), data, out, pairs=pairs, steps=steps, split=split)


@app.command
def report(run: RunPath, *, out: Out) -> None:
    """Write one self-contained HTML page: curves, samples, reconstructions, the latent space, numbers in words."""
    from lambent.report import write_report
    from lambent.runs.run import load

    write_report(load(run), out)


@app.command
def gradients(
    source: Annotated[str, Parameter(help="a run's folder, or a recipe: a fresh model on its own data")],
    *settings: str,
    data: Annotated[str | None, Parameter(help="what to take the batch from; else the training data")] = None,
    repetitions: Annotated[int, Parameter(help="gradients of each estimator")] = 500,
    batch_size: Annotated[int | None, Parameter(help="examples in the batch; else as in training")] = None,
    samples: Annotated[int | None, Parameter(help="importance samples K; else the draw's own")] = None,
    warm_up: Annotated[int, Parameter(help="steps that fit baselines and control variates first")] = 500,
    epochs: Annotated[int, Parameter(help="passes over the data that a recipe is trained for before")] = 0,
    seed: Annotated[int, Parameter(help="of the batch and the noise")] = 0,
    json_: Annotated[bool, Parameter(name="--json", help="print one JSON object")] = False,
    out: Annotated[Path | None, Parameter(help="draw variance against cost, to .svg or .png")] = None,
) -> None:
    """Compare gradient estimators on one batch: bias against the exact gradient where it exists, variance, cost.

    Settings are key=value: any of a recipe; of a run those of draw, objective and rate.
    """
    from lambent.cli.gradients_text import comparison_text
    from lambent.config import settings_of_tokens
    from lambent.gradients.compare import compare_gradients
    from lambent.report.gradient_plot import check_picture, write_picture
    from lambent.training.console import Console

    if out is not None:
        check_picture(out)
    found = compare_gradients(
        source,
        data,
        settings=settings_of_tokens(settings),
        samples=samples,
        batch_size=batch_size,
        repetitions=repetitions,
        warm_up=warm_up,
        epochs=epochs,
        seed=seed,
        say=Console().say,
    )
    if out is not None:
        write_picture(found, out)
    print(json.dumps(found.to_dict(), indent=1, allow_nan=False) if json_ else comparison_text(found))


@app.command
def compare(
    *runs: Annotated[Path, Parameter(help="folders that `lambent fit` wrote; the others are held against the first")],
    data: Annotated[
        str | None, Parameter(help="source; else what the runs kept from training, the same in all")
    ] = None,
    samples: Annotated[int, Parameter(help="importance samples K per example")] = 100,
    seed: Annotated[int, Parameter(help="of the noise")] = 0,
    threads: Annotated[int | None, Parameter(help="processors to use")] = None,
    json_: Annotated[bool, Parameter(name="--json", help="print one JSON object")] = False,
    out: Annotated[Path | None, Parameter(help="draw rate against distortion, to .svg, .png or an .html page")] = None,
) -> None:
    """Compare runs that score the same data in the same way: bounds, rate, mutual information, active units.

    A run's own evaluation is read where it is of these data, K and seed; else the run is measured.
    """
    from lambent.report.runs.file import check_file, write_comparison
    from lambent.report.runs.text_table import runs_text
    from lambent.runs.compare import compare_runs
    from lambent.training.console import Console

    if out is not None:
        check_file(out)
    found = compare_runs(runs, data, samples=samples, seed=seed, threads=threads, say=Console().say)
    if out is not None:
        write_comparison(found, out)
    print(json.dumps(found.to_dict(), indent=1, allow_nan=False) if json_ else runs_text(found))


@app.command
def demo(*, out: Annotated[Path, Parameter(help="folder of the run")] = Path("runs/demo")) -> None:
    """Train a small VAE on the handwritten digits, measure it, and write its report: about a minute."""
    from lambent.cli.demo import demo as run_demo

    run_demo(out)


def command_line() -> Any:
    """The application, for documentation tools."""
    return app
