"""A pretrained network in an ONNX file: its input, its output, and the program that runs it."""

import hashlib
import mmap
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, UInt8

from latent_al.data.preprocessing import Preprocessing, normalized
from latent_al.types import BadInput

PLACES = ("model.onnx", "onnx/model.onnx")
"""Where hubs keep the model within a folder."""
OTHER_FORMATS = (".bin", ".ckpt", ".h5", ".keras", ".msgpack", ".pt", ".pth", ".safetensors")
"""Suffixes of files that hold only weights, or that belong to other libraries."""
DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
"""ONNX Runtime's name of an input's type -> NumPy's."""
PROVIDERS = {"CUDAExecutionProvider": "GPU", "CPUExecutionProvider": "CPU"}
"""Name of a provider that runs a network, the fastest first -> where it runs it."""
PARTS = {
    "output": lambda values: values.reshape(values.shape[:2]),
    "class token of": lambda values: values[:, 0],
    "average over height and width of": lambda values: values.mean((2, 3), dtype=np.float32),
    "average over height and width, channels last, of": lambda values: values.mean((1, 2), dtype=np.float32),
}
"""The part of an output that is taken, in words -> the function that takes it."""
BLANKS = 2
"""Images of the first run: with one, the rows of an output could not be told from another axis of length one."""
ABSENT = """Fetch one on a machine with internet access, once; it runs without. Use one of
  pip install huggingface_hub; hf download Xenova/dinov2-small onnx/model.onnx preprocessor_config.json \
--local-dir models/dinov2-small
  pip install huggingface_hub; hf download Xenova/siglip-base-patch16-224 onnx/vision_model.onnx \
preprocessor_config.json --local-dir models/siglip-base
  pip install 'optimum-onnx[onnxruntime]'; optimum-cli export onnx --model microsoft/resnet-18 \
--task feature-extraction models/resnet-18
Then copy that folder here, and set config.encoder.root to it."""
"""The end of the message where there is no model."""


class Input(NamedTuple):
    """The input of a network: images of one type and layout.

    channels_last: whether the layout is [n h w 3] in place of [n 3 h w].
    batch: how many images it takes at a time; None where that is open.
    shape: its (height, width), None for each that is open.
    """

    name: str
    dtype: type
    channels_last: bool
    batch: int | None
    shape: tuple[int | None, int | None]


class Output(NamedTuple):
    """The output that latents are taken from; `part` is an entry of `PARTS`."""

    name: str
    part: str


class Network(NamedTuple):
    """A network that is ready to run.

    path: of its file.
    session: ONNX Runtime's.
    steps: the preprocessing of its images.
    latent_dim: the length of a latent.
    """

    path: Path
    session: Any
    input: Input
    output: Output
    steps: Preprocessing
    latent_dim: int

    def prepare(self, pixels: UInt8[np.ndarray, "h w 3"]) -> np.ndarray:
        """Returns one preprocessed image in the type and layout of the input."""
        values = pixels if self.steps.keeps_levels else normalized(pixels, self.steps)
        values = values if self.input.channels_last else values.transpose(2, 0, 1)
        return values.astype(self.input.dtype, copy=False)

    def embed(self, images: Sequence[np.ndarray]) -> Float[np.ndarray, "n d"]:
        """Returns the latents of prepared images, at most as many as the input takes at a time.

        Raises:
            BadInput: the network fails, or gives latents of another shape than before.
        """
        size = len(images) if self.input.batch is None else self.input.batch
        batch = np.stack([*images, *[images[0]] * (size - len(images))])
        values = _run(self.path, self.session, {self.input.name: batch}, self.output.name)
        latents = PARTS[self.output.part](values)
        if latents.shape != (size, self.latent_dim):
            raise BadInput(
                f"output {self.output.name} of {self.path} is {latents.shape} for {size} images, but had "
                f"{self.latent_dim} numbers per image before; set config.encoder.output to one of fixed length."
            )
        return latents[: len(images)].astype(np.float32)

    def describe(self) -> str:
        """Returns what was chosen: the file, where it runs, the size of its images, its output."""
        ran_on = PROVIDERS[self.session.get_providers()[0]]
        size = " x ".join(map(str, self.steps.shape))
        return (
            f"Encoder: {self.path} on the {ran_on}, images of {size}, {self.output.part} {self.output.name} of "
            f"{self.latent_dim} numbers{_why_not_gpu(ran_on)}"
        )


