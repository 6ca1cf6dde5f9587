"""Results of a run: tidy tables, statistics, pairwise comparisons, figures and the page; `write` writes them all."""
