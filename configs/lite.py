"""FA-HiFiC light enough for a CPU, one model for every rate: 8.3 M of FA-HiFiC's 182 M parameters.

  data="--config.data.train=('images/',)"
  python train.py --config configs/lite.py:start --workdir runs/start $data
  python train.py --config configs/lite.py:base --workdir runs/base $data \\
      --config.init_from=runs/start
  python train.py --config configs/lite.py:ours --workdir runs/ours $data \\
      --config.init_from=runs/base

Stages and variants; all after the second begin with the trained second (docs/balance.md):

  start  rate and MSE, the linear path alone: minutes in which above all the hyperprior learns
  base   rate, MSE and LPIPS, with encoder and generator, without discriminator and FCM
  hific  with the discriminator: HiFiC
  ffl    hific and FFL with the FA-HiFiC authors' weight
  fa     ffl, FCMs and DSL with the authors' weights: FA-HiFiC
  ours   the base as it is, beside it FCMs of which the decoder takes as much as is asked for
         (detail); these alone learn what the discriminator and, in FFL's place, the power of the
         bands ask for

At the image's own size each channel costs as much time as sixteen at a quarter of it, so the finest
levels are narrow (16, where the paper has 60), and the residual blocks, at a sixteenth of the size,
have most of the parameters. Of five widths this one came furthest in the same time of training
(benchmarks/lite_width.py). Learning rates and batches are for thousands of steps on a CPU.
"""

from configs import base

STAGES = ("start", "base", "hific", "ffl", "fa", "ours")


def get_config(stage: str = "ours"):
    if stage not in STAGES:
        raise ValueError(
            f"config variant {stage!r} does not exist: choose one of {', '.join(STAGES)}"
        )
    config = base.get_config()
    config.model.encoder_widths = (16, 32, 64, 128, 192)
    config.model.generator_widths = (192, 128, 64, 32, 16)
    config.model.latent_channels = 192
    config.model.hyper_channels = 128
    config.model.residual_blocks = 5
    config.model.linear_path = "alone" if stage == "start" else "beside"
    config.model.hyper_rounding = "straight_through"
    config.model.qualities = 6
    config.discriminator.widths = (32, 64, 128, 256)

    # In smaller ones most hyper-latents lie at an edge, which the hyperprior learns to count on:
    # after training with 128, whole images took two to three times the crops' rate.
    config.data.crop = 256
    config.train.batch_size = 4
    # Small photographs, many of them JPEG files: halved, they have less of its traces.
    config.data.scale = (0.5, 0.95)
    config.data.threads = 1

    config.loss.rate_control = "quality"
    config.loss.lambda_above = 12.0
    config.loss.lambda_below = 0.08
    config.loss.warmup_steps = 0

    config.optimizer.kind = "muon"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 100
    config.optimizer.clip_norm = 50.0
    config.optimizer.ema_decay = 0.998

    config.train.log_every = 25
    config.train.summary_every = 1000
    config.train.checkpoint_every = 500
    if stage == "start":
        config.optimizer.learning_rate = 1.5e-3
        config.optimizer.drop_steps = (1000, 1250)
        config.optimizer.drop_factor = 0.3
        config.train.steps = 1500
        return config

    if stage == "base":
        # With HiFiC's 1 its gradient was three times that of the MSE, which hardly fell any more.
        config.loss.lpips = 0.5
        config.train.steps = 1500
        config.optimizer.drop_steps = (1100, 1350)
        config.optimizer.drop_factor = 0.3
        return config

    config.loss.lpips = 1.0
    config.loss.gan = 0.15
    config.optimizer.discriminator_learning_rate = 4e-4
    if stage in ("ffl", "fa"):
        config.loss.ffl = 0.5
    if stage in ("fa", "ours"):
        config.model.fcm_width = 16
    if stage == "fa":
        config.loss.dsl, config.loss.dsl_options = 0.25, ("channel_weighting",)
    if stage == "ours":
        # With all of the autoencoder in training, what asks for detail cost rate and PSNR at every
        # detail; now detail 0 is the base itself, and images that have it teach nothing.
        config.trainable = ("fcm", "discriminator")
        config.loss.detail_zero = 0.1
        # As much LPIPS as in the base: with 1 the modules gave PSNR for it, and had less detail.
        config.loss.lpips = 0.5
        config.loss.ffl, config.loss.balance, config.loss.balance_share = 1.0, "power", 0.5
        config.train.steps = 750
        config.optimizer.drop_steps = (560,)
    return config
