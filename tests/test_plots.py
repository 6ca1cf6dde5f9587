"""Pictures read back from disk, and what their axes hold."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image
from scipy.stats import norm

from latent_al.results import mosaics, plots


@pytest.fixture
def draw(tmp_path, monkeypatch):
    """Calls a plot, checks that the file is a picture, not blank and not huge, and returns the figure behind it."""
    saved = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *args, **kw: (saved.append(figure), save(figure, *args, **kw))
    )

    def run(plot, *args):
        path = tmp_path / "picture.png"
        assert plot(*args, path) is None
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("L"))
        assert 100 <= min(pixels.shape) <= max(pixels.shape) <= 2000
        assert pixels.std() > 5
        assert 3_000 < path.stat().st_size < 700_000
        return saved[-1]

    return run


def metrics(arms, num_seeds=3, num_rounds=4, splits=("validation", "labelled", "test")):
    """The value of split s, arm a, seed k, round r is 0.5 + 0.1 s + 0.01 a + 0.02 k + 0.05 r."""
    rows = [
        (arm, seed, index, 10 + 10 * index, split, "accuracy", 0.5 + 0.1 * s + 0.01 * a + 0.02 * seed + 0.05 * index)
        for a, arm in enumerate(arms)
        for seed in range(num_seeds)
        for index in range(num_rounds)
        for s, split in enumerate(splits)
    ]
    return pd.DataFrame(rows, columns=["arm", "seed", "round", "num_labels", "split", "metric", "value"])


def arms(size):
    return [f"an_arm_with_quite_a_long_name_{index}" for index in range(size)]


def noise(*shape):
    return np.random.default_rng(0).uniform(size=shape).astype(np.float32)


def legend_of(figure):
    (legend,) = figure.legends
    return legend


def mosaic_of(figure):
    """The picture [height width ...] in the figure's one axes, and a function from data to its row and column."""
    (axes,) = figure.axes
    (image,) = axes.images
    array = np.asarray(image.get_array())
    left, right, bottom, top = image.get_extent()

    def pixel(x, y):
        return array[int((top - y) / (top - bottom) * len(array)), int((x - left) / (right - left) * array.shape[1])]

    return array, pixel


def numbered(rows, columns, channels):
    """Images [rows columns 6 4 c] of one shade each, which grows row by row."""
    shades = np.linspace(0, 1, rows * columns, dtype=np.float32).reshape(rows, columns, 1, 1, 1)
    return np.broadcast_to(shades, (rows, columns, 6, 4, channels))


def test_learning_curves_show_mean_and_deviation(draw):
    figure = draw(plots.learning_curves, metrics(["one", "_two"]))
    validation, labelled = figure.axes
    assert validation.get_ylabel() == "validation accuracy (%)"
    assert labelled.get_ylabel() == "labelled accuracy (%)"
    first, second = validation.lines
    assert first.get_xdata().tolist() == [10, 20, 30, 40]
    np.testing.assert_allclose(first.get_ydata(), [52, 57, 62, 67])
    np.testing.assert_allclose(second.get_ydata(), [53, 58, 63, 68])
    band = validation.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(50)
    assert band[:, 1].max() == pytest.approx(69)
    assert [text.get_text() for text in legend_of(figure).get_texts()] == ["one", "_two"]


def test_learning_curves_leave_out_what_was_not_measured(draw):
    figure = draw(plots.learning_curves, metrics(["one"], num_seeds=1, num_rounds=1, splits=("labelled",)))
    (axes,) = figure.axes
    assert axes.lines[0].get_marker() == "o"


def test_gap_curves_show_means_and_intervals(draw):
    gaps = pd.DataFrame(
        [
            (arm, r, 10 * r, 0.01 * (r + a), 0.01 * (r + a - 1), 0.01 * (r + a + 1))
            for a, arm in enumerate(("x", "_y"))
            for r in range(3)
        ],
        columns=["arm", "round", "num_labels", "mean", "low", "high"],
    )
    figure = draw(plots.gap_curves, gaps, "accuracy", ["x", "base", "_y"])
    (axes,) = figure.axes
    zero, first, second = axes.lines
    np.testing.assert_allclose(zero.get_ydata(), 0)
    np.testing.assert_allclose(first.get_ydata(), [0, 1, 2])
    np.testing.assert_allclose(second.get_ydata(), [1, 2, 3])
    band = axes.collections[1].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == pytest.approx((0, 4))
    assert axes.get_ylabel() == "validation accuracy\nabove that of base (points)"
    # As in the learning curves, where the baseline has the second look.
    assert [line.get_color() for line in (first, second)] == [plots.COLOURS[0], plots.COLOURS[2]]
    assert [line.get_linestyle() for line in (first, second)] == ["-", "-."]
    assert [text.get_text() for text in legend_of(figure).get_texts()] == ["x", "_y"]


