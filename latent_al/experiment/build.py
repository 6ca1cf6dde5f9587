"""Builds the arms that a config names, with all that they compile and prepare."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from latent_al import loop
from latent_al.encoders import TRAINED, Encodings
from latent_al.experiment.config import Experiment
from latent_al.experiment.rounds import SPLITS, Arm, Programs, Setting
from latent_al.models.classifiers import build_learner, reads_images
from latent_al.runtime.mesh import (
    Rows,
    gather,
    has_pool,
    on_one_device,
    over_rows,
    over_seeds,
    place,
    place_rows,
    with_padding,
)
from latent_al.strategies import STRATEGIES
from latent_al.strategies.needs import (
    LatentStats,
    check_needs,
    check_prepared,
    count_nan,
    latent_stats,
    stats_of_shapes,
)
from latent_al.types import (
    INIT_AXES,
    ROUND_AXES,
    SCORE_AXES,
    STATE_AXES,
    BadInput,
    Data,
    Encoded,
    Learner,
    Problem,
    Spec,
    build,
)


def capacity(config: Experiment) -> int:
    """Returns how many rows are queried in total."""
    return config.num_initial + config.num_rounds * config.query_size


def build_arms(config: Experiment, data: Data, shapes: dict[str, Encoded], mesh: Mesh | None) -> dict[str, Arm]:
    """Returns the arms of `config.arms`, after an abstract evaluation of what each is to do.

    Args:
        config: of the run.
        data: the images and their labels.
        shapes: encoder -> what the training images are encoded to.
        mesh: of the run.

    Raises:
        BadInput: what a strategy or a classifier refuses.
    """
    builder = _Builder(config, data, mesh)
    arms = {}
    for name, spec in config.arms.items():
        with _blamed_on(name):
            arms[name] = builder.build_arm(name, spec, shapes[spec.encoder])
    return arms


def make_learner(spec: Spec, data: Data, setting: Mapping[str, Any]) -> Learner:
    """Returns the classifier or regressor of a spec for the labels of `data`.

    Args:
        spec: of `config.classifiers`.
        data: the images and their labels.
        setting: settings that replace those of the spec, or of the spec within it; they may be traced.

    Raises:
        BadInput: what the classifier refuses, labels that it cannot learn.
    """
    image_shape = data.train.images.shape[1:]
    return build_learner(_with_setting(spec, setting), num_classes=data.num_classes, image_shape=image_shape)


def place_encodings(encodings: Encodings, mesh: Mesh | None) -> Encodings:
    """Returns the splits on the devices of the mesh, the rows of the training images in equal shares."""
    train = encodings.train if isinstance(encodings.train.latents, Rows) else place_rows(encodings.train, mesh)
    held_out = {split: place(getattr(encodings, split), mesh) for split in SPLITS[1:]}
    return encodings._replace(train=train, **held_out)


def measure_latents(train: Encoded, size: int, mesh: Mesh | None) -> LatentStats:
    """Returns the statistics of the latents of the `size` placed training images, once for all arms of an encoder."""
    return stats_of_shapes(train)._replace(**gather(over_rows(_numbers, size, mesh)(train)))


def prepare_arm(arm: Arm, train: Encoded, stats: LatentStats) -> Arm:
    """Returns the arm with what its strategies prepare of the placed training images.

    Raises:
        BadInput: latents that a strategy cannot use.
    """
    size = stats.num_rows
    strategies = arm.make_strategy(arm.settings[0].strategy), arm.initial
    with _blamed_on(arm.name):
        for strategy in strategies:
            check_needs(strategy, stats)
        prepared = tuple(prepare(train) for prepare in preparers(arm, size))
        counts = over_rows(partial(count_nan, num_rows=size), size, arm.mesh)
        check_prepared(max(int(gather(counts(part))) for part in prepared), size)
    return arm._replace(prepared=prepared)


def preparers(arm: Arm, size: int) -> tuple[Callable, Callable]:
    """Returns `prepare` of the strategies of the rounds and of the initial labelled set.

    It is compiled where the rows lie on several devices. Otherwise it is not, and runs on one device: some clusterings
    run on the host, and a kernel's refusal names the rows.
    """
    strategies = arm.make_strategy(arm.settings[0].strategy), arm.initial
    if not has_pool(arm.mesh):
        return tuple(partial(_prepare_once, strategy.prepare, arm.mesh) for strategy in strategies)
    return tuple(over_rows(strategy.prepare, size, arm.mesh) for strategy in strategies)


def _prepare_once(prepare, mesh, train):
    return place(prepare(on_one_device(train, mesh)), mesh)


class _Builder:
    """Builds arms; those that do the same share programs, which are compiled once for latents of equal shape."""

    def __init__(self, config: Experiment, data: Data, mesh: Mesh | None):
        self.config, self.data, self.mesh = config, data, mesh
        self.programs = {}

    def build_arm(self, name: str, spec: Spec, train: Encoded) -> Arm:
        """Returns an arm that has nothing prepared yet; `train` has the shapes of the latents."""
        config, data = self.config, self.data
        classifier = config.classifiers[spec.classifier]
        initial = build(STRATEGIES, spec.initial or config.initial, "strategy")
        make_strategy = partial(_make_strategy, spec)
        settings = _settings_of(spec, classifier)
        arm = Arm(
            name=name,
            encoder=spec.encoder,
            on_images=reads_images(classifier),
            settings=settings,
            keep=spec.keep,
            make_learner=None if data.train.labels is None else partial(make_learner, classifier, data),
            make_strategy=make_strategy,
            initial=initial,
            programs=None,
            mesh=self.mesh,
        )
        self._check(arm, train)
        return arm._replace(programs=self._programs(arm, spec))

    def _check(self, arm, train):
        """Builds every setting with its numbers, and evaluates the rounds of one of them abstractly."""
        self._check_synthesis(arm)
        strategy = [arm.make_strategy(setting.strategy) for setting in arm.settings][-1]
        learners = [arm.make_learner(setting.learner) for setting in arm.settings] if arm.make_learner else [None]
        # If traced, a dropout of 0 would pass where dropout is needed.
        learner = next((learner for learner in learners if learner and learner.mc_dropout is None), learners[-1])
        for needing in (arm.initial, strategy):
            check_needs(needing, stats_of_shapes(train))
        labels = self.data.train.labels
        size = len(self.data.train.images)
        inputs = jax.ShapeDtypeStruct(self.data.train.images.shape, jnp.float32) if arm.on_images else train.latents
        loop.check_shapes(
            Problem(inputs, jax.ShapeDtypeStruct((size,), jnp.int32 if labels is None else labels.dtype), train),
            learner=learner if self.config.num_rounds else None,
            strategy=strategy,
            initial=arm.initial,
            num_initial=self.config.num_initial,
            query_size=self.config.query_size,
            capacity=capacity(self.config),
        )

    def _check_synthesis(self, arm):
        if not arm.synthesises:
            return
        encoder = self.config.encoders[arm.encoder].name
        if encoder not in TRAINED:
            raise BadInput(
                f"encoder {arm.encoder!r} is {encoder}, which has no decoder, but synthesised queries are labelled as "
                f"images; choose one of {', '.join(sorted(TRAINED))}, or the strategy nearest_to_synthesised."
            )
        if arm.on_images:
            raise BadInput(
                f"classifier {self.config.arms[arm.name].classifier!r} reads images, but is fitted to synthesised "
                "latents; choose one that reads latents, such as mlp."
            )
        if arm.make_learner and arm.make_learner(arm.settings[0].learner).reads_pool:
            raise BadInput(
                f"classifier {self.config.arms[arm.name].classifier!r} learns from unlabelled rows of the pool too, "
                "but is fitted to synthesised latents alone; choose one that learns from labels, such as mlp."
            )
        share = self.config.arms[arm.name].subsample
        if share < 1:
            raise BadInput(
                f"subsample is {share}, but queries are synthesised, not chosen from the pool; leave subsample out, or "
                "choose the strategy nearest_to_synthesised."
            )

    def _programs(self, arm, spec):
        config, strategy = self.config, arm.make_strategy(arm.settings[0].strategy)
        keep_rows = partial(_keep_rows, size=len(self.data.train.images), mesh=self.mesh)
        classifier = spec.classifier, tuple(arm.settings[0].learner)

        def init():
            function = partial(_init, make=arm.make_learner, strategy=strategy, initial=arm.initial)
            function = partial(function, num_initial=config.num_initial, capacity=capacity(config))
            return over_seeds(function, INIT_AXES, STATE_AXES, mesh=self.mesh, stays=keep_rows)

        def fit():
            return over_seeds(partial(_fit, make=arm.make_learner), ROUND_AXES, (STATE_AXES, 0), mesh=self.mesh)

        def query():
            function = partial(_query, arm=arm, query_size=config.query_size)
            return over_seeds(function, ROUND_AXES, (STATE_AXES, 0), mesh=self.mesh, stays=_of_first(keep_rows))

        def score():
            return over_seeds(partial(_score, make=arm.make_learner), SCORE_AXES, mesh=self.mesh)

        kind = strategy.update is None, strategy.synthesise is None
        shared_init = self._share(init, *classifier, *kind, _text(spec.initial or config.initial))
        if arm.make_learner is None:
            return Programs(shared_init, None, None, None)
        return Programs(
            shared_init,
            self._share(fit, *classifier),
            self._share(query, *classifier, _text(spec.strategy), spec.subsample, tuple(arm.settings[0].strategy)),
            self._share(score, *classifier),
        )

    def _share(self, make, *key):
        """Returns the program that was made for an equal key, or makes it."""
        key = make.__name__, *key
        if key not in self.programs:
            self.programs[key] = make()
        return self.programs[key]


def _init(key, setting, problem, *, make, **kwargs):
    return loop.init(key, problem, learner=make(setting) if make else None, **kwargs)


def _fit(key, setting, state, problem, *, make):
    return loop.fit(key, state, problem, learner=make(setting))


def _query(key, setting, state, problem, *, arm, query_size):
    learner, strategy = arm.make_learner(setting.learner), arm.make_strategy(setting.strategy)
    return loop.query(key, state, problem, learner=learner, strategy=strategy, query_size=query_size)


def _score(setting, state, examples, *, make):
    return loop.score(state.params, examples.inputs, examples.labels, learner=make(setting))


def _text(spec):
    return json.dumps(spec.to_dict(), sort_keys=True)


def _keep_rows(state, *, size, mesh):
    """Keeps the state that a strategy updates on the devices of its rows."""
    return state._replace(prepared=with_padding(state.prepared, size, mesh))


def _of_first(function):
    return lambda outputs: (function(outputs[0]), *outputs[1:])


def _make_strategy(spec, setting):
    strategy = build(STRATEGIES, dict(spec.strategy, **setting), "strategy")
    return strategy._replace(subsample=spec.subsample)


def _settings_of(spec, classifier) -> tuple[Setting, ...]:
    """Returns every combination of the values of a sweep, the last key's values next to each other."""
    sweep = spec.sweep or {}
    names = {name for name in sweep if name in spec.strategy}
    both = sorted(name for name in names if _has_setting(classifier, name))
    if both:
        raise BadInput(f"sweep.{both[0]} is a setting of both the strategy and the classifier; sweep another.")
    for name, values in sweep.items():
        if len(set(values)) < len(values):
            raise BadInput(f"sweep.{name} is {tuple(values)}; give each value once.")
    combinations = [dict(zip(sweep, values, strict=True)) for values in product(*sweep.values())]
    return tuple(
        Setting(
            learner={name: value for name, value in combination.items() if name not in names},
            strategy={name: value for name, value in combination.items() if name in names},
        )
        for combination in combinations
    )


def _with_setting(spec, setting):
    changed = dict(spec) | {name: value for name, value in setting.items() if name in spec}
    if "classifier" in spec:
        changed["classifier"] = _with_setting(spec["classifier"], setting)
    return changed


def _has_setting(classifier, name):
    return name in classifier or ("classifier" in classifier and _has_setting(classifier["classifier"], name))


def _numbers(train):
    """Returns the fields of `LatentStats` that are numbers."""
    stats = latent_stats(train)._asdict()
    return {name: stats[name] for name in ("num_not_finite", "is_constant", "num_zero", "lowest", "highest")}


@contextmanager
def _blamed_on(name) -> Iterator[None]:
    """Turns a kernel's ValueError into one that says which arm of the config asked for it."""
    try:
        yield
    except ValueError as error:
        raise BadInput(f"arm {name!r}: {error}") from error
