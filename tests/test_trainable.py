"""Which parameters train: by parts of their names, partitioned and combined without loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_hific_jax.errors import UserError
from fa_hific_jax.training import trainable

PARAMS = {
    "autoencoder": {
        "encoder": {"conv0": {"kernel": np.ones(2), "bias": np.zeros(1)}},
        "generator": {"fcm1": {"conv0": {"kernel": np.ones(3)}}, "up1": {"kernel": np.ones(4)}},
    },
    "dsl_sigma": np.ones((2, 2)),
}


def trained(*patterns) -> set[str]:
    part = trainable.partition(PARAMS, patterns)[0]
    return {name for name, leaf in trainable.by_name(part).items() if leaf is not None}


def test_a_pattern_is_any_part_of_a_name():
    assert trained("fcm", "sigma") == {"autoencoder/generator/fcm1/conv0/kernel", "dsl_sigma"}
    assert trained("generator/up") == {"autoencoder/generator/up1/kernel"}
    both = {f"autoencoder/encoder/conv0/{name}" for name in ("kernel", "bias")}
    assert trained("/encoder/") == both
    ours, _ = trainable.partition(PARAMS["autoencoder"], ("autoencoder/enc",), "autoencoder/")
    assert [leaf.size for leaf in jax.tree.leaves(ours)] == [1, 2]


@pytest.mark.parametrize("patterns", [(), ("fcm", "sigma"), ("kernel",), ("nothing",)])
def test_parts_share_no_leaf_and_combine_to_the_whole(patterns):
    ours, theirs = trainable.partition(PARAMS, patterns)
    assert len(jax.tree.leaves(ours)) + len(jax.tree.leaves(theirs)) == 5
    assert patterns or jax.tree.leaves(theirs) == []
    combined = trainable.combine(ours, theirs)
    assert jax.tree.structure(combined) == jax.tree.structure(PARAMS)
    jax.tree.map(np.testing.assert_array_equal, combined, PARAMS)


def test_a_tree_differentiates_in_what_trains_alone():
    ours, theirs = trainable.partition(PARAMS, ("bias", "sigma"))

    def loss(part):
        whole = trainable.combine(part, theirs)
        return sum(jnp.sum(jnp.exp(leaf)) for leaf in jax.tree.leaves(whole))

    grads = jax.grad(loss)(ours)
    assert [leaf.size for leaf in jax.tree.leaves(grads)] == [1, 4]


def test_a_pattern_that_matches_nothing_is_named_with_near_names():
    trainable.check(PARAMS, ("fcm", "sigma"))
    with pytest.raises(
        UserError,
        match=r"^config\.trainable contains 'fmc', .*: did you mean 'fcm1'\? parameters\.txt",
    ):
        trainable.check(PARAMS, ("sigma", "fmc"))
    with pytest.raises(UserError, match="'discriminator', .*: parameters.txt of a run lists"):
        trainable.check(PARAMS, ("discriminator",))
