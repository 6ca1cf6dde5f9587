"""Active learning as pure functions of one seed, for `jit`, `vmap` and `scan`: `init`, `fit`, `query`, and `step`.

A round fits the learner on what has been queried, then queries the next batch. `RoundState.queried` is a buffer of the
final size whose empty slots hold n, the size of the training set. `RoundState.count`, the number of slots in use, is
one number for all seeds: were it batched, the trip count of the training loop would differ between seeds under `vmap`.

A query for more rows than the buffer or the pool has left gets those that there are: n stands for each missing row, and
no queried row is overwritten.

A strategy that synthesises asks about points of the latent space. `RoundState.points` keeps them slot by slot,
alongside the rows that answered. A query without an answer is spent: it takes a slot, whose row is n.
"""

from functools import partial
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from latent_al.kernels._sharding import num_shards, replicate
from latent_al.kernels.selection import subsample, subsample_size
from latent_al.types import BALANCED, UNLABELLED, Encoded, Key, Learner, Params, Pool, Problem, RoundState, Strategy


def make_problem(
    encoded: Encoded,
    labels: Num[Array | np.ndarray, " n"],
    *,
    strategy: Strategy,
    initial: Strategy,
    inputs: Float[Array | np.ndarray, "n ..."] | None = None,
) -> Problem:
    """Returns the problem of selecting in `encoded`, with what the two strategies prepare, as JAX arrays.

    Args:
        encoded: the training set in latent space.
        labels: of the whole training set; the loop shows a strategy only those of queried rows.
        strategy: the strategy of the rounds.
        initial: the strategy of the initial labelled set.
        inputs: what the learner reads; by default the latents.

    Raises:
        ValueError: there are not as many labels, or inputs, as latents.
    """
    # NumPy arrays cannot be indexed with traced row numbers.
    encoded = jax.tree.map(jnp.asarray, encoded)
    read, labels = encoded.latents if inputs is None else jnp.asarray(inputs), jnp.asarray(labels)
    size = encoded.latents.shape[0]
    # JAX clamps an index beyond the end, without an error.
    if labels.shape != (size,) or read.shape[:1] != (size,):
        raise ValueError(
            f"labels have shape {labels.shape} and inputs {read.shape}; expected one label and one input "
            f"for each of the {size:,} latents."
        )
    return Problem(read, labels, encoded, strategy.prepare(encoded), initial.prepare(encoded))


def init(
    key: Key,
    problem: Problem,
    *,
    learner: Learner | None,
    strategy: Strategy,
    initial: Strategy,
    num_initial: int,
    capacity: int,
) -> RoundState:
    """Queries the initial labelled set, and returns the state before the first fit.

    Args:
        key: consumed by the query.
        problem: with what both strategies prepared.
        learner: the state has room for its params; None where there are no labels to fit to.
        strategy: the strategy of the rounds.
        initial: selects from a pool with nothing taken and no predictions.
        num_initial: size of the initial labelled set.
        capacity: rows queried in total.

    Raises:
        ValueError: `num_initial` is above the capacity, or `initial` refuses its input.
    """
    if num_initial > capacity:
        raise ValueError(
            f"num_initial is {num_initial}; expected at most the capacity of {capacity}: raise the capacity to the "
            "number of rows queried in total."
        )
    size = problem.encoded.latents.shape[0]
    pool = Pool(
        latents=problem.encoded.latents,
        log_sigma=problem.encoded.log_sigma,
        features=None,
        probs=None,
        taken=jnp.zeros(size, bool),
        labels=jnp.full(size, UNLABELLED),
        rows=None,
        prepared=problem.prepared_initial,
    )
    rows = initial.query(key, pool, num_initial).astype(jnp.int32)
    queried = jnp.full(capacity, size, jnp.int32).at[:num_initial].set(rows)
    state = start(queried, num_initial, problem, strategy=strategy)
    return state if learner is None else state._replace(params=_empty_params(learner, problem, queried))


