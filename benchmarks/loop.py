"""Ten rounds of the loop of Tonnaer (2017) beside a plain PyTorch loop and scikit-activeml, in one process.

    make bench

A pool of 55,000 x 30 Gaussian latents in 10 classes, MLP 512-512 with dropout 0.2, 20 epochs, batches of 100, margin
over the whole pool. Seconds are medians of `--repeats` runs after one that compiles; one seed, ten seeds and the matrix
product take turns, and the peers come after them, since their threads go on spinning.
"""

import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from latent_al.loop import init, make_problem, step
from latent_al.models.classifiers import mlp
from latent_al.runtime.mesh import over_seeds
from latent_al.strategies import STRATEGIES
from latent_al.types import INIT_AXES, ROUND_AXES, STATE_AXES, Encoded

REPEATS = flags.DEFINE_integer("repeats", 3, "Timed runs of each contender.")
PEERS = flags.DEFINE_bool("peers", True, "Run PyTorch and scikit-activeml too.")

POOL, WIDTH, CLASSES, HIDDEN, EPOCHS, BATCH, ROUNDS = 55_000, 30, 10, 512, 20, 100, 10
MULTIPLY_ADDS = WIDTH * HIDDEN + HIDDEN * HIDDEN + HIDDEN * CLASSES


def make_pool():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CLASSES, WIDTH)).astype(np.float32)
    labels = rng.integers(0, CLASSES, POOL)
    return centres[labels] + rng.normal(size=(POOL, WIDTH)).astype(np.float32), labels


def make_ours(points, labels, num_seeds):
    """Returns a function that plays all rounds of all seeds, as the experiment runner does."""
    learner = mlp(
        hidden=(HIDDEN, HIDDEN), dropout=0.2, learning_rate=1e-3, epochs=EPOCHS, batch_size=BATCH, num_classes=CLASSES
    )
    margin = STRATEGIES["uncertainty"](measure="margin", pick="top_k")
    random = STRATEGIES["random"]()
    encoded = Encoded(jnp.asarray(points))
    problem = make_problem(encoded, jnp.asarray(labels), strategy=margin, initial=random)
    settings = dict(learner=learner, strategy=margin)

    def start(key, setting, problem):
        return init(key, problem, initial=random, num_initial=BATCH, capacity=BATCH * (ROUNDS + 1), **settings)

    def play_round(key, setting, state, problem):
        return step(key, state, problem, query_size=BATCH, **settings)

    run_init = over_seeds(start, INIT_AXES, STATE_AXES)
    run_step = over_seeds(play_round, ROUND_AXES, (STATE_AXES, 0))

    def play():
        keys = jax.random.split(jax.random.key(0), num_seeds)
        state = run_init(keys, {}, problem)
        for index in range(ROUNDS):
            state, info = run_step(jax.vmap(jax.random.fold_in)(keys, jnp.full(num_seeds, index)), {}, state, problem)
        return jax.block_until_ready((state, info))

    return play


def make_torch(points, labels):
    import torch
    from torch import nn

    pool, targets = torch.from_numpy(points), torch.from_numpy(labels)

    def play():
        torch.manual_seed(0)
        queried = torch.randperm(POOL)[:BATCH]
        for _ in range(ROUNDS):
            model = nn.Sequential(
                *(nn.Linear(WIDTH, HIDDEN), nn.ReLU(), nn.Dropout(0.2)),
                *(nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Dropout(0.2)),
                nn.Linear(HIDDEN, CLASSES),
            )
            optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3, alpha=0.9, eps=1e-7)
            for _ in range(EPOCHS):
                for rows in queried[torch.randperm(len(queried))].split(BATCH):
                    optimizer.zero_grad()
                    nn.functional.cross_entropy(model(pool[rows]), targets[rows]).backward()
                    optimizer.step()
            model.eval()
            with torch.no_grad():
                best = model(pool).softmax(1).topk(2, dim=1).values
            score = 1 - (best[:, 0] - best[:, 1])
            score[queried] = -torch.inf
            queried = torch.cat([queried, score.topk(BATCH).indices])

    return play


def make_skactiveml(points, labels):
    from skactiveml.classifier import SklearnClassifier
    from skactiveml.pool import UncertaintySampling
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier
    from sklearn.utils._testing import ignore_warnings

    @ignore_warnings(category=ConvergenceWarning)
    def play():
        seen = np.full(POOL, np.nan)
        first = np.random.default_rng(0).permutation(POOL)[:BATCH]
        seen[first] = labels[first]
        query = UncertaintySampling(method="margin_sampling", random_state=0)
        for _ in range(ROUNDS):
            network = MLPClassifier((HIDDEN, HIDDEN), batch_size=BATCH, max_iter=EPOCHS, n_iter_no_change=EPOCHS)
            classifier = SklearnClassifier(network, classes=range(CLASSES), random_state=0)
            rows = query.query(points, seen, classifier, batch_size=BATCH)
            seen[rows] = labels[rows]

    return play


def seconds(repeats, *plays):
    """Returns the median time of each play; they take turns, so that a slow spell falls on all of them."""
    taken = [[] for _ in plays]
    for index in range(repeats + 1):
        for play, times in zip(plays, taken, strict=True):
            began = time.perf_counter()
            play()
            if index:
                times.append(time.perf_counter() - began)
    return [statistics.median(times) for times in taken]


def make_matrix_product():
    square = jax.random.normal(jax.random.key(0), (2048, 2048))
    product = jax.jit(lambda a: a @ a)

    def play():
        for _ in range(5):
            jax.block_until_ready(product(square))

    return play


def main(_):
    points, labels = make_pool()
    steps = EPOCHS * ROUNDS * (ROUNDS + 1) // 2
    # Forward, and backward to the weights and to each layer's input but the first.
    training = steps * BATCH * (3 * MULTIPLY_ADDS - WIDTH * HIDDEN)
    arithmetic = training + ROUNDS * POOL * MULTIPLY_ADDS
    ours = [make_ours(points, labels, num_seeds) for num_seeds in (1, 10)]
    products, one, ten = seconds(REPEATS.value, make_matrix_product(), *ours)
    share = arithmetic / (5 * 2048**3) * products
    print(f"matrix product            {10 * 2048**3 / products / 1e9:8.0f} GFLOP/s")
    print(f"latent_al, one seed       {one:8.2f} s   {share / one:.0%} of the matrix product")
    print(f"latent_al, ten seeds      {ten:8.2f} s   {10 * share / ten:.0%} of it, {ten / one:.2f} x one seed")
    if PEERS.value:
        for name, make in (("PyTorch", make_torch), ("scikit-activeml", make_skactiveml)):
            [peer] = seconds(REPEATS.value, make(points, labels))
            print(f"{name + ', one seed':25} {peer:8.2f} s   {peer / one:.2f} x latent_al")


if __name__ == "__main__":
    app.run(main)
