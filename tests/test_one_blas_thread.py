"""The limit on the threads of matrix products."""

import numpy as np
import pytest

from fa_hific_jax.codec import one_blas_thread as module


def test_the_limit_holds_within_the_block_alone_and_ends_with_an_error():
    get, limit = module._functions()
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]
    if "openblas" not in blas:
        pytest.skip(f"NumPy uses {blas} here")
    before = get()
    limit(3)
    try:
        with pytest.raises(ZeroDivisionError), module.one_blas_thread():
            assert get() == 1
            raise ZeroDivisionError
        assert get() == 3
    finally:
        limit(before)


def test_without_openblas_the_block_changes_nothing(monkeypatch):
    monkeypatch.setattr(module, "_AFFIXES", (("absent_", ""),))
    monkeypatch.setattr(module, "_functions", module._functions.__wrapped__)
    get, _ = module._functions()
    with module.one_blas_thread():
        assert get() == 1
