"""Streams of images from a store to latents on disk: whole, interrupted, with images that join later, and broken."""

import jax
import numpy as np
import pandas as pd
import pytest

from latent_al.data.images import Images, Stream
from latent_al.data.store import Store
from latent_al.encoders import autoencoder, build_encoder, shards, training
from latent_al.labelling.scan import as_data
from latent_al.models.autoencoders import dense_vae
from latent_al.runtime.checkpoints import Checkpoints
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


@pytest.fixture(scope="module", autouse=True)
def small_chunks():
    """Chunks of two batches, so that epochs take several and the last is not full."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "CHUNK_BYTES", 4 * 16 * 48)
        assert training.chunk_rows(8, SHAPE) == 16
        yield


@pytest.fixture(scope="module")
def encoder(small_chunks):
    return build_encoder(SPEC, SHAPE)


@pytest.fixture
def interrupt(monkeypatch):
    """Has a function raise KeyboardInterrupt after so many calls that went through."""

    def patch(owner, name, num):
        function, calls = getattr(owner, name), iter(range(num))

        def call(*args, **settings):
            if next(calls, None) is None:
                raise KeyboardInterrupt
            return function(*args, **settings)

        monkeypatch.setattr(owner, name, call)

    return patch


def encode(encoder, store, folder):
    return encoder.encode(as_data(store), folder).train


def test_a_store_is_a_stream_and_an_array_is_not(store):
    assert isinstance(store, Stream)
    assert isinstance(np.zeros((2, *SHAPE)), Images)
    assert not isinstance(np.zeros((2, *SHAPE)), Stream)
    assert store.shape == (50, *SHAPE)
    assert store[28:33].shape == (5, *SHAPE)


def test_learns_and_keeps_what_is_encoded(encoder, store, tmp_path, monkeypatch):
    encodings = encoder.encode(as_data(store), tmp_path / "encoder")
    encoded = encodings.train
    assert jax.tree.map(np.shape, encoded) == jax.tree.map(np.shape, encoder.shapes(as_data(store)))
    assert encoded.latents.shape == encoded.log_sigma.shape == (50, 2)
    assert encodings.validation.latents.shape == (0, 2)
    dark, bright = encoded.latents[::2], encoded.latents[1::2]
    assert np.linalg.norm(dark.mean(axis=0) - bright.mean(axis=0)) > 3 * dark.std()
    assert encoder.forecast(as_data(store), tmp_path / "encoder") is None
    monkeypatch.setattr(training, "epoch", None)
    monkeypatch.setattr(shards, "_save", None)
    again = encode(build_encoder(SPEC, SHAPE), store, tmp_path / "encoder")
    np.testing.assert_array_equal(again.latents, encoded.latents)


def test_learns_from_an_array_as_from_a_stream(encoder, store, tmp_path):
    """The same loop, on other parts and in another order."""
    data = as_data(store)
    array = data.train._replace(images=np.float32(store[:] / np.float32(255)))
    streamed = encoder.encode(data, tmp_path / "stream")
    whole = encoder.encode(data._replace(train=array), tmp_path / "array")
    assert len(streamed.losses) == -(-50 * 12 // 16)
    assert len(whole.losses) == 12
    assert abs(streamed.losses[-1, 0] / whole.losses[-1, 0] - 1) < 0.1
    images = streamed.decode(streamed.train.latents)
    assert ((images[1::2].mean() > 0.8) & (images[::2].mean() < 0.2)).all()


def test_images_that_join_later_change_no_latent(encoder, store, tmp_path):
    before = encode(encoder, store, tmp_path / "encoder")
    add(store, 5)
    forecast = encoder.forecast(as_data(store), tmp_path / "encoder")
    assert forecast.training == 0
    after = encode(encoder, store, tmp_path / "encoder")
    np.testing.assert_array_equal(after.latents[:50], before.latents)
    dark, bright = before.latents[::2].mean(axis=0), before.latents[1::2].mean(axis=0)
    for row in range(50, 55):
        distances = [np.linalg.norm(after.latents[row] - centre) for centre in (dark, bright)]
        assert np.argmin(distances) == row % 2


def test_a_negative_seed_shuffles_a_stream_too(store):
    trainer = training.make_trainer(dense_vae, training.Training(1e-2, 1, 8, -1), SHAPE, hidden=(8,), latent_dim=2)
    parts = training._chunks(trainer, store, len(store))
    assert sum(count for _, count in parts.read(0)) == 50


def test_forecast_changes_nothing(encoder, store, tmp_path):
    forecast = encoder.forecast(as_data(store), tmp_path / "encoder")
    assert forecast.training > 0
    assert forecast.encoding > 0
    assert forecast.memory > 5 * 16 * 48
    latents = encode(encoder, store, tmp_path / "encoder").latents
    np.testing.assert_array_equal(latents, encode(encoder, store, tmp_path / "other").latents)


def test_forecast_refuses_the_weights_that_training_would(store, tmp_path):
    """Of key 0 itself they are dead here too, whatever the seed."""
    alive, dead = (build_encoder(SPEC | dict(hidden=(2, 1), seed=seed), SHAPE) for seed in (0, 2))
    assert alive.forecast(as_data(store), tmp_path / "alive").training > 0
    with pytest.raises(BadInput, match="a dead layer; choose another seed"):
        dead.forecast(as_data(store), tmp_path / "dead")


def test_forecast_compiles_what_training_and_encoding_use(store, tmp_path, caplog):
    encoder = build_encoder(SPEC, SHAPE)
    with jax.log_compiles():
        encoder.forecast(as_data(store), tmp_path / "encoder")
        encode(encoder, store, tmp_path / "encoder")
    compiled = [text for text in caplog.messages if text.startswith("Compiling") and "uint8[16,4,4,3]" in text]
    assert len(compiled) == 2


def test_forecast_is_of_what_is_left(encoder, store, tmp_path, monkeypatch, interrupt):
    """Of 37.5 chunks those that a stop has left; none where it came after the training."""
    folder = tmp_path / "stopped"
    monkeypatch.setattr(training, "SECONDS", 0)
    interrupt(Checkpoints, "save", 30)
    with pytest.raises(KeyboardInterrupt):
        encode(encoder, store, folder)
    monkeypatch.undo()
    monkeypatch.setattr(autoencoder, "_measure", lambda *args: (1.0, 0))
    assert encoder.forecast(as_data(store), folder).training == 7.5
    interrupt(shards, "_save", 0)
    with pytest.raises(KeyboardInterrupt):
        encode(encoder, store, folder)
    assert encoder.forecast(as_data(store), folder).training == 0


def test_interrupted_goes_on_to_the_same_latents(encoder, store, tmp_path, monkeypatch, interrupt):
    """Stopped in the third epoch, and again while it encodes."""
    monkeypatch.setattr(training, "SECONDS", 0)
    folder = tmp_path / "stopped"
    interrupt(Checkpoints, "save", 8)
    with pytest.raises(KeyboardInterrupt):
        encode(encoder, store, folder)
    monkeypatch.undo()
    assert not list(folder.glob("latents/*"))
    interrupt(shards, "_save", 1)
    with pytest.raises(KeyboardInterrupt):
        encode(encoder, store, folder)
    monkeypatch.undo()
    assert len(list(folder.glob("latents/*"))) == 1
    monkeypatch.setattr(training, "epoch", None)
    latents = encode(build_encoder(SPEC, SHAPE), store, folder).latents
    monkeypatch.undo()
    np.testing.assert_array_equal(latents, encode(encoder, store, tmp_path / "whole").latents)


@pytest.mark.parametrize(
    "broken, message",
    [(b"PK", "cannot be read .* delete it and run again"), (None, "3 rows where 30 were scanned")],
)
def test_broken_latents_are_refused(broken, message, encoder, store, tmp_path):
    encode(encoder, store, tmp_path / "encoder")
    path = tmp_path / "encoder/latents/000000000.npz"
    if broken is None:
        np.savez(path, latents=np.zeros((3, 2)))
    else:
        path.write_bytes(broken)
    with pytest.raises(BadInput, match=message):
        encode(encoder, store, tmp_path / "encoder")


@pytest.mark.parametrize(
    "learning_rate, message",
    [
        (1e30, "the training loss is nan in chunk 1 of 3, and before that none; lower learning_rate"),
        (3.0, r"the loss of the first images was [0-9.]+ before training and is [0-9.e+]+; lower learning_rate"),
    ],
)
def test_a_loss_that_diverges_is_refused(learning_rate, message, store, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHUNK_BYTES", 2**26)
    diverging = build_encoder(SPEC | dict(learning_rate=learning_rate, seed=5), SHAPE)
    for _ in range(2):
        with pytest.raises(BadInput, match=message):
            encode(diverging, store, tmp_path / "encoder")


def test_a_training_loss_of_competing_networks_may_end_above_its_start(store, tmp_path):
    spec = dict(name="vae_gan", filters=(4,), hidden=8, latent_dim=2, gamma=1.0, learning_rate=1e-2, batch_size=8)
    encoded = encode(build_encoder(spec | dict(epochs=6, seed=0), SHAPE), store, tmp_path / "encoder")
    assert encoded.latents.shape == (50, 2)


def test_pixels_as_they_are(store, tmp_path):
    encoded = encode(build_encoder(dict(name="identity"), SHAPE), store, tmp_path)
    np.testing.assert_array_equal(encoded.latents, store[:].reshape(50, 48) / np.float32(255))


class TestPrecomputed:
    TABLE = rows(0, 3).assign(status="present")

    @pytest.fixture
    def read(self, tmp_path):
        """Reads the embeddings of three images from files of `latents` and `index`."""
        store = Store(tmp_path / "three", SHAPE)
        store.append(rows(0, 3), np.zeros((3, *SHAPE), np.uint8))

        def read(latents, index, table=self.TABLE):
            np.save(tmp_path / "e.npy", latents)
            write_csv(tmp_path / "e.csv", pd.DataFrame(index))
            spec = dict(name="precomputed", latents=str(tmp_path / "e.npy"), index=str(tmp_path / "e.csv"))
            return build_encoder(spec, SHAPE).encode(as_data(store, table), tmp_path).train

        return read

    @pytest.mark.parametrize("column", ["id", "file_name"])
    def test_rows_are_joined_by_name(self, column, read):
        latents = np.arange(8.0).reshape(4, 2)
        encoded = read(latents, {column: [*self.TABLE[column].iloc[[2, 0, 1]], "another"]})
        np.testing.assert_array_equal(encoded.latents, latents[[1, 2, 0]])
        assert encoded.latents.dtype == np.float32

    @pytest.mark.parametrize(
        "latents, index, message",
        [
            (np.zeros((2, 2)), dict(id=TABLE.id[:2]), "1 of 3 images have no row in .*the first is 'sha256:2.png'"),
            (np.zeros((2, 2)), dict(name=["a", "b"]), "has the columns name; expected one named id or file_name"),
            (np.zeros((2, 2)), dict(id=TABLE.id), r"e.csv has 3 rows and .*e.npy has 2; give a row for each"),
            (np.zeros((0, 2)), dict(id=[]), r"e.csv has 0 rows and .*e.npy has 0; give a row for each"),
            (np.zeros(3), dict(id=TABLE.id), r"shape \(3,\); expected numbers of shape \[n d\]"),
            (np.zeros((3, 2)), dict(id=["a", "a", "b"]), "has 'a' more than once"),
            (
                np.zeros((2, 2)),
                dict(file_name=[TABLE.file_name[0], f"./{TABLE.file_name[0]}"]),
                "twice, as .* keep one",
            ),
            (
                np.where(np.arange(3)[:, None], np.nan, np.zeros((3, 2))),
                dict(id=TABLE.id[::-1]),
                "NaN or infinite values in 2 of 3 rows, the first is row 2, of image sha256:0.png",
            ),
        ],
    )
    def test_refusals(self, latents, index, message, read):
        with pytest.raises(BadInput, match=message):
            read(latents, index)

    @pytest.mark.parametrize("above", ["/home/me/photos/", "C:\\photos\\", "./"])
    def test_file_names_are_found_with_the_folder_in_front(self, above, read):
        latents = np.arange(6.0).reshape(3, 2)
        encoded = read(latents, dict(file_name=[above + name for name in self.TABLE.file_name[::-1]]))
        np.testing.assert_array_equal(encoded.latents, latents[::-1])

    def test_no_file(self, store, tmp_path):
        paths = dict(latents=str(tmp_path / "e.npy"), index=str(tmp_path / "e.csv"))
        encoder = build_encoder(dict(name="precomputed", **paths), SHAPE)
        with pytest.raises(BadInput, match=r"e.npy cannot be read as .npy"):
            encoder.shapes(as_data(store))
        np.save(tmp_path / "e.npy", np.zeros((50, 2)))
        with pytest.raises(BadInput, match=r"the index .*e.csv cannot be read"):
            encoder.shapes(as_data(store))
        without_index = build_encoder(dict(name="precomputed", latents=paths["latents"]), SHAPE)
        with pytest.raises(BadInput, match=r"e.npy has no index, but the images are a pool that may grow"):
            without_index.shapes(as_data(store))

    def test_a_name_that_means_two_images(self, read):
        table = self.TABLE.assign(status=["present", "changed", "present"])
        with pytest.raises(BadInput, match="image sha256:1.png has other content than before"):
            read(np.zeros((3, 2)), dict(file_name=table.file_name), table)
        assert read(np.ones((3, 2)), dict(id=table.id), table).latents.all()

    def test_an_index_of_the_images_of_an_experiment(self, make_data, tmp_path):
        """Their ids name the rows; held-out splits are by order."""
        data = make_data(num_validation=0)
        order = np.random.default_rng(0).permutation(60)
        np.save(tmp_path / "e.npy", order[:, None].astype(np.float32))
        write_csv(tmp_path / "e.csv", pd.DataFrame(dict(id=data.ids[order])))
        np.save(tmp_path / "test.npy", np.zeros((20, 1)))
        files = dict(latents="e.npy", index="e.csv", test="test.npy")
        spec = {name: str(tmp_path / path) for name, path in files.items()}
        encodings = build_encoder(dict(spec, name="precomputed"), (4, 4, 1)).encode(data, tmp_path)
        np.testing.assert_array_equal(encodings.train.latents[:, 0], np.arange(60))
        assert encodings.test.latents.shape == (20, 1)


def test_a_batch_of_images_that_are_compared_fits_the_training_set(make_data, store, tmp_path):
    spec = dict(name="tsne_ae", filters=(4, 4), depth=1, hidden=(8,), dropout=0.2, activation="linear", latent_dim=2)
    spec |= dict(perplexity=10.0, tsne_weight=10.0, learning_rate=1.0, epochs=3, batch_size=61, seed=0)
    with pytest.raises(BadInput, match="a batch of 61, but there are 60 training images"):
        build_encoder(spec, (4, 4, 1)).shapes(make_data())
    # The pool of a labelling job is empty when its shapes are checked first.
    with pytest.raises(BadInput, match="a batch of 61, but there are 50 training images"):
        build_encoder(spec, SHAPE).encode(as_data(store), tmp_path / "encoder")
