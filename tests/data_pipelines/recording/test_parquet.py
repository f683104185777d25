"""Rows of Parquet files come back exactly, over the borders of row groups; what is no such file is named."""

import numpy as np
import pytest

pa = pytest.importorskip("pyarrow")
from pyarrow import parquet  # noqa: E402

from data_pipelines.recording.parquet import ParquetFile  # noqa: E402

ROWS = 23
VECTORS = np.arange(2.0 * ROWS).reshape(ROWS, 2)


@pytest.fixture
def path(tmp_path):
    columns = {
        "index": np.arange(ROWS),
        "vector": list(VECTORS),
        "bytes": [bytes([i]) for i in range(ROWS)],
        "ragged": [[1.0] * (1 + i % 2) for i in range(ROWS)],
        "holes": [None if i == 3 else 1.0 for i in range(ROWS)],
    }
    parquet.write_table(pa.table(columns), tmp_path / "a.parquet", row_group_size=5)
    return tmp_path / "a.parquet"


@pytest.mark.parametrize(("start", "count"), [(0, ROWS), (4, 2), (5, 5), (22, 1), (3, 17)])
def test_rows_come_back(path, start, count):
    file = ParquetFile(path)
    assert file.rows == ROWS and file.columns == ("index", "vector", "bytes", "ragged", "holes")
    numbers = file.numbers(start, count, ["index", "vector"])
    np.testing.assert_array_equal(numbers["index"][:, 0], np.arange(start, start + count))
    np.testing.assert_array_equal(numbers["vector"], VECTORS[start : start + count])
    assert list(file.objects(start, count, "bytes")) == [bytes([i]) for i in range(start, start + count)]
    assert [row["index"] for row in file.values(["index"])] == list(range(ROWS))


def test_what_is_wrong_is_named(path, tmp_path):
    file = ParquetFile(path)
    with pytest.raises(ValueError, match="has 23 rows; needed rows 20 to 23"):
        file.numbers(20, 4, ["index"])
    with pytest.raises(ValueError, match="has no column nothing; it has index"):
        file.values(["nothing"])
    for column, message in (("ragged", "lists of several lengths"), ("holes", "empty rows"), ("bytes", "needed numbers")):
        with pytest.raises(ValueError, match=rf"a\.parquet: .*{message}"):
            file.numbers(0, ROWS, [column])
    (tmp_path / "b.parquet").write_bytes(b"no parquet")
    with pytest.raises(ValueError, match=r"b\.parquet: is no Parquet file"):
        ParquetFile(tmp_path / "b.parquet")
    with pytest.raises(FileNotFoundError, match=r"c\.parquet: no such file"):
        ParquetFile(tmp_path / "c.parquet")
