"""Says, before a single label, what the latents promise: whether a chosen first batch can be expected to beat chance.

Distances are measured in a sample of the images that may be asked about, so that time and memory are linear in the
pool.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import pairwise_distances_argmin_min
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from latent_al.kernels import prob_cover

SAMPLED = 5_000
"""Rows among which distances are measured."""
CLUSTERED, COMPONENTS = 2_000, 128
"""Rows that are clustered, by their first principal components."""
FEWEST = 50
"""The number of rows below which nothing can be said."""
NUM_CLUSTERS = (1, 2, 3, 4, 5, 6, 8, 10, 14, 20, 28, 40)
"""Numbers of clusters that are tried, where each has `ROWS_A_CLUSTER` rows on average."""
ROWS_A_CLUSTER = 5
STARTS, ITERATIONS = 4, 20
"""Starts of k-means, of which the best counts, and its maximum number of iterations."""
NUM_NULLS = 3
"""Gaussian samples from which clusters have to stand out."""
NUM_RANDOM = 10
"""Random batches with which the chosen one is compared."""
SIZES = (10, 20, 50, 100, 200)
"""Picks at which the coverage is reported."""
STANDS_OUT = 0.1
"""The gap from which there are clusters: their inertia is lower than that of a Gaussian's by about this share."""
MISSED = 0.001
"""The share of the images in clusters that a random batch misses, from which it pays to choose."""
COVERS = 1.1
"""Images that the batch has to cover for each one that a random batch covers."""


class Clusters(NamedTuple):
    """Clusters compared with those of Gaussian samples of the same covariance.

    tried: numbers of clusters.
    gaps: by how much the logarithm of the inertia of as many clusters lies below its mean over the samples.
    num: the smallest number whose gap is within an error of the largest gap.
    shares: of the rows in each of these, the largest first.
    """

    tried: tuple[int, ...]
    gaps: Float[np.ndarray, " tried"]
    num: int
    shares: Float[np.ndarray, " num"]

    @property
    def lower(self) -> float:
        """Returns the largest share by which the inertia lies below that of as many clusters of a Gaussian."""
        return float(-np.expm1(-self.gaps.max()))

    @property
    def stand_out(self) -> bool:
        """Returns whether there are clusters at all."""
        return bool(self.gaps.max() >= STANDS_OUT)

    def missed(self, num_picks: int) -> float:
        """Returns the expected share of the rows that lie in clusters of which a random batch has no row."""
        return float((self.shares * (1 - self.shares) ** num_picks).sum())


class Reach(NamedTuple):
    """The share of the rows near to a batch, compared with random batches of the same size.

    num_neighbours: rows that each pick stands for.
    radius: the typical distance: half of the rows have `num_neighbours` others within it.
    of_batch: the share of the rows within the radius of a pick.
    at_random: its mean over random batches.
    """

    num_neighbours: int
    radius: float
    of_batch: float
    at_random: float

    @property
    def ratio(self) -> float:
        """Returns the rows that the batch covers over those that a random one covers; 1 where neither covers any."""
        return self.of_batch / self.at_random if self.at_random else 1.0


class Geometry(NamedTuple):
    """The geometry of the latents around a first batch, without a label.

    num_rows: of those that may be asked about.
    num_sampled: rows among which distances were measured.
    num_dims: coordinates of a latent.
    num_picks: of the first batch.
    dimension: intrinsic; NaN where it cannot be estimated.
    covered: for the `SIZES` that the sample has, the share of rows within the radius of one of as many picks, which
        are chosen greedily for this; none where the radius is 0.
    covered_at_random: the same for random picks.
    """

    num_rows: int
    num_sampled: int
    num_dims: int
    num_picks: int
    clusters: Clusters
    dimension: float
    reach: Reach
    covered: Float[np.ndarray, " sizes"]
    covered_at_random: Float[np.ndarray, " sizes"]


class Verdict(NamedTuple):
    """Whether the first batch can be expected to beat a random one, and why."""

    pays: bool
    why: str


def advise(latents: Float[np.ndarray, "n d"], picked: Float[np.ndarray, "m d"], *, num_near: int, seed: int) -> str:
    """Returns what the job prints before the first batch: the same text for the same seed.

    Args:
        latents: of the images that may be asked about.
        picked: of those that are asked about.
        num_near: near-duplicates among all images.
        seed: random seed of the samples.
    """
    if len(latents) < FEWEST or not len(picked):
        return f"Without labels, {len(latents)} images say nothing about a first batch: at least {FEWEST} are needed."
    return text(measure(latents, picked, seed), num_near)


