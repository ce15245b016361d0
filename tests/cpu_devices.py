"""Several CPU devices in one process, for what shares work among devices."""

import importlib.metadata


def xla_flags(count: int) -> str:
    """What XLA_FLAGS must hold, before JAX is imported, for so many CPU devices."""
    flags = f"--xla_force_host_platform_device_count={count}"
    jax = tuple(map(int, importlib.metadata.version("jax").split(".")[:2]))
    if count == 1 or jax < (0, 11):
        return flags
    # Two devices on two cores waited for each other for ever where operations share threads.
    return f"{flags} --xla_cpu_multi_thread_eigen=false"
