"""The schema of configs: refusals by path, before any work, and its description."""

import copy
import json
import re
import runpy
import typing

import pytest
from jaxtyping import Array, Float
from ml_collections import ConfigDict
from test_launch import ROOT, launch, succeed

from latent_al import labelling
from latent_al.experiment import config as experiment
from latent_al.experiment import reference, schema
from latent_al.experiment.command_line import load_config, split_overrides
from latent_al.experiment.config import parse_experiment
from latent_al.experiment.describe import describe
from latent_al.experiment.run import run_experiment
from latent_al.labelling import config as job
from latent_al.labelling.config import parse_labelling
from latent_al.types import BadInput

MLP = dict(name="mlp", hidden=(8,), dropout=0.2, learning_rate=1e-3, epochs=1, batch_size=10)
DIGITS = dict(name="digits", num_validation=200, num_test=300)
CONFIG = dict(
    num_seeds=2,
    data=dict(name="long_tail", ratio=2.0, seed=0, source=DIGITS),
    encoders=dict(
        pixels=dict(name="identity"),
        vae=dict(name="dense_vae", hidden=(8,), latent_dim=2, learning_rate=1e-3, epochs=1, batch_size=100, seed=0),
    ),
    classifiers=dict(mlp=MLP, net=dict(name="refitted", l2=1e-3, classifier=dict(MLP))),
    initial=dict(name="random"),
    num_initial=20,
    query_size=10,
    num_rounds=1,
    arms=dict(
        random=dict(encoder="vae", classifier="mlp", strategy=dict(name="random")),
        margin=dict(encoder="vae", classifier="net", strategy=dict(name="uncertainty", measure="margin", pick="top_k")),
    ),
    baseline="random",
)
"""An experiment with a source in a source and a classifier in a classifier."""
REFITTED_CNN = dict(name="refitted", l2=1.0, classifier=dict(name="cnn"))


def changed(config, path, value):
    """A copy with the key at `path` set, or taken away where the value is ..."""
    config = copy.deepcopy(config)
    *above, last = path.split(".")
    inner = config
    for name in above:
        inner = inner.setdefault(name, {})
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return ConfigDict(config)


def refuse_experiment(path, value, message, tmp_path):
    with pytest.raises(BadInput, match=f"^{re.escape(message)}"):
        run_experiment(changed(CONFIG, path, value), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "path, message",
    [
        ("roundss", "config.roundss: unknown; did you mean num_rounds?"),
        ("data.ratios", "config.data.ratios: unknown; did you mean ratio?"),
        ("data.source.num_tests", "config.data.source.num_tests: unknown; did you mean num_test?"),
        ("encoders.vae.latent", "config.encoders.vae.latent: unknown; did you mean latent_dim?"),
        ("encoders.pixels.width", "config.encoders.pixels.width: unknown; known: name."),
        ("classifiers.mlp.epoch", "config.classifiers.mlp.epoch: unknown; did you mean epochs?"),
        ("classifiers.mlp.num_classes", "config.classifiers.mlp.num_classes: unknown; known: batch_size"),
        ("classifiers.net.classifier.hiden", "config.classifiers.net.classifier.hiden: unknown; did you mean hidden?"),
        ("arms.margin.subsamples", "config.arms.margin.subsamples: unknown; did you mean subsample?"),
        ("arms.margin.strategy.mesure", "config.arms.margin.strategy.mesure: unknown; did you mean measure?"),
        ("initial.key", "config.initial.key: unknown; known: name."),
        ("mesh.pol", "config.mesh.pol: unknown; did you mean pool?"),
        ("arms.margin.sweep.measur", "config.arms.margin.sweep.measur: unknown; "),
    ],
)
def test_keys_that_do_not_exist(path, message, tmp_path):
    refuse_experiment(path, (1.0,), message, tmp_path)


