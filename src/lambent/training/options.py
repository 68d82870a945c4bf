"""The settings of a training."""

from __future__ import annotations

from dataclasses import dataclass

from lambent.settings import Part, option, part


@part("train", "train")
@dataclass(frozen=True)
class TrainOptions(Part):
    """How a model is trained; times are counted in epochs, steps or examples as each says."""

    epochs: int = option(100, "passes over the training set", minimum=0)
    steps: int | None = option(None, "training steps; overrides epochs", minimum=0)
    batch_size: int = option(100, "examples per training step, over all processes", minimum=1)
    lr: float = option(1e-3, "learning rate", above=0)
    lr_schedule: str = option(
        "constant", "shape of the learning rate over the run", choices=("constant", "cosine", "linear", "staircase")
    )
    final_lr_fraction: float = option(
        0.01, "final learning rate of cosine, linear and staircase, as a fraction of lr", minimum=0, maximum=1
    )
    warmup_steps: int = option(0, "training steps over which the learning rate rises linearly from 0", minimum=0)
    beta1: float = option(0.9, "Adam's decay of the mean gradient", minimum=0, maximum=0.99999)
    beta2: float = option(0.999, "Adam's decay of the squared gradient", minimum=0, maximum=0.999999)
    eps: float = option(1e-8, "Adam's epsilon", above=0)
    weight_decay: float = option(0.0, "decoupled weight decay (AdamW)", minimum=0)
    grad_clip: float | None = option(None, "largest norm of a parameter group's gradient; none does not clip", above=0)
    grad_spike_factor: float | None = option(
        None,
        "skip steps whose gradient norm before clipping is above this multiple of the last 100's median; none: "
        "skip no step",
        above=1,
    )
    precision: str = option(
        "float32",
        "arithmetic of matrix products and convolutions in training; bfloat16 is faster where the hardware has it; "
        "weights, all other operations and evaluation stay in float32",
        choices=("float32", "bfloat16"),
    )
    compile: bool = option(
        False,  # noqa: FBT003
        "compile model and objective at the first step: faster steps for small networks, after 15 to 60 seconds of "
        "compiling (on a CPU this needs a C++ compiler); weights differ in their last digits",
    )
    ema: float | None = option(None, "half-life of the weights' moving average, in examples; none: no average", above=0)
    patience: int | None = option(
        None, "stop after this many validations without a better bound; none: never", minimum=1
    )
    select_checkpoint: str = option(
        "bound",
        "weights that a run ends with: of the best validation bound, or the last (always, where the loss is no bound)",
        choices=("bound", "last"),
    )
    validate_every: int = option(1, "epochs between validations", minimum=1)
    valid_samples: int = option(1, "importance samples K of the validation bound", minimum=1)
    monitor_examples: int = option(
        500,
        "validation examples that mutual information and active units are estimated from, at quadratic cost; 0: none "
        "(schedule=aggressive-encoder always uses 2,000)",
        minimum=0,
    )
    collapse_threshold: float = option(
        0.1, "warn of posterior collapse when the validation rate is below this many nats; 0: never", minimum=0
    )
    log_every: int = option(100, "training steps between lines of metrics.jsonl", minimum=1)
    checkpoint_every: int = option(
        1000, "training steps between checkpoints (one is also written at each validation)", minimum=1
    )
    freeze: str = option(
        "none",
        "parameters that aren't trained: the generative side, the inference side, or both but the prior (autoencoder)",
        choices=("none", "generative", "inference", "autoencoder"),
    )
    init: str = option("", "run folder whose weights of the same names are the initial weights; empty: none")
    init_side: str = option("all", "which of its weights to take", choices=("all", "generative", "inference"))
    keep_checkpoints: int = option(2, "number of newest checkpoints to keep, beside the best", minimum=2)
    seed: int = option(0, "seed of the weights, the batches and the noise", minimum=0, maximum=2**31 - 1)
    threads: int | None = option(None, "CPU threads of torch; none: chosen by the number of cores", minimum=1)
    device: str = option("auto", "cpu, cuda, cuda:N, or auto (a GPU where there is one)")

    def total_steps(self, steps_per_epoch: int) -> int:
        """Steps of the whole training."""
        return self.epochs * steps_per_epoch if self.steps is None else self.steps
