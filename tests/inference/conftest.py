"""Bundles, slices, and one running service.

The bundles are small, of a plain TensorFlow module without Keras. The service is started with the
command, as a user would, on the Ray cluster that all tests share.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from cluster.connection import Connection
from contract import bundle
from contract.bundle import BundleMetadata
from contract.config import Config, Serve
from contract.config.loader import to_toml
from contract.errors import ClusterError
from contract.registry import Registry
from contract.storage import LocalStorage, Storage, open_storage
from contract.timestamps import utc_now
from tests.nodes import free_port

ROOT = Path(__file__).parents[2]
SIDE = 32
KEY = "a key of the tests"
TIMEOUT_S = 20.0
"""A replica that waits for CPUs is given as long to end."""

MakeBundle = Callable[..., Storage]


@pytest.fixture(scope="session")
def make_bundle(tmp_path_factory: pytest.TempPathFactory) -> MakeBundle:
    """make_bundle(level=0.5): a bundle that marks what is brighter than level, of 0..1.

    fails: its graph can be loaded by TensorFlow, and ends with an error whatever the slice.
    """

    def make(level: float = 0.5, fails: bool = False) -> Storage:
        folder = tmp_path_factory.mktemp("bundle")
        _save_model(folder / "saved_model", level, fails)
        np.savez(folder / "weights.npz", level=level)
        (folder / "config.toml").write_text(to_toml(Config()))
        metadata = BundleMetadata(
            created=utc_now(),
            name=f"bright-{level}",
            commit=None,
            machine="test",
            fingerprint="0123456789ab",
            dataset="0123456789abcdef",
            patients={},
            image_size=SIDE,
            image_channels=1,
            threshold=0.5,
            metrics={"val_dice_coef": level},
        )
        destination = open_storage(str(tmp_path_factory.mktemp("kept") / "bundle"))
        bundle.write_bundle(folder, destination, metadata)
        return destination

    return make


@pytest.fixture(scope="session")
def bright(make_bundle: MakeBundle) -> LocalStorage:
    """One bundle that marks what is brighter than one half."""
    made = make_bundle(0.5)
    assert isinstance(made, LocalStorage)
    return made


@pytest.fixture(scope="session")
def failing(make_bundle: MakeBundle) -> LocalStorage:
    """A bundle that is whole and can be opened, and whose graph fails on every slice."""
    made = make_bundle(0.4, fails=True)
    assert isinstance(made, LocalStorage)
    return made


@pytest.fixture(scope="session")
def slice_png() -> bytes:
    """A PNG of 64 x 96: dark (20), with a bright (220) rectangle from (10, 20) to (40, 60)."""
    return cv2.imencode(".png", bright_slice())[1].tobytes()


def bright_slice() -> np.ndarray:
    image = np.full((64, 96), 20, np.uint8)
    image[10:40, 20:60] = 220
    return image


@dataclass(frozen=True)
class RunningService:
    """A service that answers, and the registry it follows."""

    url: str
    key: str
    config: Path
    registry: Registry
    run: Callable[..., subprocess.CompletedProcess[str]]
    """Run a command of inference with the service's CONFIG: run("status")."""

    def client(self, url: str | None = None) -> httpx.Client:
        """An HTTP client that sends the key: to the service, or to a replica of it."""
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=url or self.url, headers=headers, timeout=60)

    def own_door(self) -> str:
        """Where its one replica answers by itself: http://127.0.0.1:30000."""
        with self.client() as client:
            (replica,) = client.get("/v1/status").json()["replicas"]
        return replica["url"]


@dataclass(frozen=True)
class Attempts:
    """What became of services that could not be deployed, before there was one that could."""

    port: int
    """Where Ray Serve listens from then on."""
    nothing: bool
    """Whether there was a service to end before the first."""
    first: str
    """Why a service could not be deployed where there was none."""
    left: bool
    """Whether it had to be ended."""
    second: str
    """Why another could not be deployed in the place of one."""


@pytest.fixture(scope="package")
def attempts(ray_cluster: Connection) -> Attempts:
    """A service that asks for more CPUs than there are, if there is none and if there is.

    The last one stays, until a service that can be deployed takes its place.
    """
    from ray import serve

    from inference.serving.deployment import ReplicaSpec, build_application
    from inference.serving.service import APPLICATION, start_service, stop_service

    def rejected() -> str:
        with pytest.raises(ClusterError) as caught:
            start_service(plan, timeout_s=1.0)
        return str(caught.value)

    plan = ReplicaSpec(
        Serve(port=free_port(), request_timeout_s=TIMEOUT_S, cpus_per_replica=64),
        "nowhere",
        key_digest=None,
        private=False,
    )
    nothing = stop_service()
    first, left = rejected(), stop_service()
    target = serve.RunTarget(build_application(plan), name=APPLICATION, route_prefix="/")
    serve.run_many([target], wait_for_applications_running=False)
    return Attempts(plan.settings.port, nothing, first, left, second=rejected())