def test_a_key_that_no_diagnostic_and_no_arms_own_first_strategy_has(tmp_path):
    diagnostic = dict(name="explanations", arms=("margin",), rows=3)
    refuse_experiment(
        "diagnostics.why", diagnostic, "config.diagnostics.why.rows: unknown; known: arms, name", tmp_path
    )
    initial = dict(name="typical", iterations=3, iteration=4)
    message = "config.arms.margin.initial.iteration: unknown; did you mean iterations?"
    refuse_experiment("arms.margin.initial", initial, message, tmp_path)
    clustering = dict(name="kmeans", num_clusters=2, iterations=3, sed=0)
    initial = dict(name="normal", clustering=clustering, threshold=1.0, match="nearest")
    message = "config.initial.clustering.seed: missing; expected an int: of the start."
    refuse_experiment("initial", initial, message, tmp_path)


@pytest.mark.parametrize(
    "path, value, message",
    [
        ("num_seeds", "ten", "config.num_seeds: 'ten' is a str; expected an int, 1 or more: runs of each arm"),
        ("num_seeds", True, "config.num_seeds: True is a bool; expected an int, 1 or more"),
        ("num_seeds", 2.0, "config.num_seeds: 2.0 is a float; expected an int, 1 or more"),
        ("num_seeds", None, "config.num_seeds: not set; expected an int, 1 or more"),
        ("num_rounds", ..., "config.num_rounds: missing; expected an int, 0 or more: rounds of queries"),
        ("num_rounds", -1, "config.num_rounds: -1; expected an int, 0 or more"),
        ("seeds_at_once", "2", "config.seeds_at_once: '2' is a str; expected an int, 1 or more, or None"),
        ("precision", "float16", "config.precision: 'float16'; expected one of float32, tensorfloat32, bfloat16"),
        ("reach", 0.8, "config.reach: 0.8 is a float; expected a tuple of floats"),
        ("reach", (True,), "config.reach: (True,); expected a tuple of floats"),
        ("baseline", 3, "config.baseline: 3 is an int; expected a str"),
        ("data", "digits", "config.data: 'digits' is a str; expected a dict with the name and the settings of a data"),
        ("data", dict(root="x"), "config.data.name: missing; expected one of digits, idx"),
        ("data.name", "long_tale", "config.data.name: unknown data source 'long_tale'; did you mean long_tail?"),
        ("data.ratio", "2", "config.data.ratio: '2' is a str; expected a float"),
        ("data.source", None, "config.data.source: not set; expected a dict with the name"),
        ("data.source.name", "digit", "config.data.source.name: unknown data source 'digit'; did you mean digits?"),
        ("data.source.num_test", 3.5, "config.data.source.num_test: 3.5 is a float; expected an int: rows held out"),
        ("encoders", (), "config.encoders: (); expected a dict, name -> a dict with the name and the settings of an"),
        ("encoders.vae.hidden", 8, "config.encoders.vae.hidden: 8 is an int; expected a tuple of ints: units"),
        ("encoders.vae.hidden", (8, "8"), "config.encoders.vae.hidden: (8, '8'); expected a tuple of ints"),
        ("encoders.vae.seed", False, "config.encoders.vae.seed: False is a bool; expected an int"),
        ("classifiers.net.classifier.epochs", "1", "config.classifiers.net.classifier.epochs: '1' is a str; expected"),
        ("classifiers.net.classifier", ..., "config.classifiers.net.classifier: missing; expected a dict with the"),
        ("arms", {}, "config.arms: {}; expected a dict, name -> "),
        ("arms.margin", 3, "config.arms.margin: 3 is an int; expected a dict of encoder, classifier"),
        ("arms.margin.encoder", "vea", "config.arms.margin.encoder: unknown encoder 'vea'; did you mean vae?"),
        ("arms.margin.classifier", "cnn", "config.arms.margin.classifier: unknown classifier 'cnn'; known: mlp, net."),
        ("arms.margin.subsample", 1.5, "config.arms.margin.subsample: 1.5; expected a float, above 0 and at most 1"),
        ("arms.margin.subsample", "all", "config.arms.margin.subsample: 'all' is a str; expected a float, above 0"),
        ("arms.margin.keep", "bst", "config.arms.margin.keep: 'bst'; expected one of all, best"),
        ("arms.margin.sweep", dict(gamma=0.1), "config.arms.margin.sweep.gamma: 0.1 is a float; expected a tuple of"),
        ("arms.margin.sweep", dict(gamma=()), "config.arms.margin.sweep.gamma: (); expected a tuple of floats, 1 or"),
        ("arms.margin.strategy.name", "bagde", "config.arms.margin.strategy.name: unknown strategy 'bagde'; did you"),
        ("arms.margin.strategy.measure", "doubt", "config.arms.margin.strategy.measure: unknown uncertainty measure"),
        ("arms.margin.strategy.measure", 3, "config.arms.margin.strategy.measure: 3 is an int; expected one of entr"),
        ("initial", "random", "config.initial: 'random' is a str; expected a dict with the name and the settings of"),
        (
            "test_every_round",
            "yes",
            "config.test_every_round: 'yes' is a str; expected a bool: whether the test images",
        ),
        ("mesh", 4, "config.mesh: 4 is an int; expected a dict of seeds, pool, or None"),
        ("mesh.pool", "4", "config.mesh.pool: '4' is a str; expected an int, 1 or more: devices"),
        ("diagnostics.why", dict(name="why"), "config.diagnostics.why.name: unknown diagnostic 'why'; known: "),
        ("diagnostics", "why", "config.diagnostics: 'why' is a str; expected a dict, name -> "),
    ],
)
def test_values_that_cannot_be(path, value, message, tmp_path):
    refuse_experiment(path, value, message, tmp_path)


