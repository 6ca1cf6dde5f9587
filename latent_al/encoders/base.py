"""Images to latents: the table of encoders, each a factory that returns an `Encoder`."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.ndimage import laplace
from tqdm import tqdm

from latent_al.models import AUTOENCODERS
from latent_al.models.autoencoders import AutoEncoder
from latent_al.models.train import BLOCK, epoch, in_blocks, start
from latent_al.runtime.checkpoints import Checkpoints
from latent_al.runtime.mesh import over_rows, place_rows
from latent_al.runtime.processes import after_the_first, share
from latent_al.types import BadInput, Data, Encoded, Key, Params


class Encoder(NamedTuple):
    """How to encode.

    encode: (data, folder, mesh=None) -> Encodings; the folder keeps what is trained. Training runs on one device; the
        training images are then encoded where the mesh wants their rows.
    shapes: data -> what the training images are encoded to, as `Encoded` of `jax.ShapeDtypeStruct`, without any work.
    """

    encode: Callable
    shapes: Callable


class Encodings(NamedTuple):
    """The splits in latent space, and what a trained encoder knows besides.

    losses: [epochs 2], the training and validation loss of each epoch.
    decode: latents [n d] to images [n h w c] in [0, 1].
    unit_cube: whether the latents are pixels, in [0, 1].
    """

    train: Encoded
    validation: Encoded
    test: Encoded
    losses: np.ndarray | None = None
    decode: Callable | None = None
    unit_cube: bool = False


def identity():
    """Flattened pixels."""

    def encode(data, folder, mesh=None):
        del folder, mesh
        width = math.prod(data.train.images.shape[1:])
        flat = [split.images.reshape(len(split.images), width) for split in data[:3]]
        return Encodings(*[Encoded(latents, None) for latents in flat], unit_cube=True)

    def shapes(data):
        size, *image_shape = data.train.images.shape
        return _of_points(size, math.prod(image_shape))

    return Encoder(encode, shapes)


def precomputed(*, train: str, validation: str | None, test: str | None):
    """Embeddings [n d] from `.npy` files, one row an image, in the order of the data source.

    A file of float32 is read as it is needed: of several processes each reads the rows of its own devices.

    Args:
        train: the file for the training images, without those held out.
        validation: the file for the validation images; None where there are none.
        test: the file for the test images; None where there are none.

    Raises:
        BadInput: a missing or broken file, another shape or length, values that are NaN or infinite.
    """
    paths = dict(train=train, validation=validation, test=test)

    def open_all(data):
        width, files = None, []
        for name, path in paths.items():
            files.append(_open_embeddings(name, path, len(getattr(data, name).images), width))
            width = files[0].shape[1]
        return files

    def encode(data, folder, mesh=None):
        del folder, mesh
        files = zip(paths.values(), open_all(data), strict=True)
        return Encodings(*[Encoded(_checked_embeddings(*each), None) for each in files])

    def shapes(data):
        return _of_points(*open_all(data)[0].shape)

    return Encoder(encode, shapes)


def trained(
    make: Callable,
    *,
    image_shape: tuple[int, int, int],
    learning_rate: float,
    epochs: int,
    batch_size: int,
    seed: int,
    **sizes,
):
    """An auto-encoder, trained on the training images alone; its latents are the means.

    Args:
        make: the auto-encoder's factory, called with `image_shape` and `sizes`.
        image_shape: (h, w, c).
        learning_rate: step size of the auto-encoder's optimizer.
        epochs: passes over the training images.
        batch_size: images a step.
        seed: of the initial weights, the order and the noise.

    Raises:
        BadInput: what the factory or the loss refuses; a size below 1; initial weights to which all images are the
            same; a loss that is NaN or infinite.
    """
    training = Training(learning_rate, epochs, batch_size, seed)
    autoencoder = make_autoencoder(make, training, image_shape, **sizes)
    decode = jax.jit(to_images(autoencoder))

    def encode(data, folder, mesh=None):
        with after_the_first():
            params, losses = train_autoencoder(autoencoder, data, folder, **training._asdict())
        run = in_blocks(encode_images(autoencoder), block_of(image_shape))
        train = over_rows(run, len(data.train.images), mesh)(params, place_rows(data.train.images, mesh))
        others = [jax.jit(run)(params, jnp.asarray(split.images)) for split in data[1:3]]
        return Encodings(train, *others, losses, partial(decode, params))

    def shapes(data):
        key, images = jax.random.key(seed), jax.ShapeDtypeStruct(data.train.images.shape, jnp.float32)
        params = jax.eval_shape(lambda images: autoencoder.module.init(key, images[:1], key), images)
        return jax.eval_shape(encode_images(autoencoder), params, images)

    return Encoder(encode, shapes)


GIVEN = {"identity": identity, "precomputed": precomputed}
TRAINED = {name: partial(trained, make) for name, make in AUTOENCODERS.items()}
ENCODERS = GIVEN | TRAINED


def describe(encodings: Encodings, data: Data) -> dict:
    """The losses of a trained encoder's last epoch, its latent dimensions, how many it uses, and how sharp it decodes.

    A dimension is used where its mean varies over the training images with a variance above 0.01. Source: Burda,
    Grosse and Salakhutdinov, Importance Weighted Autoencoders (2016), section 2. Sharpness is the variance of the
    Laplacian of reconstructions over that of their images, 1 where these are as sharp, of up to 1,000 images of the
    last split that has some.
    """
    training_loss, validation_loss = (None if np.isnan(each) else each for each in encodings.losses[-1].tolist())
    latents = encodings.train.latents
    used = int((latents.var(axis=0) > 0.01).sum())
    losses = dict(training_loss=training_loss, validation_loss=validation_loss)
    return losses | dict(latent_dim=latents.shape[1], used=used, sharpness=_sharpness(encodings, data))


def _sharpness(encodings, data):
    split = next(split for split in ("test", "validation", "train") if len(getattr(data, split).images))
    images = getattr(data, split).images[:1000]
    reconstructed = np.asarray(encodings.decode(getattr(encodings, split).latents[:1000]))
    edges, own = (laplace(each, mode="constant", axes=(1, 2)).var() for each in (reconstructed, images))
    return float(edges / own) if own else None


def train_autoencoder(autoencoder: AutoEncoder, data: Data, folder: Path, *, learning_rate, epochs, batch_size, seed):
    """Trains on the training images from where `folder` stopped: the params, and the losses [epochs 2] by epoch.

    Raises:
        BadInput: a loss that is NaN or infinite; the epochs before it stay in `folder`.
    """
    key_init, key_noise, key_epochs, key_validation = jax.random.split(jax.random.key(seed), 4)
    optimizer, loss = autoencoder.optimizer(learning_rate), autoencoder.loss
    block = block_of(data.train.images.shape[1:])
    state = start(first_params(autoencoder, key_init, key_noise, jnp.asarray(data.train.images[:block])), optimizer)
    checkpoints = Checkpoints(folder, seconds_between=30)
    done, (state, losses) = checkpoints.restore((state, np.full((epochs, 2), np.nan)))
    if done == epochs:
        return state.params, losses
    images, rows = jnp.asarray(data.train.images), jnp.arange(len(data.train.images))
    validation = jnp.asarray(data.validation.images)
    run = jax.jit(
        lambda key, state, *arrays: epoch(key, state, *arrays, loss=loss, optimizer=optimizer, batch_size=batch_size)
    )
    validate = jax.jit(_mean_loss(autoencoder.validation_loss, block))
    with tqdm(range(done, epochs), initial=done, total=epochs, desc=f"training {folder.name}", unit="epoch") as bar:
        for index in bar:
            state, train_loss = run(jax.random.fold_in(key_epochs, index), state, images, rows, len(rows))
            losses[index] = train_loss, validate(state.params, key_validation, validation)
            if not np.isfinite(train_loss):
                raise BadInput(
                    f"the training loss is {train_loss} in epoch {index + 1} of {epochs}, before it "
                    f"{losses[index - 1, 0] if index else 'none'}; lower learning_rate ({learning_rate:g})."
                )
            bar.set_postfix(train=f"{losses[index, 0]:.2f}", validation=f"{losses[index, 1]:.2f}")
            checkpoints.save(index + 1, (state, losses), last=index + 1 == epochs)
    return state.params, losses


class Training(NamedTuple):
    """How an auto-encoder is trained: step size, passes over the images, images a step, and the seed of it all."""

    learning_rate: float
    epochs: int
    batch_size: int
    seed: int


def make_autoencoder(
    make: Callable, training: Training, image_shape: tuple[int, int, int], **sizes: Any
) -> AutoEncoder:
    """The auto-encoder of `make(image_shape=..., **sizes)`, after a training step on shapes alone.

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
    return autoencoder


