"""The encoder `onnx` on tiny networks: what it reads, what it takes, what it refuses, and that nothing is lost."""

import json
import runpy
import shutil
from pathlib import Path

import jax
import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
from ml_collections import ConfigDict
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from test_labelling import answer, queries_of
from test_launch import ROOT
from test_preprocessing import MEAN, PREPROCESSOR, SETTINGS, SIDE, STD, image_files, pictures, preprocessor

from latent_al import labelling
from latent_al.data import load
from latent_al.data.arrays import assemble, to_split
from latent_al.data.preprocessing import preprocess, read_preprocessing
from latent_al.encoders import build_encoder, network, pretrained, shards
from latent_al.experiment.run import run_experiment
from latent_al.labelling.scan import as_data, plan, scan
from latent_al.types import BadInput

WEIGHTS = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
QUANTUM = np.float32(np.abs(WEIGHTS).max() / 127)


def tiny(folder, *, shape=("n", 3, SIDE, SIDE), kind=np.float32, outputs=("pooler_output",), name="model.onnx"):
    """Writes a network whose `pooler_output` [n 5] is the mean colour times `WEIGHTS`, and returns its folder.

    Other outputs: `feature_map` [n 5 h w]; `last_map`, the same with channels last; `last_hidden_state` [n 1+h*w 5],
    whose first token is twice `pooler_output`; `image_embeds`, three times; `hidden`, two tokens.
    """
    convolution = WEIGHTS.T.reshape(5, 3, 1, 1)
    weights = dict(convolution=convolution, tokens=np.array([0, 5, -1]), one=np.array([1]))
    image, nodes = "pixel_values", []
    if kind is np.uint8:
        nodes.append(helper.make_node("Cast", [image], ["floats"], to=TensorProto.FLOAT))
        image = "floats"
    if kind is np.float16:
        weights["convolution"] = convolution.astype(np.float16)
    if kind is np.int8:
        weights |= dict(bytes=np.round(convolution / QUANTUM).astype(np.int8), quantum=QUANTUM, zero=np.int8(0))
        weights.pop("convolution")
        nodes.append(helper.make_node("DequantizeLinear", ["bytes", "quantum", "zero"], ["convolution"]))
    if shape[3] == 3:
        nodes.append(helper.make_node("Transpose", [image], ["first"], perm=[0, 3, 1, 2]))
        image = "first"
    nodes += [
        helper.make_node("Conv", [image, "convolution"], ["feature_map"]),
        helper.make_node("Transpose", ["feature_map"], ["last_map"], perm=[0, 2, 3, 1]),
        helper.make_node("GlobalAveragePool", ["feature_map"], ["pooled_map"]),
        helper.make_node("Flatten", ["pooled_map"], ["pooler_output"]),
        helper.make_node("Add", ["pooler_output", "pooler_output"], ["double"]),
        helper.make_node("Add", ["pooler_output", "double"], ["image_embeds"]),
        helper.make_node("Reshape", ["feature_map", "tokens"], ["columns"]),
        helper.make_node("Transpose", ["columns"], ["patches"], perm=[0, 2, 1]),
        helper.make_node("Unsqueeze", ["double", "one"], ["token"]),
        helper.make_node("Concat", ["token", "patches"], ["last_hidden_state"], axis=1),
        helper.make_node("Concat", ["token", "token"], ["hidden"], axis=1),
    ]
    of_input = {np.uint8: TensorProto.UINT8, np.float16: TensorProto.FLOAT16}.get(kind, TensorProto.FLOAT)
    of_output = TensorProto.FLOAT16 if kind is np.float16 else TensorProto.FLOAT
    save(folder, nodes, (of_input, shape), dict.fromkeys(outputs, of_output), weights, name)
    return folder