def find_model(root: Path) -> Path:
    """Returns the ONNX file in a folder that is laid out as on hubs, or the file itself.

    Raises:
        BadInput: there is none, or several, or it is of another format.
    """
    if root.is_file() and root.suffix in OTHER_FORMATS:
        raise BadInput(f"config.encoder.root is {root}, which is not an ONNX file. {ABSENT}")
    if root.is_file():
        return root
    paths = [root / place for place in PLACES if (root / place).is_file()]
    paths = paths or sorted([*root.glob("*.onnx"), *root.glob("onnx/*.onnx")])
    if not paths:
        raise BadInput(f"config.encoder.root is {root}, where there is no pretrained network (*.onnx). {ABSENT}")
    if len(paths) > 1:
        names = ", ".join(str(path.relative_to(root)) for path in paths)
        raise BadInput(f"{root} holds several networks, {names}; set config.encoder.root to one of these files.")
    return paths[0]


def digest_model(path: Path) -> str:
    """Returns a hash of the file of a model and of the files next to it that hold its weights.

    Raises:
        BadInput: one of these is missing.
    """
    sha = hashlib.sha256()
    for file in (path, *_external(path)):
        if not file.is_file():
            raise BadInput(f"{path} keeps weights in {file}, which is not there; fetch that file too.")
        with file.open("rb") as content:
            sha.update(hashlib.file_digest(content, "sha256").digest())
    return sha.hexdigest()


def open_session(path: Path) -> Any:
    """Opens a model, on a GPU where ONNX Runtime has one, otherwise on the CPU.

    Raises:
        BadInput: it cannot be opened.
    """
    # The import takes a while, and an experiment may not need it.
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    available = [name for name in PROVIDERS if name in onnxruntime.get_available_providers()]
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=available)
    except Exception as error:  # Its exceptions have no common base of their own.
        is_too_new = re.search("opset|IR version|not a registered function", str(error), re.IGNORECASE)
        cure = (
            f"a newer onnxruntime than {onnxruntime.__version__} may support it; or export the network for opset 17"
            if is_too_new
            else "fetch or export it again"
        )
        raise BadInput(f"{path} cannot be opened ({_in_a_line(error)}); {cure}.") from error


def input_of(path: Path, session: Any) -> Input:
    """Returns the one input of a network of images.

    Raises:
        BadInput: it takes something else.
    """
    inputs = session.get_inputs()
    words = ", ".join(f"{entry.name} {entry.type} {entry.shape}" for entry in inputs)
    wanted = "expected one input of images, float32, float16 or uint8, [n 3 h w] or [n h w 3]"
    if len(inputs) != 1:
        towers = sorted(file.name for file in path.parent.glob("vision_model*.onnx"))
        named = f", such as {path.parent / towers[0]}" if towers else ""
        raise BadInput(
            f"{path} has {len(inputs)} inputs ({words}); {wanted}: export the part for images alone, and set "
            f"config.encoder.root to its file{named}."
        )
    name, kind, shape = inputs[0].name, inputs[0].type, inputs[0].shape
    sides = [length if isinstance(length, int) else None for length in shape]
    # Exporters also leave the channel axis open, which comes first in what they export from PyTorch.
    if kind not in DTYPES or len(sides) != 4 or not (sides[1] is None or 3 in (sides[1], sides[3])):
        raise BadInput(f"{path} reads {words}; {wanted}: choose another network, or export it that way.")
    channels_last = sides[1] != 3 and sides[3] == 3
    height, width = sides[1:3] if channels_last else sides[2:]
    return Input(name, DTYPES[kind], channels_last, sides[0], (height, width))


def check_fit(path: Path, entry: Input, steps: Preprocessing) -> None:
    """Checks that the input takes what the preprocessing gives.

    Raises:
        BadInput: images of another size, or floats where the input takes bytes.
    """
    if any(side not in (None, length) for side, length in zip(entry.shape, steps.shape, strict=True)):
        raise BadInput(
            f"{path} reads images of (height, width) {entry.shape}, but its preprocessing gives {steps.shape}; set "
            "config.encoder.size and config.encoder.crop to what it reads."
        )
    if entry.dtype is np.uint8 and not steps.keeps_levels:
        raise BadInput(
            f"{path} reads bytes, but its preprocessing makes floats of them; set do_rescale and do_normalize to false "
            "in its preprocessor_config.json."
        )


