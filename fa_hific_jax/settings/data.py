"""Settings of the images: group `data`."""

import dataclasses

from fa_hific_jax.settings.declare import NOT_NEGATIVE, Group, Rule, at_least, setting


@dataclasses.dataclass(frozen=True)
class DataConfig(Group, name="data"):
    """Settings of the images to train and evaluate on: group `data`."""

    train: tuple[str, ...] = setting(
        ("dead_leaves", "photographs:train"),
        Rule(lambda specs: all(specs) and bool(specs), "name at least one source of images"),
    )
    """Sources of the training images, one or more (docs/data.md):

    - `"/data/photos"`, `"/data/*/*.png"`, `"gs://bucket/photos"`: a folder, searched with its
      subfolders, or a glob pattern, on this machine or in a bucket.
    - `"arrayrecord:/data/packed"`: shards that `fa-hific pack` wrote, the fastest source.
    - `"tfds:coco/2017"`, `"tfds:coco/2017:train[:10%]"`, `"tfds:open_images_v4/original"` (as
      PyTorch HiFiC): a data set of TensorFlow Datasets, prepared as ArrayRecord in the folder that
      the environment variable `TFDS_DATA_DIR` names.
    - `"dead_leaves[:COUNT]"`: procedural images.
    - `"photographs:train"`: four photographs in the scikit-image wheel."""
    weights: tuple[float, ...] = setting(
        (), Rule(lambda weights: all(weight > 0 for weight in weights), "all must be positive")
    )
    """Share of each source in a batch, in the order of `data.train`; () for equal shares."""
    crop: int = setting(256, at_least(1))
    """Side of a training crop, in pixels (HiFiC)."""
    scale: tuple[float, float] = setting(
        (0.75, 0.95),
        Rule(lambda scale: 0 < scale[0] <= scale[1], "give two factors, 0 < smallest <= largest"),
    )
    """Smallest and largest factor by which an image is resized, at random, before it is cropped
    (HiFiC). An image whose shorter side would become smaller than the crop is resized to the crop
    instead."""
    cache: bool = setting(False)
    """True to keep decoded images in memory, for sets that fit."""
    threads: int = setting(8, NOT_NEGATIVE)
    """Threads that read and crop images ahead of the training loop, 0 to do so within the loop."""
    evaluation: str = setting("photographs:validation", Rule(bool, "name a source of images"))
    """Source of the images that eval.py compresses and that validation during training uses: one of
    the forms of `data.train`, or `"photographs:validation"` for three other photographs in the
    scikit-image wheel."""

    def __post_init__(self):
        super().__post_init__()
        count = len(self.train)
        wanted = f"give one share for each of the {count} sources of data.train, or ()"
        self.require(len(self.weights) in (0, count), "weights", wanted)
