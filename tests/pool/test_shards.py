"""Records in Parquet and tar files: the same records, only the bytes that are needed, and every one of them billed."""

from __future__ import annotations

import multiprocessing
import pickle
import shutil
import sys
import tarfile
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from al_lightning import score
from al_lightning.candidates import ShardShare
from al_lightning.errors import DamagedShard, MissingExtra, PoolChanged
from al_lightning.fit import meter
from al_lightning.pool.byte_count import ByteCount
from al_lightning.query import Margin
from al_lightning.run.store import read_run
from al_lightning.shards import ParquetShards, TarShards
from tests.helpers import blobs, learner, net, pool_of, quiet
from tests.resume.test_goes_on import Stopped, stop_after
from tests.resume.test_lost_work import Breaks
from tests.shards import (
    FORMATS,
    from_members,
    from_row,
    noted,
    parquet_files,
    rows_of,
    shards_in,
    tar_files,
    write_parquet,
    write_tar,
)


@pytest.fixture(params=list(FORMATS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def in_memory(shards: Any) -> Any:
    """The same records in the same shards, without files."""
    data = blobs(len(shards))
    data.shard_of = shards.shard_of
    return data


def same(item: Any, other: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(item, other, strict=True))


# ---- what is read -----------------------------------------------------------------------------------------------


def test_records_are_those_that_were_written_in_any_order(kind, tmp_path):
    data, expected = shards_in(tmp_path, kind, 60), blobs(60)
    assert len(data) == 60
    ids = np.random.default_rng(0).integers(60, size=90).tolist()
    assert all(same(item, expected[i]) for i, item in zip(ids, data.__getitems__(ids), strict=True))
    assert same(data[59], expected[59])
    for id in (-1, 60):
        with pytest.raises(IndexError, match=f"id {id}; allowed: 0 to 59"):
            data[id]


def test_shards_are_what_is_read_as_one(tmp_path):
    parquet = ParquetShards(parquet_files(tmp_path, 60, files=3, group=8), from_row)
    assert np.bincount(parquet.shard_of).tolist() == [8, 8, 4] * 3
    assert np.bincount(TarShards(tar_files(tmp_path, 60, files=4), from_members).shard_of).tolist() == [15] * 4


def bytes_of(data: Any, ids: np.ndarray) -> tuple[float, np.ndarray]:
    """Share of all bytes that scoring these ids reads, and the scores."""
    pool = pool_of(data, val=None)
    pool.candidates, before, noted_before = ids, pool.bytes_read, noted(data.notes)
    found = score(quiet(), net(), pool, Margin())
    assert pool.bytes_read - before == noted(data.notes) - noted_before
    return (pool.bytes_read - before) / data.nbytes.sum(), found.arrays["score"]


def test_five_percent_of_the_ids_by_shards_are_five_percent_of_the_bytes(tmp_path):
    data = shards_in(tmp_path, "parquet", 2000, files=2, group=50)
    view = pool_of(data, val=None).view()
    ids, _ = ShardShare(0.05).propose(view=view, size=10, rng=np.random.default_rng(0), state={})
    assert len(ids) == 100
    share, scores = bytes_of(data, ids)
    assert 0.05 <= share < 0.08
    expected = pool_of(blobs(2000), val=None)
    expected.candidates = ids
    np.testing.assert_array_equal(scores, score(quiet(), net(), expected, Margin()).arrays["score"])
    # The same number of ids at random lie in nearly all row groups.
    fresh = pickle.loads(pickle.dumps(data))
    assert bytes_of(fresh, np.sort(np.random.default_rng(0).choice(2000, 100, replace=False)))[0] > 0.85


def test_of_a_tar_file_only_the_records_are_read(tmp_path):
    data = shards_in(tmp_path, "tar", 600, files=3)
    assert bytes_of(data, np.sort(np.random.default_rng(0).choice(600, 30, replace=False)))[0] == pytest.approx(0.05)


def test_columns_that_are_not_asked_for_are_not_read(tmp_path):
    paths = parquet_files(tmp_path, 60)
    whole, few = ParquetShards(paths, from_row), ParquetShards(paths, from_row, columns=["x", "y"])
    assert same(whole[13], few[13])
    opened = [data.bytes_read for data in (whole, few)]  # the footer, too
    assert same(whole[3], few[3])
    read = [data.bytes_read - before for data, before in zip((whole, few), opened, strict=True)]
    assert read[1] < read[0] / 4
    assert few.nbytes.sum() < whole.nbytes.sum() / 4
    with pytest.raises(DamagedShard, match=r"0\.parquet has no column label; it has x, y, pad"):
        ParquetShards(paths, from_row, columns=["x", "label"])


def test_row_groups_are_kept_as_far_as_memory_is_given(tmp_path):
    paths = parquet_files(tmp_path, 60, files=1, group=10)
    for cache, again in ((1 << 28, 0), (0, 5)):
        data = ParquetShards(paths, from_row, cache_bytes=cache)
        data.__getitems__(range(60))
        before = data.bytes_read
        data.__getitems__(range(50))
        assert data.bytes_read - before == data.nbytes[:again].sum()


def test_an_index_is_made_once_by_the_headers_alone(tmp_path):
    paths = tar_files(tmp_path, 60, files=2)
    first = TarShards(paths, from_members)
    assert 0 < first.bytes_read < 0.75 * first.nbytes.sum()  # three headers, and as many again to check them, a record
    second = TarShards(paths, from_members)
    assert second.bytes_read == 0
    assert same(second[59], blobs(60)[59])
    kept = paths[0].with_name("00.tar.index.npz")
    whole = kept.read_bytes()
    for damaged in (b"PK", whole[:-40], b""):
        kept.write_bytes(damaged)
        assert len(TarShards(paths, from_members)) == 60
        assert kept.read_bytes() == whole


def test_an_index_can_be_kept_elsewhere(tmp_path):
    paths = tar_files(tmp_path, 20, files=2)
    (tmp_path / "a file").touch()
    with pytest.raises(DamagedShard, match=r"index of .*00\.tar cannot be kept.*TarShards\(index_dir=\.\.\.\)"):
        TarShards(paths, from_members, index_dir=tmp_path / "a file")
    TarShards(paths, from_members, index_dir=tmp_path / "indexes")
    assert len(list((tmp_path / "indexes").iterdir())) == 2
    assert not list(tmp_path.glob("*.npz"))


# ---- in other processes -----------------------------------------------------------------------------------------


def test_nothing_is_open_in_a_pickle_and_its_count_is_its_own(kind, tmp_path):
    data = shards_in(tmp_path, kind, 60)
    assert same(data[7], blobs(60)[7])
    packed = pickle.dumps(data)
    assert len(packed) < 10_000
    other = pickle.loads(packed)
    assert other.bytes_read == 0
    assert same(other[7], blobs(60)[7])
    assert other.bytes_read > 0


def test_what_workers_of_a_loader_read_is_counted(kind, tmp_path):
    data = shards_in(tmp_path, kind, 60)
    data[0]  # what is open in this process is of no harm to them
    loader = DataLoader(data, batch_size=4, num_workers=2)
    for _ in range(2):
        assert torch.equal(torch.cat([x for x, _ in loader]), blobs(60).tensors[0])
    assert data.bytes_read == noted(data.notes) > 2 * data.nbytes.sum()


@pytest.mark.slow
def test_also_of_workers_that_are_spawned(tmp_path):
    data = shards_in(tmp_path, "parquet", 60)
    before = data.bytes_read
    assert len(list(DataLoader(data, batch_size=20, num_workers=1, multiprocessing_context="spawn"))) == 3
    assert data.bytes_read == noted(data.notes) > before + data.nbytes.sum()


def test_a_row_group_that_several_workers_meet_in_is_billed_as_often_as_it_is_read(tmp_path):
    data = shards_in(tmp_path, "parquet", 60, files=1, group=60)
    before = data.bytes_read
    list(DataLoader(data, batch_size=10, num_workers=2))
    assert 2 <= (data.bytes_read - before) / data.nbytes.sum() < 2.2


def _count(count: ByteCount, each: int) -> None:
    for _ in range(200):
        count.add(each)


def test_processes_that_count_at_once_lose_nothing():
    count, context = ByteCount(), multiprocessing.get_context("fork")
    for _ in range(2):
        workers = [context.Process(target=_count, args=(count, each)) for each in (1, 10, 100)]
        for worker in workers:
            worker.start()
        _count(count, 1000)
        for worker in workers:
            worker.join()
    assert count.total == 2 * 200 * 1111
    assert count.total == 2 * 200 * 1111  # asking changes nothing
    assert not list(count._folder.iterdir())


# ---- on the bill ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loader", [{}, {"num_workers": 2}], ids=["one process", "workers"])
def test_a_run_labels_the_same_records_and_bills_the_bytes_it_read(kind, loader, tmp_path):
    data = shards_in(tmp_path / "shards", kind)
    pool = pool_of(data, loader=loader)
    before = noted(data.notes)
    parts = {"candidates": ShardShare(0.1), "stop_set": 6}
    logger = CSVLogger(tmp_path / "csv")
    found = learner(tmp_path / "run", quiet(logger=logger), **parts).fit(net(), datamodule=pool)
    plain = learner(tmp_path / "plain", **parts).fit(net(), datamodule=pool_of(in_memory(data)))
    assert found.labelled.tolist() == plain.labelled.tolist()
    assert found.bill.bytes == noted(data.notes) - before
    assert found.bill.lines["score"].bytes > 0
    assert found.bill.lines["train"].bytes > 0
    assert sum(entry.bytes for entry in read_run(tmp_path / "run").entries) == found.bill.bytes
    assert f"{found.bill.lines['score'].bytes:,}" in str(found.bill)
    assert found.bill.to_json()["bytes"] == found.bill.bytes
    assert found.history[-1].cost["bytes"] == found.bill.bytes
    assert "al/bytes" in next((tmp_path / "csv").glob("**/metrics.csv")).read_text()
    # A dataset that counts nothing has no such column.
    assert plain.bill.bytes == 0
    assert "bytes" not in str(plain.bill)
    assert "bytes" not in plain.history[-1].cost


def test_beginning_a_run_reads_no_records(kind, tmp_path):
    data = shards_in(tmp_path / "shards", kind)
    pool = pool_of(data)
    before = pool.bytes_read
    pool.check_fingerprint(pool.take_fingerprint())
    assert pool.bytes_read == before


def test_a_run_that_is_stopped_keeps_the_bytes_on_its_bill(kind, tmp_path):
    parts: dict[str, Any] = {"candidates": ShardShare(0.1)}
    whole = learner(tmp_path / "whole", **parts).fit(net(), datamodule=pool_of(shards_in(tmp_path / "a", kind)))
    data, read = shards_in(tmp_path / "b", kind), 0
    for stop in (1, 2, None):
        pool = pool_of(pickle.loads(pickle.dumps(data)))  # another process has nothing open yet
        before = noted(data.notes)
        made = learner(tmp_path / "run", on_round=stop_after(stop) if stop else None, **parts)
        if stop:
            with pytest.raises(Stopped):
                made.fit(net(), datamodule=pool)
        else:
            result = made.fit(net(), datamodule=pool)
        read += noted(data.notes) - before
    assert result.labelled.tolist() == whole.labelled.tolist()
    assert result.bill.bytes == read


def test_bytes_of_a_fit_that_was_killed_stay_on_the_bill(tmp_path, monkeypatch):
    monkeypatch.setattr(meter, "NOTE_SECONDS", 0.0)
    data = shards_in(tmp_path / "shards", "tar")
    pool, before = pool_of(data), noted(data.notes)
    model = Breaks()
    model.load_state_dict(net().state_dict())
    with pytest.raises(RuntimeError, match="taken away"):
        learner(tmp_path / "run", candidates=ShardShare(0.1)).fit(model, datamodule=pool)
    read = noted(data.notes) - before
    pool = pool_of(data)
    before = noted(data.notes)
    model.fits = 10
    result = learner(tmp_path / "run", candidates=ShardShare(0.1)).fit(model, datamodule=pool)
    read += noted(data.notes) - before
    assert result.bill.lines["lost"].bytes > 0
    lost = read - result.bill.bytes  # what was read after the last note, about a batch ahead
    assert 0 <= lost <= 20 * data.nbytes.sum() / 600


# ---- what can be wrong ------------------------------------------------------------------------------------------


def test_a_shard_that_is_missing_is_named(kind, tmp_path):
    data = shards_in(tmp_path / "shards", kind, 60)
    gone = data.paths[1]
    other = pickle.loads(pickle.dumps(data))
    gone.unlink()
    at = int(np.flatnonzero(other._file_of[other.shard_of] == 1)[0])
    with pytest.raises(DamagedShard, match=rf"{gone.name} cannot be opened: No such file.*mount the storage"):
        other[at]
    with pytest.raises(DamagedShard, match=gone.name):
        FORMATS[kind][1](data.notes, data.paths)
    with pytest.raises(DamagedShard, match="no shard is given"):
        FORMATS[kind][1](data.notes, [])


def rewrite(path: Any, rows: Any) -> None:
    write_parquet(path, rows, group=10) if path.suffix == ".parquet" else write_tar(path, rows)


def test_a_shard_that_has_changed_is_named(kind, tmp_path):
    data = shards_in(tmp_path / "shards", kind, 60)
    each = 60 // len(data.paths)
    rewrite(data.paths[0], rows_of(each + 1))
    with pytest.raises(DamagedShard, match=rf"{data.paths[0].name} has changed since it was indexed.*bring the file"):
        data[0]


def test_in_a_loaders_worker_and_in_a_run_the_error_is_the_same(kind, tmp_path):
    data = shards_in(tmp_path / "shards", kind, 60)
    pool = pool_of(data, loader={"num_workers": 1})
    shard = pickle.loads(pickle.dumps(data)).paths[-1]
    data._opened.clear()
    shard.unlink()
    with pytest.raises(DamagedShard, match=f"{shard.name} cannot be opened"):
        learner(tmp_path / "run").fit(net(), datamodule=pool)


def test_a_run_refuses_other_shards_and_welcomes_more(kind, tmp_path):
    data = shards_in(tmp_path / "shards", kind)
    with pytest.raises(Stopped):
        learner(tmp_path / "run", on_round=stop_after(1)).fit(net(), datamodule=pool_of(data))
    turned = FORMATS[kind][1](data.notes, data.paths[::-1])
    with pytest.raises(PoolChanged, match="reordered"):
        learner(tmp_path / "run").fit(net(), datamodule=pool_of(turned))
    more = tmp_path / f"more{data.paths[0].suffix}"
    rewrite(more, rows_of(20, start=600))
    longer = FORMATS[kind][1](data.notes, [*data.paths, more])
    result = learner(tmp_path / "run", on_round=None).fit(net(), datamodule=pool_of(longer))
    assert len(result.labelled) == 24


def test_a_record_that_makes_no_item_is_named(kind, tmp_path):
    data = shards_in(tmp_path, kind, 60)
    data.to_record = lambda row: row["label"]
    with pytest.raises(DamagedShard, match=r"record with id 42: to_record fails on it: KeyError: 'label'.*holds .*pad"):
        data[42]


def test_a_row_group_that_is_damaged_is_named(tmp_path):
    path = parquet_files(tmp_path, 60, files=1, group=20)[0]
    data = ParquetShards([path], from_row, columns=["x"])
    raw = bytearray(path.read_bytes())
    raw[4 : 4 + int(data.nbytes[0])] = b"\xff" * int(data.nbytes[0])
    path.write_bytes(raw)
    with pytest.raises(DamagedShard, match=r"0\.parquet: row group 0 \(ids 0 to 19\) cannot be read"):
        data[3]


@pytest.mark.parametrize("keep", [3, 100, -4])
def test_a_parquet_file_that_is_cut_off_is_named(tmp_path, keep):
    path = parquet_files(tmp_path, 20, files=1)[0]
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DamagedShard, match=r"0\.parquet is no Parquet file, or not all of it is there"):
        ParquetShards([path], from_row)


def test_a_member_that_is_damaged_is_named(tmp_path):
    path = tar_files(tmp_path, 20, files=1)[0]
    data = TarShards([path], from_members)
    data[0]  # it is open while it is written over
    with path.open("r+b") as file:
        file.seek(int(data._opened[0][1].offsets[3]) - 512)
        file.write(b"other")
    with pytest.raises(DamagedShard, match=r"00\.tar: member images/000001\.x is not what was indexed"):
        data[1]
    assert same(data[2], blobs(20)[2])


def test_a_tar_file_that_is_none_is_named(tmp_path):
    path = tar_files(tmp_path, 20, files=1)[0]
    whole = path.read_bytes()
    header = len(whole) // 2 // 512 * 512
    while whole[header + 257 : header + 262] != b"ustar":
        header += 512
    path.write_bytes(whole[:header] + b"\xff" * 512 + whole[header + 512 :])
    with pytest.raises(DamagedShard, match=rf"00\.tar is damaged at byte {header}, where a header"):
        TarShards([path], from_members)
    path.write_bytes(whole[: header + 512 + 100])
    with pytest.raises(DamagedShard, match=r"00\.tar is no tar file, or not all of it is there"):
        TarShards([path], from_members)
    packed = shutil.make_archive(str(tmp_path / "packed"), "gztar", tmp_path, "00.tar")
    with pytest.raises(DamagedShard, match=r"packed\.tar\.gz is no tar file.*unpack it to \.tar"):
        TarShards([packed], from_members)


def test_a_member_that_is_there_twice_is_named(tmp_path):
    path = tmp_path / "a.tar"
    write_tar(path, rows_of(1))
    with tarfile.open(path, "a") as tar:
        tar.add(__file__, "images/000000.pad")
    with pytest.raises(DamagedShard, match=r"a\.tar: images/000000\.pad is in it twice"):
        TarShards([path], from_members)


def test_what_is_not_a_record_is_passed_over(tmp_path):
    path = tmp_path / "a.tar"
    (tmp_path / "readme").touch()
    with tarfile.open(path, "w") as tar:
        tar.add(tmp_path / "readme", "README")
        tar.add(tmp_path / "readme", "__meta__.json")
        tar.add(tmp_path / "readme", "images/.hidden")
        tar.add(tmp_path / "readme", "images", recursive=False)
        for name in ("images/7.left.PNG", "images/7.right.png", "other/7.png"):
            tar.add(tmp_path / "readme", name)
    data = TarShards([path], dict)
    assert [data[i] for i in range(len(data))] == [
        {"__key__": "images/7", "left.png": b"", "right.png": b""},
        {"__key__": "other/7", "png": b""},
    ]


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtra, match=r"pip install 'al_lightning\[parquet\]'"):
        ParquetShards([tmp_path / "0.parquet"], from_row)
