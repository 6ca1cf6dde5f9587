"""Figures of data that some measures are not defined for, and of queries."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from latent_al.encoders import Encodings
from latent_al.results import mosaics, plots
from latent_al.results.figures import CLOSENESSES, DENSITIES, DIVERGENCES, Album, draw_arms, draw_encoder, measure
from latent_al.results.tables import History, queries_table
from latent_al.types import Encoded

LATENTS = jax.random.uniform(jax.random.key(0), (30, 4))


def encoded(latents, log_sigma=None, **settings):
    train = Encoded(latents, log_sigma)
    return train, Encodings(train, train, train, **settings)


def test_what_an_encoder_gives_decides_what_is_measured():
    gaussians = measure(*encoded(LATENTS, -jnp.ones_like(LATENTS)))
    assert gaussians.keys() == DENSITIES.keys() | CLOSENESSES.keys() | DIVERGENCES.keys()
    assert measure(*encoded(LATENTS)).keys() == DENSITIES.keys() | CLOSENESSES.keys()
    pixels = measure(*encoded(LATENTS, unit_cube=True))
    assert pixels.keys() == DENSITIES.keys()
    gaps = np.float64(LATENTS)[:, None] - np.float64(LATENTS)
    np.testing.assert_allclose(pixels["Density (squared Euclidean)"], 1 - (gaps**2).mean(axis=(1, 2)), rtol=1e-5)


def test_a_measure_that_is_undefined_is_left_out(caplog):
    """A blank image has no direction: the report is written all the same."""
    measured = measure(*encoded(LATENTS.at[3].set(0)))
    assert measured.keys() == (DENSITIES.keys() | CLOSENESSES.keys()) - {"Density (cosine)"}
    assert "Density (cosine) is not drawn: 1 of 30 rows" in caplog.text


def test_equal_latents_draw_nothing_and_do_not_fail(make_data, tmp_path):
    data = make_data(num_validation=0, num_test=0)
    nothing = Encoded(jnp.zeros((0, 2)), None)
    encodings = Encodings(Encoded(jnp.zeros((60, 2)), None), nothing, nothing)
    drawn = draw_encoder("flat", encodings, data, tmp_path)
    assert [path.name for _, path in drawn] == ["flat_classes.png"]


def test_a_figure_that_cannot_be_drawn_does_not_cost_the_rest(tmp_path, caplog):
    album = Album(tmp_path)
    album.add("none", "Nothing", mosaics.manifold, np.zeros(3))
    album.add("ranges", "Ranges", plots.latent_ranges, np.asarray(LATENTS))
    assert [caption for caption, _ in album.pictures] == ["Ranges"]
    assert "none.png is not drawn: " in caplog.text


def test_a_dollar_in_a_name_begins_no_formula(tmp_path):
    """Such as would not parse, which cost the figure, or would leave the dollars out."""
    album = Album(tmp_path)
    album.add("some", "Some", mosaics.queried_images, np.zeros((2, 10, 8, 8, 1)), ["a$b$c", "$_{$"])
    assert [caption for caption, _ in album.pictures] == ["Some"]
    texts = []
    album.add("text", "Text", lambda path: texts.append(Figure().text(0, 0, "a$b$c")))
    assert not texts[0].get_parse_math()


def test_first_queries_and_class_counts(make_data, tmp_path, monkeypatch):
    seen = {}
    for module, name in ((mosaics, "queried_images"), (plots, "queried_classes")):
        monkeypatch.setattr(module, name, lambda *args, name=name: seen.setdefault(name, []).append(args[:-1]))
    data = make_data()
    queried = np.random.default_rng(0).permuted(np.tile(np.arange(60, dtype=np.int32), (2, 1)), axis=1)[:, :20]
    history = History(queried, {}, np.zeros((2, 2)))
    arms = ("margin", "same", "too")
    tables = [queries_table(arm, [0, 1], np.array([12, 20]), history, data.ids) for arm in arms]
    draw_arms({"queries": pd.concat(tables)}, data, tmp_path)
    [(images, captions)] = seen["queried_images"]
    assert captions == ["margin and 2 more"]
    np.testing.assert_array_equal(images[0], data.train.images[queried[0, 12:20]])
    [(counts,)] = seen["queried_classes"]
    expected = np.bincount(data.train.labels[queried[:, 12:]].ravel(), minlength=3) / 2
    assert counts.set_index("label")["count"].reindex(range(3), fill_value=0).tolist() == expected.tolist()
    assert counts["round"].unique().tolist() == [1]
