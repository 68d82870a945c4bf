"""The commands and options of ``lambent``."""

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
    help="Train, evaluate and use latent-variable models. All bounds and rates are in nats unless stated otherwise.",
    version_flags=["--version"],
    help_format="plaintext",
    result_action="return_value",
)

Data = Annotated[
    str, Parameter(help="digits, mnist, fashion-mnist, FILE.npy, FILE.npz[:key], a folder, .csv, .parquet, .txt")
]
Out = Annotated[Path, Parameter(help="file to write")]
RunPath = Annotated[Path, Parameter(help="run folder, as `lambent fit` writes it")]


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
def recipes(*, json_: Annotated[bool, Parameter(name="--json", help="print a JSON list")] = False) -> None:
    """List the recipes: named models with their sources."""
    from lambent.cli.listing import recipe_rows, recipe_text

    print(json.dumps(recipe_rows(), indent=1, ensure_ascii=False) if json_ else recipe_text())


@app.command
def show(recipe: str, *settings: str) -> None:
    """Show every setting of a recipe: its value, type, range and meaning.

    Give key=value to see the settings that a choice has (for example prior=mixture).
    """
    from lambent.cli.listing import settings_text

    print(settings_text(recipe, settings))


@app.command
def fit(
    recipe: str,
    *settings: str,
    data: Annotated[
        str | None,
        Parameter(help="training data, as data.source in `lambent show`; default: the recipe's own, or digits"),
    ] = None,
    out: Annotated[Path, Parameter(help="run folder to write, or to continue with --resume")],
    config: Annotated[Path | None, Parameter(help="TOML file of settings, such as another run's recipe.toml")] = None,
    valid: Annotated[
        str | None, Parameter(help="validation data; default: a fraction of the training data is held out")
    ] = None,
    latent: Annotated[int | None, Parameter(help="latent dimensions (of a mixture: states)")] = None,
    prior: Annotated[
        str | None, Parameter(help="prior by name (with schedule=two-stage it is learned in the second stage)")
    ] = None,
    epochs: Annotated[int | None, Parameter(help="passes over the training set")] = None,
    batch_size: Annotated[int | None, Parameter(help="examples per training step, over all processes")] = None,
    seed: Annotated[int | None, Parameter(help="seed of weights, batches and noise")] = None,
    resume: Annotated[
        bool, Parameter(help="continue the run in --out; gives the same weights as without the interruption")
    ] = False,
    threads: Annotated[int | None, Parameter(help="CPU threads")] = None,
    device: Annotated[str | None, Parameter(help="auto, cpu, cuda, cuda:N")] = None,
) -> None:
    """Train a recipe (see `lambent recipes`) on data and write a run folder.

    SETTINGS are key=value pairs, any that `lambent show RECIPE` lists, such as prior=mixture train.lr=3e-4.
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
    data: Annotated[
        str | None, Parameter(help="data to evaluate on; default: the test split of the training data")
    ] = None,
    method: Annotated[
        str, Parameter(help="iwae, log p(x) by importance, prior or ais, or else surgery or sample-quality")
    ] = "iwae",
    samples: Annotated[
        int | None, Parameter(help="samples K per example; default: 100, or as the method needs")
    ] = None,
    temperatures: Annotated[int, Parameter(help="annealing steps of method ais")] = 100,
    seed: Annotated[int, Parameter(help="seed of the noise")] = 0,
    threads: Annotated[int | None, Parameter(help="CPU threads")] = None,
    precision: Annotated[
        str, Parameter(help="arithmetic of p(x|z): float32, or faster bfloat16 or int8 (the bounds stay unbiased)")
    ] = "float32",
    json_: Annotated[bool, Parameter(name="--json", help="print one JSON object")] = False,
) -> None:
    """Evaluate a run: ELBO, IWAE-K, rate, distortion, exact log-likelihood if there is one, with standard errors.

    Other methods estimate log p(x) by importance sampling, by sampling the prior or by annealing (ais), take the rate
    apart (surgery), or compare samples with data by Fréchet distance, precision and recall (sample-quality).
    """
    from lambent.runs.run import load
    from lambent.training.engine import start_engine

    opened = load(run)
    if method != "iwae":
        measured = opened.measure(method, data, samples=samples, seed=seed, temperatures=temperatures)
        print(json.dumps(measured.to_dict(), indent=1, allow_nan=False) if json_ else measured)
        return
    engine = start_engine(str(opened.device))
    try:
        settings: dict[str, Any] = {
            "samples": 100 if samples is None else samples,
            "seed": seed,
            "threads": threads,
            "precision": precision,
        }
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
    number: Annotated[int, Parameter(name=["-n", "--number"], help="number of samples")],
    out: Out,
    seed: Annotated[int, Parameter(help="seed of the draws")] = 0,
    label: Annotated[
        str | None, Parameter(help="class to sample, for models conditioned on labels; default: all in turn")
    ] = None,
    mean: Annotated[bool, Parameter(help="write the mean of p(x|z) instead of a draw")] = False,
    steps: Annotated[int | None, Parameter(help="diffusion: timesteps to visit")] = None,
    eta: Annotated[float | None, Parameter(help="fresh noise at each: 1 the chain's own, 0 none (DDIM)")] = None,
    noise: Annotated[float | None, Parameter(show=False)] = None,
) -> None:
    """Draw from the model: z from the prior, x from the likelihood; to .npz, .png, .csv (a table) or .txt (text)."""
    from lambent.runs.export import write_samples
    from lambent.runs.run import load

    if noise is not None:
        warnings.warn("--noise is now --eta", RenamedSetting, stacklevel=2)
        eta = noise if eta is None else eta
    write_samples(load(run), number, out, seed=seed, label=label, mean=mean, steps=steps, noise=eta)


@app.command
def reconstruct(
    run: RunPath,
    *,
    data: Data,
    out: Out,
    number: Annotated[
        int | None, Parameter(name=["-n", "--number"], help="reconstruct only the first N examples")
    ] = None,
    split: Annotated[str, Parameter(help="train or test, where the data have both")] = "test",
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
    sample: Annotated[bool, Parameter(help="draw from q(z|x) instead of taking its mode")] = False,
    seed: Annotated[int, Parameter(help="seed of the draws")] = 0,
    split: Annotated[str, Parameter(help="train or test, where the data have both")] = "test",
) -> None:
    """Encode data: write the latents as z to an .npz (with the labels, if there are any)."""
    from lambent.runs.export import write_encodings
    from lambent.runs.run import load

    write_encodings(load(run), data, out, seed=seed if sample else None, split=split)


@app.command
def interpolate(
    run: RunPath,
    *,
    data: Data,
    out: Out,
    pairs: Annotated[int, Parameter(help="number of pairs, each of two consecutive examples")] = 8,
    steps: Annotated[int, Parameter(help="points per pair, both ends included")] = 10,
    split: Annotated[str, Parameter(help="train or test, where the data have both")] = "test",
) -> None:
    """Decode points between the encodings of pairs of examples; to .npz, a picture .png or text .txt."""
    from lambent.runs.export import write_interpolations
    from lambent.runs.run import load

    write_interpolations(load(run), data, out, pairs=pairs, steps=steps, split=split)


@app.command
def report(run: RunPath, *, out: Out) -> None:
    """Write one self-contained HTML page: evaluation, training curves, samples, latent space, settings."""
    from lambent.report import write_report
    from lambent.runs.run import load

    write_report(load(run), out)


@app.command
def gradients(
    source: Annotated[
        str, Parameter(help="run folder, or recipe (then a newly initialised model on its default data)")
    ],
    *settings: str,
    data: Annotated[str | None, Parameter(help="data to take the batch from; default: the training data")] = None,
    repetitions: Annotated[int, Parameter(help="gradients computed with each estimator")] = 500,
    batch_size: Annotated[int | None, Parameter(help="examples in the batch; default: as in training")] = None,
    samples: Annotated[int | None, Parameter(help="importance samples K; default: as in the settings")] = None,
    warm_up: Annotated[int, Parameter(help="steps that fit baselines and control variates beforehand")] = 500,
    epochs: Annotated[int, Parameter(help="passes over the data that a recipe is trained for beforehand")] = 0,
    seed: Annotated[int, Parameter(help="seed of the batch and the noise")] = 0,
    json_: Annotated[bool, Parameter(name="--json", help="print one JSON object")] = False,
    out: Annotated[Path | None, Parameter(help="also write a plot of variance against cost, as .svg or .png")] = None,
) -> None:
    """Compare gradient estimators on one batch: bias (against the exact gradient, where it exists), variance, cost.

    SETTINGS are key=value pairs: any of a recipe; for a run only those of draw, objective and rate.
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
    *runs: Annotated[Path, Parameter(help="run folders; the first is the baseline")],
    data: Annotated[
        str | None, Parameter(help="data to evaluate on; default: what the runs held out, which must be the same")
    ] = None,
    samples: Annotated[int, Parameter(help="importance samples K per example")] = 100,
    seed: Annotated[int, Parameter(help="seed of the noise")] = 0,
    threads: Annotated[int | None, Parameter(help="CPU threads")] = None,
    json_: Annotated[bool, Parameter(name="--json", help="print one JSON object")] = False,
    out: Annotated[
        Path | None, Parameter(help="also write a plot of rate against distortion, as .svg, .png or .html")
    ] = None,
) -> None:
    """Compare runs on the same data: bounds, rate, mutual information, active units.

    A stored evaluation of the same data, K and seed is reused; otherwise the run is evaluated.
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
def demo(*, out: Annotated[Path, Parameter(help="run folder to write")] = Path("runs/demo")) -> None:
    """Train a small VAE on the handwritten digits, evaluate it and write its report; takes about a minute."""
    from lambent.cli.demo import demo as run_demo

    run_demo(out)


def command_line() -> Any:
    """The application, for documentation tools."""
    return app
