"""The whole way on a cluster of two nodes behind a token: train, sweep, promote, deploy, segment.

The client shares no files with the jobs: slices go to S3, results come from there.
"""

import csv
import io
import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
import pytest

from contract import bundle
from contract.config import Config
from contract.config.loader import load_config, to_toml
from contract.storage import open_storage
from tests.nodes import ROOT, Head, free_port, head_node, kill_node, worker_node
from tests.small import FEW_SLICES, NETWORK
from trainer.data import dataset_index

SPACE = {"train.learning_rate": {"choice": [1e-3, 3e-3]}}


@pytest.fixture(scope="module")
def head(s3_server: str) -> Iterator[Head]:
    """A head of one logical CPU, so that two training workers are on two nodes."""
    with head_node(1) as running:
        yield running


@pytest.fixture
def settings(head: Head, s3: str, tmp_path: Path) -> Path:
    """The one TOML file, in a folder of the client's own; its slices are in S3 already."""
    drawn = Config.model_validate({"data": {"phantom": FEW_SLICES}})
    slices = dataset_index.prepare_dataset(drawn.data, 0, open_storage(str(tmp_path / "drawn")))
    upload = head.run("upload", slices.root, f"{s3}/slices", folder=tmp_path)
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


def submit(head: Head, settings: Path, *words: str) -> str:
    """Run a command as a job from the client's folder; what it printed."""
    done = head.run("submit", settings.name, "--", *words, folder=settings.parent, seconds=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def lose_a_node(
    head: Head, s3: str, lost: "subprocess.Popen[bytes]", folder: Path, stack: ExitStack
) -> None:
    """After the first epoch kill a node; then have another one join."""
    run = open_storage(f"{s3}/segfleet/runs/demo")
    end = time.monotonic() + 400
    while not any(
        entry.key.endswith("checkpoint.json") for entry in run.list_objects("checkpoints")
    ):
        assert time.monotonic() < end, "the first epoch did not end"
        time.sleep(0.3)
    assert not run.exists("run.json"), "the training ended before a node could be lost"
    kill_node(lost)
    stack.enter_context(worker_node(head, 1, folder))


@pytest.mark.timeout(1200)
def test_from_slices_in_s3_to_a_mask_over_http_though_a_node_is_lost(
    head: Head, s3: str, settings: Path
) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(worker_node(head, 1, settings.parent))
        killer = threading.Thread(
            target=lose_a_node, args=(head, s3, first, settings.parent, stack)
        )
        killer.start()
        trained = submit(head, settings, "trainer", "train")
        killer.join()
        assert first.poll() is not None
        assert f"bundle: {s3}/segfleet/runs/demo/bundle" in trained
        run = open_storage(f"{s3}/segfleet/runs/demo")
        rows = csv.DictReader(io.StringIO(run.read("train_metrics.csv").decode()))
        assert [float(row["epoch"]) for row in rows] == [1, 2, 3]
        bundle.fetch(run.child("bundle"))

        submit(head, settings, "tuning", "run")
        swept = json.loads(open_storage(f"{s3}/segfleet/sweeps/demo").read("sweep.json"))
        assert swept["version"] == "demo@1"
        registry = [sys.executable, "-m", "inference", "promote", "demo", "1", "production"]
        subprocess.run([*registry, "--storage", f"{s3}/segfleet"], check=True, cwd=ROOT)

        submit(head, settings, "inference", "deploy")
        try:
            mask, model = segment(settings, s3)
        finally:
            submit(head, settings, "inference", "shutdown")
        assert model == "demo@1"
        assert mask.shape == (64, 64)
        assert set(np.unique(mask)) <= {0, 255}


def segment(settings: Path, s3: str) -> tuple[np.ndarray, str]:
    """POST a test slice to the service; its mask, and the model that made it."""
    slices = open_storage(f"{s3}/slices")
    name = next(entry.key for entry in slices.list_objects("test/images"))
    config = load_config(settings)
    request = urllib.request.Request(
        f"http://127.0.0.1:{config.serve.port}/v1/segment",
        slices.read(name),
        {"Content-Type": "image/png", "Accept": "image/png"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        result = cv2.imdecode(np.frombuffer(answer.read(), np.uint8), cv2.IMREAD_UNCHANGED)
        assert result is not None
        return result, answer.headers["Segfleet-Model"]