def save(folder, nodes, of_input, outputs, weights=None, name="model.onnx", opset=17, **external):
    """Writes a network of these nodes and its preprocessing."""
    folder.mkdir(parents=True, exist_ok=True)
    inputs = [helper.make_tensor_value_info("pixel_values", *of_input)]
    values = [helper.make_tensor_value_info(output, kind, None) for output, kind in outputs.items()]
    arrays = [numpy_helper.from_array(np.asarray(value), key) for key, value in (weights or {}).items()]
    graph = helper.make_graph(nodes, "tiny", inputs, values, arrays)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, folder / name, **external)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))


def of_nodes(folder, *nodes, shape=("n", 3, SIDE, SIDE), outputs=("out",), **more):
    """Writes a network of float32 whose nodes read `pixel_values`."""
    save(folder, list(nodes), (TensorProto.FLOAT, shape), dict.fromkeys(outputs, TensorProto.FLOAT), **more)
    return folder


def expected(images):
    """The `pooler_output` of `tiny`, by Pillow and NumPy in float64."""
    rows = []
    for image in images:
        resized = np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float64)
        rows.append(((resized / 255 - MEAN) / STD).mean(axis=(0, 1)) @ WEIGHTS.astype(np.float64))
    return np.array(rows)


def data_of(images):
    return assemble(to_split(images, None), None, num_validation=0)


def build(root, image_shape=(12, 10, 3), **settings):
    return build_encoder(dict(name="onnx", root=str(root), **settings), image_shape)


def encode(root, images, folder, **settings):
    encoder, data = build(root, **settings), data_of(images)
    latents = encoder.encode(data, folder).train.latents
    assert encoder.shapes(data).latents.shape == latents.shape
    return latents


def refuse(match, root, images=None, **settings):
    """Checks that an encoder is refused on shapes alone."""
    with pytest.raises(BadInput, match=match):
        build(root, **settings).shapes(data_of(pictures(6) if images is None else images))


@pytest.fixture
def files(tmp_path):
    return image_files(tmp_path / "images")


@pytest.fixture
def net(tmp_path):
    return tiny(tmp_path / "net")


def scanned(root, workdir):
    result = scan(plan(str(root), workdir, size=(4, 4), channels=3))
    return as_data(result.store, result.table, result.plan)


