"""Near-duplicates that are planted in a folder, and those that the labelling job's rule finds in the latents.

    python benchmarks/near_duplicates.py --classes=DIR/train --workdir=runs/near [--shares 0 0.01 0.05 0.3] [-- FLAGS]

The first call of the job encodes all images, and copies of some of them, one of each: saved as JPEG of quality 40,
cropped by 5 % of each side, brighter by 5 %, or shifted by one pixel. A part of these is drawn, five times, so that
copies are this share of the pool. FLAGS go to launch.py.
"""

import argparse
import csv
import io
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
from folder_rounds import flatten, launch
from PIL import Image, ImageEnhance

from latent_al.labelling import near_duplicates

DRAWS = 5


def save_again(image: Image.Image) -> Image.Image:
    """Returns the image as JPEG of quality 40 keeps it."""
    content = io.BytesIO()
    image.save(content, "JPEG", quality=40)
    return Image.open(content)


def crop(image: Image.Image) -> Image.Image:
    """Returns the image without 5 % of each side, from the middle."""
    width, height = (max(1, round(0.05 * side)) for side in image.size)
    left, top = width // 2, height // 2
    return image.crop((left, top, image.width - width + left, image.height - height + top))


def shift(image: Image.Image) -> Image.Image:
    """Returns the image moved to the left by one pixel; the last column stays."""
    shifted = image.copy()
    shifted.paste(image, (-1, 0))
    return shifted


KINDS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "jpeg": save_again,
    "crop": crop,
    "bright": lambda image: ImageEnhance.Brightness(image).enhance(1.05),
    "shift": shift,
}


def plant(names: list[str], folder: Path, share: float) -> dict[str, str]:
    """Adds copies until they are this share of the folder; returns the name of the original of each."""
    originals = {}
    for number, name in enumerate(random.Random(1).sample(names, round(share / (1 - share) * len(names)))):
        kind = list(KINDS)[number % len(KINDS)]
        copy = f"{kind}-{Path(name).stem}.png"
        with Image.open(folder / name) as image:
            KINDS[kind](image.convert("RGB")).save(folder / copy)
        originals[copy] = name
    return originals


def encoded(workdir: Path) -> dict[str, np.ndarray]:
    """Returns the latents of each file of a job."""
    with (workdir / "manifest.csv").open(encoding="utf-8-sig", newline="") as file:
        names = [line["file_name"] for line in csv.DictReader(file)]
    shards = sorted((workdir / "encoder/latents").glob("*.npz"))
    return dict(zip(names, np.concatenate([np.load(path)["latents"] for path in shards]), strict=True))


def score(latents: dict[str, np.ndarray], originals: dict[str, str]) -> list[float]:
    """Returns how many images are listed, how many of these are planted pairs, and the share found of each kind.

    `originals`: the name of the original of each copy.
    """
    names = list(latents)
    points = np.stack(list(latents.values()))
    distances = near_duplicates.nearest_distances(points)
    threshold = near_duplicates.threshold_of(distances)
    rows = np.flatnonzero(distances <= threshold)
    representatives, _ = near_duplicates.group(points[rows], threshold)
    pairs = [(names[row], names[rows[at]]) for row, at in zip(rows, representatives, strict=True) if row != rows[at]]
    found = [copy for pair in pairs for copy, other in (pair, pair[::-1]) if originals.get(copy) == other]
    counts = [[copy.startswith(kind) for copy in found].count(True) for kind in KINDS]
    planted = [[copy.startswith(kind) for copy in originals].count(True) for kind in KINDS]
    shares = [count / num if num else np.nan for count, num in zip(counts, planted, strict=True)]
    return [len(pairs), len(found), *shares]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=Path, required=True)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--config", default="configs/folder.py")
    parser.add_argument("--shares", type=float, nargs="+", default=[0, 0.01, 0.05, 0.3])
    parser.add_argument("flags", nargs="*")
    args = parser.parse_args()
    images, job = args.workdir.absolute() / "images", args.workdir.absolute() / "job"
    names = sorted(flatten(args.classes, images))
    originals = plant(names, images, max(args.shares))
    launch(images, job, [f"--config={args.config}", *args.flags])
    latents = encoded(job)
    print("| copies | listed | planted pairs among them | " + " | ".join(KINDS) + " |")
    print("| --- " * (3 + len(KINDS)) + "|")
    for share in args.shares:
        num = round(share / (1 - share) * len(names))
        scores = []
        for draw in range(DRAWS if num else 1):
            copies = random.Random(draw).sample(sorted(originals), num)
            part = {name: latents[name] for name in [*names, *copies] if name in latents}
            scores.append(score(part, {copy: originals[copy] for copy in copies}))
        listed, planted, *found = np.mean(scores, axis=0)
        cells = " | ".join(f"{value:.2f}" for value in found)
        print(f"| {100 * share:g} % ({num:,}) | {listed:.1f} | {planted:.1f} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
