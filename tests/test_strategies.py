"""One contract over the whole table: a new strategy is tested by adding its settings to `SETTINGS`."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from latent_al.strategies import STRATEGIES
from latent_al.strategies.diversity import DISTANCES
from latent_al.strategies.importance import normalised_importance
from latent_al.strategies.needs import (
    NEEDS,
    check_needs,
    check_prepared,
    count_nan,
    latent_stats,
    stats_of_shapes,
)
from latent_al.strategies.uncertainty import MEASURES
from latent_al.types import UNLABELLED, BadInput, Encoded, Pool, build

ESTIMATE = dict(seed=0, fraction=0.1, unit_cube=False)
PRIOR = dict(name="kl_to_prior")
ASCENT = dict(measure="margin", prior_weight=0.1, num_restarts=2, num_steps=3, step_size=0.5)
KMEANS = dict(name="kmeans", num_clusters=3, iterations=10, seed=0)
SAMPLERS = [
    dict(clustering=None, threshold=0.5, match="nearest"),
    dict(clustering=KMEANS, threshold=0.5, match="all_within"),
    dict(clustering=dict(name="ward", num_clusters=4), threshold=0.5, match="nearest"),
]
SETTINGS = {
    "ae_error": [{}],
    "bald": [dict(num_draws=3, pick="top_k")],
    "badge": [{}],
    "bait": [dict(l2=0.5)],
    "batch_bald": [dict(num_draws=3, num_samples=20)],
    "cluster_margin": [dict(clustering=KMEANS, candidates=2.0)],
    "coreset": [{}],
    "distance": [{}],
    "dropquery": [dict(num_draws=3, iterations=10)],
    "entropy_d": [dict(gamma=0.5)],
    "epig": [dict(num_draws=3, num_targets=10)],
    "expected_gradient_length": [dict(pick="top_k")],
    "facility_location": [{}, dict(epsilon=0.2)],
    "farthest_first": [{}],
    "greedy_diverse": [
        dict(measure="margin", representativeness=None, alpha=0.5, beta=0.0, distance=distance)
        for distance in ("euclidean", "jeffreys")
    ]
    + [dict(measure="entropy", representativeness=PRIOR, alpha=0.4, beta=0.3, distance="euclidean")],
    "information_density": [
        dict(measure="margin", representativeness=dict(name="cosine_density"), beta=2.0, pick="top_k"),
    ],
    "informativeness": [
        dict(
            measure="margin",
            representativeness=dict(name=name, **(ESTIMATE if "estimate" in name else {})),
            gamma=0.5,
            pick="random_partitions",
        )
        for name in ("cosine_density", "euclidean_density_estimate", "kl_to_prior")
    ],
    "ibal": [{}, dict(targets="same_class", centred=True)],
    "ibal_d": [dict(gamma=0.5)],
    "max_herding": [dict(sigma=1.0, normalize=True), dict(sigma=0.5, normalize=False)],
    "multi_normal": SAMPLERS[2:3],
    "nearest_to_synthesised": [ASCENT],
    "normal": SAMPLERS[1:2],
    "prob_cover": [dict(num_clusters=3, share=0.9, iterations=10, seed=0, normalize=True)],
    "power": [dict(measure="margin", beta=2.0)],
    "query_by_committee": [dict(num_draws=3, pick="random_partitions")],
    "query_synthesis": [dict(ASCENT, radius=1.0)],
    "random": [{}],
    "softmax": [dict(measure="entropy", beta=4.0)],
    "typical": [dict(iterations=10)],
    "typiclust": [dict(max_clusters=30, num_neighbours=4, iterations=10)],
    "uncertain_farthest_first": [
        dict(measure="margin", share=0.3, space="latents"),
        dict(measure="entropy", share=1.0, space="features"),
    ],
    "uncertainty": [dict(measure="margin", pick="top_k"), dict(measure="entropy", pick="random_partitions")],
    "uncertainty_herding": [dict(sigma=1.0, normalize=True)],
    "uniform": SAMPLERS[:1],
}
COLD = ["ae_error", "facility_location", "farthest_first", "max_herding", "multi_normal", "normal", "prob_cover"]
COLD += ["random", "typical", "typiclust", "uncertainty_herding", "uniform"]
SPECS = [dict(name=name, **settings) for name, many in SETTINGS.items() for settings in many]


def draw(probs, key):
    return jax.nn.softmax(jnp.log(probs) + jax.random.normal(key, probs.shape))


def predict(kernel, latents):
    return jax.nn.softmax(latents @ kernel)


def make_pool(strategy, size=50, num_taken=20, seed=0):
    key_latents, key_probs, key_taken = jax.random.split(jax.random.key(seed), 3)
    latents = jax.random.normal(key_latents, (size, 3))
    latents = latents.at[1].set(latents[0])
    taken = jnp.zeros(size, bool).at[jax.random.permutation(key_taken, size)[:num_taken]].set(True)
    probs = jax.random.dirichlet(key_probs, jnp.ones(4), (size,))
    train = Encoded(latents, -jnp.ones_like(latents), jnp.abs(latents).sum(axis=1))
    labels = jnp.where(taken, 0, UNLABELLED)
    rows = jnp.arange(size)
    prepared = strategy.prepare(train)
    for row in np.flatnonzero(taken) if strategy.update else ():
        prepared = strategy.update(prepared, train, jnp.int32(row))
    fields = (train.latents, train.log_sigma, latents, probs, taken, labels, rows)
    kernel = jax.random.normal(key_probs, (latents.shape[1], probs.shape[1]))
    return Pool(*fields, prepared, Partial(draw, probs), Partial(predict, kernel))


@pytest.fixture(params=SPECS, ids=lambda spec: "-".join(map(str, spec.values())))
def strategy(request):
    return build(STRATEGIES, request.param, "strategy")


def test_every_strategy_has_settings():
    assert SETTINGS.keys() == STRATEGIES.keys()


@pytest.mark.parametrize(
    "num_taken, num", [(43, 7), *(pytest.param(50 - num, num, marks=pytest.mark.slow) for num in (1, 30, 50))]
)
def test_num_distinct_open_rows(strategy, num_taken, num):
    pool = make_pool(strategy, num_taken=num_taken)
    rows = np.asarray(strategy.query(jax.random.key(0), pool, num))
    assert rows.shape == (num,)
    assert len(set(rows.tolist())) == num
    assert not np.asarray(pool.taken)[rows].any()


def test_too_few_rows_are_refused(strategy):
    with pytest.raises(ValueError, match="6 rows asked for but only 5"):
        strategy.query(jax.random.key(0), make_pool(strategy, num_taken=45), 6)


def test_jit_and_vmap_equal_plain_singles(strategy):
    pools = [make_pool(strategy, seed=seed) for seed in range(3)]
    keys = jax.random.split(jax.random.key(0), 3)
    singles = jnp.stack([strategy.query(key, pool, 7) for key, pool in zip(keys, pools, strict=True)])
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *pools)
    query = jax.jit(jax.vmap(lambda key, pool: strategy.query(key, pool, 7)))
    chex.assert_trees_all_equal(query(keys, stacked), singles)


@pytest.mark.parametrize(
    "spec",
    # The samples of facility_location grow with the slots.
    [spec for spec in SPECS if "epsilon" not in spec],
    ids=lambda spec: "-".join(map(str, spec.values())),
)
def test_empty_slots_of_a_subsample_change_nothing(spec):
    """So few that what is drawn at random by weight has the same layout."""
    strategy = build(STRATEGIES, spec, "strategy")
    pool, num_empty = make_pool(strategy), 13
    rows = jnp.append(pool.rows, jnp.full(num_empty, jnp.argmax(pool.taken)))
    latents, log_sigma, features, probs = (
        None if values is None else values[rows] for values in (pool.latents, pool.log_sigma, pool.features, pool.probs)
    )
    padded = pool._replace(
        latents=latents,
        log_sigma=log_sigma,
        features=features,
        probs=probs,
        taken=jnp.append(pool.taken, jnp.ones(num_empty, bool)),
        labels=jnp.append(pool.labels, jnp.full(num_empty, UNLABELLED)),
        rows=rows,
        mc_dropout=Partial(lambda key: pool.mc_dropout(key)[rows]),
    )
    for seed in range(4):
        key = jax.random.key(seed)
        expected = np.asarray(strategy.query(key, pool, 6))
        chex.assert_trees_all_equal(np.asarray(strategy.query(key, padded, 6)), expected)


def test_strict_promotion_of_types(strategy):
    with jax.numpy_dtype_promotion("strict"):
        rows = jax.eval_shape(lambda key, pool: strategy.query(key, pool, 7), jax.random.key(0), make_pool(strategy))
    assert rows.shape == (7,)


@pytest.mark.parametrize("name", COLD)
def test_the_initial_labelled_set_needs_no_predictions(name):
    strategy = build(STRATEGIES, dict(name=name, **SETTINGS[name][-1]), "strategy")
    pool = make_pool(strategy, num_taken=0)._replace(features=None, probs=None)
    assert strategy.query(jax.random.key(0), pool, 50).shape == (50,)


@pytest.mark.parametrize(
    "name, settings",
    [
        ("badge", {}),
        ("bait", dict(l2=1.0)),
        ("dropquery", dict(num_draws=3, iterations=5)),
        ("uncertainty", dict(measure="margin", pick="top_k")),
    ],
)
def test_predictions_are_needed_where_they_choose(name, settings):
    strategy = STRATEGIES[name](**settings)
    with pytest.raises(BadInput, match=f"{name} needs .*: there are none when the initial .*config.initial"):
        strategy.query(jax.random.key(0), make_pool(strategy, num_taken=0)._replace(probs=None), 10)


def test_uncertainty_takes_the_least_sure():
    for measure, score in MEASURES.items():
        strategy = STRATEGIES["uncertainty"](measure=measure, pick="top_k")
        pool = make_pool(strategy)
        rows = strategy.query(jax.random.key(0), pool, 5)
        left = np.where(pool.taken, -1, score(pool.probs))
        assert rows.tolist() == np.argsort(-left, kind="stable")[:5].tolist()


def test_bald_takes_the_rows_whose_class_tells_most_of_the_model():
    pool = make_pool(STRATEGIES["bald"](num_draws=2, pick="top_k"))
    probs, opposite = jnp.tile(jnp.float32([[0.5, 0.5]]), (50, 1)).at[40].set(jnp.float32([1, 0])), jnp.eye(2)[::-1]

    def draw(key):
        """Of row 40 now one class, now the other; of the others always the same."""
        return jnp.where(jax.random.bernoulli(key), probs, probs @ opposite)

    pool = pool._replace(probs=probs, mc_dropout=Partial(draw), taken=jnp.zeros(50, bool))
    assert 40 in STRATEGIES["bald"](num_draws=8, pick="top_k").query(jax.random.key(0), pool, 1)
    with pytest.raises(BadInput, match="give the classifier a dropout above 0"):
        STRATEGIES["bald"](num_draws=8, pick="top_k").query(jax.random.key(0), pool._replace(mc_dropout=None), 1)
    with pytest.raises(BadInput, match="num_draws 1; expected 2 or more"):
        STRATEGIES["bald"](num_draws=1, pick="top_k")


def two_bits_pool():
    """A pool of draws of two bits, of which the class of an open row tells the first, but that of row 40 the second.

    Rows 41 and 42 tell it surely, row 40 nearly so, and the rest with doubt; so do taken rows of the second bit.
    """
    sureness = np.where(np.arange(50) < 30, 0.9, 0.8)
    sureness[40], sureness[41:43] = 0.98, 1
    tells_second = (np.arange(50) < 30) | (np.arange(50) == 40)

    def draw(key):
        first, second = jax.random.bernoulli(key, shape=(2,))
        bit = jnp.where(tells_second, second, first)
        ones = jnp.where(bit, jnp.float32(sureness), jnp.float32(1 - sureness))
        return jnp.stack([ones, 1 - ones], axis=1)

    return make_pool(STRATEGIES["random"]())._replace(mc_dropout=Partial(draw), taken=jnp.arange(50) < 30)


def test_batch_bald_does_not_query_what_tells_the_same():
    pool, key = two_bits_pool(), jax.random.key(0)
    assert set(STRATEGIES["bald"](num_draws=64, pick="top_k").query(key, pool, 2).tolist()) == {41, 42}
    for num_samples in (1, 100):
        strategy = STRATEGIES["batch_bald"](num_draws=64, num_samples=num_samples)
        assert strategy.query(key, pool, 2).tolist() == [41, 40]


@pytest.mark.parametrize("num_targets", [10, 20])
def test_epig_queries_what_tells_of_the_open_rows(num_targets):
    """Not row 40, of which only taken rows tell, as long as targets are found among the open ones."""
    pool, key = two_bits_pool(), jax.random.key(0)
    assert set(STRATEGIES["bald"](num_draws=64, pick="top_k").query(key, pool, 3).tolist()) == {40, 41, 42}
    rows = STRATEGIES["epig"](num_draws=64, num_targets=num_targets).query(key, pool, 19).tolist()
    assert set(rows[:2]) == {41, 42}
    assert 40 not in rows
    assert 40 in STRATEGIES["epig"](num_draws=64, num_targets=50).query(key, pool, 3)


@pytest.mark.parametrize("name", ["batch_bald", "epig"])
def test_dropout_is_needed_where_draws_are(name):
    strategy = STRATEGIES[name](**SETTINGS[name][0])
    pool = make_pool(strategy)
    for change in (dict(mc_dropout=None), dict(probs=None)):
        with pytest.raises(BadInput, match=f"{name} needs .* give the classifier a dropout above 0, .* config.initial"):
            strategy.query(jax.random.key(0), pool._replace(**change), 1)


@pytest.mark.parametrize(
    "name, weight", [("power", lambda score: score**3), ("softmax", lambda score: np.exp(3 * score))]
)
def test_stochastic_batches_are_drawn_in_proportion(name, weight):
    """Beside the exact chances of the first and of the second row, in 20,000 draws of two of four open rows."""
    pool = make_pool(STRATEGIES["random"]())
    pool = pool._replace(taken=jnp.ones(50, bool).at[jnp.array([3, 11, 30, 42])].set(False))
    query = STRATEGIES[name](measure="margin", beta=3.0).query
    rows = np.asarray(jax.vmap(lambda key: query(key, pool, 2))(jax.random.split(jax.random.key(0), 20_000)))
    left = np.array([3, 11, 30, 42])
    weights = weight(np.float64(MEASURES["margin"](pool.probs))[left])
    first = weights / weights.sum()
    second = [sum(first[j] * first[i] / (1 - first[j]) for j in range(4) if j != i) for i in range(4)]
    for column, expected in ((rows[:, 0], first), (rows[:, 1], second)):
        np.testing.assert_allclose((column[:, None] == left).mean(axis=0), expected, atol=0.015)


def test_cluster_margin_takes_turns_among_the_least_sure():
    """Of 12 candidates for 6 rows; the clusters of the fewest candidates begin, and any candidate may be drawn."""
    strategy = STRATEGIES["cluster_margin"](clustering=KMEANS, candidates=2.0)
    pool = make_pool(strategy)
    unsure = np.argsort(-np.where(pool.taken, -1, MEASURES["margin"](pool.probs)), kind="stable")[:12]
    clusters = np.asarray(pool.prepared)
    sizes = np.bincount(clusters[unsure], minlength=3)
    turns = [cluster for turn in range(12) for cluster in np.argsort(sizes, kind="stable") if sizes[cluster] > turn][:6]
    batches = [np.asarray(strategy.query(jax.random.key(seed), pool, 6)) for seed in range(12)]
    for batch in batches:
        assert clusters[batch].tolist() == turns
    assert set(np.concatenate(batches)) == set(unsure)


def dropped_pool(changed):
    """A pool of classes 0 and 1 in which dropout changes the class of row i in `changed[i]` of 3 draws."""
    pool = make_pool(STRATEGIES["random"](), num_taken=0)
    probs = jnp.tile(jnp.float32([[0.8, 0.2]]), (50, 1))
    keys = jax.random.key_data(jax.random.split(jax.random.split(jax.random.key(0), 3)[0], 3))

    def draw(key):
        index = (jax.random.key_data(key)[None] == keys).all(axis=1).argmax()
        return jnp.where((index < changed)[:, None], probs[:, ::-1], probs)

    return pool._replace(probs=probs, mc_dropout=Partial(draw), taken=jnp.arange(50) >= 40)


def test_dropquery_takes_a_row_of_each_cluster_of_those_that_dropout_changes():
    """Two of three draws change a candidate; the candidates lie in three heaps, and others between them."""
    changed = np.where(np.arange(50) % 2, 1, 2 + np.arange(50) % 4 // 2)
    pool = dropped_pool(changed)
    latents = np.random.default_rng(0).normal(scale=0.01, size=(50, 3)).astype(np.float32)
    latents[:, 0] += 10 * (np.arange(50) // 2 % 3)
    latents[1::2, 1] += 1
    strategy = STRATEGIES["dropquery"](num_draws=3, iterations=20)
    rows = np.asarray(strategy.query(jax.random.key(0), pool._replace(latents=jnp.array(latents)), 3))
    candidates = np.arange(0, 40, 2)
    for heap in range(3):
        members = candidates[candidates // 2 % 3 == heap]
        nearest = members[np.linalg.norm(latents[members] - latents[members].mean(axis=0), axis=1).argmin()]
        assert rows[rows // 2 % 3 == heap].tolist() == [nearest]


def test_dropquery_fills_the_batch_with_what_dropout_changes_most():
    """One row changes in most draws, and four in one; the rest never do."""
    changed = np.zeros(50, int)
    changed[[4, 9, 14, 19]], changed[[7, 45]] = 1, 3
    pool = dropped_pool(changed)
    strategy = STRATEGIES["dropquery"](num_draws=3, iterations=5)
    assert set(strategy.query(jax.random.key(0), pool, 5).tolist()) == {4, 7, 9, 14, 19}
    with pytest.raises(BadInput, match="dropquery needs MC-dropout predictions: give the classifier a dropout above 0"):
        strategy.query(jax.random.key(0), pool._replace(mc_dropout=None), 5)


@pytest.mark.parametrize("spec", [dict(measure="bald", pick="top_k"), dict(measure="margin", pick="best")])
def test_unknown_settings_list_the_known(spec):
    with pytest.raises(BadInput, match="known: .*(margin|top_k)"):
        STRATEGIES["uncertainty"](**spec)


def test_informativeness_weighs_by_row_of_the_whole_set():
    """Under subsampling the pool's rows are numbered anew; what was prepared is not."""
    spec = dict(measure="margin", representativeness=dict(name="closeness_to_origin"), gamma=0.3, pick="top_k")
    strategy = STRATEGIES["informativeness"](**spec)
    pool = make_pool(strategy)
    drawn = np.random.default_rng(0).permutation(50)[:30]
    rows = pool._replace(prepared=None, mc_dropout=None)
    part = jax.tree.map(lambda each: each[drawn], rows)._replace(prepared=pool.prepared)
    norms = np.linalg.norm(pool.latents, axis=1)
    score = 0.3 * MEASURES["margin"](pool.probs) + 0.7 * (1 - norms / norms.max())
    left = np.where(pool.taken, -1, score)[drawn]
    assert strategy.query(jax.random.key(0), part, 5).tolist() == np.argsort(-left, kind="stable")[:5].tolist()


