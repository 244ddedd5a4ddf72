"""Connecting this process to Ray: the only place of the project that calls `ray.init`.

It is also the only place of `cluster` that reads the environment.
"""

import logging
import os
import secrets
import shutil
import signal
import site
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ray
from ray.dashboard.utils import get_address_for_submission_client
from ray.exceptions import RayError

import contract
from contract.config import Cluster
from contract.errors import ClusterError, UserError

PACKAGES = ("contract", "cluster", "trainer", "tuning", "inference")
"""What a worker must be able to import."""
WORKER_ENV = {
    "TF_USE_LEGACY_KERAS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_CPU_ALLOCATOR_USE_BFC": "true",
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TOP_PAD_": "67108864",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}
"""The first makes `tf.keras` the Keras 2 that we train with; the second silences TensorFlow. The
last spares each training a process that notes, for no one here, which nodes will be taken. With
the others TensorFlow keeps the memory of tensors between steps, and glibc that of the gradients on
their way: given back and taken again, it costs page faults by the million and half of the speed
(docs/lab-notes.md). 32 MiB is glibc's limit.
"""
FORWARDED_ENV = ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL")
"""Variables of this process that a job is given; anyone who may see the cluster may read them."""
DASHBOARD = "http://127.0.0.1:8265"
OBJECT_STORE_BYTES = 512 * 2**20
REACH_TIMEOUT_S = 10.0
_REMOVE_S = 5.0
NO_RAY_ADDRESS = {"RAY_ADDRESS": None, "RAY_API_SERVER_ADDRESS": None}
"""Ray's own code would let these overrule an address that it is given."""
# The socket Ray opens below its session folder may have a path of 107 bytes at most, so TMPDIR,
# which is long on some machines, is not followed.
SHORT_FOLDER = "/tmp"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Connection:
    """The Ray cluster this process is connected to."""

    private: bool
    """Started by this process and gone with it."""


@contextmanager
def ray_session(cluster: Cluster) -> Iterator[Connection]:
    """Connect to the cluster that the settings name, for the time of the block.

    cluster.address, else RAY_ADDRESS, else a private cluster on this machine that ends with the
    block. A process that is connected already stays so.
    What workers print is repeated where this process logs everything (--verbose). Raises
    ClusterError where the cluster cannot be reached.
    """
    if ray.is_initialized():
        yield Connection(private=False)
        return
    address = cluster.address or os.environ.get("RAY_ADDRESS")
    opened = _existing(address) if address else _private(cluster)
    with opened as connection:
        yield connection


@contextmanager
def _private(cluster: Cluster) -> Iterator[Connection]:
    """A cluster of this process alone, on the loopback address and with a token of its own."""
    folder = Path(tempfile.mkdtemp(prefix="segfleet-", dir=SHORT_FOLDER))
    ensure_auth_token()
    keep = False
    try:
        _start(cluster, folder)
        yield Connection(private=True)
    except Exception as error:
        keep = not isinstance(error, UserError)
        raise
    finally:
        ray.shutdown(wait_for_processes=True)
        if keep:
            log.info("Ray's own logs are kept in %s.", folder)
        else:
            _remove(folder)


def _remove(folder: Path) -> None:
    """Delete a private cluster's folder, in which Ray's last processes may write for a moment."""
    end = time.monotonic() + _REMOVE_S
    shutil.rmtree(folder, ignore_errors=True)
    while folder.exists() and time.monotonic() < end:
        time.sleep(0.1)
        shutil.rmtree(folder, ignore_errors=True)


def _start(cluster: Cluster, folder: Path) -> None:
    """Start Ray with its files below a folder; ClusterError where it does not come up."""
    # The workers inherit this process's environment. The same variables as a runtime_env made
    # each wave of actors 0.7 to 1 s slower on 2 cores, as none can be started ahead.
    with environment_variables(_private_variables()), _own_termination():
        try:
            ray.init(
                address="local",
                num_cpus=cluster.cpus,
                include_dashboard=False,  # no one asks it, and a start without is sooner
                object_store_memory=OBJECT_STORE_BYTES,
                logging_level=ray_level(),
                log_to_driver=_verbose(),
                _temp_dir=str(folder / "ray"),  # Ray opens its own folder to everyone
            )
        except Exception as error:  # Ray raises bare Exceptions here
            raise ClusterError(
                f"Ray does not start on this machine: {_first_line(error)}. Is it busy, or short "
                "of memory or disk? Try again, or set cluster.cpus lower."
            ) from error


@contextmanager
def _existing(address: str) -> Iterator[Connection]:
    """A cluster that was there before and stays when the block ends."""
    check_reachable(address)
    try:
        with _own_termination():
            ray.init(
                address=address,
                logging_level=ray_level(),
                log_to_driver=_verbose(),
                runtime_env=_shipped_environment(),
            )
    except (ConnectionError, RuntimeError, ValueError, OSError, RayError) as error:
        raise ClusterError(
            f"cannot join the Ray cluster at {address}: {_first_line(error)}. Does it ask for a "
            "token (RAY_AUTH_MODE=token, ~/.ray/auth_token)? From a machine that is none of its "
            "nodes, send the command with `python -m cluster submit`."
        ) from error
    try:
        yield Connection(private=False)
    finally:
        ray.shutdown()


@contextmanager
def _own_termination() -> Iterator[None]:
    """This process's own answer to SIGTERM holds after the block, not that of ray.init.

    Ray's kills its processes below the threads that still speak to them, which then print traces.
    """
    own = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:
        # Ray has answered a SIGTERM that came meanwhile.
        if callable(own):
            own(signal.SIGTERM, None)
        raise
    finally:
        # Without an answer of its own a process would leave Ray's processes to themselves.
        if callable(own) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, own)


