"""What a config names, built and checked: encoders, and the arms with all that they compile and prepare."""

from contextlib import contextmanager
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.tree_util import Partial
from ml_collections import ConfigDict

from latent_al.encoders.base import ENCODERS, TRAINED, Encoder, Encodings
from latent_al.experiment.rounds import EXPLAINING, SPLITS, Arm, Classifier
from latent_al.loop import explain_round, fit_round, initial_rows, measure_round, rehearse, score, select_round
from latent_al.models.classifiers import CLASSIFIERS, ON_IMAGES, REGRESSORS
from latent_al.runtime.mesh import Rows, gather, has_pool, over_rows, over_seeds, place, place_rows, with_padding
from latent_al.strategies import STRATEGIES
from latent_al.types import BadInput, Data, Encoded, build, check_name


def build_encoder(spec: ConfigDict, data: Data) -> Encoder:
    """The encoder of an entry of `config.encoders`.

    Raises:
        BadInput: what the encoder refuses; batches larger than the training set, where images of one are compared.
    """
    if spec.get("name") not in TRAINED:
        return build(ENCODERS, spec, "encoder")
    size, *image_shape = data.train.images.shape
    if "perplexity" in spec and spec.batch_size > size:
        raise BadInput(
            f"{spec.name} compares the images of a batch of {spec.batch_size} but there are {size} training images, so "
            "that some would be in it twice; lower the batch."
        )
    return build(ENCODERS, dict(spec, image_shape=tuple(image_shape)), "encoder")


def capacity(config: ConfigDict) -> int:
    """Labels queried in the end."""
    return config.num_initial + config.num_rounds * config.query_size


def build_arms(config: ConfigDict, data: Data, shapes: dict[str, Encoded], mesh: Mesh | None) -> dict[str, Arm]:
    """The arms of `config.arms`, after a rehearsal on shapes alone of what each is to choose.

    Args:
        config: see `configs/`.
        data: the images and their labels.
        shapes: encoder -> what the training images are encoded to.
        mesh: of the run.

    Raises:
        BadInput: a name that no table has, what a strategy or a classifier refuses.
    """
    classifiers = {name: _build_classifier(spec, data, mesh) for name, spec in config.classifiers.items()}
    arms = {}
    for name in config.arms:
        with _blamed_on(name):
            arms[name] = _build_arm(config, name, data, shapes, classifiers, mesh)
    return arms


def place_encodings(encodings: Encodings, mesh: Mesh | None) -> Encodings:
    """The splits on the devices of the mesh, the rows of the training images in equal shares."""
    train = encodings.train if isinstance(encodings.train.latents, Rows) else place_rows(encodings.train, mesh)
    others = {split: place(getattr(encodings, split), mesh) for split in SPLITS[1:]}
    return encodings._replace(train=train, **others)


def prepare_arm(name: str, arm: Arm, train: Encoded, size: int) -> Arm:
    """The arm with what its strategies prepare of the `size` placed training images.

    Raises:
        BadInput: latents that a strategy cannot use.
    """
    with _blamed_on(name):
        if has_pool(arm.mesh):
            ends = jax.tree.map(jnp.asarray, gather(over_rows(_ends, size, arm.mesh)(train)))
            for strategy in arm.strategies:
                strategy.check(ends)
        prepared = [prepare(train) for prepare in arm.prepares]
        if has_pool(arm.mesh):
            _check_prepared(gather(over_rows(partial(_count_nan, size), size, arm.mesh)(prepared)), size)
        return arm._replace(prepared=prepared)


