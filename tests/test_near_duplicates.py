"""Near-duplicates: distances beside a dense loop, what is too near for chance, groups, and the job that lists them."""

import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_labelling import answer, call, configure, draw, is_audit, queries_of, record_of

from latent_al.labelling import near_duplicates, run
from latent_al.labelling.selection import Masks
from latent_al.labelling.state import State
from latent_al.runtime.files import read_csv, write_csv
from latent_al.types import BadInput


def scattered(num, width, seed=0):
    return np.float32(np.random.default_rng(seed).normal(size=(num, width)))


def planted(num, share, width, seed=0):
    """Points of which a share are others moved by little, and whether each is one of such a pair."""
    copies = round(share * num)
    points = scattered(num, width, seed)
    points[num - copies :] = points[:copies] + np.float32(0.01) * scattered(copies, width, seed + 1)
    rows = np.arange(num)
    return points, (rows < copies) | (rows >= num - copies)


def dense(points):
    """All distances in float64, inf from each row to itself."""
    points = points.astype(np.float64)
    distances = np.sqrt(((points[:, None] - points[None, :]) ** 2).sum(axis=2))
    np.fill_diagonal(distances, np.inf)
    return distances


class TestNearestDistances:
    @pytest.mark.parametrize("num", [2, 16, 17, 50])
    @pytest.mark.parametrize("width", [3, 30])
    def test_equal_the_dense_ones(self, num, width, monkeypatch):
        """The last block laps over the one before; the last row equals the first."""
        monkeypatch.setattr(near_duplicates, "COMPARED", 16)
        points = scattered(num, width)
        points[-1] = points[0]
        expected = dense(points).min(axis=1)
        np.testing.assert_allclose(near_duplicates.nearest_distances(points), expected, rtol=1e-5)

    @pytest.mark.parametrize("num", [0, 1])
    def test_without_another_row(self, num):
        assert near_duplicates.nearest_distances(scattered(num, 3)).tolist() == [np.inf] * num


class TestThreshold:
    @pytest.mark.parametrize("width", [2, 8, 64])
    @pytest.mark.parametrize("seed", [0, 1])
    def test_none_in_a_pool_without(self, width, seed):
        distances = dense(scattered(600, width, seed)).min(axis=1)
        assert near_duplicates.threshold_of(distances) < distances.min()

    @pytest.mark.parametrize("share", [0.01, 0.05, 0.3])
    @pytest.mark.parametrize("width", [8, 64])
    def test_finds_what_was_planted(self, share, width):
        points, is_planted = planted(600, share, width)
        distances = dense(points).min(axis=1)
        is_near = distances <= near_duplicates.threshold_of(distances)
        assert is_near[is_planted].all()
        assert (is_near & ~is_planted).sum() <= 0.1 * is_near.sum()

    def test_finds_rows_that_are_equal(self):
        points = scattered(600, 8)
        points[-6:] = points[:6]
        distances = dense(points).min(axis=1)
        assert np.flatnonzero(distances <= near_duplicates.threshold_of(distances)).tolist() == [
            *range(6),
            *range(594, 600),
        ]

    @pytest.mark.parametrize("distances", [[], [np.inf], [0.0, 0.0], [1e-9, *[1.0] * 18], [1 + 1e-6, *[1.0] * 99]])
    def test_none_where_no_distribution_can_be_fitted(self, distances):
        assert near_duplicates.threshold_of(np.array(distances)) == 0

    def test_the_spread_of_exponential_logarithms(self):
        """Distances to the power of 5 are exponential."""
        distances = np.random.default_rng(0).exponential(size=100_000) ** (1 / 5)
        assert near_duplicates._fit(distances)[1] == pytest.approx(5, rel=0.02)
        assert near_duplicates._fit_upper(distances) == pytest.approx((np.log(2) ** (1 / 5), 5), rel=0.02)


class TestGroup:
    def test_a_chain_is_not_one_group(self):
        points = np.float32(0.6 * np.arange(6))[:, None]
        representatives, distances = near_duplicates.group(points, 1.0)
        assert representatives.tolist() == [0, 0, 2, 2, 4, 4]
        np.testing.assert_allclose(distances, [0, 0.6] * 3, rtol=1e-6)

    @pytest.mark.parametrize("width", [2, 20])
    def test_in_several_blocks(self, width, monkeypatch):
        """Those that stand for others are those of the loop, whatever the size of a block."""
        points = np.concatenate([scattered(40, width), scattered(40, width) + np.float32(0.1)])
        threshold = float(np.median(dense(points).min(axis=1))) * 1.2
        standing = []
        for row in range(len(points)):
            if not any(dense(points[[row, other]])[0, 1] <= threshold for other in standing):
                standing.append(row)
        for size in (7, 80, 256):
            monkeypatch.setattr(near_duplicates, "GROUPED", size)
            representatives, distances = near_duplicates.group(points, threshold)
            assert np.flatnonzero(representatives == np.arange(len(points))).tolist() == standing
            assert set(representatives) == set(standing)
            np.testing.assert_allclose(distances, np.linalg.norm(points - points[representatives], axis=1), rtol=1e-5)
            assert (distances <= threshold).all()

    def test_without_rows(self):
        assert [part.shape for part in near_duplicates.group(scattered(0, 3), 0.0)] == [(0,), (0,)]