@pytest.mark.parametrize(
    "path, value, message",
    [
        ("budget", 3, "config.budget: unknown; known: audit"),
        ("job", "labeling", "config.job: 'labeling'; expected one of labelling"),
        ("data.roots", "x", "config.data.roots: unknown; did you mean root?"),
        ("data.root", None, "config.data.root: not set; expected a str: the folder of the images."),
        ("data.size", (8,), "config.data.size: (8,); expected a tuple of 2 ints"),
        ("classes", "cat", "config.classes: 'cat' is a str; expected a tuple of strs"),
        ("classes", ("cat", 3), "config.classes: ('cat', 3); expected a tuple of strs"),
        ("audit", -1, "config.audit: -1; expected an int, 0 or more"),
        ("seed", ..., "config.seed: missing; expected an int"),
        ("encoder.image_shape", (8, 8, 1), "config.encoder.image_shape: unknown; known: batch_size"),
        ("encoder", dict(name="precomputed", index="x"), "config.encoder.latents: missing; expected a str: the file"),
        ("encoder", dict(name="precomputed", latents="x"), "x has no index, but the images are a pool"),
        ("encoder", dict(name="identity"), "config.encoder.name:"),
        (
            "classifier",
            REFITTED_CNN,
            "config.classifier.classifier.name:",
        ),
        ("classifier.hiden", (8,), "config.classifier.hiden: unknown; did you mean hidden?"),
        (
            "classifier.name",
            "logistic_regression",
            "config.classifier: logistic_regression has no batch_size, epochs, hidden, learning_rate; known: "
            "name, dropout; if only the name was changed, set all of it, as in "
            "--config.classifier=\"{'name': 'logistic_regression'}\".",
        ),
        ("initial.iterations", "20", "config.initial.iterations: '20' is a str; expected an int"),
    ],
)
def test_what_a_labelling_job_refuses(path, value, message, tmp_path):
    config = runpy.run_path(str(ROOT / "configs/folder.py"))["get_config"]("smoke").to_dict()
    config["data"]["root"] = str(tmp_path)
    with pytest.raises(BadInput, match=f"^{re.escape(message)}"):
        labelling.run(changed(config, path, value), str(tmp_path / "job"))
    assert not (tmp_path / "job").exists()


