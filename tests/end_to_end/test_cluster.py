"""All steps on a cluster of two nodes with a token: train, sweep, promote, deploy, segment.

The client shares no files with the jobs: slices and results are in S3.
"""

import csv
import io
import json
import shutil
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
import pytest

from cluster.jobs import job_package
from contract import bundle
from contract.config import Config
from contract.config.loader import load_config, to_toml
from contract.host_info import code_commit
from contract.storage import open_storage
from tests.nodes import ROOT, Head, free_port, head_node, kill_node, worker_node
from tests.small import FEW_SLICES, NETWORK
from tests.waiting import HANG_TIMEOUT_S, wait_until
from trainer.data import dataset_index

SPACE = {"train.learning_rate": {"choice": [1e-3, 3e-3]}}


@pytest.fixture(scope="module")
def head(s3_server: str) -> Iterator[Head]:
    """A head node with one logical CPU, so that two training workers are on two nodes."""
    with head_node(1) as running:
        yield running


@pytest.fixture
def settings(head: Head, s3: str, tmp_path: Path) -> Path:
    """The configuration file, in a folder of the client; the slices are uploaded to S3."""
    data = Config.model_validate({"data": {"phantom": FEW_SLICES}}).data
    dataset = dataset_index.prepare_dataset(data, 0, open_storage(str(tmp_path / "phantom")))
    upload = head.run("upload", dataset.root, f"{s3}/slices", folder=tmp_path)
    assert upload.returncode == 0, upload.stderr
    config = Config.model_validate(
        {
            "run": {"name": "demo"},
            "storage": {"root": f"{s3}/segfleet"},
            "cluster": {"address": head.jobs},
            "data": {
                "source": "folder",
                "root": f"{s3}/slices",
                "layout": "presplit",
                "patient_id_regex": r"^(PHANTOM_\d+)",
            },
            "network": NETWORK,
            "train": {
                "num_workers": 2,
                "epochs": 3,
                "steps_per_epoch": 40,
                "batch_size": 4,
                "preview_images": 0,
            },
            "sweep": {"num_samples": 2, "num_workers": 1, "space": SPACE},
            "serve": {"model": "demo@production", "port": free_port(), "cpus_per_replica": 1},
        }
    )
    path = tmp_path / "demo.toml"
    path.write_text(to_toml(config), encoding="utf-8")
    return path


def submit_job(head: Head, settings: Path, *command: str) -> str:
    """Run a command as a job, from the folder of the client; returns its output."""
    completed = head.run("submit", settings.name, "--", *command, folder=settings.parent)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return completed.stdout


def replace_node(
    head: Head, s3: str, node: "subprocess.Popen[bytes]", folder: Path, stack: ExitStack
) -> None:
    """Kill a node after the first epoch and add another one."""
    run = open_storage(f"{s3}/segfleet/runs/demo")

    def has_checkpoint() -> bool:
        return any(info.key.endswith("checkpoint.json") for info in run.list_objects("checkpoints"))

    wait_until(has_checkpoint, "the first epoch did not end", interval_s=0.3)
    assert not run.exists("run.json"), "the training ended before the node was killed"
    kill_node(node)
    stack.enter_context(worker_node(head, 1, folder))


@pytest.mark.timeout(1200)
def test_all_steps_from_slices_in_s3_to_a_served_mask_with_a_lost_node(
    head: Head, s3: str, settings: Path
) -> None:
    with ExitStack() as stack:
        node = stack.enter_context(worker_node(head, 1, settings.parent))
        killer = threading.Thread(
            target=replace_node, args=(head, s3, node, settings.parent, stack)
        )
        killer.start()
        output = submit_job(head, settings, "trainer", "train")
        killer.join()
        assert node.poll() is not None
        assert f"bundle: {s3}/segfleet/runs/demo/bundle" in output
        run = open_storage(f"{s3}/segfleet/runs/demo")
        epochs = csv.DictReader(io.StringIO(run.read("train_metrics.csv").decode()))
        assert [float(metrics["epoch"]) for metrics in epochs] == [1, 2, 3]
        bundle.fetch(run.child("bundle"))
        # A job has no .git, and its results name the commit nevertheless.
        manifest, _ = bundle.identify(run.child("bundle"))
        assert manifest.commit == json.loads(run.read("run.json"))["commit"] == code_commit()

        folder = job_package.build(settings.parent / "job", load_config(settings)).folder
        shutil.copy(settings, folder)
        submitted = head.submit_by_hand(folder, "-m", "tuning", "sweep", settings.name)
        assert submitted.returncode == 0, submitted.stdout + submitted.stderr
        summary = json.loads(open_storage(f"{s3}/segfleet/sweeps/demo").read("sweep.json"))
        assert summary["version"] == "demo@1"
        promote = [sys.executable, "-m", "inference", "promote", "demo", "1", "production"]
        subprocess.run([*promote, "--storage", f"{s3}/segfleet"], check=True, cwd=ROOT)

        submit_job(head, settings, "inference", "deploy")
        try:
            mask, model = segment(settings, s3)
        finally:
            submit_job(head, settings, "inference", "shutdown")
        assert model == "demo@1"
        assert mask.shape == (64, 64)
        assert set(np.unique(mask)) <= {0, 255}


def segment(settings: Path, s3: str) -> tuple[np.ndarray, str]:
    """POST a test slice to the service; returns its mask and the model that predicted it."""
    slices = open_storage(f"{s3}/slices")
    name = next(info.key for info in slices.list_objects("test/images"))
    config = load_config(settings)
    request = urllib.request.Request(
        f"http://127.0.0.1:{config.serve.port}/v1/segment",
        slices.read(name),
        {"Content-Type": "image/png", "Accept": "image/png"},
    )
    with urllib.request.urlopen(request, timeout=HANG_TIMEOUT_S) as response:
        mask = cv2.imdecode(np.frombuffer(response.read(), np.uint8), cv2.IMREAD_UNCHANGED)
        assert mask is not None
        return mask, response.headers["Segfleet-Model"]