def state_of(num, **rows):
    """A state of images that are all in the folder, with rows that are labelled, or of which a mask is True."""
    masks = {
        name: np.isin(np.arange(num), rows.get(name, [])) for name in ("audit", "open", "skipped", "closed", "tied")
    }
    classes = np.where(np.isin(np.arange(num), rows.get("labelled", [])), 0, -1)
    status = np.where(np.isin(np.arange(num), rows.get("removed", [])), "removed", "present")
    table = pd.DataFrame(dict(id=[f"id {row}" for row in range(num)], status=status))
    return State(table, None, Masks(classes, **masks), ["cat"], np.arange(num), [], None, 0, None)


class TestFind:
    """Of 200 images 40 and 41 are near to 0, 42 to 1, and 43 equals 2."""

    @pytest.fixture
    def points(self):
        points = scattered(200, 8)
        points[[40, 41, 42, 43]] = points[[0, 0, 1, 2]] + np.float32([[0.01], [-0.01], [0.03], [0]])
        return points

    @pytest.mark.parametrize(
        "rows, expected",
        [
            (dict(), {43: 2, 40: 0, 41: 0, 42: 1}),
            (dict(labelled=[41], open=[40], audit=[42]), {43: 2, 0: 41, 40: 41, 1: 42}),
            (dict(open=[40], labelled=[0], closed=[43]), {2: 43, 40: 0, 41: 0, 42: 1}),
            (dict(tied=[40]), {43: 2, 0: 40, 41: 40, 42: 1}),
            (dict(removed=[0, 1], closed=[0, 1]), {43: 2, 41: 40}),
        ],
    )
    def test_who_stands_for_whom(self, rows, expected, points, tmp_path):
        near = near_duplicates.find(tmp_path, points, state_of(200, **rows))
        assert dict(zip(near.rows.tolist(), near.representatives.tolist(), strict=True)) == expected
        np.testing.assert_allclose(near.distances, dense(points)[near.rows, near.representatives], rtol=1e-4)
        assert (np.diff(near.groups) >= 0).all()
        assert len(set(near.groups.tolist())) == len(set(expected.values()))

    def test_once_leaves_out_those_that_nobody_was_asked(self, points, tmp_path):
        state = state_of(200, labelled=[41], open=[40], audit=[1, 42])
        once = near_duplicates.label_once(state, near_duplicates.find(tmp_path, points, state))
        assert np.flatnonzero(once.masks.closed).tolist() == [0, 43]
        changed = np.flatnonzero(once.label_rows != np.arange(200))
        assert dict(zip(changed.tolist(), once.label_rows[changed].tolist(), strict=True)) == {0: 41, 43: 2}
        assert not state.masks.closed.any()

    def test_distances_are_kept_for_one_pool(self, points, tmp_path, monkeypatch):
        first = near_duplicates.find(tmp_path, points, state_of(200))
        grown = np.concatenate([points, points[[3]]])
        with monkeypatch.context() as patch:
            patch.setattr(near_duplicates, "nearest_distances", None)
            again = near_duplicates.find(tmp_path, points, state_of(200))
            with pytest.raises(TypeError, match="not callable"):
                near_duplicates.find(tmp_path, grown, state_of(201))
        np.testing.assert_array_equal(np.stack(again), np.stack(first))
        assert len(near_duplicates.find(tmp_path, grown, state_of(201)).rows) == 5
        near_duplicates.find(tmp_path, points, state_of(200))
        content = (tmp_path / "nearest.bin").read_bytes()
        (tmp_path / "nearest.bin").write_bytes(content[:-1])
        assert near_duplicates.find(tmp_path, points, state_of(200)).rows.tolist() == first.rows.tolist()
        assert (tmp_path / "nearest.bin").read_bytes() == content


NUM_COPIES = 12


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """60 images, of which 12 are saved once more as JPEG, with their pixels as embeddings, after the first call."""
    folder = tmp_path_factory.mktemp("job")
    truth = draw(folder / "images", range(60))
    for number in range(NUM_COPIES):
        with Image.open(folder / f"images/{number:02d}.png") as image:
            image.save(folder / f"images/again {number:02d}.jpg", quality=95, subsampling=0)
        truth[f"again {number:02d}.jpg"] = truth[f"{number:02d}.png"]
    embed(folder)
    workdir = folder / "job"
    return SimpleNamespace(folder=folder, workdir=workdir, truth=truth, said=call_job(folder, workdir))


def embed(folder):
    names = sorted(path.name for path in (folder / "images").iterdir())
    pixels = [np.asarray(Image.open(folder / "images" / name)).ravel() / 255 for name in names]
    np.save(folder / "embeddings.npy", np.float32(pixels))
    write_csv(folder / "index.csv", pd.DataFrame(dict(file_name=names)))


def encoder_of(folder):
    return dict(name="precomputed", latents=str(folder / "embeddings.npy"), index=str(folder / "index.csv"))


