"""With nothing but pyarrow: any Arrow Flight client, in any language, does the same."""

import os

import numpy as np
import pyarrow.flight as flight

ANIMAL, EXPERIMENT, MOVIE = "mouse-042", "flashes", "acquisition/movie/data"


def main(url: str) -> np.ndarray:
    with flight.connect(url) as client:
        path = flight.FlightDescriptor.for_path(ANIMAL, EXPERIMENT, *MOVIE.split("/"))
        info = client.get_flight_info(path)
        print(info.total_records, "rows,", info.total_bytes, "bytes,", info.schema.field("value").type)
        table = client.do_get(info.endpoints[0].ticket).read_all()
        return table["value"].combine_chunks().to_numpy_ndarray()


if __name__ == "__main__":
    print(main(os.environ.get("H5FLIGHT_URL", "grpc://127.0.0.1:8815")).shape)
