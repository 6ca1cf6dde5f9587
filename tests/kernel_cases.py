"""One case for each exported kernel: arguments that every type holds, and a slow reference in float64 NumPy."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from kernel_references import (
    NUM,
    C,
    D,
    K,
    N,
    close,
    closeness,
    conditional,
    divergence,
    draw_probs,
    equal,
    farthest,
    gaps,
    jeffreys,
    purity,
    reference_entropy,
    reference_epig,
    reversed_mean,
    shares,
    student,
    verify_alphas,
    verify_badge,
    verify_bait,
    verify_batch_bald,
    verify_cluster_margin,
    verify_cosine,
    verify_cover,
    verify_diverse,
    verify_drawn,
    verify_explanation,
    verify_facilities,
    verify_herding,
    verify_ibal,
    verify_importance,
    verify_information,
    verify_kmeans,
    verify_matches,
    verify_multi_normal,
    verify_nearest,
    verify_nearest_to,
    verify_normal,
    verify_open,
    verify_partitions,
    verify_prob_cover,
    verify_probabilities,
    verify_seeds,
    verify_subsample,
    verify_top_k,
    verify_typical,
    verify_uniform,
    verify_with,
)

from latent_al import kernels
from latent_al.kernels import distances, sampling

RNG = np.random.default_rng(0)
POINTS = RNG.integers(0, 6, (N, D)).astype(float)
POINTS[:, -1] = 1
"""No row is zero."""
LOG_SIGMA = RNG.integers(0, 2, (N, D)).astype(float)
PROBS = RNG.dirichlet(np.ones(C), N)
SCORES = RNG.integers(0, 9, N).astype(float)
TAKEN = np.arange(N) % 5 == 0
LABELS = RNG.integers(-1, C, N)
LABELLED = TAKEN & (np.arange(N) > 4)
CLUSTERS = np.arange(N) % K
INCLUDED = np.arange(N) % 7 != 3
VARIED = RNG.integers(0, 2, (N, N)).astype(float)
DRAWS = RNG.dirichlet(np.ones(C), (3, N))
TARGETS = RNG.dirichlet(np.ones(C), (3, 4))


PROBABILITIES = ("probs", "target_probs")
"""Names of arrays whose last axis is of class probabilities."""


class Case(NamedTuple):
    """A kernel, how it is called, and what it returns.

    Attributes:
        call: from the arrays, by name, to the result.
        arrays: arguments that are arrays, in float64 where they are real numbers.
        verify: from the result and the arrays, both in NumPy, to an assertion.
        reals: names of the arrays that may be of any real type.
        gradient: names of the arrays for which the float results have gradients; empty for rows.
        scalars: names of arrays without dimensions, which may be traced.
        is_random: whether the first argument is a key.
        refusal: what `jax.grad` raises, where the result is real and has no gradient.
    """

    call: Callable[..., Any]
    arrays: dict[str, np.ndarray]
    verify: Callable[..., None]
    reals: tuple[str, ...]
    gradient: tuple[str, ...] = ()
    scalars: tuple[str, ...] = ()
    is_random: bool = False
    refusal: str = ""


def cast(case: Case, dtype: Any) -> dict[str, np.ndarray]:
    """Returns the arrays with real numbers of a type; probabilities of integers are 0 and 1."""
    arrays = dict(case.arrays)
    is_whole = np.dtype(dtype).kind in "biu"
    for name in case.reals:
        values = arrays[name]
        if name in PROBABILITIES and is_whole:
            values = np.eye(values.shape[-1])[values.argmax(axis=-1)]
        if name == "p" and is_whole:
            values = np.ones_like(values)
        if np.dtype(dtype).kind == "b":
            values = values != 0 if name in (*PROBABILITIES, "p") else values.astype(int) % 2
        arrays[name] = np.asarray(values).astype(dtype)
    return arrays


def in_float64(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the values of arrays of any type in float64; integers and masks as they are."""
    return {
        name: values.astype(float) if values.dtype.kind == "V" or values.dtype in (np.float16, np.float32) else values
        for name, values in ((name, np.asarray(values)) for name, values in arrays.items())
    }


def scalar(value):
    return np.array(value)


