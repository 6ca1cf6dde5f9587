"""Losses, the optimizer and the training loop beside hand-written NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from latent_al.models import cpu
from latent_al.models.autoencoders import DenseVAE, vae_loss
from latent_al.models.classifiers import CLASSIFIERS, MLP, mlp
from latent_al.models.layers import drop
from latent_al.models.train import BLOCK, Objective, Subset, epoch, fit, in_blocks, keras_adadelta, keras_rmsprop, start
from latent_al.types import BadInput, build

MLP_SETTINGS = dict(hidden=(16,), dropout=0.2, learning_rate=1e-3, epochs=3, batch_size=4, num_classes=3)


def test_vae_loss_equals_the_textbook():
    """Equation 2.2 in NumPy float64, from the decoder's logits for the same noise."""
    model = DenseVAE((8, 5), 2, (3, 3, 1))
    images = jnp.float32(np.random.default_rng(0).uniform(size=(6, 3, 3, 1)))
    key = jax.random.key(1)
    params = model.init(jax.random.key(0), images, key)
    logits, mu, log_sigma = map(np.float64, model.apply(params, images, key))
    pixels, x = 1 / (1 + np.exp(-logits)), np.float64(images)
    expected = np.zeros(6)
    for i in range(6):
        expected[i] -= (x[i] * np.log(pixels[i]) + (1 - x[i]) * np.log(1 - pixels[i])).sum()
        for m, s in zip(mu[i], np.exp(log_sigma[i]), strict=True):
            expected[i] -= 0.5 * (1 + np.log(s**2) - m**2 - s**2)
    np.testing.assert_allclose(vae_loss(model, 1.0)(params, key, images), expected, rtol=1e-5)
    reconstruction = vae_loss(model, 0.0)(params, key, images)
    halfway = vae_loss(model, 0.5)(params, key, images)
    np.testing.assert_allclose(halfway, (reconstruction + expected) / 2, rtol=1e-5)


def test_vae_samples_with_its_sigma():
    model = DenseVAE((4,), 2, (2, 2, 1))
    images = jnp.zeros((4000, 2, 2, 1))
    params = model.init(jax.random.key(0), images[:1], jax.random.key(0))
    params["params"]["log_sigma"]["bias"] = jnp.log(jnp.array([0.5, 3.0]))
    params["params"]["decoder_0"]["kernel"] = jnp.eye(2, 4)
    _, state = model.apply(params, images, jax.random.key(1), capture_intermediates=True)
    sample = state["intermediates"]["decoder_0"]["__call__"][0][:, :2]
    np.testing.assert_allclose(sample.std(axis=0), [0.5, 3.0], rtol=0.05)


def test_rmsprop_is_kerass():
    """The update is a <- 0.9 a + 0.1 g^2; w <- w - lr g / (sqrt(a) + 1e-7)."""
    optimizer = keras_rmsprop(0.01)
    weights, average = 1.0, 0.0
    params = jnp.float32(1.0)
    state = optimizer.init(params)
    for gradient in (0.5, -1e-6, 2.0, 0.0):
        updates, state = optimizer.update(jnp.float32(gradient), state, params)
        params = optax.apply_updates(params, updates)
        average = 0.9 * average + 0.1 * gradient**2
        weights -= 0.01 * gradient / (np.sqrt(average) + 1e-7)
    np.testing.assert_allclose(params, weights, rtol=1e-5)


def counting_loss(params, key, examples):
    """The gradient of the sum counts how often each example was drawn, over the size of its batch."""
    del key
    return examples @ params


