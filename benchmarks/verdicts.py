"""How often the labelling job's verdicts are wrong: estimates of simulated projects, beside what is true of them.

    python benchmarks/verdicts.py [--projects=200] [--comparisons=100]

Each project has Gaussian classes that overlap, some of them rare, an audit slice of 100 to 400 images, and a logistic
regression that is trained anew in each of up to 12 rounds on random or on uncertain images. True is what holds for
10,000 further images. `--comparisons` projects compare chosen labels with random ones, by the job's own classifier.
Plateaus hold accuracy just below the target in every round, the worst case of a rule to stop.
"""

import argparse
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from latent_al.labelling import audit, budget, estimates, selection, stratified
from latent_al.models.classifiers import mlp

TARGETS = (0.7, 0.8, 0.9)


class World(NamedTuple):
    """Classes with a mean each, and how common they are."""

    means: np.ndarray
    shares: np.ndarray

    def draw(self, rng, num):
        labels = rng.choice(len(self.shares), num, p=self.shares)
        points = self.means[labels] + rng.normal(size=(num, self.means.shape[1]))
        return points.astype(np.float32), labels

    def posterior(self, points):
        squares = ((points[:, None] - self.means) ** 2).sum(axis=2)
        return softmax(np.log(self.shares) - squares / 2, axis=1)


def make_world(rng):
    """Returns classes that overlap, some of them rare; the more dimensions, the more labels they take."""
    num_classes, dim = rng.integers(2, 8), rng.integers(2, 48)
    means = rng.normal(size=(num_classes, dim)) * rng.uniform(1.0, 4.0) / np.sqrt(dim)
    return World(means, rng.dirichlet(np.full(num_classes, rng.choice([1.0, 10.0]))))


def make_rare_world(rng):
    """Returns two to five classes, of which the first is one image in twenty to a hundred."""
    num_classes, dim = rng.integers(2, 6), rng.integers(2, 30)
    means = rng.normal(size=(num_classes, dim)) * rng.uniform(2.0, 5.0) / np.sqrt(dim)
    share = rng.uniform(0.01, 0.05)
    return World(means, np.append(share, (1 - share) * rng.dirichlet(np.full(num_classes - 1, 10.0))))


def fit_logistic(inputs, labels, world):
    """Returns a logistic regression as a function of points to the probabilities of all classes of the world."""
    classifier = LogisticRegression(C=3.0, max_iter=200).fit(inputs, labels)

    def probs(points):
        full = np.zeros((len(points), len(world.shares)))
        full[:, classifier.classes_] = classifier.predict_proba(points)
        return full

    return probs


class Points(NamedTuple):
    points: np.ndarray
    labels: np.ndarray


class Round(NamedTuple):
    """The classifier of a round: its labels, and its probabilities of the slice and of the further images."""

    num_labels: int
    slice: np.ndarray
    further: np.ndarray


class Project(NamedTuple):
    rounds: list[Round]
    slice_labels: np.ndarray
    further_labels: np.ndarray
    posterior: np.ndarray
    query_size: int

    @property
    def num_classes(self):
        return self.posterior.shape[1]

    def accuracy(self, index):
        return (self.rounds[index].further.argmax(axis=1) == self.further_labels).mean()


def play(rng):
    """Returns a project, with one round more than it is judged by: the truth about the next batch."""
    world = make_world(rng)
    inputs, labels = world.draw(rng, 3000)
    slice_inputs, slice_labels = world.draw(rng, rng.choice([100, 200, 400]))
    further_inputs, further_labels = world.draw(rng, 10_000)
    order = rng.permutation(len(labels))
    query_size = int(rng.choice([25, 50, 100]))
    queried = list(order[: max(query_size, np.unique(labels[order], return_index=True)[1][1] + 1)])
    is_random = rng.uniform() < 0.5
    rounds = []
    for _ in range(rng.integers(4, 13) + 1):
        probs = fit_logistic(inputs[queried], labels[queried], world)
        rounds.append(Round(len(queried), probs(slice_inputs), probs(further_inputs)))
        best = np.sort(probs(inputs), axis=1)[:, -2:]
        scores = rng.uniform(size=len(labels)) if is_random else best[:, 1] - best[:, 0]
        scores[queried] = np.inf
        queried += list(np.argsort(scores)[:query_size])
    return Project(rounds, slice_labels, further_labels, world.posterior(further_inputs), query_size)