def test_many_gaps_stay_apart(draw):
    gaps = pd.DataFrame([(arm, r, 10 * r, 0.0, -1.0, 1.0) for arm in arms(21)[1:] for r in range(2)])
    gaps = gaps.set_axis(["arm", "round", "num_labels", "mean", "low", "high"], axis=1)
    (axes,) = draw(plots.gap_curves, gaps, "accuracy", arms(21)).axes
    assert len({(line.get_color(), line.get_linestyle(), line.get_marker()) for line in axes.lines[1:]}) == 20


def test_orders_mark_the_first_and_the_last_quarter(draw):
    points = np.arange(16.0).reshape(8, 2)
    figure = draw(plots.orders, dict(one=points), dict(one=np.array([5, 3, 0, 1, 2, 4, 7, 6])))
    first, last = figure.axes
    assert (first.get_title(), last.get_title()) == ("one: first quarter", "one: last quarter")
    assert first.collections[1].get_offsets().tolist() == points[[5, 3]].tolist()
    assert last.collections[1].get_offsets().tolist() == points[[7, 6]].tolist()
    assert len(first.collections[0].get_offsets()) == 8


def test_latent_angles_colour_the_whole_circle(draw):
    figure = draw(plots.latent_angles, np.zeros((3, 2)), np.array([0.0, 90.0, 350.0]))
    dots = figure.axes[0].collections[0]
    assert dots.get_array().tolist() == [0, 90, 350]
    assert dots.get_clim() == (0, 360)
    np.testing.assert_allclose(dots.cmap(0.0)[:3], dots.cmap(1.0)[:3], atol=0.1)


def training(arms, num_seeds=3, num_rounds=4):
    """The accuracy of arm a, seed k, step 200 r is 0.6 + 0.01 a + 0.02 k + 0.05 r."""
    measured = metrics(arms, num_seeds, num_rounds, splits=("none", "test")).query("split == 'test'")
    return measured.assign(step=200 * measured["round"])[["arm", "seed", "step", "value"]]


def test_training_curves_show_mean_and_deviation(draw):
    figure = draw(plots.training_curves, training(["one", "two"]), "accuracy")
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("training step", "validation accuracy (%)")
    first, second = axes.lines
    assert first.get_xdata().tolist() == [0, 200, 400, 600]
    np.testing.assert_allclose(first.get_ydata(), [62, 67, 72, 77])
    np.testing.assert_allclose(second.get_ydata(), [63, 68, 73, 78])
    band = axes.collections[1].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == pytest.approx((61, 80))
    assert figure.get_suptitle() == "Mean and one standard deviation over 3 seeds"


@pytest.mark.parametrize(
    "plot, table, more", [(plots.learning_curves, metrics, []), (plots.training_curves, training, ["accuracy"])]
)
def test_many_curves_stay_apart(draw, plot, table, more):
    figure = draw(plot, table(arms(21)), *more)
    for axes in figure.axes:
        looks = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in axes.lines}
        assert len(looks) == 21
    below = legend_of(figure).get_window_extent()
    assert below.y1 <= min(axes.get_window_extent().y0 for axes in figure.axes)
    assert 0 <= below.x0 < below.x1 <= figure.bbox.x1
    assert {text.get_text() for text in legend_of(figure).get_texts()} == set(arms(21))


