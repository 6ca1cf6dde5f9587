"""One case for each exported kernel: arguments that every type holds, and a slow reference in float64 NumPy."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from latent_al import kernels
from latent_al.kernels import distances, sampling

N, D, C, K, NUM = 24, 4, 3, 3, 6
"""Rows, dimensions, classes, clusters and rows asked for; rows can be shared among eight devices."""

RNG = np.random.default_rng(0)
POINTS = RNG.integers(0, 6, (N, D)).astype(float)
POINTS[:, -1] = 1
"""No row is zero."""
LOG_SIGMA = RNG.integers(0, 2, (N, D)).astype(float)
PROBS = RNG.dirichlet(np.ones(C), N)
SCORES = RNG.integers(0, 9, N).astype(float)
TAKEN = np.arange(N) % 5 == 0
LABELS = RNG.integers(-1, C, N)
CLUSTERS = np.arange(N) % K
INCLUDED = np.arange(N) % 7 != 3
VARIED = RNG.integers(0, 2, (N, N)).astype(float)


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
        if name in ("probs", "p") and is_whole:
            values = np.eye(values.shape[1])[values.argmax(axis=1)] if name == "probs" else np.ones_like(values)
        if np.dtype(dtype).kind == "b":
            values = values != 0 if name in ("probs", "p") else values.astype(int) % 2
        arrays[name] = np.asarray(values).astype(dtype)
    return arrays


def in_float64(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the values of arrays of any type in float64; integers and masks as they are."""
    return {
        name: values.astype(float) if values.dtype.kind == "V" or values.dtype in (np.float16, np.float32) else values
        for name, values in ((name, np.asarray(values)) for name, values in arrays.items())
    }


def close(actual, expected):
    np.testing.assert_allclose(np.asarray(actual, float), expected, rtol=2e-5, atol=2e-5)


def equal(actual, expected):
    np.testing.assert_array_equal(actual, expected)


def gaps(x, y):
    return ((x[:, None].astype(float) - y[None].astype(float)) ** 2).sum(axis=2)


def verify_open(rows, taken, num=NUM):
    """Distinct rows that are not taken."""
    rows = np.asarray(rows)
    assert rows.shape == (num,)
    assert len(set(rows.tolist())) == num
    assert not np.asarray(taken)[rows].any()


def verify_top_k(rows, *, scores, taken):
    order = [row for row in np.argsort(-scores.astype(float), kind="stable") if not taken[row]]
    equal(rows, order[:NUM])


def verify_partitions(rows, *, scores, taken):
    verify_open(rows, taken)
    assert scores[np.asarray(rows)].astype(float).max() == scores[~taken].astype(float).max()


def verify_diverse(rows, *, scores, points, taken, weight):
    nearest, expected = np.zeros(N), []
    for step in range(NUM):
        gains = np.where(taken, -np.inf, scores.astype(float) + float(weight) * nearest)
        gains[expected] = -np.inf
        expected.append(int(gains.argmax()))
        to_row = np.sqrt(gaps(points, points[expected[-1:]])[:, 0])
        nearest = to_row if step == 0 else np.minimum(nearest, to_row)
    equal(rows, expected)


def verify_nearest_to(rows, *, points, taken, targets):
    blocked, expected = taken.copy(), []
    for target in targets:
        expected.append(int(np.where(blocked, np.inf, gaps(points, target[None])[:, 0]).argmin()))
        blocked[expected[-1]] = True
    equal(rows, expected)


def verify_subsample(marked, *, taken):
    assert marked[taken].all()
    assert (~marked).sum() == N // 2


def reference_entropy(probs):
    logs = np.log(np.where(probs > 0, probs, 1))
    return -(probs * logs).sum(axis=1) / np.log(probs.shape[1])


def verify_information(values, *, logits, key):
    draws = [np.asarray(draw_probs(key, logits), float) for key in jax.random.split(key, 3)]
    close(values, reference_entropy(np.mean(draws, axis=0)) - np.mean([reference_entropy(p) for p in draws], axis=0))


def draw_probs(key, logits):
    """Returns the class probabilities of a model about the logits."""
    logits = jnp.asarray(logits, float)
    return jax.nn.softmax(logits + jax.random.normal(key, logits.shape, logits.dtype))


def reversed_mean(means):
    return 1 - means / means.max()


def jeffreys(mu_x, log_x, mu_y, log_y):
    def kl(mu_x, log_x, mu_y, log_y):
        spread = np.exp(2 * log_x[:, None]) + (mu_x[:, None] - mu_y[None]) ** 2
        return (0.5 * spread * np.exp(-2 * log_y[None]) - 0.5 + log_y[None] - log_x[:, None]).sum(axis=2)

    mu_x, log_x, mu_y, log_y = (np.asarray(values, float) for values in (mu_x, log_x, mu_y, log_y))
    return kl(mu_x, log_x, mu_y, log_y), kl(mu_x, log_x, mu_y, log_y) + kl(mu_y, log_y, mu_x, log_x).T