def test_information_density_is_a_product():
    spec = dict(measure="entropy", representativeness=dict(name="closeness_to_origin"), beta=1.5, pick="top_k")
    strategy = STRATEGIES["information_density"](**spec)
    pool = make_pool(strategy)
    norms = np.linalg.norm(pool.latents, axis=1)
    score = np.where(pool.taken, -1, MEASURES["entropy"](pool.probs) * (1 - norms / norms.max()) ** 1.5)
    assert strategy.query(jax.random.key(0), pool, 5).tolist() == np.argsort(-score, kind="stable")[:5].tolist()


def test_expected_gradient_length_is_that_of_each_class_weighed():
    strategy = STRATEGIES["expected_gradient_length"](pick="top_k")
    pool = make_pool(strategy)
    lengths = [
        sum(p * np.linalg.norm(np.outer(x, probs - one)) for p, one in zip(probs, np.eye(len(probs)), strict=True))
        for x, probs in zip(np.float64(pool.features), np.float64(pool.probs), strict=True)
    ]
    order = np.argsort(-np.where(pool.taken, -1, lengths), kind="stable")
    assert strategy.query(jax.random.key(0), pool, 6).tolist() == order[:6].tolist()


def test_expected_gradient_length_tells_sure_rows_apart():
    strategy = STRATEGIES["expected_gradient_length"](pick="top_k")
    pool = make_pool(strategy)
    doubts = np.linspace(1e-5, 9e-5, len(pool.taken))
    probs = jnp.float32(np.stack([1 - doubts, 0.9 * doubts, 0.1 * doubts], axis=1))
    pool = pool._replace(probs=probs, features=jnp.ones_like(pool.features))
    order = np.argsort(np.where(pool.taken, 1, -doubts), kind="stable")
    assert strategy.query(jax.random.key(0), pool, 6).tolist() == order[:6].tolist()


