"""The files that a workdir keeps, and the workdirs that are refused."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import filelock
import pytest
from ml_collections import ConfigDict

from latent_al.experiment.run import run_experiment
from latent_al.runtime.locks import only_process_in
from latent_al.runtime.workdir import FORMAT, SEEDS_AT_ONCE, begun_with, check_format, check_identity
from latent_al.types import BadInput


def test_a_workdir_keeps_how_many_ran_side_by_side(tmp_path):
    assert begun_with(tmp_path) is None
    (tmp_path / SEEDS_AT_ONCE).write_text("4\n")
    assert begun_with(tmp_path) == 4
    (tmp_path / SEEDS_AT_ONCE).write_text("{}")
    with pytest.raises(BadInput, match="holds '{}'; expected a number of seeds; choose another --workdir"):
        begun_with(tmp_path)


def test_a_workdir_keeps_the_format_and_what_it_is_for(tmp_path):
    check_format(tmp_path)
    check_identity(tmp_path, {"seed": 0})
    assert json.loads((tmp_path / "config.json").read_text()) == {"format": FORMAT, "seed": 0}
    check_format(tmp_path)
    check_identity(tmp_path, {"seed": 0})
    with pytest.raises(BadInput, match=r"holds another experiment \(seed: there 0, now 1\)"):
        check_identity(tmp_path, {"seed": 1})
    for damaged in (b"{", b"[]", b"null", b"\xff\xfe"):
        (tmp_path / "config.json").write_bytes(damaged)
        for check in (check_format, lambda folder: check_identity(folder, {"seed": 0})):
            with pytest.raises(BadInput, match="is not JSON .* choose another --workdir"):
                check(tmp_path)


def test_embeddings_may_move(tmp_path):
    def identity(name, path, **settings):
        return {"encoder": {"name": name, "latents": path, **settings}}

    check_identity(tmp_path, identity("precomputed", "a.npy", index="a.csv"))
    check_identity(tmp_path, identity("precomputed", "b.npy", index="b.csv"))
    with pytest.raises(BadInput, match="encoder.name: there precomputed, now other"):
        check_identity(tmp_path, identity("other", "a.npy", index="a.csv"))


def test_a_setting_that_is_newer_than_the_workdir(tmp_path):
    check_identity(tmp_path, {"data": {"root": "a"}})
    check_identity(tmp_path, {"data": {"root": "a", "depth": None}})
    with pytest.raises(BadInput, match="data.depth: there absent, now 12"):
        check_identity(tmp_path, {"data": {"root": "a", "depth": 12}})


@pytest.mark.parametrize("kept", [{}, {"format": 1}, {"format": 3}, {"config": {"rounds": 3}, "data": "abc"}], ids=str)
def test_an_experiment_of_another_format_is_refused_before_any_work(kept, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(kept))
    message = (
        f"begun by another version of latent_al, with format {kept.get('format')}, while this one has 2; finish it"
    )
    with pytest.raises(BadInput, match=message):
        run_experiment(ConfigDict(), str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_folder_that_another_process_works_in(tmp_path, caplog):
    def enter():
        with only_process_in(tmp_path / "encoder", wait=True):
            return True

    (tmp_path / "encoder").mkdir()
    with ThreadPoolExecutor(1) as pool:
        with filelock.FileLock(tmp_path / "encoder" / ".lock"):
            waiting = pool.submit(enter)
            while not (caplog.records or waiting.done()):
                time.sleep(0.01)
            assert caplog.messages == [f"waiting for another process that works in {tmp_path}/encoder."]
            assert not waiting.done()
        assert waiting.result(timeout=60)
    with (
        only_process_in(tmp_path / "encoder", wait=False),
        pytest.raises(BadInput, match="encoder is in use by another process; wait for it, or end it"),
        only_process_in(tmp_path / "encoder", wait=False),
    ):
        pass


def test_a_folder_that_cannot_be_locked_is_used_without(tmp_path):
    (tmp_path / "file").write_text("")
    entered = False
    with only_process_in(tmp_path / "file", wait=False):
        entered = True
    assert entered