def verify_cosine(values, *, points):
    units = points.astype(float) / np.sqrt((points.astype(float) ** 2).sum(axis=1, keepdims=True))
    close(values, (1 + (units @ units.T).mean(axis=1)) / 2)


def farthest(points, taken, first):
    nearest = np.where(taken.any(), gaps(points, points[taken]).min(axis=1, initial=np.inf), np.inf)
    rows, distances = [], []
    for _ in range(NUM):
        measured = np.where(taken, -1, nearest)
        measured[rows] = -1
        row = first if not taken.any() and not rows else int(measured.argmax())
        rows.append(row)
        distances.append(nearest[row])
        nearest = np.minimum(nearest, gaps(points, points[[row]])[:, 0])
    return rows, np.sqrt(distances)


def verify_cover(cover, *, points, taken):
    rows, radii = farthest(points, taken, 2)
    equal(cover.rows, rows)
    close(cover.distances, radii)
    close(gaps(points, points[rows]).min(axis=1), gaps(points, points[rows])[np.arange(N), cover.nearest])


def verify_kmeans(result, *, points, **rest):
    points = points.astype(float)
    for cluster in range(K):
        close(result.centres[cluster], points[np.asarray(result.clusters) == cluster].mean(axis=0))
    sq_distances = gaps(points, np.asarray(result.centres, float))
    close(sq_distances.min(axis=1), sq_distances[np.arange(N), result.clusters])
    close(result.inertia, sq_distances.min(axis=1).sum())


def verify_seeds(centres, *, points):
    centres = np.asarray(centres, float)
    assert (gaps(centres, points) == 0).any(axis=1).all()
    assert len(np.unique(centres, axis=0)) == min(K, len(np.unique(points.astype(float), axis=0)))


def verify_nearest(result, *, x, y, included):
    sq_distances = np.where(included[None], gaps(x, y), np.inf)
    close(result.sq_distances, sq_distances.min(axis=1))
    equal(result.rows, sq_distances.argmin(axis=1))


def verify_badge(rows, *, probs, features, taken):
    verify_open(rows, taken)
    errors = probs.astype(float) - np.eye(C)[probs.astype(float).argmax(axis=1)]
    lengths = (errors**2).sum(axis=1) * (features.astype(float) ** 2).sum(axis=1)
    np.testing.assert_allclose(lengths[rows[0]], lengths[~taken].max(), rtol=1e-5)


def verify_alphas(alphas, *, probs, labels, l2):
    errors = np.eye(C)[labels] - probs.astype(float)
    close(alphas, np.where((labels >= 0)[:, None], errors, 0) / (2 * float(l2) * (labels >= 0).sum()))


def verify_explanation(result, *, values, labels):
    values = values.astype(float)
    rows = np.flatnonzero(labels >= 0)
    equal(result.supporting, rows[np.argsort(-values[rows], kind="stable")][:NUM])
    equal(result.opposing, rows[np.argsort(values[rows], kind="stable")][:NUM])
    close(result.supporting_values, values[np.asarray(result.supporting)])
    close(result.opposing_values, values[np.asarray(result.opposing)])


def parts(probs, features, labelled_sum):
    return (probs.astype(float) * (1 - probs.astype(float))).sum(axis=1) * (features.astype(float) @ labelled_sum)


def verify_importance(values, *, probs, features, labelled_sum, num_labelled, l2):
    close(values, parts(probs, features, labelled_sum) / (2 * float(l2) * int(num_labelled)))


def verify_ibal(values, *, probs, features, labelled_sum):
    close(values, -parts(probs, features, labelled_sum))


