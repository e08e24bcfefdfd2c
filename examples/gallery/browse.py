"""What is there? Animals, experiments and datasets, and the first frame of a movie, as a notebook shows them."""

from pathlib import Path

import h5flight
from recording import ANIMAL, EXPERIMENT, MOVIE


def main(client: h5flight.Client, out: Path) -> h5flight.Dataset:
    for animal in client.animals():
        print(animal.name, animal.facts["species"], [experiment.name for experiment in animal.experiments()])
    for dataset in client.datasets(ANIMAL, EXPERIMENT):
        print(f"{dataset.name:50} {dataset.shape!s:20} {dataset.dtype}")
    movie = client[ANIMAL][EXPERIMENT][MOVIE]
    # What a notebook shows of a dataset that is the last line of a cell; of a client or an experiment, a tree.
    (out / "browse.html").write_text(movie._repr_html_())
    return movie


if __name__ == "__main__":
    with h5flight.connect() as client:
        main(client, Path())