def test_a_committee_queries_what_it_votes_differently_about():
    """Sure members that contradict each other disagree; unsure ones of one opinion do not."""
    strategy = STRATEGIES["query_by_committee"](num_draws=16, pick="top_k")
    pool = make_pool(strategy)
    unsure = jnp.tile(jnp.array([[0.4, 0.3, 0.3]]), (50, 1))

    def predict(key):
        return unsure.at[40].set(jax.nn.one_hot(jax.random.randint(key, (), 0, 3), 3))

    pool = pool._replace(probs=unsure, mc_dropout=Partial(predict))
    assert 40 in strategy.query(jax.random.key(0), pool, 1)


def test_a_larger_committee_takes_no_more_memory():
    def temporaries(num_draws):
        strategy = STRATEGIES["query_by_committee"](num_draws=num_draws, pick="top_k")
        query = jax.jit(strategy.query, static_argnums=2)
        program = query.lower(jax.random.key(0), make_pool(strategy, size=5000), 1).compile()
        return program.memory_analysis().temp_size_in_bytes

    assert temporaries(64) < 1.1 * temporaries(4)


@pytest.mark.parametrize("distance", DISTANCES)
def test_greedy_equals_its_definition_word_for_word(distance):
    spec = dict(measure="margin", representativeness=PRIOR, alpha=0.3, beta=0.2, distance=distance)
    strategy = STRATEGIES["greedy_diverse"](**spec)
    pool = make_pool(strategy)
    latents, sigma = np.float64(pool.latents), np.exp(np.float64(pool.log_sigma))
    divergence = 0.5 * (sigma**2 + latents**2 - 1 - 2 * np.log(sigma)).sum(axis=1)
    score = 0.3 * np.float64(MEASURES["margin"](pool.probs)) + 0.2 * (1 - divergence / divergence.max())

    def between(x, sigma_x, y, sigma_y):
        squared = ((x - y) ** 2).sum()
        if distance == "jeffreys":
            ratio = sigma_x**2 / sigma_y**2 + sigma_y**2 / sigma_x**2
            return 0.5 * (ratio - 2 + (x - y) ** 2 * (1 / sigma_x**2 + 1 / sigma_y**2)).sum()
        if distance == "half_cosine":
            return (1 - x @ y / np.linalg.norm(x) / np.linalg.norm(y)) / 2
        return squared if distance == "squared_euclidean" else np.sqrt(squared)

    scale = 1
    if distance != "half_cosine":
        scale = 2 * max(between(latents[i], sigma[i], np.zeros(3), np.ones(3)) for i in range(50))
    batch = [int(np.where(pool.taken, -1, score).argmax())]
    while len(batch) < 8:
        near = [min(between(latents[i], sigma[i], latents[j], sigma[j]) for j in batch) for i in range(50)]
        total = np.where(pool.taken, -1, score + 0.5 * np.array(near) / scale)
        total[batch] = -1
        batch.append(int(total.argmax()))
    assert strategy.query(jax.random.key(0), pool, 8).tolist() == batch


