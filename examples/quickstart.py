"""Train a VAE on the handwritten digits, measure it, and use it. A few seconds."""

from __future__ import annotations

import lambent


def main(epochs: int = 30) -> lambent.Run:
    run = lambent.fit("vae", "digits", latent=2, epochs=epochs)

    found = run.evaluate(samples=500)
    print(f"ELBO      {found.elbo.value:8.3f} ± {found.elbo.se:.3f} nats ({found.elbo.kind})")
    if found.iwae is not None:
        print(f"IWAE-500  {found.iwae.value:8.3f} ± {found.iwae.se:.3f} nats ({found.iwae.kind})")

    codes = run.encode("digits")  # deterministic; pass seed= for draws of q(z|x)
    images = run.sample(16, seed=1)  # z from the prior, x from p(x|z)
    between = run.interpolate(codes[:1], codes[1:2], steps=5)
    print("codes", tuple(codes.shape), "samples", tuple(images.shape), "interpolation", tuple(between.shape))
    return run


if __name__ == "__main__":
    main()
