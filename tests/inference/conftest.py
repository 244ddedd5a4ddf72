"""Bundles, slices, and one running service.

The bundles are small TensorFlow modules without Keras. The service is started with the command, as
a user would start it, on the Ray cluster that all tests share.
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
from contract.imaging.intensity_scaling import IntensityScaling
from contract.imaging.post_processing import PostProcessing
from contract.imaging.segmentation_class import (
    SegmentationClass,
    create_classes,
    single_foreground,
)
from contract.registry import Registry, StageTransition
from contract.storage import LocalStorage, Storage, open_storage
from contract.timestamps import utc_now
from tests.nodes import free_port
from tests.waiting import HANG_TIMEOUT_S, wait_until

ROOT = Path(__file__).parents[2]
IMAGE_SIZE = 32
API_KEY = "a key of the tests"
REQUEST_TIMEOUT_S = 20.0
"""Also the time in which a replica that waits for CPUs must shut down."""

THREE_CLASSES = create_classes(
    {"organ": (230, 60, 60), "lesion": (60, 200, 80), "bone": (70, 90, 240)}
)
"""From dark to bright: 0.2 to 0.47, to 0.73, and above."""

_NO_STEPS = PostProcessing()

MakeBundle = Callable[..., Storage]


@pytest.fixture(scope="session")
def make_bundle(tmp_path_factory: pytest.TempPathFactory) -> MakeBundle:
    """make_bundle(level=0.5): a bundle whose foreground is brighter than level, in 0..1.

    fails: TensorFlow can load its graph, which raises an error for every slice. classes: with
    several, each is brighter than the one before. neighbours: the slices on each side of its input;
    the last slice of a stack decides. post_processing: the steps of its masks.
    """

    def make(
        level: float = 0.5,
        fails: bool = False,
        classes: tuple[SegmentationClass, ...] = single_foreground(),
        neighbours: int = 0,
        post_processing: PostProcessing = _NO_STEPS,
    ) -> Storage:
        folder = tmp_path_factory.mktemp("bundle")
        _save_model(folder / "saved_model", level, fails, len(classes), neighbours > 0)
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
            image_size=(IMAGE_SIZE, IMAGE_SIZE),
            image_channels=1,
            neighbours=neighbours,
            classes=classes,
            intensity_scaling=IntensityScaling.from_window(0.0, 255.0),
            class_tolerance=None,
            other_values_are_background=False,
            threshold=0.5,
            post_processing=post_processing,
            metrics={"val_dice_coef": level},
        )
        destination = open_storage(str(tmp_path_factory.mktemp("written") / "bundle"))
        bundle.write_bundle(folder, destination, metadata)
        return destination

    return make


@pytest.fixture(scope="session")
def bright_bundle(make_bundle: MakeBundle) -> LocalStorage:
    """A bundle whose foreground is brighter than one half."""
    storage = make_bundle(0.5)
    assert isinstance(storage, LocalStorage)
    return storage


@pytest.fixture(scope="session")
def stack_bundle(make_bundle: MakeBundle) -> LocalStorage:
    """A bundle with one neighbour on each side: foreground is bright in the next slice."""
    storage = make_bundle(0.5, neighbours=1)
    assert isinstance(storage, LocalStorage)
    return storage


@pytest.fixture(scope="session")
def failing_bundle(make_bundle: MakeBundle) -> LocalStorage:
    """A complete bundle that can be loaded, but whose graph fails on every slice."""
    storage = make_bundle(0.4, fails=True)
    assert isinstance(storage, LocalStorage)
    return storage


@pytest.fixture(scope="session")
def slice_png() -> bytes:
    """A PNG of 64 x 96: dark (20), with a bright (220) rectangle in rows 10:40, columns 20:60."""
    image = np.full((64, 96), 20, np.uint8)
    image[10:40, 20:60] = 220
    return cv2.imencode(".png", image)[1].tobytes()


@dataclass(frozen=True)
class RunningService:
    """A running service, and the registry that it follows."""

    url: str
    api_key: str
    config: Path
    registry: Registry
    run_command: Callable[..., subprocess.CompletedProcess[str]]
    """Run a command of inference with the CONFIG of the service: run_command("service")."""

    def client(self, url: str | None = None) -> httpx.Client:
        """An HTTP client that sends the API key to the service, or to one of its replicas."""
        headers = {"Authorization": f"Bearer {self.api_key}"}
        return httpx.Client(base_url=url or self.url, headers=headers, timeout=HANG_TIMEOUT_S)

    def wait_for_version(self, version: int) -> None:
        """Wait until the service serves this version."""
        with self.client() as client:
            wait_until(lambda: client.get("/v1/model").json()["version"] == version)

    def replica_url(self) -> str:
        """The URL of its only replica itself: http://127.0.0.1:30000."""
        with self.client() as client:
            (replica,) = client.get("/v1/status").json()["replicas"]
        return replica["url"]


