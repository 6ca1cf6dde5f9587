"""Query selection by latent-space sampling, Killeen (2019), Table 1, on MNIST: an initial set without labels.

    python launch.py --config=configs/mnist_latent_sampling.py:cpu --config.data.root=DIR --encoders=runs/encoders
    python launch.py --config=configs/mnist_latent_sampling.py:cpu-unbalanced-100 --encoders=runs/encoders

The part after the colon is a size, then changes to it, joined by dashes. `unbalanced` overwrites odd digits with
perturbed even ones. `100` chooses 100 images instead of 1,000. `mlp` judges with a perceptron on the latents instead of
a CNN on the images. `readings` compares other readings of the paper's best sampler. `trainings` compares five trainings
of the VAE with each of two weights of the divergence to the prior, 1 and the original's 1/64, on the original's
training images and copies, with its 800 steps of the judge. `shares` is the control for this: the pool has the class
shares of the query set for which the paper reports 85.0 %, and the query set is random. `starts` continues from four
query sets with ten rounds of margin sampling, on 20 seeds. Without a root, MNIST comes from TensorFlow Datasets; with
`unbalanced` the root is --config.data.source.root.

    paper   the published settings: for a GPU
    cpu     narrow filters, few epochs and steps, 10 seeds: about 30 minutes on two CPU cores, half of it to train the
            four auto-encoders, which 1,000 and 100 images share
    smoke   the tiny size that tests launch

On `cpu-100` expect a test accuracy of 79.9 % with random, 78.0 % with clustered normal on the VAE and 50 to 60 % with
the worst of the arms; on `cpu-unbalanced-100`, 77.6 %, 76.4 % and again 50 to 60 %. docs/results.md has the rest.
"""

from ml_collections import ConfigDict, config_dict

# The original turns its copies by up to pi/36 degrees, where the paper means radians.
ORIGINAL_ANGLE = 3.14159 / 36
WARD = dict(name="ward", num_clusters=10)
RANDOM = dict(name="random")


# The differences between sizes: the networks, how long they train, how many seeds judge, and the auto-encoders.
ALL = ("conv", "vae", "tsne", "vae_tsne")
SIZES = {
    "paper": dict(filters=(64, 32, 32), depth=3, units=1024, rate=0.1, epochs=300, num_steps=800, seeds=10, kinds=ALL),
    "cpu": dict(filters=(8, 16, 16), depth=1, units=128, rate=1.0, epochs=5, num_steps=200, seeds=10, kinds=ALL),
    "smoke": dict(filters=(2, 2, 2), depth=1, units=8, rate=1.0, epochs=1, num_steps=10, seeds=2, kinds=("vae",)),
}
CHANGES = {"unbalanced", "100", "mlp", "readings", "trainings", "shares", "starts"}
WEIGHTS = {"vae_1": 1.0, "vae_64th": 1 / 64}
TRAININGS = {f"{name}_{seed}": (weight, seed) for name, weight in WEIGHTS.items() for seed in range(5)}
# Counts of the digits 0 to 9 among the images of clustered normal on the VAE, in the original's only draw: 99 in all.
COUNTS = (12, 7, 14, 7, 11, 10, 16, 4, 9, 9)


def autoencoder(name, sizes, seed=0, **more):
    network = dict(filters=sizes["filters"], depth=sizes["depth"], hidden=(sizes["units"],) * 2, dropout=0.2)
    network |= dict(activation="linear", latent_dim=2)
    return dict(
        name=name, **network, **more, learning_rate=sizes["rate"], epochs=sizes["epochs"], batch_size=64, seed=seed
    )


def arm(initial, *, encoder="vae", classifier, **more):
    return dict(encoder=encoder, classifier=classifier, initial=initial) | dict(strategy=RANDOM) | more


def sampler(name, clustering, match="nearest"):
    return dict(name=name, clustering=clustering, threshold=0.25, match=match)


def table_1(classifier, kinds):
    """Returns the arms of the paper's rows, then three of ours. Its "Normal" is `multi_normal`."""
    chosen = {"random": arm(RANDOM, classifier=classifier)}
    chosen["ae_error"] = arm(dict(name="ae_error"), encoder=kinds[0], classifier=classifier)
    for encoder in kinds[:3]:
        for kind, clustering in (("", None), ("clustered_", WARD)):
            for label, name in (("uniform", "uniform"), ("normal", "multi_normal")):
                initial = sampler(name, clustering)
                chosen[f"{encoder}_{kind}{label}"] = arm(initial, encoder=encoder, classifier=classifier)
    if "vae_tsne" in kinds:
        initial = sampler("multi_normal", WARD)
        chosen["vae_tsne_clustered_normal"] = arm(initial, encoder="vae_tsne", classifier=classifier)
    chosen["vae_typical"] = arm(dict(name="typical", iterations=20), classifier=classifier)
    chosen["vae_farthest_first"] = arm(dict(name="farthest_first"), classifier=classifier)
    return chosen


