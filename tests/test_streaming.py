"""Picks of latents on disk, or made as they are read, beside those of the kernels on the same latents in memory."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
import tensorstore as ts
import test_farthest

from latent_al import kernels, streaming
from latent_al.streaming import k_center, selection, stream
from latent_al.types import BadInput

SIZE, WIDTH, CHUNK = 5000, 5, 700
BLOCK_BYTES = 2 * 4 * WIDTH * CHUNK
"""Of two chunks: the last block holds two thirds of one."""


def cloud(kind, size=SIZE):
    return test_farthest.cloud(kind, size, WIDTH)


def mark(num_taken, size=SIZE):
    return test_farthest.mark(size, num_taken)


class Made:
    """Latents that a thread makes when they are asked for, and how many rows were."""

    chunk_rows = 1

    def __init__(self, latents):
        self.latents, self.rows_read, self.threads = latents, 0, ThreadPoolExecutor(1)
        self.num_rows, self.width = latents.shape

    def read(self, start, stop):
        self.rows_read += stop - start
        return self.threads.submit(lambda: self.latents[start:stop] + np.float32(0))


class Future(NamedTuple):
    """Rows that have come, in another type."""

    rows: np.ndarray
    dtype: str

    def result(self):
        return self.rows.astype(self.dtype)


def on_disk(path, latents, chunk=CHUNK):
    parts = np.split(latents, [3, 10, 2 * chunk])
    return streaming.write_latents(path, parts, *latents.shape, chunk_bytes=4 * latents.shape[1] * chunk)


@pytest.fixture(params=["disk", "made"])
def source(request, tmp_path):
    """A factory of sources of given latents."""
    return (lambda latents: on_disk(tmp_path / "latents", latents)) if request.param == "disk" else Made


@jax.jit
def tied(latents):
    return jnp.round(2 * latents[:, 0]) / 2


@jax.jit
def margin(latents):
    return kernels.margin(jax.nn.softmax(latents, axis=1))


@jax.jit
def alike_or_unlimited(latents):
    """Infinite on both sides, and zero in between."""
    return jnp.where(latents[:, 0] > 2, jnp.inf, jnp.where(latents[:, 1] > 0, -jnp.inf, 0))


class TestTopK:
    @pytest.mark.parametrize("score", [tied, margin, alike_or_unlimited])
    @pytest.mark.parametrize("num_taken, num", [(0, 1), (40, 100), (SIZE - 90, 90)])
    def test_rows_are_those_in_memory(self, source, score, num_taken, num):
        latents, taken = cloud("gaussian"), mark(num_taken)
        rows = streaming.top_k(score, source(latents), taken, num, block_bytes=BLOCK_BYTES)
        assert rows.tolist() == kernels.top_k(score(latents), jnp.array(taken), num).tolist()

    def test_one_program_serves_all_blocks_of_one_pass(self):
        source, traced = Made(cloud("gaussian")), []

        @jax.jit
        def score(latents):
            traced.append(latents.shape)
            return latents.sum(axis=1)

        streaming.top_k(score, source, mark(0), 3, block_bytes=BLOCK_BYTES)
        assert traced == [(2 * CHUNK, WIDTH)]
        assert source.rows_read == SIZE

    def test_zeros_behind_the_last_row_are_no_rows(self):
        rows = streaming.top_k(lambda latents: -latents[:, 0], Made(1 + cloud("equal")), mark(0), SIZE)
        assert rows.tolist() == list(range(SIZE))
        rows = streaming.top_k(
            jax.jit(lambda latents: 1 / latents[:, 0]), Made(cloud("equal")), mark(0), 2, block_bytes=BLOCK_BYTES
        )
        assert rows.tolist() == [0, 1]

    @pytest.mark.parametrize(
        "score, message",
        [
            (
                lambda latents: jnp.where(latents[:, 0] > 2, jnp.nan, 0),
                r"\d+ scores of rows 0 to 1399 are NaN, the",
            ),
            (lambda latents: latents, r"shape \(1400, 5\); expected one score per row"),
        ],
    )
    @pytest.mark.parametrize("pick", ["top_k", "random_partitions"])
    def test_refuses_bad_scores(self, pick, score, message):
        function, key = getattr(streaming, pick), [jax.random.key(0)] * (pick == "random_partitions")
        with pytest.raises(BadInput, match=message):
            function(*key, jax.jit(score), Made(cloud("gaussian")), mark(0), 3, block_bytes=BLOCK_BYTES)

    def test_a_block_with_fewer_rows_left_than_are_selected(self):
        """The last row of the first block is left, and is selected once."""
        taken = np.ones(SIZE, bool)
        taken[[2 * CHUNK - 1, 2 * CHUNK, SIZE - 2, SIZE - 1]] = False
        latents = cloud("gaussian")
        rows = streaming.top_k(margin, Made(latents), taken, 4, block_bytes=BLOCK_BYTES)
        assert rows.tolist() == kernels.top_k(margin(latents), jnp.array(taken), 4).tolist()


LOWEST = np.finfo(np.float32).min
SCORES = {
    "infinite": np.float32([-np.inf, np.inf, 0, LOWEST]),
    "zeros": np.float32([-0.0, 0, -0.0, -1]),
    "float64": np.float64([0.25, -np.inf, 3, LOWEST]),
    "float16": np.float16([0.25, -np.inf, 3, 60_000]),
    "integers": np.int32([-3, 2**24, 0, 2**24]),
    "bytes": np.uint8([3, 255, 0, 254]),
    "marks": np.array([False, True, False, True]),
}


@pytest.mark.parametrize("pick", ["top_k", "random_partitions"])
class TestTypes:
    """Latents are the places of their scores in a table: blocks of any type come from a plain function."""

    @pytest.mark.parametrize("kind", SCORES)
    def test_scores_of_any_type_select_the_rows_of_the_kernel(self, monkeypatch, pick, kind):
        monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        places = np.arange(500) * 7 % 4
        source = Made(np.float32(places)[:, None])
        taken = np.arange(500) % 3 == 0
        key = [jax.random.key(0)] * (pick == "random_partitions")
        args = lambda latents: SCORES[kind][np.asarray(latents)[:, 0].astype(int)]  # noqa: E731
        rows = getattr(streaming, pick)(*key, args, source, taken, 200, block_bytes=4 * 70)
        assert rows.dtype == np.int64
        assert rows.tolist() == getattr(kernels, pick)(*key, SCORES[kind][places], taken, 200).tolist()

    @pytest.mark.parametrize("bad", [np.finfo(np.float64).min, 1e300])
    def test_scores_that_float32_does_not_hold_are_refused(self, monkeypatch, pick, bad):
        monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        key = [jax.random.key(0)] * (pick == "random_partitions")
        score = lambda latents: np.where(np.asarray(latents)[:, 0] == 80, bad, 0.5)  # noqa: E731
        source = Made(np.arange(100, dtype=np.float32)[:, None])
        with pytest.raises(BadInput, match="rows 70 to 99: scores has dtype float64 and values .* scale the values"):
            getattr(streaming, pick)(*key, score, source, np.zeros(100, bool), 3, block_bytes=4 * 70)

    def test_masks_of_zeros_and_ones(self, monkeypatch, pick):
        monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        key, taken = [jax.random.key(0)] * (pick == "random_partitions"), mark(400)
        select = lambda taken: getattr(streaming, pick)(*key, tied, Made(cloud("gaussian")), taken, 30)  # noqa: E731
        assert select(taken.astype(np.int64)).tolist() == select(taken).tolist()
        with pytest.raises(BadInput, match="taken has dtype int64 and values from 0 to 2; expected a mask, of"):
            select(2 * taken.astype(np.int64))


class TestRowNumbers:
    def test_are_int64(self):
        source, taken, key = Made(cloud("gaussian")), mark(10), jax.random.key(0)
        assert streaming.top_k(tied, source, taken, 3).dtype == np.int64
        assert streaming.random_partitions(key, tied, source, taken, 3).dtype == np.int64
        assert streaming.farthest_first(source, taken, 3).dtype == np.int64
        assert streaming.farthest_first(source, mark(0), 1, first=3).dtype == np.int64

    def test_beyond_int32(self, monkeypatch):
        """The last block of a source of more rows than int32 numbers."""
        first = 2**31 + 5
        block = stream.Block(first, first + 3, (jnp.array([[1.0], [3.0], [2.0]]),))
        monkeypatch.setattr(selection, "blocks", lambda source, block_bytes: [block])
        monkeypatch.setattr(selection, "check_open", lambda source, taken, num: taken)
        taken = np.broadcast_to(False, (first + 3,))
        rows = streaming.top_k(lambda latents: latents[:, 0], Made(cloud("gaussian")), taken, 2)
        assert rows.tolist() == [first + 1, first + 2]

    def test_that_a_kernel_cannot_give_are_refused(self):
        source = Made(cloud("gaussian"))
        source.num_rows = 2**31
        taken = np.broadcast_to(False, (2**31,))
        with pytest.raises(BadInput, match="the source has 2147483648 rows; expected at most 2147483647"):
            streaming.random_partitions(jax.random.key(0), tied, source, taken, 3)
        shape = jax.ShapeDtypeStruct((2**31,), jnp.float32)
        with pytest.raises(ValueError, match=r"scores has shape \(2147483648,\); expected at most 2147483647 rows"):
            jax.eval_shape(lambda scores: kernels.top_k(scores, scores > 0, 3), shape)


@pytest.mark.parametrize("num_taken, num", [(0, 7), (40, 100)])
def test_random_partitions_are_those_in_memory(source, num_taken, num):
    latents, taken, key = cloud("gaussian"), mark(num_taken), jax.random.key(3)
    rows = streaming.random_partitions(key, margin, source(latents), taken, num, block_bytes=BLOCK_BYTES)
    assert rows.tolist() == kernels.random_partitions(key, margin(latents), jnp.array(taken), num).tolist()


class TestFarthestFirst:
    @pytest.mark.parametrize(
        "kind, num_taken",
        [
            ("gaussian", 0),
            ("gaussian", 300),
            ("clusters", 1),
            ("duplicates", 0),
            ("near-duplicates", 1),
            ("lattice", 300),
            ("equal", 0),
        ],
    )
    def test_rows_are_those_in_memory(self, monkeypatch, kind, num_taken):
        monkeypatch.setattr(k_center, "CANDIDATES", 200)
        latents, taken = cloud(kind), mark(num_taken)
        rows = streaming.farthest_first(Made(latents), taken, 150, first=7, block_bytes=BLOCK_BYTES)
        assert rows.tolist() == kernels.farthest_first(jnp.array(latents), jnp.array(taken), 150, first=7).tolist()

    @pytest.mark.parametrize("num_taken", [0, 60])
    def test_of_latents_on_disk(self, monkeypatch, tmp_path, num_taken):
        monkeypatch.setattr(k_center, "CANDIDATES", 500)
        latents, taken = cloud("gaussian"), mark(num_taken)
        source = on_disk(tmp_path / "latents", latents)
        rows = streaming.farthest_first(source, taken, 150, block_bytes=BLOCK_BYTES)
        assert rows.tolist() == kernels.farthest_first(jnp.array(latents), jnp.array(taken), 150).tolist()

    def test_takes_few_passes(self, monkeypatch):
        monkeypatch.setattr(k_center, "CANDIDATES", 500)
        source = Made(cloud("gaussian"))
        streaming.farthest_first(source, mark(0), 150, block_bytes=BLOCK_BYTES)
        assert source.rows_read < 12 * SIZE

    @pytest.mark.parametrize("num_taken", [0, 200])
    def test_takes_all_that_is_left(self, num_taken):
        """More picks than are made at a time, and among them the last row of all."""
        latents, taken = cloud("gaussian", 400), mark(num_taken, 400)
        rows = streaming.farthest_first(Made(latents), taken, 400 - num_taken, block_bytes=2000)
        expected = kernels.farthest_first(jnp.array(latents), jnp.array(taken), 400 - num_taken)
        assert rows.tolist() == expected.tolist()

    @pytest.mark.parametrize("bad", [np.nan, np.inf, 2e19])
    def test_refuses_what_has_no_distance(self, bad):
        latents = cloud("gaussian")
        latents[[2000, 2100], 1] = bad
        with pytest.raises(BadInput, match="2 of rows 1400 to 2799 are NaN, .* first is row 2000"):
            streaming.farthest_first(Made(latents), mark(0), 3, block_bytes=BLOCK_BYTES)

    def test_refuses_a_first_that_is_no_row(self):
        with pytest.raises(BadInput, match="first is 5000; expected a row of the pool, 0 to 4999"):
            streaming.farthest_first(Made(cloud("gaussian")), mark(0), 1, first=SIZE)


class TestDensities:
    @pytest.mark.parametrize("far", [0, 3])
    @pytest.mark.parametrize(
        "name, num_sources, passes",
        [
            ("cosine_density", 1, 2),
            ("squared_euclidean_density", 1, 2),
            ("jeffreys_density", 2, 3),
            ("kl_to_prior", 2, 1),
            ("closeness_to_origin", 1, 1),
            ("squared_closeness_to_origin", 1, 1),
        ],
    )
    def test_equal_those_in_memory(self, name, num_sources, passes, far):
        latents = [far + cloud("clusters") / 20, cloud("gaussian") / 5][:num_sources]
        sources = [Made(each) for each in latents]
        values = getattr(streaming, name)(*sources, block_bytes=BLOCK_BYTES)
        expected = getattr(kernels, name)(*map(jnp.asarray, latents))
        np.testing.assert_allclose(values, expected, rtol=2e-6, atol=2e-6)
        nothing = jnp.array(mark(0))
        assert kernels.top_k(jnp.array(values), nothing, 9).tolist() == kernels.top_k(expected, nothing, 9).tolist()
        assert {source.rows_read // SIZE for source in sources} == {passes}

    def test_zeros_behind_the_last_row_need_no_value(self):
        with jax.debug_nans(True):
            values = streaming.cosine_density(Made(cloud("gaussian")), block_bytes=BLOCK_BYTES)
        assert np.isfinite(values).all()

    def test_refuse_rows_without_a_value(self):
        latents = cloud("gaussian")
        latents[1500, 2] = np.nan
        for name, num in (("cosine_density", 1), ("squared_euclidean_density", 1), ("kl_to_prior", 2)):
            with pytest.raises(BadInput, match="1 of rows 1400 to 2799 have no .* first is row 1500: NaN"):
                getattr(streaming, name)(*[Made(latents)] * num, block_bytes=BLOCK_BYTES)
        latents[1500] = 0
        with pytest.raises(BadInput, match="1 of rows 1400 to 2799 .* row 1500: .* zero without a direction"):
            streaming.cosine_density(Made(latents), block_bytes=BLOCK_BYTES)

    def test_refuse_rows_that_are_all_equal(self):
        equal = Made(cloud("equal"))
        for name, num in (("squared_euclidean_density", 1), ("jeffreys_density", 2)):
            with pytest.raises(BadInput, match="no representativeness: all rows are equal"):
                getattr(streaming, name)(*[equal] * num, block_bytes=BLOCK_BYTES)

    def test_refuse_means_and_spreads_of_other_rows(self):
        with pytest.raises(BadInput, match=r"the sources have \[5000, 4999\] rows"):
            streaming.jeffreys_density(Made(cloud("gaussian")), Made(cloud("gaussian", SIZE - 1)))

    @pytest.mark.parametrize("name", ["jeffreys_density", "kl_to_prior"])
    def test_refuse_means_and_spreads_of_other_widths(self, name):
        with pytest.raises(BadInput, match=f"mu has {WIDTH} dimensions and log_sigma 1; expected the same number"):
            getattr(streaming, name)(Made(cloud("gaussian")), Made(cloud("gaussian")[:, :1]))


@pytest.mark.parametrize(
    "taken, num, message",
    [
        (mark(0), 0, "num is 0; expected at least 1 and at most the 5000 rows left"),
        (mark(4998), 3, "num is 3; .* the 2 rows left of 5000"),
        (mark(0, 4), 1, r"taken has shape \(4,\); expected \(5000,\)"),
    ],
)
def test_too_many_picks_are_refused(taken, num, message):
    source = Made(cloud("gaussian"))
    with pytest.raises(BadInput, match=message):
        streaming.top_k(tied, source, taken, num)
    with pytest.raises(BadInput, match=message):
        streaming.farthest_first(source, taken, num)
    assert not source.rows_read


class TestBlocks:
    def test_read_the_next_while_one_is_computed(self):
        source = Made(cloud("gaussian"))
        seen = [(block.start, block.stop, source.rows_read) for block in streaming.blocks(source, block_bytes=40_000)]
        assert seen == [(0, 2000, 4000), (2000, 4000, SIZE), (4000, SIZE, SIZE)]

    def test_are_of_one_size_and_hold_all_rows(self, tmp_path):
        latents = cloud("gaussian")
        found = list(streaming.blocks(on_disk(tmp_path / "latents", latents), block_bytes=BLOCK_BYTES))
        assert {block.latents[0].shape for block in found} == {(2 * CHUNK, WIDTH)}
        held = np.concatenate([block.latents[0][: block.stop - block.start] for block in found])
        np.testing.assert_array_equal(held, latents)

    def test_smaller_than_a_chunk_are_refused(self, tmp_path):
        source = on_disk(tmp_path / "latents", cloud("gaussian"))
        with pytest.raises(BadInput, match="a chunk takes 14000 bytes but a block has only 13999; raise block_bytes"):
            next(streaming.blocks(source, block_bytes=13_999))

    @pytest.mark.parametrize("size, width", [(0, WIDTH), (SIZE, 0)])
    def test_of_nothing_are_refused(self, size, width):
        source = Made(np.zeros((size, width), np.float32))
        for function in (streaming.closeness_to_origin, streaming.squared_euclidean_density):
            with pytest.raises(BadInput, match=f"{size} rows and {width} dimensions; expected one or more of each"):
                function(source)

    def test_of_chunks_that_seldom_begin_together_are_refused(self):
        """They would hold the whole pool."""
        sources = [Made(cloud("gaussian")) for _ in range(2)]
        sources[0].chunk_rows, sources[1].chunk_rows = CHUNK, CHUNK - 1
        with pytest.raises(BadInput, match=r"of \[700, 699\] rows begin together every 489300 rows, .* 100000 b"):
            streaming.jeffreys_density(*sources, block_bytes=BLOCK_BYTES)
        sources[1].chunk_rows = CHUNK // 2
        assert streaming.jeffreys_density(*sources, block_bytes=BLOCK_BYTES).shape == (SIZE,)

    def test_are_smaller_where_little_memory_is_free(self, tmp_path, monkeypatch):
        monkeypatch.setattr(stream, "available_memory", lambda device: 40_000.0 * stream.SHARE)
        made = Made(cloud("gaussian"))
        assert {len(block.latents[0]) for block in streaming.blocks(made)} == {2**15 // (4 * WIDTH)}
        monkeypatch.setattr(stream, "available_memory", lambda device: 0.0)
        on_disk(tmp_path / "latents", cloud("gaussian"))
        source = streaming.open_latents(tmp_path / "latents", SIZE, WIDTH)
        assert {len(block.latents[0]) for block in streaming.blocks(source)} == {CHUNK}

    def test_that_are_not_as_promised_are_refused(self):
        source = Made(cloud("gaussian"))
        source.width = 4
        with pytest.raises(BadInput, match=r"rows 0 to 4999 came as float32 \[5000, 5\]; expected float32 \[5000, 4\]"):
            next(streaming.blocks(source, block_bytes=2**20))

    @pytest.mark.parametrize("dtype", ["uint8", "float16", "float64"])
    def test_of_another_type_are_refused(self, monkeypatch, dtype):
        monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        read = Made.read
        monkeypatch.setattr(Made, "read", lambda self, start, stop: Future(read(self, start, stop).result(), dtype))
        with pytest.raises(BadInput, match=rf"rows 0 to 4999 came as {dtype} .* expected float32 .*: convert them"):
            streaming.closeness_to_origin(Made(cloud("gaussian")))


class TestStore:
    def test_keeps_what_is_written(self, tmp_path):
        latents = cloud("gaussian")
        latents[:CHUNK] = 0
        on_disk(tmp_path / "latents", latents)
        source = streaming.open_latents(tmp_path / "latents", SIZE, WIDTH)
        assert (source.num_rows, source.width, source.chunk_rows) == (SIZE, WIDTH, CHUNK)
        np.testing.assert_array_equal(source.read(10, SIZE - 1).result(), latents[10:-1])

    def test_keeps_parts_that_are_overwritten(self, tmp_path):
        buffer = np.zeros((2, 3), np.float32)

        def parts():
            for number in range(4):
                buffer[:] = number
                yield buffer

        source = streaming.write_latents(tmp_path / "latents", parts(), 8, 3, chunk_bytes=12 * 5)
        assert source.read(0, 8).result()[:, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]

    @pytest.mark.parametrize("compressor", [[], [{"name": "gzip"}]])
    def test_opens_what_others_have_written(self, tmp_path, compressor):
        latents, path = cloud("gaussian"), tmp_path / "latents"
        metadata = {"codecs": [{"name": "bytes"}, *compressor]}
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}, "metadata": metadata}
        layout = ts.ChunkLayout(chunk_shape=[CHUNK, 2])
        ts.open(spec, create=True, dtype=ts.float32, shape=latents.shape, chunk_layout=layout).result()[:] = latents
        source = streaming.open_latents(path)
        np.testing.assert_array_equal(source.read(0, SIZE).result(), latents)
        file = path / "c/3/1"
        file.write_bytes(file.read_bytes()[:-20])
        with pytest.raises(BadInput, match="c/3/1"):
            streaming.open_latents(path).read(0, SIZE).result()

    @pytest.mark.parametrize(
        "num_rows, width, message",
        [
            (4999, 5, r"latents is float32 \[5000, 5\]; expected float32 \[4999, 5\]"),
            (None, 6, r"float32 \[5000, 5\]; expected float32 \[n, 6\].*streaming.write_latents"),
        ],
    )
    def test_of_another_shape_is_refused(self, tmp_path, num_rows, width, message):
        on_disk(tmp_path / "latents", cloud("gaussian"))
        with pytest.raises(BadInput, match=message):
            streaming.open_latents(tmp_path / "latents", num_rows, width)

    @pytest.mark.parametrize(
        "dtype, shape",
        [
            *[(dtype, [20, 5]) for dtype in ("float64", "float16", "uint8")],
            ("float32", [20, 5, 1]),
            ("float32", [0, 5]),
        ],
    )
    def test_of_another_type_or_rank_is_refused(self, tmp_path, dtype, shape):
        path = tmp_path / "latents"
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}
        ts.open(spec, create=True, dtype=dtype, shape=shape).result()
        with pytest.raises(
            BadInput, match=rf"{path} is {dtype} \[{', '.join(map(str, shape))}\]; expected float32 \[n"
        ):
            streaming.open_latents(path)

    def test_that_is_none_is_refused(self, tmp_path):
        with pytest.raises(BadInput, match=r"nothing is not a zarr 3 array: .* does not exist; .*write_latents"):
            streaming.open_latents(tmp_path / "nothing")
        path = tmp_path / "latents"
        on_disk(path, cloud("gaussian"))
        (path / "zarr.json").write_text("{")
        with pytest.raises(BadInput, match="is not a zarr 3 array: .*Invalid JSON"):
            streaming.open_latents(path)

    def test_without_a_chunk_is_refused(self, tmp_path):
        path = tmp_path / "latents"
        source = on_disk(path, cloud("gaussian"))
        shutil.rmtree(path / "c/3")
        with pytest.raises(BadInput, match=f"{path} lacks the chunk of rows 2100 to 2799; .* write it again"):
            streaming.open_latents(path)
        with pytest.raises(BadInput, match=f"{path} cannot be read: .*c/3/0.* is missing"):
            streaming.top_k(tied, source, mark(0), 1, block_bytes=BLOCK_BYTES)

    @pytest.mark.parametrize("kept", [0, 13_000])
    def test_with_a_chunk_cut_off_is_refused(self, tmp_path, kept):
        path = tmp_path / "latents"
        source = on_disk(path, cloud("gaussian"))
        file = path / "c/2/0"
        file.write_bytes(file.read_bytes()[:kept])
        with pytest.raises(BadInput, match=f"chunk c/2/0 of {path} has {kept} bytes; expected 14004: it was cut off"):
            streaming.open_latents(path)
        with pytest.raises(BadInput, match=f"{path} cannot be read: .*c/2/0"):
            streaming.farthest_first(source, mark(0), 2, block_bytes=BLOCK_BYTES)

    def test_with_a_bit_turned_is_refused_as_it_is_read(self, tmp_path):
        path = tmp_path / "latents"
        source = on_disk(path, cloud("gaussian"))
        data = bytearray((path / "c/2/0").read_bytes())
        data[100] ^= 1
        (path / "c/2/0").write_bytes(data)
        with pytest.raises(BadInput, match="c/2/0.*Digest mismatch"):
            streaming.top_k(tied, source, mark(0), 1, block_bytes=BLOCK_BYTES)

    @pytest.mark.parametrize(
        "parts, message",
        [
            ([np.zeros((4, 3), np.float32)], "only 4 of the 8 rows of .* came"),
            ([np.zeros((7, 3), np.float32)], "only 7 of the 8 rows of .* came"),
            ([np.zeros((4, 3), np.float32)] * 3, "more rows came than the 8 that"),
            ([np.zeros((8, 2), np.float32)], r"is float32 \[8, 2\]; expected float32 \[rows, 3\]"),
            ([np.zeros((8, 3))], r"is float64 \[8, 3\]"),
        ],
    )
    def test_is_not_opened_where_it_was_not_written_whole(self, tmp_path, parts, message):
        path = tmp_path / "latents"
        with pytest.raises(BadInput, match=message):
            streaming.write_latents(path, parts, 8, 3, chunk_bytes=24)
        with pytest.raises(BadInput, match="lacks the chunk of rows|is not a zarr 3 array"):
            streaming.open_latents(path)

    def test_is_not_written_over(self, tmp_path):
        on_disk(tmp_path / "latents", cloud("gaussian"))
        with pytest.raises(BadInput, match="latents exists already; remove it"):
            on_disk(tmp_path / "latents", cloud("equal"))
        with pytest.raises(BadInput, match="latents of 0 rows and 3 dimensions"):
            streaming.write_latents(tmp_path / "none", [], 0, 3)
