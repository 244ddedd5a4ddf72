"""The trials of a sweep one after the other in one process, without Ray.

Argument: the settings. Prints a line EPOCH and its values as JSON for each epoch, and a line END.
"""

import sys
import time
from collections.abc import Mapping


def main() -> None:
    """Train each trial that the sweep's scheduler proposes."""
    began = time.monotonic()
    import json

    from contract.config.loader import load_config
    from contract.storage import open_storage
    from trainer.data.dataset_index import prepare_dataset
    from trainer.training import run_store
    from trainer.training.train_loop import WorkerContext, train
    from tuning.scheduler import SweepScheduler
    from tuning.trainable import trial_config
    from tuning.trial_store import TrialStore

    config = load_config(sys.argv[1])
    storage = open_storage(config.storage.root)
    dataset = prepare_dataset(config.data, config.run.seed, storage)
    store = TrialStore(storage.child("plain"))
    scheduler = SweepScheduler(config, store, 1)
    while trial := scheduler.next_trial():

        def print_epoch(metrics: Mapping[str, float], number: int = trial.number) -> None:
            time_s = time.monotonic() - began
            epoch = {"trial": number, "time_s": time_s, "metrics": dict(metrics)}
            print("EPOCH", json.dumps(epoch), flush=True)

        chosen = trial_config(config, trial.number, trial.values)
        run = run_store.run_storage(chosen)
        run_store.create_run(run, chosen, dataset)
        train(chosen, dataset, run, WorkerContext(report_epoch=print_epoch))
        store.finish(trial.number, "completed")
    print("END", json.dumps({"time_s": time.monotonic() - began}))


if __name__ == "__main__":
    main()