@pytest.mark.parametrize(
    "name, change, message",
    [
        ("informativeness", dict(gamma=1.1), "gamma is 1.1; expected a weight in"),
        ("informativeness", dict(gamma=float("nan")), "gamma is nan"),
        (
            "informativeness",
            dict(representativeness=dict(name="typical")),
            "unknown representativeness measure 'typical'",
        ),
        ("informativeness", dict(measure="bald"), "unknown uncertainty measure 'bald'"),
        ("informativeness", dict(pick="best"), "unknown pick 'best'"),
        ("information_density", dict(beta=-0.5), "beta is -0.5; expected a weight of 0 or more"),
        ("information_density", dict(beta=float("inf")), "beta is inf"),
        ("greedy_diverse", dict(alpha=0.8), "alpha is 0.8 and beta 0.3; expected weights .* sum to at most 1"),
        ("greedy_diverse", dict(alpha=-0.1), "alpha is -0.1"),
        ("greedy_diverse", dict(alpha=float("nan")), "alpha is nan"),
        ("greedy_diverse", dict(beta=0.0), "beta is 0.0 and representativeness .*; give both, or 0 and None"),
        ("greedy_diverse", dict(representativeness=None), "beta is 0.3 and representativeness None"),
        ("uncertain_farthest_first", dict(share=0.0), r"share is 0.0; expected a share of the pool in \(0, 1\]"),
        ("uncertain_farthest_first", dict(space="pixels"), "unknown space 'pixels'; known: features, latents"),
        ("bait", dict(l2=0.0), "l2 is 0.0; expected a ridge above 0"),
        ("power", dict(beta=-1.0), "beta is -1.0; expected 0 or more, and finite"),
        ("softmax", dict(beta=float("nan")), "beta is nan; expected 0 or more"),
        ("softmax", dict(measure="bald"), "unknown uncertainty measure 'bald'"),
        ("cluster_margin", dict(candidates=0.9), "candidates is 0.9; expected a multiple of the batch, 1 or more"),
        ("cluster_margin", dict(clustering=dict(name="hac")), "unknown clustering 'hac'; known: gaussian_mixture"),
        ("dropquery", dict(num_draws=0), "dropquery has num_draws 0; expected 1 or more"),
        ("dropquery", dict(iterations=0), "dropquery has iterations 0; expected 1 or more"),
        ("facility_location", dict(epsilon=1.0), r"epsilon is 1.0; expected a share of the best coverage in \(0, 1\)"),
        ("query_by_committee", dict(num_draws=1), "query_by_committee has num_draws 1; expected 2 or more"),
        ("batch_bald", dict(num_draws=1), "batch_bald has num_draws 1; expected 2 or more"),
        ("batch_bald", dict(num_samples=0), "batch_bald has num_samples 0; expected 1 or more"),
        ("epig", dict(num_draws=1), "epig has num_draws 1; expected 2 or more"),
        ("epig", dict(num_targets=0), "epig has num_targets 0; expected 1 or more"),
        ("ibal", dict(targets="own"), "unknown targets of importance 'own'; known: all, same_class"),
        ("ibal_d", dict(targets="each"), "unknown targets of importance 'each'; known: all, same_class"),
        ("typiclust", dict(max_clusters=0), "max_clusters is 0; expected 1 or more"),
        ("typiclust", dict(num_neighbours=0), "num_neighbours is 0; expected 1 or more"),
        ("typiclust", dict(iterations=0), "iterations is 0; expected 1 or more"),
        ("max_herding", dict(sigma=0.0), "sigma is 0.0; expected a length scale above 0"),
        ("max_herding", dict(sigma=float("nan")), "sigma is nan"),
        ("uncertainty_herding", dict(sigma=-1.0), "sigma is -1.0"),
        ("prob_cover", dict(num_clusters=1), "num_clusters is 1 and iterations 10; expected 2 and 1, or more"),
        ("prob_cover", dict(share=0.0), r"share is 0.0; expected a share of the balls in \(0, 1\]"),
        ("greedy_diverse", dict(distance="manhattan"), "unknown distance 'manhattan'; known: euclidean"),
    ],
)
def test_settings_outside_their_range(name, change, message):
    with pytest.raises(BadInput, match=message):
        build(STRATEGIES, dict(name=name, **SETTINGS[name][-1]) | change, "strategy")


