"""Several models in the place of one: the one that fits a rate, or the one that made a file."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from fa_hific_jax.codec import bitstream, shipped
from fa_hific_jax.codec.bitstream import BitstreamError
from fa_hific_jax.codec.catalog import Published


class Models:
    """Models by name or path, loaded when they are needed; at most two stay in memory."""

    def __init__(self):
        from fa_hific_jax.codec import programs  # It imports JAX, as the next module does.
        from fa_hific_jax.codec.model_folder import load_model

        self.load = functools.lru_cache(maxsize=2)(load_model)
        self.plan = programs.plan  # `Model.plan` is the same for all models.

    def decompress_picture(self, data: bytes, **options: Any) -> tuple[Any, Any]:
        """Returns what `Model.decompress_picture` of the model that made the file returns.

        Raises a BitstreamError if there is no such model on this machine.
        """
        model_id = bitstream.unpack(data).model_id
        name = shipped.with_id(model_id)
        if name is None:
            raise BitstreamError(
                f"the file was made with model {model_id.hex()}, which is none of those with a "
                f"name on this machine ({', '.join(shipped.here())}): give the folder of that "
                "model, or fetch it with `fa-hific get-model`"
            )
        return self.load(name).decompress_picture(data, **options)


class ByRate(Models):
    """Models of one family in the order of their rates, of which every image gets one that fits."""

    def __init__(self, members: Sequence[Published]):
        super().__init__()
        self.members = members

    def compress(
        self, image: UInt8[np.ndarray, "_ _ 3"], bpp: float, *, reserved: int = 0, **options: Any
    ) -> tuple[bytes, str]:
        """Returns the file of the highest rate with at most `bpp`, and the name of its model.

        The whole file counts, with `reserved` bytes that will be added to it. If even the file of
        the lowest rate is larger, that one is returned. The search begins at the model whose own
        rate is `bpp` or the next lower one. `options` are those of `Model.compress`.
        """
        most = bpp * image.shape[0] * image.shape[1] / 8 - reserved

        @functools.cache
        def file(index: int) -> bytes:
            return self.load(self.members[index].name).compress(image, **options)

        def fits(index: int) -> bool:
            return len(file(index)) <= most

        index = max(sum(model.rate <= bpp for model in self.members) - 1, 0)
        while index > 0 and not fits(index):
            index -= 1
        while fits(index) and index + 1 < len(self.members) and fits(index + 1):
            index += 1
        return file(index), self.members[index].name