def test_all_that_is_wrong_is_told_at_once():
    config = CONFIG | dict(num_seeds="ten", roundss=3)
    del config["baseline"]
    with pytest.raises(BadInput) as refusal:
        parse_experiment(ConfigDict(config))
    paths = [line.split(":")[0] for line in str(refusal.value).splitlines()]
    assert sorted(paths) == ["config.baseline", "config.num_seeds", "config.roundss"]


def test_defaults_and_placeholders():
    """An int passes for a float, and what is left out or left open has its default, in the workdir's JSON too."""
    config = CONFIG | dict(
        reach=[1, 0.5],
        seeds_at_once=None,
        mesh=dict(pool=4),
        diagnostics=dict(why=dict(name="importance", arms=("margin",))),
    )
    parsed = parse_experiment(ConfigDict(config))
    assert parsed.reach == (1.0, 0.5)
    assert isinstance(parsed.reach[0], float)
    assert dict(parsed.mesh) == dict(seeds=1, pool=4)
    assert parsed.arms["margin"].subsample == 1.0
    assert dict(parsed.arms["margin"].strategy) == CONFIG["arms"]["margin"]["strategy"]
    assert parsed.classifiers["net"].classifier.hidden == (8,)
    kept = json.loads(json.dumps(parsed.to_dict()))
    assert kept["arms"]["random"]["keep"] == "all"
    assert kept["data"]["source"] == DIGITS
    assert kept["precision"] == "float32"
    assert parse_experiment(ConfigDict(kept)) == parsed
    with pytest.raises(AttributeError):
        parsed.num_seeds = 3


def test_overrides():
    argv = ["launch.py", "--config=x.py", "--config.data.source.root", "5", "--config.num_seeds=3", "--workdir=y"]
    overrides, rest = split_overrides(argv)
    assert overrides == {"data.source.root": "5", "num_seeds": "3"}
    assert rest == ["launch.py", "--config=x.py", "--workdir=y"]
    config = load_config(
        f"{ROOT}/configs/orientation_farthest_point.py:mnist",
        overrides | {"reach": "(30.0, 40)", "mesh.pool": "2", "arms.random.subsample": "0.5"},
    )
    parsed = parse_experiment(config)
    assert parsed.data.source.root == "5"
    assert (parsed.num_seeds, parsed.reach, parsed.mesh.pool) == (3, (30.0, 40.0), 2)
    assert parsed.arms["random"].subsample == 0.5
    assert load_config(f"{ROOT}/configs/mnist_vae.py", {"data.root": "None"}).data.root is None


@pytest.mark.parametrize(
    "function, size, message",
    [
        ("get_config(): return ConfigDict()", ":smoke", "mine.py takes no size; give --config=.*mine.py.$"),
        ("get_config(size): return ConfigDict()", "", "mine.py takes a size; give one, as in --config=.*mine.py:SIZE"),
        ("get_config(): return {}", "", "mine.py returns a dict; return an ml_collections.ConfigDict"),
        ("get_config(): ConfigDict()", "", "mine.py returns a NoneType; return an ml_collections.ConfigDict"),
        ("get_config(): return ConfigDict(dict(a=required_placeholder(str)))", "", "a required_placeholder .* not set"),
        ("get_config(size): return {'tiny': 1}[size]", ":tny", "unknown size 'tny'; the head of .*mine.py lists"),
    ],
)
def test_a_file_of_ones_own_that_gives_no_config(function, size, message, tmp_path):
    (tmp_path / "mine.py").write_text(f"from ml_collections.config_dict import *\ndef {function}")
    with pytest.raises(BadInput, match=message):
        load_config(f"{tmp_path}/mine.py{size}", {})


def test_an_override_sets_a_required_placeholder(tmp_path):
    function = "def get_config(): return ConfigDict(dict(root=required_placeholder(str)))"
    (tmp_path / "mine.py").write_text(f"from ml_collections.config_dict import *\n{function}")
    assert load_config(f"{tmp_path}/mine.py", {"root": "5"}).root == "5"