def _build_classifier(spec, data: Data, mesh) -> Classifier | None:
    if data.train.labels is None:
        return None
    name, has_angles = spec.get("name"), data.num_classes is None
    if name in (CLASSIFIERS if has_angles else REGRESSORS):
        found, wanted = ("angles", REGRESSORS) if has_angles else (f"{data.num_classes} classes", CLASSIFIERS)
        raise BadInput(
            f"{name} cannot learn the labels of this data, which are {found}; choose one of {', '.join(wanted)}, or "
            "other data."
        )
    on_images = name in ON_IMAGES
    known = {"image_shape": data.train.images.shape[1:]} if on_images else {}
    known |= {} if has_angles else {"num_classes": data.num_classes}
    if "classifier" in spec:
        inner = _build_classifier(spec["classifier"], data, mesh)
        known["classifier"], on_images = inner.learner, inner.on_images
    learner = build(CLASSIFIERS | REGRESSORS, dict(spec, **known), "classifier")
    fit = over_seeds(partial(fit_round, learner=learner), 0, 0, None, None, 0, None, None, mesh=mesh)
    explain = over_seeds(partial(explain_round, learner=learner, num=EXPLAINING), 0, 0, None, 0, None, mesh=mesh)
    scored = over_seeds(partial(score, learner=learner), 0, None, None, mesh=mesh)
    return Classifier(learner, on_images, fit, scored, explain)


def _build_arm(config, name, data: Data, shapes, classifiers, mesh) -> Arm:
    spec = config.arms[name]
    check_name(spec.encoder, shapes, "encoder")
    check_name(spec.classifier, classifiers, "classifier")
    classifier = classifiers[spec.classifier]
    prepare = partial(_preparer, size=len(data.train.images), mesh=mesh)
    initial = build(STRATEGIES, spec.get("initial", config.initial), "strategy")
    strategy = build(STRATEGIES, spec.strategy, "strategy")
    train = shapes[spec.encoder]
    rehearse(initial, train, config.num_initial)
    first = partial(initial_rows, select=initial.select, num=config.num_initial, capacity=capacity(config))
    first = over_seeds(first, 0, None, None, mesh=mesh)
    if not config.num_rounds:
        return Arm(spec.encoder, classifier, mesh, [initial], [prepare(initial)], first, None)
    size = len(data.train.images)
    probs = None if data.num_classes is None else _floats(size, data.num_classes)
    draw = classifier.learner.draw and Partial(lambda key: jnp.zeros(probs.shape))
    rehearse(strategy, train, config.query_size, features=train.latents, probs=probs, draw=draw)
    settings = dict(learner=classifier.learner, strategy=strategy, num=config.query_size, fraction=spec.subsample)
    member = 0 if strategy.follow else None
    axes = (0, 0, 0, 0, 0, None, None, member, None, 0, None, None)
    select = over_seeds(partial(select_round, **settings), *axes, mesh=mesh, stays=partial(_stays, size, mesh))
    settings = dict(learner=classifier.learner, strategy=strategy)
    axes = (0, 0, 0, None, None, member, None, 0, None, None, None)
    measure = over_seeds(partial(measure_round, **settings), *axes, mesh=mesh)
    prepares = [prepare(initial), prepare(strategy)]
    return Arm(spec.encoder, classifier, mesh, [initial, strategy], prepares, first, select, measure)


def _stays(size, mesh, selected):
    """What a strategy has followed stays on the devices of its rows."""
    queried, followed = selected
    return queried, with_padding(followed, size, mesh)


def _preparer(strategy, size, mesh):
    if has_pool(mesh):
        return over_rows(strategy.prepare, size, mesh)
    return lambda train: place(strategy.prepare(train), mesh)


def _count_nan(size, prepared):
    """The values that are NaN, in each array of the rows and each number."""
    known = [each for each in jax.tree.leaves(prepared) if each.shape in ((), (size,))]
    return [jnp.isnan(each).sum() for each in known]


def _check_prepared(counts, size):
    if num_nan := max(map(int, counts), default=0):
        raise ValueError(
            f"what the strategy prepares is NaN for {num_nan} of {size} rows: latents are zero, equal or not finite; "
            "look at what they were made from, or choose another measure or distance."
        )


def _ends(train):
    """Two rows that are finite where all are, and equal where all are."""
    return jax.tree.map(lambda each: jnp.stack([each.min(axis=0), each.max(axis=0)]), train)


def _floats(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


@contextmanager
def _blamed_on(name):
    """A kernel's ValueError becomes one that says which arm of the config asked for it."""
    try:
        yield
    except ValueError as error:
        raise BadInput(f"arm {name!r}: {error}") from error
