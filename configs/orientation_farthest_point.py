"""Philipsen and Moeslund (2020): farthest points against random ones, to learn an object's orientation.

    python launch.py --config=configs/orientation_farthest_point.py
    python launch.py --config=configs/orientation_farthest_point.py:mnist --config.data.source.root=DIR

Images are labelled with their angle, batch by batch, until all are. Most training images are near one pose. The same
models are scored on validation images in all poses alike and on test images that are drawn like the training images.

    poses       2,000 images of a fish, made in memory, 90 % of them near one pose; a perceptron on the latents
    poses_1000  1,000 images, 80 % of them near the pose, so that there are 200 elsewhere too
    poses_4000  4,000 images, 95 % of them near the pose
    mnist       10,000 MNIST digits, turned, 90 % of them little; without a root MNIST comes from TensorFlow Datasets
    smoke       the tiny size that tests launch

All but `mnist` have variants, such as `poses-gan`, without the arm `coreset`:

    cnn         a convolutional network on the images in place of the perceptron on the latents
    gan         the VAE/GAN of Larsen et al. (2016), which the paper cites, in place of the dense VAE
    conv_ae     a convolutional auto-encoder that is not variational
    conv_vae    the VAE of the same network

`poses` takes 8 minutes on two CPU cores. After a quarter of the labels, expect an error of 36 degrees with farthest
points and 58 with random ones in all poses alike, against about 34 with all labels; in poses like the pool's, expect
4.4 and 6.8. On `poses-gan` the errors in all poses alike are 7 and 16. docs/results.md has the rest.
"""

from ml_collections import ConfigDict, config_dict

FARTHEST = dict(name="farthest_first")
ORDERS = {
    "random": (dict(name="random"), dict(name="random")),
    "farthest_first": (FARTHEST, FARTHEST),
}
CORESET = {"coreset": (FARTHEST, dict(name="coreset"))}
FISH = dict(train=2000, held_out=1000, query_size=100, seeds=10, side=32, hidden=(512, 256), epochs=60, passes=100)
SIZES = {
    "poses": FISH,
    "poses_1000": FISH | dict(train=1000, share_near=0.8),
    "poses_4000": FISH | dict(train=4000, share_near=0.95),
    "mnist": dict(query_size=500, seeds=10, hidden=(512, 256), epochs=30, passes=30),
    "smoke": dict(train=60, held_out=20, query_size=20, seeds=2, side=16, hidden=(16,), epochs=1, passes=2),
}
NETWORK = dict(filters=(8, 16, 16), depth=1)
LEVELS = dict(NETWORK, hidden=(128,), dropout=0.0, activation="linear", learning_rate=1.0)
ENCODERS = {
    "conv_ae": dict(LEVELS, name="conv_ae"),
    "conv_vae": dict(LEVELS, name="conv_vae_latens"),
    "gan": dict(name="vae_gan", filters=(16, 32), hidden=128, gamma=0.1, learning_rate=1e-3),
}
VARIANTS = ("cnn", *ENCODERS)


def get_config(spec="poses"):
    size, _, variant = spec.partition("-")
    if size not in SIZES or variant not in ("", *VARIANTS) or (variant and size == "mnist"):
        raise ValueError(
            f"unknown size {spec!r}; known: {', '.join(SIZES)}; any but mnist may end with -{', -'.join(VARIANTS)}."
        )
    chosen = SIZES[size]
    peak = dict(share_near=chosen.get("share_near", 0.9), spread=5.0, seed=0, test_poses="pool")
    if size == "mnist":
        root = config_dict.placeholder(str)
        source = dict(name="mnist", root=root, data_dir=config_dict.placeholder(str), num_validation=50_000)
        data, num_train = dict(name="rotated", source=source, **peak), 10_000
    else:
        num_train = chosen["train"]
        sizes = dict(
            num_train=num_train, num_validation=chosen["held_out"], num_test=chosen["held_out"], side=chosen["side"]
        )
        data = dict(name="poses", **sizes, **peak)
    dense = dict(name="dense_vae", hidden=chosen["hidden"], learning_rate=1e-3)
    training = dict(latent_dim=20, epochs=chosen["epochs"], batch_size=100, seed=0)
    regressor = "cnn" if variant == "cnn" else "mlp"
    arm = dict(encoder="space", classifier=regressor)
    orders = ORDERS if variant else ORDERS | CORESET
    cnn = dict(NETWORK, units=128, dropout=0.1, learning_rate=1.0, batch_size=64)
    return ConfigDict(
        dict(
            num_seeds=chosen["seeds"],
            seeds_at_once=10,
            data=data,
            encoders=dict(space=dict(ENCODERS.get(variant, dense), **training)),
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
            arms={name: dict(arm, initial=first, strategy=strategy) for name, (first, strategy) in orders.items()},
            baseline="random",
            test_every_round=True,
            diagnostics=dict(orders=dict(name="query_order"))
            | (dict(training=dict(name="training_curves", arms=tuple(orders))) if regressor == "cnn" else {}),
        )
    )
