"""Parts combine freely: grey levels scored exactly, under three priors and two posteriors, with IWAE and DReG."""

from __future__ import annotations

import lambent


def main(epochs: int = 20) -> dict[tuple[str, str], float]:
    levels = {"likelihood": "discretised-logistic", "binarize": "none", "latent": 6, "epochs": epochs}
    bits: dict[tuple[str, str], float] = {}
    for prior in ("normal", "mixture"):
        for posterior in ("normal", "full-cov", "low-rank"):
            run = lambent.fit(
                "vae", "digits", prior=prior, posterior=posterior, objective="iwae", draw="dreg", samples=5, **levels
            )
            found = run.evaluate(samples=200)
            assert found.bits_per_dim is not None
            bits[prior, posterior] = found.bits_per_dim
            print(f"{prior:>8} prior, {posterior:>8} posterior: {found.bits_per_dim:.4f} bits/dim ({found.best[0]})")
    return bits


if __name__ == "__main__":
    main()