def readings(classifier):
    """Returns arms for other readings of clustered normal on the VAE, and for other clusterings in it."""
    kmeans = dict(name="kmeans", num_clusters=10, iterations=100, seed=0)
    initials = dict(
        random=RANDOM,
        clustered_normal=sampler("multi_normal", WARD),
        all_within=sampler("multi_normal", WARD, match="all_within"),
        one_deviation=sampler("normal", WARD),
        kmeans=sampler("multi_normal", kmeans),
        gaussian_mixture=sampler("multi_normal", dict(name="gaussian_mixture", num_clusters=10, seed=0)),
    )
    return {name: arm(initial, classifier=classifier) for name, initial in initials.items()}


def trainings(classifier):
    """Returns clustered normal on each training of the VAE."""
    arms = {name: arm(sampler("multi_normal", WARD), encoder=name, classifier=classifier) for name in TRAININGS}
    return {"random": arm(RANDOM, encoder="vae_1_0", classifier=classifier)} | arms


def shares(classifier):
    """Returns the random query set, which needs no latents."""
    return {"random": arm(RANDOM, encoder="pixels", classifier=classifier)}


def starts(classifier):
    """Returns rounds by margin after four query sets, and random rounds after a random one."""
    margin = dict(strategy=dict(name="uncertainty", measure="margin", pick="top_k"), subsample=0.1)
    initials = dict(
        random_start=RANDOM,
        clustered_normal_start=sampler("multi_normal", WARD),
        typical_start=dict(name="typical", iterations=20),
        typiclust_start=dict(name="typiclust", max_clusters=500, num_neighbours=20, iterations=20),
    )
    arms = {name: arm(initial, classifier=classifier, **margin) for name, initial in initials.items()}
    return arms | {"random": arm(RANDOM, classifier=classifier)}


def choose_arms(changes, classifier, kinds):
    for name, choose in dict(trainings=trainings, shares=shares, starts=starts, readings=readings).items():
        if name in changes:
            return choose(classifier)
    return table_1(classifier, kinds)


def get_config(spec="cpu"):
    size, *changes = spec.split("-")
    if size not in SIZES or set(changes) - CHANGES:
        raise ValueError(
            f"unknown size {spec!r}; known: {', '.join(SIZES)}, with changes {', '.join(sorted(CHANGES))}."
        )
    sizes = SIZES[size]
    root = config_dict.placeholder(str)
    data = dict(name="mnist", root=root, data_dir=config_dict.placeholder(str), num_validation=10_000)
    as_original = bool({"trainings", "shares"} & set(changes))
    if as_original:
        data |= dict(validation_rows="last")
        sizes = sizes if size == "smoke" else sizes | dict(num_steps=800)
    if "starts" in changes:
        sizes = sizes if size == "smoke" else sizes | dict(seeds=20)
    if "unbalanced" in changes:
        angle = ORIGINAL_ANGLE if as_original else 5.0
        data = dict(name="perturbed_pairs", source=data, num_copies=2000, max_angle=angle, max_shift=2, seed=0)
    if "shares" in changes:
        data = dict(name="weighted_classes", source=data, weights=COUNTS, seed=0)
    tsne = dict(perplexity=30.0, tsne_weight=1e4)
    encoders = dict(
        pixels=dict(name="identity"),
        conv=autoencoder("conv_ae", sizes),
        vae=autoencoder("conv_vae_latens", sizes),
        tsne=autoencoder("tsne_ae", sizes, **tsne),
        vae_tsne=autoencoder("vae_tsne_ae", sizes, **tsne),
    )
    encoders |= {
        name: autoencoder("conv_vae_latens", sizes, seed=seed, kl_weight=weight)
        for name, (weight, seed) in TRAININGS.items()
    }
    classifier = "mlp" if "mlp" in changes else "cnn"
    arms = choose_arms(changes, classifier, sizes["kinds"])
    used = {arm["encoder"] for arm in arms.values()}
    judge = dict(depth=2, units=sizes["units"], dropout=0.2, learning_rate=sizes["rate"], batch_size=64)
    return ConfigDict(
        dict(
            num_seeds=sizes["seeds"],
            seeds_at_once=10,
            data=data,
            encoders={name: encoders[name] for name in used},
            classifiers=dict(
                cnn=dict(name="cnn", filters=sizes["filters"], num_steps=sizes["num_steps"], **judge),
                mlp=dict(name="mlp", hidden=(128, 128), dropout=0.2, learning_rate=1e-3, epochs=100, batch_size=10),
            ),
            initial=RANDOM,
            num_initial=100 if "100" in changes else 1000,
            query_size=100 if "starts" in changes else 1,
            num_rounds=10 if "starts" in changes else 0,
            arms=arms,
            baseline="random_start" if "starts" in changes else "random",
            diagnostics=dict(training=dict(name="training_curves", arms=tuple(arms))) if classifier == "cnn" else {},
        )
    )