EUCLIDEAN = dict(distance=distances.euclidean_to_point)
POOL = dict(points=POINTS, taken=TAKEN)
RANKED = dict(scores=SCORES, taken=TAKEN)
GAUSSIANS = dict(mu=POINTS, log_sigma=LOG_SIGMA)
PAIRS = dict(mu_x=POINTS, log_sigma_x=LOG_SIGMA, mu_y=POINTS[::2], log_sigma_y=LOG_SIGMA[::2])
IN_CLUSTERS = dict(points=POINTS, clusters=CLUSTERS)
L2 = scalar(0.5)
NO_GAIN = "no gradient of the gains of coverage"
SQ_DISTANCES = gaps(POINTS, POINTS)
P = 1 - np.eye(N)
P /= P.sum()
FEATURES = dict(probs=PROBS, features=POINTS)
MATCHED = dict(**POOL, clusters=CLUSTERS, centre=POINTS[:K], factor=np.stack([np.eye(D)] * K), threshold=scalar(6.0))


def match(key, points, taken, clusters, centre, factor, threshold, all_within=False):
    distribution = sampling.Distribution(centre, factor, True)
    settings = dict(clusters=clusters, distribution=distribution, threshold=threshold, all_within=all_within)
    return kernels.draw_and_match(key, points, taken, NUM, **settings)


def diverse_by_closure(scores, points, taken, weight):
    settings = dict(distance=lambda x, y: jnp.abs(x - y[None]).sum(axis=1), weight=weight)
    return kernels.greedy_diverse(scores, points, taken, NUM, **settings)


