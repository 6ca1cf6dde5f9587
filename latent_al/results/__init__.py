"""Results of a run: tidy tables, statistics, pairwise comparisons, figures and the page; `write` writes them all."""

from latent_al.types import require

require(
    __name__,
    "experiments",
    "PIL",
    "absl",
    "jinja2",
    "matplotlib",
    "ml_collections",
    "pandas",
    "rich",
    "scipy",
    "sklearn",
    "statsmodels",
)