def test_a_key_that_a_file_of_ones_own_misses_is_no_size(tmp_path):
    (tmp_path / "mine.py").write_text("import os\ndef get_config(size=''): return os.environ['LATENT_AL_UNSET']")
    with pytest.raises(KeyError, match="LATENT_AL_UNSET"):
        load_config(f"{tmp_path}/mine.py:smoke", {})


def test_an_override_names_a_class_with_a_dot_and_goes_on_below_a_dict():
    overrides = {"rename": "{'n.i.O.': 'bad'}", "strategy": "{'name': 'badge', 'size': 2}", "strategy.size": "0.5"}
    config = load_config(f"{ROOT}/configs/folder.py:smoke", overrides)
    assert config.rename.to_dict() == {"n.i.O.": "bad"}
    assert config.strategy.to_dict() == {"name": "badge", "size": 0.5}


def test_an_override_names_a_class_by_a_number():
    config = load_config(f"{ROOT}/configs/folder.py:smoke", {"rename": "{0: 'cat'}", "data.root": "photos"})
    assert parse_labelling(config).rename == {"0": "cat"}


def test_an_override_sets_one_of_the_places_where_a_file_uses_a_dict():
    path = f"{ROOT}/configs/synthetic_ibal.py"
    overrides = {"arms.ibal_d.sweep.gamma": "(10.0,)", "arms.ibal_d.keep": "all"}
    arms = parse_experiment(load_config(path, overrides)).arms
    assert arms["ibal_d"].sweep == {"gamma": (10.0,)}
    assert arms["entropy_d"].sweep == {"gamma": (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)}
    assert (arms["ibal_d"].keep, arms["entropy_d"].keep) == ("all", "best")


@pytest.mark.parametrize(
    "path, overrides, message",
    [
        ("configs/none.py", {}, "there is no file .*configs/none.py"),
        ("tests/archives.py", {}, "archives.py has no function get_config; write one"),
        ("configs/digits_vae.py:tiny", {}, "unknown size 'tiny'; known: full, smoke"),
        ("configs/folder.py:smok", {}, "unknown size 'smok'; known: full, pretrained, smoke"),
        ("configs/mnist_vae.py:svhn-tiny", {}, "unknown size 'svhn-tiny'; known: best"),
        (
            "configs/digits_vae.py",
            {"arms.margin2.subsample": "1"},
            r"config.arms.margin2: unknown; did you mean margin\? To add margin2, set all of it at once",
        ),
        ("configs/digits_vae.py", {"dta.num_test": "1"}, r"config.dta: unknown; did you mean data\?$"),
        (
            "configs/digits_vae.py",
            {"num_seeds.x": "1"},
            "config.num_seeds.x: config.num_seeds is 20, which has no keys",
        ),
    ],
)
def test_a_command_that_names_what_there_is_not(path, overrides, message):
    with pytest.raises(BadInput, match=message):
        load_config(str(ROOT / path), overrides)


@pytest.mark.parametrize(
    "config, override, message",
    [
        ("digits_vae", "roundss=3", "launch.py: config.roundss: unknown; did you mean num_rounds?\n"),
        ("folder", "classifier.hiden=8", "launch.py: config.classifier.hiden: unknown; did you mean hidden?\n"),
    ],
)
def test_the_command_line_is_refused_before_any_work(config, override, message, tmp_path):
    workdir = tmp_path / "run"
    flags = (
        [f"--config.{override}", f"--config.data.root={tmp_path}"] if config == "folder" else [f"--config.{override}"]
    )
    done = launch(f"--config=configs/{config}.py:smoke", *flags, f"--workdir={workdir}")
    assert done.returncode == 1
    assert done.stderr.endswith(message)
    assert "Traceback" not in done.stderr
    assert not workdir.exists()


