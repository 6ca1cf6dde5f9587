"""The keys of a config in words: their values, where these come from, their types and what they are for."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from latent_al.experiment.schema import Settings, fields_of, plain_of, words


def describe(parsed: Settings, config: ConfigDict, overrides: Collection[str]) -> str:
    """Returns two lines for each key: its value and where that comes from, and its type and one line of help.

    Args:
        parsed: what `config` was parsed to.
        config: what the config file gives, with what the command line has changed in it.
        overrides: the keys that the command line has set, such as `arms.margin.subsample`.
    """
    return "\n".join(_describe("", parsed, plain_of(config), overrides))


def _describe(prefix: str, settings: Settings, plain: Any, overrides: Collection[str]) -> Iterator[str]:
    for setting in fields_of(type(settings)):
        inner = plain.get(setting.name) if isinstance(plain, Mapping) else None
        path, value = f"{prefix}{setting.name}", settings[setting.name]
        if isinstance(value, Settings):
            yield from _describe(f"{path}.", value, inner, overrides)
        elif value and isinstance(value, Mapping) and all(isinstance(entry, Settings) for entry in value.values()):
            for name, entry in value.items():
                yield from _describe(f"{path}.{name}.", entry, inner[name], overrides)
        else:
            source = _source(path, setting.name in plain, overrides)
            yield f"config.{path} = {value!r}  ({source})"
            if setting.name == "name" and settings.what:
                yield f"    the name of the {settings.what}: {settings.help}."
            else:
                yield f"    {words(setting.type)}: {setting.help}."


def _source(path, is_set, overrides):
    if not is_set:
        return "default"
    if any(f"{path}.".startswith(f"{override}.") or override.startswith(f"{path}.") for override in overrides):
        return "command line"
    return "file"
