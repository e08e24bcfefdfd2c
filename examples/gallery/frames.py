"""SQL and polars over what comes back: Arrow tables are theirs without a copy."""

from typing import Any

import duckdb
import h5flight
import polars as pl
from recording import ANIMAL, EXPERIMENT


def main(client: h5flight.Client) -> tuple[list[Any], pl.DataFrame]:
    units = client.table(ANIMAL, EXPERIMENT, "units", ["id", "quality", "spike_times"])
    rates = duckdb.sql(
        "SELECT quality, count(*) AS units, round(avg(len(spike_times)) / 120, 1) AS hz"
        " FROM units GROUP BY quality ORDER BY quality"
    ).fetchall()
    trials = pl.from_arrow(client.table(ANIMAL, EXPERIMENT, "intervals/trials"))
    outcomes = trials.group_by("outcome").agg(pl.len().alias("trials")).sort("outcome")
    print(rates, outcomes, f"{units.num_rows} units", sep="\n")
    return rates, outcomes


if __name__ == "__main__":
    with h5flight.connect() as client:
        main(client)
