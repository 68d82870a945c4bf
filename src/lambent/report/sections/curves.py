"""How the training went: the bound, the rate and the distortion against the step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lambent.report.drawing import BLUE, GREY, INK, ORANGE, Axes, Paint, draw, number, with_error
from lambent.report.html import Panel, Section
from lambent.runs.run import Run


@dataclass(frozen=True)
class Curve:
    """One quantity against the step, on the training and the validation set."""

    train: np.ndarray
    valid: np.ndarray
    """(points, 2): step, nats."""

    @classmethod
    def of(cls, history: tuple[dict[str, Any], ...], key: str) -> Curve:
        """The curve of ``key`` in lines of metrics; what is not finite leaves a gap."""

        def points(part: str) -> np.ndarray:
            found = [(row["step"], row[part][key]) for row in history if key in row.get(part, {})]
            return np.array(found, dtype=float).reshape(-1, 2)

        return cls(points("train"), points("valid"))

    def frame(self) -> tuple[float, float] | None:
        """Limits of the axis that show the course after the first tenth of the steps."""
        both = np.concatenate([self.train, self.valid])
        both = both[np.isfinite(both[:, 1])]
        if not len(both):
            return None
        late = both[both[:, 0] >= 0.1 * both[:, 0].max()][:, 1]
        margin = 0.06 * float(np.ptp(late)) or 0.05 * abs(float(late[0])) or 1.0
        return float(late.min()) - margin, float(late.max()) + margin

    def outside(self) -> int:
        """Points that the frame leaves out."""
        low, high = self.frame() or (0.0, 0.0)
        values = np.concatenate([self.train, self.valid])[:, 1]
        return int(((values < low) | (values > high)).sum())

    def at(self, step: int) -> float | None:
        """The validation value at ``step``."""
        found = self.valid[self.valid[:, 0] == step]
        return float(found[0, 1]) if len(found) else None


def bound_name(run: Run, kind: str) -> str:
    """What the bound is called, with what it is."""
    if kind == "not a bound":
        return "log p(x|z) − rate (not a bound)" if _has_rate(run) else "log p(x|z) (not a bound)"
    if not run.config.has_latents:
        return f"log p(x) ({kind})"
    name = f"IWAE-{run.config.drawing.samples}" if run.config.objective.needs_weights else "ELBO"
    return f"{name} ({kind})"


def training(run: Run) -> Section:
    """Bound, rate and distortion over the steps."""
    kinds = [row[part]["kind"] for row in run.history for part in ("valid", "train") if part in row]
    if not kinds:
        return Section("Training", text="No line of metrics was written: the run took no step.")
    name = bound_name(run, kinds[-1])
    if len(run.history) < 3:
        return Section("Training", text=f"{_course(run)} {_bound(run, name).words}")
    panels = [_bound(run, name)]
    if _has_rate(run):
        panels += [_term(run, "rate", "Rate KL(q‖p)"), _term(run, "distortion", "Distortion −E log p(x|z)")]
        panels += [_trade(run)] if sum("valid" in row for row in run.history) > 3 else []
    return Section("Training", panels, text=_course(run))


def _has_rate(run: Run) -> bool:
    return any(row.get("valid", {}).get("rate", 0.0) for row in run.history)


def _course(run: Run) -> str:
    last = run.history[-1]
    skipped = max((row.get("skipped", 0) for row in run.history), default=0)
    outliers = max((row.get("outliers", 0) for row in run.history), default=0)
    lost = f" {skipped} steps were skipped because their gradient was not finite." if skipped else ""
    lost += f" {outliers} were left out because theirs was far longer than usual." if outliers else ""
    noisy = run.config.corruption is not None
    seen = f" Training values are of the batches just seen{', corrupted' if noisy else ''}." if _has_train(run) else ""
    return (
        f"{last['step']:,} steps, {number(last['epoch'], 1)} passes over the training set. The weights in use are of "
        f"step {run.step:,}, the best on the validation set.{lost}{seen} All values are nats per example."
    )


def _has_train(run: Run) -> bool:
    return any("train" in row for row in run.history)


def _bound(run: Run, name: str) -> Panel:
    curve = Curve.of(run.history, "bound")
    best = curve.at(run.step)
    errors = {row["step"]: row["valid"]["se"] for row in run.history if "valid" in row}
    words = []
    if best is not None:
        words.append(f"Best on validation: {with_error(best, errors[run.step], 2)} nats at step {run.step:,}")
    if len(curve.valid) > 1 and curve.valid[-1, 0] != run.step:
        words.append(f"last: {number(curve.valid[-1, 1])} nats at step {int(curve.valid[-1, 0]):,}")
    return _panel(run, curve, f"{name}, higher is better", name, "; ".join(words), best)


def _term(run: Run, key: str, title: str) -> Panel:
    curve = Curve.of(run.history, key)
    best = curve.at(run.step)
    words = "" if best is None else f"{number(best)} nats on validation at step {run.step:,}, the weights in use"
    return _panel(run, curve, title, key, words, best)


def _trade(run: Run) -> Panel:
    """The validation set's way through the plane of rate and distortion."""
    rows = [row["valid"] | {"step": row["step"]} for row in run.history if "valid" in row]
    way = np.array([[row["rate"], row["distortion"]] for row in rows])
    way = way[np.isfinite(way).all(1)]
    late = way[len(way) // 10 :]
    in_use = [row for row in rows if row["step"] == run.step]

    def paint(axes: Axes) -> None:
        axes.plot(*late.T, color=BLUE, linewidth=0.9, alpha=0.7, marker="o", markersize=2.2, label="validation")
        for row in in_use:
            axes.plot(
                row["rate"], row["distortion"], "o", color=ORANGE, markersize=5.5, label=f"in use (step {run.step:,})"
            )
            axes.axline(
                (row["rate"], row["distortion"]), slope=-1, color=GREY, linewidth=0.8, zorder=0, label="same ELBO"
            )
        axes.set_xlabel("rate, nats")
        axes.set_ylabel("distortion, nats")
        axes.legend(loc="best", labelcolor=INK)

    first = f"From (rate {number(late[0, 0])}, distortion {number(late[0, 1])})"
    words = f"{first} to ({number(late[-1, 0])}, {number(late[-1, 1])}) nats; below the grey line the ELBO is higher."
    return Panel("Rate against distortion", words, svg=draw(paint, "Distortion against rate as training goes on"))


def _panel(run: Run, curve: Curve, title: str, name: str, words: str, best: float | None) -> Panel:
    outside = curve.outside()
    left_out = f" {outside} early point{'s lie' if outside > 1 else ' lies'} outside the frame." if outside else ""
    svg = draw(_painter(curve, f"{name}, nats", run.step, best), f"{title} against the training step")
    return Panel(title, f"{words}.{left_out}", svg=svg)


def _dots(points: np.ndarray) -> dict[str, Any]:
    """Marks where a line of so few points would not be seen."""
    return {"marker": "o", "markersize": 3} if len(points) < 3 else {}


def _painter(curve: Curve, label: str, step: int, best: float | None) -> Paint:
    def paint(axes: Axes) -> None:
        if len(curve.train):
            axes.plot(*curve.train.T, color=GREY, linewidth=1.1, label="training", **_dots(curve.train))
        axes.plot(*curve.valid.T, color=BLUE, label="validation", **_dots(curve.valid))
        if best is not None:
            axes.plot([step], [best], "o", color=ORANGE, markersize=5.5, label=f"in use (step {step:,})", zorder=4)
        axes.set_xlabel("training step")
        axes.set_ylabel(label)
        limits = curve.frame()
        if limits is not None:
            axes.set_ylim(limits)
        axes.set_xlim(left=0)
        axes.grid(visible=True, axis="y", color="#e8ebed", linewidth=0.6)
        axes.legend(loc="best", labelcolor=INK)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")

    return paint
