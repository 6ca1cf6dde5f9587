"""Logistic regression beside the perceptron, on latents as they are and prepared in other ways, with random labels.

    python benchmarks/linear_probe.py --latents=train.npy --index=train.csv [--held_out=1000] [--seeds=10]

The column file_name of the index is CLASS/NAME. Prints accuracy on held-out rows in percent, with its paired difference
from logistic regression on the latents as they are and the 95 % interval of that, and the seconds of all fits.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler, normalize

from latent_al.models.classifiers import build_learner
from latent_al.results.statistics import paired_difference

COUNTS = (50, 100, 250, 500)
CLASSIFIERS = {
    "logistic_regression": dict(name="logistic_regression"),
    "mlp": dict(name="mlp", hidden=(256,), dropout=0.2, learning_rate=1e-3, epochs=60, batch_size=20),
}
"""The second is that of configs/folder.py."""


def preparations(latents: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the latents in all ways."""
    prepared = {"as they are": latents, "of length 1": normalize(latents)}
    prepared["standardised"] = StandardScaler().fit_transform(latents)
    for size in (64, 128, 256):
        if size < latents.shape[1]:
            prepared[f"PCA {size}"] = PCA(size, random_state=0).fit_transform(latents)
    return {name: np.float32(values) for name, values in prepared.items()}


def accuracies(spec: dict, latents: np.ndarray, labels: np.ndarray, held_out: int, seeds: int) -> np.ndarray:
    """Returns the accuracy [counts seeds] on the first rows of a fixed permutation, trained on rows of the rest."""
    learner = build_learner(spec, num_classes=int(labels.max()) + 1)
    order = np.random.default_rng(0).permutation(len(latents))
    test, pool = order[:held_out], order[held_out:]
    inputs, classes = jnp.asarray(latents), jnp.asarray(labels, jnp.int32)

    def correct(key, rows, count):
        params, _ = learner.fit(key, inputs, classes, rows, count)
        return learner.score(learner.predict(params, inputs[test])[1], classes[test]).mean()

    rows = jnp.stack([np.random.default_rng(1 + seed).permutation(pool)[: max(COUNTS)] for seed in range(seeds)])
    keys = jax.random.split(jax.random.key(0), seeds)
    program = jax.jit(jax.vmap(correct, in_axes=(0, 0, None)))
    return np.array([program(keys, rows, jnp.int32(count)) for count in COUNTS])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latents", required=True)
    parser.add_argument("--index", required=True)
    parser.add_argument("--held_out", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=10)
    args = parser.parse_args()
    _, labels = np.unique(pd.read_csv(args.index).file_name.str.split("/").str[0], return_inverse=True)
    baseline = None
    for preparation, latents in preparations(np.load(args.latents)).items():
        for name, spec in CLASSIFIERS.items():
            begun = time.monotonic()
            values = 100 * accuracies(spec, latents, labels, args.held_out, args.seeds)
            baseline = values if baseline is None else baseline
            cells = [preparation, name]
            for ours, reference in zip(values, baseline, strict=True):
                gap = paired_difference(ours, reference)
                cells.append(f"{ours.mean():.1f}, {gap['mean']:+.1f} [{gap['low']:+.1f}, {gap['high']:+.1f}]")
            print(f"| {' | '.join(cells)} | {time.monotonic() - begun:.0f} |", flush=True)


if __name__ == "__main__":
    main()