@dataclass(frozen=True)
class FailedDeployments:
    """The results of deployments that need more CPUs than there are."""

    port: int
    """The port of Ray Serve since then."""
    was_running: bool
    """Whether there was a service before the first deployment."""
    first_error: str
    """The error of a deployment without a previous service."""
    is_left_behind: bool
    """Whether there was a service after the first deployment."""
    update_error: str
    """The error of a deployment that replaces a service."""


@pytest.fixture(scope="package")
def failed_deployments(ray_cluster: Connection) -> FailedDeployments:
    """Deploy a service that needs more CPUs than there are: as the first one, and as an update.

    The last one remains until the fixture `service` replaces it.
    """
    from ray import serve

    from inference.serving.deployment import ReplicaSpec, build_application
    from inference.serving.service import APPLICATION, start_service, stop_service

    def deployment_error() -> str:
        with pytest.raises(ClusterError) as error:
            start_service(spec, timeout_s=1.0)
        return str(error.value)

    spec = ReplicaSpec(
        Serve(port=free_port(), request_timeout_s=REQUEST_TIMEOUT_S, cpus_per_replica=64),
        "nowhere",
        key_digest=None,
        is_local=False,
    )
    was_running = stop_service()
    first_error, is_left_behind = deployment_error(), stop_service()
    target = serve.RunTarget(build_application(spec), name=APPLICATION, route_prefix="/")
    serve.run_many([target], wait_for_applications_running=False)
    return FailedDeployments(
        spec.settings.port, was_running, first_error, is_left_behind, deployment_error()
    )


def promote_damaged(registry: Registry, source: LocalStorage) -> None:
    """Register a bundle, damage the copy, and point production to it.

    Registry.promote would refuse it, so the record of the promotion is written as a file.
    """
    version = registry.register("bright", source.url)
    folder = Path(version.bundle)
    (folder / "saved_model/saved_model.pb").write_bytes(b"damaged")
    number = registry.history("bright", "production")[-1].number + 1
    transition = StageTransition(
        number=number, version=version.version, action="promote", created=utc_now()
    )
    file = folder.parents[2] / f"stages/production/{number:06d}.json"
    file.write_text(transition.model_dump_json())


