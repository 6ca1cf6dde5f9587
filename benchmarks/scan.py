"""From a folder to the initial set to label: images a second of scan, training and encoding, and the peak of memory.

    python benchmarks/scan.py [--num=100000] [--side=64] [--epochs=1]
    python benchmarks/scan.py --network=models/efficientnet-lite0 [--num=100000] [--side=64]

Generated JPEGs, the auto-encoder of configs/folder.py, one process. Fewer epochs than the config's show the same speed.
With `--network` the latents are those of a pretrained network, which gets the images at the size that it wants.
"""

import argparse
import resource
import runpy
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from latent_al import labelling
from latent_al.encoders import build_encoder
from latent_al.encoders.training import Training, make_trainer, train
from latent_al.labelling import scan
from latent_al.models import AUTOENCODERS

ROOT = Path(__file__).parents[1]


def generate(folder, num, side):
    """Writes smooth random pictures: a few blobs of colour, blown up."""
    rng = np.random.default_rng(0)
    for index in tqdm(range(num), "generating", unit="image"):
        if index % 1000 == 0:
            (folder / f"{index // 1000:03d}").mkdir(parents=True)
        blobs = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        blobs.resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{index // 1000:03d}/{index:06d}.jpg")


def timed(name, num, function, *args, **settings):
    begun = time.perf_counter()
    result = function(*args, **settings)
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{name:<12} {seconds:8.1f} s {num / seconds:10,.0f} images a second   peak so far {peak:.2f} GiB", flush=True
    )
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=100_000)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--network")
    args = parser.parse_args()
    config = runpy.run_path(str(ROOT / "configs/folder.py"))["get_config"]("pretrained" if args.network else "full")
    config.data.size = (args.side, args.side)
    if args.network:
        config.encoder.root = args.network
    else:
        # The config's own learning rate, for images of 32 x 32, diverges on larger ones.
        config.encoder.update(epochs=args.epochs, learning_rate=1e-4)
    with tempfile.TemporaryDirectory() as scratch:
        config.data.root, workdir = f"{scratch}/images", Path(scratch) / "job"
        generate(Path(config.data.root), args.num, args.side)
        planned = scan.plan(config.data.root, workdir, size=(args.side, args.side), channels=3)
        workdir.mkdir()
        scanned = timed("scan", args.num, scan.scan, planned)
        data, shape = scan.as_data(scanned.store, scanned.table, planned), (args.side, args.side, 3)
        folder = workdir / "encoder"
        if not args.network:
            sizes = config.encoder.to_dict()
            training = Training(*(sizes.pop(name) for name in Training._fields))
            trainer = make_trainer(AUTOENCODERS[sizes.pop("name")], training, shape, **sizes)
            timed("training", args.num * args.epochs, train, trainer, data, folder)
        # An auto-encoder finds itself trained.
        timed("encoding", args.num, build_encoder(config.encoder, shape).encode, data, folder)
        timed("initial set", args.num, labelling.run, config, str(workdir))


if __name__ == "__main__":
    main()
