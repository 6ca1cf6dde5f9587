"""What programs compute, counted beside arithmetic by hand: loops as often as they run, on each device its share."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from latent_al.experiment.costs import Cost, count, seconds
from latent_al.kernels.shards import POOL
from latent_al.models.classifiers import mlp
from latent_al.runtime.mesh import make_mesh

SIDE = 16
MATRIX = jax.ShapeDtypeStruct((SIDE, SIDE), jnp.float32)
PRODUCT = 2 * SIDE**3


def counted(function, *args, devices=1):
    return count(jax.jit(function).trace(*args).jaxpr, args, devices)


def product(_, carry):
    return carry @ carry


@pytest.mark.parametrize(
    "function, products",
    [
        (lambda x, y: (x @ y, x + 1)[1], 0),
        (lambda x, y: jax.lax.scan(lambda carry, _: (carry @ y, None), x, None, length=7)[0], 7),
        (lambda x, y: jax.vmap(lambda row: jnp.tanh(row @ y))(x), 1),
        (lambda x, y: jax.value_and_grad(lambda x: jax.nn.relu(x @ y).sum())(x), 2),
        (lambda x, y: jax.lax.cond(x.sum() > 0, lambda: x @ y @ y, lambda: x), 2),
        (lambda x, y: jax.lax.while_loop(lambda carry: carry.sum() > 0, lambda carry: carry @ y, x), 1),
        (lambda x, y: jnp.einsum("ij,kj->ik", jnp.concatenate([x, x]), y), 2),
    ],
    ids=["unread", "scan", "vmap", "gradient", "branch", "unknown", "shape"],
)
def test_products_are_counted(function, products):
    assert counted(function, MATRIX, MATRIX).products == products * PRODUCT


def test_a_loop_counts_as_often_as_known_numbers_say():
    def passes(x, updates, batches):
        def one(index, carry):
            return jax.lax.fori_loop(0, jnp.minimum(batches, updates - index * batches), product, carry)

        return jax.lax.fori_loop(0, -(-updates // batches), one, x)

    assert counted(passes, MATRIX, 12, 4).products == 12 * PRODUCT
    assert counted(passes, MATRIX, 3, 4).products == 3 * PRODUCT
    number = jax.ShapeDtypeStruct((), jnp.int32)
    assert counted(passes, MATRIX, number, number).products == PRODUCT


@pytest.mark.parametrize("count, steps", [(1, 4 * 1), (10, 4 * 2), (11, 4 * 3)])
def test_training_counts_each_step_of_each_epoch(count, steps):
    learner = mlp(num_classes=3, hidden=(8,), dropout=0.2, learning_rate=1e-3, epochs=4, batch_size=5)

    def fit(key, inputs, labels, count):
        return learner.fit(key, 0.2, inputs, labels, labels, count, (inputs[:0], labels[:0]))

    given = jax.random.key(0), jax.ShapeDtypeStruct((20, 16), jnp.float32), jax.ShapeDtypeStruct((20,), jnp.int32)
    # The first layer has a product for its outputs and one for its weights, the last layer one for its inputs too.
    of_step = 2 * 5 * (2 * 16 * 8 + 3 * 8 * 3)
    assert counted(fit, *given, count).products == steps * of_step


def test_a_convolution_is_counted_by_its_window():
    images = jax.ShapeDtypeStruct((5, 8, 8, 3), jnp.float32)
    window = jax.ShapeDtypeStruct((3, 3, 3, 4), jnp.float32)
    layout = dict(window_strides=(1, 1), padding="SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    found = counted(lambda x, w: jax.lax.conv_general_dilated(x, w, **layout), images, window)
    assert found.products == 2 * (5 * 8 * 8 * 4) * (3 * 3 * 3)


def test_each_device_has_its_share():
    mesh = make_mesh(dict(pool=4), [[0]])
    spec = PartitionSpec(POOL)
    halves = jax.shard_map(lambda x: x @ jnp.ones((SIDE, SIDE)), mesh=mesh, in_specs=spec, out_specs=spec)
    assert counted(halves, MATRIX, devices=4).products == PRODUCT / 4
    assert counted(lambda x: x @ x, MATRIX, devices=4).products == PRODUCT / 4


def test_elements_cost_what_is_done_to_them():
    ids = [counted(function, MATRIX).elements for function in (lambda x: x + 1, jnp.exp, jnp.sum, lambda x: x.T)]
    added, exponential, summed, turned = ids
    assert added == summed == SIDE**2
    assert exponential > 5 * added
    assert turned == 0
    assert counted(jnp.sort, MATRIX).elements > 5 * added


def test_seconds_add_up():
    one, many = Cost(products=1e9, elements=1e6, calls=10), Cost(products=3e9, elements=3e6, calls=30)
    assert 0 < seconds(one) < 100
    assert seconds(many) == pytest.approx(3 * seconds(one))
