"""Margin and greedy batches against random on a folder of CIFAR-10 in grey, a set that is hard for these latents.

    python launch.py --config=configs/cifar10_vae.py --config.data.root=DIR    # DIR/train/CLASS/* and DIR/test/CLASS/*

    full   10 seeds
    smoke  the tiny size that tests launch

Any folder of small images with even sides will do. It uses the convolutional VAE with 50 dimensions and the MLP of
Tonnaer (2017), and 1,000 labels.
"""

from ml_collections import ConfigDict, config_dict

MARGIN = dict(name="uncertainty", measure="margin", pick="random_partitions")
GREEDY = dict(
    name="greedy_diverse", measure="margin", representativeness=None, alpha=0.5, beta=0.0, distance="euclidean"
)


def get_config(size="full"):
    if size not in ("full", "smoke"):
        raise ValueError(f"unknown size {size!r}; known: full, smoke.")
    smoke = size == "smoke"
    return ConfigDict(
        dict(
            num_seeds=2 if smoke else 10,
            seeds_at_once=10,
            data=dict(
                name="image_folder",
                root=config_dict.placeholder(str),
                size=(32, 32),
                channels=1,
                num_validation=10 if smoke else 500,
                num_test=0,
                skip_broken=False,
            ),
            encoders=dict(
                vae=dict(
                    name="conv_vae",
                    latent_dim=50,
                    kl_weight=1 / 50,
                    dtype="float32",
                    learning_rate=1e-3,
                    epochs=1 if smoke else 30,
                    batch_size=100,
                    seed=0,
                ),
            ),
            classifiers=dict(
                mlp=dict(
                    name="mlp",
                    hidden=(512, 512),
                    dropout=0.2,
                    learning_rate=1e-3,
                    epochs=1 if smoke else 20,
                    batch_size=100,
                ),
            ),
            initial=dict(name="random"),
            num_initial=10 if smoke else 50,
            query_size=5 if smoke else 50,
            num_rounds=1 if smoke else 19,
            arms=dict(
                random=dict(encoder="vae", classifier="mlp", strategy=dict(name="random")),
                margin=dict(encoder="vae", classifier="mlp", strategy=MARGIN),
                greedy=dict(encoder="vae", classifier="mlp", strategy=GREEDY),
            ),
            baseline="random",
        )
    )