@pytest.fixture(scope="package")
def service(
    attempts: Attempts, make_bundle: MakeBundle, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningService]:
    """bright@production, at version 1 of 2: it marks what is brighter than one half."""
    import ray
    from ray import serve

    folder = tmp_path_factory.mktemp("service")
    store = open_storage(str(folder / "kept"))
    registry = Registry(store)
    for level in (0.5, 0.2):
        registry.register("bright", make_bundle(level).url)
    registry.promote("bright", 1, "production")
    config = folder / "service.toml"
    config.write_text(
        f"""
        [storage]
        root = "{store.url}"
        [serve]
        model = "bright@production"
        port = {attempts.port}
        api_key = "SEGFLEET_TEST_KEY"
        registry_poll_interval_s = 0.5
        request_timeout_s = {TIMEOUT_S}
        max_batch_size = 4
        max_queued_requests = 8
        max_bytes = 2_000_000
        max_pixels = 4_000_000
        """
    )
    environment = {
        **os.environ,
        "RAY_ADDRESS": ray.get_runtime_context().gcs_address,
        "SEGFLEET_TEST_KEY": KEY,
    }

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "inference", words[0], str(config), *words[1:]],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    deployed = run("deploy")
    assert deployed.returncode == 0, deployed.stderr
    assert "it stays on the cluster" in deployed.stdout
    yield RunningService(f"http://127.0.0.1:{attempts.port}", KEY, config, registry, run)
    ended = run("shutdown")
    assert "the service has ended" in ended.stdout, ended.stderr
    serve.shutdown()


def _save_model(folder: Path, level: float, fails: bool) -> None:
    """The signatures of a bundle over a small network: resize, convolve, resize back, threshold."""
    import tensorflow as tf

    def save() -> None:
        spec = {
            "serving_default": tf.TensorSpec((None, None, None, None), tf.uint8, name="slices"),
            "int16": tf.TensorSpec((None, None, None, None), tf.int16, name="slices"),
        }
        module: Any = tf.Module()
        module.kernel = tf.Variable(tf.ones([3, 3, 1, 1]) / 9.0)
        graph: Any = tf.function(lambda slices: segment(slices, module.kernel))
        signatures = {name: graph.get_concrete_function(kind) for name, kind in spec.items()}
        module.graph = graph
        tf.saved_model.save(module, str(folder), signatures=signatures)

    def segment(slices: Any, kernel: Any) -> dict[str, Any]:
        size = tf.shape(slices)
        whole: Any = tf.cast(slices, tf.float32)
        if fails:
            digits: Any = tf.io.decode_png(tf.strings.as_string(size[0]))
            whole += tf.reduce_sum(tf.cast(digits, tf.float32))
        grey = tf.cond(
            tf.equal(size[3], 3),
            lambda: tf.reduce_mean(whole, -1, keepdims=True),
            lambda: whole[..., :1],
        )
        small = resized(tf.ensure_shape(grey, [None, None, None, 1]), SIDE, SIDE)
        smooth = tf.nn.conv2d(small / 255.0, kernel, 1, "SAME")
        maps = resized(tf.sigmoid(20.0 * (smooth - level)), size[1], size[2])
        probability = maps[..., 0]
        return {"probability": probability, "mask": tf.cast(probability > 0.5, tf.uint8)}

    def resized(maps: Any, height: Any, width: Any) -> Any:
        rows = tf.einsum("oh,bhwc->bowc", weights(height, tf.shape(maps)[1]), maps)
        return tf.einsum("pw,bowc->bopc", weights(width, tf.shape(maps)[2]), rows)

    def weights(out: Any, into: Any) -> Any:
        most = tf.cast(into, tf.float32)
        centers = (tf.range(tf.cast(out, tf.float32)) + 0.5) * most / tf.cast(out, tf.float32)
        centers = tf.clip_by_value(centers - 0.5, 0.0, most - 1.0)
        return tf.maximum(0.0, 1.0 - tf.abs(centers[:, None] - tf.range(most)[None, :]))

    save()
