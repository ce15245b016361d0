"""FA-HiFiC's training step in plain PyTorch, to compare the time of ours with.

It has the networks of the "pytorch" variant or the folded ones, with FCMs of kind "hific", in NCHW.
The loss has no LPIPS: rate, MSE, adversarial term, focal frequency loss and dynamic spectrum loss.
Layers and number of parameters are those of our step (benchmarks/train_step.py checks the number).
The random numbers differ.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from fa_hific_jax.models.folded import ENCODER_BLOCKS, FOLD, GENERATOR_BLOCKS


class ChannelNorm(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x):
        variance, mean = torch.var_mean(x, 1, keepdim=True)
        return (x - mean) * torch.rsqrt(variance + 1e-3) * self.gamma + self.beta


class Conv(nn.Module):
    """A convolution with explicit padding.

    `edges` has the columns to pad left and right and the rows to pad above and below, by default
    half of the kernel.
    """

    def __init__(self, channels, features, kernel, stride=1, edges=None, mode="reflect"):
        super().__init__()
        self.edges = edges or (kernel // 2,) * 4
        self.mode = mode
        self.conv = nn.Conv2d(channels, features, kernel, stride)

    def forward(self, x):
        return self.conv(F.pad(x, self.edges, mode=self.mode))


def up(channels, features, kernel):
    return nn.ConvTranspose2d(channels, features, kernel, 2, kernel // 2, output_padding=1)


class ResidualBlock(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.inner = nn.Sequential(
            Conv(channels, channels, 3),
            ChannelNorm(channels),
            nn.ReLU(),
            Conv(channels, channels, 3),
            ChannelNorm(channels),
        )

    def forward(self, x):
        return x + self.inner(x)


class Block(nn.Module):
    """Residual block of the folded networks, without norms."""

    def __init__(self, channels):
        super().__init__()
        self.inner = nn.Sequential(
            Conv(channels, channels, 3), nn.ReLU(), Conv(channels, channels, 3)
        )

    def forward(self, x):
        return x + self.inner(x)


class FoldedEncoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        widths = (3 * FOLD**2, *config.encoder_widths)
        self.levels = nn.ModuleList()
        for level, (a, b) in enumerate(zip(widths, widths[1:], strict=False)):
            first = Conv(a, b, 3, 2, (1, 0, 1, 0)) if level else Conv(a, b, 3)
            blocks = [Block(b) for _ in range(ENCODER_BLOCKS[level])]
            self.levels.append(nn.Sequential(first, nn.ReLU(), *blocks))
        self.out = Conv(widths[-1], config.latent_channels, 3)

    def forward(self, x):
        x, features = F.pixel_unshuffle(x - 0.5, FOLD), []
        for level in self.levels:
            x = level(x)
            features.append(x)
        return self.out(x), features[:2]


class FoldedGenerator(nn.Module):
    def __init__(self, config):
        super().__init__()
        widths, latents = config.generator_widths, config.latent_channels
        blocks = [Block(widths[0]) for _ in range(config.residual_blocks)]
        self.head = nn.Sequential(Conv(latents, widths[0], 3), nn.ReLU(), *blocks)
        self.ups, self.fcms = nn.ModuleList(), nn.ModuleList()
        for level, (a, b) in zip((2, 1), zip(widths, widths[1:], strict=False), strict=True):
            blocks = [Block(b) for _ in range(GENERATOR_BLOCKS[level])]
            self.ups.append(nn.Sequential(up(a, b, 3), nn.ReLU(), *blocks))
            if config.fcm_width:
                self.fcms.append(Complement(b, config.fcm_width))
        self.out = Conv(widths[-1], 3 * FOLD**2, 3)

    def forward(self, y_hat):
        x, features = self.head(torch.asinh(y_hat)), []
        for level, upsample in enumerate(self.ups):
            x = upsample(x)
            if self.fcms:
                c, x = self.fcms[level](x)
                features.insert(0, c)
        return F.pixel_shuffle(self.out(x), FOLD), features


class Encoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        widths = config.encoder_widths
        first = nn.Sequential(Conv(3, widths[0], 7), ChannelNorm(widths[0]), nn.ReLU())
        rest = [
            nn.Sequential(Conv(a, b, 3, 2, (0, 1, 1, 0)), ChannelNorm(b), nn.ReLU())
            for a, b in zip(widths, widths[1:], strict=False)
        ]
        self.levels = nn.ModuleList([first, *rest])
        self.out = Conv(widths[-1], config.latent_channels, 3)

    def forward(self, x):
        features = []
        for level in self.levels:
            x = level(x)
            features.append(x)
        return self.out(x), features[:2]


class Complement(nn.Module):
    def __init__(self, channels, width):
        super().__init__()
        layers = []
        for a, b in ((channels, width), (width, width), (width, channels)):
            layers += [ChannelNorm(a), nn.ReLU(), Conv(a, b, 3, mode="constant")]
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        c = self.layers(x)
        return c, x + c


class Generator(nn.Module):
    def __init__(self, config):
        super().__init__()
        widths, latents = config.generator_widths, config.latent_channels
        self.head = nn.Sequential(
            ChannelNorm(latents), Conv(latents, widths[0], 3), ChannelNorm(widths[0])
        )
        blocks = [ResidualBlock(widths[0]) for _ in range(config.residual_blocks)]
        self.blocks = nn.Sequential(*blocks)
        self.ups = nn.ModuleList(
            nn.Sequential(up(a, b, 3), ChannelNorm(b), nn.ReLU())
            for a, b in zip(widths, widths[1:], strict=False)
        )
        widths_fcm = widths[-2:] if config.fcm_width else ()
        self.fcms = nn.ModuleList(Complement(width, config.fcm_width) for width in widths_fcm)
        self.out = Conv(widths[-1], 3, 7)

    def forward(self, y_hat):
        head = self.head(y_hat)
        x, features = head + self.blocks(head), []
        coarse = len(self.ups) - len(self.fcms)
        for level, upsample in enumerate(self.ups):
            x = upsample(x)
            if level >= coarse:
                c, x = self.fcms[level - coarse](x)
                features.insert(0, c)
        return self.out(x), features


class HyperSynthesis(nn.Sequential):
    def __init__(self, channels, latents):
        super().__init__(
            up(channels, channels, 5),
            nn.ReLU(),
            up(channels, channels, 5),
            nn.ReLU(),
            Conv(channels, latents, 3, mode="constant"),
        )


class Prior(nn.Module):
    """Factorized density of z."""

    def __init__(self, channels, filters=(1, 3, 3, 3, 1)):
        super().__init__()
        pairs = list(zip(filters, filters[1:], strict=False))
        self.h = nn.ParameterList(torch.full((channels, o, i), 0.1) for i, o in pairs)
        self.b = nn.ParameterList(torch.rand(channels, o, 1) - 0.5 for _, o in pairs)
        self.a = nn.ParameterList(torch.zeros(channels, o, 1) for _, o in pairs)

    def cdf(self, values):
        for h, b, a in zip(self.h, self.b, self.a, strict=True):
            values = F.softplus(h) @ values + b
            values = values + torch.tanh(a) * torch.tanh(values)
        return torch.sigmoid(values)

    def forward(self, z):
        values = z.transpose(0, 1).reshape(z.shape[1], 1, -1)
        return (self.cdf(values + 0.5) - self.cdf(values - 0.5)).clamp_min(1e-9)


class Autoencoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        channels, latents = config.hyper_channels, config.latent_channels
        encoder = FoldedEncoder if len(config.encoder_widths) == 3 else Encoder
        generator = FoldedGenerator if len(config.generator_widths) == 3 else Generator
        self.encoder, self.generator = encoder(config), generator(config)
        self.analysis = nn.Sequential(
            Conv(latents, channels, 3, mode="constant"),
            nn.ReLU(),
            Conv(channels, channels, 5, 2),
            nn.ReLU(),
            Conv(channels, channels, 5, 2),
        )
        self.mean = HyperSynthesis(channels, latents)
        self.scale = HyperSynthesis(channels, latents)
        self.prior = Prior(channels)

    def forward(self, x):
        y, encoder_features = self.encoder(x)
        z = self.analysis(y)
        z_noisy, y_noisy = (v + torch.rand_like(v) - 0.5 for v in (z, y))
        mean, scale = self.mean(z_noisy), self.scale(z_noisy).clamp_min(0.11)
        y_hat = mean + _round(y - mean)
        noisy, rounded = (
            (_bits(_gaussian(y, mean, scale)) + _bits(self.prior(z))) / (x.numel() / x.shape[1])
            for y, z in ((y_noisy, z_noisy), (y_hat, _round(z)))
        )
        x_hat, fcm_features = self.generator(y_hat)
        return x_hat, y_hat, encoder_features, fcm_features, noisy, rounded


class Discriminator(nn.Module):
    def __init__(self, config, latents):
        super().__init__()
        self.context = Conv(latents, config.context_channels, 3)
        widths = (3 + config.context_channels, *config.widths)
        self.layers = nn.ModuleList()
        for a, b in zip(widths, widths[1:], strict=False):
            layer = Conv(a, b, 4, 2, (1, 1, 1, 1))
            spectral_norm(layer.conv)
            self.layers.append(layer)
        self.out = nn.Conv2d(widths[-1], 1, 1)

    def forward(self, x, y_hat):
        context = F.leaky_relu(self.context(y_hat), 0.2)
        x = torch.cat([x, F.interpolate(context, scale_factor=16)], 1)
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
        return self.out(x)


class Trainer:
    """Networks and optimizers; `step(images)` takes one step on uint8 images (b, 3, h, w)."""

    def __init__(self, settings, device="cpu"):
        self.loss, self.clip = settings.loss, settings.optimizer.clip_norm
        self.autoencoder = Autoencoder(settings.model)
        self.discriminator = Discriminator(settings.discriminator, settings.model.latent_channels)
        for module in (self.autoencoder, self.discriminator):
            module.to(device, memory_format=torch.channels_last)
        self.sigmas = nn.Parameter(torch.full((2, 2), 3.0, device=device))
        self.parameters_g = [*self.autoencoder.parameters(), self.sigmas]
        self.adam_g = torch.optim.Adam(self.parameters_g, 1e-4)
        self.adam_d = torch.optim.Adam(self.discriminator.parameters(), 1e-4)

    def count(self):
        """Returns the number of trained parameters."""
        return sum(p.numel() for p in (*self.parameters_g, *self.discriminator.parameters()))

    def step(self, images):
        x = (images.float() / 255).contiguous(memory_format=torch.channels_last)
        x_hat, y_hat, encoder_features, fcm_features, bpp, bpp_rounded = self.autoencoder(x)
        fixed = y_hat.detach()
        logits = self.discriminator(torch.cat([x, x_hat.detach()]), torch.cat([fixed, fixed]))
        real, fake = logits.chunk(2)
        self.adam_d.zero_grad()
        (F.softplus(-real).mean() + F.softplus(fake).mean()).backward()
        self.adam_d.step()

        config = self.loss
        above = bpp_rounded > config.target_bpp
        lmbda = torch.where(above, config.lambda_above, config.lambda_below)
        loss = lmbda * bpp + config.mse * F.mse_loss(255 * x_hat, 255 * x)
        self.discriminator.requires_grad_(False)
        loss = loss + config.gan * F.softplus(-self.discriminator(x_hat, fixed)).mean()
        loss = loss + config.ffl * focal_frequency_loss(x_hat, x)
        for level, (a, c) in enumerate(zip(encoder_features, fcm_features, strict=True)):
            blurred = (
                _blur(v, F.softplus(self.sigmas[row, level]), config.dsl_blur[0])
                for row, v in enumerate((a, c))
            )
            loss = loss + config.dsl / 2 * focal_frequency_loss(*blurred)
        self.adam_g.zero_grad()
        loss.backward()
        self.discriminator.requires_grad_(True)
        if self.clip:
            nn.utils.clip_grad_norm_(self.parameters_g, self.clip)
        self.adam_g.step()
        return loss.detach()


def focal_frequency_loss(x, y):
    spectrum = torch.fft.rfft2(x - y, norm="ortho")
    distance = spectrum.real.square() + spectrum.imag.square()
    weight = distance.detach().sqrt()
    weight = weight / weight.amax((2, 3), keepdim=True).clamp_min(1e-30)
    twice = torch.full((distance.shape[-1],), 2.0, device=x.device)
    twice[0] = twice[-1] = 1.0
    return (weight * distance * twice).sum() / x.numel()


def _blur(x, sigma, size):
    distance = torch.arange(size, device=x.device) - size // 2
    kernel = torch.softmax(-0.5 * (distance / sigma).square(), 0)
    channels = x.shape[1]
    x = F.pad(x, (size // 2,) * 4, mode="reflect")
    x = F.conv2d(x, kernel.view(1, 1, 1, size).expand(channels, 1, 1, size), groups=channels)
    return F.conv2d(x, kernel.view(1, 1, size, 1).expand(channels, 1, size, 1), groups=channels)


def _gaussian(y, mean, scale):
    distance = (y - mean).abs()
    upper, lower = ((h - distance) / scale for h in (0.5, -0.5))
    return (torch.special.ndtr(upper) - torch.special.ndtr(lower)).clamp_min(1e-9)


def _bits(likelihood):
    return -torch.log2(likelihood).sum()


def _round(x):
    return x + (torch.floor(x + 0.5) - x).detach()
