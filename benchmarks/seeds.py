"""Ten seeds beside one on a CPU, side by side on one device and on a device for each core, in one process.

    python benchmarks/seeds.py [--repeats=3]

Margin rounds on Gaussian latents in 10 classes, by a perceptron of the sizes in JOBS: those of configs/digits_vae.py,
configs/synthetic_ibal.py and configs/mnist_vae.py. Seconds are medians after a run that compiles; all three take turns.
The share of the peak compares multiply-adds a second of the rounds with those of a product of 2,048 x 2,048 matrices.
`farthest_first` are 1,000 farthest points of 55,000 x 30, from one row and from ten rows.
"""

import argparse
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from timing import seconds

from latent_al.kernels import farthest_first
from latent_al.loop import init, make_problem, step
from latent_al.models.classifiers import mlp
from latent_al.runtime.mesh import make_mesh, over_seeds, place, split_cpu
from latent_al.strategies import STRATEGIES
from latent_al.types import INIT_AXES, ROUND_AXES, STATE_AXES, Encoded

CLASSES, SIDE = 10, 2048


class Job(NamedTuple):
    """The sizes of a pool, of its rounds and of the perceptron."""

    pool: int
    width: int
    rounds: int
    query_size: int
    hidden: tuple[int, ...]
    epochs: int
    batch_size: int

    @property
    def multiply_adds(self):
        """Returns those of all rounds: to predict the pool, and three times as many a row to train on it."""
        widths = (self.width, *self.hidden, CLASSES)
        labelled = sum(self.query_size * (index + 1) for index in range(self.rounds))
        rows = 3 * labelled * self.epochs + self.rounds * self.pool
        return rows * sum(a * b for a, b in itertools.pairwise(widths))


JOBS = dict(
    digits=Job(1_297, 10, 19, 10, (128, 128), 100, 10),
    synthetic_ibal=Job(2_000, 2, 20, 5, (32,), 100, 20),
    mnist=Job(55_000, 30, 10, 100, (512, 512), 20, 100),
)


def make(job, num_seeds, mesh):
    """Returns a function that plays all rounds of all seeds, as the experiment runner does."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, job.pool)
    latents = rng.normal(size=(CLASSES, job.width))[labels] + rng.normal(size=(job.pool, job.width))
    strategy, random = STRATEGIES["uncertainty"](measure="margin", pick="top_k"), STRATEGIES["random"]()
    encoded = Encoded(jnp.float32(latents))
    problem = place(make_problem(encoded, jnp.int32(labels), strategy=strategy, initial=random), mesh)
    settings = dict(hidden=job.hidden, epochs=job.epochs, batch_size=job.batch_size)
    learner = mlp(num_classes=CLASSES, dropout=0.2, learning_rate=1e-3, **settings)
    capacity = job.query_size * (job.rounds + 1)

    def start(key, problem):
        both = dict(strategy=strategy, initial=random)
        return init(key, problem, learner=learner, num_initial=job.query_size, capacity=capacity, **both)

    def play_round(key, state, problem):
        return step(key, state, problem, learner=learner, strategy=strategy, query_size=job.query_size)

    axes = INIT_AXES[0], INIT_AXES[2]
    run_init = over_seeds(start, axes, STATE_AXES, mesh=mesh)
    run_step = over_seeds(play_round, (ROUND_AXES[0], *ROUND_AXES[2:]), (STATE_AXES, 0), mesh=mesh)

    def play():
        keys = jax.random.split(jax.random.key(0), num_seeds)
        state = run_init(keys, problem)
        for index in range(job.rounds):
            state, info = run_step(jax.vmap(jax.random.fold_in)(keys, jnp.full(num_seeds, index)), state, problem)
        return jax.block_until_ready((state, info))

    return play


def make_starts(num, mesh):
    """Returns a function that selects farthest points from each of `num` rows."""
    points = place(jax.random.normal(jax.random.key(0), (55_000, 30)), mesh)
    taken = jnp.zeros(len(points), bool)
    select = over_seeds(lambda first, points: farthest_first(points, taken, 1000, first=first), (0, None), mesh=mesh)
    return lambda: select(jnp.arange(num), points).block_until_ready()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    split_cpu()
    mesh = make_mesh(None, [list(range(10))])
    matrix = jnp.ones((SIDE, SIDE))
    product = jax.jit(jnp.matmul)
    print(f"{jax.device_count()} devices, of which ten seeds take {1 if mesh is None else mesh.size}")
    for name, job in JOBS.items():
        plays = [make(job, num_seeds, where) for num_seeds, where in ((1, None), (10, None), (10, mesh))]
        one, ten, spread, peak = seconds(repeats, *plays, lambda: product(matrix, matrix).block_until_ready())
        share = job.multiply_adds * 10 / spread / (SIDE**3 / peak)
        told = f"ten on one device {ten:.2f} s, {ten / one:.1f} times; on all {spread:.2f} s, {spread / one:.1f} times"
        print(f"{name:15} one seed {one:.2f} s; {told}, {share:.0%} of the peak", flush=True)
    one, ten, spread = seconds(repeats, make_starts(1, None), make_starts(10, None), make_starts(10, mesh))
    print(f"farthest_first one {one:.3f} s; ten on one device {ten / one:.1f} times; on all {spread / one:.1f} times")


if __name__ == "__main__":
    main()
