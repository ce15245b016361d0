"""FCMs for the shipped model in about a minute of training, on two CPU cores: `make demo`.

  python train.py --config configs/demo.py --workdir runs/demo

Takes encoder, hyperprior and generator of `lite`, which stay as they are. Its FCMs are replaced by
new, narrower ones, which train with MSE, LPIPS and the loss on the power of frequency bins
(docs/balance.md), on four photographs in the scikit-image wheel. So files and their sizes are those
of `lite`, and at detail 0 so are the decoded images. There is no discriminator, which would need
longer training.

At quality 0.3, on three other photographs, the log-spectral distance falls from 8.9 dB at detail 0
to 6.9 dB at detail 1, for 0.09 dB of PSNR and 0.002 of LPIPS."""

from configs import lite


def get_config():
    config = lite.get_config("ours")
    config.init_from = "lite"
    config.trainable = ("fcm",)
    config.model.fcm_width = 8

    config.data.train = ("photographs:train",)
    config.data.cache = True
    config.data.crop = 128

    config.loss.gan = 0.0
    config.loss.lpips = 0.5
    config.loss.balance_share = 1.5
    config.loss.detail_zero = 0.0

    config.optimizer.warmup_steps = 10
    config.optimizer.drop_steps, config.optimizer.drop_factor = (100, 130), 0.1
    config.optimizer.ema_decay = 0.95

    config.train.steps = 150
    config.train.log_every = 25
    config.train.summary_every = 150
    config.train.checkpoint_every = 150
    return config
