"""Prediction on a cluster writes the same masks as one machine, and survives lost workers."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import ray

from contract.errors import ClusterError
from contract.imaging.segmentation_class import single_foreground
from contract.storage import LocalStorage, Storage, open_storage
from inference.batch.predict_files import (
    OutputFiles,
    PredictionJob,
    create_job,
    predict_files,
    resume_keys,
)
from inference.batch.worker_pool import predict_on_cluster
from inference.predictor import Segmentation, load_predictor
from tests.processes import titled
from tests.waiting import wait_until

MASKS = OutputFiles(single_foreground(), (0.0, 255.0))
OVERLAYS = OutputFiles(single_foreground(), (0.0, 255.0), overlays=True)


def write_slices(storage: Storage, count: int, size: int) -> None:
    rng = np.random.default_rng(0)
    for number in range(count):
        image = np.full((size, size), 20, np.uint8)
        top, left = rng.integers(0, size // 2, 2)
        image[top : top + size // 3, left : left + size // 3] = 220
        storage.write(f"slice-{number:03}.png", cv2.imencode(".png", image)[1].tobytes())


@pytest.mark.usefixtures("ray_cluster")
def test_a_cluster_writes_the_same_masks_as_one_machine(
    bright_bundle: LocalStorage, s3: str, tmp_path: Path
) -> None:
    """The bundle, the slices and the masks of the cluster are in S3."""
    open_storage(f"{s3}/bundle").upload_folder(bright_bundle.path, last="manifest.json")
    bundle = open_storage(f"{s3}/bundle")
    write_slices(open_storage(f"{s3}/slices"), 70, 64)
    write_slices(open_storage(str(tmp_path / "slices")), 70, 64)

    cluster_job, keys = create_job(f"{s3}/slices", f"{s3}/masks", OVERLAYS)
    progress: list[tuple[int, int | None]] = []

    def on_progress(done: int, total: int | None, note: str) -> None:
        progress.append((done, total))

    remaining = resume_keys(cluster_job, keys, bundle)
    assert predict_on_cluster(cluster_job, bundle, remaining, 4, on_progress) == {}
    assert progress[-1] == (70, 70)
    assert resume_keys(cluster_job, keys, bundle) == []

    local_job, keys = create_job(str(tmp_path / "slices"), str(tmp_path / "masks"), OVERLAYS)
    assert predict_files(local_job, load_predictor(bright_bundle), keys, 4) == {}
    for key in keys:
        for name in local_job.output_keys(key):
            assert cluster_job.output.read(name) == local_job.output.read(name)


@pytest.mark.usefixtures("ray_cluster")
def test_a_damaged_file_is_reported_and_a_lost_worker_is_replaced(
    bright_bundle: LocalStorage, tmp_path: Path
) -> None:
    """Even if another program takes the CPU of the lost worker and keeps it."""
    write_slices(open_storage(str(tmp_path / "slices")), 60, 900)
    (tmp_path / "slices/slice-000.png").write_bytes(b"damaged")
    job, keys = create_job(str(tmp_path / "slices"), str(tmp_path / "masks"), MASKS)
    waiting_tasks: list[Any] = []
    killer = threading.Thread(target=kill_one_worker, args=(waiting_tasks,))
    killer.start()
    failures = predict_on_cluster(job, bright_bundle, keys, 2)
    killer.join()
    assert ray.wait(waiting_tasks, timeout=0)[0] == []
    ray.cancel(waiting_tasks[0], force=True)
    assert list(failures) == ["slice-000.png"]
    assert "slice-000.png cannot be decoded (7 bytes): it is not a PNG" in failures["slice-000.png"]
    assert len(job.output.list_objects()) == 59


@pytest.mark.usefixtures("ray_cluster")
def test_masks_that_are_not_in_the_output_are_an_error(
    bright_bundle: LocalStorage, tmp_path: Path
) -> None:
    class UnsharedJob(PredictionJob):
        """A job whose workers write to folders of their own machines."""

        def write(self, key: str, image: np.ndarray, segmentation: Segmentation) -> None:
            """Write nothing to the folder of the driver."""

    write_slices(open_storage(str(tmp_path / "slices")), 2, 32)
    job, keys = create_job(str(tmp_path / "slices"), str(tmp_path / "masks"), MASKS)
    unshared = UnsharedJob(job.source, job.output, MASKS)
    with pytest.raises(ClusterError, match="2 masks are not in"):
        predict_on_cluster(unshared, bright_bundle, keys, 2)


@pytest.mark.usefixtures("ray_cluster")
def test_a_bundle_that_workers_cannot_read_is_an_error(
    bright_bundle: LocalStorage, tmp_path: Path
) -> None:
    write_slices(open_storage(str(tmp_path / "slices")), 2, 32)
    job, keys = create_job(str(tmp_path / "slices"), str(tmp_path / "masks"), MASKS)
    assert resume_keys(job, keys, bright_bundle) == keys
    with pytest.raises(ClusterError) as error:
        predict_on_cluster(job, open_storage(str(tmp_path / "unshared")), keys, 2)
    message = str(error.value)
    assert f"cannot load the bundle: there is no bundle at {tmp_path / 'unshared'}: " in message
    assert message.endswith("in a folder that all nodes mount.")
    assert "\n" not in message


def kill_one_worker(waiting_tasks: list[Any]) -> None:
    """SIGKILL the first worker that predicts, while a task of another program waits for its CPU."""
    process = wait_until(lambda: titled("ray::_Worker.predict"), interval_s=0.01)[0]
    waiting_tasks.append(ray.remote(lambda: time.sleep(100)).remote())
    time.sleep(0.2)
    os.kill(process, signal.SIGKILL)
