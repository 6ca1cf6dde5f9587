"""The one loop that trains an auto-encoder: epochs of an array, or chunks of a stream that is shuffled."""

import itertools
import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped
from tqdm import tqdm

from latent_al.data.images import Images, Stream
from latent_al.models.autoencoders import AutoEncoder
from latent_al.models.train import BLOCK, Objective, State, Subset, epoch, in_blocks, start
from latent_al.runtime.checkpoints import Checkpoints
from latent_al.runtime.files import write_json
from latent_al.types import BadInput, Data, Params

CHUNK_BYTES = 2**26
"""The maximum bytes of a stream's images, as floats, on the device at a time."""
CHUNK_BATCHES = 32
"""The maximum number of batches in a chunk."""
SECONDS = 30
"""Seconds between checkpoints."""


class Training(NamedTuple):
    """The settings of a training: step size, passes over the images, images per step, and the seed of it all."""

    learning_rate: float
    epochs: int
    batch_size: int
    seed: int


class Trainer(NamedTuple):
    """An auto-encoder for images of one shape, and the program that trains it.

    image_shape: (h, w, c).
    run: (key, state, pixels [capacity h w c], count) -> (state, mean loss): one pass over the first `count` images,
        which are floats in [0, 1] or bytes.
    """

    autoencoder: AutoEncoder
    training: Training
    image_shape: tuple[int, int, int]
    run: Callable[..., tuple[State, Float[Array, ""]]]

    @property
    def chunk(self) -> int:
        """Returns how many images of a stream are on the device at a time."""
        return chunk_rows(self.training.batch_size, self.image_shape)


class Parts(NamedTuple):
    """A training run in parts; it can stop and continue between two of them.

    num: how many.
    unit: what one is.
    read: (first) -> the parts from number `first` on, each the pixels [capacity h w c] and how many of them count.
    """

    num: int
    unit: str
    read: Callable[[int], Iterator[tuple[Any, int]]]


def make_trainer(make: Callable, training: Training, image_shape: tuple[int, int, int], **sizes: Any) -> Trainer:
    """Returns the auto-encoder `make(image_shape=..., **sizes)`, once a training step has passed on shapes alone.

    Raises:
        BadInput: what cannot work, before any long work.
    """
    epochs, batch_size, learning_rate = training.epochs, training.batch_size, training.learning_rate
    if min(epochs, batch_size) < 1 or learning_rate <= 0:
        raise BadInput(
            f"the auto-encoder has epochs {epochs}, batch_size {batch_size} and learning_rate {learning_rate}; "
            "expected sizes of 1 or more and a positive learning_rate."
        )
    autoencoder, key = make(image_shape=image_shape, **sizes), jax.random.key(0)

    def step(images):
        return autoencoder.loss(autoencoder.module.init(key, images[:1], key), key, images)

    try:
        jax.eval_shape(step, jax.ShapeDtypeStruct((batch_size, *image_shape), jnp.float32))
    except ValueError as error:
        raise BadInput(f"the auto-encoder cannot be trained in batches of {batch_size}: {error}") from error
    objective = Objective(autoencoder.loss, autoencoder.optimizer(learning_rate), batch_size)

    def run(key, state, pixels, count):
        subset = Subset(as_floats(pixels), jnp.arange(pixels.shape[0]), count)
        return epoch(key, state, subset, objective=objective)

    return Trainer(autoencoder, training, image_shape, jax.jit(run))


def train(trainer: Trainer, data: Data, folder: Path) -> tuple[Params, Float[np.ndarray, "parts 2"]]:
    """Trains on the training images alone, from where the training in `folder` stopped.

    Of a stream, the images that were there when the training began are used.

    Returns:
        The params, and the training and validation loss of each part, an epoch or a chunk of a stream; NaN where there
        are no validation images.

    Raises:
        BadInput: a loss that is NaN or infinite; for a stream, whose curve is not drawn, a validation loss of its first
            batch that ends above the one before training. The part before it stays in `folder`.
    """
    images = data.train.images
    _, _, key_parts, key_validation = _keys(trainer)
    parts = _parts_of(trainer, images, folder)
    checkpoints = Checkpoints(folder / "training", seconds_between=SECONDS)
    done, (state, losses) = checkpoints.restore((_blank_state(trainer), np.full((parts.num, 2), np.nan)))
    if done == parts.num:
        return state.params, losses
    limit = None
    if not done or isinstance(images, Stream):
        initial = initial_state(trainer, images)
        state = state if done else jax.device_get(initial)
        limit = _loss_of_first(trainer, initial, images) if isinstance(images, Stream) else limit
    validation = jnp.asarray(data.validation.images)
    validate = jax.jit(_mean_loss(trainer.autoencoder.validation_loss, block_of(trainer.image_shape)))
    progress = tqdm(parts.read(done), f"training {folder.name}", parts.num, initial=done, unit=parts.unit, disable=None)
    with progress as bar:
        for index, (pixels, count) in enumerate(bar, done):
            state, loss = trainer.run(jax.random.fold_in(key_parts, index), state, pixels, count)
            losses[index] = loss, validate(state.params, key_validation, validation)
            is_last = index + 1 == parts.num
            _check_finite(losses[: index + 1, 0], parts, trainer.training)
            if is_last and limit is not None:
                _check_gain(limit, _loss_of_first(trainer, state, images), trainer.training)
            bar.set_postfix(train=f"{losses[index, 0]:.4g}", validation=f"{losses[index, 1]:.4g}")
            checkpoints.save(index + 1, (state, losses), last=is_last)
    return state.params, losses