def covers(estimate, truth):
    return estimate["low"] - 1e-9 <= truth <= estimate["high"] + 1e-9


def true_error(probs, posterior, temperature):
    """Returns the calibration error in 20 bins of equal size, by the true probability that a prediction is correct."""
    softened = estimates.soften(probs, temperature)
    confidence = softened.max(axis=1)
    correct = np.take_along_axis(posterior, softened.argmax(axis=1)[:, None], axis=1)[:, 0]
    parts = np.array_split(np.argsort(confidence), 20)
    return np.mean([abs(correct[part].mean() - confidence[part].mean()) for part in parts])


def judge_round(project, index):
    """Yields what the estimates of one round say of it: (statement, is it right)."""
    played, labels = project.rounds[index], project.slice_labels
    truth, guesses = project.accuracy(index), played.slice.argmax(axis=1)
    yield "accuracy: interval holds it", covers(estimates.accuracy(guesses == labels), truth)
    by_class = estimates.by_class(labels, guesses, project.num_classes)
    further = estimates.by_class(project.further_labels, played.further.argmax(axis=1), project.num_classes)
    for name in ("recall", "precision"):
        for estimate, true in zip(by_class[name], further[name], strict=True):
            if estimate and true:
                yield f"{name} of a class: interval holds it", covers(estimate, true["mean"])
    held = [true["mean"] for true, estimate in zip(further["recall"], by_class["recall"], strict=True) if estimate]
    yield "balanced accuracy: interval holds it", covers(by_class["balanced"], np.mean(held))
    error = true_error(played.further, project.posterior, estimates.temperature(played.slice, labels))
    estimate = estimates.calibration_error(played.slice, labels)
    yield "off by: interval holds it", covers(estimate, error)
    yield "off by: points from the truth", 100 * abs(estimate["mean"] - error)
    yield "off by: true points", 100 * error


def judge_curve(project):
    """Yields what a project is told of its next batch, and of its target: (statement, is it right)."""
    correct = np.stack([played.slice.argmax(axis=1) == project.slice_labels for played in project.rounds[:-1]])
    num_labels = np.array([played.num_labels for played in project.rounds])
    accuracies = np.array([project.accuracy(index) for index in range(len(project.rounds))])
    is_early, was_reached = dict.fromkeys(TARGETS, False), dict.fromkeys(TARGETS, False)
    # What single rounds are off by is no gain of their labels.
    curve = np.poly1d(np.polyfit(np.log(num_labels), accuracies, 3))(np.log(num_labels))
    for index in range(len(correct)):
        gain = estimates.expected_gain(correct[: index + 1], num_labels[: index + 1], project.query_size)
        true = curve[index + 1] - curve[index]
        if gain is not None:
            yield "next batch: interval holds it", covers(gain, true)
            is_over = gain["high"] < estimates.PAYS
            yield "no longer pay: said, of all rounds", is_over
            yield "no longer pay: power told, of all rounds", gain["power"]
            if is_over:
                yield "no longer pay: wrong where said", true >= estimates.PAYS
            if true >= estimates.PAYS:
                yield "no longer pay: said where a batch adds two points or more", is_over
            else:
                yield "no longer pay: said where it adds less", is_over
        for target in TARGETS:
            needed = budget.fewest_correct(correct.shape[1], target)
            if needed is not None and correct[index].sum() >= needed:
                was_reached[target] = True
                is_early[target] |= accuracies[index] < target
    for target in TARGETS:
        yield "target reached: said, of all projects", was_reached[target]
        yield "target reached: wrongly in any round, of all projects", is_early[target]
    yield from judge_distance(correct, num_labels, curve)


