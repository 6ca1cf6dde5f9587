"""Near-duplicates that were planted in a folder, and those that the labelling job finds.

    python benchmarks/near_duplicates.py --classes=DIR/train --workdir=runs/near [--shares 0 0.01 0.05 0.3] [-- FLAGS]

A share of the images of the folder are copies of others, one of each: saved as JPEG of quality 40, cropped by 5 % of
each side, brighter by 5 %, or shifted by one pixel. FLAGS go to launch.py.
"""

import argparse
import csv
import io
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from folder_rounds import flatten, launch
from PIL import Image, ImageEnhance


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


def plant(names: list[str], folder: Path, share: float) -> dict[str, tuple[str, str]]:
    """Adds copies until they are this share of the folder; returns the kind of each, and the name of its original."""
    num = round(share / (1 - share) * len(names))
    copies = {}
    for number, name in enumerate(random.Random(1).sample(names, num)):
        kind = list(KINDS)[number % len(KINDS)]
        copies[f"{kind}-{Path(name).stem}.png"] = kind, name
        with Image.open(folder / name) as image:
            KINDS[kind](image.convert("RGB")).save(folder / f"{kind}-{Path(name).stem}.png")
    return copies


def score(table: Path, copies: dict[str, tuple[str, str]]) -> str:
    """Returns a line: how many were listed, how many of these are planted pairs, and the share found of each kind."""
    with table.open(encoding="utf-8-sig", newline="") as file:
        pairs = [(line["file_name"], line["same_as"]) for line in csv.DictReader(file)]
    pairs = [pair if pair[0] in copies else pair[::-1] for pair in pairs]
    found = [copies[copy][0] for copy, original in pairs if copies.get(copy, ("", ""))[1] == original]
    planted = Counter(kind for kind, _ in copies.values())
    recall = ", ".join(f"{kind} {count / planted[kind]:.2f}" for kind, count in sorted(Counter(found).items()))
    return f"listed {len(pairs)}, planted pairs among them {len(found)} of {len(copies)}; recall: {recall or 'none'}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=Path, required=True)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--config", default="configs/folder.py")
    parser.add_argument("--shares", type=float, nargs="+", default=[0, 0.01, 0.05, 0.3])
    parser.add_argument("flags", nargs="*")
    args = parser.parse_args()
    for share in args.shares:
        workdir = args.workdir.absolute() / f"{share:g}"
        copies = plant(sorted(flatten(args.classes, workdir / "images")), workdir / "images", share)
        launch(workdir / "images", workdir / "job", [f"--config={args.config}", *args.flags])
        print(f"copies {100 * share:g} %: {score(workdir / 'job/near_duplicates.csv', copies)}", flush=True)


if __name__ == "__main__":
    main()