@pytest.mark.parametrize("name, share", [("badge", {}), ("coreset", {}), ("uncertain_farthest_first", dict(share=0.3))])
def test_features_are_needed_where_points_lie_in_them(name, share):
    settings = dict(measure="margin", space="features", **share) if share else {}
    strategy = STRATEGIES[name](**settings)
    other = "random" if name == "badge" else "farthest_first"
    match = (
        f"there are none when .* config.initial.* to .* such as {other}. A learner of your own has to return features"
    )
    with pytest.raises(BadInput, match=match):
        strategy.query(jax.random.key(0), make_pool(strategy)._replace(features=None), 5)


def importance_of(pool, targets="all", centred=False):
    """Returns equation 2 of Pezeshkpour, Zhao and Singh (2020) as the double sum that it is, without its factor."""
    features, probs, taken = np.float64(pool.features), np.float64(pool.probs), np.asarray(pool.taken)
    features = features - features[~taken].mean(axis=0) if centred else features
    importance = np.zeros(50)
    for row, target in itertools.product(range(50), np.flatnonzero(taken)):
        for y, p in enumerate(probs[row]):
            if targets == "all" or pool.labels[target] == y:
                importance[row] += p * (1 - p) * (features[row] @ features[target])
    return importance


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("targets", ["all", "same_class"])
def test_each_reading_of_importance_is_its_double_sum(targets, centred):
    strategy = STRATEGIES["ibal"](targets=targets, centred=centred)
    pool = make_pool(strategy)
    expected = importance_of(pool, targets, centred)
    expected /= np.abs(expected[~np.asarray(pool.taken)]).max()
    np.testing.assert_allclose(normalised_importance(pool, targets, centred), expected, rtol=1e-4, atol=1e-6)
    left = np.where(pool.taken, np.inf, expected)
    assert strategy.query(jax.random.key(0), pool, 6).tolist() == np.argsort(left, kind="stable")[:6].tolist()
    with_distance = STRATEGIES["ibal_d"](gamma=0.0, targets=targets, centred=centred)
    assert with_distance.query(jax.random.key(0), make_pool(with_distance), 6).tolist() == np.argsort(left)[:6].tolist()


