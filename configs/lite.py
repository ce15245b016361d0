"""FA-HiFiC for a CPU, one model for every rate, with 10.1 M parameters instead of 182 M.

  data="--config.data.train=('images/',)"
  python train.py --config configs/lite.py:start --workdir runs/start $data
  python train.py --config configs/lite.py:base --workdir runs/base $data \\
      --config.init_from=runs/start
  python train.py --config configs/lite.py:ours --workdir runs/ours $data \\
      --config.init_from=runs/base

Stages and variants. `base` starts from `start`, all others start from `base` (docs/balance.md):

  start  rate and MSE, with the linear path alone: minutes in which mainly the hyperprior learns
  base   rate, MSE and LPIPS, with encoder and generator, without discriminator and FCM
  hific  base with the discriminator: HiFiC
  ffl    hific with FFL, at the FA-HiFiC authors' weight
  fa     ffl with FCMs and DSL, at the authors' weights: FA-HiFiC
  ours   base with FCMs whose output the decoder scales by the detail. Only the FCMs and the
         discriminator train, with the adversarial loss and, instead of FFL, a loss on the power of
         frequency bins

Encoder and generator are the folded ones (docs/concepts.md): no convolution runs at more than a
quarter of the image's height and width, where a CPU computes slowly, and the generator refines the
linear picture. After 25 minutes of training they had lower loss, LPIPS and halos and higher PSNR at
0.15, 0.30 and 0.45 bpp than HiFiC's networks with widths from 16 to 192. Learning rates and batch
size are for thousands of steps on a CPU.
"""

from configs import base

STAGES = ("start", "base", "hific", "ffl", "fa", "ours")


def get_config(stage: str = "ours"):
    if stage not in STAGES:
        raise ValueError(
            f"config variant {stage!r} does not exist: choose one of {', '.join(STAGES)}"
        )
    config = base.get_config()
    config.model.encoder_widths = (64, 128, 192)
    config.model.generator_widths = (192, 128, 64)
    config.model.latent_channels = 192
    config.model.hyper_channels = 128
    config.model.residual_blocks = 4
    config.model.linear_path = "alone" if stage == "start" else "beside"
    config.model.hyper_rounding = "straight_through"
    config.model.qualities = 8
    config.discriminator.widths = (32, 64, 128, 256)

    # In smaller crops most hyper-latents lie at an edge, and the hyperprior adapts to that: after
    # training with 128, whole images took two to three times the rate of the crops.
    config.data.crop = 256
    config.train.batch_size = 4
    # The photographs are small and many are JPEG files: scaling by 0.5 removes most artifacts.
    config.data.scale = (0.4, 1.0)
    config.data.threads = 1

    config.loss.rate_control = "quality"
    # 2000 steps of `base` reached 0.05 to 0.86 bpp on images of Kodak: the gains learn slowly.
    config.loss.lambda_above = 24.0
    config.loss.lambda_below = 0.012
    config.loss.warmup_steps = 0

    config.optimizer.kind = "muon"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 100
    config.optimizer.clip_norm = 5.0
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
        # With HiFiC's 1 its gradient was three times that of the MSE, which then hardly fell.
        config.loss.lpips = 0.5
        config.train.steps = 2000
        config.optimizer.drop_steps = (1350, 1700, 1880)
        config.optimizer.drop_factor = 0.3
        return config

    config.loss.lpips = 1.0
    config.loss.gan = 0.15
    config.optimizer.discriminator_learning_rate = 4e-4
    if stage in ("ffl", "fa"):
        config.loss.ffl = 0.5
    if stage == "fa":
        config.model.fcm_width = 16
        config.loss.dsl, config.loss.dsl_options = 0.25, ("channel_weighting",)
    if stage == "ours":
        # When the whole autoencoder trained, the losses that ask for detail cost rate and PSNR at
        # every detail. Now detail 0 is the base itself, so images with detail 0 teach nothing.
        config.trainable = ("fcm", "discriminator")
        config.model.fcm_width = 64
        config.loss.detail_zero = 0.1
        # With a share of 1, detail 1 cost 0.1 dB more PSNR at the same LPIPS.
        config.loss.gan = 0.05
        config.loss.ffl, config.loss.balance, config.loss.balance_share = 1.0, "power", 0.5
        config.train.steps = 1300
        config.optimizer.drop_steps, config.optimizer.drop_factor = (720, 1200), 0.3
    return config
