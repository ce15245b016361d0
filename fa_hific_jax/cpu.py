"""Settings of a process with which a CPU computes faster; other devices ignore them.

They are variables that XLA and the C library read when they start, so `restart` must run before
anything else. Results differ by rounding alone.
"""

import os
import sys
from collections.abc import Mapping

# One loop for all results that need the same arrays: an optimizer step reads gradient, parameter
# and moments once for all that it writes, instead of once for each.
_FUSION = "--xla_backend_extra_options=xla_cpu_use_multi_output_fusion"

# Memory in pages of 2 MB instead of 4 kB where Linux leaves that to the program. A training step
# touches gigabytes anew each time, and the system clears and maps them page by page.
_HUGE_PAGES = "glibc.malloc.hugetlb=1"


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables to set; values that `environment` already has take precedence."""
    found = {}
    flags, tunables = environment.get("XLA_FLAGS", ""), environment.get("GLIBC_TUNABLES", "")
    if "xla_backend_extra_options" not in flags:
        found["XLA_FLAGS"] = f"{flags} {_FUSION}".strip()
    if "glibc.malloc.hugetlb" not in tunables:
        found["GLIBC_TUNABLES"] = f"{tunables}:{_HUGE_PAGES}".strip(":")
    return found


def restart() -> None:
    """Replaces this process with one of the same command line that has the `variables`.

    Does nothing if they are set, on systems other than Linux, and where another program runs the
    command within itself.
    """
    added, given = variables(os.environ), sys.argv[1:]
    script, *rest = sys.orig_argv[-len(given) - 1 :]
    own = rest == given and script in (sys.argv[0], __package__)
    if added and own and sys.platform == "linux":
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | added)