class TestEpoch:
    def run(self, count, capacity=13, batch_size=4, seed=0):
        optimizer = optax.sgd(1.0)
        state = start(jnp.zeros(20), optimizer)
        rows = jnp.full(capacity, 20).at[:count].set(jnp.arange(20)[::-1][:count])
        run = jax.jit(
            lambda count: epoch(
                jax.random.key(seed),
                state,
                Subset(jnp.eye(20), rows, count),
                objective=Objective(counting_loss, optimizer, batch_size),
            )
        )
        return np.asarray(run(count)[0].params), np.asarray(rows)

    @pytest.mark.parametrize("count", [1, 3, 4, 5, 12, 13])
    def test_each_row_once_and_no_other(self, count):
        params, rows = self.run(count)
        used = rows[:count]
        assert (params[used] < 0).all()
        assert not np.delete(params, used).any()
        sizes = [4] * (count // 4) + [count % 4] * (count % 4 > 0)
        np.testing.assert_allclose(sorted(-params[used]), sorted(1 / size for size in sizes for _ in range(size)))

    @pytest.mark.parametrize("updates", [1, 4, 5, 11])
    def test_a_fit_takes_its_updates_whatever_the_count(self, updates):
        """Each step of four lowers the parameters by one in all; the passes are of four steps, the last unfinished."""
        optimizer = optax.sgd(1.0)
        state = start(jnp.zeros(20), optimizer)
        settings = dict(objective=Objective(counting_loss, optimizer, 4), num_steps=updates)
        state, _ = fit(jax.random.key(0), state, Subset(jnp.eye(20), jnp.arange(20), 16), **settings)
        np.testing.assert_allclose(state.params.sum(), -updates)
        assert (state.params[:16] <= -(updates // 4) / 4).all()
        assert not state.params[16:].any()

    def test_the_key_sets_the_order(self):
        orders = [self.run(13, seed=seed)[0] for seed in (0, 0, 1)]
        np.testing.assert_array_equal(orders[0], orders[1])
        assert (orders[0] != orders[2]).any()

    def test_the_loss_is_the_mean_over_rows(self):
        optimizer = optax.sgd(0.0)
        values = jnp.arange(10.0)
        _, mean = epoch(
            jax.random.key(0),
            start(jnp.ones(()), optimizer),
            Subset(values, jnp.arange(10), 7),
            objective=Objective(lambda params, key, x: params * x, optimizer, 3),
        )
        np.testing.assert_allclose(mean, values[:7].mean(), rtol=1e-6)


def test_adadelta_is_keras():
    optimizer, rng = keras_adadelta(0.5), np.random.default_rng(0)
    params, square, change = np.ones(3), np.zeros(3), np.zeros(3)
    ours = jnp.ones(3)
    state = optimizer.init(ours)
    for _ in range(5):
        gradient = rng.normal(size=3)
        square = 0.95 * square + 0.05 * gradient**2
        step = np.sqrt(change + 1e-7) / np.sqrt(square + 1e-7) * gradient
        change = 0.95 * change + 0.05 * step**2
        params = params - 0.5 * step
        updates, state = optimizer.update(jnp.float32(gradient), state, ours)
        ours = optax.apply_updates(ours, updates)
    np.testing.assert_allclose(ours, params, rtol=1e-5)


def test_one_trace_for_any_count():
    traces = []

    def loss(params, key, examples):
        traces.append(1)
        return counting_loss(params, key, examples)

    optimizer = optax.sgd(0.1)
    run = jax.jit(
        lambda count: fit(
            jax.random.key(0),
            start(jnp.zeros(8), optimizer),
            Subset(jnp.eye(8), jnp.arange(8), count),
            objective=Objective(loss, optimizer, 2),
            num_steps=12,
        )
    )
    run(jnp.int32(2))
    first = len(traces)
    for count in (3, 8):
        run(jnp.int32(count))
    assert len(traces) == first


@pytest.mark.parametrize("rate", [0.2, 0.35, 0.5])
@pytest.mark.parametrize("width", [7, 512])
def test_dropout_rate_and_mean(rate, width):
    outputs = jax.jit(drop)(jax.random.key(0), jnp.ones((4000, width)), rate)
    np.testing.assert_allclose((outputs == 0).mean(), rate, atol=0.01)
    np.testing.assert_allclose(outputs.mean(), 1, atol=0.02)
    assert len(np.unique(outputs)) == 2


class TestMLP:
    def problem(self, size=60):
        labels = jnp.arange(size) % 3
        noise = 0.1 * jax.random.normal(jax.random.key(9), (size, 5))
        return jax.nn.one_hot(labels, 5) + noise, labels

    @pytest.mark.parametrize("at_a_time", [0, 1, 2, 3, 9])
    def test_vmap_equals_singles(self, at_a_time, monkeypatch):
        hidden, num_bytes = (16,), 4 * (5 * 16 + 16 + 16 * 3 + 3)
        monkeypatch.setattr(cpu, "CACHE", at_a_time * num_bytes)
        learner = mlp(**MLP_SETTINGS | dict(hidden=hidden))
        inputs, labels = self.problem()
        keys = jax.random.split(jax.random.key(0), 3)

        def play(key):
            params, progress = learner.fit(key, inputs, labels, jnp.arange(60), 40)
            return progress["loss"], learner.predict(params, inputs)[1]

        batched = jax.jit(jax.vmap(play))(keys)
        singles = [jax.jit(play)(key) for key in keys]
        for got, expected in zip(batched, zip(*singles, strict=True), strict=True):
            np.testing.assert_allclose(got, jnp.stack(expected), atol=2e-5)

    def test_dropouts_under_vmap_equal_one_by_one(self):
        inputs, labels = self.problem()

        def play(rate):
            learner = mlp(**MLP_SETTINGS | dict(dropout=rate))
            return learner.fit(jax.random.key(0), inputs, labels, jnp.arange(60), 40)[1]["loss"]

        rates = jnp.array([0.2, 0.5])
        losses = jax.jit(jax.vmap(play))(rates)
        np.testing.assert_allclose(losses, [jax.jit(play)(rate) for rate in rates], rtol=1e-4)
        assert losses[0] < losses[1]

    def test_learns_from_the_rows_it_is_given_only(self):
        """Rows 0 to 29 are all labelled 0; a network trained on them says 0 everywhere, whatever the others say."""
        inputs, labels = self.problem()
        labels = jnp.where(jnp.arange(60) < 30, 0, labels)
        learner = mlp(**MLP_SETTINGS | dict(epochs=60))
        params, _ = learner.fit(jax.random.key(0), inputs, labels, jnp.arange(60), 30)
        assert (learner.predict(params, inputs)[1].argmax(axis=1) == 0).all()
        params, _ = learner.fit(jax.random.key(0), inputs, self.problem()[1], jnp.arange(60), 60)
        assert (learner.predict(params, inputs)[1].argmax(axis=1) == self.problem()[1]).mean() > 0.9

    @pytest.mark.parametrize("size", [1, BLOCK - 1, BLOCK, 2 * BLOCK + 5])
    def test_blocks_equal_the_whole(self, size):
        model = MLP((6,), 3)
        inputs = jax.random.normal(jax.random.key(0), (size, 4))
        params = model.init(jax.random.key(1), inputs[:1])
        run = in_blocks(lambda params, block: model.apply(params, block))
        for got, expected in zip(run(params, inputs), model.apply(params, inputs), strict=True):
            np.testing.assert_allclose(got, expected, atol=1e-6)

    @pytest.mark.parametrize(
        "change",
        [
            dict(hidden=(0,)),
            dict(epochs=0),
            dict(batch_size=-1),
            dict(dropout=1.0),
            dict(learning_rate=0.0),
        ],
    )
    def test_bad_sizes(self, change):
        with pytest.raises(BadInput, match="expected sizes of 1 or more"):
            mlp(**MLP_SETTINGS | change)


def test_without_a_layer_that_drops_units_there_is_no_mc_dropout():
    sizes = dict(depth=1, units=4, dropout=0.2, learning_rate=0.1, num_steps=10, batch_size=4)
    for filters in ((2,), (2, 2)):
        cnn = CLASSIFIERS["cnn"](num_classes=3, image_shape=(8, 8, 1), filters=filters, **sizes)
        assert (cnn.mc_dropout is None) == (len(filters) == 1)
    assert mlp(**MLP_SETTINGS | dict(hidden=())).mc_dropout is None


def test_unknown_classifier_lists_the_known():
    with pytest.raises(BadInput, match="unknown classifier 'svm'; known: cnn, gaussian_process, label_spreading, "):
        build(CLASSIFIERS, dict(name="svm"), "classifier")
