"""Pezeshkpour, Zhao and Singh (2020): importance on images, where representer values are exact: on a linear layer.

    python launch.py --config=configs/pretrained_ibal.py --config.data.root=DIR --config.encoders.latents.root=NETWORK

    full   128 principal components of the latents of a network; docs/labelling.md says how to get it; 20 seeds
    l2     the penalty of the linear layer from 0.01 to 10, all of which are compared
    smoke  the tiny size that tests launch; it needs no network

DIR holds train/ and test/ with one folder per class. The features are the latents, and the weights of the layer are
refitted, without bias, in each round, so that the layer has no part that representer values do not explain. As in the
paper there are 250 labels in the end, and gamma is tuned on validation images. 5,000 images take some minutes on two
CPU cores, once they have latents. Expect random to be ahead of IBAL by two points, and level with IBAL-D and the
distance alone; docs/results.md has the rest.

Embeddings made elsewhere replace the network as in configs/photos.py:

    --config.encoders.latents="{'name': 'precomputed', 'latents': 'train.npy', 'validation': 'validation.npy', \
'test': 'test.npy'}"
"""

from ml_collections import ConfigDict, config_dict

GAMMAS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
L2 = (1e-2, 1e-1, 1.0, 10.0)
STRATEGIES = dict(
    random=dict(name="random"),
    entropy=dict(name="uncertainty", measure="entropy", pick="top_k"),
    margin=dict(name="uncertainty", measure="margin", pick="top_k"),
    ibal=dict(name="ibal"),
    ibal_same_class=dict(name="ibal", targets="same_class"),
    ibal_centred=dict(name="ibal", centred=True),
    ibal_same_class_centred=dict(name="ibal", targets="same_class", centred=True),
    ibal_d=dict(name="ibal_d", gamma=1.0),
    ibal_d_same_class=dict(name="ibal_d", gamma=1.0, targets="same_class"),
    entropy_d=dict(name="entropy_d", gamma=1.0),
    distance=dict(name="distance"),
)
IN_L2 = ("random", "entropy", "margin", "ibal", "distance")
AUTOENCODER = dict(name="dense_vae", hidden=(8,), latent_dim=4, learning_rate=3e-4, epochs=1, batch_size=10, seed=0)
LINEAR = dict(name="mlp", hidden=(), dropout=0.0, learning_rate=1e-3, epochs=1, batch_size=50)
"""Without a hidden layer it passes its inputs on as features, on which `refitted` then trains the layer."""
SIZES = ("full", "l2", "smoke")


def make_arm(strategy, size):
    """Returns an arm with each l2, or with the gamma that is best on validation images."""
    arm = dict(encoder="latents", classifier="linear", strategy=strategy)
    if size == "l2":
        return arm | dict(sweep=dict(l2=L2))
    return arm | dict(sweep=dict(gamma=GAMMAS), keep="best") if "gamma" in strategy else arm


def get_config(size="full"):
    if size not in SIZES:
        raise ValueError(f"unknown size {size!r}; known: {', '.join(SIZES)}.")
    smoke = size == "smoke"
    arms = {name: make_arm(STRATEGIES[name], size) for name in (IN_L2 if size == "l2" else STRATEGIES)}
    return ConfigDict(
        dict(
            num_seeds=2 if smoke else 20,
            seeds_at_once=20,
            data=dict(
                name="image_folder",
                root=config_dict.placeholder(str),
                size=(8, 8) if smoke else (32, 32),
                channels=3,
                num_validation=10 if smoke else 1000,
                num_test=0,
                skip_broken=False,
            ),
            encoders=dict(
                latents=AUTOENCODER if smoke else dict(name="onnx", root="models/dinov2-small", latent_dim=128)
            ),
            classifiers=dict(linear=dict(name="refitted", l2=0.1, classifier=LINEAR)),
            initial=dict(name="random"),
            num_initial=8 if smoke else 50,
            query_size=4 if smoke else 50,
            num_rounds=1 if smoke else 4,
            arms=arms,
            baseline="random_l2_0.1" if size == "l2" else "random",
            diagnostics=dict(
                importance=dict(name="importance", arms=("random", "ibal", "ibal_d")),
                same_class=dict(name="importance", arms=("random", "ibal_same_class"), targets="same_class"),
            )
            if size != "l2"
            else {},
        )
    )
