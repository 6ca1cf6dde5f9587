"""Writes docs/reference.md from the schema: `python -m latent_al.experiment.reference > docs/reference.md`."""

import dataclasses
from collections.abc import Iterator

from latent_al.experiment import config, schema
from latent_al.labelling import config as labelling

HEAD = """# Reference

Every key that a config may hold, and every name that a key may take. The page is made from the code, by
`python -m latent_al.experiment.reference > docs/reference.md`: the settings of an entry are the keyword-only arguments
of its factory, and the help is the factory's docstring. `python launch.py --config=FILE --describe` prints the keys of
one config, with their values and where these come from.

An int passes for a float, and a list for a tuple; `--config.KEY=VALUE` sets any key, whether the file has it or not.
"""
CONFIGS = {
    "An experiment": config.Experiment,
    "`config.arms.NAME`": config.Arm,
    "`config.mesh`": config.Mesh,
    "A labelling job": labelling.LabellingJob,
    "`config.data` of a labelling job": labelling.Folder,
}
TABLES = {
    "Data sources": schema.SOURCE,
    "Encoders": schema.table_of(config.Encoder),
    "Classifiers and regressors": schema.table_of(config.Classifier),
    "Strategies": schema.table_of(config.Strategy),
    "Clusterings": schema.NESTED["clustering"],
    "Representativeness measures": schema.NESTED["representativeness"],
    "Diagnostics": schema.table_of(config.Diagnostic),
}


def reference() -> str:
    """Returns the page, in Markdown."""
    lines = [HEAD]
    for title, settings in CONFIGS.items():
        lines += [f"## {title}", "", settings.__doc__, "", *_table(schema.fields_of(settings))]
    for title, table in TABLES.items():
        lines += [f"## {title}", ""]
        for name in sorted(table.entries):
            entry = table.entry(name)
            lines += [f"### `{name}`", "", f"{entry.help}.", "", *_table(schema.fields_of(entry)[1:])]
    return "\n".join(lines).rstrip() + "\n"


def _table(settings: list[schema.Setting]) -> Iterator[str]:
    if not settings:
        return
    yield "| key | type | default | what it is |"
    yield "| --- | --- | --- | --- |"
    for setting in settings:
        default = "" if setting.default is dataclasses.MISSING else f"`{setting.default!r}`"
        cells = (f"`{setting.name}`", schema.words(setting.type), default, setting.help)
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    yield ""


if __name__ == "__main__":
    print(reference(), end="")
