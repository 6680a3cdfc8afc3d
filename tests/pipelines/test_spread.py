"""What is far away from what was learned from is cut off aloud, and moves nothing else."""

import json

import numpy as np
import pytest

from handful.cells import LARGEST
from handful.errors import DataError
from handful.pipelines.arrays import ArrayPipeline
from handful.pipelines.own_tables import ManyTablesPipeline
from handful.pipelines.rows import TablePipeline
from handful.pipelines.spread import DEVIATIONS, FAR, Spread
from handful.table import Table
from handful.tasks.opening import open_tasks
from noted import noted, nothing_noted
from tables import read_table

NORMAL = np.random.default_rng(0).normal(50, 3, 1000)


def of(values) -> Spread:
    return Spread.of(np.asarray(values, dtype=np.float64).reshape(-1, 1))


def test_a_normal_column_has_a_deviation_of_1_whatever_else_is_in_it():
    for values in (NORMAL, np.append(NORMAL, [9.9e29] * 5)):
        spread = of(values)
        assert spread.width[0] == pytest.approx(3 * DEVIATIONS, rel=0.1)
        scaled, far = spread.scaled(values.reshape(-1, 1))
        assert scaled[:1000].std() == pytest.approx(1, rel=0.1)
        assert abs(scaled[:1000].mean()) < 0.1
        assert far == len(values) - 1000
        assert scaled.max() == pytest.approx(FAR * DEVIATIONS if far else 3.2, rel=0.1)


@pytest.mark.parametrize(
    ("values", "width", "clipped"),
    [
        ([*range(101)], 98, True),
        ([0] * 995 + [1, 2, 3, 4, 5], 5, True),  # the middle is constant: all values count
        ([7] * 50, 0, False),
        ([0.1 + 0.2] * 9 + [0.3], 0, False),  # a rounding error is no width
        ([0] * 995 + [1000] * 5, 1000, False),
        ([3, 4] * 10, 1, False),
        ([5], 0, False),
        ([np.nan, 5, np.nan, 9], 4 * 0.98, False),
    ],
)
def test_the_width_is_of_the_middle_or_else_of_all_values(values, width, clipped):
    spread = of(values)
    assert spread.width[0] == pytest.approx(width)
    assert spread.clipped[0] == clipped
    value = spread.median[0] + 1e9
    scaled, far = spread.scaled(np.array([[value]]))
    scale = spread.width[0] / DEVIATIONS or 1
    assert scaled[0, 0] == pytest.approx(FAR * DEVIATIONS if clipped else 1e9 / scale)
    assert far == clipped


def table_of(values, labels=None) -> Table:
    return Table.of(
        [
            {"x": x, "flag": i % 2, "y": label}
            for i, (x, label) in enumerate(zip(values, labels or values, strict=True))
        ],
        [],
    )


def test_a_far_value_counts_as_so_far_with_a_note_in_a_table(tmp_path):
    """Among the rows that are learned from, and in a query; a column of two values has no far ones."""
    rows = table_of(NORMAL)
    pipeline = TablePipeline.fit(rows, np.arange(1000), target="y")
    pipeline = TablePipeline.from_config(json.loads(json.dumps(pipeline.config())))
    query = [{"x": x, "flag": flag} for x, flag in ((1e20, 1e20), (-1e6, 0), (50, 1))]
    with noted("Values of the column 'x' are clipped at 20 times") as notes:
        inputs = pipeline.encode(query)
    assert [note.count for note in notes] == [2]
    assert inputs[:, 1].tolist() == pytest.approx([FAR * DEVIATIONS, -FAR * DEVIATIONS, inputs[2, 1].item()])
    assert inputs[0, 0] > 1e19
    with nothing_noted():
        pipeline.encode(query[2:])
    poisoned = table_of([*NORMAL, 9e29])
    with noted("Values of the column 'x'") as notes:
        again = TablePipeline.fit(poisoned, np.arange(1001), target="y").encode(poisoned)
    assert [note.count for note in notes] == [1]
    assert again[:1000, 1].std() == pytest.approx(1, rel=0.1)


