"""An evaluation as the table that `lambent evaluate` and ``print(run.evaluate())`` print."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lambent.evaluation.mutual_information import Information

if TYPE_CHECKING:
    from lambent.evaluation.summary import Evaluation, MeanEstimate

MOST_PARTS = 4
UNITS_BY = {
    "mean": "",
    "rate": "  (rate above 0.01 nats)",
    "rate or mean": "  (rate above 0.01 nats; where it isn't known by latent, variance of the mean above 0.01)",
}
"""How active units are counted, where not by the variance of the posterior's mean."""


def evaluation_text(found: Evaluation) -> str:
    """An evaluation for people: each number with its error and what it is."""
    weighted = None if found.codes else found.iwae  # of a point among codes one weight says all: it is the ELBO
    plain = found.log_likelihood is not None and not (found.latent or found.rates)  # no latents: one number says all
    bounds = [] if plain else [("ELBO", found.elbo), (f"IWAE-{found.samples}", weighted)]
    rows = [*bounds, ("log-likelihood", found.log_likelihood)]
    drawn = f", K = {found.samples}" if found.latent or found.rates else ""
    error = f"error of log p(x|z): sd {found.log_px_error_sd:.2g} nats"
    arithmetic = f", in {found.precision} ({error}), corrected by samples in float32"
    arithmetic = "" if found.precision == "float32" else arithmetic
    lines = [f"{found.data}: {found.n} examples{drawn}{arithmetic}"]
    lines += [f"  {name:<16} {_figure(value)}  ({value.kind})" for name, value in rows if value is not None]
    if found.iwae is None and found.log_likelihood is None and found.elbo.kind == "lower bound":
        lines.append(f"  {'IWAE':<16} none: part of the bound is an estimate, which has no importance weights")
    above = "  (upper bound on KL(q||p): log p(z) is a lower bound)" if found.estimated else ""
    if not plain:
        lines += [f"  {'rate':<16} {_figure(found.rate)}{above}", *_levels(found)]
        lines += [f"  {'distortion':<16} {_figure(found.distortion)}"]
    if found.bits_per_dim is not None:
        parts = " + ".join(f"{name} {bits:.5f}" for name, bits in (found.parts_in_bits or {}).items())
        source = "from " + ("elbo" if found.codes else found.best[0])
        source += f": {parts}" if parts and len(found.rates or {}) <= MOST_PARTS else ""
        lines.append(f"  {found.bits_name:<16} {found.bits_per_dim:.5f} ± {found.bits_se:.5f}  ({source})")
    if found.log_jacobian:
        lines.append(
            f"  {'unit':<16} scaled data; add {found.log_jacobian:.4f} nats for densities in the original unit"
        )
    if found.effective is not None and found.samples > 1:
        lines.append(f"  {'effective K':<16} {found.effective:.1f} of {found.samples}")
    if found.information is not None:
        lines.append(f"  {'I(x;z)':<16} {information_text(found.information)}")
    if found.latent and not found.codes:
        lines.append(f"  {'active units':<16} {found.active_units} of {found.latent}{UNITS_BY[found.units_by]}")
    for name, used in (found.codes or {}).items():
        lines.append(f"  {f'codes {name}':<16} {used['usage']:.1%} used, perplexity {used['perplexity']:.1f}")
    if found.non_finite:
        lines.append(f"  {'not finite':<16} {found.non_finite} examples: they make the means -inf")
    return "\n".join(lines)


def _levels(found: Evaluation) -> list[str]:
    """A line a level, where there are several."""
    units = {name: f"  ({active} of {size} units active)" for name, (active, size) in (found.units or {}).items()}
    rates = found.rates or {}
    return [f"    {f'rate {name}':<14} {_figure(value)}{units.get(name, '')}" for name, value in rates.items()]


def information_text(found: Information) -> str:
    """The mutual information with what bounds it."""
    return f"{found.value:.4f} ± {found.se:.4f} nats  (lower bound, from {found.n} examples: at most {found.most:.2f})"


def _figure(value: MeanEstimate) -> str:
    return f"{value.value:.4f} ± {value.se:.4f} nats"