@pytest.mark.parametrize("name, weights", [("ibal", (1, 0)), ("ibal_d", (1, 0.5)), ("distance", (0, 1))])
def test_importance_and_distance_word_for_word(name, weights):
    strategy = build(STRATEGIES, dict(name=name, **SETTINGS[name][0]), "strategy")
    pool = make_pool(strategy)
    importance, taken = importance_of(pool), np.asarray(pool.taken)
    latents = np.float64(pool.latents)
    distance = np.linalg.norm(latents[:, None] - latents[taken], axis=2).min(axis=1)
    score = weights[1] * distance / distance.max() - weights[0] * importance / np.abs(importance[~taken]).max()
    left = np.where(taken, -np.inf, score)
    assert strategy.query(jax.random.key(0), pool, 6).tolist() == np.argsort(-left, kind="stable")[:6].tolist()


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_distance_keeps_up_with_what_is_queried(kind):
    strategy = STRATEGIES["distance"]()
    train = Encoded(jax.random.normal(jax.random.key(0), (30, 3), kind), None)
    rows = jnp.array([4, 9, 2])
    update = lambda index, prepared: strategy.update(prepared, train, rows[index])  # noqa: E731
    prepared = jax.lax.fori_loop(0, 3, update, strategy.prepare(train))
    gaps = np.float64(train.latents)[:, None] - np.float64(train.latents)[[4, 9, 2]]
    np.testing.assert_allclose(prepared, (gaps**2).sum(axis=2).min(axis=1), rtol=1e-5)


