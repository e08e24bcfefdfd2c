"""Seconds 10 to 12 of three channels, in volts: time, channels and units are the server's business."""

from pathlib import Path

import h5flight
import matplotlib.pyplot as plt
import numpy as np
from recording import ANIMAL, EXPERIMENT, LFP


def main(client: h5flight.Client, out: Path) -> np.ndarray:
    lfp = client[ANIMAL][EXPERIMENT][LFP]
    volts = lfp.read(time=(10, 12), channels=[0, 8, 15], units="float32")

    seconds = np.linspace(10, 12, len(volts), endpoint=False)
    figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
    for column, channel in enumerate([0, 8, 15]):
        axes.plot(seconds, volts[:, column] * 1e6 - 250 * column, linewidth=0.7, label=f"channel {channel}")
    axes.set(
        ylim=(-800, 250),
        xlabel="time (s)",
        ylabel="potential (µV), shifted by 250",
        title="Two seconds of three channels",
    )
    axes.legend(loc="upper right", ncols=3, fontsize="small")
    figure.savefig(out / "seconds.png", dpi=110)
    plt.close(figure)
    return volts


if __name__ == "__main__":
    with h5flight.connect() as client:
        main(client, Path())
