"""The reference pages of the site: every public name has an entry, and every entry says what a caller has to know.

Pages and modules are read, not imported.
"""

import ast
import re
from functools import cache
from itertools import pairwise
from pathlib import Path

import docstring_parser

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs/api").glob("*.md"))
ROOMS = ("latent_al", "latent_al.encoders", "latent_al.kernels", "latent_al.labelling", "latent_al.streaming")
"""Modules that say by `__all__` what is public."""
WHOLE = ("latent_al.loop", "latent_al.types")
"""Modules of which all is public that has no underscore."""
RANGE = re.compile(r"\bin \[|\bin \(|\binf\b|\bnats\b|\bor more\b|\b0 or above\b|sums? to|They are rows of")
SOURCE = re.compile(r"\(\d{4}\)|,\s\d{4}\b")
PLAIN = {
    "distances.euclidean_to_point",
    "distances.half_cosine_to_point",
    "distances.nearest",
    "distances.squared_distances",
    "distances.squared_euclidean_to_point",
    "selection.nearest_to",
    "selection.subsample",
    "selection.top_k",
}
"""Kernels that are arithmetic, and nobody's method."""


@cache
def tree(module):
    path = ROOT / module.replace(".", "/")
    return ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text("utf-8"))


@cache
def defined(module):
    """The functions, classes and constants of a module, by name."""
    nodes = {}
    for node in tree(module).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            nodes[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name):
                nodes[target.id] = node
    return nodes


def home(module, name):
    """Where a name is defined that a module has, as (module, name); None of a module in it."""
    if name in defined(module):
        return module, name
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ImportFrom) and node.module != module and name in {alias.name for alias in node.names}:
            return home(node.module, name)
    return None


def exported(module):
    return ast.literal_eval(defined(module)["__all__"].value)


def rows(module, name):
    """The entries of a table, as (module, name); none of a constant that is no table."""
    value = getattr(defined(module)[name], "value", None)
    tables = [node for node in ast.walk(value) if isinstance(node, ast.Dict)] if value else []
    return {home(module, item.id) for table in tables for item in table.values if isinstance(item, ast.Name)}


def is_kernel(node):
    decorators = getattr(node, "decorator_list", [])
    return any(ast.unparse(decorator).startswith("kernel(") for decorator in decorators)


@cache
def entries():
    """The names that the pages have an entry of, as (module, name), with the page."""
    found = {}
    for page in PAGES:
        for module, options in re.findall(r"^::: (\S+)\n((?: .*\n)*)", page.read_text("utf-8"), re.MULTILINE):
            names = options.partition("members:")[2]
            found |= {(module, name): page for name in re.findall(r"\w+", names) if name != "false"}
    return found


def public():
    """The public names, as (module, name)."""
    names = {home(module, name) for module in ROOMS for name in exported(module)} - {None}
    names |= {(module, name) for module in WHOLE for name in defined(module) if not name.startswith("_")}
    kernels = [f"latent_al.kernels.{path.stem}" for path in (ROOT / "latent_al/kernels").glob("[a-z]*.py")]
    names |= {(module, name) for module in kernels for name, node in defined(module).items() if is_kernel(node)}
    names = names.union(*(rows(module, name) for module, name in entries()))
    return {(module, name) for module, name in names if not name.startswith("_")}


def signature(node):
    """The annotations of a function's arguments, and of what it returns as `return`, as they are written."""
    spec = node.args
    arguments = [*spec.posonlyargs, *spec.args, *filter(None, [spec.vararg]), *spec.kwonlyargs]
    return {argument.arg: argument.annotation and ast.unparse(argument.annotation) for argument in arguments} | {
        "return": node.returns and ast.unparse(node.returns)
    }


def docstring(module, name):
    """The docstring of a function, a class or a constant."""
    node = defined(module)[name]
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return ast.get_docstring(node) or ""
    following = next((after for before, after in pairwise(tree(module).body) if before is node), None)
    return following.value.value if isinstance(following, ast.Expr) else ""


def sections(text):
    return docstring_parser.parse(text, docstring_parser.DocstringStyle.GOOGLE)