@pytest.mark.parametrize("num_arms", [1, 5, 21])
def test_single_runs_draw_each_seed(draw, num_arms):
    figure = draw(plots.single_runs, metrics(arms(num_arms)))
    assert [axes.get_title().replace("\n", "") for axes in figure.axes] == arms(num_arms)
    last = figure.axes[-1]
    assert len(last.lines) == 3
    np.testing.assert_allclose(last.lines[1].get_ydata(), 52 + num_arms - 1 + 5 * np.arange(4))
    assert last.get_ylim() == figure.axes[0].get_ylim()


def test_each_column_of_panels_has_its_ticks(draw):
    figure = draw(plots.single_runs, metrics(arms(6)))
    with_ticks = [any(tick.label1.get_visible() for tick in axes.xaxis.get_major_ticks()) for axes in figure.axes]
    assert with_ticks == [False, False, True, True, True, True]


def test_titles_of_panels_do_not_meet(draw):
    """Nor with a colour bar beside them, which takes room."""
    names = [f"{arm}_and_{arm}" for arm in arms(8)]
    counts = pd.DataFrame([(arm, 0, label, label) for arm in names for label in range(3)])
    figure = draw(plots.queried_classes, counts.set_axis(["arm", "round", "label", "count"], axis=1))
    boxes = [axes.title.get_window_extent() for axes in figure.axes[:8]]
    for left, right in pairwise(boxes[:4]):
        assert left.x1 < right.x0


