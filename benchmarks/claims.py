"""The claims of the four papers, and the launches of latent_al that can confirm or refute them."""

from typing import NamedTuple

SMALL = ("--config.num_seeds=2",)
SMALL_ROUNDS = (*SMALL, "--config.num_rounds=2", "--config.classifiers.mlp.epochs=1")
FEW_IMAGES = ("--config.data.num_validation=500", "--config.num_initial=20", "--config.query_size=20")
SMALL_PIXELS = (*SMALL_ROUNDS, *FEW_IMAGES)
SMALL_MNIST = (*SMALL_PIXELS, "--config.encoders.vae.epochs=1")
ALL_LABELS = ("--config.num_initial=2500", "--config.num_rounds=0")


class Launch(NamedTuple):
    """A run of launch.py.

    config: of configs/, with its size.
    flags: `{mnist}` and such stand for the folder of a data set.
    small: what `--size=smoke` adds, or the config in place of this one.
    """

    config: str
    flags: tuple[str, ...] = ()
    small: tuple[str, ...] = SMALL


class Claim(NamedTuple):
    """A paired difference of one arm from another, and what a paper expects of it.

    source: author and year.
    where: the data and the space of the comparison.
    expected: "above" or "below" zero, "level": within one point on either side, or "no gain": less than a point above.
    quantity: of latent_al.results.statistics, or `SPLIT at N`, the score with N labels.
    arm, other: LAUNCH/ARM. A * in `arm` stands for several encoders, one in `other` too for the same ones. The pairs
        are then the means over encoders or those over seeds, whichever have the wider interval. With `other` in a
        launch of its own, seeds pair by number.
    """

    source: str
    text: str
    where: str
    expected: str
    quantity: str
    arm: str
    other: str

    @property
    def key(self) -> str:
        """Returns the name of the claim on record."""
        return f"{self.text} ({self.where})"


def mnist_vae(size, *flags, small=SMALL_MNIST):
    return Launch(f"mnist_vae.py:{size}", ("--config.data.root={mnist}", *flags), small)


def of_encoders(setting, prefix, names):
    return [f"--config.encoders.{prefix}{name}.{setting}" for name in names]


def balanced(changes, *small):
    small = ("--config.data.num_validation=500", *small)
    return Launch(f"mnist_latent_sampling.py:cpu{changes}", ("--config.data.root={mnist}",), small)


def unbalanced(changes, *small):
    few_images = ("--config.data.source.num_validation=500", "--config.data.num_copies=200")
    small = (tiny(f"-unbalanced{changes}"), *few_images, *small)
    return Launch(f"mnist_latent_sampling.py:cpu-unbalanced{changes}", ("--config.data.source.root={mnist}",), small)


def tiny(changes):
    return f"--config=configs/mnist_latent_sampling.py:smoke{changes}"


FEW_STEPS = (*SMALL, "--config.classifiers.cnn.num_steps=10")
ONE_EPOCH = of_encoders("epochs=1", "", ("conv", "vae", "tsne", "vae_tsne"))
# The tiny network's latents would all be equal by the rate of the config.
TINY_VAE = ("--config.encoders.vae.learning_rate=0.1",)
TINY_TRAININGS = [flag for name in ("vae_1_", "vae_64th_") for flag in of_encoders("learning_rate=0.1", name, range(5))]
FEW_POSES = ("--config.num_rounds=4", "--config.encoders.space.epochs=1", "--config.classifiers.mlp.epochs=2")
CONV = "--config.encoders.vae.epochs=15"
LAUNCHES = {
    "digits": Launch("digits_vae.py", (), ("--config=configs/digits_vae.py:smoke",)),
    "dense": mnist_vae("best"),
    "conv": mnist_vae("conv-best", CONV),
    "conv_all_labels": mnist_vae("conv-all_labels", CONV, "--config.num_seeds=5", small=(*SMALL_MNIST, *ALL_LABELS)),
    "gan": mnist_vae("gan-best"),
    "learners": mnist_vae("learners"),
    "encoders": mnist_vae("trainings", small=(*SMALL_PIXELS, *of_encoders("epochs=1", "vae_seed_", range(5)))),
    "uncertainty": mnist_vae("uncertainty"),
    "representativeness": mnist_vae("representativeness"),
    "pixel_representativeness": mnist_vae("pixel_representativeness", small=SMALL_PIXELS),
    "diversity": mnist_vae("diversity"),
    "cifar10": Launch(
        "cifar10_vae.py", ("--config.data.root={cifar10}",), (*SMALL_ROUNDS, "--config.encoders.vae.epochs=1")
    ),
    "balanced_100": balanced("-100", *FEW_STEPS, *ONE_EPOCH),
    "balanced_1000": balanced("", tiny(""), *TINY_VAE),
    "unbalanced_100": unbalanced("-100", *TINY_VAE),
    "unbalanced_1000": unbalanced("", *TINY_VAE),
    "trainings": unbalanced("-100-trainings", *TINY_TRAININGS),
    "starts": unbalanced("-100-starts", *TINY_VAE, "--config.num_rounds=1"),
    "poses": Launch("orientation_farthest_point.py", (), (*SMALL, *FEW_POSES)),
    "poses_gan": Launch("orientation_farthest_point.py:poses-gan", ("--config.num_rounds=9",), (*SMALL, *FEW_POSES)),
    "three_classes": Launch("synthetic_ibal.py", (), (*SMALL, "--config.num_rounds=1")),
    "pretrained": Launch(
        "pretrained_ibal.py", ("--config.data.root={cifar10}", "--config.encoders.latents.root={network}")
    ),
    "three_classes_batches": Launch("synthetic_ibal.py:batches", (), (*SMALL, "--config.num_rounds=1")),
}