@pytest.fixture(scope="package")
def service(
    failed_deployments: FailedDeployments,
    make_bundle: MakeBundle,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[RunningService]:
    """bright@production, at version 1 of 3, whose foreground is brighter than one half.

    Version 1 keeps the largest component of a slice, without holes. Version 3 has several classes.
    """
    import ray
    from ray import serve

    folder = tmp_path_factory.mktemp("service")
    storage = open_storage(str(folder / "storage"))
    registry = Registry(storage)
    steps = PostProcessing(largest_component="slice", fill_holes="slice")
    registry.register("bright", make_bundle(0.5, post_processing=steps).url)
    registry.register("bright", make_bundle(0.2).url)
    registry.register("bright", make_bundle(0.2, classes=THREE_CLASSES).url)
    registry.promote("bright", 1, "production")
    config = folder / "service.toml"
    config.write_text(
        f"""
        [storage]
        root = "{storage.url}"
        [serve]
        model = "bright@production"
        port = {failed_deployments.port}
        api_key_env = "SEGFLEET_TEST_KEY"
        registry_poll_interval_s = 0.5
        request_timeout_s = {REQUEST_TIMEOUT_S}
        max_batch_size = 4
        max_queued_requests = 8
        max_bytes = 2_000_000
        max_pixels = 4_000_000
        """
    )
    environment = {
        **os.environ,
        "RAY_ADDRESS": ray.get_runtime_context().gcs_address,
        "SEGFLEET_TEST_KEY": API_KEY,
    }

    def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
        command, *overrides = arguments
        return subprocess.run(
            [sys.executable, "-m", "inference", command, str(config), *overrides],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=HANG_TIMEOUT_S,
            check=False,
        )

    deployed = run_command("deploy")
    assert deployed.returncode == 0, deployed.stderr
    assert "it stays on the cluster" in deployed.stdout
    url = f"http://127.0.0.1:{failed_deployments.port}"
    yield RunningService(url, API_KEY, config, registry, run_command)
    ended = run_command("shutdown")
    assert "the service has ended" in ended.stdout, ended.stderr
    serve.shutdown()


@pytest.fixture
def three_classes(service: RunningService) -> Iterator[RunningService]:
    """The same service with version 3, which has THREE_CLASSES."""
    service.registry.promote("bright", 3, "production")
    service.wait_for_version(3)
    yield service
    service.registry.rollback("bright", "production")
    service.wait_for_version(1)


@pytest.fixture(scope="session")
def bands_png() -> bytes:
    """A PNG of 64 x 96: dark (20); in rows 10:40 three bands of 24 columns: 90, 150 and 230."""
    image = np.full((64, 96), 20, np.uint8)
    for index, value in enumerate((90, 150, 230)):
        image[10:40, 12 + 24 * index : 36 + 24 * index] = value
    return cv2.imencode(".png", image)[1].tobytes()


def _save_model(
    folder: Path, level: float, fails: bool, num_classes: int, is_stacked: bool
) -> None:
    """Save a small network with the signatures of a bundle: resize, convolve, resize, threshold."""
    import tensorflow as tf

    def save() -> None:
        specs = {
            "serving_default": tf.TensorSpec((None, None, None, None), tf.uint8, name="slices"),
            "int32": tf.TensorSpec((None, None, None, None), tf.int32, name="slices"),
        }
        module: Any = tf.Module()
        module.kernel = tf.Variable(tf.ones([3, 3, 1, 1]) / 9.0)
        graph: Any = tf.function(lambda slices: segment(slices, module.kernel))
        signatures = {name: graph.get_concrete_function(spec) for name, spec in specs.items()}
        module.graph = graph
        tf.saved_model.save(module, str(folder), signatures=signatures)

    def segment(slices: Any, kernel: Any) -> dict[str, Any]:
        shape = tf.shape(slices)
        images: Any = tf.cast(slices, tf.float32)
        if fails:
            invalid: Any = tf.io.decode_png(tf.strings.as_string(shape[0]))
            images += tf.reduce_sum(tf.cast(invalid, tf.float32))
        grey = images[..., -1:]
        if not is_stacked:
            grey = tf.cond(
                tf.equal(shape[3], 3),
                lambda: tf.reduce_mean(images, -1, keepdims=True),
                lambda: images[..., :1],
            )
        small = resize(tf.ensure_shape(grey, [None, None, None, 1]), IMAGE_SIZE, IMAGE_SIZE)
        smooth = tf.nn.conv2d(small / 255.0, kernel, 1, "SAME")
        # The step to each class, at equal distances from level to 1.
        levels = [level + (1 - level) * index / num_classes for index in range(num_classes)]
        steps = [tf.sigmoid(20.0 * (smooth - each)) for each in levels]
        above = tf.concat([*steps[1:], tf.zeros_like(steps[0])], -1)
        maps = resize(tf.concat(steps, -1) - above, shape[1], shape[2])
        indices = tf.add_n(
            [tf.cast(tf.reduce_sum(maps[..., k:], -1) > 0.5, tf.uint8) for k in range(num_classes)]
        )
        return {"probability": maps, "mask": indices}

    def resize(maps: Any, height: Any, width: Any) -> Any:
        rows = tf.einsum("oh,bhwc->bowc", resize_weights(tf.shape(maps)[1], height), maps)
        return tf.einsum("pw,bowc->bopc", resize_weights(tf.shape(maps)[2], width), rows)

    def resize_weights(old_size: Any, new_size: Any) -> Any:
        old, new = tf.cast(old_size, tf.float32), tf.cast(new_size, tf.float32)
        centers = (tf.range(new) + 0.5) * old / new
        centers = tf.clip_by_value(centers - 0.5, 0.0, old - 1.0)
        return tf.maximum(0.0, 1.0 - tf.abs(centers[:, None] - tf.range(old)[None, :]))

    save()
