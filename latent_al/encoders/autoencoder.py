"""The encoders that are auto-encoders, trained on the images themselves."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from latent_al.data.images import Stream
from latent_al.data.store import shard_rows
from latent_al.encoders.protocol import Encoder, Encodings, Forecast
from latent_al.encoders.shards import encode_shards, first_rows, missing_shards
from latent_al.encoders.training import (
    Trainer,
    Training,
    as_floats,
    block_of,
    chunks_left,
    fill,
    initial_state,
    make_trainer,
    train,
)
from latent_al.models.autoencoders import AutoEncoder
from latent_al.models.train import in_blocks
from latent_al.runtime.locks import only_process_in
from latent_al.runtime.mesh import has_pool, over_rows, place_rows
from latent_al.runtime.processes import after_the_first
from latent_al.types import BadInput, Data, Encoded, Params


def trained(
    make: Callable,
    *,
    image_shape: tuple[int, int, int],
    learning_rate: float,
    epochs: int,
    batch_size: int,
    seed: int,
    **sizes: Any,
) -> Encoder:
    """Returns the encoder of an auto-encoder that is trained on the training images alone; its latents are the means.

    Args:
        make: the auto-encoder's factory, called with `image_shape` and `sizes`.
        image_shape: (h, w, c).
        learning_rate: step size of the auto-encoder's optimizer.
        epochs: passes over the training images.
        batch_size: images per step.
        seed: random seed of the initial weights, the order and the noise.
        sizes: settings of the factory.

    Raises:
        BadInput: what the factory or the loss refuses; a size below 1; a batch larger than the training set, where the
            loss compares a batch's images; initial weights for which all images are the same; a loss that diverges.
    """
    trainer = make_trainer(make, Training(learning_rate, epochs, batch_size, seed), image_shape, **sizes)
    blocked = in_blocks(encode_images(trainer.autoencoder), block_of(image_shape))
    programs = _Programs(trainer, jax.jit(lambda params, pixels: blocked(params, as_floats(pixels))))
    decode = jax.jit(to_images(trainer.autoencoder))

    def check_batch(data):
        if "perplexity" in sizes:
            _check_batch(batch_size, data)

    def encode(data, folder, mesh=None):
        check_batch(data)
        with after_the_first(), only_process_in(folder, wait=True):
            params, losses = train(trainer, data, folder)
        if isinstance(data.train.images, Stream):
            stream = data.train.images
            of_train = encode_shards(stream.shards, folder, partial(programs.rows, params, stream))
        else:
            run = over_rows(blocked, len(data.train.images), mesh)
            # Devices that share no rows would each encode all of them.
            of_train = run(params, place_rows(data.train.images, mesh if has_pool(mesh) else None))
        held_out = [programs.encode(params, jnp.asarray(split.images)) for split in (data.validation, data.test)]
        return Encodings(of_train, *held_out, losses, jax.tree_util.Partial(decode, params))

    def shapes(data):
        check_batch(data)
        return _shapes(trainer, data.train.images.shape[0])

    return Encoder(encode, shapes, programs.forecast)


class _Programs(NamedTuple):
    """A trainer with the program that encodes: (params, pixels [n h w c]) -> Encoded."""

    trainer: Trainer
    encode: Callable

    @property
    def piece(self) -> int:
        """Returns how many images of a stream are encoded at a time."""
        return min(self.trainer.chunk, shard_rows(self.trainer.image_shape))

    def rows(self, params: Params, stream: Stream, start: int, stop: int) -> Iterator[Encoded]:
        """Encodes the rows of a stream from `start` to before `stop`, piece by piece."""
        for low in range(start, stop, self.piece):
            pixels = stream[low : min(low + self.piece, stop)]
            encoded = jax.device_get(self.encode(params, fill(pixels, self.piece)))
            yield first_rows(encoded, len(pixels))

    def forecast(self, data: Data, folder: Path) -> Forecast | None:
        """Forecasts what a stream will take by computing one chunk and one piece; compiles what they run."""
        stream, trainer = data.train.images, self.trainer
        missing = missing_shards(stream.shards, folder)
        if not missing:
            return None
        state = initial_state(trainer, stream)
        pixels = fill(stream[: trainer.chunk], trainer.chunk)
        piece = pixels[: self.piece]
        encoding, encoding_bytes = _measure(self.encode, state.params, piece)
        encoding *= sum(-(-(stop - start) // self.piece) for start, stop in missing)
        memory = encoding_bytes + sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        left = chunks_left(trainer, stream, folder)
        if not left:
            return Forecast(0.0, encoding, memory + 5 * piece.nbytes)
        chunk_seconds, training_bytes = _measure(trainer.run, jax.random.key(0), state, pixels, trainer.chunk)
        return Forecast(chunk_seconds * left, encoding, max(memory, training_bytes) + 5 * pixels.nbytes)


def to_images(autoencoder: AutoEncoder) -> Callable:
    """Returns (params, latents [n d]) -> images [n h w c] in [0, 1]."""
    return lambda params, latents: jax.nn.sigmoid(autoencoder.module.apply(params, latents, method="decode"))


def encode_images(autoencoder: AutoEncoder) -> Callable:
    """Returns (params, images [n h w c]) -> `Encoded`."""

    def encode(params, images):
        mu, log_sigma = autoencoder.module.apply(params, images, method="encode")
        errors = jnp.abs(to_images(autoencoder)(params, mu) - images).mean(axis=(1, 2, 3))
        return Encoded(mu, log_sigma, errors)

    return encode


def _check_batch(batch_size, data):
    size = data.train.images.shape[0]
    # The pool of a labelling job is empty before it is scanned.
    if 0 < size < batch_size:
        raise BadInput(
            f"the auto-encoder compares the images of a batch of {batch_size}, but there are {size} training images, "
            "so some would be in it twice; lower batch_size."
        )


def _shapes(trainer, size):
    key, module = jax.random.key(0), trainer.autoencoder.module

    def encode(image, images):
        return encode_images(trainer.autoencoder)(module.init(key, image, key), images)

    image, images = (jax.ShapeDtypeStruct((num, *trainer.image_shape), jnp.float32) for num in (1, size))
    return jax.eval_shape(encode, image, images)


def _measure(program, *args):
    """Returns the seconds that the program takes, without its compilation, and the bytes of its temporaries."""
    compiled = program.lower(*args).compile()
    begun = time.perf_counter()
    jax.block_until_ready(compiled(*args))
    return time.perf_counter() - begun, compiled.memory_analysis().temp_size_in_bytes
