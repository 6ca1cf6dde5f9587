"""One contract over the whole table: a new strategy is tested by adding its settings to `SETTINGS`."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_al.base import UNLABELLED, BadInput, Pool, build
from latent_al.strategies import STRATEGIES
from latent_al.strategies.uncertainty import MEASURES, PICKS

SETTINGS = {
    "random": [{}],
    "uncertainty": [dict(measure=m, pick=p) for m, p in itertools.product(MEASURES, PICKS)],
}
COLD = ["random"]
SPECS = [dict(name=name, **settings) for name, many in SETTINGS.items() for settings in many]


def make_pool(size=50, num_taken=20, seed=0):
    key_latents, key_probs, key_taken = jax.random.split(jax.random.key(seed), 3)
    latents = jax.random.normal(key_latents, (size, 3))
    latents = latents.at[1].set(latents[0])
    taken = jnp.zeros(size, bool).at[jax.random.permutation(key_taken, size)[:num_taken]].set(True)
    probs = jax.random.dirichlet(key_probs, jnp.ones(4), (size,))
    return Pool(latents, -jnp.ones_like(latents), latents, probs, taken, jnp.where(taken, 0, UNLABELLED))


@pytest.fixture(params=SPECS, ids=lambda spec: "-".join(map(str, spec.values())))
def select(request):
    return build(STRATEGIES, request.param, "strategy")


def test_every_strategy_has_settings():
    assert SETTINGS.keys() == STRATEGIES.keys()


@pytest.mark.parametrize("num_taken, num", [(0, 50), (20, 7), (45, 5), (49, 1)])
def test_num_distinct_open_rows(select, num_taken, num):
    pool = make_pool(num_taken=num_taken)
    rows = np.asarray(select(jax.random.key(0), pool, num))
    assert rows.shape == (num,)
    assert len(set(rows.tolist())) == num
    assert not np.asarray(pool.taken)[rows].any()


def test_too_few_rows_are_refused(select):
    with pytest.raises(ValueError, match="6 rows asked for but only 5"):
        select(jax.random.key(0), make_pool(num_taken=45), 6)


def test_same_key_same_rows_in_and_out_of_jit(select):
    pool = make_pool()
    eager = select(jax.random.key(5), pool, 7)
    compiled = jax.jit(lambda key, pool: select(key, pool, 7))(jax.random.key(5), pool)
    chex.assert_trees_all_equal(eager, compiled)


def test_vmap_equals_singles(select):
    pools = [make_pool(seed=seed) for seed in range(3)]
    keys = jax.random.split(jax.random.key(0), 3)
    singles = jnp.stack([select(key, pool, 7) for key, pool in zip(keys, pools, strict=True)])
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *pools)
    chex.assert_trees_all_equal(jax.vmap(lambda key, pool: select(key, pool, 7))(keys, stacked), singles)


@pytest.mark.parametrize("name", COLD)
def test_first_batch_needs_no_predictions(name):
    pool = make_pool(num_taken=0)._replace(features=None, probs=None)
    assert STRATEGIES[name]()(jax.random.key(0), pool, 10).shape == (10,)


def test_uncertainty_refuses_a_first_batch():
    select = STRATEGIES["uncertainty"](measure="margin", pick="top_k")
    with pytest.raises(BadInput, match="first batch has none.*config.initial"):
        select(jax.random.key(0), make_pool(num_taken=0)._replace(probs=None), 10)


def test_uncertainty_takes_the_least_sure():
    pool = make_pool()
    for measure, score in MEASURES.items():
        rows = STRATEGIES["uncertainty"](measure=measure, pick="top_k")(jax.random.key(0), pool, 5)
        left = np.where(pool.taken, -1, score(pool.probs))
        assert rows.tolist() == np.argsort(-left, kind="stable")[:5].tolist()


@pytest.mark.parametrize("spec", [dict(measure="bald", pick="top_k"), dict(measure="margin", pick="best")])
def test_unknown_settings_list_the_known(spec):
    with pytest.raises(BadInput, match="known: .*(margin|top_k)"):
        STRATEGIES["uncertainty"](**spec)
