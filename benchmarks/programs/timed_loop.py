"""The loop of a process that segments slices for as long as it is asked to."""

import json
import sys
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path


def run_loop(segment: Callable[[bytes], bytes], slices: Path) -> None:
    """Answer each line of seconds on standard input with the seconds of every slice, as JSON.

    Args:
        segment: Returns the PNG mask of a JPEG slice.
        slices: The folder of the slices, which are segmented in turn.
    """
    images = [file.read_bytes() for file in sorted(slices.glob("*.jpg"))]
    for data in images[:3]:
        segment(data)
    print("ready", flush=True)
    for line in sys.stdin:
        end, taken, turn = time.perf_counter() + float(line), [], cycle(images)
        while (start := time.perf_counter()) < end:
            segment(next(turn))
            taken.append(time.perf_counter() - start)
        print(json.dumps(taken), flush=True)