CASES = {
    "badge": Case(
        partial(kernels.badge, num=NUM),
        FEATURES | dict(taken=TAKEN),
        verify_badge,
        ("probs", "features"),
        is_random=True,
    ),
    "bait": Case(
        partial(kernels.bait, num=NUM),
        FEATURES | dict(taken=TAKEN, labelled=LABELLED, l2=L2),
        verify_bait,
        ("probs", "features"),
        scalars=("l2",),
    ),
    "batch_bald": Case(
        partial(kernels.batch_bald, num=NUM, num_samples=36),
        dict(probs=DRAWS, taken=TAKEN),
        verify_batch_bald,
        ("probs",),
        is_random=True,
    ),
    "closeness_to_origin": Case(
        kernels.closeness_to_origin,
        dict(points=POINTS),
        verify_with(lambda points: reversed_mean(np.sqrt((points**2).sum(axis=1)))),
        ("points",),
        ("points",),
    ),
    "cluster_margin": Case(
        partial(kernels.cluster_margin, num=NUM, num_clusters=K, num_candidates=8),
        RANKED | dict(clusters=CLUSTERS),
        verify_cluster_margin,
        ("scores",),
        is_random=True,
    ),
    "conditional_probabilities": Case(
        kernels.conditional_probabilities,
        dict(sq_distances=SQ_DISTANCES, perplexity=scalar(5.0)),
        lambda values, sq_distances, perplexity: verify_probabilities(
            values, conditional(np.asarray(sq_distances, float), float(perplexity))
        ),
        ("sq_distances",),
        ("sq_distances",),
        ("perplexity",),
    ),
    "cosine_density": Case(kernels.cosine_density, dict(points=POINTS), verify_cosine, ("points",), ("points",)),
    "cover": Case(
        partial(kernels.cover, num=NUM, first=2),
        POOL,
        verify_cover,
        ("points",),
        ("points",),
        refusal="no gradient of cover",
    ),
    "draw_and_match": Case(
        match,
        MATCHED,
        verify_matches,
        ("points",),
        scalars=("threshold",),
        is_random=True,
    ),
    "entropy": Case(kernels.entropy, dict(probs=PROBS), verify_with(reference_entropy), ("probs",), ("probs",)),
    "epig": Case(
        kernels.epig,
        dict(probs=DRAWS, target_probs=TARGETS),
        verify_with(reference_epig),
        PROBABILITIES,
        PROBABILITIES,
    ),
    "euclidean_density": Case(
        kernels.euclidean_density,
        dict(points=POINTS),
        verify_with(lambda points: reversed_mean(np.sqrt(gaps(points, points)).mean(axis=1))),
        ("points",),
        ("points",),
    ),
    "euclidean_density_estimate": Case(
        partial(kernels.euclidean_density_estimate, fraction=1.0),
        dict(points=POINTS),
        # Distances of equal rows are rounded, by some 5e-4 of the radius.
        lambda values, points: np.testing.assert_allclose(
            values, reversed_mean(np.sqrt(gaps(points, points)).mean(axis=1)), atol=2e-4
        ),
        ("points",),
        ("points",),
        is_random=True,
    ),
    "explain": Case(
        partial(kernels.explain, num=NUM),
        dict(values=SCORES, labels=LABELS),
        verify_explanation,
        ("values",),
        ("values",),
    ),
    "facility_location": Case(
        partial(kernels.facility_location, num=NUM),
        POOL | dict(labelled=LABELLED, weights=SCORES),
        verify_facilities,
        ("points", "weights"),
        refusal=NO_GAIN,
    ),
    "farthest_first": Case(
        partial(kernels.farthest_first, num=NUM),
        POOL | dict(first=scalar(3)),
        lambda rows, points, taken, first: equal(rows, farthest(points, taken, int(first))[0]),
        ("points",),
        scalars=("first",),
    ),
    "greedy_diverse": Case(
        lambda scores, points, taken, weight: kernels.greedy_diverse(
            scores, points, taken, NUM, weight=weight, **EUCLIDEAN
        ),
        RANKED | dict(points=POINTS, weight=scalar(0.75)),
        verify_diverse,
        ("scores", "points"),
        scalars=("weight",),
    ),
    "ibal": Case(
        kernels.ibal, FEATURES | dict(labelled_sum=np.arange(D)), verify_ibal, ("probs", "features"), ("features",)
    ),
    "importance": Case(
        kernels.importance,
        FEATURES | dict(labelled_sum=np.arange(D), num_labelled=scalar(7), l2=L2),
        verify_importance,
        ("probs", "features"),
        ("probs", "features"),
        ("num_labelled", "l2"),
    ),
    "jeffreys_density": Case(
        kernels.jeffreys_density,
        GAUSSIANS,
        verify_with(
            lambda mu, log_sigma: reversed_mean(jeffreys(mu, log_sigma, mu, log_sigma)[1].mean(axis=1)),
        ),
        ("mu", "log_sigma"),
        ("mu", "log_sigma"),
    ),
    "jeffreys_divergences": Case(
        kernels.jeffreys_divergences,
        PAIRS,
        verify_with(lambda **arrays: jeffreys(*arrays.values())[1]),
        tuple(PAIRS),
        ("mu_x", "log_sigma_y"),
    ),
    "joint_probabilities": Case(
        kernels.joint_probabilities,
        dict(points=POINTS, perplexity=scalar(5.0)),
        lambda values, points, perplexity: verify_probabilities(
            values * N, sum((lambda p: (p, p.T))(conditional(gaps(points, points), float(perplexity)))) / 2
        ),
        ("points",),
        ("points",),
        ("perplexity",),
    ),
    "kl_divergences": Case(
        kernels.kl_divergences,
        PAIRS,
        verify_with(lambda **arrays: jeffreys(*arrays.values())[0]),
        tuple(PAIRS),
        ("mu_x", "log_sigma_y"),
    ),
    "kl_to_prior": Case(
        kernels.kl_to_prior,
        GAUSSIANS,
        verify_with(
            lambda mu, log_sigma: reversed_mean(
                jeffreys(mu, log_sigma, np.zeros((1, D)), np.zeros((1, D)))[0][:, 0],
            )
        ),
        ("mu", "log_sigma"),
        ("mu", "log_sigma"),
    ),
    "kmeans": Case(
        partial(kernels.kmeans, num_clusters=K),
        dict(points=POINTS),
        verify_kmeans,
        ("points",),
        ("points",),
        is_random=True,
    ),
    "kmeans_plus_plus": Case(
        partial(kernels.kmeans_plus_plus, num=K),
        dict(points=POINTS),
        verify_seeds,
        ("points",),
        ("points",),
        is_random=True,
    ),
    "largest_remainder": Case(
        partial(kernels.largest_remainder, num=101),
        dict(sizes=np.array([10**9, 10**9 + 1, 7, 0, 123456])),
        lambda values, sizes: equal(values, shares(sizes, 101)),
        (),
    ),
    "least_confident": Case(
        kernels.least_confident,
        dict(probs=PROBS),
        verify_with(lambda probs: 1 - probs.max(axis=1)),
        ("probs",),
        ("probs",),
    ),
    "lloyd": Case(
        partial(kernels.lloyd, iterations=100),
        dict(points=POINTS, centres=POINTS[:K] + np.array([0, 0, 0, 1])),
        verify_kmeans,
        ("points", "centres"),
        ("points",),
    ),
    "margin": Case(
        kernels.margin,
        dict(probs=PROBS),
        verify_with(lambda probs: 1 - np.sort(probs, axis=1)[:, -1] + np.sort(probs, axis=1)[:, -2]),
        ("probs",),
        ("probs",),
    ),
    "max_herding": Case(
        partial(kernels.max_herding, num=NUM),
        POOL | dict(sigma=scalar(2.0), labelled=LABELLED, weights=SCORES),
        verify_herding,
        ("points", "weights"),
        scalars=("sigma",),
        refusal=NO_GAIN,
    ),
    "most_typical": Case(
        partial(kernels.most_typical, num=NUM, num_clusters=K, num_neighbours=4),
        POOL | dict(clusters=CLUSTERS, included=INCLUDED | ~TAKEN),
        verify_typical,
        ("points",),
    ),
    "mutual_information": Case(
        lambda key, logits: kernels.mutual_information(key, lambda key: draw_probs(key, logits), num_draws=3),
        dict(logits=VARIED[:, :C]),
        verify_information,
        ("logits",),
        ("logits",),
        is_random=True,
    ),
    "nearest": Case(
        kernels.nearest,
        dict(x=POINTS, y=POINTS[::2] + LOG_SIGMA[::2], included=np.arange(N // 2) % 3 > 0),
        verify_nearest,
        ("x", "y"),
        ("x", "y"),
    ),
    "nearest_to": Case(
        kernels.nearest_to,
        POOL | dict(targets=POINTS[:NUM] + LOG_SIGMA[:NUM]),
        verify_nearest_to,
        ("points", "targets"),
    ),
    "power_top_k": Case(
        partial(kernels.power_top_k, num=NUM),
        RANKED | dict(beta=scalar(0.75)),
        lambda rows, key, scores, taken, beta: verify_drawn(
            rows, key, taken, float(beta) * np.log(np.maximum(scores.astype(float), 1e-300))
        ),
        ("scores",),
        scalars=("beta",),
        is_random=True,
    ),
    "prob_cover": Case(
        partial(kernels.prob_cover, num=NUM),
        POOL | dict(radius=scalar(3.0), labelled=LABELLED),
        verify_prob_cover,
        ("points",),
        scalars=("radius",),
        refusal=NO_GAIN,
    ),
    "purity_radius": Case(
        partial(kernels.purity_radius, share=0.75),
        IN_CLUSTERS,
        lambda radius, points, clusters: close(radius, purity(points, clusters, 0.75)),
        ("points",),
        ("points",),
        refusal="no gradient of purity_radius",
    ),
    "random_partitions": Case(
        partial(kernels.random_partitions, num=NUM), RANKED, verify_partitions, ("scores",), is_random=True
    ),
    "representer_alphas": Case(
        kernels.representer_alphas,
        dict(probs=PROBS, labels=LABELS, l2=L2),
        verify_alphas,
        ("probs",),
        ("probs",),
        ("l2",),
    ),
    "representer_values": Case(
        kernels.representer_values,
        dict(alphas=VARIED[:, :C], features=POINTS, target=np.arange(D).astype(float)),
        verify_with(lambda alphas, features, target: alphas * (features @ target)[:, None]),
        ("alphas", "features", "target"),
        ("alphas", "features", "target"),
    ),
    "softmax_top_k": Case(
        partial(kernels.softmax_top_k, num=NUM),
        RANKED | dict(beta=scalar(0.75)),
        lambda rows, key, scores, taken, beta: verify_drawn(rows, key, taken, float(beta) * scores.astype(float)),
        ("scores",),
        scalars=("beta",),
        is_random=True,
    ),
    "squared_closeness_to_origin": Case(
        kernels.squared_closeness_to_origin,
        dict(points=POINTS),
        verify_with(lambda points: reversed_mean((points**2).sum(axis=1))),
        ("points",),
        ("points",),
    ),
    "squared_distances": Case(
        kernels.squared_distances, dict(x=POINTS, y=POINTS[::2]), verify_with(gaps), ("x", "y"), ("x", "y")
    ),
    "squared_euclidean_density": Case(
        kernels.squared_euclidean_density,
        dict(points=POINTS),
        verify_with(lambda points: reversed_mean(gaps(points, points).mean(axis=1))),
        ("points",),
        ("points",),
    ),
    "stochastic_facility_location": Case(
        partial(kernels.stochastic_facility_location, num=NUM, epsilon=1e-9),
        POOL | dict(labelled=LABELLED, weights=SCORES),
        verify_facilities,
        ("points", "weights"),
        is_random=True,
        refusal=NO_GAIN,
    ),
    "student_t": Case(kernels.student_t, dict(latents=POINTS), verify_with(student), ("latents",), ("latents",)),
    "subsample": Case(
        partial(kernels.subsample, fraction=0.5), dict(taken=TAKEN), verify_subsample, (), is_random=True
    ),
    "top_k": Case(partial(kernels.top_k, num=NUM), RANKED, verify_top_k, ("scores",)),
    "tsne_divergence": Case(
        kernels.tsne_divergence,
        dict(p=P, latents=POINTS),
        verify_with(divergence),
        ("latents",),
        ("latents",),
    ),
    "typicality": Case(
        partial(kernels.typicality, num_neighbours=4),
        IN_CLUSTERS | dict(included=INCLUDED),
        lambda values, points, clusters, included: close(values, closeness(points, clusters, included, 4)),
        ("points",),
        ("points",),
    ),
    "distances.squared_euclidean_to_point": Case(
        distances.squared_euclidean_to_point,
        dict(points=POINTS, point=POINTS[1]),
        verify_with(lambda points, point: gaps(points, point[None])[:, 0]),
        ("points", "point"),
        ("points", "point"),
    ),
    "distances.euclidean_to_point": Case(
        distances.euclidean_to_point,
        dict(points=POINTS, point=POINTS[1]),
        verify_with(lambda points, point: np.sqrt(gaps(points, point[None])[:, 0])),
        ("points", "point"),
        ("points", "point"),
    ),
    "distances.half_cosine_to_point": Case(
        distances.half_cosine_to_point,
        dict(points=POINTS, point=POINTS[1]),
        verify_with(
            lambda points, point: (1 - points @ point / np.sqrt((points**2).sum(axis=1) * (point**2).sum())) / 2
        ),
        ("points", "point"),
        ("points", "point"),
    ),
    "distances.jeffreys_to_point": Case(
        lambda mu, log_sigma, mu_y, log_sigma_y: distances.jeffreys_to_point((mu, log_sigma), (mu_y, log_sigma_y)),
        GAUSSIANS | dict(mu_y=POINTS[1], log_sigma_y=LOG_SIGMA[1]),
        verify_with(
            lambda mu, log_sigma, mu_y, log_sigma_y: jeffreys(mu, log_sigma, mu_y[None], log_sigma_y[None])[1][:, 0],
        ),
        ("mu", "log_sigma", "mu_y", "log_sigma_y"),
        ("mu", "log_sigma"),
    ),
    "distances.diameter": Case(
        partial(distances.diameter, **EUCLIDEAN),
        dict(points=POINTS),
        verify_with(lambda points: 2 * np.sqrt((points**2).sum(axis=1)).max()),
        ("points",),
        ("points",),
    ),
    "sampling.uniform": Case(
        partial(sampling.uniform, num_clusters=K), IN_CLUSTERS, verify_uniform, ("points",), ("points",)
    ),
    "sampling.normal": Case(
        partial(sampling.normal, num_clusters=K), IN_CLUSTERS, verify_normal, ("points",), ("points",)
    ),
    "sampling.multi_normal": Case(
        partial(sampling.multi_normal, num_clusters=K), IN_CLUSTERS, verify_multi_normal, ("points",), ("points",)
    ),
}

VARIANTS = {
    "draw_and_match all within": Case(partial(match, all_within=True), MATCHED, verify_matches, (), is_random=True),
    "farthest_first of included": Case(
        partial(kernels.farthest_first, num=NUM), POOL | dict(included=INCLUDED), verify_open, ()
    ),
    "greedy_diverse closure": Case(diverse_by_closure, CASES["greedy_diverse"].arrays, verify_open, ()),
    "kmeans of some": Case(
        partial(kernels.kmeans, num_clusters=K),
        dict(points=POINTS, clustered=INCLUDED),
        verify_open,
        (),
        is_random=True,
    ),
    "largest_remainder of rows": Case(
        partial(kernels.largest_remainder, num=NUM), dict(sizes=np.arange(N) % 5), verify_open, ()
    ),
    "nearest of rows": Case(kernels.nearest, dict(x=POINTS[::2], y=POINTS, included=INCLUDED), verify_nearest, ()),
}
"""Other ways through the same kernels, which lie otherwise on several devices."""

ROWS = {name: case for name, case in CASES.items() if not case.gradient and "taken" in case.arrays and case.reals}
"""Kernels that select rows."""
ROWS_AND_COVER = ROWS | {"cover": CASES["cover"]}
CLUSTERED = [
    name for name, case in CASES.items() if "clusters" in case.arrays and name not in ("purity_radius", "typicality")
]
"""Kernels that count clusters; the others only compare their ids, which may be any integers."""
KEYED = {"batch_bald", "mutual_information", "power_top_k", "softmax_top_k"}
"""Kernels whose references draw the same random numbers."""
INFINITE = {"nearest", "cover", "typicality"}
"""Kernels whose documented results may be infinite."""


def run(name, arrays, key=None):
    case = CASES[name]
    key = jax.random.key(0) if key is None else key
    return case.call(*([key] if case.is_random else []), **arrays)


def rows_of(result):
    return getattr(result, "rows", result)


def in_float32(name):
    """Returns the arrays as a caller has them: of JAX, in float32."""
    return jax.tree.map(jnp.asarray, cast(CASES[name], np.float32))
