"""Active learning in VAE latent space, Tonnaer (2017), on MNIST and on SVHN's cropped digits: one experiment a size.

    python launch.py --config=configs/mnist_vae.py --config.data.root=DIR            # a folder of the IDX files
    python launch.py --config=configs/mnist_vae.py:diversity --encoders=runs/encoders
    python launch.py --config=configs/mnist_vae.py:svhn-best --config.data.root=DIR  # train_32x32.mat, test_32x32.mat

Without a root the images come from TensorFlow Datasets. Sizes share trained encoders through --encoders.

    best                      Table 5.4, Figures 5.22 and 5.23     25 minutes on two CPU cores
    all_labels                Table 5.4, the classifier on all 55,000 labels; 15 minutes
    uncertainty               Figure 5.9: three measures, four ways to pick
    pixels                    Figure 5.11: margin and random, latents against pixels
    representativeness        Figure 5.17: seven measures, three weights, and the product of section 2.1.2
    pixel_representativeness  Figure 5.19: three measures, three weights
    diversity                 Figure 5.20: four distances, three weights
    learners                  chapter 7: other classifiers of the latents, with margin and random
    synthesis                 chapter 7: synthesised queries, and the pool's rows nearest to them, to 1,000 labels
    trainings                 margin and random on five trainings of the VAE, 5 seeds each
    mlps                      Tables 5.1 and 5.2, Figures 5.1 to 5.7 and 5.12 to 5.16: three encoders and the pixels, 18
                              classifiers; 40 minutes
    smoke                     the tiny size that tests launch; smoke_synthesis, that of synthesis

They run on the dense VAE, whose 64 epochs take three minutes. `conv-best` and so on use the convolutional VAE of Table
4.1 instead: 64 epochs on a GPU, or --config.encoders.vae.epochs=15 and 20 minutes on two cores. `gan-best` and so on
use the VAE/GAN of Larsen et al. (2016).

From `best` expect a validation loss of 101.7, and after 3,000 labels a test accuracy of 97.0 % with margin and 95.1 %
with random on latents, 96.9 % and 94.1 % on pixels. From `conv-best` with 15 epochs expect a validation loss of 63.0,
and 98.1 % with margin, 97.5 % with greedy batches and 95.8 % with random on latents. docs/results.md has the rest.

`svhn-best` (Table 5.5, Figure 5.24), `svhn-all_labels` (Table 5.5), `svhn-uncertainty` (Figure 5.10),
`svhn-representativeness` (Figure 5.18), `svhn-diversity` (Figure 5.21) and `svhn-mlps` (Tables 5.1 and 5.3, Figures 5.3
to 5.8 and 5.15) are the same on SVHN in grey, on the convolutional VAE with 50 dimensions, whose 64 epochs want a GPU;
`svhn-dense-mlps` uses the dense encoders. After 3,000 labels Tonnaer reports a test accuracy of 70.8 % with margin,
70.7 % with greedy batches and 68.5 % with random. It was not run here: docs/results.md says why.
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
LEARNERS = ("gaussian_process", "label_spreading", "logistic_regression", "nearest_neighbours")
TRAININGS = [f"vae_seed_{seed}" for seed in range(5)]
RANDOM = dict(name="random")
MARGIN = dict(name="uncertainty", measure="margin", pick="random_partitions")


# For each data set: the encoder, its latent dimensions and those to compare it with, and the training images.
SETS = {
    "mnist": dict(kind="dense", latent_dim=30, other_dims=(2, 50), num_train=55_000),
    "svhn": dict(kind="conv", latent_dim=50, other_dims=(2, 30), num_train=68_257),
}


def vae(dataset, kind, latent_dim):
    is_short = latent_dim == 2 and (dataset == "svhn" or kind == "conv")
    training = dict(learning_rate=1e-3, epochs=32 if is_short else 64, batch_size=100, seed=0)
    if kind == "gan":
        training |= dict(epochs=10, batch_size=128)
        return dict(name="vae_gan", filters=(16, 32), hidden=128, gamma=0.1, latent_dim=latent_dim, **training)
    if kind == "dense":
        return dict(name="dense_vae", hidden=(512, 256), latent_dim=latent_dim, **training)
    return dict(name="conv_vae", kl_weight=1 / latent_dim, dtype="float32", latent_dim=latent_dim, **training)


def mlp(hidden):
    return dict(name="mlp", hidden=hidden, dropout=0.2, learning_rate=1e-3, epochs=20, batch_size=100)


def arm(strategy, *, encoder="vae", subsample=1.0, classifier="mlp"):
    return dict(encoder=encoder, classifier=classifier, subsample=subsample, strategy=strategy)


def informativeness(measure, gamma):
    names = dict(name="informativeness", measure="margin", pick="random_partitions")
    return dict(names, representativeness=measure, gamma=gamma)


def information_density(measure, beta):
    names = dict(name="information_density", measure="margin", pick="random_partitions")
    return dict(names, representativeness=dict(name=measure), beta=beta)


def greedy(distance, alpha):
    names = dict(name="greedy_diverse", measure="margin", distance=distance)
    return dict(names, representativeness=None, alpha=alpha, beta=0.0)


def best(dataset):
    on_latents = dict(
        latents_margin=arm(MARGIN, subsample=0.1),
        latents_greedy=arm(greedy("euclidean", 0.5), subsample=0.01),
        latents_random=arm(RANDOM),
    )
    return on_latents if dataset == "svhn" else on_latents | on_pixels()


def on_pixels():
    return dict(
        pixels_margin=arm(MARGIN, encoder="pixels", subsample=0.1),
        pixels_random=arm(RANDOM, encoder="pixels"),
    )


def pixels(dataset):
    return dict(latents_margin=arm(MARGIN, subsample=0.1), latents_random=arm(RANDOM), **on_pixels())


def all_labels(dataset):
    return dict(latents_random=arm(RANDOM), pixels_random=arm(RANDOM, encoder="pixels"))


def uncertainty(dataset):
    arms = {"latents_random": arm(RANDOM)}
    for measure in ("least_confident", "margin", "entropy"):
        for pick in ("top_k", "random_partitions"):
            strategy = dict(name="uncertainty", measure=measure, pick=pick)
            arms[f"{measure}_{pick}"] = arm(strategy)
            arms[f"{measure}_{pick}_subsampled"] = arm(strategy, subsample=0.1)
    return arms


def representativeness(dataset):
    arms = {"latents_random": arm(RANDOM), "latents_margin": arm(MARGIN, subsample=0.1)}
    for measure in MEASURES:
        for gamma in WEIGHTS:
            arms[f"{measure}_gamma_{100 * gamma:.0f}"] = arm(informativeness(dict(name=measure), gamma), subsample=0.1)
        arms[f"{measure}_product"] = arm(information_density(measure, beta=1.0), subsample=0.1)
    return arms


def pixel_representativeness(dataset):
    arms = on_pixels()
    for measure in MEASURES[:3]:
        for gamma in WEIGHTS:
            strategy = informativeness(dict(name=measure, unit_cube=True), gamma)
            arms[f"{measure}_gamma_{100 * gamma:.0f}"] = arm(strategy, encoder="pixels", subsample=0.1)
    return arms


def diversity(dataset):
    arms = {"latents_random": arm(RANDOM), "latents_margin": arm(MARGIN, subsample=0.1)}
    for distance in DISTANCES:
        for alpha in WEIGHTS:
            arms[f"{distance}_alpha_{100 * alpha:.0f}"] = arm(greedy(distance, alpha), subsample=0.01)
    return arms


def learners(dataset):
    return {
        f"{learner}_{name}": arm(strategy, subsample=subsample, classifier=learner)
        for learner in ("mlp", *LEARNERS)
        for name, strategy, subsample in (("margin", MARGIN, 0.1), ("random", RANDOM, 1.0))
    }


def synthesis(dataset):
    ascent = dict(measure="margin", num_restarts=3, num_steps=30, step_size=0.5)
    arms = {"latents_random": arm(RANDOM), "latents_margin": arm(MARGIN, subsample=0.1)}
    for name, prior_weight in (("", 0.0), ("_with_prior", 0.1)):
        settings = dict(ascent, prior_weight=prior_weight)
        arms[f"synthesised{name}"] = arm(dict(name="query_synthesis", radius=1.0, **settings))
        arms[f"nearest{name}"] = arm(dict(name="nearest_to_synthesised", **settings))
    return arms


def trainings(dataset):
    return {
        f"{name}_{encoder}": arm(strategy, encoder=encoder, subsample=subsample)
        for encoder in TRAININGS
        for name, strategy, subsample in (("margin", MARGIN, 0.1), ("random", RANDOM, 1.0))
    }


def mlps(dataset):
    encoders = ["vae", *[f"vae_{dim}" for dim in SETS[dataset]["other_dims"]], "pixels"]
    return {
        f"{encoder}_{name}": arm(RANDOM, encoder=encoder, classifier=name) | dict(sweep=dict(dropout=(0.2, 0.35, 0.5)))
        for encoder in encoders
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
    learners=learners,
    synthesis=synthesis,
    trainings=trainings,
    mlps=mlps,
    smoke=best,
    smoke_synthesis=synthesis,
)


def get_config(spec="best"):
    *changes, size = spec.split("-")
    dataset = "svhn" if changes[:1] == ["svhn"] else "mnist"
    kind, *more = changes[dataset == "svhn" :] or [SETS[dataset]["kind"]]
    if size not in ARMS or kind not in ("dense", "conv", "gan") or more:
        raise ValueError(
            f"unknown size {spec!r}; known: {', '.join(ARMS)}; dense-, conv- or gan- may precede each, and svhn- all "
            "of these."
        )
    arms = ARMS[size](dataset)
    encoders = {f"vae_{dim}": vae(dataset, kind, dim) for dim in SETS[dataset]["other_dims"]}
    encoders |= {
        name: vae(dataset, kind, SETS[dataset]["latent_dim"]) | dict(seed=seed) for seed, name in enumerate(TRAININGS)
    }
    encoders |= dict(vae=vae(dataset, kind, SETS[dataset]["latent_dim"]), pixels=dict(name="identity"))
    classifiers = {layout(hidden): mlp(hidden) for hidden in LAYOUTS}
    classifiers |= dict(mlp=mlp((512, 512)), **{name: dict(name=name) for name in LEARNERS})
    baselines = dict(
        pixel_representativeness="pixels_random",
        learners="mlp_random",
        trainings="random_vae_seed_0",
        mlps="vae_mlp_512_512_dropout_0.2",
    )
    with_all_labels = size in ("all_labels", "mlps")
    config = ConfigDict(
        dict(
            num_seeds=dict(mlps=1, trainings=5).get(size, 10),
            seeds_at_once=10,
            data=dict(
                name=dataset,
                root=config_dict.placeholder(str),
                data_dir=config_dict.placeholder(str),
                num_validation=5000,
            ),
            encoders={name: encoders[name] for name in {arm["encoder"] for arm in arms.values()}},
            classifiers={name: classifiers[name] for name in {arm["classifier"] for arm in arms.values()}},
            initial=RANDOM,
            num_initial=SETS[dataset]["num_train"] if with_all_labels else 100,
            query_size=100,
            num_rounds=0 if with_all_labels else 29,
            arms=arms,
            baseline=baselines.get(size, "latents_random"),
        )
    )
    if "synthesis" in size:
        config.num_rounds = 9
        config.diagnostics = dict(decoded=dict(name="decoded_queries", arms=tuple(arms), num_initial=100, epochs=5))
    if "smoke" in size:
        config.update(num_seeds=2, num_rounds=2)
        config.encoders.vae.epochs = config.classifiers.mlp.epochs = 1
    return config
