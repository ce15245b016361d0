"""Every field of a config: default, unit and source. The defaults are HiFiC's (lowest rate).

The other configs import this one and change what they must. Sources: "HiFiC" is Mentzer et al.
2020 with models/hific of tensorflow/compression, "FA-HiFiC" the authors' poster and repository
(aa35037123/frequency-augmented-high-fidelity-generative-compression), "FA-VAE" Lin et al., CVPR
2023, "FFL" Jiang et al., ICCV 2021.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()

    # Folder of an earlier stage, of imported weights, or of a model exported with --trainable,
    # whose parameters a new run begins with; "lite" for the model that comes with the package, ""
    # for random parameters. A run that has checkpoints of its own goes on from those.
    config.init_from = ""
    # Parts of the names of the parameters that train, as parameters.txt lists them: ("fcm",
    # "sigma"), ("discriminator",), ("autoencoder/encoder/",). The others stay as they are. () for
    # all.
    config.trainable = ()

    config.model = ConfigDict()
    # Whose networks, "pytorch" (Justin-Tan's, on which FA-HiFiC was built: edges reflected) or
    # "tensorflow" (the original: zeros around, another discriminator); docs/fidelity.md lists all.
    config.model.variant = "pytorch"
    # Of the images that the networks see and make: "unit" for 0 to 1, "symmetric" for -1 to 1 with
    # tanh at the end, as PyTorch HiFiC's published low and high models.
    config.model.input_range = "unit"
    # Shape of the conditional distribution of y: "gaussian", or "logistic" as PyTorch HiFiC's
    # published medium model.
    config.model.likelihood = "gaussian"
    # Channels of the encoder's five levels, finest first (HiFiC).
    config.model.encoder_widths = (60, 120, 240, 480, 960)
    # Channels of the generator: its head at 1/16 of the size, then the four upsamplings (HiFiC).
    config.model.generator_widths = (960, 480, 240, 120, 60)
    # Channels of the latents y (HiFiC).
    config.model.latent_channels = 220
    # Channels of the hyper-latents z and of the networks around them (HiFiC).
    config.model.hyper_channels = 320
    # Residual blocks of the generator (HiFiC).
    config.model.residual_blocks = 9
    # Channels inside the frequency complement modules, 0 for none (FA-HiFiC: 64).
    config.model.fcm_width = 0
    # Their kind: "hific" (three times ChannelNorm, ReLU, convolution), FA-VAE's "conv", "residual"
    # and "attention" (at half the image's size; its time grows with the square of the pixels), or
    # "legacy" (the FA-HiFiC authors' own, for images of 256x256 alone). "hific" is the only one of
    # which a tile of an image gives what the whole gives.
    config.model.fcm = "hific"
    # Share of their activations that is zeroed in training (FA-HiFiC: 0.5; FA-VAE: 0, beside
    # attention 0.1).
    config.model.fcm_dropout = 0.0
    # What the hyper-synthesis sees in training: z with "noise" (HiFiC), or z rounded, with
    # "straight_through" gradients, as the decoder will see it.
    config.model.hyper_rounding = "noise"
    # Qualities at which the gains of y are learned, 0 for a model of one rate (HiFiC). A model with
    # gains, at least 2, codes at every rate between; it needs loss.rate_control "quality".
    config.model.qualities = 0
    # A linear transform of 16x16 blocks, begun as the DCT: "none" (HiFiC), "beside" encoder and
    # generator, so that they only learn what to add to a transform codec, or "alone", without them,
    # which teaches the hyperprior in minutes (docs/concepts.md).
    config.model.linear_path = "none"
    # Of the convolutions; norms, rates and losses are float32 always. "float32" or "bfloat16".
    config.model.dtype = "float32"

    config.discriminator = ConfigDict()
    # Channels of its 4x4 convolutions, all but the last of stride 2 (HiFiC).
    config.discriminator.widths = (64, 128, 256, 512)
    # Channels into which the latents are condensed as its condition (HiFiC).
    config.discriminator.context_channels = 12

    config.data = ConfigDict()
    # Images to train on, any number of (docs/data.md):
    #   "/data/photos", "/data/*/*.png", "gs://bucket/photos"  folder (searched below) or glob
    #   "arrayrecord:/data/packed"       shards that `fa-hific pack` wrote: the fastest
    #   "tfds:coco/2017"                 TensorFlow Datasets, prepared as ArrayRecord; or
    #   "tfds:open_images_v4/original"   (HiFiC's PyTorch version), "tfds:coco/2017:train[:10%]"
    #   "dead_leaves[:COUNT]"            procedural
    #   "photographs:train"              those in the scikit-image wheel
    config.data.train = ("dead_leaves", "photographs:train")
    # Share of each of them, () for equal shares.
    config.data.weights = ()
    # Side of a training crop, pixels (HiFiC).
    config.data.crop = 256
    # Images are scaled by a random factor between these before cropping (HiFiC), never below the
    # crop: shorter sides are enlarged to it.
    config.data.scale_min = 0.75
    config.data.scale_max = 0.95
    # Keep decoded images in memory; only for sets that fit.
    config.data.cache = False
    # Threads that read and crop, 0 for none beside the training loop; batches made ahead.
    config.data.threads = 8
    config.data.prefetch = 32
    # Where TensorFlow Datasets keeps its data; "" for the environment variable TFDS_DATA_DIR, else
    # ~/tensorflow_datasets.
    config.data.tfds_dir = ""
    # Images that eval.py compresses; same forms as `train`, and "photographs:held_out".
    config.data.evaluation = "photographs:held_out"

    config.loss = ConfigDict()
    # Rate to aim at, bits per pixel (HiFiC: 0.14, 0.30, 0.45).
    config.loss.target_bpp = 0.14
    # Weight of the rate while the rounded rate is above the target (HiFiC: 2, 1, 0.5 for the three
    # targets) and while it is not (HiFiC: 1/16).
    config.loss.lambda_above = 2.0
    config.loss.lambda_below = 2.0**-4
    # How the weight follows the rate: "switch" between these two (HiFiC), or a "controller" that
    # begins between them and follows the error of the mean rate. Of it: steps over
    # which it averages the rate, and its gain (docs/training.md). Or, with model.qualities, by
    # "quality": every image draws one from 0 to 1, and the weight falls geometrically from
    # lambda_above at 0 to lambda_below at 1, without target.
    config.loss.rate_control = "switch"
    config.loss.control_steps = 500
    config.loss.control_gain = 1.0
    # For so many first steps, lambdas and target are multiplied by the two factors (PyTorch HiFiC;
    # the original's code halves the lambdas and has 1/64 below: docs/training.md).
    config.loss.warmup_steps = 50_000
    config.loss.warmup_lambda = 2.0
    config.loss.warmup_target = 0.20 / 0.14
    # Weight of the mean squared error of 0..255 images (HiFiC: k_M).
    config.loss.mse = 0.075 * 2.0**-5
    # Weight of LPIPS (HiFiC: k_P = 1), and its weights, the .npz of `fa-hific get-lpips`.
    config.loss.lpips = 0.0
    config.loss.lpips_file = ""
    # Weight of the generator's adversarial term (HiFiC: beta = 0.15), 0 for no discriminator, and
    # its kind: "non_saturating" (HiFiC) or "least_squares".
    config.loss.gan = 0.0
    config.loss.gan_kind = "non_saturating"
    # Weight of the focal frequency loss on pixels in [0, 1] (FA-HiFiC: 0.5, FA-VAE: 1).
    config.loss.ffl = 0.0
    # Its options: exponent of the spectrum weight; split into patches per side; average spectra
    # over the batch; logarithm of the weights; normalise them over the whole batch (FFL).
    config.loss.ffl_alpha = 1.0
    config.loss.ffl_patch_factor = 1
    config.loss.ffl_ave_spectrum = False
    config.loss.ffl_log_matrix = False
    config.loss.ffl_batch_matrix = False
    # How FFL is balanced with the distortion (docs/balance.md): "fixed" by its weight (FA-HiFiC);
    # "gradient" so that its gradient is a share of that of MSE and LPIPS; "bands" by its weight, on
    # the frequencies that lack power; "power" with a loss on the power of the bands in its place,
    # and the same share.
    config.loss.balance = "fixed"
    config.loss.balance_share = 0.3
    # Weight of the dynamic spectrum loss (FA-HiFiC: 0.25, FA-VAE: 0.01); needs fcm_width.
    config.loss.dsl = 0.0
    # Exponent of its spectrum weight; side of its blurs, 3 to 15, odd unless legacy (FA-VAE: 9).
    config.loss.dsl_alpha = 1.0
    config.loss.dsl_kernel_size = 9
    # Blur as the FA-HiFiC authors' code does: the sum of all channels, with zeros around. Otherwise
    # each channel for itself, borders reflected (FA-VAE).
    config.loss.dsl_legacy_kernel = False
    # Weight of its levels: "mean", one over their number (FA-VAE), or "authors", one over each
    # level's channels (FA-HiFiC: 1/60 and 1/120).
    config.loss.dsl_weighting = "mean"
    # Standard deviation of the blurs in pixels, initially (FA-VAE: 3); learned (DSL) or fixed (SL).
    config.loss.dsl_sigma = 3.0
    config.loss.dsl_sigma_learned = True
    # One sigma for encoder and generator of a level, or one for each.
    config.loss.dsl_sigma_pairwise = False
    # Share of the images that are decoded with detail 0, the FCMs left out, and see rate, MSE and
    # LPIPS alone. The others draw a detail from 0 to 1, which multiplies what the FCMs add and the
    # weights of adversarial and frequency terms. 0 for full detail always (FA-HiFiC).
    config.loss.detail_zero = 0.0

    config.optimizer = ConfigDict()
    # Of the autoencoder: "adam" (HiFiC), or "muon" for the kernels of its convolutions, which
    # learns in fewer steps, for runs that are short (docs/training.md). The discriminator has Adam.
    config.optimizer.kind = "adam"
    # HiFiC: 1e-4 for both. Muon's steps are as long as Adam's.
    config.optimizer.learning_rate = 1e-4
    config.optimizer.discriminator_learning_rate = 1e-4
    # Steps in which both rise linearly to these values, 0 for none (HiFiC).
    config.optimizer.warmup_steps = 0
    # Steps at which both are multiplied by the factor (HiFiC: 0.1 at half of 1M steps).
    config.optimizer.drop_steps = (500_000,)
    config.optimizer.drop_factor = 0.1
    # Longest gradient, as Euclidean norm over all parameters; longer ones are scaled down to it.
    # 0 for no limit (HiFiC).
    config.optimizer.clip_norm = 0.0
    # Decay of the running mean of the autoencoder's parameters that checkpoints give to eval.py
    # and export, as in 0.999; min(decay, (1 + step) / (10 + step)) at first. 0 for the last ones.
    config.optimizer.ema_decay = 0.0

    config.train = ConfigDict()
    # Steps in all, and images in one, over all devices (HiFiC: 1M, 8).
    config.train.steps = 1_000_000
    config.train.batch_size = 8
    # Parts in which a batch is computed, one after the other, to save memory. Only what FFL takes
    # over the batch (ave_spectrum, batch_matrix) is then taken over a part.
    config.train.accumulate = 1
    # Devices over which parameters and optimizers are split, 1 for a full copy on each; must divide
    # the number of devices (docs/training.md).
    config.train.fsdp = 1
    # Compute the autoencoder a second time for its gradient (rematerialisation), so that what it
    # would keep takes no memory while the losses are computed (docs/training.md).
    config.train.recompute = False
    # Steps that are not finite leave the state as it is; more of them than this in a row end the
    # run.
    config.train.max_nonfinite = 10
    # Of parameters, noise and the order of data.
    config.train.seed = 0
    # Steps between log lines, and between example images.
    config.train.log_every = 100
    config.train.summary_every = 5_000
    # Steps between checkpoints, and minutes after which the next log line brings one too, 0 for
    # steps alone.
    config.train.checkpoint_every = 5_000
    config.train.checkpoint_minutes = 0.0
    # How many of the newest checkpoints stay, and by what the best one is known that stays too:
    # "loss" (of training, the mean since the last log line), "eval/loss", "eval/psnr", "eval/bpp";
    # "" for none.
    config.train.checkpoints_kept = 3
    config.train.keep_best = ""
    # Steps between looks at data.evaluation, squares of data.crop from the middle of at most 32
    # images, which give the three eval/ metrics; 0 for none.
    config.train.evaluate_every = 0

    config.evaluation = ConfigDict()
    # Weights of the LPIPS metrics, files of `fa-hific get-lpips`, one for each network. Without,
    # LPIPS is not measured; FD-Alex needs that of AlexNet.
    config.evaluation.lpips_files = ()
    # Weights of Inception for FID and KID (docs/evaluation.md says how to get them).
    config.evaluation.inception_file = ""
    # Classical codecs, run on the same images: "jpeg", "webp", "avif", "jpeg2000", "jpegxl", "bpg",
    # "vvc".
    config.evaluation.baselines = ("jpeg", "webp")
    # Qualities of each, spread from its smallest files to its largest; 0 for all of its sweep.
    config.evaluation.baseline_points = 0
    # Also run each at the size of the first model's file, image by image.
    config.evaluation.same_size = False
    # Also evaluate a randomly initialised model, as a control.
    config.evaluation.untrained_control = False

    return config.lock()
