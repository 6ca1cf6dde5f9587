"""ResNet-18 for small images: its size, its batch statistics, and that it learns from few of them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_al.models import resnet
from latent_al.models.resnet import BatchNorm, ResNet18, cosine_to_zero, initial_params, population_statistics, resnet18
from latent_al.types import BadInput

SETTINGS = dict(num_classes=2, image_shape=(8, 8, 1), width=4, dropout=0.2)
SETTINGS |= dict(learning_rate=0.05, weight_decay=5e-4, epochs=20, batch_size=16)
CAPACITY = 48
fast_jit = partial(jax.jit, compiler_options=dict(xla_backend_optimization_level=0))
"""Compiling is most of the time of these tests."""


def test_has_the_size_that_is_usual():
    start = partial(initial_params, model=ResNet18(64, 10))
    shapes = jax.eval_shape(start, jax.random.key(0), images=jnp.zeros((1, 32, 32, 3)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 11_173_962


@pytest.mark.parametrize("count", [1, 4, 24])
def test_population_statistics_are_those_of_the_rows(count):
    """Means unlike each other from row to row, so that the variance of the batches' means counts."""
    rng = np.random.default_rng(0)
    images = (rng.normal(size=(30, 2, 4, 3)) + 5 * rng.normal(size=(30, 1, 1, 3))).astype(np.float32)
    rows = np.full(26, 30)
    rows[:count] = rng.permutation(30)[:count]
    params = dict(params=dict(scale=jnp.ones(3), bias=jnp.zeros(3)))
    find = jax.jit(partial(population_statistics, model=BatchNorm(), params=params, batch_size=8))
    found = find(jax.random.key(1), images=images, rows=jnp.asarray(rows), count=count)
    queried = np.float64(images[rows[:count]])
    expected = [queried.mean(axis=(0, 1, 2)), queried.var(axis=(0, 1, 2))]
    np.testing.assert_allclose(found["moments"], expected, rtol=1e-4, atol=1e-5)


def problem(size=144):
    """The upper or the lower half is brighter, under noise."""
    labels = np.arange(size, dtype=np.int32) % 2
    noise = np.random.default_rng(9).uniform(size=(size, 8, 8, 1))
    half = (np.arange(8) // 4 == labels[:, None])[:, :, None, None]
    return np.float32(0.8 * noise + 0.2 * half), labels


def play(learner, images, labels, key, count):
    """A fit: params, the loss, and the probabilities of all images."""
    params, progress = learner.fit(key, images, labels, jnp.arange(CAPACITY), count)
    return params, progress["loss"], learner.predict(params, images)[1]


@pytest.fixture(scope="class")
def played():
    """Params of two stages, and what they make of a batch by its own statistics and by those found from it."""
    model, images = ResNet18(8, 3), jnp.asarray(np.random.default_rng(0).random((6, 8, 8, 1), np.float32))

    def play(key):
        params = initial_params(key, model, images)
        statistics = population_statistics(key, model, params, images, jnp.arange(6), 6, 6)
        return params, model.apply(params, images), model.apply(params | {"statistics": statistics}, images)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resnet, "STAGES", 2)
        return fast_jit(play)(jax.random.key(1))


@pytest.fixture(scope="class")
def learner():
    """Of one of the four stages, which is compiled in a third of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resnet, "STAGES", 1)
        yield resnet18(**SETTINGS)


@pytest.fixture(scope="class")
def single(learner):
    return fast_jit(partial(play, learner))


class TestAtFirst:
    def test_weights_are_he_and_others(self, played):
        block = played[0]["params"]["block_1_1"]
        np.testing.assert_allclose(np.std(block["conv_0"]["kernel"]), np.sqrt(2 / (9 * 16)), rtol=0.06)
        assert (block["norm_0"]["scale"] == 1).all()
        assert not block["norm_0"]["bias"].any()
        assert not np.array_equal(block["conv_0"]["kernel"], block["conv_1"]["kernel"])

    def test_statistics_of_one_batch_predict_what_the_batch_did(self, played):
        _, (features, outputs), (own_features, own_outputs) = played
        assert features.shape == (6, 16)
        np.testing.assert_allclose(own_features, features, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(own_outputs, outputs, rtol=1e-3, atol=1e-4)


def test_the_rate_falls_as_half_a_cosine():
    def play(num_updates):
        optimizer = cosine_to_zero(num_updates)

        def step(state, _):
            updates, state = optimizer.update(jnp.float32(2), state)
            return state, updates

        return jax.lax.scan(step, optimizer.init(None), None, length=7)[1]

    np.testing.assert_allclose(jax.jit(play)(6), 1 + np.cos(np.pi * np.arange(7) / 6), atol=1e-6)


class TestTraining:
    def test_learns_and_predicts_as_in_training(self, learner, single):
        images, labels = problem()
        params, loss, probs = single(images, labels, jax.random.key(0), 40)
        assert loss < 0.3
        assert (probs.argmax(axis=1) == labels)[CAPACITY:].mean() > 0.9
        model = ResNet18(SETTINGS["width"], SETTINGS["num_classes"])
        _, outputs = fast_jit(model.apply)({"params": params["params"]}, images[:40])
        assert abs(jax.nn.softmax(outputs) - probs[:40]).mean() < 0.05
        features, drawn = fast_jit(learner.mc_dropout)(params, jax.random.key(1), images)
        assert 0.1 < (features == 0).mean() < 0.5
        assert 0 < abs(drawn - probs).mean() < 0.2

    @pytest.mark.parametrize("count", [1, 6])
    def test_count_below_batch(self, single, count):
        images, labels = problem()
        params, loss, probs = single(images, labels, jax.random.key(0), count)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((params, loss, probs)))
        assert (probs[:count].argmax(axis=1) == labels[:count]).all()

    def test_vmap_equals_singles(self, learner, single):
        images, labels = problem()
        keys = jax.random.split(jax.random.key(3))
        seeds = fast_jit(jax.vmap(partial(play, learner), in_axes=(None, None, 0, None)))
        _, losses, probs = seeds(images, labels, keys, 24)
        singles = [single(images, labels, key, 24) for key in keys]
        np.testing.assert_allclose(losses, [loss for _, loss, _ in singles], rtol=1e-3)
        np.testing.assert_allclose(probs, [one for _, _, one in singles], atol=1e-3)
        np.testing.assert_array_equal(single(images, labels, keys[0], 24)[2], singles[0][2])


def test_no_mc_dropout_without_dropout():
    assert resnet18(**SETTINGS | dict(dropout=0.0)).mc_dropout is None


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(num_classes=0), "num_classes 0"),
        (dict(width=0), "width 0"),
        (dict(epochs=0), "epochs 0"),
        (dict(batch_size=0), "batch_size 0"),
        (dict(dropout=1.0), "dropout 1.0"),
        (dict(dropout=-0.1), "dropout -0.1"),
        (dict(learning_rate=0.0), "learning_rate 0.0"),
        (dict(learning_rate=float("nan")), "learning_rate nan"),
        (dict(weight_decay=-1e-4), "weight_decay -0.0001"),
        (dict(image_shape=(28, 28, 1)), "resnet18 has 4 levels and images of 28 x 28; .* multiples of 8"),
    ],
)
def test_what_it_refuses(change, message):
    with pytest.raises(BadInput, match=message):
        resnet18(**SETTINGS | change)
