"""The rounds of one seed, as pure functions for `jit` and `vmap`.

A round fits the learner on what has been queried, then selects the next batch. `queried` is a buffer of the final size
whose empty slots hold n, the size of the pool. `count`, the number of rows queried, is an argument and the same for all
seeds: in a seed's own carry it would make the trip count of the training loop differ under `vmap`.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num, PyTree

from latent_al.kernels import representer
from latent_al.kernels.picks import subsample, subsample_size
from latent_al.kernels.representer import Explanation
from latent_al.kernels.shards import num_shards, on_each_shard
from latent_al.types import BALANCED, UNLABELLED, Encoded, Key, Learner, Params, Pool, Select, Strategy


def rehearse(strategy: Strategy, train: Encoded, num: int, *, features=None, probs=None, draw=None) -> None:
    """Traces a selection on shapes alone, so that a strategy that cannot work says so before any long work.

    Raises:
        ValueError: what the strategy refuses.
    """
    size = train.latents.shape[0]
    taken, rows = jax.ShapeDtypeStruct((size,), bool), jax.ShapeDtypeStruct((size,), jnp.int32)
    prepared = jax.eval_shape(strategy.prepare, train)
    if strategy.follow:
        prepared = jax.eval_shape(strategy.follow, prepared, train, rows, 0, 1)
    pool = Pool(train.latents, train.log_sigma, features, probs, taken, rows, None, prepared, draw)
    jax.eval_shape(partial(strategy.select, num=num), jax.eval_shape(lambda: jax.random.key(0)), pool)


def initial_rows(
    key: Key, train: Encoded, prepared: PyTree, *, select: Select, num: int, capacity: int
) -> Int[Array, " capacity"]:
    """The buffer with the first `num` rows queried: a selection from a pool with nothing taken and no predictions."""
    size = train.latents.shape[0]
    nothing = jnp.zeros(size, bool)
    pool = Pool(train.latents, train.log_sigma, None, None, nothing, jnp.full(size, UNLABELLED), None, prepared)
    rows = select(key, pool, num).astype(jnp.int32)
    return jnp.full(capacity, size, jnp.int32).at[:num].set(rows)


def fit_round(
    key: Key,
    dropout: Float[Array, ""],
    inputs: Float[Array, "n ..."],
    labels: Num[Array, " n"],
    queried: Int[Array, " capacity"],
    count: Int[Array, ""],
    watched: tuple[Float[Array, "m ..."], Num[Array, " m"]],
    *,
    learner: Learner,
):
    """Trains the learner on the rows queried so far.

    Args:
        inputs: what the learner reads, of the whole training set: latents, or images.
        watched: inputs and labels on which the score during training is measured.

    Returns:
        The params; (features, predictions) of each slot of `queried`; what `learner.fit` tells of its progress, with
        the mean `score` on the labelled rows, without dropout.
    """
    rows = _filled(queried, labels.shape[0])
    examples = inputs, labels, queried
    if num_shards() > 1:
        # Else each step would fetch its rows from all devices.
        examples = on_each_shard(inputs[rows]), on_each_shard(labels[rows]), jnp.arange(queried.shape[0])
    params, progress = learner.fit(key, dropout, *examples, count, watched)
    labelled = learner.predict(params, inputs[rows])
    scores = learner.score(labelled[1], labels[rows])
    mean = jnp.where(jnp.arange(queried.shape[0]) < count, scores, 0).sum() / count
    return params, labelled, progress | {"score": mean}


def score(
    params: Params, inputs: Float[Array, "m ..."], labels: Num[Array, " m"], *, learner: Learner
) -> dict[str, Float[Array, ""]]:
    """The mean of the learner's score, and of a classifier the balanced one too, under the names in `learner.metrics`.

    Balanced accuracy is the recall of each class of `labels`, averaged over those that occur (Brodersen et al., The
    Balanced Accuracy and Its Posterior Distribution, ICPR 2010).
    """
    predictions = learner.predict(params, inputs)[1]
    scores = learner.score(predictions, labels)
    means = {learner.metric: scores.mean()}
    if BALANCED in learner.metrics:
        means[BALANCED] = _mean_of_classes(scores, labels, predictions.shape[1])
    return means


def select_round(
    key: Key,
    dropout: Float[Array, ""],
    gamma: Float[Array, ""],
    params: Params,
    labelled: tuple[Float[Array, "capacity f"], Float[Array, "capacity c"]],
    inputs: Float[Array, "n ..."],
    train: Encoded,
    prepared: PyTree,
    labels: Num[Array, " n"],
    queried: Int[Array, " capacity"],
    followed: Int[Array, ""],
    count: Int[Array, ""],
    *,
    learner: Learner,
    strategy: Strategy,
    num: int,
    fraction: float,
) -> tuple[Int[Array, " capacity"], PyTree]:
    """Buys the next `num` rows.

    Args:
        labelled: what `fit_round` predicted for `queried`.
        inputs: what the learner reads, of the whole training set.
        prepared: what the strategy prepared from `train`, up to date with the first `followed` of `queried`.
        fraction: share of the pool to predict and choose from, drawn anew each round; 1 for the whole pool.

    Returns:
        `queried`, and `prepared` up to date with the first `count` of it, None where the strategy does not follow.
    """
    if strategy.follow:
        prepared = strategy.follow(prepared, train, queried, followed, count)
    key_subsample, key_select = jax.random.split(key)
    if fraction == 1:
        pool = _whole_pool(params, dropout, inputs, train, prepared, labels, queried, learner)
    else:
        rows = _subsampled_rows(key_subsample, labels.shape[0], queried, fraction)
        pool = _subsampled_pool(params, dropout, labelled, inputs, train, prepared, labels, rows, queried, learner)
    rows = strategy.select(key_select, pool._replace(gamma=gamma), num)
    rows = (rows if pool.rows is None else pool.rows[rows]).astype(queried.dtype)
    return jax.lax.dynamic_update_slice(queried, rows, (count,)), prepared if strategy.follow else None


def measure_round(
    dropout: Float[Array, ""],
    params: Params,
    labelled: tuple[Float[Array, "capacity f"], Float[Array, "capacity c"]],
    inputs: Float[Array, "n ..."],
    train: Encoded,
    prepared: PyTree,
    labels: Num[Array, " n"],
    queried: Int[Array, " capacity"],
    followed: Int[Array, ""],
    count: Int[Array, ""],
    sample: Int[Array, " m"],
    *,
    learner: Learner,
    strategy: Strategy,
) -> dict[str, Float[Array, " m"]]:
    """What the strategy measures of a `sample` of the pool; NaN of rows that are queried. Else as `select_round`."""
    if strategy.follow:
        prepared = strategy.follow(prepared, train, queried, followed, count)
    rows = jnp.concatenate([queried, sample])
    pool = _subsampled_pool(params, dropout, labelled, inputs, train, prepared, labels, rows, queried, learner)
    is_queried = _taken(labels.shape[0], queried)[pool.rows]
    pool = pool._replace(taken=is_queried)
    found = {name: measure(pool) for name, measure in strategy.measures.items()}
    return {name: jnp.where(is_queried, jnp.nan, each)[queried.shape[0] :] for name, each in found.items()}


def explain_round(
    params: Params,
    labelled: tuple[Float[Array, "capacity f"], Float[Array, "capacity c"]],
    labels: Num[Array, " n"],
    queried: Int[Array, " capacity"],
    targets: Float[Array, "m ..."],
    *,
    learner: Learner,
    num: int,
) -> tuple[Int[Array, " m"], Explanation]:
    """The class predicted for each of `targets`, and the `num` queried rows that say most for it and against it."""
    known = jnp.where(queried < labels.shape[0], labels[_filled(queried, labels.shape[0])], UNLABELLED)
    alpha = representer.alphas(labelled[1], known, learner.l2)
    features, probs = learner.predict(params, targets)

    def explain(target, predicted):
        each = representer.explain(representer.values(alpha, labelled[0], target)[:, predicted], known, num)
        return each._replace(supporting=queried[each.supporting], opposing=queried[each.opposing])

    predicted = probs.argmax(axis=1).astype(jnp.int32)
    return predicted, jax.vmap(explain)(features, predicted)


def _mean_of_classes(scores, labels, num_classes):
    sizes, sums = (jax.ops.segment_sum(x, labels, num_classes) for x in (jnp.ones_like(scores), scores))
    return (sums / jnp.maximum(sizes, 1)).sum() / (sizes > 0).sum()


def _taken(size, queried):
    return jnp.zeros(size, bool).at[queried].set(True, mode="drop")


def _filled(rows, size):
    """Empty slots repeat the first row, a labelled one, so that they change no distance to what is labelled."""
    return jnp.where(rows < size, rows, rows[0])


def _whole_pool(params, dropout, inputs, train, prepared, labels, queried, learner):
    features, predictions = learner.predict(params, inputs)
    taken = _taken(labels.shape[0], queried)
    known = features, learner.probs(predictions), taken, jnp.where(taken, labels, UNLABELLED)
    return Pool(train.latents, train.log_sigma, *known, None, prepared, _draw(learner, params, dropout, inputs))


def _draw(learner, params, dropout, inputs):
    def draw(params, dropout, inputs, key):
        return learner.draw(params, key, dropout, inputs)[1]

    return learner.draw and jax.tree_util.Partial(draw, params, dropout, inputs)


def _subsampled_rows(key, size, queried, fraction):
    """The slots of `queried`, then the rows of the subsample; slots without a row hold `size`."""
    open_rows = ~subsample(key, _taken(size, queried), fraction)
    drawn = jnp.nonzero(open_rows, size=subsample_size(size, fraction), fill_value=size)[0]
    return jnp.concatenate([queried, drawn.astype(jnp.int32)])


def _subsampled_pool(params, dropout, labelled, inputs, train, prepared, labels, rows, queried, learner):
    is_slot = jnp.arange(rows.shape[0]) < queried.shape[0]
    filled = rows < labels.shape[0]
    source = _filled(rows, labels.shape[0])
    drawn = learner.predict(params, inputs[source[queried.shape[0] :]])
    features, predictions = jax.tree.map(lambda old, new: jnp.concatenate([old, new]), labelled, drawn)
    log_sigma = None if train.log_sigma is None else train.log_sigma[source]
    seen = jnp.where(is_slot & filled, labels[source], UNLABELLED)
    known = features, learner.probs(predictions), is_slot | ~filled, seen
    draw = _draw(learner, params, dropout, inputs[source])
    return Pool(train.latents[source], log_sigma, *known, source, prepared, draw)
