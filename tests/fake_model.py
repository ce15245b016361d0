"""A model that keeps pixels as they are, in real containers: what the commands do around one.

As a script: the command line with this model, in a process that a test may kill.
"""

import sys
import types
import zlib

import numpy as np

from fa_hific_jax.codec import bitstream
from fa_hific_jax.codec.pixels import pack_alpha, unpack_alpha

MODEL_ID = b"verbatim"


class FakeModel:
    """Notes the options it is called with in `calls`; by the name "gains" with a choice of rates.

    Of the quality for a rate it makes a tenth of that.
    """

    model_id = MODEL_ID

    def __init__(self, name):
        self.name, self.calls, self.planned = name, [], None
        choices = 4 if name == "gains" else 0
        self.config = types.SimpleNamespace(qualities=choices, fcm_width=choices)

    def quality_for(self, image, bpp, **options):
        return bpp / 10

    def plan(self, sizes):
        self.planned = sizes
        return "the plan"

    def compress(self, image, *, alpha=None, **options):
        self.calls.append(options)
        if image.shape[0] == 13:
            raise RuntimeError("RESOURCE_EXHAUSTED: out of memory\nand a long story")
        (height, width, _), coder = image.shape, options.get("coder", "constriction")
        stream = b"" if alpha is None else pack_alpha(alpha)
        fields = {"y_stream": zlib.compress(image.tobytes(), 1), "alpha_stream": stream}
        return bitstream.pack(bitstream.Container(MODEL_ID, coder, width, height, **fields))

    def decompress_picture(self, data, **options):
        self.calls.append(options)
        held = bitstream.unpack(data)
        bitstream.check_model(held, self.model_id)
        pixels = np.frombuffer(zlib.decompress(held.y_stream), np.uint8)
        rgb = pixels.reshape(held.height, held.width, 3)
        alpha = held.alpha_stream
        return rgb, unpack_alpha(alpha, held.height, held.width) if alpha else None


if __name__ == "__main__":
    from fa_hific_jax.cli import runtime
    from fa_hific_jax.cli.main import main

    sys.modules["fa_hific_jax.codec.model_folder"] = sys.modules["__main__"]
    load_model = FakeModel
    runtime.use_compile_cache = lambda: None  # it imports JAX, which nothing here needs
    main(sys.argv[1:])