def start(
    queried: Int[Array, " capacity"], count: Int[Array, ""] | int, problem: Problem, *, strategy: Strategy
) -> RoundState:
    """Returns the state in which the first `count` of `queried` are labelled, before the first fit and without params.

    Slots after those of the next query may also hold rows: ones that are not to be queried.

    Args:
        queried: rows in the order of querying; empty slots hold n.
        count: slots in use.
    """
    prepared = problem.prepared if strategy.update else None
    points = problem.encoded.latents.at[queried].get(mode="clip") if strategy.synthesise else None
    return RoundState(queried, jnp.int32(count), None, prepared, jnp.int32(0), points)


def fit(
    key: Key, state: RoundState, problem: Problem, *, learner: Learner
) -> tuple[RoundState, dict[str, Float[Array, ""]]]:
    """Trains the learner from scratch on the rows queried so far; the first of them stands in for a missing one.

    Where queries are synthesised it trains on the answered points, repeated in turn up to the number asked, so that
    seeds with fewer answers train for as many steps as the others.

    Returns:
        The state with the params; what `learner.fit` reports, and the mean `score` on the labelled rows.
    """
    rows = _fill_empty_slots(state.queried, problem.labels.shape[0])
    inputs = problem.inputs[rows] if state.points is None else state.points
    if state.points is not None:
        slots = _answered_slots(state, problem.labels.shape[0])
        params, info = learner.fit(key, inputs, problem.labels[rows], slots, state.count)
    elif num_shards() > 1 and not learner.reads_pool:
        # Otherwise each training step would fetch its rows from all devices.
        inputs, labels = replicate(inputs), replicate(problem.labels[rows])
        slots = jnp.where(state.queried < problem.labels.shape[0], jnp.arange(rows.shape[0]), 0)
        params, info = learner.fit(key, inputs, labels, replicate(slots), state.count)
    else:
        params, info = learner.fit(key, problem.inputs, problem.labels, rows, state.count)
    _, predictions = learner.predict(params, inputs)
    scores = learner.score(predictions, problem.labels[rows])
    is_labelled = (jnp.arange(rows.shape[0]) < state.count) & (state.queried < problem.labels.shape[0])
    mean = jnp.where(is_labelled, scores, 0).sum() / is_labelled.sum(dtype=scores.dtype)
    return state._replace(params=params), info | {"score": mean}


def query(
    key: Key, state: RoundState, problem: Problem, *, learner: Learner, strategy: Strategy, query_size: int
) -> tuple[RoundState, Int[Array, " query_size"]]:
    """Queries the next `query_size` rows, or synthesises as many queries.

    Returns:
        The state with these rows, and the rows. n stands for each row that the buffer has no slot for, for each query
        without an answer and, inside `jit`, for each row that the pool lacks; `count` is at most the capacity, and at
        most n.

    Raises:
        ValueError: `query_size` is above the rows of a subsample, or the strategy refuses its input.
    """
    key_subsample, key_query = jax.random.split(key)
    state = _update(state, problem, strategy)
    if strategy.synthesise is not None:
        pool = whole_pool(state, problem, learner)
        asked = strategy.synthesise(key_query, pool, query_size)
        slots = state.count + jnp.arange(query_size, dtype=state.count.dtype)
        points = cast(Array, state.points).at[slots].set(asked.points, mode="drop")
        state = state._replace(points=points)
        return _with_rows(state, pool, asked.rows, problem.labels.shape[0])
    if strategy.subsample == 1:
        pool = whole_pool(state, problem, learner)
    else:
        _check_query_size(query_size, problem.labels.shape[0], strategy.subsample)
        is_queried = mark_rows(problem.labels.shape[0], state.queried)
        pool = pool_of_rows(state, problem, learner, _draw_subsample(key_subsample, is_queried, strategy.subsample))
    return _with_rows(state, pool, strategy.query(key_query, pool, query_size), problem.labels.shape[0])


def step(
    key: Key, state: RoundState, problem: Problem, *, learner: Learner, strategy: Strategy, query_size: int
) -> tuple[RoundState, dict[str, Array]]:
    """Runs one round: fits on what is labelled, then queries `query_size` rows.

    Returns:
        The state, and what `fit` reports, along with the queried `rows` [query_size].

    Raises:
        ValueError: as in `query`.
    """
    key_fit, key_query = jax.random.split(key)
    state, info = fit(key_fit, state, problem, learner=learner)
    state, rows = query(key_query, state, problem, learner=learner, strategy=strategy, query_size=query_size)
    return state, info | {"rows": rows}


