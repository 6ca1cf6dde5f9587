"""The thesis on active learning in VAE latent space, on MNIST: one experiment a size.

    python launch.py --config=configs/mnist_vae.py --config.data.root=DIR            # a folder of the IDX files
    python launch.py --config=configs/mnist_vae.py:diversity --encoders=runs/encoders

Without a root MNIST comes from TensorFlow Datasets. Sizes share trained encoders through --encoders.

    best                      Table 5.4, Figures 5.22 and 5.23     25 minutes on two CPU cores
    all_labels                Table 5.4, the classifier on all 55,000 labels; 15 minutes
    uncertainty               Figure 5.9: three measures, four ways to pick
    pixels                    Figure 5.11: margin and random, latents against pixels
    representativeness        Figure 5.17: seven measures, three weights
    pixel_representativeness  Figure 5.19: three measures, three weights
    diversity                 Figure 5.20: four distances, three weights
    mlps                      Tables 5.1 and 5.2, Figures 5.1 to 5.7 and 5.12 to 5.16: three encoders and the pixels, 18
                              classifiers; 40 minutes
    smoke                     the tiny size that tests launch

They run on the dense VAE, whose 64 epochs take three minutes. `conv-best` and so on take the convolutional VAE of Table
4.1 instead: 64 epochs on a GPU, or --config.encoders.vae.epochs=15 and 40 minutes on two cores. `gan-best` and so on
take the VAE/GAN of Larsen et al.

Expect of `best` a validation loss of 101.7, and after 3,000 labels a test accuracy of 97.0 % with margin and 95.1 %
with random on latents, 96.6 % and 93.9 % on pixels; of `conv-best` with 15 epochs a validation loss of 62.4, and 98.0 %
with margin, 97.6 % with greedy batches and 95.7 % with random on latents. docs/results.md has the rest.
"""

from ml_collections import ConfigDict, config_dict

LAYOUTS = ((512,), (256,), (128,), (256, 256), (512, 256), (512, 512))
MEASURES = (
    "cosine_density",
    "euclidean_density",
    "squared_euclidean_density",
    "jeffreys_density",
    "kl_to_prior",
    "closeness_to_origin",
    "squared_closeness_to_origin",
)
DISTANCES = ("euclidean", "squared_euclidean", "half_cosine", "jeffreys")
WEIGHTS = (0.25, 0.5, 0.75)
RANDOM = dict(name="random")
MARGIN = dict(name="uncertainty", measure="margin", pick="random_partitions")


def vae(kind, latent_dim):
    epochs = 32 if (kind, latent_dim) == ("conv", 2) else 64
    training = dict(latent_dim=latent_dim, learning_rate=1e-3, epochs=epochs, batch_size=100, seed=0)
    if kind == "gan":
        sizes = dict(name="vae_gan", filters=(16, 32), hidden=128, gamma=0.1)
        return sizes | training | dict(epochs=10, batch_size=128)
    if kind == "dense":
        return dict(name="dense_vae", hidden=(512, 256), **training)
    return dict(name="conv_vae", kl_weight=1 / latent_dim, dtype="float32", **training)


def mlp(hidden, dropout):
    return dict(name="mlp", hidden=hidden, dropout=dropout, learning_rate=1e-3, epochs=20, batch_size=100)


def arm(strategy, *, encoder="vae", subsample=1.0, classifier="mlp"):
    return dict(encoder=encoder, classifier=classifier, subsample=subsample, strategy=strategy)


def informativeness(measure, gamma):
    names = dict(name="informativeness", measure="margin", pick="random_partitions")
    return dict(names, representativeness=measure, gamma=gamma)


def greedy(distance, alpha):
    names = dict(name="greedy_diverse", measure="margin", distance=distance)
    return dict(names, representativeness=None, alpha=alpha, beta=0.0)


def best():
    return dict(
        latents_margin=arm(MARGIN, subsample=0.1),
        latents_greedy=arm(greedy("euclidean", 0.5), subsample=0.01),
        latents_random=arm(RANDOM),
        pixels_margin=arm(MARGIN, encoder="pixels", subsample=0.1),
        pixels_random=arm(RANDOM, encoder="pixels"),
    )


