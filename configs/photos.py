"""Strategies on labelled photographs, replayed on a pretrained network's latents: which pays, from how many labels on?

    python launch.py --config=configs/photos.py --config.data.root=DIR --config.encoders.latents.root=NETWORK

    full         128 principal components of the latents of a network; docs/labelling.md says how to get it
    autoencoder  the latents of the small auto-encoder of configs/folder.py, trained on the same images
    smoke        the tiny size that tests launch; it needs no network

5,000 images take a quarter of an hour on two CPU cores, once they have latents. On CIFAR-10 with a small ImageNet
network, expect 51 % with random at 50 labels and eight points more with typiclust, and at 510 labels one point more
with margin, badge or greedy diverse batches; docs/results.md has the rest.

DIR holds one folder per class, or train/ and perhaps test/ with one folder per class each. The held-out images are the
same for all seeds. Embeddings made elsewhere, in the order that docs/experiments.md gives, replace the whole network:

    --config.encoders.latents="{'name': 'precomputed', 'latents': 'train.npy', 'validation': 'validation.npy'}"
"""

from ml_collections import ConfigDict, config_dict

STRATEGIES = dict(
    random=dict(name="random"),
    typical=dict(name="typical", iterations=20),
    typiclust=dict(name="typiclust", max_clusters=500, num_neighbours=20, iterations=20),
    core_set=dict(name="farthest_first"),
    margin=dict(name="uncertainty", measure="margin", pick="top_k"),
    badge=dict(name="badge"),
    greedy_diverse=dict(
        name="greedy_diverse", measure="margin", representativeness=None, alpha=0.5, beta=0.0, distance="euclidean"
    ),
    uncertain_farthest_first=dict(name="uncertain_farthest_first", measure="margin", share=0.2, space="latents"),
)
FROM_THE_START = ("core_set", "typical", "typiclust")
"""Strategies that need no classifier: they select the initial labelled set too, which is random for all others."""
AUTOENCODER = dict(name="dense_vae", hidden=(512, 256), latent_dim=64, learning_rate=3e-4, epochs=30)
SIZES = {
    "full": dict(encoder=dict(name="onnx", root="models/dinov2-small", latent_dim=128), num_seeds=20, num_rounds=25),
    "autoencoder": dict(encoder=dict(AUTOENCODER, batch_size=100, seed=0), num_seeds=20, num_rounds=25),
    "smoke": dict(
        encoder=dict(AUTOENCODER, hidden=(8,), latent_dim=4, epochs=1, batch_size=10, seed=0), num_seeds=2, num_rounds=1
    ),
}


def get_config(size="full"):
    if size not in SIZES:
        raise ValueError(f"unknown size {size!r}; known: {', '.join(SIZES)}.")
    sizes, smoke = SIZES[size], size == "smoke"
    arms = {
        name: dict(encoder="latents", classifier="logistic_regression", strategy=strategy)
        for name, strategy in STRATEGIES.items()
    }
    for name in FROM_THE_START:
        arms[name]["initial"] = STRATEGIES[name]
    return ConfigDict(
        dict(
            num_seeds=sizes["num_seeds"],
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
            encoders=dict(latents=sizes["encoder"]),
            classifiers=dict(logistic_regression=dict(name="logistic_regression")),
            initial=dict(name="random"),
            num_initial=10,
            query_size=10 if smoke else 20,
            num_rounds=sizes["num_rounds"],
            arms=arms,
            baseline="random",
        )
    )
