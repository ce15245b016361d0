"""Settings of the training run: groups `optimizer` and `train`."""

import dataclasses

from fa_hific_jax.settings.declare import (
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    Group,
    Rule,
    at_least,
    one_of,
    setting,
)

_BEST_BY = ("loss", "eval/loss", "eval/psnr", "eval/bpp")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig(Group, name="optimizer"):
    """Settings of Adam or Muon and of their learning rates: group `optimizer`."""

    kind: str = setting("adam", one_of("adam", "muon"))
    """Optimizer of the autoencoder: `"adam"` (HiFiC), or `"muon"` for the kernels of its
    convolutions, which learns in fewer steps and suits short runs (docs/training.md). The
    discriminator always has Adam."""
    learning_rate: float = setting(1e-4, POSITIVE)
    """Learning rate of the autoencoder (HiFiC). Muon's updates are as long as Adam's."""
    discriminator_learning_rate: float = setting(1e-4, POSITIVE)
    """Learning rate of the discriminator (HiFiC)."""
    warmup_steps: int = setting(0, NOT_NEGATIVE)
    """Steps in which both learning rates rise linearly to their values, 0 for none (HiFiC)."""
    drop_steps: tuple[int, ...] = setting(
        (500_000,), Rule(lambda steps: all(step >= 1 for step in steps), "each must be at least 1")
    )
    """Steps at which both learning rates are multiplied by `optimizer.drop_factor` (HiFiC: at half
    of its 1M steps)."""
    drop_factor: float = setting(0.1, POSITIVE)
    """Factor at each of the drops (HiFiC)."""
    clip_norm: float = setting(0.0, NOT_NEGATIVE)
    """Longest gradient, as the Euclidean norm over all parameters; a longer one is scaled down to
    this norm. 0 for no limit (HiFiC)."""
    ema_decay: float = setting(0.0, SHARE)
    """Decay per step of the exponential moving average (EMA) of the autoencoder's parameters, as in
    0.999. Checkpoints give the EMA parameters to eval.py and export. In the first steps the decay
    is (1 + step) / (10 + step) where that is smaller. 0 to use the parameters of the last step."""


@dataclasses.dataclass(frozen=True)
class TrainConfig(Group, name="train"):
    """Settings of the length of a run and of what it writes: group `train`."""

    steps: int = setting(1_000_000, at_least(1))
    """Number of training steps (HiFiC)."""
    batch_size: int = setting(8, at_least(1))
    """Images in a batch, over all devices (HiFiC)."""
    accumulate: int = setting(1, at_least(1))
    """Number of parts in which a batch is computed, one after the other, to save memory. Must
    divide `train.batch_size`. The FFL options `"ave_spectrum"` and `"batch_matrix"` then apply to
    each part instead of to the batch."""
    fsdp: int = setting(1, at_least(1))
    """Number of devices over which parameters and optimizer state are split, 1 for a full copy on
    each. Must divide the number of devices (docs/training.md)."""
    recompute: bool = setting(False)
    """True to compute the autoencoder a second time for its gradient (rematerialization), so that
    its activations take no memory while the losses are computed (docs/training.md)."""
    max_nonfinite: int = setting(10, at_least(1))
    """Number of steps in a row that may have a value or gradient that is not finite. Such a step
    leaves the state as it was; one more ends the run."""
    seed: int = setting(0, NOT_NEGATIVE)
    """Seed of the initial parameters, the noise and the order of the data."""
    log_every: int = setting(100, at_least(1))
    """Steps between log lines."""
    summary_every: int = setting(5_000, at_least(1))
    """Steps between example images in the log."""
    checkpoint_every: int = setting(5_000, at_least(1))
    """Steps between checkpoints."""
    checkpoint_minutes: float = setting(0.0, NOT_NEGATIVE)
    """Minutes after which the next log line also writes a checkpoint, 0 to count steps alone."""
    checkpoints_kept: int = setting(3, at_least(1))
    """Number of newest checkpoints that are kept."""
    keep_best: str = setting(
        "",
        Rule(
            lambda metric: metric in ("", *_BEST_BY),
            f"choose one of {', '.join(_BEST_BY)}, or '' to keep none for its quality",
        ),
    )
    """Metric of the best checkpoint, which is kept in addition to the newest ones: `"loss"` (mean
    training loss since the last log line), `"eval/loss"`, `"eval/psnr"` or `"eval/bpp"`; `""` to
    keep none for its metric."""
    evaluate_every: int = setting(0, NOT_NEGATIVE)
    """Steps between validations on `data.evaluation`, which give the three eval/ metrics, 0 for
    none. They use squares with side `data.crop` from the middle of at most 32 images."""

    def __post_init__(self):
        super().__post_init__()
        every = self.evaluate_every
        self.require(
            not self.keep_best.startswith("eval/")
            or (every and self.checkpoint_every % every == 0),
            "keep_best",
            f"train.evaluate_every is {every}: choose a divisor of train.checkpoint_every="
            f"{self.checkpoint_every}, so that every checkpoint is measured",
        )
        wanted = f"train.accumulate={self.accumulate} does not divide it; choose a divisor"
        self.require(self.batch_size % self.accumulate == 0, "batch_size", wanted)
