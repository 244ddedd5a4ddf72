"""What all tests share: an S3 server, a bucket a test, and one small Ray cluster."""

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

# A shell that runs the tests in the background has them ignore Ctrl-C, and so would the commands
# they start, which are tested for how they end on it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no fault of the code.
settings.register_profile("busy", deadline=None)
settings.load_profile("busy")


# Of two processes that share the files of tests, none should begin with the longest at the end.
LONGEST = ("test_training", "test_sweep", "test_cluster", "test_client")
# Those that use the fixture ray_cluster, so that one Ray is enough for them all.
ON_SHARED_RAY = (
    "tests/end_to_end/test_training.py",
    "tests/tuning/test_sweep.py",
    "tests/trainer/training/test_launcher.py",
    "tests/cluster/test_connection.py",
    "tests/cluster/test_placement_groups.py",
    "tests/inference/batch/test_worker_pool.py",
    "tests/inference/serving/test_deployment.py",
    "tests/inference/serving/test_app.py",
    "tests/inference/serving/test_web.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, in their order."""
    order = {stem: place for place, stem in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONGEST)))


class ByRay(LoadFileScheduling):
    """Gives each process whole files, and one of them all that share Ray."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::")[0]
        return "shared Ray" if file.startswith(ON_SHARED_RAY) else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByRay:
    """How `make test` shares the tests out."""
    return ByRay(config, log)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of moto's S3 server; this process, and those it starts, use it as their S3."""
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
    """The address of a fresh, empty bucket, such as s3://test-0a1b."""
    bucket = f"test-{uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    return f"s3://{bucket}"


@pytest.fixture(scope="session")
def ray_cluster(s3_server: str) -> Iterator[Connection]:
    """One Ray of 4 logical CPUs for the whole suite: two training workers and a replica fit.

    It starts after the S3 server, whose address its workers inherit.
    """
    with ray_session(Cluster(cpus=4)) as connection:
        yield connection
