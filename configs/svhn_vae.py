"""The thesis on active learning in VAE latent space, on SVHN's cropped digits in grey: one experiment a size.

    python launch.py --config=configs/svhn_vae.py --config.data.root=DIR    # train_32x32.mat and test_32x32.mat
    python launch.py --config=configs/svhn_vae.py:diversity --encoders=runs/encoders

Without a root SVHN comes from TensorFlow Datasets. Sizes share trained encoders through --encoders.

    best                Table 5.5, Figure 5.24
    all_labels          Table 5.5, the classifier on all 68,257 labels
    uncertainty         Figure 5.10: three measures, four ways to pick
    representativeness  Figure 5.18: seven measures, three weights
    diversity           Figure 5.21: four distances, three weights
    mlps                Tables 5.1 and 5.3, Figures 5.3 to 5.8 and 5.15: three encoders and the pixels, 18 classifiers
    smoke               the tiny size that tests launch

They run on the convolutional VAE of Table 4.1 with 50 dimensions, whose 64 epochs want a GPU. `dense-mlps` takes the
dense encoders instead.

The thesis has, after 3,000 labels, a test accuracy of 70.8 % with margin, 70.7 % with greedy batches and 68.5 % with
random. It was not run here: docs/results.md says why.
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
    training = dict(
        latent_dim=latent_dim, learning_rate=1e-3, epochs=32 if latent_dim == 2 else 64, batch_size=100, seed=0
    )
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
    )


def all_labels():
    return dict(latents_random=arm(RANDOM), pixels_random=arm(RANDOM, encoder="pixels"))


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


def diversity():
    arms = {"latents_random": arm(RANDOM), "latents_margin": arm(MARGIN, subsample=0.1)}
    for distance in DISTANCES:
        for alpha in WEIGHTS:
            arms[f"{distance}_alpha_{100 * alpha:.0f}"] = arm(greedy(distance, alpha), subsample=0.01)
    return arms


def mlps():
    return {
        f"{encoder}_{name}": arm(RANDOM, encoder=encoder, classifier=name)
        for encoder in ("vae_2", "vae_30", "vae", "pixels")
        for name in map(layout, LAYOUTS)
    }


def layout(hidden):
    return "mlp_" + "_".join(map(str, hidden))


ARMS = dict(
    best=best,
    all_labels=all_labels,
    uncertainty=uncertainty,
    representativeness=representativeness,
    diversity=diversity,
    mlps=mlps,
    smoke=best,
)


def get_config(size="best"):
    kind, _, name = size.rpartition("-")
    if name not in ARMS or kind not in ("", "dense", "conv"):
        raise ValueError(f"size {size!r} is unknown; known: {', '.join(ARMS)}, each also as dense-SIZE.")
    kind = kind or "conv"
    arms = ARMS[name]()
    encoders = dict(vae=vae(kind, 50), vae_2=vae(kind, 2), vae_30=vae(kind, 30), pixels=dict(name="identity"))
    classifiers = {layout(hidden): mlp(hidden, (0.2, 0.35, 0.5)) for hidden in LAYOUTS}
    classifiers["mlp"] = mlp((512, 512), 0.2)
    with_all_labels = name in ("all_labels", "mlps")
    config = ConfigDict(
        dict(
            num_seeds=1 if name == "mlps" else 10,
            seeds_at_once=10,
            data=dict(
                name="svhn",
                root=config_dict.placeholder(str),
                data_dir=config_dict.placeholder(str),
                num_validation=5000,
            ),
            encoders={key: each for key, each in encoders.items() if any(a["encoder"] == key for a in arms.values())},
            classifiers={
                key: each for key, each in classifiers.items() if any(a["classifier"] == key for a in arms.values())
            },
            initial=RANDOM,
            num_initial=68_257 if with_all_labels else 100,
            query_size=100,
            num_rounds=0 if with_all_labels else 29,
            arms=arms,
            baseline="latents_random",
        )
    )
    if name == "mlps":
        config.baseline = "vae_mlp_512_512_dropout_0.2"
    if name == "smoke":
        config.update(num_seeds=2, num_rounds=2)
        config.encoders.vae.epochs = config.classifiers.mlp.epochs = 1
    return config
