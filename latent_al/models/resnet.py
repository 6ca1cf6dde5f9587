"""The residual network of 18 layers in the form for small images, and its batch statistics."""

import math
from functools import partial
from itertools import accumulate
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Int, PyTree

from latent_al.models.convolutions import Convolution, conv, conv_2x, pixel_conv_2x
from latent_al.models.layers import check_halves, dense, drop
from latent_al.models.tasks import CNN_BLOCK, classes, loss_of, mc_dropout_of, predictions
from latent_al.models.train import Objective, Subset, as_members, fit, in_blocks, num_batches, shuffled, start
from latent_al.types import BadInput, Key, Learner, Params

STAGES = 4
"""Stages of two blocks; each except the first halves the sides and doubles the channels."""

EPSILON = 1e-5
"""Added to a variance before dividing by its root."""

Convolved = partial(Convolution, use_bias=False)


class BatchNorm(nn.Module):
    """Standardises each channel to mean 0 and variance 1, then applies a learned scale and shift.

    It uses the collection `statistics` where the variables have one, and otherwise the statistics of the batch itself,
    which it leaves in that collection where it is mutable: `moments` [2 c], mean and variance (over n, not n - 1).
    """

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones_init(), shape)
        bias = self.param("bias", nn.initializers.zeros_init(), shape)
        if self.has_variable("statistics", "moments"):
            mean, variance = self.get_variable("statistics", "moments")
        else:
            mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
            if self.is_mutable_collection("statistics"):
                self.put_variable("statistics", "moments", jnp.stack([mean, variance]))
        factor = scale * jax.lax.rsqrt(variance + EPSILON)
        over = (None, None, None)
        return (x - mean[over]) * factor[over] + bias[over]


class Block(nn.Module):
    """Two 3x3 convolutions and a ReLU on their sum with the input; the first halves the sides where `is_halved`.

    Where the shape changes, the input is projected by a 1x1 convolution.
    """

    features: int
    is_halved: bool

    @nn.compact
    def __call__(self, x):
        first = Convolved(conv_2x if self.is_halved else conv, self.features, 3, name="conv_0")
        inner = nn.relu(BatchNorm(name="norm_0")(first(x)))
        inner = BatchNorm(name="norm_1")(Convolved(conv, self.features, 3, name="conv_1")(inner))
        if self.is_halved:
            x = BatchNorm(name="norm_shortcut")(Convolved(pixel_conv_2x, self.features, 1, name="shortcut")(x))
        return nn.relu(inner + x)


class ResNet18(nn.Module):
    """A 3x3 convolution, four stages of two residual blocks, the mean over pixels, then a linear layer of outputs.

    Attributes:
        width: channels of the first stage; 2, 4 and 8 times as many in the others.
        num_outputs: number of outputs of the last layer.
    """

    width: int
    num_outputs: int

    @nn.compact
    def __call__(self, images, dropout=None):
        x = nn.relu(BatchNorm(name="norm")(Convolved(conv, self.width, 3, name="stem")(images)))
        for stage in range(STAGES):
            for index in range(2):
                is_halved = stage > 0 and index == 0
                x = Block(self.width * 2**stage, is_halved, name=f"block_{stage}_{index}")(x)
        x = x.mean(axis=(1, 2))
        if dropout is not None:
            x = drop(self.make_rng("dropout"), x, dropout)
        return x, dense(self.num_outputs)(x)


def initial_params(key: Key, model: ResNet18, images: Float[Array, "n h w c"]) -> Params:
    """Returns normal kernels with a variance of 2 / inputs, as in He et al. (2015), scales of 1 and biases of 0.

    All come from one draw: XLA takes longer to compile a draw for each than to compile the network.
    """
    params = {"params": jax.eval_shape(model.init, key, images)["params"]}
    leaves, structure = jax.tree.flatten_with_path(params)
    sizes = [leaf.size if leaf.ndim > 1 else 0 for _, leaf in leaves]
    drawn = jnp.split(jax.random.normal(key, (sum(sizes),)), list(accumulate(sizes))[:-1])

    def filled(path, leaf, normal):
        if leaf.ndim > 1:
            return normal.reshape(leaf.shape) * math.sqrt(2 / math.prod(leaf.shape[:-1]))
        return jnp.full(leaf.shape, path[-1].key == "scale", leaf.dtype)

    filled_leaves = [filled(path, leaf, normal) for (path, leaf), normal in zip(leaves, drawn, strict=True)]
    return jax.tree.unflatten(structure, filled_leaves)


class Annealed(NamedTuple):
    """The state of `cosine_to_zero`: the steps taken, and their total."""

    step: Int[Array, ""]
    num_steps: Int[Array, ""]


def cosine_to_zero(num_steps: Int[Array, ""] | int) -> optax.GradientTransformation:
    """Scales by half a cosine, from 1 down towards 0 after `num_steps`, which may be traced: the state holds it."""

    def init(params):
        del params
        return Annealed(jnp.int32(0), jnp.int32(num_steps))

    def update(updates, state, params=None):
        del params
        factor = (1 + jnp.cos(jnp.pi * state.step / state.num_steps)) / 2
        return jax.tree.map(lambda leaf: factor * leaf, updates), state._replace(step=state.step + 1)

    return optax.GradientTransformation(init, update)


