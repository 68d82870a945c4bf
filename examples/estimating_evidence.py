"""How estimates of log p(x) fail: linear-Gaussian models of 1 to 50 latents, where log p(x) is known exactly.

1,000 samples an example, from the prior, from the best diagonal Normal and from the exact posterior. What x tells of z
grows with the latents, so that draws of the prior miss it; and none of them knows by how much.

    python examples/estimating_evidence.py --out evidence.svg
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lambent.distributions import Normal
from lambent.draws import Ancestral
from lambent.evaluation.estimates import EvidenceEstimate, importance_sampling, prior_sampling
from lambent.evaluation.exact import exact_log_prob
from lambent.models import VAE
from lambent.recipes import configure
from lambent.shapes import Shapes
from lambent.training.em.em import maximise

LATENTS = (1, 2, 5, 10, 20, 50)
SIGNAL = 10.0  # how many times more precise a latent is known from x than before, on average, less one


class MeanField(nn.Module):
    """The diagonal Normal nearest to an exact Gaussian posterior in KL(q||p): its mean, 1 / diag of its precision."""

    def __init__(self, exact: nn.Module) -> None:
        super().__init__()
        self.exact = exact

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Normal:
        """The diagonal Normal of each example."""
        q = self.exact(x, condition)
        precision = torch.linalg.inv(q.covariance_matrix)
        return Normal(q.mean, -0.5 * precision.diagonal(dim1=-2, dim2=-1).log())


class Row(NamedTuple):
    """One model's estimates against its exact log p(x)."""

    latent: int
    proposal: str
    estimate: EvidenceEstimate
    exact: Tensor

    @property
    def short(self) -> Tensor:
        """Nats by which each example's estimate falls short of its log p(x)."""
        return self.exact - self.estimate.log_p


def linear_gaussian(latent: int) -> VAE:
    """p(x|z) = N(W z, I), W random of 2 x latent rows, so that x tells about as much of each latent in every model."""
    config = configure("ppca", tokens=(f"latent={latent}", "likelihood.scale=fixed", "likelihood.sigma=1.0"))
    model = config.model.build(config, Shapes((2 * latent,), latent))
    assert isinstance(model, VAE)
    affine = model.likelihood.decoder.affine
    with torch.no_grad():
        affine.weight.normal_(std=(SIGNAL / (2 * latent)) ** 0.5)
        affine.bias.zero_()
    model.likelihood.requires_grad_(requires_grad=False)
    maximise(model, torch.zeros(1, 2 * latent))  # p stays as it is; q becomes its exact posterior
    return model


@torch.no_grad()
def estimates(latent: int, examples: int, samples: int) -> list[Row]:
    """Three estimates of log p(x) for data drawn from the model itself."""
    torch.manual_seed(latent)
    model = linear_gaussian(latent)
    x = model(None, Ancestral(batch=examples)).px.sample()[0]
    log_p = exact_log_prob(model)
    assert log_p is not None
    exact = log_p(x, None)
    data = {"batch": lambda start, stop: (x[start:stop], None), "n": examples, "samples": samples}
    mean_field = VAE(model.prior, MeanField(model.posterior), model.likelihood)
    found = {
        "prior": prior_sampling(model, **data),
        "best diagonal Normal": importance_sampling(mean_field, **data),
        "exact posterior": importance_sampling(model, **data),
    }
    return [Row(latent, proposal, estimate, exact) for proposal, estimate in found.items()]


def table(rows: list[Row]) -> None:
    """Prints the mean shortfall with its standard error, the error each estimate claims, and its effective samples."""
    print(
        f"{'latents':>7}  {'drawn from':<20}  {'short of log p(x), nats':>24}  {'claimed error':>13}  {'effective':>9}"
    )
    for row in rows:
        mean, se = round(row.short.mean().item(), 4) + 0.0, row.short.std().item() / len(row.short) ** 0.5
        claimed, effective = row.estimate.se.median().item(), row.estimate.effective.median().item()
        print(f"{row.latent:>7}  {row.proposal:<20}  {mean:>14.4f} ± {se:<7.4f}  {claimed:>13.4f}  {effective:>9.1f}")


def plot(rows: list[Row], samples: int, out: Path) -> None:
    """Shortfall and effective samples against the number of latents, medians with 10 to 90 % of the examples."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.6, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for colour, marker, proposal in zip(("#d55e00", "#0072b2", "#444b52"), "os^", _proposals(rows), strict=True):
        mine = [row for row in rows if row.proposal == proposal]
        style = {"color": colour, "marker": marker, "markersize": 4.5, "label": proposal}
        _band(left, mine, [row.short for row in mine], style)
        claimed = [row.estimate.se.median().item() for row in mine]
        left.plot([row.latent for row in mine], claimed, ":", color=colour, linewidth=1.4)
        _band(right, mine, [row.estimate.effective for row in mine], style)
    left.set_yscale("symlog", linthresh=0.1, linscale=0.6)
    left.set_yticks([-1, -0.1, 0, 0.1, 1, 10, 100], ["−1", "−0.1", "0", "0.1", "1", "10", "100"])
    left.set(ylabel="log p(x) − estimate, nats", title="The estimate falls short …")
    left.plot([], [], ":", color="#777777", linewidth=1.4, label="standard error it claims")
    right.set_yscale("log")
    right.set_yticks([1, 10, 100, 1000], ["1", "10", "100", "1,000"])
    right.set(ylabel=f"effective samples of {samples:,}", title="… where few samples have all the weight")
    left.legend(frameon=False, fontsize=8.5, title=f"{samples:,} samples from the", title_fontsize=8.5)
    for axes in (left, right):
        _finish(axes)
    figure.savefig(out)


def _proposals(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(row.proposal for row in rows))


def _band(axes, rows: list[Row], values: list[Tensor], style: dict) -> None:  # noqa: ANN001
    at = [row.latent for row in rows]
    low, middle, high = torch.stack([v.quantile(torch.tensor([0.1, 0.5, 0.9]).double()) for v in values], 1).tolist()
    axes.plot(at, middle, **style)
    axes.fill_between(at, low, high, color=style["color"], alpha=0.18, linewidth=0)


def _finish(axes) -> None:  # noqa: ANN001
    axes.set_xscale("log")
    axes.set_xticks(LATENTS, [str(n) for n in LATENTS])
    axes.minorticks_off()
    axes.set_xlabel("latent dimensions")
    axes.title.set_fontsize(10.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", linewidth=0.4, alpha=0.6)


def main(examples: int = 200, samples: int = 1000, out: Path | None = None) -> list[Row]:
    rows = [row for latent in LATENTS for row in estimates(latent, examples, samples)]
    table(rows)
    if out is not None:
        plot(rows, samples, out)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="where to draw the figure: .svg, .png or .pdf")
    main(out=parser.parse_args().out)
