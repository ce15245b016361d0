"""Settings of the losses: group `loss`."""

import dataclasses

from fa_hific_jax.settings.declare import (
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    Group,
    Rule,
    one_of,
    setting,
    some_of,
)

GAN_KINDS = ("non_saturating", "least_squares")
"""Values of `loss.gan_kind`."""

_BLUR = Rule(
    lambda blur: 3 <= blur[0] <= 15 and blur[1] > 0,
    "give a side from 3 to 15 pixels and a positive standard deviation, as in (9, 3.0)",
)
_TWO_POSITIVE = Rule(lambda pair: min(pair) > 0, "both must be positive")
_CONTROL = Rule(
    lambda control: control[0] >= 1 and control[1] > 0,
    "give at least 1 step and a positive gain, as in (500, 1.0)",
)


@dataclasses.dataclass(frozen=True)
class LossConfig(Group, name="loss"):
    """Weights, targets and options of the losses: group `loss`."""

    target_bpp: float = setting(0.14, POSITIVE)
    """Rate to aim at, in bits per pixel (HiFiC: 0.14, 0.30, 0.45)."""
    lambda_above: float = setting(2.0, NOT_NEGATIVE)
    """Weight of the rate while the rounded rate is above the target (HiFiC: 2, 1 and 0.5 for its
    three targets)."""
    lambda_below: float = setting(2.0**-4, NOT_NEGATIVE)
    """Weight of the rate while the rounded rate is not above the target (HiFiC: 1/16)."""
    rate_control: str = setting("switch", one_of("switch", "controller", "quality"))
    """Rule by which the weight of the rate changes. `"switch"` chooses between `loss.lambda_above`
    and `loss.lambda_below` (HiFiC). `"controller"` begins between the two and follows the error of
    the mean rate (docs/training.md). `"quality"`, for models with `model.qualities`, has no target:
    each image draws a quality from 0 to 1, and its weight falls geometrically from
    `loss.lambda_above` at 0 to `loss.lambda_below` at 1."""
    control: tuple[int, float] = setting((500, 1.0), _CONTROL)
    """Constants of `loss.rate_control="controller"`: the number of steps over which it averages the
    rate, and its gain."""
    warmup_steps: int = setting(50_000, NOT_NEGATIVE)
    """Number of first steps in which `loss.warmup_factors` apply, 0 for none (PyTorch HiFiC)."""
    warmup_factors: tuple[float, float] = setting((2.0, 0.20 / 0.14), _TWO_POSITIVE)
    """Factors on both lambdas and on the target rate during the first `loss.warmup_steps` (PyTorch
    HiFiC: 2 and 0.20 / 0.14). The original's code halves the lambdas instead (docs/training.md)."""
    mse: float = setting(0.075 * 2.0**-5, NOT_NEGATIVE)
    """Weight of the mean squared error of images in [0, 255] (HiFiC: k_M = 0.075 / 32)."""
    lpips: float = setting(0.0, NOT_NEGATIVE)
    """Weight of LPIPS (HiFiC: k_P = 1), 0 for none."""
    lpips_file: str = setting("alex")
    """Weights of the LPIPS network: `"alex"` (HiFiC) or `"squeeze"`, which come with the package,
    or the path of an .npz file that `fa-hific get-lpips` writes."""
    gan: float = setting(0.0, NOT_NEGATIVE)
    """Weight of the generator's adversarial loss (HiFiC: beta = 0.15), 0 to train without a
    discriminator."""
    gan_kind: str = setting("non_saturating", one_of(*GAN_KINDS))
    """Kind of the adversarial losses: `"non_saturating"` (HiFiC) or `"least_squares"`."""
    ffl: float = setting(0.0, NOT_NEGATIVE)
    """Weight of the focal frequency loss (FFL) of images in [0, 1], 0 for none (FA-HiFiC: 0.5,
    FA-VAE: 1)."""
    ffl_options: tuple[str, ...] = setting(
        (), some_of("ave_spectrum", "log_matrix", "batch_matrix")
    )
    """Options of FFL as in its authors' code, any of: `"ave_spectrum"` averages the spectra over
    the batch, `"log_matrix"` takes the logarithm of the spectrum weights, `"batch_matrix"`
    normalizes the weights over the batch instead of over each image."""
    balance: str = setting("fixed", one_of("fixed", "gradient", "bands", "power"))
    """Balance of FFL with the distortion (docs/balance.md). `"fixed"` uses the weight `loss.ffl`
    (FA-HiFiC). `"gradient"` scales FFL so that its gradient is a share of the gradient of MSE and
    LPIPS. `"bands"` uses the weight `loss.ffl`, on the frequencies that lack power. `"power"`
    replaces FFL by a loss of the power of frequency bins, scaled like `"gradient"`."""
    balance_share: float = setting(0.3, POSITIVE)
    """Share that the balances `gradient` and `power` aim at."""
    dsl: float = setting(0.0, NOT_NEGATIVE)
    """Weight of the dynamic spectrum loss (DSL), 0 for none (FA-HiFiC: 0.25, FA-VAE: 0.01). Needs
    `model.fcm_width`."""
    dsl_blur: tuple[int, float] = setting((9, 3.0), _BLUR)
    """Side of the Gaussian blurs of DSL, 3 to 15 pixels, and their initial standard deviation sigma
    in pixels (FA-VAE: 9 and 3). The side must be odd except with `"legacy_kernel"`."""
    dsl_options: tuple[str, ...] = setting(
        (), some_of("channel_weighting", "legacy_kernel", "shared_sigma", "fixed_sigma")
    )
    """Options of DSL, any of: `"channel_weighting"` divides the loss of each level by its number of
    channels, 60 and 120 (FA-HiFiC), instead of by the number of levels (FA-VAE); `"legacy_kernel"`
    blurs the sum of all channels with zero padding, as the FA-HiFiC authors' code does, instead of
    each channel with reflected borders (FA-VAE); `"shared_sigma"` learns one sigma for encoder and
    generator of a level instead of one for each; `"fixed_sigma"` leaves the sigmas as they are,
    which is the spectrum loss (SL)."""
    alpha: float = setting(1.0, NOT_NEGATIVE)
    """Exponent alpha of the spectrum weights of FFL and DSL (FFL: 1)."""
    detail_zero: float = setting(0.0, SHARE)
    """Share of the training images that have detail 0: they are decoded without the FCMs, and only
    rate, MSE and LPIPS apply to them. Every other image draws a detail from 0 to 1, which
    multiplies the output of the FCMs and the weights of the adversarial and frequency losses. With
    0 every image has full detail (FA-HiFiC). Needs `model.fcm_width`."""

    def __post_init__(self):
        super().__post_init__()
        wanted = "loss.ffl is 0, so there is nothing to balance: set it or loss.balance='fixed'"
        self.require(self.balance == "fixed" or self.ffl, "balance", wanted)
        odd = "legacy_kernel" in self.dsl_options or self.dsl_blur[0] % 2
        self.require(odd, "dsl_blur", "the side must be odd")
        wanted = "LPIPS needs weights: set it to 'alex', or turn LPIPS off with loss.lpips=0"
        self.require(self.lpips_file or not self.lpips, "lpips_file", wanted)
        for name in ("lambda_above", "lambda_below"):
            wanted = f"loss.rate_control={self.rate_control!r} needs it to be positive"
            self.require(self.rate_control == "switch" or getattr(self, name), name, wanted)