def pixels():
    return {name: each for name, each in best().items() if "greedy" not in name}


def all_labels():
    return {name: each for name, each in best().items() if "random" in name}


def uncertainty():
    arms = {"latents_random": arm(RANDOM)}
    for measure in ("least_confident", "margin", "entropy"):
        for pick in ("top_k", "random_partitions"):
            strategy = dict(name="uncertainty", measure=measure, pick=pick)
            arms[f"{measure}_{pick}"] = arm(strategy)
            arms[f"{measure}_{pick}_subsampled"] = arm(strategy, subsample=0.1)
    return arms


def representativeness():
    arms = {"latents_random": arm(RANDOM), "latents_margin": arm(MARGIN, subsample=0.1)}
    for measure in MEASURES:
        for gamma in WEIGHTS:
            arms[f"{measure}_gamma_{100 * gamma:.0f}"] = arm(informativeness(dict(name=measure), gamma), subsample=0.1)
    return arms


def pixel_representativeness():
    arms = {name: each for name, each in best().items() if each["encoder"] == "pixels"}
    for measure in MEASURES[:3]:
        for gamma in WEIGHTS:
            strategy = informativeness(dict(name=measure, unit_cube=True), gamma)
            arms[f"{measure}_gamma_{100 * gamma:.0f}"] = arm(strategy, encoder="pixels", subsample=0.1)
    return arms


def diversity():
    arms = {"latents_random": arm(RANDOM), "latents_margin": arm(MARGIN, subsample=0.1)}
    for distance in DISTANCES:
        for alpha in WEIGHTS:
            arms[f"{distance}_alpha_{100 * alpha:.0f}"] = arm(greedy(distance, alpha), subsample=0.01)
    return arms


def mlps():
    return {
        f"{encoder}_{name}": arm(RANDOM, encoder=encoder, classifier=name)
        for encoder in ("vae_2", "vae", "vae_50", "pixels")
        for name in map(layout, LAYOUTS)
    }


def layout(hidden):
    return "mlp_" + "_".join(map(str, hidden))


ARMS = dict(
    best=best,
    all_labels=all_labels,
    uncertainty=uncertainty,
    pixels=pixels,
    representativeness=representativeness,
    pixel_representativeness=pixel_representativeness,
    diversity=diversity,
    mlps=mlps,
    smoke=best,
)


def get_config(size="best"):
    kind, _, name = size.rpartition("-")
    if name not in ARMS or kind not in ("", "dense", "conv", "gan"):
        raise ValueError(f"size {size!r} is unknown; known: {', '.join(ARMS)}, each also as conv-SIZE and gan-SIZE.")
    kind = kind or "dense"
    arms = ARMS[name]()
    encoders = dict(vae=vae(kind, 30), vae_2=vae(kind, 2), vae_50=vae(kind, 50), pixels=dict(name="identity"))
    classifiers = {layout(hidden): mlp(hidden, (0.2, 0.35, 0.5)) for hidden in LAYOUTS}
    classifiers["mlp"] = mlp((512, 512), 0.2)
    with_all_labels = name in ("all_labels", "mlps")
    config = ConfigDict(
        dict(
            num_seeds=1 if name == "mlps" else 10,
            seeds_at_once=10,
            data=dict(
                name="mnist",
                root=config_dict.placeholder(str),
                data_dir=config_dict.placeholder(str),
                num_validation=5000,
            ),
            encoders={key: each for key, each in encoders.items() if any(a["encoder"] == key for a in arms.values())},
            classifiers={
                key: each for key, each in classifiers.items() if any(a["classifier"] == key for a in arms.values())
            },
            initial=RANDOM,
            num_initial=55_000 if with_all_labels else 100,
            query_size=100,
            num_rounds=0 if with_all_labels else 29,
            arms=arms,
            baseline="pixels_random" if name == "pixel_representativeness" else "latents_random",
        )
    )
    if name == "mlps":
        config.baseline = "vae_mlp_512_512_dropout_0.2"
    if name == "smoke":
        config.update(num_seeds=2, num_rounds=2)
        config.encoders.vae.epochs = config.classifiers.mlp.epochs = 1
    return config