def open_network(path: Path, session: Any, entry: Input, steps: Preprocessing, output: str | None) -> Network:
    """Returns the network, once it has run on blank images.

    Args:
        path: of its file.
        session: of `open_session`.
        entry: of `input_of`.
        steps: of its images.
        output: the name of the output to take; None to choose by `choose_output`.

    Raises:
        BadInput: it fails, or no output has a row for each image.
    """
    size = BLANKS if entry.batch is None else entry.batch
    shape = (*steps.shape, 3) if entry.channels_last else (3, *steps.shape)
    values = _run(path, session, {entry.name: np.zeros((size, *shape), entry.dtype)}, None)
    names = [entry.name for entry in session.get_outputs()]
    arrays = {name: value for name, value in zip(names, values, strict=True) if isinstance(value, np.ndarray)}
    shapes = {name: value.shape for name, value in arrays.items() if value.ndim > 1 and value.shape[0] == size}
    chosen = choose_output(path, shapes, output, channels_last=entry.channels_last)
    return Network(path, session, entry, chosen, steps, PARTS[chosen.part](arrays[chosen.name]).shape[1])


def choose_output(
    path: Path, shapes: dict[str, tuple[int, ...]], wanted: str | None, *, channels_last: bool = False
) -> Output:
    """Returns the output that is `wanted`, or else the first of these that exists.

    `image_embeds`; a pooled output; the class token of `last_hidden_state`; the average over a feature map; the only
    output [n d].

    Raises:
        BadInput: there is none.
    """
    plain, token, average, average_last = PARTS
    parts = dict.fromkeys(shapes, average_last if channels_last else average)
    parts |= {name: token for name, shape in shapes.items() if len(shape) == 3}
    parts |= {name: plain for name, shape in shapes.items() if len(shape) == 2 or set(shape[2:]) == {1}}
    chosen = _by_rule(parts) if wanted is None else wanted
    if chosen in parts:
        return Output(chosen, parts[chosen])
    words = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items()) or "none with a row for each image"
    raise BadInput(
        f"{path} has the outputs {words}, of which none is {wanted or 'plainly the embedding'}; set "
        "config.encoder.output to the name of one of them."
    )


def _by_rule(parts):
    """Returns the output that `choose_output` takes by default; None where there is none, or it is one of several."""
    plain, token, *averages = PARTS
    flat, maps = ([name for name, part in parts.items() if part in kinds] for kinds in ([plain], averages))
    order = [
        [name for name in flat if name == "image_embeds"],
        [name for name in flat if "pool" in name],
        [name for name in parts if name == "last_hidden_state" and parts[name] == token],
        [name for name in maps if name == "last_hidden_state"],
        maps,
        flat,
    ]
    names = next(filter(None, order), [])
    return names[0] if len(names) == 1 else None


def _run(path, session, feed, output):
    try:
        values = session.run(None if output is None else [output], feed)
    except Exception as error:  # As in `open_session`.
        shapes = ", ".join(str(list(array.shape)) for array in feed.values())
        raise BadInput(
            f"{path} cannot be run on images {shapes} ({_in_a_line(error)}); set config.encoder.size to what it was "
            "trained with, or choose another network."
        ) from error
    return values if output is None else values[0]


def _external(path):
    """Returns the files next to a model in which it keeps weights.

    In ONNX's protocol buffer each is the value of an entry whose key is `location`; the format has no other list.
    """
    if not path.stat().st_size:
        return []
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        entries = re.finditer(rb"\n\x08location\x12(.)", content, re.DOTALL)
        names = {bytes(content[entry.end() : entry.end() + entry.group(1)[0]]) for entry in entries}
    return [path.parent / name.decode("utf-8", "replace") for name in sorted(names)]


def _why_not_gpu(ran_on):
    """Returns what is missing where JAX has a GPU that the network does not run on."""
    if ran_on != "CPU" or jax.default_backend() != "gpu":
        return ""
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return "; for the GPU: pip install onnxruntime-gpu in place of onnxruntime"
    return "; the GPU is not used, since ONNX Runtime could not load CUDA or cuDNN: install those that it names"


def _in_a_line(error):
    return " ".join(str(error).split())
