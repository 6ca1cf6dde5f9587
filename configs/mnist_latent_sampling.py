"""Query selection by latent-space sampling, on MNIST: the first batch, chosen without any label. Killeen's Table 1.

    python launch.py --config=configs/mnist_latent_sampling.py:cpu --config.data.root=DIR --encoders=runs/encoders
    python launch.py --config=configs/mnist_latent_sampling.py:cpu-unbalanced-100 --encoders=runs/encoders

A size, then what is changed in it, joined by dashes: `unbalanced` overwrites odd digits with perturbed even ones, `100`
chooses 100 images in place of 1,000, `mlp` judges by a perceptron on the latents in place of a CNN on the images.
Without a root MNIST comes from TensorFlow Datasets; for `unbalanced` it is --config.data.source.root.

    paper   the published settings: hours on a GPU
    cpu     narrow filters, few epochs and updates
    smoke   the tiny size that tests launch
"""

from ml_collections import ConfigDict, config_dict

WARD = dict(name="ward", num_clusters=10)
RANDOM = dict(name="random")


# What the sizes differ in: the networks, how long they train, how many seeds judge, and the auto-encoders.
ALL = ("conv", "vae", "tsne")
SIZES = {
    "paper": dict(filters=(64, 32, 32), depth=3, units=1024, rate=0.1, epochs=300, updates=8000, seeds=10, kinds=ALL),
    "cpu": dict(filters=(8, 16, 16), depth=1, units=128, rate=1.0, epochs=5, updates=200, seeds=10, kinds=ALL),
    "smoke": dict(filters=(2, 2, 2), depth=1, units=8, rate=1.0, epochs=1, updates=10, seeds=2, kinds=("vae",)),
}


def autoencoder(name, own, **more):
    network = dict(filters=own["filters"], depth=own["depth"], hidden=(own["units"],) * 2, dropout=0.2)
    network |= dict(activation="linear", latent=2)
    return dict(name=name, **network, **more, learning_rate=own["rate"], epochs=own["epochs"], batch=64, seed=0)


def arm(initial, *, encoder="vae", classifier):
    return dict(encoder=encoder, classifier=classifier, initial=initial, subsample=1.0, strategy=RANDOM)


def arms(classifier, kinds):
    def sampler(name, clustering):
        return dict(name=name, clustering=clustering, threshold=0.25, match="nearest")

    chosen = {"random": arm(RANDOM, classifier=classifier)}
    chosen["ae_error"] = arm(dict(name="ae_error"), encoder=kinds[0], classifier=classifier)
    for encoder in kinds:
        for kind, clustering in (("", None), ("clustered_", WARD)):
            for label, name in (("uniform", "uniform"), ("normal", "multi_normal")):
                initial = sampler(name, clustering)
                chosen[f"{encoder}_{kind}{label}"] = arm(initial, encoder=encoder, classifier=classifier)
    initial = sampler("multi_normal", WARD)
    chosen["vae_tsne_clustered_normal"] = arm(initial, encoder="vae_tsne", classifier=classifier)
    chosen["vae_typical"] = arm(dict(name="typical", iterations=20), classifier=classifier)
    chosen["vae_farthest_first"] = arm(dict(name="farthest_first"), classifier=classifier)
    return chosen


def get_config(spec="cpu"):
    size, *changes = spec.split("-")
    unknown = set(changes) - {"unbalanced", "100", "mlp"}
    if unknown:
        raise ValueError(f"unknown change {sorted(unknown)}; known: unbalanced, 100, mlp.")
    own = SIZES[size]
    root = config_dict.placeholder(str)
    data = dict(name="mnist", root=root, data_dir=config_dict.placeholder(str), num_validation=10_000)
    if "unbalanced" in changes:
        data = dict(name="perturbed_pairs", source=data, num_copies=2000, max_angle=5.0, max_shift=2, seed=0)
    tsne = dict(perplexity=30.0, tsne_weight=1e4)
    judge = dict(depth=2, units=own["units"], dropout=0.2, learning_rate=own["rate"], batch=64)
    return ConfigDict(
        dict(
            num_seeds=own["seeds"],
            seeds_at_once=10,
            data=data,
            encoders=dict(
                conv=autoencoder("conv_ae", own),
                vae=autoencoder("conv_vae_latens", own),
                tsne=autoencoder("tsne_ae", own, **tsne),
                vae_tsne=autoencoder("vae_tsne_ae", own, **tsne),
            ),
            classifiers=dict(
                cnn=dict(name="cnn", filters=own["filters"], updates=own["updates"], **judge),
                mlp=dict(name="mlp", hidden=(128, 128), dropout=0.2, learning_rate=1e-3, epochs=100, batch=10),
            ),
            initial=RANDOM,
            first_batch=100 if "100" in changes else 1000,
            batch=1,
            rounds=0,
            arms=arms("mlp" if "mlp" in changes else "cnn", own["kinds"]),
            baseline="random",
        )
    )
