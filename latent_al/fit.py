"""The one loop that trains every model: epochs of shuffled mini-batches over a fixed-capacity buffer of rows.

The number of rows in use may be traced, so one compilation serves all rounds.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from latent_al.base import Key, Params

BLOCK = 2048
"""Rows that a model is applied to at a time, so that memory does not grow with the pool."""

CACHE = 3 * 2**20
"""Bytes of params that train side by side on a CPU."""

Loss = Callable[..., Float[Array, " b"]]
"""(params, key, examples, *context) -> the loss of each example."""


class State(NamedTuple):
    params: Params
    opt_state: PyTree


def start(params: Params, optimizer: optax.GradientTransformation) -> State:
    return State(params, optimizer.init(params))


def keras_rmsprop(learning_rate: float) -> optax.GradientTransformation:
    """RMSprop as Keras had it: decay 0.9, and epsilon 1e-7 outside the square root."""
    return optax.rmsprop(learning_rate, decay=0.9, eps=1e-7, eps_in_sqrt=False)


def epoch(
    key: Key,
    state: State,
    examples: PyTree,
    rows: Int[Array, " capacity"],
    count: Int[Array, ""] | int,
    *context: PyTree,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    batch: int,
) -> tuple[State, Float[Array, ""]]:
    """One pass in random order over the first `count` of `rows`, the last batch smaller where they do not divide.

    Args:
        examples: arrays whose leading axis `rows` index.
        rows: the buffer; slots from `count` on are not read. `count` is 1 or more.
        context: what `loss` takes besides, the same in each step.
        batch: rows a step.

    Returns:
        The state after ceil(count / batch) steps, and the mean loss over the pass.
    """
    key_order, key_loss = jax.random.split(key)
    slot = jnp.arange(rows.shape[0])
    order = jnp.argsort(jnp.where(slot < count, jax.random.uniform(key_order, slot.shape), jnp.inf))
    shuffled = jnp.pad(rows[order], (0, -rows.shape[0] % batch))

    def step(index, carry):
        state, total = carry
        chosen = jax.lax.dynamic_slice(shuffled, (index * batch,), (batch,))
        used = index * batch + jnp.arange(batch) < count
        drawn = jax.tree.map(lambda array: array.at[chosen].get(mode="clip"), examples)

        def mean_loss(params):
            losses = loss(params, jax.random.fold_in(key_loss, index), drawn, *context)
            return jnp.where(used, losses, 0).sum() / used.sum()

        value, gradients = jax.value_and_grad(mean_loss)(state.params)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        return State(optax.apply_updates(state.params, updates), opt_state), total + value * used.sum()

    num_steps = (count + batch - 1) // batch
    state, total = jax.lax.fori_loop(0, num_steps, step, (state, jnp.zeros(())))
    return state, total / count


def fit(
    key: Key,
    params: Params,
    examples: PyTree,
    rows: Int[Array, " capacity"],
    count: Int[Array, ""] | int,
    *context: PyTree,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    batch: int,
    epochs: int,
) -> tuple[Params, Float[Array, ""]]:
    """`epochs` passes from `params` on; the trained params and the mean loss of the last pass."""

    def train(key, params, *arrays):
        def one(carry, key):
            return epoch(key, carry[0], *arrays, loss=loss, optimizer=optimizer, batch=batch), None

        begin = (start(params, optimizer), jnp.zeros(()))
        (state, last), _ = jax.lax.scan(one, begin, jax.random.split(key, epochs))
        return state.params, last

    return _as_members(train, params, CACHE)(key, params, examples, rows, count, *context)


def in_blocks(apply: Callable[[Params, Float[Array, "b ..."]], PyTree], block: int = BLOCK) -> Callable:
    """`apply(params, inputs)` in blocks of rows."""

    def blocked(params, inputs):
        whole = inputs.shape[0] // block * block
        blocks = inputs[:whole].reshape(-1, block, *inputs.shape[1:])
        head = jax.lax.map(lambda some: apply(params, some), blocks)
        tail = apply(params, inputs[whole:])
        return jax.tree.map(lambda h, t: jnp.concatenate([h.reshape(-1, *t.shape[1:]), t]), head, tail)

    # The activations of a block need the other half of the cache.
    return lambda params, inputs: _as_members(blocked, params, CACHE // 2)(params, inputs)


def _as_members(function, params, cache):
    """`function`, whose `vmap` on a CPU takes only as many members at a time as have `cache` bytes of params.

    More members evict each other from the cache: ten 512-512 networks side by side take longer than ten times one, in
    pairs they take less.
    """
    if jax.default_backend() != "cpu":
        return function
    group = max(1, cache // sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params)))
    member = jax.custom_batching.custom_vmap(function)

    @member.def_vmap
    def in_groups(axis_size, in_batched, *args):
        leaves, structure = jax.tree.flatten(args)
        is_batched = jax.tree.leaves(in_batched)

        def call(own):
            rest = iter(own)
            merged = [next(rest) if flag else leaf for leaf, flag in zip(leaves, is_batched, strict=True)]
            return function(*structure.unflatten(merged))

        own = [leaf for leaf, flag in zip(leaves, is_batched, strict=True) if flag]
        # A member alone runs without the extra axis, for which XLA's layouts are slower by a third.
        at_a_time = min(group, axis_size)
        outputs = jax.lax.map(call, own, batch_size=at_a_time if at_a_time > 1 else None)
        return outputs, jax.tree.map(lambda _: True, outputs)

    return member
