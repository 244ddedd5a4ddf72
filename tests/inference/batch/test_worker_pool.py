"""Prediction by a cluster's CPUs gives what one machine gives, and outlives a lost worker."""

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
from contract.storage import LocalStorage, Storage, open_storage
from inference.batch.predict_files import PredictionJob, create_job, predict_files, resume_keys
from inference.batch.worker_pool import predict_on_cluster
from inference.predictor import load_predictor
from tests.processes import titled


def fill(store: Storage, count: int, side: int) -> None:
    draw = np.random.default_rng(0)
    for number in range(count):
        image = np.full((side, side), 20, np.uint8)
        top, left = draw.integers(0, side // 2, 2)
        image[top : top + side // 3, left : left + side // 3] = 220
        store.write(f"case-{number:03}.png", cv2.imencode(".png", image)[1].tobytes())


@pytest.mark.usefixtures("ray_cluster")
def test_a_cluster_gives_what_one_machine_gives(
    bright: LocalStorage, s3: str, tmp_path: Path
) -> None:
    """The bundle, the slices and the masks lie in S3."""
    open_storage(f"{s3}/bundle").upload_folder(bright.path, last="manifest.json")
    bundle = open_storage(f"{s3}/bundle")
    fill(open_storage(f"{s3}/slices"), 70, 64)
    fill(open_storage(str(tmp_path / "slices")), 70, 64)

    spread, keys = create_job(f"{s3}/slices", f"{s3}/masks", overlays=True)
    counts: list[tuple[int, int | None]] = []
    todo = resume_keys(spread, keys, bundle)

    def on_progress(done: int, total: int | None, note: str) -> None:
        counts.append((done, total))

    assert predict_on_cluster(spread, bundle, todo, 4, on_progress) == {}
    assert counts[-1] == (70, 70)
    assert resume_keys(spread, keys, bundle) == []

    alone, keys = create_job(str(tmp_path / "slices"), str(tmp_path / "masks"), overlays=True)
    assert predict_files(alone, load_predictor(bright), keys, 4) == {}
    for key in keys:
        for name in alone.output_keys(key):
            assert spread.output.read(name) == alone.output.read(name)


@pytest.mark.usefixtures("ray_cluster")
def test_a_bad_file_is_reported_and_a_lost_worker_replaced(
    bright: LocalStorage, tmp_path: Path
) -> None:
    """Also where another program takes the lost worker's CPU and keeps it."""
    fill(open_storage(str(tmp_path / "slices")), 60, 900)
    (tmp_path / "slices/case-000.png").write_bytes(b"nothing")
    job, keys = create_job(str(tmp_path / "slices"), str(tmp_path / "masks"), overlays=False)
    others: list[Any] = []
    killer = threading.Thread(target=kill_a_worker, args=(others,))
    killer.start()
    failures = predict_on_cluster(job, bright, keys, 2)
    killer.join()
    assert ray.wait(others, timeout=0)[0] == []
    ray.cancel(others[0], force=True)
    assert list(failures) == ["case-000.png"]
    assert "case-000.png cannot be decoded (7 bytes): it is not a PNG" in failures["case-000.png"]
    assert len(job.output.list_objects()) == 59


@pytest.mark.usefixtures("ray_cluster")
def test_masks_that_went_elsewhere_are_missed(bright: LocalStorage, tmp_path: Path) -> None:
    class Nowhere(PredictionJob):
        """A task whose workers write into folders of their own machines."""

        def write(self, key: str, image: np.ndarray, mask: np.ndarray) -> None:
            """Write where the driver does not look."""

    fill(open_storage(str(tmp_path / "slices")), 2, 32)
    job, keys = create_job(str(tmp_path / "slices"), str(tmp_path / "masks"), overlays=False)
    lost = Nowhere(job.source, job.output, overlays=False)
    with pytest.raises(ClusterError, match="2 masks are not in"):
        predict_on_cluster(lost, bright, keys, 2)


@pytest.mark.usefixtures("ray_cluster")
def test_a_bundle_that_the_workers_do_not_see_is_reported(
    bright: LocalStorage, tmp_path: Path
) -> None:
    fill(open_storage(str(tmp_path / "slices")), 2, 32)
    job, keys = create_job(str(tmp_path / "slices"), str(tmp_path / "masks"), overlays=False)
    assert resume_keys(job, keys, bright) == keys
    with pytest.raises(ClusterError) as caught:
        predict_on_cluster(job, open_storage(str(tmp_path / "here")), keys, 2)
    message = str(caught.value)
    assert f"cannot load the bundle: there is no bundle at {tmp_path / 'here'}: " in message
    assert message.endswith("in a folder that all nodes mount.")
    assert "\n" not in message


def kill_a_worker(others: list[Any]) -> None:
    """SIGKILL the first process that segments, while another program waits for its CPU."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for process in titled("ray::_Worker.predict"):
            others.append(ray.remote(lambda: time.sleep(100)).remote())
            time.sleep(0.2)
            os.kill(process, signal.SIGKILL)
            return
        time.sleep(0.01)
