"""The types of configs: dataclasses that pydantic checks, some of them made from the entries of a table.

An entry of a table is a keyword-only factory. Its settings, their types, their defaults and one line of help each are
read from its signature and from the `Args:` of its docstring, so that they are written once.
"""

import dataclasses
import inspect
import re
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache, partial
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Union, get_args, get_origin

import annotated_types
import docstring_parser
import pydantic
from ml_collections import ConfigDict
from pydantic_core import core_schema

from latent_al.data import SOURCES
from latent_al.data.angles import TEST_POSES
from latent_al.data.arrays import VALIDATION_ROWS
from latent_al.models.autoencoders import ACTIVATIONS, conv_ae, conv_vae_latens, levels, tsne_ae, vae_tsne_ae
from latent_al.models.classifiers import angle_cnn, angle_mlp, cnn, convolutional, mlp, perceptron
from latent_al.strategies.clusterings import CLUSTERINGS
from latent_al.strategies.diversity import DISTANCES
from latent_al.strategies.farthest import SPACES
from latent_al.strategies.representativeness import REPRESENTATIVENESS
from latent_al.strategies.sampling import MATCHES
from latent_al.strategies.synthesis import nearest_to_synthesised, query_synthesis, synthesiser
from latent_al.strategies.uncertainty import MEASURES, PICKS

CHECKED = pydantic.ConfigDict(extra="forbid", defer_build=True)
SCALARS = {bool: "a bool", int: "an int", float: "a float", str: "a str", types.NoneType: "None"}

Int = Annotated[int, pydantic.Strict()]
Float = Annotated[float, pydantic.Strict()]
Bool = Annotated[bool, pydantic.Strict()]
STRICT = {int: Int, float: Float, bool: Bool}
"""Strict types of numbers: otherwise `"3"` and `True` would pass for 3."""
Count = Annotated[Int, annotated_types.Ge(1)]
CountOrZero = Annotated[Int, annotated_types.Ge(0)]
Share = Annotated[Float, annotated_types.Gt(0), annotated_types.Le(1)]


class Settings(Mapping):
    """A frozen dataclass of settings that reads as a mapping too: `build` and `dict` take it as they take a spec."""

    what: ClassVar[str] = ""
    """The kind of table that it is an entry of, such as `strategy`; empty where it is not one."""
    help: ClassVar[str] = ""
    """One line on the entry."""

    def __getitem__(self, key: str) -> Any:
        if key not in type(self).__dataclass_fields__:
            raise KeyError(key)
        return getattr(self, key)

    def __iter__(self):
        return iter(type(self).__dataclass_fields__)

    def __len__(self) -> int:
        return len(type(self).__dataclass_fields__)

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings as dicts and tuples of plain values, which JSON can hold."""
        return _to_plain(self)


class Setting(NamedTuple):
    """One key: its type, its default (`dataclasses.MISSING` where it has none) and one line of help."""

    name: str
    type: Any
    default: Any
    help: str


class Table:
    """The type of a spec: a dict whose `name` is one of the entries, and whose other keys are the settings of that one.

    Args:
        what: what an entry is, for messages.
        entries: name -> factory.
    """

    def __init__(self, what: str, entries: Mapping[str, Callable]):
        self.what, self.entries = what, entries
        self.entry = cache(self._entry)

    def _entry(self, name: str) -> type[Settings]:
        """Returns the dataclass of an entry's settings."""
        factory = self.entries[name]
        fields = [("name", Literal[name], pydantic.Field(description=f"Which {self.what}."))]
        for setting in settings_of(factory, self):
            default = {} if setting.default is dataclasses.MISSING else {"default": setting.default}
            fields.append((setting.name, setting.type, pydantic.Field(description=setting.help, **default)))
        plain = type(name, (Settings,), {"__annotations__": {field: kind for field, kind, _ in fields}, "__doc__": ""})
        for field, _, info in fields:
            setattr(plain, field, info)
        plain.what, plain.help = self.what, help_of(factory)
        return checked(plain, is_in_source=False)

    def __get_pydantic_core_schema__(self, source: Any, handler: pydantic.GetCoreSchemaHandler):
        choices = {name: handler.generate_schema(self.entry(name)) for name in self.entries}
        return core_schema.tagged_union_schema(choices, discriminator="name")


class Choice:
    """The type of a name out of a table or a tuple of names; `what` says what it names, for messages."""

    def __init__(self, what: str, names: Collection[str]):
        self.what, self.names = what, sorted(names)

    def __get_pydantic_core_schema__(self, source: Any, handler: pydantic.GetCoreSchemaHandler):
        return core_schema.literal_schema(self.names)


