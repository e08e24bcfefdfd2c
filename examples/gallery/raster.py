"""Spikes of the good units around each flash: a raster of one, and the rates of all (PSTH)."""

from pathlib import Path

import h5flight
import matplotlib.pyplot as plt
import numpy as np
from recording import ANIMAL, EXPERIMENT, FLASH_S

BIN_S = 0.02
EDGES = np.linspace(-0.4, 1.0, 71)


def main(client: h5flight.Client, out: Path) -> np.ndarray:
    window = (FLASH_S + EDGES[0], FLASH_S + EDGES[-1])
    spikes = client[ANIMAL][EXPERIMENT].spikes("intervals/trials", window, units_where="quality = 'good'")
    units = spikes["id"].unique().to_pylist()
    # All trials of the first unit come first.
    aligned = [times.values.to_numpy() - FLASH_S for times in spikes["spike_times"]]
    trials = len(aligned) // len(units)
    by_unit = [aligned[first : first + trials] for first in range(0, len(aligned), trials)]
    counts = np.array([np.histogram(np.concatenate(unit), EDGES)[0] for unit in by_unit])
    rates = counts / (trials * BIN_S)

    figure, (raster, psth) = plt.subplots(2, 1, figsize=(7, 5), sharex=True, layout="constrained")
    raster.eventplot(by_unit[0], colors="black", linelengths=0.9, linewidths=1.0)
    raster.set(ylabel="trial", title="Unit 0 in every trial", ylim=(-1, trials))
    for unit, rate in zip(units, rates):
        psth.stairs(rate, EDGES, label=f"unit {unit}")
    psth.set(xlabel="time since the flash (s)", ylabel="spikes per second", title="Rates of the good units")
    psth.legend(loc="upper right", ncols=2, fontsize="small")
    for axes in (raster, psth):
        axes.axvline(0, color="tab:red", linewidth=0.8, linestyle="--")
    figure.savefig(out / "raster.png", dpi=110)
    plt.close(figure)
    return rates


if __name__ == "__main__":
    with h5flight.connect() as client:
        main(client, Path())
