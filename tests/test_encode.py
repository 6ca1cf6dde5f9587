"""Streams of images from a store to latents on disk: whole, interrupted, with images that join later, and broken."""

import numpy as np
import pandas as pd
import pytest

from latent_al.data.store import Store
from latent_al.labelling import encode
from latent_al.runtime.files import write_csv
from latent_al.types import BadInput

SHAPE = (4, 4, 3)
SPEC = dict(name="dense_vae", hidden=(8,), latent_dim=2, learning_rate=1e-2, epochs=12, batch_size=8, seed=0)


def rows(first, num):
    names = [f"{row}.png" for row in range(first, first + num)]
    numbers = dict.fromkeys(("height", "width", "bytes", "modified_ns"), 1)
    return pd.DataFrame(dict(id=[f"sha256:{name}" for name in names], file_name=names, **numbers))


@pytest.fixture
def store(tmp_path):
    """Two shards of images, dark ones and bright ones by turns."""
    store = Store(tmp_path / "pool", SHAPE)
    add(store, 30)
    add(store, 20)
    return store


def add(store, num):
    first, rng = len(store), np.random.default_rng(len(store))
    bright = (first + np.arange(num))[:, None, None, None] % 2
    store.append(rows(first, num), (rng.integers(0, 30, (num, *SHAPE)) + 225 * bright).astype(np.uint8))


