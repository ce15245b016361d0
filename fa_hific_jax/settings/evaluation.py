"""Settings of the evaluation: group `evaluation`."""

import dataclasses

from fa_hific_jax.settings.declare import Group, Rule, setting

_POINTS = Rule(
    lambda points: points >= -1,
    "give a number of qualities to spread over each codec's range, 0 for all, or -1 for none",
)


@dataclasses.dataclass(frozen=True)
class EvaluationConfig(Group, name="evaluation"):
    """Settings of what eval.py measures: group `evaluation`. Flags of eval.py take precedence."""

    lpips_files: tuple[str, ...] = setting(())
    """Weights of the LPIPS metrics, one entry for each network: `"alex"` or `"squeeze"`, which come
    with the package, or a file that `fa-hific get-lpips` writes. LPIPS is measured with these
    networks only. FD-Alex and KID-Alex need AlexNet."""
    inception_file: str = setting("")
    """Weights of Inception for FID and KID (docs/evaluation.md says how to get them)."""
    baselines: tuple[str, ...] = setting(("jpeg", "webp"))
    """Classical codecs that compress the same images: `"jpeg"`, `"webp"`, `"avif"`, `"jpeg2000"`,
    `"jpegxl"`, `"bpg"`, `"vvc"`."""
    baseline_points: int = setting(0, _POINTS)
    """Number of qualities of each classical codec, spread from its smallest files to its largest; 0
    for all qualities of its sweep, -1 for none (with `evaluation.same_size`)."""
    same_size: bool = setting(False)
    """True to run each classical codec also at the size of the first model's file, image by
    image."""
    untrained_control: bool = setting(False)
    """True to evaluate a randomly initialized model too, as a control."""
