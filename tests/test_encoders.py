"""Encoders: the same bytes after a stop, and embeddings that cannot be used."""

import zipfile

import jax
import numpy as np
import pytest

from latent_al.data import load
from latent_al.encoders import ENCODERS, training
from latent_al.encoders.identity import identity
from latent_al.encoders.precomputed import check_fingerprints, precomputed
from latent_al.encoders.quality import describe
from latent_al.runtime.checkpoints import Checkpoints
from latent_al.types import BadInput, build

VAE = dict(
    name="dense_vae",
    image_shape=(4, 4, 1),
    hidden=(8,),
    latent_dim=2,
    learning_rate=1e-3,
    epochs=4,
    batch_size=16,
    seed=0,
)


TSNE = dict(name="tsne_ae", image_shape=(4, 4, 1), filters=(4, 4), depth=1, hidden=(8,), dropout=0.2)
TSNE |= dict(activation="linear", latent_dim=2, perplexity=10.0, tsne_weight=10.0)
TSNE |= dict(learning_rate=1.0, epochs=3, batch_size=32, seed=0)


@pytest.fixture
def every_epoch(monkeypatch):
    """Saves each epoch, where a real run saves every half minute."""
    monkeypatch.setattr(training, "Checkpoints", lambda folder, seconds_between: Checkpoints(folder))


def build_encoder(**spec):
    return build(ENCODERS, spec, "encoder").encode


def equal(one, other):
    return jax.tree.all(jax.tree.map(np.array_equal, one[:4], other[:4]))


class TestDenseVAE:
    def test_latents_and_losses(self, make_data, tmp_path):
        result = build_encoder(**VAE | dict(epochs=30))(make_data(), tmp_path / "vae")
        assert result.train.latents.shape == result.train.log_sigma.shape == (60, 2)
        assert result.validation.latents.shape == result.test.latents.shape == (20, 2)
        assert result.losses.shape == (30, 2)
        assert (result.losses[-1] < result.losses[0]).all()

    def test_again_in_its_folder_trains_nothing(self, make_data, tmp_path, monkeypatch):
        first = build_encoder(**VAE)(make_data(), tmp_path / "vae")
        monkeypatch.setattr(training, "epoch", None)
        assert equal(first, build_encoder(**VAE)(make_data(), tmp_path / "vae"))

    def test_a_stopped_training_ends_with_the_same_bytes(self, make_data, tmp_path, every_epoch, monkeypatch):
        whole = build_encoder(**VAE)(make_data(), tmp_path / "whole")
        save = Checkpoints.save

        def stop_after_two(self, step, tree, last=True):
            save(self, step, tree, last)
            if step == 2:
                raise KeyboardInterrupt

        monkeypatch.setattr(Checkpoints, "save", stop_after_two)
        with pytest.raises(KeyboardInterrupt):
            build_encoder(**VAE)(make_data(), tmp_path / "stopped")
        monkeypatch.setattr(Checkpoints, "save", save)
        assert equal(whole, build_encoder(**VAE)(make_data(), tmp_path / "stopped"))

    def test_learns_from_training_images_only(self, make_data, tmp_path):
        data = make_data()
        changed = data._replace(test=data.test._replace(images=1 - data.test.images))
        first, second = (build_encoder(**VAE)(each, tmp_path / str(i)) for i, each in enumerate((data, changed)))
        assert equal([first.train], [second.train])

    def test_no_validation_images(self, make_data, tmp_path):
        result = build_encoder(**VAE)(make_data(num_validation=0), tmp_path / "vae")
        assert np.isnan(result.losses[:, 1]).all()

    def test_a_loss_that_is_not_finite_stops_early(self, make_data, tmp_path):
        with pytest.raises(
            BadInput, match=r"training loss is (nan|inf) in epoch \d of 9.*lower learning_rate \(1e\+12\)"
        ):
            build_encoder(**VAE | dict(learning_rate=1e12, epochs=9))(make_data(), tmp_path / "vae")

    @pytest.mark.parametrize("change", [dict(latent_dim=0), dict(epochs=-1), dict(hidden=(4, 0)), dict(batch_size=0)])
    def test_bad_sizes(self, change):
        with pytest.raises(BadInput, match="expected sizes of 1 or more"):
            build_encoder(**VAE | change)

    def test_without_hidden_layers(self, make_data):
        encoder = build(ENCODERS, VAE | dict(hidden=()), "encoder")
        assert encoder.shapes(make_data()).latents.shape == (60, 2)

    def test_decode_gives_images(self, make_data, tmp_path):
        result = build_encoder(**VAE)(make_data(), tmp_path / "vae")
        images = result.decode(result.test.latents)
        assert images.shape == (20, 4, 4, 1)
        assert ((images >= 0) & (images <= 1)).all()