def is_words(before, after):
    """Whether a field has a docstring below it."""
    return isinstance(before, ast.AnnAssign) and isinstance(after, ast.Expr)


def everywhere(page):
    """The arguments that mean the same in all of a page, from the table at its head."""
    return set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", page.read_text("utf-8"), re.MULTILINE))))


def functions():
    """Each entry of a function, with its node, its docstring and the sections of that."""
    for module, name in entries():
        node = defined(module)[name]
        if isinstance(node, ast.FunctionDef):
            text = docstring(module, name)
            yield f"{module}.{name}", node, text, sections(text)


def test_every_public_name_has_an_entry():
    assert public() - entries().keys() == set()


def test_every_entry_is_of_something_with_a_docstring():
    bare = [(module, name) for module, name in entries() if name not in defined(module) or not docstring(module, name)]
    assert bare == []


def test_every_room_is_in_the_list_of_rooms():
    rooms = {name for name in exported("latent_al") if (ROOT / "latent_al" / name).is_dir()} | {"loop", "types"}
    listed = re.findall(r"^\| \[?`latent_al\.(\w+)`", (ROOT / "docs/api/index.md").read_text("utf-8"), re.MULTILINE)
    assert set(listed) == rooms


def test_entries_say_what_their_arguments_are():
    missing = set()
    for (module, name), page in entries().items():
        node = defined(module)[name]
        if isinstance(node, ast.FunctionDef):
            described = {item.arg_name for item in sections(docstring(module, name)).params} | everywhere(page)
            missing |= {(module, name, argument) for argument in signature(node).keys() - {"return"} - described}
    assert missing == set()


def test_entries_give_the_shapes_of_arrays():
    """In the types, or in brackets in the words."""
    missing = []
    for name, node, text, parts in functions():
        words = {item.arg_name: item.description for item in parts.params} | {"return": text}
        for argument, kind in signature(node).items():
            # A function as an argument has its shapes in its words.
            kind = re.sub(r"\bCallable\[.*\]", "", kind or "Array").replace("[Array | np.ndarray, ", "[Array, ")
            is_bare = re.search(r"(?<!\[)(?<!\[np\.)\b(Array|ndarray)\b", kind)
            if is_bare and not re.search(r"\[.*\]", words.get(argument, "")):
                missing.append((name, argument))
    assert missing == []


def test_entries_give_the_range_or_the_unit_of_numbers():
    numbers = [entry for entry in functions() if signature(entry[1])["return"].startswith(("Float[", "float"))]
    # Of a family the head of its module says it for all.
    heads = {name: ast.get_docstring(tree(name.rpartition(".")[0])) for name, *_ in numbers}
    assert len(numbers) > 30
    # Not in the words on arguments and errors, which have ranges too.
    said = {name: re.split(r"^(?:Args|Raises):", text, flags=re.MULTILINE)[0] for name, _, text, _ in numbers}
    assert [name for name, text in said.items() if not RANGE.search(text + heads[name])] == []


def test_entries_name_the_errors_that_they_raise():
    raising = [
        (name, parts.raises)
        for name, node, _, parts in functions()
        if is_kernel(node) or any(isinstance(part, ast.Raise) for part in ast.walk(node))
    ]
    assert len(raising) > 90
    assert [name for name, errors in raising if not errors] == []


def test_kernels_and_strategies_cite_their_sources():
    methods = [
        (name, text + ast.get_docstring(tree(name.rpartition(".")[0])))
        for name, node, text, _ in functions()
        if is_kernel(node) or signature(node)["return"] == "Strategy"
    ]
    without = {name.removeprefix("latent_al.kernels.") for name, text in methods if not SOURCE.search(text)}
    assert without == PLAIN


def test_entries_say_what_their_fields_are():
    missing = set()
    for module, name in entries():
        node = defined(module)[name]
        if isinstance(node, ast.ClassDef):
            described = {item.arg_name for item in sections(docstring(module, name)).params}
            described |= {before.target.id for before, after in pairwise(node.body) if is_words(before, after)}
            fields = {part.target.id for part in node.body if isinstance(part, ast.AnnAssign)}
            missing |= {(module, name, field) for field in fields - described}
    assert missing == set()
