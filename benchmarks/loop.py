"""Ten rounds of the loop of Tonnaer (2017) beside a plain PyTorch loop and scikit-activeml, in one process.

    make bench

A pool of 55,000 x 30 Gaussian latents in 10 classes, MLP 512-512 with dropout 0.2, 20 epochs, batches of 100, margin
over the whole pool. Seconds are medians of `--repeats` runs after one that compiles; one seed, ten seeds and the matrix
product take turns, and the peers come after them, since their threads go on spinning.
"""

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from timing import seconds

from latent_al.loop import init, make_problem, step
from latent_al.models.classifiers import mlp
from latent_al.runtime.mesh import over_seeds
from latent_al.strategies import STRATEGIES
from latent_al.types import INIT_AXES, ROUND_AXES, STATE_AXES, Encoded

REPEATS = flags.DEFINE_integer("repeats", 3, "Timed runs of each contender.")
PEERS = flags.DEFINE_bool("peers", True, "Run PyTorch and scikit-activeml too.")

POOL, WIDTH, CLASSES, HIDDEN, EPOCHS, BATCH, ROUNDS = 55_000, 30, 10, 512, 20, 100, 10
MULTIPLY_ADDS = WIDTH * HIDDEN + HIDDEN * HIDDEN + HIDDEN * CLASSES


def make_pool(size=POOL):
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CLASSES, WIDTH)).astype(np.float32)
    labels = rng.integers(0, CLASSES, size)
    return centres[labels] + rng.normal(size=(size, WIDTH)).astype(np.float32), labels


def make_learner(dropout=0.2):
    settings = dict(learning_rate=1e-3, epochs=EPOCHS, batch_size=BATCH, num_classes=CLASSES)
    return mlp(hidden=(HIDDEN, HIDDEN), dropout=dropout, **settings)


def make_ours(points, labels, num_seeds, *, strategy=None, num_rounds=ROUNDS, setting=None):
    """Returns a function that plays all rounds of all seeds, as the experiment runner does.

    Args:
        points: the latents.
        labels: their classes.
        num_seeds: side by side.
        strategy: of the rounds; margin over the whole pool by default.
        num_rounds: to play.
        setting: of the learner, a value for each seed, as in a sweep.
    """
    strategy = strategy or STRATEGIES["uncertainty"](measure="margin", pick="top_k")
    random, setting = STRATEGIES["random"](), setting or {}
    problem = make_problem(Encoded(jnp.asarray(points)), jnp.asarray(labels), strategy=strategy, initial=random)

    def start(key, setting, problem):
        settings = dict(learner=make_learner(**setting), strategy=strategy, initial=random)
        return init(key, problem, num_initial=BATCH, capacity=BATCH * (num_rounds + 1), **settings)

    def play_round(key, setting, state, problem):
        return step(key, state, problem, query_size=BATCH, learner=make_learner(**setting), strategy=strategy)

    run_init = over_seeds(start, INIT_AXES, STATE_AXES)
    run_step = over_seeds(play_round, ROUND_AXES, (STATE_AXES, 0))

    def play():
        keys = jax.random.split(jax.random.key(0), num_seeds)
        state = run_init(keys, setting, problem)
        for index in range(num_rounds):
            keys_round = jax.vmap(jax.random.fold_in)(keys, jnp.full(num_seeds, index))
            state, info = run_step(keys_round, setting, state, problem)
        return jax.block_until_ready((state, info))

    return play


def make_torch(points, labels, *, pick=None, num_rounds=ROUNDS, device="cpu"):
    """Returns a function that plays all rounds of one seed.

    Args:
        points: the latents.
        labels: their classes.
        pick: (model, pool, queried) -> the rows queried next; those of least margin by default.
        num_rounds: to play.
        device: of PyTorch.
    """
    import torch
    from torch import nn

    pool, targets = torch.from_numpy(points).to(device), torch.from_numpy(labels).to(device)
    pick = pick or pick_margin

    def play():
        torch.manual_seed(0)
        queried = torch.randperm(len(pool), device=device)[:BATCH]
        for _ in range(num_rounds):
            model = nn.Sequential(
                *(nn.Linear(WIDTH, HIDDEN), nn.ReLU(), nn.Dropout(0.2)),
                *(nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Dropout(0.2)),
                nn.Linear(HIDDEN, CLASSES),
            ).to(device)
            optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3, alpha=0.9, eps=1e-7)
            for _ in range(EPOCHS):
                for rows in queried[torch.randperm(len(queried), device=device)].split(BATCH):
                    optimizer.zero_grad()
                    nn.functional.cross_entropy(model(pool[rows]), targets[rows]).backward()
                    optimizer.step()
            model.eval()
            with torch.no_grad():
                queried = torch.cat([queried, pick(model, pool, queried)])
        return queried.cpu()

    return play


def pick_margin(model, pool, queried):
    """Returns the rows of the pool of which the model of PyTorch is least sure."""
    score = uncertainty(model, pool)
    score[queried] = -np.inf
    return score.topk(BATCH).indices


def uncertainty(model, rows):
    """Returns 1 minus the margin of each row by the model of PyTorch."""
    best = model(rows).softmax(1).topk(2, dim=1).values
    return 1 - (best[:, 0] - best[:, 1])


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