@pytest.mark.parametrize(
    "name", ["entropy_d", "ibal_d", "information_density", "informativeness", "greedy_diverse", "power"]
)
def test_a_weight_may_be_traced_and_vmapped(name):
    """A sweep compiles one program for all its values."""
    settings = SETTINGS[name][0]
    swept = dict(greedy_diverse="alpha", information_density="beta", power="beta").get(name, "gamma")
    values = jnp.array([0.0, 0.25, 1.0], jnp.float32)
    strategy = STRATEGIES[name](**settings)
    pool = make_pool(strategy)

    def query(value):
        return STRATEGIES[name](**settings | {swept: value}).query(jax.random.key(0), pool, 7)

    singles = [query(value) for value in values.tolist()]
    chex.assert_trees_all_equal(jax.jit(jax.vmap(query))(values), jnp.stack(singles))


@pytest.mark.parametrize("gamma", [-1.0, float("nan"), float("inf")])
def test_weights_of_the_distance(gamma):
    with pytest.raises(BadInput, match="expected a weight of 0 or more"):
        STRATEGIES["ibal_d"](gamma=gamma)


@pytest.mark.parametrize("name, message", [("ibal", "importance needs a classifier"), ("distance", "nothing labelled")])
def test_importance_and_distance_refuse_the_initial_labelled_set(name, message):
    strategy = STRATEGIES[name]()
    pool = make_pool(strategy, num_taken=0)._replace(features=None, probs=None)
    with pytest.raises(BadInput, match=message):
        strategy.query(jax.random.key(0), pool, 5)


