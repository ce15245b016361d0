"""Two more minutes of training for the shipped model, on two CPU cores: `make demo`.

  python train.py --config configs/demo.py --workdir runs/demo
  python eval.py --models lite,runs/demo --images photographs:validation --out runs/demo/evaluation

Starts from `lite` and trains it with focal frequency loss and dynamic spectrum loss, on procedural
images and four photographs in the scikit-image wheel. There is no LPIPS, and no discriminator,
which would need longer training."""

from configs import lite


def get_config():
    config = lite.get_config("base")
    config.init_from = "lite"
    config.model.fcm_width = 16

    config.data.train = ("dead_leaves:128", "photographs:train")
    config.data.weights = (1.0, 3.0)
    config.data.cache = True

    config.loss.lpips = 0.0
    config.loss.ffl = 0.5
    config.loss.dsl = 0.01

    config.optimizer.kind = "adam"
    config.optimizer.learning_rate = 1e-4
    config.optimizer.warmup_steps = 20
    config.optimizer.ema_decay = 0.98

    config.train.steps = 100
    config.train.batch_size = 2
    config.train.log_every = 20
    config.train.summary_every = 100
    config.train.checkpoint_every = 50
    return config
