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
    batch_size: int = option(100, "examples a step, over all processes", minimum=1)
    lr: float = option(1e-3, "learning rate", above=0)
    lr_schedule: str = option(
        "constant", "learning rate over the run", choices=("constant", "cosine", "linear", "staircase")
    )
    final_lr_fraction: float = option(
        0.01, "fraction of lr that cosine, linear and staircase end at", minimum=0, maximum=1
    )
    warmup_steps: int = option(0, "steps over which the learning rate rises linearly from 0", minimum=0)
    beta1: float = option(0.9, "Adam's decay of the mean gradient", minimum=0, maximum=0.99999)
    beta2: float = option(0.999, "Adam's decay of the squared gradient", minimum=0, maximum=0.999999)
    eps: float = option(1e-8, "Adam's epsilon", above=0)
    weight_decay: float = option(0.0, "decoupled weight decay (AdamW)", minimum=0)
    grad_clip: float | None = option(None, "largest norm of a parameter group's gradient; none does not clip", above=0)
    grad_spike_factor: float | None = option(
        None,
        "a step is left out whose gradient norm, before clipping, is above so many times the median of the last 100; "
        "none leaves out none",
        above=1,
    )
    precision: str = option(
        "float32",
        "numbers that products and convolutions of a training step are done in; bfloat16 is faster where the processor "
        "has it, weights and all else stay float32, and measuring is in float32",
        choices=("float32", "bfloat16"),
    )
    compile: bool = option(
        False,  # noqa: FBT003
        "compile model and objective into one function at the first step, which takes from 15 seconds to a minute and, "
        "on a CPU, a C++ compiler: steps of small networks take less time, and the weights differ in their last digits",
    )
    ema: float | None = option(None, "half-life of the weights' moving average, in examples; none keeps none", above=0)
    patience: int | None = option(
        None, "validations without a better bound before stopping; none never does", minimum=1
    )
    select_checkpoint: str = option(
        "bound",
        "weights that a run ends with: of the best validation bound, or the last (where the loss seeks no bound)",
        choices=("bound", "last"),
    )
    validate_every: int = option(1, "epochs between validations", minimum=1)
    valid_samples: int = option(1, "importance samples K of the validation bound", minimum=1)
    monitor_examples: int = option(
        500,
        "validation examples of which mutual information and active units are taken, at the cost of their square; 0: "
        "neither (schedule=aggressive-encoder looks at 2,000 anyway)",
        minimum=0,
    )
    collapse_threshold: float = option(
        0.1, "nats of validation rate under which a collapsed posterior is warned of; 0: never", minimum=0
    )
    log_every: int = option(100, "steps between lines of metrics.jsonl", minimum=1)
    checkpoint_every: int = option(1000, "steps between checkpoints (one is written at each validation too)", minimum=1)
    freeze: str = option(
        "none",
        "the side whose parameters keep their values; autoencoder is both, all but the prior",
        choices=("none", "generative", "inference", "autoencoder"),
    )
    init: str = option("", "run folder to take the weights of matching names from; none if empty")
    init_side: str = option("all", "which weights to take from it", choices=("all", "generative", "inference"))
    keep_checkpoints: int = option(2, "newest checkpoints kept, beside the best", minimum=2)
    seed: int = option(0, "seed of the weights, the batches and the noise", minimum=0, maximum=2**31 - 1)
    threads: int | None = option(None, "torch threads; none chooses by the processors at hand", minimum=1)
    device: str = option("auto", "cpu, cuda, cuda:N, or auto: a GPU where there is one")

    def total_steps(self, steps_per_epoch: int) -> int:
        """Steps of the whole training."""
        return self.epochs * steps_per_epoch if self.steps is None else self.steps
