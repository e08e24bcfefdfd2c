"""The field potential around each flash, averaged over the trials that were hits."""

from pathlib import Path

import h5flight
import matplotlib.pyplot as plt
import numpy as np
from recording import ANIMAL, EXPERIMENT, FLASH_S, LFP


def main(client: h5flight.Client, out: Path) -> np.ndarray:
    lfp = client[ANIMAL][EXPERIMENT][LFP]
    around = (FLASH_S - 0.2, FLASH_S + 0.5)
    hits = lfp.windows("intervals/trials", around, where="outcome = 'hit'", units="float32")
    average = hits.values.mean(axis=0)

    figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
    microvolts = average.T * 1e6
    limit = np.abs(microvolts).max()
    extent = (-0.2, 0.5, 15.5, -0.5)
    image = axes.imshow(microvolts, aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit, extent=extent)
    axes.axvline(0, color="black", linewidth=0.8, linestyle="--")
    axes.set(xlabel="time since the flash (s)", ylabel="channel", title=f"Average of {len(hits)} hits")
    figure.colorbar(image, label="potential (µV)")
    figure.savefig(out / "trial_average.png", dpi=110)
    plt.close(figure)
    return average


if __name__ == "__main__":
    with h5flight.connect() as client:
        main(client, Path())