def shares(sizes, num):
    total = sum(map(int, sizes))
    exact = [int(size) * num for size in sizes]
    result = [value // total for value in exact]
    order = sorted(range(len(sizes)), key=lambda place: (-(exact[place] % total), place))
    for place in order[: num - sum(result)]:
        result[place] += 1
    return result


def verify_matches(matches, *, points, taken, clusters, threshold):
    verify_open(matches.rows, taken)
    left = np.bincount(clusters[~taken], minlength=K)
    equal(np.bincount(clusters[np.asarray(matches.rows)], minlength=K), shares(left, NUM))


def conditional(sq_distances, perplexity):
    result = np.zeros((N, N))
    for row in range(N):
        others = np.arange(N) != row
        gap = sq_distances[row, others] - sq_distances[row, others].min()
        low, high = -50.0, 50.0
        for _ in range(100):
            middle = (low + high) / 2
            weights = np.exp(-np.exp(middle) * gap)
            weights /= weights.sum()
            nats = -(weights * np.log(np.where(weights > 0, weights, 1))).sum()
            low, high = (middle, high) if nats > np.log(perplexity) else (low, middle)
        result[row, others] = weights
    return result


def verify_probabilities(values, expected):
    np.testing.assert_allclose(values, expected, atol=2e-4)


def student(latents):
    weights = 1 / (1 + gaps(latents, latents))
    np.fill_diagonal(weights, 0)
    return weights / weights.sum()


def divergence(p, latents):
    q = student(latents)
    return (p * (np.log(np.where(p > 0, p, 1)) - np.log(np.where(q > 0, q, 1)))).sum()


def closeness(points, clusters, included, num_neighbours):
    values = np.zeros(N)
    for row in np.flatnonzero(included):
        others = np.flatnonzero(included & (clusters == clusters[row]) & (np.arange(N) != row))
        nearest = np.sort(np.sqrt(gaps(points[[row]], points[others])[0]))[:num_neighbours]
        if len(nearest):
            values[row] = np.inf if nearest.sum() == 0 else 1 / nearest.mean()
    return values


def verify_typical(rows, *, points, taken, clusters, included):
    values, blocked, expected = closeness(points, clusters, included, 4), taken.copy(), []
    sizes = np.bincount(clusters[included], minlength=K)
    covered = np.bincount(clusters[included & taken], minlength=K)
    for _ in range(NUM):
        left = np.bincount(clusters[~blocked], minlength=K)
        cluster = min(range(K), key=lambda k: (left[k] == 0, sizes[k] < 5, covered[k], -sizes[k], k))
        row = int(np.where(blocked | (clusters != cluster), -1, values).argmax())
        expected.append(row)
        blocked[row] = True
        covered[cluster] += 1
    equal(rows, expected)


def verify_uniform(fitted, *, points, clusters):
    for cluster in range(K):
        inside = points[clusters == cluster].astype(float)
        close(fitted.centre[cluster], (inside.min(axis=0) + inside.max(axis=0)) / 2)
        close(fitted.factor[cluster], np.diag(inside.max(axis=0) - inside.min(axis=0)) / 2)


def verify_normal(fitted, *, points, clusters):
    for cluster in range(K):
        inside = points[clusters == cluster].astype(float)
        close(fitted.centre[cluster], np.full(D, inside.mean()))
        close(fitted.factor[cluster], inside.std() * np.eye(D))


def verify_multi_normal(fitted, *, points, clusters):
    for cluster in range(K):
        inside = points[clusters == cluster].astype(float)
        close(fitted.centre[cluster], inside.mean(axis=0))
        factor = np.asarray(fitted.factor[cluster], float)
        np.testing.assert_allclose(factor @ factor.T, np.cov(inside.T, bias=True), atol=1e-4)


def verify_with(reference):
    """Returns a `verify` that compares with a function of the arrays in float64."""

    def verify(values, **arrays):
        close(values, reference(**{name: np.asarray(array, float) for name, array in arrays.items()}))

    return verify


def scalar(value):
    return np.array(value)


EUCLIDEAN = dict(distance=distances.euclidean_to_point)
POOL = dict(points=POINTS, taken=TAKEN)
RANKED = dict(scores=SCORES, taken=TAKEN)
GAUSSIANS = dict(mu=POINTS, log_sigma=LOG_SIGMA)
PAIRS = dict(mu_x=POINTS, log_sigma_x=LOG_SIGMA, mu_y=POINTS[::2], log_sigma_y=LOG_SIGMA[::2])
IN_CLUSTERS = dict(points=POINTS, clusters=CLUSTERS)
L2 = scalar(0.5)
SQ_DISTANCES = gaps(POINTS, POINTS)
P = 1 - np.eye(N)
P /= P.sum()
FEATURES = dict(probs=PROBS, features=POINTS)


def _fitted(points, clusters):
    return sampling.normal(points, clusters=clusters, num_clusters=K)


CASES = {
    "badge": Case(
        partial(kernels.badge, num=NUM),
        FEATURES | dict(taken=TAKEN),
        verify_badge,
        ("probs", "features"),
        is_random=True,
    ),
    "closeness_to_origin": Case(
        kernels.closeness_to_origin,
        dict(points=POINTS),
        verify_with(lambda points: reversed_mean(np.sqrt((points**2).sum(axis=1)))),
        ("points",),
        ("points",),
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
        lambda key, points, taken, clusters, threshold: kernels.draw_and_match(
            key,
            points,
            taken,
            NUM,
            clusters=clusters,
            distribution=_fitted(points, clusters),
            threshold=threshold,
            all_within=False,
        ),
        POOL | dict(clusters=CLUSTERS, threshold=scalar(1.5)),
        verify_matches,
        ("points",),
        scalars=("threshold",),
        is_random=True,
    ),
    "entropy": Case(kernels.entropy, dict(probs=PROBS), verify_with(reference_entropy), ("probs",), ("probs",)),
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
    "most_typical": Case(
        partial(kernels.most_typical, num=NUM, num_clusters=K, num_neighbours=4),
        POOL | dict(clusters=CLUSTERS, included=INCLUDED | ~TAKEN),
        verify_typical,
        ("points",),
    ),
    "mutual_information": Case(
        lambda key, logits: kernels.mutual_information(key, lambda key: draw_probs(key, logits), num_draws=3),
        dict(logits=POINTS[:, :C]),
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