class TestConvVAE:
    CONV = dict(name="conv_vae", image_shape=(4, 4, 1), latent_dim=2, kl_weight=1.0, dtype="float32")
    CONV |= dict(learning_rate=1e-3, epochs=10, batch_size=16, seed=0)

    def test_learns(self, tmp_path):
        digits = load(dict(name="digits", num_validation=1000, num_test=500))
        result = build_encoder(**self.CONV | dict(image_shape=(8, 8, 1), epochs=6))(digits, tmp_path / "vae")
        assert result.train.latents.shape == result.train.log_sigma.shape == (297, 2)
        assert (result.losses[-1] < result.losses[0] - 1).all()

    @pytest.mark.slow
    def test_no_validation_images(self, make_data, tmp_path):
        data = make_data(num_validation=0)
        result = build_encoder(**self.CONV | dict(epochs=1))(data, tmp_path / "vae")
        assert result.validation.latents.shape == (0, 2)
        described = describe(result, data)
        assert described["validation_loss"] is None
        assert 0 < described["sharpness"] < 1

    def test_a_dead_first_layer_is_refused(self, make_data, tmp_path):
        with pytest.raises(BadInput, match="map all images to one point, a dead layer; choose another seed"):
            build_encoder(**self.CONV | dict(seed=34))(make_data(), tmp_path / "vae")

    def test_a_batch_that_the_perplexity_does_not_fit(self):
        spec = dict(TSNE, batch_size=10)
        with pytest.raises(BadInput, match="cannot be trained in batches of 10: perplexity"):
            build_encoder(**spec)

    @pytest.mark.parametrize("name", [pytest.param("conv_ae", marks=pytest.mark.slow), "vae_tsne_ae"])
    def test_latens_auto_encoders(self, name, make_data, tmp_path):
        """The last of the two batches is filled up; errors are those of the reconstruction from the mean."""
        own = {} if name == "conv_ae" else dict(perplexity=10.0, tsne_weight=10.0)
        spec = {key: value for key, value in TSNE.items() if key not in ("perplexity", "tsne_weight")}
        data = make_data(num_train=50)
        result = build_encoder(**spec | dict(own, name=name, epochs=20))(data, tmp_path / "ae")
        assert result.losses[-1, 0] < result.losses[0, 0]
        assert (result.train.log_sigma is None) == (name == "conv_ae")
        guess = np.asarray(result.decode(result.train.latents))
        np.testing.assert_allclose(
            result.train.errors, np.abs(guess - data.train.images).mean(axis=(1, 2, 3)), atol=1e-5
        )

    @pytest.mark.parametrize(
        "change, message",
        [
            (dict(image_shape=(27, 27, 1)), r"images of shape \(27, 27, 1\); expected even sides and one channel"),
            (dict(image_shape=(28, 28, 3)), "expected even sides and one channel"),
            (dict(latent_dim=0), "latent_dim 0, kl_weight 1.0 and dtype 'float32'; expected 1 or more"),
            (dict(kl_weight=-1.0), "kl_weight -1.0"),
            (dict(kl_weight=float("inf")), "kl_weight inf"),
            (dict(dtype="float16"), "dtype 'float16'; expected 1 or more, 0 or more, and float32 or bfloat16"),
        ],
    )
    def test_what_it_refuses(self, change, message):
        with pytest.raises(BadInput, match=message):
            build_encoder(**self.CONV | change)


def test_identity_flattens(make_data, tmp_path):
    data = make_data(num_validation=0)
    result = identity().encode(data, tmp_path)
    np.testing.assert_array_equal(result.train.latents, data.train.images.reshape(60, 16))
    assert result.validation.latents.shape == (0, 16)
    assert result.train.log_sigma is None


