"""Shops, schools and tables, and what they are scored by."""

from typing import Any, NamedTuple

import torch

from handful.tasks.distribution import TaskDistribution

SHOT = 10
"""Rows that each test task learns from."""


class Table(NamedTuple):
    """A file, and what its columns are."""

    path: str
    columns: dict[str, Any]


TABLES = {
    "used_cars": Table("used_cars/used_cars.parquet", {"task": "task", "target": "price", "drop": ["make", "model"]}),
    "hotel_prices": Table(
        "hotel_prices/hotel_prices.parquet", {"task": "task", "target": "adr", "drop": ["agent", "hotel"]}
    ),
    "bayesm_cheese": Table("bayesm_cheese/cheese.parquet", {"task": "RETAILER", "target": "VOLUME"}),
    "avocado": Table(
        "avocado/avocado.parquet", {"task": "region", "target": "AveragePrice", "drop": ["X1", "Date", "Date2"]}
    ),
    "schools": Table("schools/hsb82.parquet", {"task": "school", "target": "mAch"}),
}


def variance(test: TaskDistribution) -> float:
    """Of the test rows, in the units of the errors."""
    assert test.units is not None
    rows = torch.cat([test.task(index).query.targets for index in range(test.units)])
    return float((rows * test.target_scale).var())