class TestValues:
    @pytest.mark.parametrize(
        "shape",
        [
            ("n", 3, SIDE, SIDE),
            ("n", SIDE, SIDE, 3),
            (4, 3, SIDE, SIDE),
            ("n", 3, "height", "width"),
            ("n", "height", "width", 3),
            ("n", "channels", "height", "width"),
        ],
    )
    def test_of_every_layout_and_batch_are_those_of_numpy(self, shape, tmp_path, capsys):
        latents = encode(tiny(tmp_path / "net", shape=shape), pictures(23), tmp_path, batch_size=5)
        np.testing.assert_allclose(latents, expected(pictures(23)), atol=1e-5)
        assert "model.onnx on the CPU, images of 8 x 8, output pooler_output of 5 numbers\n" in capsys.readouterr().out

    @pytest.mark.parametrize(("kind", "within"), [(np.float16, 1e-2), (np.int8, 5 * QUANTUM)])
    def test_of_fewer_bits_are_near(self, kind, within, tmp_path):
        latents = encode(tiny(tmp_path / "net", kind=kind), pictures(5), tmp_path)
        assert latents.dtype == np.float32
        np.testing.assert_allclose(latents, expected(pictures(5)), atol=within)

    def test_a_network_of_bytes_gets_levels(self, tmp_path):
        folder = tiny(tmp_path / "net", kind=np.uint8)
        refuse("reads bytes, but its preprocessing makes floats", folder)
        (folder / "preprocessor_config.json").unlink()
        images = pictures(4, (SIDE, SIDE))
        latents = encode(folder, images, tmp_path, size=(SIDE, SIDE), resample="bicubic")
        np.testing.assert_allclose(latents, images.mean(axis=(1, 2)) @ WEIGHTS, rtol=1e-4)

    @pytest.mark.parametrize(
        ("outputs", "times", "chosen"),
        [
            (("pooler_output", "image_embeds", "last_hidden_state"), 3, "output image_embeds"),
            (("last_hidden_state", "pooler_output"), 1, "output pooler_output"),
            (("pooled_map", "last_hidden_state"), 1, "output pooled_map"),
            (("last_hidden_state",), 2, "class token of last_hidden_state"),
            (("feature_map",), 1, "average over height and width of feature_map"),
            (("double",), 2, "output double"),
        ],
    )
    def test_the_output_is_chosen_by_rule(self, outputs, times, chosen, tmp_path, capsys):
        latents = encode(tiny(tmp_path / "net", outputs=outputs), pictures(3), tmp_path)
        np.testing.assert_allclose(latents, times * expected(pictures(3)), atol=1e-4)
        assert f"{chosen} of 5 numbers" in capsys.readouterr().out

    def test_a_map_with_channels_last_is_averaged(self, tmp_path):
        folder = tiny(tmp_path / "net", shape=("n", SIDE, SIDE, 3), outputs=("last_map",))
        np.testing.assert_allclose(encode(folder, pictures(3), tmp_path), expected(pictures(3)), atol=1e-5)

    def test_an_output_is_chosen_by_name(self, tmp_path):
        folder = tiny(tmp_path / "net", outputs=("image_embeds", "hidden", "double"))
        for name in ("hidden", "double"):
            latents = encode(folder, pictures(3), tmp_path, output=name)
            np.testing.assert_allclose(latents, 2 * expected(pictures(3)), atol=1e-4)

    def test_without_a_preprocessor_the_settings_say_it(self, net, tmp_path):
        (net / "preprocessor_config.json").unlink()
        settings = dict(size=(SIDE, SIDE), mean=MEAN, std=STD, resample="bicubic")
        np.testing.assert_allclose(encode(net, pictures(3), tmp_path, **settings), expected(pictures(3)), atol=1e-5)

    def test_normalized_ones_have_length_one(self, net, tmp_path):
        latents = encode(net, pictures(3), tmp_path, normalize=True)
        wanted = expected(pictures(3))
        np.testing.assert_allclose(latents, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), atol=1e-5)

    def test_principal_components_are_of_the_first_pool(self, net, tmp_path):
        latents = encode(net, pictures(30), tmp_path, latent_dim=2)
        wanted = expected(pictures(30))
        centred = wanted - wanted.mean(axis=0)
        _, singular, rows = np.linalg.svd(centred, full_matrices=False)
        np.testing.assert_allclose(np.abs(latents), np.abs(centred @ rows[:2].T), atol=1e-4)
        assert singular[2] > 1e-3  # there is more than what is kept

    def test_grey_images_are_made_colour(self, net, tmp_path):
        grey = pictures(3)[..., :1]
        encoder, data = build(net, (12, 10, 1)), data_of(grey)
        assert encoder.shapes(data).latents.shape == (3, 5)
        latents = encoder.encode(data, tmp_path).train.latents
        np.testing.assert_allclose(latents, expected(np.repeat(grey, 3, axis=3)), atol=1e-5)