@pytest.fixture(scope="module")
def streamed():
    """Chunks of two batches, so that epochs take several and the last is not full."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode, "CHUNK", 4 * 16 * 48)
        built = encode.build_streamed(SPEC, SHAPE)
    assert (built.chunk, built.piece) == (16, 16)
    return built


def test_learns_and_keeps_what_is_encoded(streamed, store, tmp_path):
    encoded = encode.encode(streamed, store, tmp_path / "encoder")
    assert encoded.latents.shape == encoded.log_sigma.shape == (50, 2)
    dark, bright = encoded.latents[::2], encoded.latents[1::2]
    assert np.linalg.norm(dark.mean(axis=0) - bright.mean(axis=0)) > 3 * dark.std()
    again = encode.encode(streamed._replace(train=None, encode=None), store, tmp_path / "encoder")
    np.testing.assert_array_equal(again.latents, encoded.latents)


def test_images_that_join_later_change_no_latent(streamed, store, tmp_path):
    before = encode.encode(streamed, store, tmp_path / "encoder")
    add(store, 5)
    forecast, compiled = encode.forecast(streamed, store, tmp_path / "encoder")
    assert forecast.training == 0
    after = encode.encode(compiled, store, tmp_path / "encoder")
    np.testing.assert_array_equal(after.latents[:50], before.latents)
    dark, bright = before.latents[::2].mean(axis=0), before.latents[1::2].mean(axis=0)
    for row in range(50, 55):
        distances = [np.linalg.norm(after.latents[row] - centre) for centre in (dark, bright)]
        assert np.argmin(distances) == row % 2


def test_forecast_compiles_what_training_uses(streamed, store, tmp_path):
    forecast, compiled = encode.forecast(streamed, store, tmp_path / "encoder")
    assert forecast.training > 0
    assert forecast.encoding > 0
    assert forecast.memory > 5 * 16 * 48
    found = encode.encode(compiled, store, tmp_path / "encoder")
    np.testing.assert_array_equal(found.latents, encode.encode(streamed, store, tmp_path / "other").latents)


def test_interrupted_goes_on_to_the_same_latents(streamed, store, tmp_path, monkeypatch):
    """Stopped in the third epoch, and again while it encodes."""
    monkeypatch.setattr(encode, "SECONDS", 0)
    folder = tmp_path / "stopped"
    calls = iter(range(8))

    def train(*args):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return streamed.train(*args)

    def encode_first_shard_only(params, pixels):
        if list((folder / "latents").glob("*")):
            raise KeyboardInterrupt
        return streamed.encode(params, pixels)

    stopped = streamed._replace(train=train, encode=encode_first_shard_only)
    for change in (stopped, stopped._replace(train=streamed.train)):
        with pytest.raises(KeyboardInterrupt):
            encode.encode(change, store, folder)
    assert len(list((folder / "latents").glob("*"))) == 1
    found = encode.encode(streamed._replace(train=None), store, folder)
    np.testing.assert_array_equal(found.latents, encode.encode(streamed, store, tmp_path / "whole").latents)


@pytest.mark.parametrize(
    "broken, message",
    [(b"PK", "cannot be read .* delete it and run again"), (None, "3 rows where 30 were scanned")],
)
def test_broken_latents_are_refused(broken, message, streamed, store, tmp_path):
    encode.encode(streamed, store, tmp_path / "encoder")
    path = tmp_path / "encoder/latents/000000000.npz"
    if broken is None:
        np.savez(path, latents=np.zeros((3, 2)))
    else:
        path.write_bytes(broken)
    with pytest.raises(BadInput, match=message):
        encode.encode(streamed, store, tmp_path / "encoder")


@pytest.mark.parametrize("learning_rate, loss, chunk", [(1e30, "nan", 1), (3.0, r"[0-9.e+]+", 3)])
def test_a_loss_that_diverges_is_refused(learning_rate, loss, chunk, store, tmp_path):
    streamed = encode.build_streamed(SPEC | dict(learning_rate=learning_rate), SHAPE)
    message = rf"the training loss is {loss} in chunk {chunk} of 3, where [0-9.]+ was that of no training; lower"
    with pytest.raises(BadInput, match=message):
        encode.encode(streamed, store, tmp_path / "encoder")


class TestPrecomputed:
    TABLE = rows(0, 3).assign(status="present")

    def write(self, folder, latents, index):
        np.save(folder / "e.npy", latents)
        write_csv(folder / "e.csv", pd.DataFrame(index))
        return dict(name="precomputed", latents=str(folder / "e.npy"), index=str(folder / "e.csv"))

    @pytest.mark.parametrize("column", ["id", "file_name"])
    def test_rows_are_joined_by_name(self, column, tmp_path):
        latents = np.arange(8.0).reshape(4, 2)
        names = [*self.TABLE[column].iloc[[2, 0, 1]], "another"]
        found = encode.precomputed(self.write(tmp_path, latents, {column: names}), self.TABLE)
        np.testing.assert_array_equal(found.latents, latents[[1, 2, 0]])
        assert found.latents.dtype == np.float32

    @pytest.mark.parametrize(
        "latents, index, message",
        [
            (np.zeros((2, 2)), dict(id=TABLE.id[:2]), "1 of 3 images have no row in .*the first is 'sha256:2.png'"),
            (np.zeros((2, 2)), dict(name=["a", "b"]), "has the columns name; expected one named id or file_name"),
            (np.zeros((2, 2)), dict(id=TABLE.id), r"shape \(2, 2\); expected numbers of shape \[3 d\]"),
            (np.zeros(3), dict(id=TABLE.id), r"shape \(3,\)"),
            (np.zeros((3, 2)), dict(id=["a", "a", "b"]), "has 'a' more than once"),
            (np.full((3, 2), np.nan), dict(id=TABLE.id), "NaN or infinite values for 3 images, the first is '0.png'"),
        ],
    )
    def test_refusals(self, latents, index, message, tmp_path):
        with pytest.raises(BadInput, match=message):
            encode.precomputed(self.write(tmp_path, latents, index), self.TABLE)

    def test_no_file(self, tmp_path):
        spec = dict(name="precomputed", latents=str(tmp_path / "e.npy"), index="e.csv")
        with pytest.raises(BadInput, match="cannot be read"):
            encode.read_embeddings(spec)
        with pytest.raises(BadInput, match="has the settings name, latents; expected name, latents and index"):
            encode.read_embeddings(dict(name="precomputed", latents="e.npy"))

    def test_a_name_that_means_two_images(self, tmp_path):
        table = self.TABLE.assign(status=["present", "changed", "present"])
        spec = self.write(tmp_path, np.zeros((3, 2)), dict(file_name=table.file_name))
        with pytest.raises(BadInput, match="'1.png' has other content than it had"):
            encode.precomputed(spec, table)
        spec = self.write(tmp_path, np.ones((3, 2)), dict(id=table.id))
        assert encode.precomputed(spec, table).latents.all()
