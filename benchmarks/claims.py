"""The claims of the four papers, and the launches of latent_al that can confirm or refute them."""

from typing import NamedTuple

SMALL = ("--config.num_seeds=2",)
SMALL_MNIST = (*SMALL, "--config.num_rounds=2", "--config.classifiers.mlp.epochs=1", "--config.encoders.vae.epochs=1")


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
    arm, other: LAUNCH/ARM. With `other` in a launch of its own, seeds pair by their number.
    quantity: of latent_al.results.statistics, or `validation at N` labels.
    expected: "above" or "below" zero, or "level": within one point on either side.
    """

    source: str
    text: str
    arm: str
    other: str
    quantity: str
    expected: str


def mnist_vae(size, *flags):
    return Launch(f"mnist_vae.py:{size}", ("--config.data.root={mnist}", *flags), SMALL_MNIST)


def latent_sampling(size, source="", small=SMALL):
    return Launch(f"mnist_latent_sampling.py:cpu{size}", (f"--config.data.{source}root={{mnist}}",), small)


FEW_STEPS = (*SMALL, "--config.classifiers.cnn.num_steps=3")
ONE_EPOCH = tuple(f"--config.encoders.{name}.epochs=1" for name in ("conv", "vae", "tsne", "vae_tsne"))
TRAININGS = [f"vae_{weight}_{seed}" for weight in ("1", "64th") for seed in range(5)]
ONE_EPOCH_EACH = tuple(f"--config.encoders.{name}.epochs=1" for name in TRAININGS)
CONV = "--config.encoders.vae.epochs=15"
LAUNCHES = {
    "digits": Launch("digits_vae.py", (), ("--config=configs/digits_vae.py:smoke",)),
    "dense": mnist_vae("best"),
    "conv": mnist_vae("conv-best", CONV),
    "conv_all_labels": mnist_vae("conv-all_labels", CONV, "--config.num_seeds=5"),
    "gan": mnist_vae("gan-best"),
    "learners": mnist_vae("learners"),
    "uncertainty": mnist_vae("uncertainty"),
    "representativeness": mnist_vae("representativeness"),
    "pixel_representativeness": mnist_vae("pixel_representativeness"),
    "diversity": mnist_vae("diversity"),
    "balanced_100": latent_sampling("-100", small=(*FEW_STEPS, *ONE_EPOCH)),
    "balanced_1000": latent_sampling("", small=(*FEW_STEPS, *ONE_EPOCH)),
    "unbalanced_100": latent_sampling("-unbalanced-100", "source.", (*FEW_STEPS, *ONE_EPOCH)),
    "unbalanced_1000": latent_sampling("-unbalanced", "source.", (*FEW_STEPS, *ONE_EPOCH)),
    "trainings": latent_sampling("-unbalanced-100-trainings", "source.", (*FEW_STEPS, *ONE_EPOCH_EACH)),
    "starts": latent_sampling("-unbalanced-100-starts", "source.", (*FEW_STEPS, ONE_EPOCH[1], "--config.num_rounds=1")),
    "poses": Launch("orientation_farthest_point.py", (), ("--config=configs/orientation_farthest_point.py:smoke",)),
    "three_classes": Launch("synthetic_ibal.py", (), (*SMALL, "--config.num_rounds=1")),
    "three_classes_batches": Launch("synthetic_ibal.py:batches", (), (*SMALL, "--config.num_rounds=1")),
}

TONNAER, KILLEEN = "Tonnaer (2017)", "Killeen (2019)"
PHILIPSEN, PEZESHKPOUR = "Philipsen and Moeslund (2020)", "Pezeshkpour et al. (2020)"
TEST = "test_accuracy"


def on_both_vaes(text, arm, other, quantity, expected):
    """Yields the claim of the paper's convolutional VAE, and of the dense one."""
    for launch, name in (("conv", "convolutional"), ("dense", "dense")):
        yield Claim(TONNAER, f"{text}, {name} VAE", f"{launch}/{arm}", f"{launch}/{other}", quantity, expected)


MARGIN_AHEAD = "margin is ahead of random on latents"
LATENTS_AHEAD = "latents are ahead of pixels by"
CLAIMS = (
    *on_both_vaes(MARGIN_AHEAD, "latents_margin", "latents_random", TEST, "above"),
    Claim(TONNAER, "margin is ahead of random on pixels", "dense/pixels_margin", "dense/pixels_random", TEST, "above"),
    *on_both_vaes(f"{LATENTS_AHEAD} margin", "latents_margin", "pixels_margin", TEST, "above"),
    *on_both_vaes(f"{LATENTS_AHEAD} random", "latents_random", "pixels_random", TEST, "above"),
    *on_both_vaes("greedy batches help at first", "latents_greedy", "latents_margin", "validation at 300", "above"),
    *on_both_vaes("greedy batches are worse than margin at last", "latents_greedy", "latents_margin", TEST, "below"),
    Claim(
        TONNAER,
        "convolutional latents are better than dense ones",
        "conv/latents_margin",
        "dense/latents_margin",
        TEST,
        "above",
    ),
    Claim(
        TONNAER,
        "3,000 labels by margin come within one point of all 55,000",
        "conv/latents_margin",
        "conv_all_labels/latents_random",
        TEST,
        "level",
    ),
    Claim(
        KILLEEN,
        "clustered normal on the VAE is ahead of random, unbalanced, 100 images",
        "unbalanced_100/vae_clustered_normal",
        "unbalanced_100/random",
        TEST,
        "above",
    ),
    Claim(
        KILLEEN,
        "it is level with random, balanced, 1,000 images",
        "balanced_1000/vae_clustered_normal",
        "balanced_1000/random",
        TEST,
        "level",
    ),
    Claim(
        KILLEEN,
        "uniform on the VAE is behind random, 100 images",
        "balanced_100/vae_uniform",
        "balanced_100/random",
        TEST,
        "below",
    ),
    Claim(
        KILLEEN,
        "clusters help normal on the plain auto-encoder, 100 images",
        "balanced_100/conv_clustered_normal",
        "balanced_100/conv_normal",
        TEST,
        "above",
    ),
    Claim(
        PHILIPSEN,
        "farthest points need fewer labels than random ones: smaller error with a quarter of them",
        "poses/farthest_first",
        "poses/random",
        "validation at 500",
        "below",
    ),
    Claim(
        PEZESHKPOUR,
        "IBAL-D is ahead of random, balanced accuracy",
        "three_classes/ibal_d",
        "three_classes/random",
        "balanced_test_area",
        "above",
    ),
    Claim(
        PEZESHKPOUR,
        "IBAL-D is ahead of entropy",
        "three_classes/ibal_d",
        "three_classes/entropy",
        "balanced_test_area",
        "above",
    ),
    Claim(
        PEZESHKPOUR,
        "importance adds to the distance alone",
        "three_classes/ibal_d",
        "three_classes/distance",
        "balanced_test_area",
        "above",
    ),
)
