"""Philipsen and Moeslund (2020): farthest points against random ones, to learn an object's orientation.

    python launch.py --config=configs/orientation_farthest_point.py
    python launch.py --config=configs/orientation_farthest_point.py:mnist --config.data.source.root=DIR

Images are labelled with their angle, batch by batch, until all are. Most training images are near one pose; the error
is measured over all poses alike.

    poses       2,000 images of a fish, made in memory, 90 % of them near one pose; a perceptron on the latents
    poses-cnn   a convolutional network on the images in its place
    mnist       10,000 MNIST digits, turned, 90 % of them little; without a root MNIST comes from TensorFlow Datasets
    smoke       the tiny size that tests launch

`poses` takes 8 minutes on two CPU cores. Expect after a quarter of the labels an error of 36 degrees with farthest
points and 58 with random ones, and of about 34 with all. docs/results.md has the rest.
"""

from ml_collections import ConfigDict, config_dict

PEAK = dict(share_near=0.9, spread=5.0, seed=0)
FARTHEST = dict(name="farthest_first")
ORDERS = {
    "random": (dict(name="random"), dict(name="random")),
    "farthest_first": (FARTHEST, FARTHEST),
    "coreset": (FARTHEST, dict(name="coreset")),
}
SIZES = {
    "poses": dict(
        train=2000, held_out=1000, query_size=100, seeds=10, side=32, hidden=(512, 256), epochs=60, passes=100
    ),
    "mnist": dict(query_size=500, seeds=10, hidden=(512, 256), epochs=30, passes=30),
    "smoke": dict(train=60, held_out=20, query_size=20, seeds=2, side=16, hidden=(16,), epochs=1, passes=2),
}


def get_config(spec="poses"):
    size, *changes = spec.split("-")
    if size not in SIZES or changes not in ([], ["cnn"]) or (changes and size == "mnist"):
        raise ValueError(f"unknown size {spec!r}; known: {', '.join(SIZES)}, poses-cnn and smoke-cnn.")
    chosen = SIZES[size]
    if size == "mnist":
        root = config_dict.placeholder(str)
        source = dict(name="mnist", root=root, data_dir=config_dict.placeholder(str), num_validation=50_000)
        data, num_train = dict(name="rotated", source=source, **PEAK), 10_000
    else:
        num_train = chosen["train"]
        sizes = dict(
            num_train=num_train, num_validation=chosen["held_out"], num_test=chosen["held_out"], side=chosen["side"]
        )
        data = dict(name="poses", **sizes, **PEAK)
    regressor = "cnn" if changes else "mlp"
    arm = dict(encoder="vae", classifier=regressor)
    cnn = dict(filters=(8, 16, 16), depth=1, units=128, dropout=0.1, learning_rate=1.0, batch_size=64)
    return ConfigDict(
        dict(
            num_seeds=chosen["seeds"],
            seeds_at_once=10,
            data=data,
            encoders=dict(
                vae=dict(
                    name="dense_vae",
                    hidden=chosen["hidden"],
                    latent_dim=20,
                    learning_rate=1e-3,
                    epochs=chosen["epochs"],
                    batch_size=100,
                    seed=0,
                )
            ),
            classifiers={
                "cnn": dict(name="angle_cnn", num_steps=10 * chosen["passes"], **cnn),
                "mlp": dict(
                    name="angle_mlp",
                    hidden=(256, 256),
                    dropout=0.1,
                    learning_rate=1e-3,
                    epochs=chosen["passes"],
                    batch_size=50,
                ),
            },
            initial=dict(name="random"),
            num_initial=chosen["query_size"],
            query_size=chosen["query_size"],
            num_rounds=num_train // chosen["query_size"] - 1,
            arms={name: dict(arm, initial=first, strategy=strategy) for name, (first, strategy) in ORDERS.items()},
            baseline="random",
            diagnostics=dict(orders=dict(name="query_order"))
            | (dict(training=dict(name="training_curves", arms=tuple(ORDERS))) if regressor == "cnn" else {}),
        )
    )
