"""Slow references in float64 NumPy, with which the results of kernels are compared."""

import jax
import jax.numpy as jnp
import numpy as np

N, D, C, K, NUM = 24, 4, 6, 3, 5
"""Rows, dimensions, classes, clusters and rows asked for: eight devices divide the rows, two the dimensions."""


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


def verify_drawn(rows, key, taken, log_weights):
    """The rows of the largest sums of a logarithm of the weight and the Gumbel noise of the key."""
    noise = np.asarray(jax.random.gumbel(key, (N,), jnp.zeros(0).dtype), float)
    verify_top_k(rows, scores=log_weights + noise, taken=taken)


def verify_cluster_margin(rows, *, scores, taken, clusters):
    """Of 8 candidates the clusters take turns, those of the fewest first; each turn is of a random candidate."""
    order = [row for row in np.argsort(-scores.astype(float), kind="stable") if not taken[row]][:8]
    left = {cluster: [row for row in order if clusters[row] == cluster] for cluster in range(K)}
    turns = sorted((cluster for cluster in left if left[cluster]), key=lambda cluster: (len(left[cluster]), cluster))
    expected = [cluster for turn in range(8) for cluster in turns if len(left[cluster]) > turn][:NUM]
    verify_open(rows, taken)
    assert set(np.asarray(rows).tolist()) <= set(order)
    equal(clusters[np.asarray(rows)], expected)


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


def entropy_terms(probs):
    return -probs * np.log(np.where(probs > 0, probs, 1))


def reference_entropy(probs):
    return entropy_terms(probs).sum(axis=1) / np.log(probs.shape[1])


def verify_information(values, *, logits, key):
    draws = [np.asarray(draw_probs(key, logits), float) for key in jax.random.split(key, 3)]
    close(values, reference_entropy(np.mean(draws, axis=0)) - np.mean([reference_entropy(p) for p in draws], axis=0))


def draw_probs(key, logits):
    """Returns the class probabilities of a model about the logits."""
    logits = jnp.asarray(logits, float)
    return jax.nn.softmax(logits + jax.random.normal(key, logits.shape, logits.dtype))


def verify_batch_bald(rows, *, probs, taken, key):
    """Each row has, but for a rounding, the largest gain; of 1, 6 and 36 joint classes all, and then 36 samples."""
    probs = probs.astype(float)
    every, sampled, draws = np.ones((1, 3)), np.ones((36, 3)), np.arange(36) % 3
    is_open, entropies = ~taken, entropy_terms(probs).sum(axis=2).mean(axis=0)
    for step, key_row in enumerate(jax.random.split(key, NUM)):
        states, row = (every if step < 3 else sampled), rows[step]
        weights = states.mean(axis=1) if step < 3 else np.full(36, 1 / 36)
        posterior = states / np.maximum(states.sum(axis=1, keepdims=True), 1e-300)
        given_states = np.einsum("sk,knc->snc", posterior, probs)
        gains = np.einsum("s,snc->n", weights, entropy_terms(given_states)) - entropies
        assert is_open[row]
        np.testing.assert_allclose(gains[row], gains[is_open].max(), atol=1e-6)
        is_open[row] = False
        logits = jnp.log(jnp.maximum(jnp.asarray(probs[:, row]), 1e-37))
        classes = np.asarray(jax.random.categorical(key_row, logits[draws], axis=1))
        every = (every[:, None, :] * probs[:, row].T).reshape(-1, 3)
        sampled = sampled * probs[:, row, classes].T


def reference_epig(probs, target_probs):
    joint = np.einsum("knc,kmd->nmcd", probs, target_probs) / len(probs)
    product = probs.mean(axis=0)[:, None, :, None] * target_probs.mean(axis=0)[None, :, None, :]
    ratio = np.where(joint > 0, joint, 1) / np.where(joint > 0, product, 1)
    return (joint * np.log(ratio)).sum(axis=(2, 3)).mean(axis=1) / np.log(probs.shape[2])


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


def verify_bait(rows, *, probs, features, taken, labelled, l2):
    """Each row lowers the trace of M^-1 F by as much as any, but for a rounding."""
    probs, features = probs.astype(float), features.astype(float)
    spread = np.eye(C) * probs[:, None] - probs[:, :, None] * (probs / probs.sum(axis=1, keepdims=True))[:, None]
    information = np.einsum("ncd,nf,ng->ncfdg", spread, features, features).reshape(N, C * D, C * D)
    matrix = float(l2) * np.eye(C * D) + information[labelled].sum(axis=0)
    verify_open(rows, taken)
    is_open = ~taken
    for row in rows:
        after = np.linalg.inv(matrix + information)
        traces = np.einsum("nij,ij->n", after, information.mean(axis=0))
        np.testing.assert_allclose(traces[row], traces[is_open].min(), rtol=1e-5)
        is_open[row] = False
        matrix += information[row]


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


def verify_matches(matches, *, taken, clusters, **rest):
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


def unit_gaps(points):
    units = points.astype(float) / np.sqrt((points.astype(float) ** 2).sum(axis=1, keepdims=True))
    return gaps(units, units)


def verify_coverage(result, similarity, *, taken, labelled, weights=None, num=NUM):
    """Each row has, but for a rounding, the largest gain in coverage; the gains are those of the rows."""
    weights = np.ones(len(taken)) if weights is None else weights.astype(float)
    covered = similarity[:, labelled].max(axis=1, initial=0)
    is_open = ~taken
    assert result.rows.shape == result.gains.shape == (num,)
    for row, gain in zip(result.rows, result.gains, strict=True):
        gains = (weights[:, None] * np.maximum(similarity - covered[:, None], 0)).mean(axis=0)
        assert is_open[row]
        np.testing.assert_allclose(gains[row], gains[is_open].max(), rtol=1e-5, atol=1e-9)
        np.testing.assert_allclose(gain, gains[row], rtol=1e-4, atol=1e-7)
        is_open[row] = False
        covered = np.maximum(covered, similarity[:, row])


def verify_herding(result, *, points, taken, sigma, labelled, weights):
    similarity = np.exp(-gaps(points, points) / float(sigma) ** 2)
    verify_coverage(result, similarity, taken=taken, labelled=labelled, weights=weights)


def verify_prob_cover(result, *, points, taken, radius, labelled):
    similarity = (gaps(points, points) < float(radius) ** 2).astype(float)
    verify_coverage(result, similarity, taken=taken, labelled=labelled)


def verify_facilities(result, *, points, taken, labelled, weights):
    similarity = np.maximum(1 - unit_gaps(points) / 2, 0)
    verify_coverage(result, similarity, taken=taken, labelled=labelled, weights=weights)


def purity(points, clusters, share):
    """Returns the largest distance to a row of another cluster at which a share of the balls is pure."""
    radii = np.where(clusters[:, None] != clusters, gaps(points, points), np.inf).min(axis=1)
    return np.sqrt(max(radius for radius in radii if (radii >= radius).mean() >= share))


def verify_with(reference):
    """Returns a `verify` that compares with a function of the arrays in float64."""

    def verify(values, **arrays):
        close(values, reference(**{name: np.asarray(array, float) for name, array in arrays.items()}))

    return verify