def test_describe_tells_where_the_values_of_a_sweep_come_from():
    overrides = {"arms.ibal_d.sweep.gamma": "(1.0,)"}
    config = load_config(f"{ROOT}/configs/synthetic_ibal.py", overrides)
    said = describe(parse_experiment(config), config, overrides)
    assert "config.arms.ibal_d.sweep = {'gamma': (1.0,)}  (command line)\n" in said
    assert "config.arms.entropy_d.sweep = {'gamma': (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)}  (file)\n" in said


def test_describe_tells_what_a_whole_dict_of_the_command_line_leaves_out():
    overrides = {"classifiers.mlp": "{'name': 'logistic_regression'}", "mesh": "{'pool': 2}"}
    config = load_config(f"{ROOT}/configs/digits_vae.py", overrides)
    said = describe(parse_experiment(config), config, overrides)
    assert "config.classifiers.mlp.name = 'logistic_regression'  (command line)\n" in said
    assert "config.classifiers.mlp.dropout = 0.0  (default)\n" in said
    assert "config.mesh.pool = 2  (command line)\n" in said
    assert "config.mesh.seeds = 1  (default)\n" in said


def test_describe(tmp_path):
    said = succeed(
        "--config=configs/digits_vae.py:smoke", "--describe", "--config.mesh.pool=2", f"--workdir={tmp_path / 'run'}"
    )
    assert "config.num_seeds = 2  (file)\n    an int, 1 or more: Runs of each arm" in said
    assert "config.arms.margin.subsample = 1.0  (default)\n    a float, above 0 and at most 1: Share" in said
    assert "config.mesh.pool = 2  (command line)\n" in said
    assert "config.mesh.seeds = 1  (default)\n" in said
    assert (
        "config.arms.margin.strategy.name = 'uncertainty'  (file)\n    the name of the strategy: Selects rows" in said
    )
    assert "config.encoders.vae.hidden = (512, 256)  (file)\n    a tuple of ints: units of the encoder's" in said
    assert not (tmp_path / "run").exists()


def test_the_reference_is_what_the_tables_say():
    """Made by `python -m latent_al.experiment.reference > docs/reference.md`."""
    assert (ROOT / "docs/reference.md").read_text(encoding="utf-8") == reference.reference()


def all_settings():
    for cls in reference.CONFIGS.values():
        yield from ((cls.__name__, setting) for setting in schema.fields_of(cls))
    for table in (*reference.TABLES.values(), schema.table_of(job.Encoder)):
        for name in table.entries:
            assert table.entry(name).help
            yield from ((name, setting) for setting in schema.fields_of(table.entry(name)))


def test_every_key_has_help():
    assert [(name, setting.name) for name, setting in all_settings() if not setting.help] == []


def test_a_labelling_job_of_each_size_parses():
    for size in ("full", "smoke"):
        config = runpy.run_path(str(ROOT / "configs/folder.py"))["get_config"](size)
        config.data.root = "photos"
        assert parse_labelling(config).precision == "float32"


def test_only_what_may_be_traced_may_be_swept():
    def weighed(*, gamma: float | Float[Array, ""], threshold: float, num: int):
        """Weighed."""

    entry = schema.Table("thing", dict(weighed=weighed)).entry("weighed")
    spec = entry(name="weighed", gamma=1, threshold=0.5, num=2)
    assert schema.sweepable(spec) == {"gamma"}
    assert dict(spec) == dict(name="weighed", gamma=1.0, threshold=0.5, num=2)
    assert [schema.words(setting.type) for setting in schema.fields_of(entry)[1:]] == ["a float", "a float", "an int"]


def test_a_factory_that_no_config_can_name_is_told_to_its_author():
    def unclear(*, weight: typing.Any):
        """Unclear."""

    def hidden(**settings):
        """Hidden."""

    with pytest.raises(TypeError, match="weight is annotated .*; annotate it more precisely"):
        schema.Table("thing", dict(unclear=unclear)).entry("unclear")
    with pytest.raises(TypeError, match="hidden passes its settings on; say to what in .*FORWARDED"):
        schema.Table("thing", dict(hidden=hidden)).entry("hidden")
    assert schema.table_of(experiment.Strategy).entries["random"].__name__ == "random"
