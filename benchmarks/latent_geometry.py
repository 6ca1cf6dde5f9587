"""The shape of the latents of MNIST in numbers: what Tonnaer (2017) reads from Figures 5.12 to 5.16.

    python benchmarks/latent_geometry.py --mnist=DIR --workdir=runs/geometry [--spaces=vae,vae_2,pixels]
    python benchmarks/latent_geometry.py --mnist=DIR --workdir=runs/conv --size=conv-mlps --epochs=15 --spaces=vae

The spaces are encoders of a size of configs/mnist_vae.py, which are trained where the workdir lacks them.
Measures are of the first 10,000 training images and lie in [0, 1]; percentiles are the 5th and the 95th. Each density
is compared with the measure that the paper finds it alike to, by the rank correlation.
"""

import argparse
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from latent_al.data import load
from latent_al.encoders import build_encoder
from latent_al.experiment.command_line import load_config
from latent_al.experiment.config import parse_experiment
from latent_al.strategies.representativeness import REPRESENTATIVENESS
from latent_al.types import Encoded

ROOT = Path(__file__).parents[1]
SIZE = 10_000
PARTNERS = {
    "euclidean_density": "closeness_to_origin",
    "squared_euclidean_density": "squared_closeness_to_origin",
    "jeffreys_density": "kl_to_prior",
}
"""Of each density the measure that takes no pairs."""
USED = 0.1
"""Standard deviation of the means above which a dimension is in use."""


def measure(name: str, encoded: Encoded, *, is_unit_cube: bool) -> np.ndarray:
    """Returns a measure of representativeness of each row [n], in [0, 1]."""
    settings = dict(unit_cube=True) if is_unit_cube else {}
    return np.asarray(REPRESENTATIVENESS[name](**settings).measure(encoded))


def percentiles(values: np.ndarray) -> str:
    """Returns the 5th and the 95th percentile, as text."""
    low, high = np.percentile(values, (5, 95))
    return f"{low:.3f} to {high:.3f}"


def describe(encoded: Encoded, *, is_unit_cube: bool) -> list[str]:
    """Returns the cells of a space: dimensions in use, lengths, cosine density, and the correlations."""
    latents = np.asarray(encoded.latents)
    num_used = (latents.std(axis=0) > USED).sum()
    lengths = np.linalg.norm(latents, axis=1)
    cells = [f"{num_used} of {latents.shape[1]}", f"{lengths.mean():.2f} ± {lengths.std(ddof=1):.2f}"]
    cells.append(percentiles(measure("cosine_density", encoded, is_unit_cube=is_unit_cube)))
    for density, partner in PARTNERS.items():
        if is_unit_cube:
            cells.append("")
        else:
            values = [measure(name, encoded, is_unit_cube=False) for name in (density, partner)]
            cells.append(f"{spearmanr(*values).statistic:+.3f}")
    return cells


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", required=True, help="The folder of MNIST's IDX files.")
    parser.add_argument("--workdir", type=Path, required=True, help="The folder of the trained encoders.")
    parser.add_argument("--spaces", default="vae,vae_2,pixels", help="Names of encoders, with commas.")
    parser.add_argument("--size", default="mlps", help="The size of configs/mnist_vae.py that has the encoders.")
    parser.add_argument("--epochs", type=int, help="Of each encoder that is trained, in place of the config's.")
    args = parser.parse_args()
    names = args.spaces.split(",")
    settings = {"data.root": args.mnist}
    if args.epochs:
        settings |= {f"encoders.{name}.epochs": args.epochs for name in names if name != "pixels"}
    config = parse_experiment(load_config(f"{ROOT / 'configs/mnist_vae.py'}:{args.size}", settings))
    data = load(config.data)
    heads = ["space", "dimensions in use", "length", "cosine density", *(f"{a} and {b}" for a, b in PARTNERS.items())]
    print(f"| {' | '.join(heads)} |\n{'| --- ' * len(heads)}|")
    for name in names:
        encoder = build_encoder(config.encoders[name], data.train.images.shape[1:])
        encodings = encoder.encode(data, args.workdir / name)
        encoded = Encoded(*(None if part is None else part[:SIZE] for part in encodings.train))
        print(f"| {' | '.join([name, *describe(encoded, is_unit_cube=encodings.unit_cube)])} |", flush=True)


if __name__ == "__main__":
    main()