def test_coreset_covers_the_features():
    strategy = STRATEGIES["coreset"]()
    pool = make_pool(strategy)
    pool = pool._replace(features=jax.random.normal(jax.random.key(8), (50, 6)))
    features, covered = np.float64(pool.features), np.flatnonzero(pool.taken).tolist()
    while len(covered) < 25:
        covered.append(int(np.linalg.norm(features[:, None] - features[covered], axis=2).min(axis=1).argmax()))
    assert strategy.query(jax.random.key(0), pool, 5).tolist() == covered[20:]


def test_uncertain_farthest_first_looks_at_the_least_sure_only():
    strategy = STRATEGIES["uncertain_farthest_first"](measure="entropy", share=0.2, space="latents")
    pool = make_pool(strategy)
    unsure = np.argsort(-np.where(pool.taken, -1, MEASURES["entropy"](pool.probs)), kind="stable")[:10]
    latents, covered = np.float64(pool.latents), np.flatnonzero(pool.taken).tolist()
    while len(covered) < 26:
        nearest = np.linalg.norm(latents[:, None] - latents[covered], axis=2).min(axis=1)
        covered.append(int(unsure[nearest[unsure].argmax()]))
    assert strategy.query(jax.random.key(0), pool, 6).tolist() == covered[20:]


@pytest.mark.parametrize("name", ["jeffreys_density", "kl_to_prior"])
def test_measures_of_gaussians_need_a_spread(name):
    spec = dict(measure="margin", representativeness=dict(name=name), gamma=0.5, pick="top_k")
    strategy = STRATEGIES["informativeness"](**spec)
    for stats in (stats_of_shapes(Encoded(jnp.ones((4, 2)))), latent_stats(Encoded(jnp.ones((4, 2))))):
        with pytest.raises(ValueError, match=f"{name} needs the spread of each latent"):
            check_needs(strategy, stats)
    check_needs(strategy, latent_stats(Encoded(jnp.eye(4), -jnp.ones((4, 4)))))


def prepare(strategy, encoded):
    """Prepares as the runner does: it checks the latents, then what is prepared."""
    check_needs(strategy, latent_stats(encoded))
    prepared = strategy.prepare(encoded)
    check_prepared(int(count_nan(prepared, len(encoded.latents))), len(encoded.latents))


@pytest.mark.parametrize(
    "distance, latents, message",
    [
        ("jeffreys", jnp.eye(4)[:, :2], "jeffreys needs the spread"),
        ("half_cosine", jnp.eye(4)[:, :2], "2 of 4 latents are zero"),
        ("half_cosine", jnp.ones((4, 2)), "all 4 latents are equal"),
        ("euclidean", jnp.zeros((4, 2)), "all 4 latents are equal"),
        ("euclidean", jnp.eye(4).at[2, 2].set(jnp.nan), "1 of 4 are NaN or infinite"),
        ("squared_euclidean", 1e30 * jnp.eye(4), "prepares is NaN for 1 of 4 rows: latents are .* too far out"),
    ],
)
def test_distances_that_cannot_be_scaled(distance, latents, message):
    spec = dict(measure="margin", representativeness=None, alpha=0.5, beta=0.0, distance=distance)
    with pytest.raises(ValueError, match=message):
        prepare(STRATEGIES["greedy_diverse"](**spec), Encoded(latents))


@pytest.mark.parametrize(
    "strategy, latents, message",
    [
        (dict(name="farthest_first"), jnp.ones((4, 2)), "farthest_first needs latents that differ"),
        (dict(name="typical", iterations=3), jnp.eye(4).at[1, 1].set(jnp.inf), "typical needs finite latents"),
        (dict(name="distance"), jnp.ones((4, 2)), "distance needs latents that differ"),
        (dict(name="ae_error"), jnp.eye(4), "ae_error needs reconstructions"),
        (
            dict(name="informativeness", representativeness=dict(name="euclidean_density", unit_cube=True)),
            2 * jnp.eye(4),
            r"euclidean_density with unit_cube needs coordinates in \[0, 1\], but they are in \[0, 2\]",
        ),
        (
            dict(name="informativeness", representativeness=dict(name="cosine_density")),
            jnp.eye(4)[:, :3],
            "cosine_density needs latents with a direction, but 1 of 4",
        ),
    ],
)
def test_latents_that_a_strategy_cannot_use(strategy, latents, message):
    settings = dict(measure="margin", gamma=0.5, pick="top_k") if strategy["name"] == "informativeness" else {}
    with pytest.raises(ValueError, match=message):
        prepare(build(STRATEGIES, strategy | settings, "strategy"), Encoded(latents))


def test_every_need_is_known():
    for spec in SPECS:
        assert build(STRATEGIES, spec, "strategy").needs.keys() <= NEEDS.keys()