def score(
    params: Params, inputs: Float[Array, "m ..."], labels: Num[Array, " m"], *, learner: Learner
) -> dict[str, Float[Array, ""]]:
    """Returns the learner's mean score and, for a classifier, also the balanced one, by the names of its metrics.

    Balanced accuracy is the recall averaged over the classes that occur in `labels` (Brodersen et al., The Balanced
    Accuracy and Its Posterior Distribution, ICPR 2010).

    Args:
        params: of the learner.
        inputs: labelled images or latents, as the learner reads them.
        labels: of these.
    """
    _, predictions = learner.predict(params, inputs)
    scores = learner.score(predictions, labels)
    means = {learner.metric: scores.mean()}
    if BALANCED in learner.metrics:
        means[BALANCED] = _mean_over_classes(scores, labels, predictions.shape[1])
    return means


def check_shapes(
    problem: Problem,
    *,
    learner: Learner | None,
    strategy: Strategy,
    initial: Strategy,
    num_initial: int,
    query_size: int,
    capacity: int | None = None,
) -> None:
    """Evaluates the initial query and one round abstractly, so that what cannot work is refused before long work.

    Args:
        problem: arrays, or their `jax.ShapeDtypeStruct`; what the strategies prepare is evaluated too.
        learner: None where there are no labels: then only the initial query is checked.
        strategy: the strategy of the rounds.
        initial: the strategy of the initial labelled set.
        num_initial: size of the initial labelled set.
        query_size: rows per round.
        capacity: rows queried in total; None for those of one round.

    Raises:
        ValueError: a strategy or the learner refuses its input.
    """
    in_the_end = num_initial + query_size if capacity is None else capacity

    def play(key, problem):
        problem = make_problem(
            problem.encoded, problem.labels, strategy=strategy, initial=initial, inputs=problem.inputs
        )
        sizes = dict(num_initial=num_initial, capacity=in_the_end)
        state = init(key, problem, learner=learner, strategy=strategy, initial=initial, **sizes)
        if learner is not None:
            state, _ = step(key, state, problem, learner=learner, strategy=strategy, query_size=query_size)
        return state

    jax.eval_shape(play, jax.eval_shape(lambda: jax.random.key(0)), problem)


def whole_pool(state: RoundState, problem: Problem, learner: Learner) -> Pool:
    """Returns the whole training set as a pool, with the learner's predictions."""
    features, predictions = learner.predict(state.params, problem.inputs)
    taken = mark_rows(problem.labels.shape[0], state.queried)
    return Pool(
        latents=problem.encoded.latents,
        log_sigma=problem.encoded.log_sigma,
        features=features,
        probs=learner.probs(predictions),
        taken=taken,
        labels=jnp.where(taken, problem.labels, UNLABELLED),
        rows=None,
        prepared=_prepared(state, problem),
        mc_dropout=_mc_dropout(learner, state.params, problem.inputs),
        predict=_predict(learner, problem, state.params),
    )


def pool_of_rows(state: RoundState, problem: Problem, learner: Learner, rows: Int[Array, " m"]) -> Pool:
    """Returns a pool of the queried rows, which come first, and of `rows`, whose empty slots hold n.

    Args:
        rows: of the training set, not queried.
    """
    size = problem.labels.shape[0]
    slots = jnp.concatenate([state.queried, rows])
    is_labelled = (jnp.arange(slots.shape[0]) < state.queried.shape[0]) & (slots < size)
    source = _fill_empty_slots(slots, size)
    inputs, encoded = problem.inputs[source], problem.encoded
    features, predictions = learner.predict(state.params, inputs)
    return Pool(
        latents=encoded.latents[source],
        log_sigma=None if encoded.log_sigma is None else encoded.log_sigma[source],
        features=features,
        probs=learner.probs(predictions),
        taken=is_labelled | (slots >= size),
        labels=jnp.where(is_labelled, problem.labels[source], UNLABELLED),
        rows=source,
        prepared=_prepared(state, problem),
        mc_dropout=_mc_dropout(learner, state.params, inputs),
        predict=_predict(learner, problem, state.params),
    )