def checked(cls: type, *, is_in_source: bool = True) -> type:
    """Decorates a subclass of `Settings`: a frozen, keyword-only dataclass that pydantic checks strictly.

    Args:
        is_in_source: its fields have docstrings below them, for which pydantic searches all modules.
    """
    config = CHECKED | {"use_attribute_docstrings": is_in_source}
    return pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=config)(cls)


BOUNDS = {
    annotated_types.Ge: "{0.ge} or more",
    annotated_types.Gt: "above {0.gt}",
    annotated_types.Le: "at most {0.le}",
    annotated_types.Lt: "below {0.lt}",
    annotated_types.MinLen: "{0.min_length} or more of them",
}
"""Bounds of a number or a tuple, in words."""
SWEEPABLE = "sweepable"
"""Marks the type of a setting that may be traced."""
SUPPLIED = {"image_shape", "num_classes", "task", "variational"}
"""Arguments of factories that the program supplies, not a config."""
RECURSIVE = {"classifier", "source"}
"""Arguments that are specs of the table that the factory itself is in."""
NESTED = {
    "clustering": Table("clustering", CLUSTERINGS),
    "representativeness": Table("representativeness measure", REPRESENTATIVENESS),
}
"""Arguments that are specs of another table."""
CHOICES = {
    "activation": Choice("activation", ACTIVATIONS),
    "distance": Choice("distance", DISTANCES),
    "dtype": Choice("dtype", ("bfloat16", "float32")),
    "match": Choice("match", MATCHES),
    "measure": Choice("uncertainty measure", MEASURES),
    "pick": Choice("pick", PICKS),
    "space": Choice("space", SPACES),
    "validation_rows": Choice("validation rows", VALIDATION_ROWS),
    "test_poses": Choice("test_poses", TEST_POSES),
}
"""Arguments that are names."""
FORWARDED = {
    angle_cnn: convolutional,
    angle_mlp: perceptron,
    cnn: convolutional,
    conv_ae: levels,
    conv_vae_latens: levels,
    mlp: perceptron,
    nearest_to_synthesised: synthesiser,
    query_synthesis: synthesiser,
    tsne_ae: levels,
    vae_tsne_ae: levels,
}
"""Factories that pass their `**settings` on, and the function that takes them; a `partial` has it bound."""
SOURCE = Table("data source", SOURCES)


def settings_of(factory: Callable, table: Table) -> list[Setting]:
    """Returns the settings that a config gives to an entry of `table`, in the order of its signature."""
    bound = factory.keywords if isinstance(factory, partial) else {}
    function, settings = _unwrap(factory), []
    helps = {param.arg_name: param.description for param in _parse_docstring(function).params}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            settings += settings_of(_taker_of_settings(factory), table)
        elif parameter.kind is parameter.KEYWORD_ONLY and name not in SUPPLIED | bound.keys():
            default = dataclasses.MISSING if parameter.default is parameter.empty else parameter.default
            kind = _type_in_configs(name, parameter.annotation, table)
            settings.append(Setting(name, kind, default, _first_sentence(helps.get(name, ""))))
    return settings


def fields_of(cls: type[Settings]) -> list[Setting]:
    """Returns the keys of a dataclass of settings."""
    settings = []
    for field in dataclasses.fields(cls):
        info = cls.__pydantic_fields__[field.name]
        default = dataclasses.MISSING if info.is_required() else info.get_default(call_default_factory=True)
        settings.append(Setting(field.name, field.type, default, _first_sentence(info.description or "")))
    return settings


def plain_of(config: ConfigDict) -> dict[str, Any]:
    """Returns the config as dicts, tuples and plain values."""
    return _to_plain(config.to_dict())


def sweepable(spec: Settings | Mapping) -> set[str]:
    """Returns the settings of a spec, and of the classifier within it, that a sweep may set."""
    inner = sweepable(spec["classifier"]) if "classifier" in spec else set()
    fields = getattr(spec, "__dataclass_fields__", {}).values()
    return inner | {field.name for field in fields if SWEEPABLE in metadata_of(field.type)}


def words(kind: Any) -> str:
    """Returns a type in words, such as `a tuple of ints`."""
    if get_origin(kind) is Annotated:
        return _annotated_words(*get_args(kind))
    if get_origin(kind) in (Union, types.UnionType):
        options = [words(option) for option in get_args(kind) if option is not types.NoneType]
        return " or ".join(options) + (", or None" if types.NoneType in get_args(kind) else "")
    if get_origin(kind) is tuple:
        return _tuple_words(get_args(kind))
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    if get_origin(kind) is Mapping:
        return f"a dict, name -> {words(get_args(kind)[1])}"
    return SCALARS.get(kind) or f"a dict of {', '.join(kind.__dataclass_fields__)}"