def test_a_far_target_is_noted_but_neither_clipped_nor_counted_in_the_scale():
    plain, poisoned = [*NORMAL, 1.0], [*NORMAL, 1e15]
    rows = np.arange(1001)
    fitted = ArrayPipeline.fit(np.zeros((1001, 1)), rows, targets=np.stack([poisoned, plain], 1))
    mean, scale = NORMAL.mean(), NORMAL.std()
    assert (fitted.target_mean[0].item(), fitted.target_scale[0].item()) == pytest.approx((mean, scale))
    with nothing_noted():
        fitted.scaled(np.stack([plain, plain], 1))
    with noted(r"Targets such as 1e\+15 are more than 50 standard deviations from the mean of the training") as notes:
        scaled = fitted.scaled(np.stack([poisoned, plain], 1))
    assert [note.count for note in notes] == [1]
    assert fitted.unscaled(scaled)[-1].tolist() == pytest.approx([1e15, 1.0])


@pytest.mark.parametrize("shape", [(1000, 1), (250, 2, 2), (1000,)])
def test_a_far_value_counts_as_so_far_with_a_note_in_arrays(shape):
    inputs = NORMAL.copy().reshape(shape)
    pipeline = ArrayPipeline.fit(inputs, np.arange(len(inputs)))
    inputs.flat[5:7] = 1e25
    with noted("Values of 'inputs'") as notes:
        encoded = pipeline.encode(inputs).flatten()
    assert [note.count for note in notes] == [2]
    assert encoded[5:7].tolist() == pytest.approx([FAR * DEVIATIONS] * 2)


@pytest.mark.parametrize("cell", ["9.96921e36", "-2e30", "1e400", "1e39"])
def test_a_cell_beyond_the_largest_number_is_named(cell, tmp_path):
    """As an input, as the target, in what orders, wherever a number is read; in training, examples and queries."""
    path = tmp_path / "t.csv"
    path.write_text(f"shop,x,y\na,1,2\na,{cell},3\nb,4,5\nc,1,2\n")
    place = r"t\.csv: column 'x', row 2 below the header: '.*' is (beyond 1e30|not a finite number)"
    for options in ({"target": "y"}, {"target": "x"}, {"target": "y", "order": "x"}):
        with pytest.raises(DataError, match=place):
            open_tasks(path, task="shop", **options)
    pipeline = TablePipeline.fit(table_of(NORMAL), np.arange(1000), target="y")
    for rows in ([{"x": float(cell), "flag": 1}], np.array([[float(cell), 1]])):
        with pytest.raises(DataError, match=r"column 'x', row 1: .* is (beyond 1e30|not a finite number)"):
            pipeline.encode(rows)
    with pytest.raises(DataError, match=r"row 2: .* is (beyond 1e30|not a finite number)"):
        pipeline.encode_labels([1.0, float(cell)])
    with pytest.raises(DataError, match="column 'x', row 2"):
        ManyTablesPipeline(width=4, target="y").of_task(read_table(path))


def test_a_number_beyond_the_largest_is_named_in_arrays(tmp_path):
    inputs = np.ones((20, 3), np.float32)
    inputs[4, 2] = 9.96921e36
    with pytest.raises(DataError, match=r"'inputs', row 5, column 3: 9\.96921e\+36 is beyond 1e30"):
        ArrayPipeline.fit(inputs, np.arange(20))
    np.savez(tmp_path / "t.npz", inputs=np.ones((20, 3)), targets=inputs[:, 2], task=np.arange(20) // 5)
    with pytest.raises(DataError, match=r"t\.npz: 'targets', row 5: .* is beyond 1e30"):
        open_tasks(tmp_path / "t.npz")
    inputs[4, 2] = LARGEST
    pipeline = ArrayPipeline.fit(inputs, np.arange(20))
    assert pipeline.encode(inputs).isfinite().all()


def test_a_table_of_its_own_is_read_likewise():
    rows = table_of([*NORMAL[:300], 1e25], [*NORMAL[:300], 1.0])
    with noted("Values of the column 'x'"):
        own = ManyTablesPipeline(width=4, target="y").of_task(rows)
    with noted("Values of the column 'x'"):
        inputs = own.encode(rows)
    assert inputs[:300].std(0).max() > 0.5, "the far value has not flattened the others"