class TestPrecomputed:
    @pytest.fixture
    def save(self, tmp_path):
        def write(**arrays):
            for name, array in arrays.items():
                np.save(tmp_path / f"{name}.npy", array)
            paths = {name: str(tmp_path / f"{name}.npy") for name in arrays}
            return precomputed(**paths).encode

        return write

    def test_reads(self, save, make_data, tmp_path):
        arrays = {name: np.random.default_rng(0).normal(size=(n, 5)) for name, n in dict(latents=60, test=20).items()}
        result = save(**arrays)(make_data(num_validation=0), tmp_path)
        np.testing.assert_array_equal(result.train.latents, np.float32(arrays["latents"]))
        assert result.validation.latents.shape == (0, 5)

    @pytest.mark.parametrize(
        "train, message",
        [
            (np.zeros((59, 5)), r"float64 of shape \(59, 5\); expected numbers of shape \[60 d\]"),
            (np.zeros(60), r"expected numbers of shape \[60 d\]"),
            (np.full((60, 5), "a"), "expected numbers"),
            (np.where(np.arange(60)[:, None] == 7, np.nan, np.zeros((60, 5))), "1 of 60 rows, the first is row 7"),
            (np.full((60, 5), np.inf), "NaN or infinite values in 60 of 60"),
            (np.zeros((60, 4)), "test.npy has 5 columns but latents has 4"),
        ],
    )
    def test_bad_embeddings(self, save, make_data, tmp_path, train, message):
        encode = save(latents=train, test=np.zeros((20, 5)))
        with pytest.raises(BadInput, match=message):
            encode(make_data(num_validation=0), tmp_path)

    def test_missing_and_broken_files(self, make_data, tmp_path):
        (tmp_path / "torn.npy").write_bytes(b"\x93NUMPY")
        for path in ("none.npy", "torn.npy"):
            with pytest.raises(BadInput, match=f"{path} cannot be read as .npy"):
                precomputed(latents=str(tmp_path / path)).encode(make_data(), tmp_path)

    def test_arrays_in_other_files_are_refused_with_the_call_that_saves_them(self, make_data, tmp_path):
        np.savez(tmp_path / "a.npz", ids=np.arange(60), vectors=np.zeros((60, 5)))
        with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
            archive.writestr("a/data.pkl", b"pickled")
        (tmp_path / "old.pth").write_bytes(b"\x80\x02pickled")
        (tmp_path / "a.csv").write_text("0.1,0.2\n")
        for name, message in [
            (
                "a.npz",
                r"a.npz is an archive; .* numpy.save\('.*a.npy', numpy.load\('.*a.npz'\)\['ids'\]\), or another ",
            ),
            ("a.pt", r"a.pt is an archive; .* numpy.save\('.*a.npy', torch.load\('.*a.pt'\).numpy\(\)\)"),
            ("old.pth", r"old.pth cannot be read as .npy .* numpy.save\('.*old.npy', torch.load\("),
            ("a.csv", r"a.csv cannot be read as .npy .* numpy.save\('.*a.npy', pandas.read_csv\("),
        ]:
            with pytest.raises(BadInput, match=message):
                precomputed(latents=str(tmp_path / name)).shapes(make_data())

    def test_paths_are_expanded(self, save, make_data, tmp_path, monkeypatch):
        save(latents=np.zeros((60, 5)), test=np.zeros((20, 5)))
        monkeypatch.setenv("HERE", str(tmp_path))
        encoder = precomputed(latents="$HERE/latents.npy", test="$HERE/test.npy")
        assert encoder.shapes(make_data(num_validation=0)).latents.shape == (60, 5)
        with pytest.raises(BadInput, match="the encoder's latents is empty"):
            precomputed(latents="")

    def test_a_split_without_its_file(self, save, make_data, tmp_path):
        with pytest.raises(BadInput, match="20 validation images but no embeddings"):
            save(latents=np.zeros((60, 5)))(make_data(), tmp_path)


def test_fingerprints(tmp_path):
    path, ids = tmp_path / "encoder/embeddings.csv", np.array(["a", "b", "c"])
    rows = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    check_fingerprints(path, ids[:2], rows[:2], "x.npy")
    check_fingerprints(path, ids[[2, 0]], rows[[2, 0]], "y.npy")
    before = path.read_bytes()
    check_fingerprints(path, ids, rows, "y.npy")
    assert path.read_bytes() == before
    with pytest.raises(
        BadInput, match="z.npy has another embedding than before for 2 of 3 images, the first is b; give"
    ):
        check_fingerprints(path, ids, rows[[0, 2, 1]], "z.npy")
    assert path.read_bytes() == before
    path.write_text("id\na\n")
    with pytest.raises(BadInput, match="embeddings.csv cannot be read"):
        check_fingerprints(path, ids, rows, "x.npy")


def test_a_checkpoint_that_cannot_be_written_is_told(tmp_path):
    checkpoints = Checkpoints(tmp_path / "run")
    (tmp_path / "run").rmdir()
    (tmp_path / "run").write_text("in the way")
    with pytest.raises(BadInput, match="checkpoint .*run/1 cannot be written .*; make room on the disk, or wait for"):
        checkpoints.save(1, np.zeros(3))


def test_a_checkpoint_of_another_process_is_found(tmp_path):
    """The first of several saves once all have opened the folder."""
    first, second = Checkpoints(tmp_path), Checkpoints(tmp_path)
    assert second.restore(np.zeros(3))[0] == 0
    first.save(1, np.arange(3.0))
    steps, restored = second.restore(np.zeros(3))
    assert (steps, restored.tolist()) == (1, [0, 1, 2])
