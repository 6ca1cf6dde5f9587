"""Pezeshkpour, Zhao and Singh (2020), Figures 3 and 4: importance on images, ResNet-18 with few labels.

    python launch.py --config=configs/cifar100_ibal.py                                    # CIFAR-100, through TFDS
    python launch.py --config=configs/cifar100_ibal.py:cifar10_folder --config.data.root=DIR

    full            CIFAR-100, up to 250 labels, 5 seeds, as in the paper; for a GPU
    cifar10_folder  small images in DIR/train/CLASS/* and DIR/test/CLASS/*, narrow network; 14 minutes on two CPU cores
    smoke           the tiny size that tests launch, on a folder too

Expect about 24 % on the 10 classes of `cifar10_folder` with 250 labels, from random and from the others alike.
docs/results.md has the rest.
"""

from ml_collections import ConfigDict, config_dict

STRATEGIES = dict(
    random=dict(name="random"),
    entropy=dict(name="uncertainty", measure="entropy", pick="top_k"),
    ibal=dict(name="ibal"),
    ibal_d=dict(name="ibal_d", gamma=1.0),
    entropy_d=dict(name="entropy_d", gamma=1.0),
    distance=dict(name="distance"),
    badge=dict(name="badge"),
    bald=dict(name="bald", num_draws=10, pick="top_k"),
    coreset=dict(name="coreset"),
    typiclust=dict(name="typiclust", max_clusters=250, num_neighbours=20, iterations=20),
)
FOLDER = dict(name="image_folder", size=(16, 16), channels=3, num_test=0, skip_broken=False)
SIZES = {
    "full": dict(
        data=dict(name="tfds", dataset="cifar100", num_validation=5000),
        gammas=(0.1, 0.3, 1.0, 3.0, 10.0),
        arms=tuple(STRATEGIES),
        seeds=5,
        width=64,
        epochs=60,
        autoencoder=dict(filters=(32, 64), latent_dim=128, epochs=20),
        first=50,
        query_size=50,
        num_rounds=4,
    ),
    "cifar10_folder": dict(
        data=dict(FOLDER, num_validation=1000),
        gammas=(1.0,),
        arms=tuple(STRATEGIES),
        seeds=5,
        width=8,
        epochs=20,
        autoencoder=dict(filters=(16, 32), latent_dim=64, epochs=10),
        first=50,
        query_size=50,
        num_rounds=4,
    ),
    "smoke": dict(
        data=dict(FOLDER, num_validation=10),
        gammas=(0.5,),
        arms=("random", "ibal_d", "bald"),
        seeds=2,
        width=2,
        epochs=1,
        autoencoder=dict(filters=(2, 2), latent_dim=4, epochs=1),
        first=8,
        query_size=4,
        num_rounds=1,
    ),
}


def get_config(size="full"):
    if size not in SIZES:
        raise ValueError(f"unknown size {size!r}; known: {', '.join(SIZES)}.")
    sizes = SIZES[size]
    place = "data_dir" if sizes["data"]["name"] == "tfds" else "root"
    network = dict(width=sizes["width"], dropout=0.2, learning_rate=0.05, weight_decay=5e-4)
    resnet = dict(name="resnet18", **network, epochs=sizes["epochs"], batch_size=32)
    two_layers = dict(depth=1, hidden=(), dropout=0.0, activation="linear")
    arms = {name: dict(encoder="ae", classifier="resnet", strategy=STRATEGIES[name]) for name in sizes["arms"]}
    for name in arms.keys() & {"ibal_d", "entropy_d"}:
        arms[name] |= dict(sweep=dict(gamma=sizes["gammas"]), keep="best")
    return ConfigDict(
        dict(
            num_seeds=sizes["seeds"],
            seeds_at_once=5,
            data=dict(sizes["data"], **{place: config_dict.placeholder(str)}),
            encoders=dict(
                ae=dict(name="conv_ae", **two_layers, **sizes["autoencoder"], learning_rate=1.0, batch_size=64, seed=0)
            ),
            classifiers=dict(resnet=dict(name="refitted", l2=1e-3, classifier=resnet)),
            initial=dict(name="random"),
            num_initial=sizes["first"],
            query_size=sizes["query_size"],
            num_rounds=sizes["num_rounds"],
            arms=arms,
            baseline="random",
            diagnostics=dict(
                importance=dict(name="importance", arms=tuple(name for name in arms if "ibal" in name)),
                explanations=dict(name="explanations", arms=tuple(arms)),
            ),
        )
    )
