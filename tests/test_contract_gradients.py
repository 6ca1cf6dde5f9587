"""Gradients of all exported kernels: beside forward derivatives and central differences, or zero of chosen rows."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernel_cases import CASES, POINTS, PROBABILITIES, PROBS, TAKEN, cast, in_float32, run
from kernel_references import NUM, D, N

from latent_al import kernels

LONG_GRADIENTS = ("conditional_probabilities", "euclidean_density_estimate", "explain", "jeffreys_density", "kmeans")
LONG_GRADIENTS += ("joint_probabilities", "kmeans_plus_plus", "lloyd", "mutual_information")
LONG_GRADIENTS += ("sampling.multi_normal", "sampling.normal", "sampling.uniform", "epig", "euclidean_density")
LONG_GRADIENTS += ("jeffreys_divergences", "tsne_divergence", "typicality")
"""Kernels whose gradients take seconds to compile, and are slow tests."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LONG_GRADIENTS else name for name in CASES]
)
class TestGradients:
    def test_gradient(self, name):
        case = CASES[name]
        arrays = in_float32(name)
        reals = {each: arrays[each] for each in case.gradient or case.reals}

        def total(reals):
            leaves = jax.tree.leaves(run(name, arrays | reals))
            floats = [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]
            sums = [(leaf * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape)).sum() for leaf in floats]
            return sum(sums, jnp.sum(sum(jnp.sum(leaf) for leaf in jax.tree.leaves(reals)) * 0))

        if not reals:
            pytest.skip("takes no real numbers")
        if case.refusal:
            with pytest.raises(TypeError, match=case.refusal):
                jax.grad(total)(reals)
            return
        gradient = jax.grad(total)(reals)
        if not case.gradient:
            assert not any(leaf.any() for leaf in jax.tree.leaves(gradient))
            return
        chex.assert_trees_all_close(gradient, jax.jacfwd(total)(reals), rtol=1e-4, atol=1e-4)
        with jax.enable_x64(True):
            self.check_differences(name, cast(case, np.float64), reals)

    @staticmethod
    def wide_total(name, wide, reals):
        leaves = jax.tree.leaves(run(name, wide | reals))
        floats = [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]
        return sum((leaf * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape)).sum() for leaf in floats)

    def check_differences(self, name, wide, names):
        """Compares with central differences in a direction in which no tie is broken."""
        rng = np.random.default_rng(3)
        smooth = {each: value + 1e-2 * rng.normal(size=value.shape) for each, value in wide.items() if each in names}
        smooth |= {each: wide[each] for each in PROBABILITIES if each in smooth}
        if name == "explain":
            smooth = {each: wide[each] + 1e-3 * np.arange(wide[each].size) for each in names}
        total = jax.jit(partial(self.wide_total, name, wide))
        gradient = jax.grad(partial(self.wide_total, name, wide))(smooth)
        changes = {each: rng.normal(size=value.shape) for each, value in smooth.items()}
        for each in set(PROBABILITIES) & changes.keys():
            changes[each] -= changes[each].mean(axis=-1, keepdims=True)
            changes[each] *= 0.1
        step = 1e-5
        ends = [total({each: smooth[each] + sign * step * changes[each] for each in smooth}) for sign in (1, -1)]
        slope = sum(float((gradient[each] * changes[each]).sum()) for each in smooth)
        np.testing.assert_allclose(slope, float(ends[0] - ends[1]) / (2 * step), rtol=2e-4, atol=2e-4)


def test_gradient_of_mutual_information_has_no_infinite_parts():
    probs = jnp.float32(PROBS)

    def information(probs):
        def predict(key):
            return jnp.where(jax.random.bernoulli(key), probs, probs[:, ::-1])

        return kernels.mutual_information(jax.random.key(0), predict, num_draws=4).sum()

    with jax.debug_nans(True), jax.debug_infs(True):
        gradient = jax.grad(information)(probs)
    np.testing.assert_allclose(gradient, jax.jacfwd(information)(probs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("density", [kernels.euclidean_density, None])
def test_gradient_of_duplicates(density):
    points = jnp.float32(np.repeat(POINTS[:6], 4, axis=0))
    density = density or partial(kernels.euclidean_density_estimate, jax.random.key(0), fraction=0.5)
    assert jnp.isfinite(jax.grad(lambda points: density(points)[3])(points)).all()


@pytest.mark.parametrize("size", [5, 40])
def test_forward_derivatives_of_student_t(size):
    points = jax.random.normal(jax.random.key(0), (size, 3))
    forward, backward = (change(kernels.student_t)(points) for change in (jax.jacfwd, jax.jacrev))
    np.testing.assert_allclose(forward, backward, atol=1e-7)


def test_the_cure_for_a_gradient_that_is_refused():
    points, taken = jnp.float32(POINTS), jnp.array(TAKEN)

    def total(points, still_points):
        return points[kernels.cover(still_points, taken, NUM).rows].sum()

    with pytest.raises(TypeError, match="apply jax.lax.stop_gradient to the arguments of the kernel, whichever part"):
        jax.grad(lambda points: total(points, points))(points)
    assert jax.grad(lambda points: total(points, jax.lax.stop_gradient(points)))(points).sum() == NUM * D


def test_rows_are_constants_for_gradients():
    points, taken = jnp.float32(POINTS), jnp.array(TAKEN)

    def total(points):
        return points[kernels.farthest_first(points, taken, NUM)].sum()

    marks = np.zeros(N)
    marks[np.asarray(kernels.farthest_first(points, taken, NUM))] = 1
    np.testing.assert_array_equal(jax.grad(total)(points), np.repeat(marks[:, None], D, axis=1))
