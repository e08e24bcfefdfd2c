"""Spikes of the good units around each flash: a raster of one, and the rates of all (PSTH)."""

from pathlib import Path

import h5flight
import matplotlib.pyplot as plt
import numpy as np
from recording import ANIMAL, EXPERIMENT, FLASH_S

BIN_S = 0.02
EDGES = np.linspace(-0.4, 1.0, 71)


def main(client: h5flight.Client, out: Path) -> np.ndarray:
    trials = client.table(ANIMAL, EXPERIMENT, "intervals/trials", ["start_time"])
    units = client.table(ANIMAL, EXPERIMENT, "units", ["id", "spike_times"], "quality = 'good'")
    flashes = trials["start_time"].to_numpy() + FLASH_S
    aligned = [[around(spikes.values.to_numpy(), flash) for flash in flashes] for spikes in units["spike_times"]]
    counts = np.array([np.histogram(np.concatenate(trials), EDGES)[0] for trials in aligned])
    rates = counts / (len(flashes) * BIN_S)

    figure, (raster, psth) = plt.subplots(2, 1, figsize=(7, 5), sharex=True, layout="constrained")
    raster.eventplot(aligned[0], colors="black", linelengths=0.9, linewidths=1.0)
    raster.set(ylabel="trial", title="Unit 0 in every trial", ylim=(-1, len(flashes)))
    for unit, rate in zip(units["id"].to_pylist(), rates):
        psth.stairs(rate, EDGES, label=f"unit {unit}")
    psth.set(xlabel="time since the flash (s)", ylabel="spikes per second", title="Rates of the good units")
    psth.legend(loc="upper right", ncols=2, fontsize="small")
    for axes in (raster, psth):
        axes.axvline(0, color="tab:red", linewidth=0.8, linestyle="--")
    figure.savefig(out / "raster.png", dpi=110)
    plt.close(figure)
    return rates


def around(spikes: np.ndarray, flash: float) -> np.ndarray:
    """Spikes near a flash, in seconds since it."""
    first, last = np.searchsorted(spikes, flash + EDGES[[0, -1]])
    return spikes[first:last] - flash


if __name__ == "__main__":
    with h5flight.connect() as client:
        main(client, Path())
