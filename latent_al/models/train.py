"""The one loop that trains every model: epochs of shuffled mini-batches over a fixed-capacity buffer of rows.

The number of rows in use may be traced, so one compilation serves all rounds.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Num, PyTree

from latent_al.kernels._sharding import POOL, gather, map_shards, num_shards
from latent_al.models import cpu
from latent_al.models.cpu import on_cpu
from latent_al.types import UNLABELLED, Key, Params

BLOCK = 2048
"""Rows that a model is applied to at a time, so that memory does not grow with the pool."""

Loss = Callable[..., Float[Array, " b"]]
"""(params, key, examples, *context) -> the loss of each example."""


class State(NamedTuple):
    """The params, and the state of the optimizer."""

    params: Params
    opt_state: PyTree


class Objective(NamedTuple):
    """A loss, the optimizer that minimises it, and the rows of a step."""

    loss: Loss
    optimizer: optax.GradientTransformation
    batch_size: int


class Subset(NamedTuple):
    """The examples to train on: the first `count` of `rows`, 1 or more.

    arrays: a tree of arrays whose leading axis `rows` index.
    rows: the buffer; slots from `count` on are not read.
    count: may be traced.
    """

    arrays: PyTree
    rows: Int[Array, " capacity"]
    count: Int[Array, ""] | int


def start(params: Params, optimizer: optax.GradientTransformation) -> State:
    """Returns the state before the first step."""
    return State(params, optimizer.init(params))


def keras_adadelta(learning_rate: float) -> optax.GradientTransformation:
    """Returns Adadelta as in Keras: decay 0.95 and epsilon 1e-7."""
    return optax.adadelta(learning_rate, rho=0.95, eps=1e-7)


def keras_rmsprop(learning_rate: float) -> optax.GradientTransformation:
    """Returns RMSprop as it was in Keras: decay 0.9, and epsilon 1e-7 outside the square root."""
    return optax.rmsprop(learning_rate, decay=0.9, eps=1e-7, eps_in_sqrt=False)


def epoch(
    key: Key,
    state: State,
    subset: Subset,
    *context: PyTree,
    objective: Objective,
    num_steps: Int[Array, ""] | int | None = None,
) -> tuple[State, Float[Array, ""]]:
    """Trains for one pass in random order over the examples; the last batch may be smaller.

    A smaller batch is filled up with rows of the other batches, whose loss does not count: a loss that compares the
    examples of a batch sees whole batches, and no example twice unless there are fewer than `batch_size`.

    Args:
        key: of the order, and of what is random in the loss.
        state: before the pass.
        subset: the examples.
        context: further arguments of the loss, the same in each step.
        objective: what is minimised, and how.
        num_steps: ends the pass early; by default it takes all `num_batches(subset.count, batch_size)`.

    Returns:
        The state, and the mean loss over the pass.
    """
    key_order, key_loss = jax.random.split(key)
    count = subset.count
    in_order = shuffled(key_order, subset.rows, count)
    loss, optimizer, batch_size = objective

    def step(index, carry):
        state, total = carry
        places = index * batch_size + jnp.arange(batch_size)
        chosen = in_order[places % count]
        used = places < count
        drawn = jax.tree.map(lambda array: array.at[chosen].get(mode="clip"), subset.arrays)

        def mean_loss(params):
            losses = loss(params, jax.random.fold_in(key_loss, index), drawn, *context)
            return jnp.where(used, losses, 0).sum() / used.sum()

        value, gradients = jax.value_and_grad(mean_loss)(state.params)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        return State(optax.apply_updates(state.params, updates), opt_state), total + value * used.sum()

    num_steps = num_batches(count, batch_size) if num_steps is None else num_steps
    state, total = jax.lax.fori_loop(0, num_steps, step, (state, jnp.zeros(())))
    return state, total / jnp.minimum(count, num_steps * batch_size)


def shuffled(key: Key, rows: Int[Array, " capacity"], count: Int[Array, ""] | int) -> Int[Array, " capacity"]:
    """Returns the first `count` of `rows` in random order, followed by the rest."""
    slot = jnp.arange(rows.shape[0])
    return rows[jnp.argsort(jnp.where(slot < count, jax.random.uniform(key, slot.shape), jnp.inf))]


def labelled_slots(
    rows: Int[Array, " capacity"], labels: Num[Array, " n"], count: Int[Array, ""] | int
) -> tuple[Int[Array, " capacity"], Num[Array, " capacity"]]:
    """Returns the row in each slot and its label; beyond the first `count` slots the first row, and `UNLABELLED`.

    A row that fills several slots, as where synthesised queries are spent, has its label only in the first of them:
    otherwise it would be held out and trained on at once, or vote twice.
    """
    slots = jnp.arange(rows.shape[0])
    is_in_use = slots < count
    filled = jnp.where(is_in_use, rows, rows[0])
    first_slots = jnp.full(labels.shape[0], rows.shape[0]).at[filled].min(slots)
    return filled, jnp.where(is_in_use & (first_slots[filled] == slots), labels[filled], UNLABELLED)


def num_batches(count: Int[Array, ""] | int, batch_size: int) -> Int[Array, ""] | int:
    """Returns the number of steps in a pass over `count` rows."""
    return (count + batch_size - 1) // batch_size


def fit(
    key: Key,
    state: State,
    subset: Subset,
    *context: PyTree,
    objective: Objective,
    num_steps: Int[Array, ""] | int,
    alone: bool = False,
) -> tuple[State, Float[Array, ""]]:
    """Trains for `num_steps` steps from `state`, pass after pass, the last pass perhaps unfinished.

    Args:
        key: of the orders, and of what is random in the loss.
        state: to begin with.
        subset: the examples.
        context: as in `epoch`.
        objective: what is minimised, and how.
        num_steps: training steps.
        alone: a `vmap` on a CPU trains one member after the other. Convolutions need it: for several kernels at once
            XLA has only slow ones.

    Returns:
        The trained state and the mean loss of the last pass.
    """

    def train(key, state, num_steps, subset, *context):
        whole = num_batches(subset.count, objective.batch_size)

        def train_pass(index, carry):
            state, _ = carry
            left = jnp.minimum(whole, num_steps - index * whole)
            key_pass = jax.random.fold_in(key, index)
            return epoch(key_pass, state, subset, *context, objective=objective, num_steps=left)

        return jax.lax.fori_loop(0, -(-num_steps // whole), train_pass, (state, jnp.zeros(())))

    members = as_members(train, state.params, 0 if alone else cpu.CACHE)
    return members(key, state, num_steps, subset, *context)


def in_blocks(
    apply: Callable[[Params, Float[Array, "b ..."]], PyTree],
    block: int = BLOCK,
    *,
    alone: bool = False,
    aligned: bool = False,
) -> Callable:
    """Returns `apply(params, inputs)` in blocks of rows, under `vmap` as in `fit`; it has a gradient in reverse mode.

    Args:
        apply: (params, rows of inputs) -> outputs of these rows.
        block: rows at a time.
        alone: as in `fit`.
        aligned: gives each row the place in its block that it has where all rows lie on one device, for an `apply` to
            which places matter.
    """

    def of_shard(inputs, params):
        num = inputs.shape[0] // block
        if not num:
            return apply(params, inputs)

        def put(outputs, some, start):
            update = jax.lax.dynamic_update_slice_in_dim
            return jax.tree.map(lambda whole, part: update(whole, part, start, 0), outputs, apply(params, some))

        def put_block(index, outputs):
            # Blocks are read and written in place: slicing out all whole ones would copy the pool.
            return put(outputs, jax.lax.dynamic_slice_in_dim(inputs, index * block, block), index * block)

        shapes = jax.eval_shape(apply, params, inputs)
        outputs = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return put(jax.lax.fori_loop(0, num, put_block, outputs), inputs[num * block :], num * block)

    def aligned_shard(inputs, params):
        size = inputs.shape[0]
        lead = jax.lax.axis_index(POOL) * size % block
        shifted = jnp.zeros((size + block - 1, *inputs.shape[1:]), inputs.dtype)
        outputs = of_shard(jax.lax.dynamic_update_slice_in_dim(shifted, inputs, lead, 0), params)
        return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, lead, size), outputs)

    def blocked(params, inputs):
        function = aligned_shard if aligned and num_shards() > 1 else of_shard
        return jax.tree.map(lambda parts: gather(parts, inputs.shape[0]), map_shards(function, inputs, params))

    # The activations of a block need the other half of the cache.
    return lambda params, inputs: _with_gradient(blocked, params, 0 if alone else cpu.CACHE // 2)(params, inputs)


@on_cpu(cpu.in_groups)
def as_members(function: Callable, params: Params, cache: int) -> Callable:
    """Returns `function`; on a CPU, its `vmap` takes only as many members at a time as have `cache` bytes of params."""
    del params, cache
    return function


@on_cpu(cpu.in_groups_with_gradient)
def _with_gradient(function, params, cache):
    """Returns `as_members(function, params, cache)`, which has a gradient on a CPU too."""
    return as_members(function, params, cache)