def chunks_left(trainer: Trainer, stream: Stream, folder: Path) -> float:
    """Returns how many chunks of a stream are left to train on, from where the training in `folder` stopped."""
    chunks = trainer.training.epochs * training_rows(stream, folder) / trainer.chunk
    return max(0.0, chunks - Checkpoints(folder / "training").steps_done)


def initial_state(trainer: Trainer, images: Images) -> State:
    """Returns the state before training.

    Raises:
        BadInput: a layer is dead on a whole block of the images: ReLUs that never fire never learn.
    """
    block = as_floats(jnp.asarray(images[: block_of(trainer.image_shape)]))
    model = trainer.autoencoder.module
    key, key_noise, _, _ = _keys(trainer)
    params = model.init(key, block[:1], key_noise)
    mu, _ = jax.jit(partial(model.apply, method="encode"))(params, block)
    if jnp.ptp(block, axis=0).any() and not jnp.ptp(mu, axis=0).any():
        raise BadInput("the encoder's initial weights map all images to one point, a dead layer; choose another seed.")
    return start(params, trainer.autoencoder.optimizer(trainer.training.learning_rate))


def training_rows(stream: Stream, folder: Path) -> int:
    """Returns how many images are trained on: those there when the training began, whatever joins later."""
    path = folder / "trained_on.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, dict(num_images=len(stream)))
    return json.loads(path.read_text())["num_images"]


def chunk_rows(batch_size: int, image_shape: tuple[int, int, int]) -> int:
    """Returns the images of a chunk: whole batches that take at most `CHUNK_BYTES`, or one batch."""
    batch_bytes = 4 * batch_size * math.prod(image_shape)
    return batch_size * max(1, min(CHUNK_BATCHES, CHUNK_BYTES // batch_bytes))


def block_of(image_shape: tuple[int, int, int]) -> int:
    """Returns how many images have as many pixels as 2,048 of MNIST's, for which a convolution takes 1.3 GiB."""
    return max(1, min(BLOCK, BLOCK * 28 * 28 // (image_shape[0] * image_shape[1])))


def as_floats(pixels: Shaped[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """Returns images in [0, 1]: bytes divided by 255, floats as they are."""
    return pixels.astype(jnp.float32) / 255 if pixels.dtype == jnp.uint8 else pixels


def fill(pixels: Shaped[np.ndarray, "n h w c"], size: int) -> Shaped[np.ndarray, "size h w c"]:
    """Returns the images followed by zeros, so that one compiled program serves every chunk."""
    return np.pad(pixels, [(0, size - len(pixels)), (0, 0), (0, 0), (0, 0)])


def _keys(trainer):
    """Returns the keys of the initial weights, of the noise then, of the parts and of the validation losses."""
    return jax.random.split(jax.random.key(trainer.training.seed), 4)


def _parts_of(trainer, images, folder):
    if isinstance(images, Stream):
        return _chunks(trainer, images, training_rows(images, folder))

    def read(first):
        on_device = jnp.asarray(images)
        return itertools.repeat((on_device, len(images)), trainer.training.epochs - first)

    return Parts(trainer.training.epochs, "epoch", read)


def _chunks(trainer, stream, num_rows):
    """Returns the chunks of all epochs of a stream, each epoch reshuffled; the last chunk may be smaller."""
    # An experiment on arrays loads no Grain.
    import grain

    # JAX takes negative seeds, Grain does not.
    seed = trainer.training.seed % 2**63
    images = grain.MapDataset.source(stream).slice(slice(num_rows)).seed(seed).shuffle()
    images, chunk = images.repeat(trainer.training.epochs), trainer.chunk

    def read(first):
        options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=2)
        chunks = images.slice(slice(first * chunk, None)).batch(chunk).to_iter_dataset(options)
        return ((fill(pixels, chunk), len(pixels)) for pixels in chunks)

    return Parts(-(-len(images) // chunk), "chunk", read)


def _blank_state(trainer):
    """Returns zeros of the structure and shapes of a state, at no cost."""
    autoencoder, key = trainer.autoencoder, jax.random.key(0)
    optimizer = autoencoder.optimizer(trainer.training.learning_rate)
    shapes = jax.eval_shape(
        lambda: start(autoencoder.module.init(key, jnp.zeros((1, *trainer.image_shape)), key), optimizer)
    )
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


def _loss_of_first(trainer, state, images):
    """Returns the validation loss of the first batch; a training loss of networks that compete may well rise."""
    batch = as_floats(jnp.asarray(images[: trainer.training.batch_size]))
    return float(trainer.autoencoder.validation_loss(state.params, jax.random.key(0), batch).mean())


def _check_finite(losses, parts, training):
    """Checks the last of the training losses; the first steps may overshoot by far, and later ones recover."""
    loss, num_done = losses[-1], len(losses)
    if np.isfinite(loss):
        return
    before = f"{losses[-2]:g}" if num_done > 1 else "none"
    what = f"the training loss is {loss:g} in {parts.unit} {num_done} of {parts.num}, and before that {before}"
    raise BadInput(f"{what}; {_lower(training)}")


def _check_gain(before, after, training):
    if not after <= before:
        raise BadInput(
            f"the loss of the first images was {before:g} before training and is {after:g}; {_lower(training)}"
        )


def _lower(training):
    return f"lower learning_rate ({training.learning_rate:g}), in another --workdir."


def _mean_loss(loss, block):
    def run(params, key, images):
        return in_blocks(lambda params, some: loss(params, key, some), block)(params, images).mean()

    return run