def table_of(kind: Any) -> Table | None:
    """Returns the table that a spec is an entry of; None where the type is not that of a spec."""
    for option in (kind, *options_of(kind)):
        if get_origin(option) is Annotated:
            return next((mark for mark in get_args(option)[1:] if isinstance(mark, Table)), None)
    return None


def options_of(kind: Any) -> tuple[Any, ...]:
    """Returns the types of a union, without int beside float, since an int passes for a float."""
    options = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    return tuple(option for option in options if option is not int or float not in options)


def metadata_of(kind: Any) -> tuple[Any, ...]:
    """Returns the marks of an annotated type, such as its bounds."""
    return get_args(kind)[1:] if get_origin(kind) is Annotated else ()


def help_of(factory: Callable) -> str:
    """Returns the first sentence on an entry; for a `partial` of a function, that on the function bound in it."""
    bound = [argument for argument in getattr(factory, "args", ()) if callable(argument)]
    return _first_sentence(inspect.getdoc(bound[0] if bound else _unwrap(factory)) or "")


def _type_in_configs(name, annotation, table):
    """Returns the type of a factory's argument as a config may give it: no arrays, and lists as tuples."""
    if name in RECURSIVE:
        return Annotated[Any, table]
    options = options_of(annotation)
    if name in NESTED:
        nested = Annotated[Any, NESTED[name]]
        return nested | None if types.NoneType in options else nested
    if name in CHOICES:
        return Annotated[str, CHOICES[name]]
    kinds = [_plain_type(option) for option in options]
    kinds = [kind for kind in kinds if kind is not None]
    if len(kinds) < len(options) and Float in kinds:
        return Annotated[Float, SWEEPABLE]
    if not kinds:
        raise TypeError(f"{name} is annotated {annotation}, which no config can hold; annotate it more precisely.")
    return Union[tuple(kinds)]  # noqa: UP007  # of as many as there are


def _plain_type(option):
    """Returns the type in a config; None for an array."""
    if get_origin(option) is Sequence:
        return tuple[Union[tuple(filter(None, map(_plain_type, options_of(get_args(option)[0]))))], ...]  # noqa: UP007
    if get_origin(option) is tuple:
        return tuple[tuple(item if item is Ellipsis else _plain_type(item) for item in get_args(option))]
    return STRICT.get(option, option) if option in SCALARS else None


def _taker_of_settings(factory):
    if isinstance(factory, partial) and factory.args:
        return factory.args[0]
    if factory not in FORWARDED:
        raise TypeError(f"{factory.__name__} passes its settings on; say to what in {__name__}.FORWARDED.")
    return FORWARDED[factory]


def _unwrap(factory):
    return factory.func if isinstance(factory, partial) else factory


def _annotated_words(kind, *metadata):
    for mark in metadata:
        if isinstance(mark, Table):
            return f"a dict with the name and the settings of {_with_article(mark.what)}"
        if isinstance(mark, Choice):
            return f"one of {', '.join(mark.names)}"
    bounds = [BOUNDS[type(mark)].format(mark) for mark in metadata if type(mark) in BOUNDS]
    return ", ".join([words(kind), *filter(None, [" and ".join(bounds)])])


def _with_article(noun):
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _tuple_words(kinds):
    several = {word: f"{word.split(' ', 1)[1]}s" for word in SCALARS.values() if " " in word}
    items = [words(kind) for kind in kinds if kind is not Ellipsis]
    if Ellipsis in kinds:
        return f"a tuple of {several.get(items[0], items[0])}"
    return f"a tuple of {len(items)} {several.get(items[0], items[0])}"


def _to_plain(tree):
    if isinstance(tree, Mapping):
        # Classes may be named by numbers.
        return {str(name): _to_plain(value) for name, value in tree.items()}
    return tuple(map(_to_plain, tree)) if isinstance(tree, list | tuple) else tree


@cache
def _parse_docstring(function):
    return docstring_parser.parse(inspect.getdoc(function) or "", docstring_parser.DocstringStyle.GOOGLE)


def _first_sentence(text):
    paragraph = " ".join(text.strip().split("\n\n")[0].split())
    return re.split(r"(?<!\bal)\.(?:\s|$)", paragraph)[0]