def measure(latents: Float[np.ndarray, "n d"], picked: Float[np.ndarray, "m d"], seed: int) -> Geometry:
    """Measures the geometry of the latents that may be asked about, `FEWEST` or more, and of those picked from them.

    It takes O(n) time and memory: rows beyond a sample are only counted.
    """
    points = sample(latents, seed)
    reached = reach(points, picked, seed)
    sizes = np.array([size for size in SIZES if size < len(points) and reached.radius > 0], int)
    return Geometry(
        num_rows=len(latents),
        num_sampled=len(points),
        num_dims=latents.shape[1],
        num_picks=len(picked),
        clusters=cluster(points[:CLUSTERED], seed),
        dimension=intrinsic_dimension(points),
        reach=reached,
        covered=_covered(points, sizes, reached.radius),
        covered_at_random=np.array([_at_random(points, size, reached.radius, seed) for size in sizes]),
    )


def sample(latents: Float[np.ndarray, "n d"], seed: int) -> Float[np.ndarray, "s d"]:
    """Returns up to `SAMPLED` of the rows, in random order and float64."""
    rows = np.random.default_rng(seed).permutation(len(latents))[:SAMPLED]
    return latents[rows].astype(np.float64)


def reach(points: Float[np.ndarray, "s d"], picked: Float[np.ndarray, "m d"], seed: int) -> Reach:
    """Measures how many of the points lie near to a batch.

    Near is what each pick stands for: with s points and m picks, the median point's distance to its (s / m)-th nearest,
    or s / 10 at most. So random picks cover about 1 - 1 / e of the points, and no pool is too wide or too narrow.
    """
    num_neighbours = max(len(points) // max(len(picked), SIZES[0]), 1)
    radius = float(np.median(_neighbours(points, num_neighbours)[:, -1]))
    at_random = _at_random(points, len(picked), radius, seed)
    return Reach(num_neighbours, radius, _share_within(points, picked, radius), at_random)


def cluster(points: Float[np.ndarray, "n d"], seed: int) -> Clusters:
    """Compares k-means of the points with that of one Gaussian, by the gap statistic.

    The source draws its samples from a box. A Gaussian of the points' covariance is harder to stand out from: a single
    long or flat cloud has no clusters. The source stops at the first number that the next does not improve on, which is
    1 if many clusters are spread evenly; here it is the smallest within a standard error of the largest gap of all.

    Source: Tibshirani, Walther and Hastie (2001); the Gaussian is that of Liu, Hayes, Nobel and Marron (2008).
    """
    most = min(len(points) // ROWS_A_CLUSTER, len(np.unique(points, axis=0)))
    tried = tuple(num for num in NUM_CLUSTERS if num <= most)
    # If few rows of a pool differ, there may be none that does in the sample.
    if len(tried) == 1:
        return Clusters(tried, np.zeros(1), 1, np.ones(1))
    components = PCA(min(COMPONENTS, *points.shape), random_state=seed)
    rotated = components.fit_transform(points).astype(np.float32)
    rng = np.random.default_rng(seed)
    nulls = [rng.standard_normal(rotated.shape, np.float32) * rotated.std(axis=0) for _ in range(NUM_NULLS)]
    of_nulls = np.array([_log_inertias(_fits(null, tried, seed)) for null in nulls])
    fits = _fits(rotated, tried, seed)
    gaps = of_nulls.mean(axis=0) - _log_inertias(fits)
    errors = of_nulls.std(axis=0) * (1 + 1 / NUM_NULLS) ** 0.5
    best = gaps.argmax()
    place = int((gaps >= gaps[best] - errors[best]).argmax())
    shares = np.sort(np.bincount(fits[place].labels_) / len(points))[::-1]
    return Clusters(tried, gaps, tried[place], shares)


def intrinsic_dimension(points: Float[np.ndarray, "s d"]) -> float:
    """Returns the intrinsic dimension from the distances of points to their two nearest others; NaN for too few points.

    It is the maximum-likelihood estimate from the ratios of the two, which is too low where points are few for so many
    dimensions: about 40 for a Gaussian in 64.

    Source: Facco, d'Errico, Rodriguez and Laio (2017).
    """
    nearest, second = _neighbours(points, 2).T
    logs = np.log(second[nearest > 0] / nearest[nearest > 0])
    return float((len(logs) - 1) / logs.sum()) if len(logs) >= FEWEST // 2 and logs.any() else np.nan


def judge(clusters: Clusters, num_picks: int, ratio: float) -> Verdict:
    """Returns whether a chosen batch can be expected to beat a random one of as many picks.

    If there are no clusters, nothing that distances show needs to follow the classes. If a random batch has rows of all
    clusters, a chosen one has little left to gain. One that covers no more than a random one is only as good.

    Args:
        clusters: of the pool.
        num_picks: of the batch.
        ratio: how many times as many rows the batch covers as a random one.
    """
    if not clusters.stand_out:
        return Verdict(False, "no clusters stand out from one Gaussian cloud")
    name, missed = _number(clusters), clusters.missed(num_picks)
    if missed < MISSED:
        return Verdict(False, f"there are {name} clusters, and {num_picks} random images include some from nearly all")
    if ratio < COVERS:
        return Verdict(False, f"it covers {ratio:.2f} times as many images as a random one")
    share = f"{100 * missed:.1f} % of all images"
    why = f"there are {name} clusters, and {num_picks} random images miss those that hold {share}"
    return Verdict(True, f"{why}; these picks cover {ratio:.2f} times as many as random ones")


def text(geometry: Geometry, num_near: int) -> str:
    """Returns the geometry and the verdict in words; `num_near` is the number of near-duplicates."""
    clusters, covered, reached = geometry.clusters, geometry.covered, geometry.reach
    number = _number(clusters) if clusters.stand_out else "none"
    told = not np.isnan(geometry.dimension)
    dimension = f"about {geometry.dimension:.0f}" if told else "unknown, since too few latents differ"
    lines = [
        f"Without labels, {geometry.num_sampled:,} of the {geometry.num_rows:,} images that may be asked about show:",
        f"  clusters     {number}: {_lower(clusters)}",
        f"  dimension    {dimension}, of {geometry.num_dims} coordinates",
        f"  duplicates   {num_near:,} near-duplicates",
    ]
    if len(covered):
        rows = {"picks": SIZES[: len(covered)]}
        rows |= {"best": _percent(covered), "random": _percent(geometry.covered_at_random)}
        near = f"{reached.num_neighbours} others that close"
        lines.append(f"  coverage     of images within {reached.radius:.3g} of a pick; half of the images have {near}")
        lines += [f"    {name:8}" + "".join(f"{cell:>7}" for cell in cells) for name, cells in rows.items()]
    of_batch, at_random = _percent([reached.of_batch, reached.at_random])
    lines.append(f"  first batch  {geometry.num_picks} picks cover {of_batch}; as many random ones cover {at_random}")
    verdict = judge(clusters, geometry.num_picks, reached.ratio)
    can = "can" if verdict.pays else "cannot"
    return "\n".join([*lines, f"The first batch {can} be expected to beat a random one: {verdict.why}."])


def _number(clusters):
    # No larger number was tried that could have been worse.
    is_last = clusters.num == clusters.tried[-1]
    return f"more than {clusters.tried[-2]}" if is_last else f"about {clusters.num}"


def _lower(clusters):
    return f"k-means leaves {100 * max(clusters.lower, 0):.0f} % less spread than in one Gaussian cloud"


def _percent(shares):
    return [f"{100 * share:.0f} %" for share in shares]


def _fits(points, tried, seed):
    # Not the kernel, which would be recompiled for the shape of each pool.
    models = [KMeans(num, n_init=STARTS, max_iter=ITERATIONS, random_state=seed) for num in tried]
    # Threads add in any order: with one, the same seed gives the same clusters, and so few rows take no longer.
    with threadpool_limits(1):
        return [model.fit(points) for model in models]


def _log_inertias(fits):
    inertias = np.array([fit.inertia_ for fit in fits])
    # With as many clusters as different rows there is no inertia.
    return np.log(np.maximum(inertias, 1e-9 * inertias[0]))


def _covered(points, sizes, radius):
    """Returns the shares that greedy picks cover."""
    if not len(sizes):
        return np.zeros(0)
    points = jnp.asarray(points, jnp.float32)
    gains = np.asarray(prob_cover(points, jnp.zeros(len(points), bool), int(sizes[-1]), radius=radius).gains)
    return gains.cumsum(dtype=np.float64)[sizes - 1]


def _neighbours(points, num):
    return NearestNeighbors(n_neighbors=num).fit(points).kneighbors()[0]


def _at_random(points, num, radius, seed):
    rng = np.random.default_rng(seed)
    batches = [points[rng.permutation(len(points))[:num]] for _ in range(NUM_RANDOM)]
    return float(np.mean([_share_within(points, batch, radius) for batch in batches]))


def _share_within(points, picked, radius):
    return float((pairwise_distances_argmin_min(points, picked)[1] < radius).mean())
