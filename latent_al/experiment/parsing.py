"""Configs checked against their types, and the messages that name all that is wrong with one."""

import dataclasses
import difflib
import reprlib
from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import Annotated, Any, NamedTuple, get_args, get_origin

import pydantic
from ml_collections import ConfigDict

from latent_al.experiment.schema import (
    SCALARS,
    Choice,
    fields_of,
    metadata_of,
    options_of,
    plain_of,
    table_of,
    words,
)
from latent_al.types import BadInput


def parse(cls: type, config: ConfigDict, extra: Callable[[Any], list[str]] = lambda parsed: []) -> Any:
    """Returns the config as a `cls`.

    Args:
        cls: a dataclass made by `checked`.
        config: what a config file gives, with what the command line has changed in it.
        extra: gives a message for whatever else is wrong with a config all of whose keys are as they should be.

    Raises:
        BadInput: all that is wrong, by path.
    """
    plain = plain_of(config)
    try:
        parsed = _adapter(cls).validate_python(plain)
    except pydantic.ValidationError as error:
        problems = [_message(cls, plain, problem) for problem in error.errors(include_url=False)]
    else:
        problems = extra(parsed)
    if problems:
        raise BadInput("\n".join(dict.fromkeys(problems)))
    return parsed


def unknown(path: str, key: str, names: Collection[str]) -> str:
    """Returns the message that refuses a key, with the nearest of the names that are allowed there."""
    return f"{path}.{key}: unknown; {_nearest(key, names)}"


def wrong_name(path: str, what: str, name: Any, names: Collection[str]) -> list[str]:
    """Returns the message that refuses a name that nothing has; none where something has it."""
    return (
        [] if isinstance(name, str) and name in names else [f"{path}: unknown {what} {name!r}; {_nearest(name, names)}"]
    )


@cache
def _adapter(cls):
    return pydantic.TypeAdapter(cls)


class _Place(NamedTuple):
    """A key of a config: its path, its type, the value that the config has there, and its help.

    is_whole: whether pydantic names the key itself, rather than a part of its tuple or one of its several types.
    """

    path: str
    type: Any
    value: Any
    help: str
    is_whole: bool = True


def _message(cls, plain, problem):
    location = list(problem["loc"])
    place = _find(_Place("config", cls, plain, ""), location)
    if location and place.is_whole:
        return _message_of_key(place, location[0])
    expected = ": ".join(filter(None, [f"expected {words(place.type)}", place.help[:1].lower() + place.help[1:]])) + "."
    if place.is_whole and problem["type"] == "missing":
        return f"{place.path}: missing; {expected}"
    if place.value is None:
        return f"{place.path}: not set; {expected}"
    table = table_of(place.type)
    if table is not None and isinstance(place.value, dict):
        return _message_of_name(f"{place.path}.name", table.what, place.value.get("name"), table.entries)
    choice = next((mark for mark in metadata_of(place.type) if isinstance(mark, Choice)), None)
    if choice is not None and isinstance(place.value, str):
        return _message_of_name(place.path, choice.what, place.value, choice.names)
    return f"{place.path}: {_in_words(place.value, problem['type'])}; {expected}"


def _message_of_key(place, key):
    names, settings = place.type.__dataclass_fields__, place.value
    extra = [name for name in settings if name not in names]
    if len(extra) == 1 or "name" not in settings:
        return unknown(place.path, key, names)
    return (
        f"{place.path}: {settings['name']} has no {', '.join(extra)}; known: {', '.join(names)}; if only the "
        f"name was changed, set all of it, as in --{place.path}=\"{{'name': '{settings['name']}'}}\"."
    )


def _find(place, location):
    """Returns where the location ends and removes its steps, except for an unknown key or a part of a value."""
    while location:
        kind, value = _structure(place.type), place.value
        if (table := table_of(kind)) is not None:
            # pydantic names the entry of a table as one more step.
            place = place._replace(type=table.entry(location.pop(0)))
        elif get_origin(kind) is Mapping:
            key = location.pop(0)
            place = place._replace(path=f"{place.path}.{key}", type=get_args(kind)[1], value=value.get(key))
        elif dataclasses.is_dataclass(kind):
            setting = next((field for field in fields_of(kind) if field.name == location[0]), None)
            if setting is None:
                return place._replace(type=kind)
            key = location.pop(0)
            place = _Place(f"{place.path}.{key}", setting.type, value.get(key), setting.help)
        else:
            return place._replace(is_whole=False)
    return place


def _structure(kind):
    """Returns the one of several types that has keys, without its bounds; the type itself where none has."""
    for option in options_of(kind):
        if table_of(option) is not None:
            return option
        bare = get_args(option)[0] if get_origin(option) is Annotated else option
        if get_origin(bare) is Mapping or dataclasses.is_dataclass(bare):
            return bare
    return kind


def _in_words(value, error):
    text = reprlib.repr(value)
    is_of_wrong_type = error.endswith("_type") or (error == "literal_error" and not isinstance(value, str))
    if not is_of_wrong_type or isinstance(value, tuple):
        return text
    return f"{text} is {SCALARS.get(type(value), f'a {type(value).__name__}')}"


def _message_of_name(path, what, name, names):
    if name is None:
        return f"{path}: missing; expected one of {', '.join(sorted(names))}."
    return wrong_name(path, what, name, names)[0]


def _nearest(name, names):
    if not names:
        return "nothing can be named here."
    close = difflib.get_close_matches(str(name), names, 1)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(sorted(names))}."