TONNAER, KILLEEN = "Tonnaer (2017)", "Killeen (2019)"
PHILIPSEN, PEZESHKPOUR = "Philipsen and Moeslund (2020)", "Pezeshkpour et al. (2020)"
TEST = "test_accuracy"
ON_BOTH_VAES = (
    ("margin is ahead of random on latents", "above", TEST, "latents_margin", "latents_random"),
    ("margin is ahead of random on pixels", "above", TEST, "pixels_margin", "pixels_random"),
    ("latents are ahead of pixels, by margin", "above", TEST, "latents_margin", "pixels_margin"),
    ("latents are ahead of pixels, at random", "above", TEST, "latents_random", "pixels_random"),
    ("greedy batches are ahead of margin at first", "above", "validation at 300", "latents_greedy", "latents_margin"),
    ("greedy batches are behind margin at last", "below", TEST, "latents_greedy", "latents_margin"),
)
MEASURES = (
    ("entropy is ahead of random", "above", "entropy_top_k", "latents_random"),
    ("least confidence is ahead of random", "above", "least_confident_top_k", "latents_random"),
    ("margin is ahead of entropy", "above", "margin_top_k", "entropy_top_k"),
    ("top k is level with random partitions, by margin", "level", "margin_top_k", "margin_random_partitions"),
    ("a tenth of the pool is level with all of it, by margin", "level", "margin_top_k_subsampled", "margin_top_k"),
)
DENSITY, GREEDY = "cosine density adds nothing to margin", "greedy batches add nothing to margin"
NO_GAIN = (
    (DENSITY, "dense VAE", "representativeness", "cosine_density_gamma_50", "latents_margin"),
    (DENSITY, "pixels", "pixel_representativeness", "cosine_density_gamma_50", "pixels_margin"),
    (GREEDY, "dense VAE", "diversity", "euclidean_alpha_50", "latents_margin"),
)
CLUSTERED_AHEAD = "clustered normal is far ahead of random on the VAE"
QUARTER = "farthest points have a smaller error than random ones with a quarter of the labels"
IBAL_AHEAD = {
    "IBAL-D is ahead of random": "random",
    "IBAL-D is ahead of entropy": "entropy",
    "importance adds to the distance": "distance",
}


def on_both_vaes():
    for launch, name in (("conv", "convolutional VAE"), ("dense", "dense VAE")):
        for text, expected, quantity, arm, other in ON_BOTH_VAES:
            arms = (f"{launch}/{arm}", f"{launch}/{other}")
            yield Claim(TONNAER, text, f"MNIST, {name}", expected, quantity, *arms)


def on_measures():
    for text, expected, arm, other in MEASURES:
        yield Claim(TONNAER, text, "MNIST, dense VAE", expected, TEST, f"uncertainty/{arm}", f"uncertainty/{other}")


def on_no_gain():
    for text, where, launch, arm, other in NO_GAIN:
        yield Claim(TONNAER, text, f"MNIST, {where}", "no gain", TEST, f"{launch}/{arm}", f"{launch}/{other}")


def on_query_sets(text, launch, expected, arm, other="random", where=""):
    balance, size = launch.split("_")
    where = where or f"MNIST, {balance}, {size} images"
    return Claim(KILLEEN, text, where, expected, TEST, f"{launch}/{arm}", f"{launch}/{other}")


def on_trainings(weight, name):
    where = f"MNIST, unbalanced, 100 images, five trainings with KL weight {weight}"
    return Claim(KILLEEN, CLUSTERED_AHEAD, where, "above", TEST, f"trainings/{name}_*", "trainings/random")


def on_poses(where, launch, split):
    arms = (f"{launch}/farthest_first", f"{launch}/random")
    return Claim(PHILIPSEN, QUARTER, where, "below", f"{split} at 500", *arms)


def on_both_tasks():
    for launch, where, quantity in (
        ("three_classes", "three classes in the plane", "balanced_test_area"),
        ("pretrained", "CIFAR-10, linear layer on a pretrained network", "test_area"),
    ):
        for text, other in IBAL_AHEAD.items():
            yield Claim(PEZESHKPOUR, text, where, "above", quantity, f"{launch}/ibal_d", f"{launch}/{other}")


def on_encoders(text, arm, other):
    return Claim(TONNAER, text, "MNIST, five trainings of the dense VAE", "above", TEST, f"encoders/{arm}_*", other)


CLAIMS = (
    *on_both_vaes(),
    *on_measures(),
    *on_no_gain(),
    on_encoders(ON_BOTH_VAES[0][0], "margin", "encoders/random_*"),
    on_encoders(ON_BOTH_VAES[2][0], "margin", "dense/pixels_margin"),
    on_encoders(ON_BOTH_VAES[3][0], "random", "dense/pixels_random"),
    on_query_sets(CLUSTERED_AHEAD, "unbalanced_100", "above", "vae_clustered_normal"),
    on_trainings("1", "vae_1"),
    on_trainings("1/64", "vae_64th"),
    on_query_sets("clustered normal is level with random on the VAE", "balanced_1000", "level", "vae_clustered_normal"),
    on_query_sets("uniform is behind random on the VAE", "balanced_100", "below", "vae_uniform"),
    on_poses("drawn fish, dense VAE, test poses uniform", "poses", "validation"),
    on_poses("drawn fish, dense VAE, test poses like the pool's", "poses", "test"),
    on_poses("drawn fish, VAE/GAN, test poses uniform", "poses_gan", "validation"),
    on_poses("drawn fish, VAE/GAN, test poses like the pool's", "poses_gan", "test"),
    *on_both_tasks(),
)
