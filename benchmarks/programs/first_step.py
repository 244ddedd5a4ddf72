"""`segfleet train` for one epoch, with the seconds of each phase up to the first step.

Arguments: the settings and the folder of the results. Prints a line PHASE, name, seconds for each
phase, separated by tabs. It is run by its path: in a script run with `python -c` or `-m`, Ray makes
its workers look for every module in the current folder first, which commands do not.
"""

import sys
import time


def main() -> None:
    """Measure the phases in order."""
    began = time.monotonic()
    from contract.config.loader import load_config
    from contract.storage import open_storage
    from trainer.data.dataset_index import prepare_dataset
    from trainer.training import launcher

    overrides = [f"storage.root={sys.argv[2]}", "train.epochs=1", "train.preview_images=0"]
    config = load_config(sys.argv[1], overrides)
    marks = [("import the driver, read the settings", time.monotonic())]
    prepare_dataset(config.data, config.run.seed, open_storage(config.storage.root))
    marks.append(("prepare the slices (first time)", time.monotonic()))
    names = {
        "building the network": "start Ray and the workers, import TensorFlow, cache the slices"
    }

    def on_progress(done: int, total: int | None, note: str) -> None:
        name = names.pop(note, None) if not done else "build the network, first step"
        if name and name not in dict(marks):
            marks.append((name, time.monotonic()))

    launcher.run_training(config, on_progress)
    for (name, at), before in zip(marks, [began, *(at for _, at in marks)], strict=False):
        print(f"PHASE\t{name}\t{at - before:.2f}")


if __name__ == "__main__":
    main()