def mark_rows(size: int, rows: Int[Array, " capacity"]) -> Bool[Array, " size"]:
    """Returns a mask of `size` rows, True for those in the buffer `rows`.

    Args:
        size: of the mask.
        rows: to mark; n and more stand for none.
    """
    return jnp.zeros(size, bool).at[rows].set(True, mode="drop")


def _empty_params(learner, problem, queried):
    params, _ = jax.eval_shape(learner.fit, jax.random.key(0), problem.inputs, problem.labels, queried, jnp.int32(1))
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), params)


def _update(state, problem, strategy):
    """Updates what the strategy prepared with the rows queried since the last update."""
    if strategy.update is None:
        return state

    def add_row(slot, prepared):
        row = state.queried[slot]
        updated = strategy.update(prepared, problem.encoded, row)
        return jax.tree.map(partial(jnp.where, row < problem.labels.shape[0]), updated, prepared)

    prepared = jax.lax.fori_loop(state.num_updated, state.count, add_row, state.prepared)
    return state._replace(prepared=prepared, num_updated=state.count)


def _with_rows(state, pool, selected, size):
    """Returns the state with the rows selected in the pool, as far as there are slots left, and these rows."""
    if pool.rows is not None:
        selected = pool.rows.at[selected].get(mode="fill", fill_value=size)
    capacity, num = state.queried.shape[0], selected.shape[0]
    slots = state.count + jnp.arange(num, dtype=state.count.dtype)
    rows = jnp.where(slots < capacity, selected, size).astype(state.queried.dtype)
    queried = state.queried.at[slots].set(rows, mode="drop")
    return state._replace(queried=queried, count=jnp.minimum(state.count + num, min(capacity, size))), rows


def _check_query_size(query_size, size, share):
    num_open = subsample_size(size, share)
    if query_size > num_open:
        raise ValueError(
            f"query_size is {query_size}; expected at most the {num_open} rows that a subsample of {share} of {size} "
            "rows has: raise subsample, or lower query_size."
        )


def _answered_slots(state, size):
    """Returns the slots whose query was answered, repeated to fill an array of the capacity."""
    slots = jnp.arange(state.queried.shape[0])
    is_answered = (slots < state.count) & (state.queried < size)
    return jnp.argsort(~is_answered)[slots % jnp.maximum(is_answered.sum(), 1)]


def _prepared(state, problem):
    return problem.prepared if state.prepared is None else state.prepared


def _mean_over_classes(scores, labels, num_classes):
    sizes = jax.ops.segment_sum(jnp.ones_like(scores), labels, num_classes)
    sums = jax.ops.segment_sum(scores, labels, num_classes)
    return (sums / jnp.maximum(sizes, 1)).sum() / (sizes > 0).sum(dtype=scores.dtype)


def _fill_empty_slots(rows, size):
    """Fills empty slots with the first row: it is labelled, so that no distance to what is labelled changes."""
    return jnp.where(rows < size, rows, rows[0])


def _mc_dropout(learner, params, inputs):
    if learner.mc_dropout is None:
        return None

    def predict(params, inputs, key):
        _, predictions = learner.mc_dropout(params, key, inputs)
        return predictions

    return jax.tree_util.Partial(predict, params, inputs)


def _predict(learner, problem, params):
    """Returns `Pool.predict`."""
    if learner.metric != "accuracy" or problem.inputs.ndim > 2:
        return None

    def predict(params, latents):
        _, predictions = learner.predict(params, latents)
        return predictions

    return jax.tree_util.Partial(predict, params)


def _draw_subsample(key: Key, is_queried: Bool[Array, " n"], share: float) -> Int[Array, " m"]:
    """Returns the rows of a random share of the pool; slots without a row hold n."""
    size = is_queried.shape[0]
    is_drawn = ~subsample(key, is_queried, fraction=share)
    drawn = jnp.nonzero(is_drawn, size=subsample_size(size, share), fill_value=size)[0]
    return drawn.astype(jnp.int32)
