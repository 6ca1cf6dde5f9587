"""The charts of the page: their numbers, and where their marks lie."""

import numpy as np
import pandas as pd
import pytest

from latent_al.results.charts import LINE_HEIGHT, gap_chart, learning_charts
from latent_al.results.intervals import mean_interval
from latent_al.results.statistics import gaps_table


@pytest.fixture
def metrics():
    """Twelve arms of four seeds, scored on three splits; all end close to each other."""
    rng = np.random.default_rng(0)
    rows = [
        (f"arm{arm}", seed, index, 10 * (index + 1), split, metric, 0.5 + 0.1 * index + 0.01 * rng.normal())
        for arm in range(12)
        for seed in range(4)
        for index in range(5)
        for split, metric in (
            ("validation", "accuracy"),
            ("validation", "balanced_accuracy"),
            ("labelled", "accuracy"),
            ("labelled", "balanced_accuracy"),
        )
    ]
    return pd.DataFrame(rows, columns=["arm", "seed", "round", "num_labels", "split", "metric", "value"])


def test_learning_charts_have_means_and_intervals(metrics):
    charts = learning_charts(metrics)
    names = ["Validation accuracy", "Validation balanced accuracy", "Accuracy on the labelled images"]
    assert [chart.caption for chart in charts] == names
    scores = metrics[(metrics.split == "validation") & (metrics.metric == "accuracy") & (metrics.arm == "arm3")]
    values = 100 * scores[scores.num_labels == 20].value.to_numpy()
    low, high = mean_interval(values)
    text = f"{values.mean():.1f} % [{low:.1f}, {high:.1f}]"
    line = charts[0].lines[3]
    assert line.arm == "arm3"
    assert line.marks[1].title == f"arm3, 20 labels: {text}"
    assert charts[0].numbers["arm3"][1] == text
    assert charts[0].columns[1].title.startswith("20 labels\n")
    assert f"arm3: {text}" in charts[0].columns[1].title.split("\n")


def test_test_scores_of_every_round_have_charts(metrics):
    tested = metrics[metrics.split == "validation"].assign(split="test", value=0.25)
    last = tested[tested.num_labels == tested.num_labels.max()]
    assert len(learning_charts(pd.concat([metrics, last]))) == 3
    both = pd.concat([metrics, tested])
    chart = learning_charts(both)[2]
    assert chart.caption == "Test accuracy"
    assert chart.numbers["arm3"][1].startswith("25.0 %")
    assert gap_chart(gaps_table(both, "arm0", "test"), both, "arm0", "test").caption.startswith("Test accuracy, diff")


def test_a_column_lists_the_arms_from_high_to_low(metrics):
    for column in learning_charts(metrics)[0].columns:
        values = [float(line.split(": ")[1].split(" ")[0]) for line in column.title.split("\n")[1:]]
        assert len(values) == 12
        assert values == sorted(values, reverse=True)


def test_places_follow_the_axes(metrics):
    chart = learning_charts(metrics)[0]
    marks = chart.lines[0].marks
    assert [marks[0].x, marks[-1].x] == [chart.left, chart.right]
    heights, values = np.transpose([(y, float(text)) for y, text in chart.y_ticks])
    assert (np.diff(heights) < 0).all()
    for mark, text in zip(marks, chart.numbers["arm0"], strict=True):
        value = float(text.split(" ")[0])
        share = (value - values[0]) / (values[1] - values[0])
        assert mark.y == pytest.approx(heights[0] + share * (heights[1] - heights[0]), abs=1.0)


def test_an_arm_called_as_the_first_column_has_its_own(metrics):
    numbers = learning_charts(metrics.assign(arm=metrics.arm.replace("arm3", "labels queried")))[0].numbers
    assert [numbers.iloc[0, 0], numbers.iloc[0, 4][-1]] == ["10", "]"]
    assert list(numbers.columns[[0, 4]]) == ["labels queried"] * 2


def test_labels_are_counted_in_whole_numbers(metrics):
    """Few labels: their ticks are not at halves, which would be read as the numbers beside them."""
    few = metrics[metrics["round"] < 3].assign(num_labels=10 + metrics["round"])
    assert [text for _, text in learning_charts(few)[0].x_ticks] == ["10", "11", "12"]


def test_a_name_in_wide_letters_is_given_room(metrics):
    few = metrics[metrics.arm == "arm1"]
    widths = [learning_charts(few.assign(arm=name))[0].width for name in ("name", "\N{CJK UNIFIED IDEOGRAPH-4E3B}" * 4)]
    assert widths[1] - widths[0] == 4 * 8


def test_names_keep_apart_and_in_order(metrics):
    """Twelve lines end within a few pixels of each other."""
    chart = learning_charts(metrics)[0]
    lines = sorted(chart.lines, key=lambda line: line.marks[-1].y)
    places = np.array([line.name_y for line in lines])
    assert np.diff(places).min() >= LINE_HEIGHT - 1e-6
    assert chart.top - 1e-6 <= places[0]
    assert places[-1] <= chart.bottom + 1e-6


def test_differences_keep_the_colours_of_their_arms(metrics):
    gaps = gaps_table(metrics, "arm0")
    chart = gap_chart(gaps, metrics, "arm0")
    colours = {line.arm: (line.colour, line.mark) for line in learning_charts(metrics)[0].lines}
    assert {line.arm: (line.colour, line.mark) for line in chart.lines} == {
        arm: colour for arm, colour in colours.items() if arm != "arm0"
    }
    assert len(set(colours.values())) == 12
    row = gaps[(gaps.arm == "arm2") & (gaps["round"] == 1)].iloc[0]
    text = f"{100 * row['mean']:+.1f} points [{100 * row.low:+.1f}, {100 * row.high:+.1f}]"
    assert chart.lines[1].marks[1].title == f"arm2, 20 labels: {text}"
    assert {text: y for y, text in chart.y_ticks}["0"] == pytest.approx(chart.zero_y)


def test_an_interval_far_wider_than_the_curves_does_not_flatten_them(metrics):
    """Two seeds: Student's t of one degree of freedom is 12.7."""
    two = metrics[metrics.seed < 2]
    chart = learning_charts(two)[0]
    heights = [mark.y for line in chart.lines for mark in line.marks]
    assert max(heights) - min(heights) > (chart.bottom - chart.top) / 4


def test_one_seed_has_no_band(metrics):
    chart = learning_charts(metrics[metrics.seed == 0])[0]
    assert [line.band for line in chart.lines] == [""] * 12
    assert chart.lines[0].marks[0].title.endswith(" %")


def test_a_single_checkpoint_has_no_curve(metrics):
    assert learning_charts(metrics[metrics.num_labels == 10]) == []