def test_manifold_latents_by_hand():
    latents = mosaics.manifold_latents(3)
    assert latents.shape == (9, 2)
    assert latents.dtype == np.float32
    end = norm.ppf(0.95)
    grid = latents.reshape(3, 3, 2)
    np.testing.assert_allclose(grid[0, :, 0], [-end, 0, end], atol=1e-6)
    np.testing.assert_allclose(grid[:, 0, 1], [-end, 0, end], atol=1e-6)
    assert (grid[..., 0] == grid[0, :, 0]).all()
    assert (grid[..., 1] == grid[:, :1, 1]).all()
    np.testing.assert_allclose(np.diff(norm.cdf(mosaics.manifold_latents(20)[:20, 0])), 0.9 / 19, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_manifold_puts_each_image_at_its_latents(draw, channels):
    """An image as bright as its first latent's percentile, and one as its second's."""
    percentiles = norm.cdf(mosaics.manifold_latents(7)).astype(np.float32).reshape(7, 7, 2)
    for axis in (0, 1):
        images = np.broadcast_to(percentiles[..., axis, None, None, None], (7, 7, 6, 4, channels))
        array, pixel = mosaic_of(draw(mosaics.manifold, images))
        assert array.shape == ((42, 28) if channels == 1 else (42, 28, 3))
        for place in [(5, 5), (95, 5), (5, 95), (20, 65)]:
            np.testing.assert_allclose(pixel(*place), place[axis] / 100, atol=1e-5)


def test_manifold_keeps_images_upright(draw):
    images = np.zeros((2, 2, 6, 4, 1), np.float32)
    images[:, :, 0] = 1
    array, _ = mosaic_of(draw(mosaics.manifold, images))
    assert np.flatnonzero(array.all(axis=1)).tolist() == [0, 6]


@pytest.mark.parametrize("kind", ["class", "cluster"])
def test_latent_classes_tell_ten_apart(draw, kind):
    latents, labels = noise(500, 2), np.arange(500) % 10
    figure = draw(plots.latent_classes, latents, labels, kind)
    clouds = figure.axes[0].collections
    np.testing.assert_array_equal(clouds[3].get_offsets(), latents[labels == 3])
    assert len({(tuple(cloud.get_edgecolor()[0]), len(cloud.get_facecolor())) for cloud in clouds}) == 10
    assert len({cloud.get_paths()[0].vertices.tobytes() for cloud in clouds}) == 10
    legend = legend_of(figure)
    assert legend.get_title().get_text() == kind
    assert [text.get_text() for text in legend.get_texts()] == [str(label) for label in range(10)]


def clouds_of(axes):
    """The points [n 2] of each label in a legend."""
    return {cloud.get_label(): np.asarray(cloud.get_offsets()) for cloud in axes.collections}


def test_queries_lie_on_their_classes(draw):
    latents = {"one": noise(400, 2), "two": 100 * noise(300, 2)}
    labels = {"one": np.arange(400) % 10, "two": np.arange(300) % 3}
    queried = {arm: points[5:25] for arm, points in latents.items()}
    figure = draw(plots.queried_latents, latents, labels, queried)
    assert [axes.get_title() for axes in figure.axes] == ["one", "two"]
    for axes, (arm, points) in zip(figure.axes, latents.items(), strict=True):
        clouds = clouds_of(axes)
        np.testing.assert_array_equal(clouds["query"], queried[arm])
        np.testing.assert_array_equal(clouds["2"], points[labels[arm] == 2])
        assert np.diff(axes.get_xlim()) == pytest.approx(np.diff(axes.get_ylim()))
    marks, classes = figure.legends
    assert [text.get_text() for text in marks.get_texts()] == ["query"]
    assert [text.get_text() for text in classes.get_texts()] == [str(label) for label in range(10)]


def test_the_frame_hides_no_query(draw):
    """The latents fill the unit square, but for one far off; one query is just outside that, and one far."""
    latents = np.concatenate([noise(400, 2), [[50, 50]]])
    queries = np.array([[0.5, 0.5], [1.3, 0.2], [0.4, -9]])
    figure = draw(plots.queried_latents, {"arm": latents}, {"arm": None}, {"arm": queries})
    (axes,) = figure.axes
    clouds = clouds_of(axes)
    np.testing.assert_array_equal(clouds["query"], queries[:2])
    bottom, top = axes.get_ylim()
    np.testing.assert_allclose(clouds["query beyond the frame"], [[0.4, bottom]])
    left, right = axes.get_xlim()
    assert -1 < left < 0 < 1.3 < right < 2
    assert -1 < bottom < 0 < 1 < top < 2
    assert [text.get_text() for text in legend_of(figure).get_texts()] == ["query", "query beyond the frame"]


def test_more_queries_are_marked_smaller(draw):
    sizes = []
    for num_arms, num in ((18, 10), (1, 1000)):
        given = {arm: noise(1000, 2) for arm in arms(num_arms)}
        queried = {arm: points[:num] for arm, points in given.items()}
        figure = draw(plots.queried_latents, given, dict.fromkeys(given), queried)
        assert [axes.get_title().replace("\n", "") for axes in figure.axes] == arms(num_arms)
        sizes.append(figure.axes[0].collections[-1].get_sizes()[0])
    assert sizes[0] > 2 * sizes[1]


def test_latents_in_one_point_are_drawn(draw):
    latents = np.ones((50, 2), np.float32)
    figure = draw(plots.queried_latents, {"arm": latents}, {"arm": None}, {"arm": latents[:3]})
    assert figure.axes[0].get_xlim() == (0, 2)


def test_reconstructions_lie_below_their_images(draw):
    images = numbered(1, 5, 3)[0]
    figure = draw(mosaics.reconstructions, images, 1 - images)
    _, pixel = mosaic_of(figure)
    for index in range(5):
        np.testing.assert_allclose(pixel(index, 0), index / 4)
        np.testing.assert_allclose(pixel(index, 1), 1 - index / 4)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["image", "reconstruction"]


def test_interpolations_name_the_ends(draw):
    figure = draw(mosaics.interpolations, numbered(3, 5, 1))
    _, pixel = mosaic_of(figure)
    for row in range(3):
        for step in range(5):
            assert pixel(step, row) == pytest.approx((5 * row + step) / 14)
    ticks = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert ticks == ["0\nfirst image", "0.25", "0.5", "0.75", "1\nsecond image"]


def test_latent_ranges_count_dimensions(draw):
    latents = np.zeros((10, 8), np.float32)
    latents[0, :3], latents[1, :2] = -4, 5
    low, high = draw(plots.latent_ranges, latents).axes
    counts = [[patch.get_height() for patch in axes.patches] for axes in (low, high)]
    assert (counts[0][0], counts[0][-1], sum(counts[0])) == (3, 5, 8)
    assert (counts[1][0], counts[1][-1], sum(counts[1])) == (6, 2, 8)
    assert low.get_xlabel() == "minimum of a dimension over 10 images"


def test_histograms_count_all_images(draw):
    values = np.array([0, 0.51, 0.51, 1 + 1e-6])
    figure = draw(plots.representativeness_histograms, {"density (cosine)": values, "other": noise(100)})
    first, _ = figure.axes
    heights, edges, _ = first.patches[0].get_data()
    assert (heights[0], heights[20], heights[-1]) == (25, 50, 25)
    assert heights.sum() == 100
    assert (edges[0], edges[-1]) == (0, 1)
    assert [axes.get_title() for axes in figure.axes] == ["density (cosine)", "other"]
    assert all(axes.get_xlim() == (0, 1) for axes in figure.axes)


def test_maps_share_one_scale(draw):
    latents = noise(200, 2)
    measures = {f"measure {index}": noise(200) / (index + 1) for index in range(7)}
    *panels, bar = draw(plots.representativeness_maps, latents, measures).axes
    for axes, (name, values) in zip(panels, measures.items(), strict=True):
        (points,) = axes.collections
        np.testing.assert_array_equal(points.get_array(), values)
        assert points.get_clim() == (0, 1)
        assert axes.get_title() == name
    assert bar.get_ylim() == (0, 1)


def test_queried_images_are_in_order(draw):
    figure = draw(mosaics.queried_images, numbered(21, 10, 1), arms(21))
    _, pixel = mosaic_of(figure)
    assert pixel(0, 20) == pytest.approx(200 / 209)
    assert pixel(9, 0) == pytest.approx(9 / 209)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == arms(21)
    assert [label.get_text() for label in axes.get_xticklabels()] == [str(index) for index in range(1, 11)]


def test_counts_land_in_their_cell(draw):
    rows = [("random", 0, 0, 1.5), ("random", 2, 1, 4.0), ("margin", 1, 3, 8.0), ("margin", 2, 0, 2.0)]
    counts = pd.DataFrame(rows, columns=["arm", "round", "label", "count"])
    random, margin, bar = draw(plots.queried_classes, counts).axes
    assert (random.get_title(), margin.get_title()) == ("random", "margin")
    expected = np.zeros((2, 4, 3))
    expected[0, 0, 0], expected[0, 1, 2], expected[1, 3, 1], expected[1, 0, 2] = 1.5, 4, 8, 2
    for axes, table in zip((random, margin), expected, strict=True):
        (image,) = axes.images
        np.testing.assert_array_equal(image.get_array(), table)
        assert (image.origin, image.get_extent()) == ("lower", [-0.5, 2.5, -0.5, 3.5])
        assert image.get_clim() == (0, 8)
    assert bar.get_ylabel().startswith("queries per round")


def test_class_distributions_stand_beside_the_pool(draw):
    rows = [("random", 0, 3.0, 1.0, 4.0), ("random", 1, 7.0, 2.0, 6.0), ("margin", 0, 1.0, 2.5, 4.0)]
    rows += [("margin", 1, 9.0, np.nan, 6.0)]
    figure = draw(plots.class_distributions, pd.DataFrame(rows, columns=["arm", "label", "count", "std", "pool"]))
    assert [axes.get_title() for axes in figure.axes] == ["random", "margin"]
    for axes, heights in zip(figure.axes, ([3, 7], [1, 9]), strict=True):
        assert [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in axes.patches] == [*enumerate(heights)]
        *_, pool = axes.collections
        assert [segment[:, 1].tolist() for segment in pool.get_segments()] == [[4, 4], [6, 6]]
        assert [segment[:, 0].mean() for segment in pool.get_segments()] == [0, 1]
    spreads = [axes.collections[0].get_segments() for axes in figure.axes]
    drawn = [[line[:, 1].tolist() for line in lines if len(line)] for lines in spreads]
    assert drawn == [[[2, 4], [5, 9]], [[0, 3.5]]]
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()
    assert [text.get_text() for text in legend_of(figure).get_texts()] == ["queried", "expected from the pool's shares"]


def test_class_distributions_of_one_seed_have_no_deviation(draw):
    rows = [(arm, label, 10.0 * label, np.nan, 45.0) for arm in arms(18) for label in range(10)]
    figure = draw(plots.class_distributions, pd.DataFrame(rows, columns=["arm", "label", "count", "std", "pool"]))
    assert figure.get_supylabel() == "queries"
    last = figure.axes[-1]
    assert [tick for tick in last.get_xticks() if -0.5 < tick < 9.5] == list(range(10))
