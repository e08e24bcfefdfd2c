"""A mean over a whole movie that is never whole in memory: dask reads chunks as it needs them."""

from pathlib import Path

import h5flight
import matplotlib.pyplot as plt
import numpy as np
from recording import ANIMAL, EXPERIMENT, FLASH_S, MOVIE, MOVIE_HZ, TRIAL_S, TRIALS


def main(client: h5flight.Client, out: Path) -> np.ndarray:
    movie = client[ANIMAL][EXPERIMENT][MOVIE].to_dask()
    in_trials = movie.reshape(TRIALS, int(TRIAL_S * MOVIE_HZ), *movie.shape[1:])
    flash = int(FLASH_S * MOVIE_HZ)
    before, after = in_trials[:, :flash].mean((0, 1)), in_trials[:, flash : flash + 6].mean((0, 1))
    answer = (after / before - 1).compute(scheduler="threads")

    figure, axes = plt.subplots(figsize=(4.6, 3.8), layout="constrained")
    image = axes.imshow(answer * 100, cmap="magma")
    axes.set(xlabel="column", ylabel="row", title="Brighter after the flash")
    figure.colorbar(image, label="change (%)")
    figure.savefig(out / "dask_mean.png", dpi=110)
    plt.close(figure)
    return answer


if __name__ == "__main__":
    with h5flight.connect() as client:
        main(client, Path())