def has_spread(autoencoder: AutoEncoder, image_shape: tuple[int, int, int]) -> bool:
    """Whether the latents come with a log standard deviation."""
    key, model = jax.random.key(0), autoencoder.module

    def encode(images):
        return model.apply(model.init(key, images, key), images, method="encode")[1]

    return jax.eval_shape(encode, jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)) is not None


def to_images(autoencoder: AutoEncoder) -> Callable:
    """(params, latents [n d]) -> images [n h w c] in [0, 1]."""
    return lambda params, latents: jax.nn.sigmoid(autoencoder.module.apply(params, latents, method="decode"))


def encode_images(autoencoder: AutoEncoder) -> Callable:
    """(params, images [n h w c]) -> `Encoded`."""

    def encode(params, images):
        mu, log_sigma = autoencoder.module.apply(params, images, method="encode")
        errors = jnp.abs(to_images(autoencoder)(params, mu) - images).mean(axis=(1, 2, 3))
        return Encoded(mu, log_sigma, errors)

    return encode


def first_params(autoencoder: AutoEncoder, key: Key, key_noise: Key, images: Float[Array, "n h w c"]) -> Params:
    """The initial weights, refused where a layer dies on all `images`: ReLUs that never fire never learn."""
    model = autoencoder.module
    params = model.init(key, images[:1], key_noise)
    mu, _ = jax.jit(partial(model.apply, method="encode"))(params, images)
    if jnp.ptp(images, axis=0).any() and not jnp.ptp(mu, axis=0).any():
        raise BadInput("the encoder's initial weights map all images to one point, a dead layer; choose another seed.")
    return params