def ensure_auth_token() -> None:
    """Give the private cluster a secret token, so that no other user of the machine can use it.

    Ray would write one to ~/.ray/auth_token instead, where two clusters starting at once
    overwrite each other's. Ray keeps the first token it has read, so it stays for the process.
    """
    chosen = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    if not any(name in os.environ for name in chosen):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _private_variables() -> Mapping[str, str]:
    """The variables of a private cluster's workers, beyond those of this process."""
    folder = str(Path(contract.__file__).parents[1])
    if folder in site.getsitepackages():
        return WORKER_ENV
    known = os.environ.get("PYTHONPATH", "")
    return {**WORKER_ENV, "PYTHONPATH": os.pathsep.join(filter(None, (folder, known)))}


@contextmanager
def environment_variables(variables: Mapping[str, str | None]) -> Iterator[None]:
    """This process's environment with these variables (None: without), for a block's time."""
    before = {name: os.environ.get(name) for name in variables}
    _set_variables(variables)
    try:
        yield
    finally:
        _set_variables(before)


def _set_variables(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _shipped_environment() -> dict[str, Any] | None:
    """What the workers of an existing cluster need: our packages, where S3 is, and no secret.

    A Ray job carries its own environment, which Ray refuses to have changed.
    """
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        return None
    folder = Path(contract.__file__).parents[1]
    return {
        "env_vars": job_variables(),
        "py_modules": [str(folder / name) for name in PACKAGES],
        "excludes": ["__pycache__"],
    }


def job_variables() -> dict[str, str]:
    """The environment of a job: what our code needs, where S3 is, and no secret."""
    known = {name: os.environ[name] for name in FORWARDED_ENV if name in os.environ}
    if "@" in known.get("AWS_ENDPOINT_URL", ""):
        raise ClusterError(
            "AWS_ENDPOINT_URL holds a password, which a job would show to everyone who may see "
            "the cluster: set it in the environment of the nodes, and unset it here."
        )
    return {**WORKER_ENV, **known}


def has_address(cluster: Cluster) -> bool:
    """Whether settings or environment name a cluster, so that no private one is started."""
    return bool(cluster.address or os.environ.get("RAY_ADDRESS"))


def jobs_address(cluster: Cluster) -> str:
    """Address of the Jobs API, such as http://127.0.0.1:8265, of the cluster the settings name.

    cluster.address, else RAY_API_SERVER_ADDRESS, else RAY_ADDRESS, else port 8265 of this
    machine. Raises ClusterError where nothing answers there.
    """
    logging.getLogger("ray").setLevel(ray_level())
    given = (os.environ.get(name) for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"))
    address = cluster.address or next(filter(None, given), DASHBOARD)
    if not address.startswith(("http://", "https://")):
        check_reachable(address)
        address = _dashboard_of(address)
    check_reachable_tcp(address)
    return address.rstrip("/")


def _dashboard_of(address: str) -> str:
    """Address of the Jobs API of a cluster that is named as ray.init takes it."""
    try:
        with environment_variables(NO_RAY_ADDRESS):
            return get_address_for_submission_client(address)
    except (ConnectionError, RuntimeError, ValueError, OSError, RayError) as error:
        raise ClusterError(
            f"cannot ask the Ray cluster at {address} for its Jobs API: {_first_line(error)}. "
            "Name the Jobs API itself in cluster.address, such as http://127.0.0.1:8265."
        ) from error


def check_reachable(address: str) -> None:
    """Refuse an address of a Ray cluster, as ray.init takes it, where nothing answers."""
    if address in ("auto", "local"):
        return
    if address.startswith(("http://", "https://")):
        raise ClusterError(
            f"cluster.address = {address!r} is the address of Ray's Jobs API: send the command "
            "there with `python -m cluster submit`, or name the cluster as host:port."
        )
    check_reachable_tcp(address if "://" in address else f"//{address}")
    _check_speaks_ray(address.removeprefix("ray://"))


def _check_speaks_ray(place: str) -> None:
    """Refuse a port where something else listens, on which Ray would wait for minutes."""
    if "RAY_USE_TLS" in os.environ:
        return
    import grpc  # 0.1 s that private clusters need not wait

    with grpc.insecure_channel(place) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=REACH_TIMEOUT_S)
        except grpc.FutureTimeoutError as error:
            raise ClusterError(
                f"what answers at {place} is no Ray cluster: name its port 6379, or 10001 with "
                "ray:// before it, as they were set when it was started."
            ) from error


def check_reachable_tcp(url: str) -> None:
    """Knock at a cluster's door for ten seconds at most; Ray alone would wait for minutes."""
    place, name = urlsplit(url), url.removeprefix("//")
    try:
        host, port = place.hostname, place.port or {"http": 80, "https": 443}.get(place.scheme)
    except ValueError:
        host, port = None, None
    if not host or not port:
        raise ClusterError(f"cluster.address = {name!r} must read host:port or ray://host:port.")
    try:
        socket.create_connection((host, port), timeout=REACH_TIMEOUT_S).close()
    except OSError as error:
        raise ClusterError(
            f"no Ray cluster answers at {name} ({error}): start it, open the tunnel to it, or "
            "name another one in cluster.address or RAY_ADDRESS."
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def ray_level() -> int:
    """Which of Ray's messages are shown: errors, or all of them where we log everything too."""
    return logging.INFO if _verbose() else logging.ERROR


def _verbose() -> bool:
    return logging.getLogger().getEffectiveLevel() <= logging.INFO
