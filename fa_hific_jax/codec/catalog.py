"""The models that other projects publish and that `fa-hific get-model` fetches, as a table.

Sources, read in 2026, which state neither the SHA-256 nor the exact size of a file:

- HiFiC in PyTorch, by Grace Han and Justin Tan: README.md and assets/HiFIC_torch_colab_demo.ipynb
  of github.com/Justin-Tan/high-fidelity-generative-compression (7d4e9e7).
- MS-ILLM (Muckley et al., ICML 2023) and its first stage, which has no GAN: neuralcompression/zoo,
  WEIGHTS_LICENSE and, for all but the two lowest rates, projects/illm/results.csv of
  github.com/facebookresearch/NeuralCompression (3f12280).
"""

from typing import NamedTuple

_PORT = "https://zenodo.org/record/4026003/files/hific_{}.pt?download=1"
_ILLM = "https://dl.fbaipublicfiles.com/NeuralCompression/2023-muckley-msillm"


class Quality(NamedTuple):
    """Means over the 24 Kodak images, as a project publishes them."""

    bpp: float  # of real streams; MS-ILLM counts their size as a Python pickle
    psnr: float  # dB
    ms_ssim: float
    lpips: float  # AlexNet


class Published(NamedTuple):
    """A model that another project publishes."""

    name: str  # family, hyphen, rate
    rate: float  # bits per pixel that its training aimed at
    url: str
    quality: Quality | None = None  # None where the project states none
    # Settings of the model for a file that does not state them; None if every file does.
    input_range: str | None = None
    likelihood: str | None = None
    regime: str | None = None  # what the file should say about its rate

    @property
    def family(self) -> str:
        return self.name.partition("-")[0]


class Family(NamedTuple):
    """What all models of a family have in common."""

    project: str
    variant: str  # `model.variant` of the networks
    gigabytes: float  # approximate size of each download
    license: str
    terms: str  # what the license asks for, and where it stands


_ILLM_FAMILY = Family(
    "MS-ILLM",
    "neuralcompression",
    0.73,
    "CC-BY-NC 4.0",
    "only for purposes that are not commercial, and name the authors: "
    "https://github.com/facebookresearch/NeuralCompression/blob/main/WEIGHTS_LICENSE",
)
FAMILIES = {
    "hific": Family(
        "HiFiC in PyTorch",
        "pytorch",
        2.0,
        "Apache-2.0",
        "for any purpose, and keep the notice: "
        "https://github.com/Justin-Tan/high-fidelity-generative-compression/blob/master/LICENSE",
    ),
    "msillm": _ILLM_FAMILY,
    "noganms": _ILLM_FAMILY._replace(project="MS-ILLM, no GAN"),
}


def _illm(family: str, rate: str, *quality: float) -> Published:
    url = f"{_ILLM}/{family}_target_{rate}bpp.ckpt"
    return Published(f"{family}-{rate}", float(rate), url, Quality(*quality) if quality else None)


PUBLISHED = (
    Published("hific-lo", 0.14, _PORT.format("low"), None, "symmetric", "gaussian", "low"),
    Published("hific-mi", 0.30, _PORT.format("med"), None, "unit", "logistic", "med"),
    Published("hific-hi", 0.45, _PORT.format("hi"), None, "symmetric", "gaussian", "high"),
    _illm("msillm", "0.00218"),
    _illm("msillm", "0.00438"),
    _illm("msillm", "0.035", 0.0443, 24.73, 0.8461, 0.1576),
    _illm("msillm", "0.07", 0.0806, 25.92, 0.8902, 0.1100),
    _illm("msillm", "0.14", 0.1532, 27.53, 0.9282, 0.0732),
    _illm("msillm", "0.3", 0.2958, 29.63, 0.9597, 0.0451),
    _illm("msillm", "0.45", 0.4324, 31.03, 0.9719, 0.0320),
    _illm("msillm", "0.9", 0.7092, 33.21, 0.9837, 0.0180),
    _illm("noganms", "0.035", 0.0440, 25.52, 0.8644, 0.1491),
    _illm("noganms", "0.07", 0.0800, 26.83, 0.9064, 0.1017),
    _illm("noganms", "0.14", 0.15253, 28.61, 0.9411, 0.0653),
    _illm("noganms", "0.3", 0.2948, 30.58, 0.9665, 0.0397),
    _illm("noganms", "0.45", 0.4301, 32.11, 0.9775, 0.0270),
    _illm("noganms", "0.9", 0.7062, 34.51, 0.9874, 0.0148),
)
"""All published models, those of a family together and in the order of their rates."""


def find(name: str) -> Published | None:
    """Returns the published model of this name, or None."""
    return next((model for model in PUBLISHED if model.name == name), None)


def members(family: str) -> list[Published]:
    """Returns the models of a family in the order of their rates; none if there is no such one."""
    return [model for model in PUBLISHED if model.family == family]
