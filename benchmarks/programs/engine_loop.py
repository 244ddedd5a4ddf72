"""One slice after the other through an engine of segfleet, without the service.

Arguments: the settings, the folder of the benchmark, the number of threads and the engine's name.
"""

import sys
from pathlib import Path

from benchmarks.programs.timed_loop import run_loop
from contract.imaging.decode import decode_image
from contract.imaging.encode import encode_mask
from contract.imaging.segmentation_class import single_foreground
from inference.engines import OpenVinoEngine, TensorFlowEngine

ENGINES = {engine.name: engine for engine in (OpenVinoEngine, TensorFlowEngine)}


def main() -> None:
    """Load the bundle and run the loop."""
    folder = Path(sys.argv[2])
    engine = ENGINES[sys.argv[4]](folder / "bundle", int(sys.argv[3]))

    def segment(data: bytes) -> bytes:
        mask = engine.infer(decode_image(data, "image")[None])[1][0]
        return encode_mask(mask, single_foreground())

    run_loop(segment, folder / "slices")


if __name__ == "__main__":
    main()
