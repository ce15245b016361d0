"""Settings with which XLA trains and codes faster on a CPU.

Call `prepare` before JAX compiles its first program. It changes no result beyond rounding, and
nothing on other devices.
"""

import ctypes
import os

_FUSION = "xla_cpu_use_multi_output_fusion"
# Parameters of glibc's mallopt (malloc.h) with their values: M_MMAP_MAX, M_TRIM_THRESHOLD, where -1
# is without end, and M_TOP_PAD.
_KEEP = ((-4, 0), (-1, -1), (-2, 2**26))


def prepare() -> None:
    """Fuses what reads the same arrays, and keeps freed memory in the process.

    An optimizer step reads gradient, parameter and moments once for all that it writes, instead of
    once for each. Buffers of a step would otherwise go back to the system, which hands out each of
    their pages anew in the next. A value of XLA_FLAGS that chooses extra options takes precedence.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_backend_extra_options" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_backend_extra_options={_FUSION}".strip()
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:  # Only glibc has it.
        for parameter, value in _KEEP:
            mallopt(parameter, value)