def block_of(image_shape: tuple[int, int, int]) -> int:
    """Images at a time: as many as make the pixels of 2,048 of MNIST's, of which a convolution makes 1.3 GiB."""
    return max(1, min(BLOCK, BLOCK * 28 * 28 // (image_shape[0] * image_shape[1])))


def _mean_loss(loss, block):
    def run(params, key, images):
        return in_blocks(lambda params, some: loss(params, key, some), block)(params, images).mean()

    return run


def _of_points(size, width):
    return Encoded(jax.ShapeDtypeStruct((size, width), jnp.float32), None)


def _open_embeddings(name, path, size, width):
    if path is None:
        if size:
            raise BadInput(f"there are {size} {name} images but no embeddings of them; set the encoder's {name} file.")
        return np.zeros((0, width), np.float32)
    try:
        embeddings = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise BadInput(f"{path} cannot be read as .npy ({error}); give the {name} embeddings [n d].") from error
    if embeddings.ndim != 2 or embeddings.dtype.kind not in "fiu" or len(embeddings) != size:
        raise BadInput(
            f"{path} holds {embeddings.dtype} of shape {embeddings.shape}; expected numbers of shape [{size} d], "
            f"one row for each {name} image."
        )
    if width not in (None, embeddings.shape[1]):
        raise BadInput(f"{path} has {embeddings.shape[1]} columns but train {width}; embed all splits alike.")
    return embeddings


def _checked_embeddings(path, embeddings):
    """As float32. Each of several processes looks at its part of the rows."""
    embeddings, size = embeddings.astype(np.float32, copy=False), len(embeddings)
    first, end = share(size)
    finite = [np.isfinite(embeddings[i : min(i + BLOCK, end)]).all(axis=1) for i in range(first, end, BLOCK)]
    bad = first + np.flatnonzero(~np.concatenate([np.ones(0, bool), *finite]))
    if len(bad):
        raise BadInput(
            f"{path} has NaN or infinite values in {len(bad)} of {size} rows, the first is row {bad[0]}; "
            "embed those images again."
        )
    return embeddings
