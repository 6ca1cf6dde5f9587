"""Your own unlabelled images: which ones to label first, and next, until more labels no longer pay.

    python launch.py --config=configs/folder.py --config.data.root=IMAGES --workdir=runs/mine

The first call learns a latent space from the images, and asks for an initial labelled set and an audit slice. Label
them as docs/labelling.md shows, and run the same command again: it trains, reports how good it is, and asks for the
next batch. With 5,000 images of 32 x 32 the first question comes after half a minute on two CPU cores, and each round
takes about ten seconds.

    python launch.py --config=configs/folder.py:pretrained --config.data.root=IMAGES --config.encoder.root=NETWORK

uses the latents of a pretrained network, which work far better for photographs; docs/labelling.md says how to get one.
"""

from ml_collections import ConfigDict, config_dict


def get_config(size="full"):
    if size not in ("full", "pretrained", "smoke"):
        raise ValueError(f"unknown size {size!r}; known: full, pretrained, smoke.")
    smoke = size == "smoke"
    encoder = dict(
        name="dense_vae",
        hidden=(32,) if smoke else (512, 256),
        latent_dim=4 if smoke else 64,
        learning_rate=3e-4,  # for 32 x 32; 1e-4 for 64 x 64
        epochs=2 if smoke else 30,
        batch_size=20 if smoke else 100,
        seed=0,
    )
    side = 8 if smoke else 32
    classifier = dict(
        name="mlp",
        hidden=(16,) if smoke else (256,),
        dropout=0.2,
        learning_rate=1e-3,
        epochs=10 if smoke else 60,
        batch_size=20,
    )
    # With such latents hardly any strategy is ahead of random on photographs; on digits this one is: docs/results.md.
    strategy = dict(name="uncertainty", measure="margin", pick="top_k")
    if size == "pretrained":
        # The network reads the files at its own size; data.size is that of the pictures that stand in for lost files.
        encoder, side = dict(name="onnx", root=config_dict.placeholder(str)), 64
        classifier = dict(name="logistic_regression")
        # Ahead of random from 50 to 500 labels of photographs, and quick: docs/which_strategy.md.
        strategy = dict(
            name="greedy_diverse", measure="margin", representativeness=None, alpha=0.5, beta=0.0, distance="euclidean"
        )
    return ConfigDict(
        dict(
            job="labelling",
            data=dict(root=config_dict.placeholder(str), size=(side, side), channels=3),
            # ("cat", "dog") refuses any other label; () lets classes appear as people name them.
            classes=(),
            # Images drawn at random, labelled only to measure accuracy; all other images are chosen.
            audit=20 if smoke else 100,
            num_initial=10 if smoke else 50,
            query_size=10 if smoke else 50,
            encoder=encoder,
            classifier=classifier,
            initial=dict(name="typical", iterations=20),
            strategy=strategy,
            seed=0,
        )
    )
