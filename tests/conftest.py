"""Fixtures that all tests share: an S3 server, a bucket per test, and one small Ray cluster."""

import logging
import signal
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import boto3
import pytest
from hypothesis import settings
from moto.moto_server.threaded_moto_server import ThreadedMotoServer
from xdist.scheduler import LoadFileScheduling

from cluster.connection import Connection, ray_session
from contract.config import Cluster
from contract.tensorflow_variables import set_tensorflow_variables

# As the commands do, before a test imports TensorFlow.
set_tensorflow_variables()

# A shell that runs the tests in the background makes them ignore Ctrl-C. The commands that they
# start would inherit that, and tests check how these handle Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine must not fail a test.
settings.register_profile("busy", deadline=None)
settings.load_profile("busy")


# The longest test files start first, so that the two processes finish at about the same time.
LONGEST_FIRST = ("test_training", "test_sweep", "test_cluster", "test_client")
# The files that use the fixture ray_cluster run in one process, so that Ray starts only once.
SHARED_RAY_FILES = (
    "tests/end_to_end/test_training.py",
    "tests/tuning/test_sweep.py",
    "tests/trainer/training/test_fit_thread.py",
    "tests/trainer/training/test_launcher.py",
    "tests/trainer/cross_validation/test_folds.py",
    "tests/trainer/training/test_progress_actor.py",
    "tests/cluster/test_connection.py",
    "tests/cluster/test_placement_groups.py",
    "tests/cluster/test_ray_internals.py",
    "tests/inference/batch/test_worker_pool.py",
    "tests/inference/serving/test_deployment.py",
    "tests/inference/serving/test_service.py",
    "tests/inference/serving/test_app.py",
    "tests/inference/serving/test_web.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first, in the order of LONGEST_FIRST."""
    order = {stem: index for index, stem in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONGEST_FIRST)))


class SharedRayScheduling(LoadFileScheduling):
    """Assigns complete files to processes, and all files that share Ray to the same process."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::")[0]
        return "shared Ray" if file.startswith(SHARED_RAY_FILES) else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> SharedRayScheduling:
    """The scheduler that `make test` uses."""
    return SharedRayScheduling(config, log)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The URL of moto's S3 server; this process and its child processes use it as S3."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.delenv("AWS_PROFILE", raising=False)
        yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_server: str) -> str:
    """The URL of a new, empty bucket, such as s3://test-0a1b."""
    bucket = f"test-{uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    return f"s3://{bucket}"


@pytest.fixture(scope="session")
def ray_cluster(s3_server: str) -> Iterator[Connection]:
    """A Ray cluster of 4 logical CPUs for all tests: two training workers and a replica fit.

    It starts after the S3 server, because its workers inherit the URL of that server.
    """
    with ray_session(Cluster(cpus=4)) as connection:
        yield connection