def call_job(folder, workdir, **changes):
    # Of so small an audit slice little is estimated, and random selection prepares nothing: both would take time.
    quick = dict(audit=15, classifier__epochs=5, initial=dict(name="random"), strategy=dict(name="random"))
    return call(folder / "images", workdir, encoder=encoder_of(folder), **quick, **changes)


def copy_of(job, tmp_path):
    shutil.copytree(job.folder, tmp_path / "copy")
    return tmp_path / "copy", tmp_path / "copy/job"


class TestJob:
    def test_lists_what_was_saved_again(self, job):
        listed = read_csv(job.workdir / "near_duplicates.csv")
        assert list(listed) == ["id", "file_name", "same_as_id", "same_as", "distance", "group"]
        pairs = {frozenset(pair) for pair in zip(listed.file_name, listed.same_as, strict=True)}
        assert pairs == {frozenset((f"{number:02d}.png", f"again {number:02d}.jpg")) for number in range(NUM_COPIES)}
        ids = read_csv(job.workdir / "manifest.csv").set_index("file_name").id
        assert ids[listed.same_as].tolist() == listed.same_as_id.tolist()
        assert sorted(listed.group.astype(int)) == list(range(NUM_COPIES))
        assert (np.diff(listed.distance.astype(float)) >= 0).all()
        with Image.open(job.workdir / "near_duplicates.png") as sheet:
            assert sheet.size == (12 * 132 + 4, 2 * (132 + 36) + 4)
        assert "near-duplicates: 12 images are nearly the same as 12 others (" in job.said
        assert "--config.label_near_duplicates_once=True labels them once" in job.said

    @pytest.mark.slow
    def test_labelled_once(self, job, tmp_path):
        folder, workdir = copy_of(job, tmp_path)
        pairs = read_csv(workdir / "near_duplicates.csv")[["file_name", "same_as"]].to_numpy()
        first = queries_of(workdir, 0)
        asked = set(first.file_name)
        answer(workdir, 0, lambda query: job.truth[query.file_name])
        said = call_job(folder, workdir, label_near_duplicates_once=True, query_size=100)
        assert "asked about once, with one label" in said
        left_out = {name for pair in pairs for name in pair if name not in asked}
        one_of = {pair[int(pair[0] in asked)] for pair in pairs if asked.intersection(pair)} & left_out
        second = queries_of(workdir, 1)
        is_asked_once = [len({*pair} & {*second.file_name}) for pair in pairs if not asked.intersection(pair)]
        assert is_asked_once
        assert set(is_asked_once) == {1}
        assert one_of
        assert not one_of & set(second.file_name)
        assert len(second) == 72 - len(first) - len(one_of) - len(is_asked_once)
        answer(workdir, 1, lambda query: job.truth[query.file_name])
        said = call_job(folder, workdir, label_near_duplicates_once=True, query_size=100)
        assert said.endswith("labelled or skipped, or a near-duplicate of one that is.\n")
        assert record_of(workdir, 2)["num_labels"] == len(first) + len(second) - is_audit(first).sum()
        predictions = read_csv(workdir / "rounds/002/predictions.csv").set_index("file_name")
        assert (predictions.label == predictions.index.map(job.truth)).all()
        taken_over = predictions[predictions.label_of != ""]
        assert len(taken_over) == len(one_of) + len(is_asked_once)
        assert {frozenset(pair) for pair in taken_over.label_of.items()} <= {frozenset(pair) for pair in pairs}

        # A label that is given all the same counts, and so does every image again without the setting.
        (workdir / "labels/blue").mkdir()
        name = taken_over.index[0]
        shutil.copy(folder / "images" / name, workdir / "labels/blue")
        call_job(folder, workdir, label_near_duplicates_once=False, query_size=100)
        assert set(queries_of(workdir, 3).file_name) == set(taken_over.index) - {name}
        predictions = read_csv(workdir / "rounds/003/predictions.csv").set_index("file_name")
        assert predictions.label[name] == "blue"
        assert (predictions.label_of == "").all()

    def test_pools_grow_and_shrink(self, job, tmp_path):
        folder, workdir = copy_of(job, tmp_path)
        shutil.copy(folder / "images/20.png", folder / "20.png")
        with Image.open(folder / "20.png") as image:
            image.save(folder / "images/more.jpg", quality=95, subsampling=0)
        embed(folder)
        assert "near-duplicates: 13 images are" in call_job(folder, workdir)
        listed = read_csv(workdir / "near_duplicates.csv")
        assert {"20.png", "more.jpg"} in [{*pair} for pair in zip(listed.file_name, listed.same_as, strict=True)]
        for path in (folder / "images").glob("*.jpg"):
            path.unlink()
        assert "near-duplicates" not in call_job(folder, workdir)
        assert read_csv(workdir / "near_duplicates.csv").empty
        assert not (workdir / "near_duplicates.png").exists()

    def test_a_setting_of_another_type_is_refused(self, tmp_path):
        config = configure(tmp_path, label_near_duplicates_once="yes")
        with pytest.raises(BadInput, match="label_near_duplicates_once.*'yes'.*a bool"):
            run(config, str(tmp_path / "job"))