def judge_distance(correct, num_labels, curve):
    """Yields whether the labels told after three rounds, and half-way, hold those at which the end's accuracy came."""
    for index in sorted({3, len(correct) // 2} - {0, 1, 2}):
        if curve[-1] < curve[:index].max() + 0.005:
            continue
        told = budget.labels_to(curve[-1], correct[:index], num_labels[:index])
        low, high = (np.inf if told[name] is None else told[name] for name in ("low", "high"))
        needed = num_labels[np.flatnonzero(curve >= curve[-1])[0]] - num_labels[index - 1]
        yield "labels to the target: interval holds them", low <= needed <= high
        yield "labels to the target: 'cannot tell', of these", told["median"] is None


def judge_plateau(rng):
    """Yields whether a classifier that stays just below the target is called good enough in any of 12 rounds."""
    target, num = rng.choice([0.7, 0.8, 0.9, 0.95]), int(rng.choice([100, 200, 400]))
    needed = budget.fewest_correct(num, target)
    # An image stays right or wrong with the chance of its own, as under classifiers that differ a little.
    chances = rng.beta(*(np.array([target, 1 - target]) * rng.uniform(0.1, 3)), size=num)
    rounds = rng.uniform(size=(12, num)) < chances
    is_told = needed is not None and (rounds.sum(axis=1) >= needed).any()
    yield "target reached: wrongly on a plateau just below it, in any of 12 rounds", is_told


def judge_brought(rng):
    """Yields what accuracy is told where people bring labels of the images that are easy for the classifier."""
    num = 100
    is_right = rng.uniform(size=4000) < rng.uniform(0.3, 0.9)
    brought = rng.uniform(size=4000) < np.where(is_right, rng.uniform(0.3, 1.0), rng.uniform(0, 0.3))
    table = pd.DataFrame({"id": [f"{rng.integers(2**60)}" for _ in is_right], "file_name": "image.png"})
    draws = np.array([selection.uniform(image, 0) for image in table.id])
    is_audit = draws < np.sort(draws)[num]
    first = np.flatnonzero(is_audit)[np.argsort(draws[is_audit])][: rng.integers(0, num + 1)]
    classes = np.where(brought, 0, -1)
    classes[first] = 0
    nothing = np.zeros(4000, bool)
    sample = audit.answered(table, selection.Masks(classes, is_audit, nothing, nothing, nothing), 0)
    yield "labels brought: accuracy is told", not sample.reason
    if not sample.reason:
        yield "labels brought: interval holds it", covers(estimates.accuracy(is_right[sample.rows]), is_right.mean())
    old = is_right[is_audit & (classes >= 0)]
    if len(old):
        yield (
            "labels brought, had all of the slice counted: interval holds it",
            covers(estimates.accuracy(old), is_right.mean()),
        )


def judge_enlarged(rng):
    """Yields what is told of a rare class from a slice that was enlarged by images predicted as it."""
    world = make_rare_world(rng)
    inputs, labels = world.draw(rng, 4000)
    # People bring some of the rare images that they know.
    queried = np.union1d(rng.permutation(4000)[:200], np.flatnonzero(labels == 0)[:10])
    draws = rng.uniform(size=4000)
    first = fit_logistic(inputs[queried], labels[queried], world)(inputs).argmax(axis=1)
    is_inside = first == 0
    shares = np.sort(draws)[[100, 100]]
    if is_inside.any():
        shares[1] = max(shares[1], np.append(np.sort(draws[is_inside]), 1.0)[min(40, is_inside.sum())])
    is_audit = draws < shares[is_inside.astype(int)]
    queried = queried[~is_audit[queried]]
    if len(np.unique(labels[queried])) < 2:
        return
    predicted = fit_logistic(inputs[queried], labels[queried], world)(inputs).argmax(axis=1)
    strata = [
        stratified.Sample(labels[is_audit & part], predicted[is_audit & part], part.sum())
        for part in (~is_inside, is_inside)
        if part.any()
    ]
    told = stratified.by_class(strata, len(world.shares))
    random = draws < shares[0]
    alone = estimates.by_class(labels[random], predicted[random], len(world.shares))
    true = estimates.by_class(labels, predicted, len(world.shares))
    for name in ("recall", "precision"):
        for place, of_class in enumerate(told[name]):
            if of_class and true[name][place]:
                which = "another class" if place else "its class"
                yield f"enlarged slice: interval holds {name} of {which}", covers(of_class, true[name][place]["mean"])
        for slice_name, estimate in dict(enlarged=told[name][0], random=alone[name][0]).items():
            yield f"{slice_name} slice: {name} of the rare class is told at all", estimate is not None
            if estimate:
                yield f"{slice_name} slice: width of the interval of its {name}", estimate["high"] - estimate["low"]


def judge_strategy(rng, learner, score, num_chosen=80, num_audit=100):
    """Yields what is said of a strategy that is random, or prefers some classes, or what is typical of its class."""
    world = make_world(rng)
    world = World(np.pad(world.means, ((0, 0), (0, 47 - world.means.shape[1]))), world.shares)
    pool, further = Points(*world.draw(rng, 2000)), Points(*world.draw(rng, 4000))
    preferred = rng.normal(size=len(world.shares))[pool.labels]
    typical = np.log(world.posterior(pool.points)[np.arange(2000), pool.labels])
    scores = rng.choice([0.0, 0.0, 2.0]) * preferred + rng.choice([0.0, 3.0]) * typical
    chosen = np.argsort(rng.gumbel(size=2000) - scores)[:num_chosen]
    audited = Points(*world.draw(rng, num_audit))
    pair = Points(pool.points[chosen], pool.labels[chosen])
    told = estimates.against_random(jax.random.key(int(rng.integers(2**31))), learner, pair, audited)
    sets = [Points(pair.points[: told["num"]], pair.labels[: told["num"]])] * 10
    sets += [Points(*world.draw(rng, told["num"])) for _ in range(40)]
    scores = score(np.stack([one.points for one in sets]), np.stack([one.labels for one in sets]), further)
    true = scores[:10].mean() - scores[10:].mean()
    yield "strategy: interval holds it", covers(told, true)
    says_no = told["low"] <= 0 and told["high"] < estimates.PAYS
    yield "strategy, no better than random: said", says_no
    if true >= estimates.PAYS:
        yield "strategy, no better than random: said where it adds two points or more", says_no
    yield "strategy, ahead of random: said", told["low"] > 0
    yield "strategy, ahead of random: wrongly said, of all projects", told["low"] > 0 and true <= 0
    yield "strategy, cannot tell: said", told["low"] <= 0 and told["high"] >= estimates.PAYS


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--projects", type=int, default=200)
    parser.add_argument("--comparisons", type=int, default=100)
    args = parser.parse_args()
    said = {}

    def note(statements):
        for name, value in statements:
            said.setdefault(name, []).append(float(value))

    for seed in range(args.projects):
        rng = np.random.default_rng(seed)
        project = play(rng)
        for index in (1, len(project.rounds) - 2):
            note(judge_round(project, index))
        note(judge_curve(project))
        note(judge_brought(rng))
        note(judge_enlarged(np.random.default_rng([3, seed])))
    for seed in range(10 * args.projects):
        note(judge_plateau(np.random.default_rng([1, seed])))
    learner = mlp(num_classes=7, hidden=(32,), dropout=0.2, learning_rate=1e-2, epochs=30, batch_size=20)

    @jax.jit
    @partial(jax.vmap, in_axes=(0, 0, 0, None))
    def predicted(key, points, labels, further):
        params, _ = learner.fit(key, points, labels, jnp.arange(len(labels)), len(labels))
        return learner.predict(params, further)[1].argmax(axis=1)

    def score(points, labels, further):
        keys = jax.random.split(jax.random.key(0), len(points))
        return (np.asarray(predicted(keys, points, labels, further.points)) == further.labels).mean(axis=1)

    for seed in range(args.comparisons):
        note(judge_strategy(np.random.default_rng([2, seed]), learner, score))
    for name, values in said.items():
        is_points = name.startswith(("off by: points", "off by: true"))
        figure = f"{np.mean(values):.2f}" if is_points else f"{100 * np.mean(values):.1f} %"
        print(f"| {name} | {figure} | {len(values)} |")


if __name__ == "__main__":
    main()