class TestRefusals:
    def test_a_broken_file_is_refused(self, net):
        (net / "preprocessor_config.json").write_text("{")
        refuse("preprocessor_config.json cannot be read", net)

    def test_no_file_and_no_settings_are_refused_with_the_usual_ones(self, net):
        (net / "preprocessor_config.json").unlink()
        refuse(r"has no preprocessor_config.json, so size, resample, mean, std .* mean=\(0.485", net)
        refuse("so mean, std of the images are not known", net, size=8, crop=8, resample="bilinear")
        refuse("unknown resampling 'cubic'; known: bicubic", net, resample="cubic")

    def test_no_network(self, tmp_path):
        encoder = build(tmp_path / "absent")  # a table's factory opens nothing
        with pytest.raises(BadInput, match="no pretrained network") as error:
            encoder.shapes(data_of(pictures(3)))
        assert "hf download Xenova/dinov2-small onnx/model.onnx" in str(error.value)
        tiny(tmp_path / "empty", name="other.bin")
        refuse(r"no pretrained network \(\*.onnx\)", tmp_path / "empty")
        refuse(r"other.bin, which is not an ONNX file. (.|\n)*optimum-cli export onnx", tmp_path / "empty/other.bin")

    def test_one_of_several_is_named_or_refused(self, net, tmp_path):
        shutil.copytree(net, net / "onnx")
        refuse("holds several networks, model.onnx, onnx/model.onnx; set config.encoder.root to one", net)
        for name in ("model.onnx", "onnx/model.onnx"):
            (net / name).rename(net / name.replace("model", "tower"))
        refuse("several networks, onnx/tower.onnx, tower.onnx", net)
        latents = encode(net / "onnx/tower.onnx", pictures(3), tmp_path)
        (net / "tower.onnx").unlink()
        (net / "onnx/preprocessor_config.json").unlink()  # that of the folder above stands for it
        np.testing.assert_array_equal(encode(net, pictures(3), tmp_path / "again"), latents)

    def test_other_inputs(self, tmp_path):
        reduce = helper.make_node("ReduceMean", ["pixel_values"], ["out"], axes=[1])
        refuse(
            r"reads pixel_values tensor\(float\) \['n', 7\]; expected one input",
            of_nodes(tmp_path, reduce, shape=("n", 7)),
        )
        refuse(r"\['n', 1, 8, 8\]; expected one input of images", of_nodes(tmp_path, reduce, shape=("n", 1, 8, 8)))
        save(
            tmp_path,
            [helper.make_node("Cast", ["pixel_values"], ["out"], to=1)],
            (TensorProto.INT64, ("n", 3, 8, 8)),
            {"out": 1},
        )
        refuse(r"reads pixel_values tensor\(int64\)", tmp_path)

    def test_two_inputs(self, net):
        model = onnx.load(net / "model.onnx")
        model.graph.input.append(helper.make_tensor_value_info("input_ids", TensorProto.INT64, ("n", "length")))
        onnx.save(model, net / "model.onnx")
        tiny(net, name="vision_model.onnx")
        refuse(r"has 2 inputs \(pixel_values .*, input_ids .*\); .* such as .*vision_model.onnx", net)

    def test_an_opset_too_new(self, tmp_path):
        relu = helper.make_node("Relu", ["pixel_values"], ["out"])
        refuse("cannot be opened .*opset.*a newer onnxruntime than", of_nodes(tmp_path, relu, opset=99))

    def test_what_is_no_network(self, net):
        (net / "model.onnx").write_text("version https://git-lfs.github.com/spec/v1")
        refuse("cannot be opened .*; fetch or export it again", net)
        (net / "model.onnx").write_bytes(b"")
        refuse("cannot be opened", net)

    def test_weights_that_are_missing(self, tmp_path):
        weights = dict(w=np.ones((1, 3, 8, 8), np.float32))
        nodes = [helper.make_node("Mul", ["pixel_values", "w"], ["out"])]
        external = dict(save_as_external_data=True, location="weights.bin", size_threshold=0)
        of_nodes(tmp_path, *nodes, weights=weights, **external)
        assert np.ptp(encode(tmp_path, pictures(3), tmp_path), axis=0).any()
        (tmp_path / "weights.bin").unlink()
        refuse("keeps weights in .*weights.bin, which is not there; fetch that file too", tmp_path)

    def test_images_of_another_size(self, tmp_path):
        refuse(
            r"reads images of \(height, width\) \(9, 9\), but its preprocessing gives \(8, 8\)",
            tiny(tmp_path, shape=("n", 3, 9, 9)),
        )
        reshape = helper.make_node("Reshape", ["pixel_values", "to"], ["out"])
        folder = of_nodes(tmp_path, reshape, shape=("n", 3, "h", "w"), weights=dict(to=np.array([-1, 7])))
        refuse(r"cannot be run on images \[2, 3, 8, 8\] \(", folder)

    def test_outputs_to_choose_from(self, tmp_path):
        folder = tiny(tmp_path, outputs=("feature_map", "last_map"))
        refuse(
            r"has the outputs feature_map \[2, 5, 8, 8\], last_map .*, of which none is plainly the embedding", folder
        )
        refuse("of which none is embedding; set config.encoder.output", folder, output="embedding")
        mean = helper.make_node("ReduceMean", ["pixel_values"], ["out"], axes=[0])
        refuse("outputs none with a row for each image", of_nodes(tmp_path, mean))

    def test_an_output_of_varying_length(self, tmp_path):
        nodes = [
            helper.make_node("Flatten", ["pixel_values"], ["rows"]),
            helper.make_node("ReduceMax", ["rows"], ["top"], keepdims=0),
            helper.make_node("Cast", ["top"], ["whole"], to=TensorProto.INT64),
            helper.make_node("Add", ["whole", "four"], ["length"]),
            helper.make_node("Unsqueeze", ["length", "zero"], ["end"]),
            helper.make_node("Slice", ["rows", "zero", "end", "one"], ["out"]),
        ]
        of_nodes(tmp_path, *nodes, weights=dict(zero=np.array([0]), one=np.array([1]), four=np.array(4)))
        encoder, data = build(tmp_path), data_of(np.full((3, 8, 8, 3), 255, np.uint8))
        assert encoder.shapes(data).latents.shape == (3, 4)
        with pytest.raises(BadInput, match=r"is \(3, 7\) for 3 images, but had 4 numbers per image before"):
            encoder.encode(data, tmp_path / "out")

    def test_values_that_are_not_finite(self, tmp_path):
        nodes = [helper.make_node("Log", ["pixel_values"], ["log"]), helper.make_node("Flatten", ["log"], ["out"])]
        folder = preprocessor(of_nodes(tmp_path / "net", *nodes), do_normalize=False)
        images = np.full((pretrained.SHARD + 4, 8, 8, 3), 200, np.uint8)
        images[pretrained.SHARD + 2, 3, 3] = 0
        with pytest.raises(BadInput, match=f"NaN or infinite values for train/{pretrained.SHARD + 2}; leave that"):
            encode(folder, images, tmp_path / "out")
        assert len(list((tmp_path / "out").rglob("*.npz"))) == 1  # the shard before it

    def test_sizes(self, net):
        with pytest.raises(BadInput, match="batch_size 0 and latent_dim None; expected 1 or more"):
            build(net, batch_size=0)
        refuse("latent_dim is 6, but .* gives 5 numbers per image", net, latent_dim=6)
        refuse("latent_dim is 4, but there are 3 training images", net, pictures(3), latent_dim=4)
        refuse("images have 4 channels; expected 1 or 3", net, np.zeros((3, 8, 8, 4), np.uint8))

    def test_onnx_runtime_that_is_not_installed(self, net, monkeypatch):
        monkeypatch.setattr("latent_al.types._is_installed", lambda module: module != "onnxruntime")
        refuse(r"needs onnxruntime, which is not installed: pip install 'latent_al\[pretrained\]'", net)

    @pytest.mark.parametrize(
        ("available", "match"),
        [
            (["CPUExecutionProvider"], "on the CPU, .*; for the GPU: pip install onnxruntime-gpu in place of"),
            (["CUDAExecutionProvider", "CPUExecutionProvider"], "could not load CUDA or cuDNN"),
        ],
    )
    def test_a_gpu_provider_that_is_absent(self, available, match, net, monkeypatch):
        session = network.open_session(net / "model.onnx")
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
        entry = network.input_of(net, session)
        steps = read_preprocessing((net,), SETTINGS, takes_bytes=False)
        opened = network.open_network(net / "model.onnx", session, entry, steps, None)
        assert pd.Series([opened.describe()]).str.contains(match).all()


