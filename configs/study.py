"""Strategies of all kinds, starting at one label per class: which pays on which images, and at how many labels?

    python launch.py --config=configs/study.py:digits
    python launch.py --config=configs/study.py:mnist-tail --config.data.source.root=DIR
    python launch.py --config=configs/study.py:trashnet --config.data.root=DIR --config.encoders.latents.root=NETWORK

The part after the colon is a data set, then changes to it, joined by dashes. `tail` thins the classes of the pool to a
long tail of ratio 50. `large` has batches of 20 labels per class instead of 4. `posterior` compares random with the
strategies that ask how sure the classifier's weights are, by MC dropout or by Fisher information.
`python benchmarks/study.py` runs them all, and prints the tables of docs/results.md.

    digits     scikit-learn's digits, 64 pixels; logistic regression
    mnist      10,000 images of MNIST, 10 latents of a VAE trained on them; a perceptron
    cifar10    5,000 images of CIFAR-10 in a folder a class, 128 components of a pretrained network; logistic regression
    trashnet   the same of TrashNet's 2,527 photographs of waste
    smoke      the tiny size that tests launch

A data set takes an hour on one CPU core, and less with `large` or `tail`. docs/which_strategy.md says what to expect.
"""

from ml_collections import ConfigDict, config_dict

TYPICAL = dict(name="typical", iterations=20)
MARGIN = dict(name="uncertainty", measure="margin", pick="top_k")
GREEDY = dict(name="greedy_diverse", measure="margin", representativeness=None, alpha=0.5, beta=0.0)
GREEDY |= dict(distance="euclidean")
KMEANS = dict(name="kmeans", num_clusters=100, iterations=20, seed=0)

# Strategies that select the initial labelled set too; that of all others is random, or typical where they say so.
FROM_THE_START = dict(
    typical=TYPICAL,
    typiclust=dict(name="typiclust", max_clusters=500, num_neighbours=20, iterations=20),
    core_set=dict(name="farthest_first"),
    max_herding=dict(name="max_herding", sigma=1.0, normalize=True),
    prob_cover=dict(name="prob_cover", share=0.95, iterations=20, seed=0, normalize=True),
    facility_location=dict(name="facility_location"),
    uncertainty_herding=dict(name="uncertainty_herding", sigma=1.0, normalize=True),
)
AFTER_RANDOM = dict(
    random=dict(name="random"),
    margin=MARGIN,
    entropy=dict(name="uncertainty", measure="entropy", pick="top_k"),
    power=dict(name="power", measure="margin", beta=1.0),
    badge=dict(name="badge"),
    greedy_diverse=GREEDY,
    cluster_margin=dict(name="cluster_margin", clustering=KMEANS, candidates=10.0),
    uncertain_farthest_first=dict(name="uncertain_farthest_first", measure="margin", share=0.2, space="latents"),
)
AFTER_TYPICAL = dict(typical_margin=MARGIN, typical_greedy_diverse=GREEDY, typical_badge=dict(name="badge"))
POSTERIOR = dict(
    random=dict(name="random"),
    bald=dict(name="bald", num_draws=20, pick="top_k"),
    batch_bald=dict(name="batch_bald", num_draws=20, num_samples=500),
    dropquery=dict(name="dropquery", num_draws=3, iterations=20),
    epig=dict(name="epig", num_draws=20, num_targets=500),
    bait=dict(name="bait", l2=1.0),
)

SMALL, LARGE = 4, 20
# For each data set: its classes, its held-out images, and rounds of small batches on the whole pool and on its tail.
SIZES = {
    "digits": dict(num_classes=10, num_validation=500, num_rounds=15, num_tail_rounds=5),
    "mnist": dict(num_classes=10, num_validation=50_000, num_rounds=25, num_tail_rounds=15),
    "cifar10": dict(num_classes=10, num_validation=1000, num_rounds=25, num_tail_rounds=10),
    "trashnet": dict(num_classes=6, num_validation=500, num_rounds=25, num_tail_rounds=10),
    "smoke": dict(num_classes=10, num_validation=1500, num_rounds=1, num_tail_rounds=1),
}
CHANGES = {"tail", "large", "posterior"}


def source(name, num_validation):
    root = config_dict.placeholder(str)
    if name in ("digits", "smoke"):
        return dict(name="digits", num_validation=num_validation, num_test=0)
    if name == "mnist":
        return dict(name="mnist", root=root, data_dir=config_dict.placeholder(str), num_validation=num_validation)
    held_out = dict(num_validation=num_validation, num_test=0)
    return dict(name="image_folder", root=root, size=(32, 32), channels=3, **held_out, skip_broken=False)


def encoder(name):
    if name in ("digits", "smoke"):
        return dict(name="identity")
    if name == "mnist":
        training = dict(learning_rate=1e-3, epochs=64, batch_size=100, seed=0)
        return dict(name="dense_vae", hidden=(512, 256), latent_dim=10, **training)
    return dict(name="onnx", root="models/dinov2-small", latent_dim=128)


def classifier(name):
    if name == "mnist":
        return dict(name="mlp", hidden=(128, 128), dropout=0.2, learning_rate=1e-3, epochs=30, batch_size=10)
    return dict(name="logistic_regression", dropout=0.75)


def arms_of(changes, num_classes):
    if "posterior" in changes:
        strategies = POSTERIOR
    else:
        strategies = AFTER_RANDOM | AFTER_TYPICAL | FROM_THE_START
        strategies["prob_cover"] = strategies["prob_cover"] | dict(num_clusters=num_classes)
    arms = {
        name: dict(encoder="latents", classifier="classifier", strategy=strategy)
        for name, strategy in strategies.items()
    }
    for name in arms:
        if name in FROM_THE_START:
            arms[name]["initial"] = strategies[name]
        elif name in AFTER_TYPICAL:
            arms[name]["initial"] = TYPICAL
    return arms


def get_config(spec="digits"):
    name, *changes = spec.split("-")
    if name not in SIZES or set(changes) - CHANGES:
        raise ValueError(
            f"unknown size {spec!r}; known: {', '.join(SIZES)}, with changes {', '.join(sorted(CHANGES))}."
        )
    num_classes = SIZES[name]["num_classes"]
    num_rounds = SIZES[name]["num_tail_rounds" if "tail" in changes else "num_rounds"]
    data = source(name, SIZES[name]["num_validation"])
    large = "large" in changes
    return ConfigDict(
        dict(
            num_seeds=2 if name == "smoke" else 20,
            seeds_at_once=20,
            data=dict(name="long_tail", source=data, ratio=50.0, seed=0) if "tail" in changes else data,
            encoders=dict(latents=encoder(name)),
            classifiers=dict(classifier=classifier(name)),
            initial=dict(name="random"),
            num_initial=num_classes,
            query_size=num_classes * (LARGE if large else SMALL),
            num_rounds=max(num_rounds * SMALL // LARGE, 1) if large else num_rounds,
            arms=arms_of(changes, num_classes),
            baseline="random",
        )
    )