def population_statistics(
    key: Key,
    model: nn.Module,
    params: Params,
    images: Float[Array, "n h w c"],
    rows: Int[Array, " capacity"],
    count: Int[Array, ""] | int,
    batch_size: int,
) -> PyTree:
    """Returns the statistics of the trained network over one pass of the first `count` of `rows`, for all at once.

    The pass is as in training: whole batches in random order, each normalised by its own statistics, the last filled
    up with rows of the others, and all of equal weight. A mean is the mean of the batches' means; a variance is the
    mean of their variances plus the variance of their means. This is "precise batch norm", Wu and Johnson (2021), which
    does better than a running mean where there are few batches.

    Returns:
        The collection `statistics` of `model`.
    """

    def measure(params, some):
        return model.apply(params, some, mutable=["statistics"])[1]["statistics"]

    def over_batches(params, in_order, count, images):
        def one(index, total):
            some = images.at[in_order[(index * batch_size + jnp.arange(batch_size)) % count]].get(mode="clip")
            return jax.tree.map(partial(_merge, index), total, measure(params, some))

        zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(measure, params, images[:1]))
        return jax.lax.fori_loop(0, num_batches(count, batch_size), one, zeros)

    return as_members(over_batches, params, 0)(params, shuffled(key, rows, count), count, images)


def resnet18(
    *,
    num_classes: int,
    image_shape: tuple[int, int, int],
    width: int,
    dropout: float,
    learning_rate: float,
    weight_decay: float,
    epochs: int,
    batch_size: int,
) -> Learner:
    """Returns ResNet-18 in its usual form for CIFAR: a 3x3 stem with stride 1 and no pooling after it.

    Source: He et al. (2015).

    It is trained from scratch at each fit by SGD with Nesterov momentum 0.9 and a learning rate that falls to zero as
    half a cosine over all steps. In training a batch is normalised by its own statistics; the predictions use those of
    `population_statistics`.

    Args:
        num_classes: labels are in [0, num_classes).
        image_shape: (h, w, c), sides that are multiples of 8.
        width: channels of the first stage; 64 as published.
        dropout: share of the features dropped before the last layer in training, in [0, 0.99].
        learning_rate: learning rate of the first step.
        weight_decay: added to each gradient, times the weight; 0 or more.
        epochs: passes over the labelled rows.
        batch_size: images per step; where there are fewer, some are repeated.

    Raises:
        BadInput: a size below 1, sides that are not multiples of 8, a dropout, learning_rate or weight_decay outside
            its range.
    """
    rates_fit = 0 <= dropout <= 0.99 and learning_rate > 0 and weight_decay >= 0
    if min(num_classes, width, epochs, batch_size) < 1 or not rates_fit:
        raise BadInput(
            f"resnet18 has num_classes {num_classes}, width {width}, epochs {epochs}, batch_size {batch_size}, dropout "
            f"{dropout}, learning_rate {learning_rate} and weight_decay {weight_decay}; expected sizes of 1 or more, "
            "dropout in [0, 0.99], a positive learning_rate and a weight_decay of 0 or more."
        )
    check_halves("resnet18", image_shape, STAGES)
    task = classes(num_classes)
    model = ResNet18(width, num_classes)
    loss = loss_of(model, task)

    def fit_resnet(key, inputs, labels, rows, count):
        key_init, key_fit, key_statistics = jax.random.split(key, 3)
        num_steps = epochs * num_batches(count, batch_size)
        sgd = optax.sgd(learning_rate, momentum=0.9, nesterov=True)
        optimizer = optax.chain(optax.add_decayed_weights(weight_decay), sgd, cosine_to_zero(num_steps))
        state = start(initial_params(key_init, model, inputs[:1]), optimizer)
        settings = dict(objective=Objective(loss, optimizer, batch_size), num_steps=num_steps, alone=True)
        state, mean_loss = fit(key_fit, state, Subset((inputs, labels), rows, count), dropout, **settings)
        statistics = population_statistics(key_statistics, model, state.params, inputs, rows, count, batch_size)
        return state.params | {"statistics": statistics}, {"loss": mean_loss}

    predict = in_blocks(predictions(model, task), CNN_BLOCK, alone=True)
    mc_dropout = mc_dropout_of(model, task, dropout, CNN_BLOCK, alone=True)
    return Learner(fit_resnet, predict, mc_dropout, task.score, task.metric)


def _merge(index, total, added):
    """Returns the moments [2 c] of `index` + 1 groups of equal size, from those of `index` and of one more."""
    (mean, variance), (new_mean, new_variance) = total, added
    step = new_mean - mean
    between = step**2 * index / (index + 1) ** 2
    return jnp.stack([mean + step / (index + 1), variance + (new_variance - variance) / (index + 1) + between])