class TestPools:
    def test_files_are_encoded_at_their_own_size(self, net, files, tmp_path):
        root, images = files
        data = scanned(root, tmp_path / "job")
        encoder = build(net, batch_size=3)
        expectation = encoder.forecast(data, tmp_path / "out")
        assert (expectation.training, expectation.encoding > 0, expectation.memory > 0) == (0, True, True)
        latents = encoder.encode(data, tmp_path / "out").train.latents
        np.testing.assert_allclose(latents, expected(images.values()), atol=1e-5)
        assert encoder.forecast(data, tmp_path / "out") is None

    def test_new_images_are_encoded_alone_by_the_same_components(self, net, files, tmp_path, monkeypatch):
        root, images = files
        settings = dict(latent_dim=2, batch_size=4)
        first = build(net, **settings).encode(scanned(root, tmp_path / "job"), tmp_path / "out").train.latents
        Image.fromarray(pictures(1, seed=99)[0]).save(root / "99.png")
        prepared = []
        monkeypatch.setattr(
            pretrained, "preprocess", lambda image, steps: prepared.append(image) or preprocess(image, steps)
        )
        latents = build(net, **settings).encode(scanned(root, tmp_path / "job"), tmp_path / "out").train.latents
        assert len(prepared) == 1
        np.testing.assert_array_equal(latents[:20], first)
        wanted = expected(images.values())
        _, _, rows = np.linalg.svd(wanted - wanted.mean(axis=0))
        new = (expected(pictures(1, seed=99)) - wanted.mean(axis=0)) @ rows[:2].T
        np.testing.assert_allclose(np.abs(latents[20:]), np.abs(new), atol=1e-4)

    def test_another_network_is_refused(self, net, files, tmp_path):
        data = scanned(files[0], tmp_path / "job")
        build(net).encode(data, tmp_path / "out")
        shutil.copytree(net, tmp_path / "moved")
        build(tmp_path / "moved").encode(data, tmp_path / "out")
        with pytest.raises(BadInput, match=r"begun with another network \(preprocessing.resample: then 3, now 2\)"):
            build(net, resample="bilinear").encode(data, tmp_path / "out")
        tiny(net, kind=np.float16)
        with pytest.raises(BadInput, match=r"begun with another network \(model: then .*; put that one back"):
            build(net).encode(data, tmp_path / "out")

    def test_what_is_kept_and_broken_is_refused(self, net, files, tmp_path):
        data = scanned(files[0], tmp_path / "job")
        build(net, latent_dim=2).encode(data, tmp_path / "out")
        for name, match in {"components.npz": "restore it from a copy", "network.json": "delete .*out: it is"}.items():
            (tmp_path / "out" / name).write_bytes(b"{")
            with pytest.raises(BadInput, match=f"{name} cannot be read .*; {match}"):
                build(net, latent_dim=2).encode(data, tmp_path / "out")

    def test_goes_on_where_it_was_interrupted(self, net, tmp_path, monkeypatch):
        images = pictures(2 * pretrained.SHARD + 9)
        whole = encode(net, images, tmp_path / "whole")
        save_shard, calls = shards._save, []

        def interrupt(path, part):
            if calls:
                raise KeyboardInterrupt
            calls.append(save_shard(path, part))

        with monkeypatch.context() as patch:
            patch.setattr(shards, "_save", interrupt)
            with pytest.raises(KeyboardInterrupt):
                encode(net, images, tmp_path / "out")
        prepared = []
        monkeypatch.setattr(
            pretrained, "preprocess", lambda image, steps: prepared.append(image) or preprocess(image, steps)
        )
        np.testing.assert_array_equal(encode(net, images, tmp_path / "out"), whole)
        assert len(prepared) == pretrained.SHARD + 9

    def test_a_file_that_breaks_in_the_middle_is_named_and_the_rest_kept(self, net, files, tmp_path, capsys):
        root, images = files
        data = scanned(root, tmp_path / "job")
        (root / "07.png").write_bytes((root / "07.png").read_bytes()[:60])
        latents = build(net, batch_size=4).encode(data, tmp_path / "out").train.latents
        pixels = dict(images) | {"07.png": np.asarray(data.train.images[7])}
        np.testing.assert_allclose(latents, expected(pixels.values()), atol=1e-5)
        said = "encoded as they were scanned, perhaps at a smaller size: 1 of 20 images, the first is "
        assert f"{said}{root / '07.png'}: it" in capsys.readouterr().out

    def test_an_image_whose_file_has_other_content_is_named_by_its_id(self, net, files, tmp_path, capsys):
        root, _ = files
        before = scanned(root, tmp_path / "job")
        Image.fromarray(pictures(1, seed=99)[0]).save(root / "07.png")
        build(net).encode(scanned(root, tmp_path / "job"), tmp_path / "out")
        said = f"1 of 21 images, the first is image {before.ids[7]}: its file now has other content\n"
        assert said in capsys.readouterr().out

    def test_a_broken_file_of_an_experiment_is_refused_by_name(self, net, files, tmp_path):
        root, _ = files
        source = dict(name="image_folder", root=str(root), size=(4, 4), channels=3)
        data = load(source | dict(num_validation=0, num_test=0, skip_broken=False))
        (root / "07.png").write_bytes(b"broken")
        with pytest.raises(BadInput, match="07.png can no longer be read .*; fix it, and run the same command"):
            build(net).encode(data, tmp_path / "out")


