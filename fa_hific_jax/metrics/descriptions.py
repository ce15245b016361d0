"""Label, unit, direction and definition of each metric."""

from typing import Any


def _entry(
    label: str, reference: str, *, better: str = "lower", unit: str = "", decimals: int
) -> dict[str, Any]:
    return {
        "label": label,
        "unit": unit,
        "better": better,
        "decimals": decimals,
        "reference": reference,
        "not_measured": None,
    }


def _lpips(network: str) -> dict[str, Any]:
    return _entry(
        f"LPIPS ({network})",
        f"Zhang et al., CVPR 2018, version 0.1, {network}",
        decimals=4,
    )


def _band(label: str, third: str) -> dict[str, Any]:
    # The best value is 0: negative values mean lost detail, positive values mean invented detail.
    reference = (
        f"mean error of log radial power over the {third} third of 0 to 0.5 cycles per pixel"
    )
    return _entry(label, reference, better="zero", unit="dB", decimals=2)


DESCRIPTIONS: dict[str, dict[str, Any]] = {
    "psnr": _entry("PSNR", "10 log10(255² / mse) over RGB", better="higher", unit="dB", decimals=2),
    "ms_ssim": _entry(
        "MS-SSIM", "Wang et al., 2003; as pytorch_msssim, RGB", better="higher", decimals=4
    ),
    "ssim": _entry(
        "SSIM", "Wang et al., 2004; RGB, Gaussian window, full size", better="higher", decimals=4
    ),
    "lpips_alex": _lpips("AlexNet"),
    "lpips_squeeze": _lpips("SqueezeNet"),
    "lpips_vgg": _lpips("VGG16"),
    "lfd": _entry("LFD", "Jiang et al., ICCV 2021: ln(1 + height · width · mse)", decimals=2),
    "lsd": _entry(
        "LSD", "root mean square error of log radial power, 60 rings", unit="dB", decimals=2
    ),
    "band_low": _band("Low band", "lowest"),
    "band_middle": _band("Middle band", "middle"),
    "band_high": _band("High band", "highest"),
    "fid": _entry("FID", "Heusel et al., NeurIPS 2017; patches as HiFiC, appendix A.7", decimals=2),
    "kid": _entry("KID", "Bińkowski et al., ICLR 2018; patches as HiFiC, appendix A.7", decimals=6),
    "fd_alex": _entry("FD-Alex", "FID's distance on AlexNet's last convolution", decimals=3),
    "kid_alex": _entry("KID-Alex", "KID's distance on AlexNet's last convolution", decimals=6),
}
"""Metrics by id: label, unit, better ("higher", "lower" or "zero"), decimals, reference and
not_measured. The last four compare sets of images, the others pairs."""
