"""Each kernel called as it is beside the same kernel in a caller's `jit`, at 1,000 x 32, in one process.

Prints the medians, their ratio, and what the call outside costs: its checks and its dispatch.

    python benchmarks/eager.py
"""

import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from latent_al import kernels
from latent_al.kernels import distances, sampling

ROWS, WIDTH, CLASSES, NUM, REPEATS = 1000, 32, 10, 10, 50


def make_calls():
    """Returns, by name, the kernels as functions of arrays, and these."""
    rng = np.random.default_rng(0)
    key = jax.random.key(0)
    points = jnp.asarray(rng.normal(size=(ROWS, WIDTH)), jnp.float32)
    log_sigma = 0.3 * points[::-1]
    probs = jnp.asarray(rng.dirichlet(np.ones(CLASSES), ROWS), jnp.float32)
    scores = points[:, 0]
    taken = jnp.zeros(ROWS, bool)
    labels = jnp.asarray(rng.integers(-1, CLASSES, ROWS))
    clusters = jnp.arange(ROWS) % 5
    some = points[:50]
    scalar = jnp.float32(0.1)
    distribution = sampling.normal(points, clusters=clusters, num_clusters=5)
    perplexity = jnp.float32(30)
    joint = kernels.joint_probabilities(points, perplexity=perplexity)

    def by_closure(scores, points, taken, weight):
        return kernels.greedy_diverse(
            scores, points, taken, NUM, distance=lambda x, y: abs(x - y[None]).sum(axis=1), weight=weight
        )

    def by_function(scores, points, taken, weight):
        distance = distances.euclidean_to_point
        return kernels.greedy_diverse(scores, points, taken, NUM, distance=distance, weight=weight)

    def information(key, probs):
        def predict(key):
            return jax.nn.softmax(probs + jax.random.normal(key, probs.shape))

        return kernels.mutual_information(key, predict, num_draws=8)

    def match(key, points, taken, clusters, distribution, threshold):
        settings = dict(clusters=clusters, distribution=distribution, threshold=threshold, all_within=False)
        return kernels.draw_and_match(key, points, taken, NUM, **settings).rows

    def importance(probs, features, labelled_sum, l2):
        return kernels.importance(probs, features, labelled_sum=labelled_sum, num_labelled=50, l2=l2)

    def typical(points, taken, clusters):
        settings = dict(clusters=clusters, included=~taken, num_clusters=5, num_neighbours=20)
        return kernels.most_typical(points, taken, NUM, **settings)

    return {
        "top_k": (partial(kernels.top_k, num=NUM), (scores, taken)),
        "random_partitions": (partial(kernels.random_partitions, num=NUM), (key, scores, taken)),
        "greedy_diverse": (by_function, (scores, points, taken, scalar)),
        "greedy_diverse, a closure": (by_closure, (scores, points, taken, scalar)),
        "nearest_to": (
            lambda points, taken, targets: kernels.nearest_to(points, taken, targets=targets),
            (points, taken, some),
        ),
        "subsample": (partial(kernels.subsample, fraction=0.1), (key, taken)),
        "least_confident": (kernels.least_confident, (probs,)),
        "margin": (kernels.margin, (probs,)),
        "entropy": (kernels.entropy, (probs,)),
        "mutual_information, a closure": (information, (key, probs)),
        "cosine_density": (kernels.cosine_density, (points,)),
        "squared_euclidean_density": (kernels.squared_euclidean_density, (points,)),
        "euclidean_density": (kernels.euclidean_density, (points,)),
        "euclidean_density_estimate": (partial(kernels.euclidean_density_estimate, fraction=0.1), (key, points)),
        "jeffreys_density": (kernels.jeffreys_density, (points, log_sigma)),
        "kl_to_prior": (kernels.kl_to_prior, (points, log_sigma)),
        "closeness_to_origin": (kernels.closeness_to_origin, (points,)),
        "squared_closeness_to_origin": (kernels.squared_closeness_to_origin, (points,)),
        "farthest_first": (partial(kernels.farthest_first, num=NUM), (points, taken)),
        "cover": (partial(kernels.cover, num=NUM), (points, taken)),
        "kmeans": (partial(kernels.kmeans, num_clusters=NUM), (key, points)),
        "kmeans_plus_plus": (partial(kernels.kmeans_plus_plus, num=NUM), (key, points)),
        "lloyd": (partial(kernels.lloyd, iterations=10), (points, some)),
        "nearest": (kernels.nearest, (points, some, taken[:50] | True)),
        "squared_distances": (kernels.squared_distances, (points, some)),
        "kl_divergences": (kernels.kl_divergences, (points, log_sigma, some, log_sigma[:50])),
        "jeffreys_divergences": (kernels.jeffreys_divergences, (points, log_sigma, some, log_sigma[:50])),
        "badge": (partial(kernels.badge, num=NUM), (key, probs, points, taken)),
        "representer_alphas": (
            lambda probs, labels, l2: kernels.representer_alphas(probs, labels, l2=l2),
            (probs, labels, scalar),
        ),
        "representer_values": (kernels.representer_values, (probs, points, points[0])),
        "explain": (partial(kernels.explain, num=NUM), (scores, labels)),
        "importance": (importance, (probs, points, points[0], scalar)),
        "ibal": (
            lambda probs, features, total: kernels.ibal(probs, features, labelled_sum=total),
            (probs, points, points[0]),
        ),
        "largest_remainder": (partial(kernels.largest_remainder, num=100), (jnp.arange(1, 1 + ROWS),)),
        "draw_and_match": (match, (key, points, taken, clusters, distribution, jnp.float32(5))),
        "joint_probabilities": (
            lambda points, perplexity: kernels.joint_probabilities(points, perplexity=perplexity),
            (points, perplexity),
        ),
        "conditional_probabilities": (
            lambda sq_distances, perplexity: kernels.conditional_probabilities(sq_distances, perplexity=perplexity),
            (kernels.squared_distances(points, points), perplexity),
        ),
        "student_t": (kernels.student_t, (points,)),
        "tsne_divergence": (kernels.tsne_divergence, (joint, points)),
        "most_typical": (typical, (points, taken, clusters)),
        "typicality": (
            lambda points, clusters, included: kernels.typicality(
                points, clusters=clusters, included=included, num_neighbours=20
            ),
            (points, clusters, ~taken),
        ),
    }


def median_seconds(function, arrays):
    """Returns the median time of a call after the second, for at most two seconds."""
    for _ in range(2):
        jax.block_until_ready(function(*arrays))
    seconds = []
    while len(seconds) < REPEATS and sum(seconds) < 2:
        start = time.perf_counter()
        jax.block_until_ready(function(*arrays))
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def main():
    """Prints a line for each kernel."""
    for name, (function, arrays) in make_calls().items():
        compiled, eager = median_seconds(jax.jit(function), arrays), median_seconds(function, arrays)
        print(
            f"{name:30} {1e6 * compiled:8.0f} us in jit {1e6 * eager:8.0f} us outside, {eager / compiled:5.1f} times, "
            f"{1e6 * (eager - compiled):+8.0f} us",
            flush=True,
        )


if __name__ == "__main__":
    main()