class TestWhole:
    def test_a_job_from_files_to_accuracy(self, net, files, tmp_path, capsys):
        root, images = files
        config = runpy.run_path(str(ROOT / "configs/folder.py"))["get_config"]("pretrained")
        changes = {"data.root": str(root), "encoder.root": str(net), "audit": 8, "num_initial": 4, "query_size": 4}
        config.update_from_flattened_dict(changes)
        config.initial = dict(name="random")
        labelling.run(config, str(tmp_path / "job"))
        answer(tmp_path / "job", 0, lambda query: "bright" if images[query.file_name].mean() > 127.5 else "dark")
        config.encoder.root = str(shutil.move(net, tmp_path / "moved"))
        labelling.run(config, str(tmp_path / "job"))
        assert len(queries_of(tmp_path / "job", 1)) == 4
        said = capsys.readouterr().out
        assert "To encode: 0 s" in said
        assert "accuracy" in said

    def test_an_experiment_on_files(self, net, files, tmp_path):
        root, images = files
        for index, name in enumerate(images):
            (root / f"class{index % 2}").mkdir(exist_ok=True)
            (root / name).rename(root / f"class{index % 2}" / name)
        config = experiment(root, net)
        assert run_experiment(config, str(tmp_path / "run")) is not None
        (shard,) = (tmp_path / "run/encoders").glob("onnx-*/*/train/latents/*.npz")
        ids = load(config.data.to_dict()).ids
        with np.load(shard) as arrays:
            latents = arrays["latents"]
        np.testing.assert_allclose(latents, expected([images[Path(name).name] for name in ids]), atol=1e-5)
        tiny(net, kind=np.float16)
        with pytest.raises(BadInput, match="what encoder 'net' learned or was given has changed"):
            run_experiment(config, str(tmp_path / "run"))


def experiment(root, net):
    return ConfigDict(
        dict(
            data=dict(
                name="image_folder",
                root=str(root),
                size=(4, 4),
                channels=3,
                num_validation=4,
                num_test=4,
                skip_broken=False,
            ),
            encoders=dict(net=dict(name="onnx", root=str(net))),
            classifiers=dict(mlp=dict(name="mlp", hidden=(), dropout=0.0, learning_rate=0.1, epochs=30, batch_size=4)),
            num_seeds=2,
            initial=dict(name="random"),
            num_initial=4,
            query_size=2,
            num_rounds=0,
            arms=dict(random=dict(encoder="net", classifier="mlp", strategy=dict(name="random"))),
            baseline="random",
        )
    )
