"""Connects this process to Ray: the only module that calls `ray.init`.

It is also the only module of `cluster` that reads environment variables.
"""

import json
import logging
import math
import os
import secrets
import signal
import site
import socket
import subprocess
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
from ray.exceptions import RayError

import contract
from cluster.ray_internals import dashboard_address, machine_memory_gb
from contract.config import Cluster
from contract.errors import ClusterError, UserError, first_line
from contract.temp_folders import delete_folder, find_abandoned, folder_prefix
from contract.tensorflow_variables import TENSORFLOW_VARIABLES

PACKAGES = ("contract", "cluster", "trainer", "tuning", "inference")
"""The packages that workers import."""
WORKER_ENV = {
    **TENSORFLOW_VARIABLES,
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_CPU_ALLOCATOR_USE_BFC": "true",
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TOP_PAD_": "67108864",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}
"""TF_CPP_MIN_LOG_LEVEL suppresses TensorFlow's log messages. The last saves a process per training
that watches for preempted nodes, which is not used. With those between, TensorFlow keeps the memory
of tensors between steps, and glibc that of gradients in transit: releasing and allocating it again
causes millions of page faults and costs half of the speed (docs/lab-notes.md). 32 MiB is glibc's
maximum.
"""
FORWARDED_ENV = (
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "TF_ENABLE_ONEDNN_OPTS",
)
"""Variables of this process that are passed to a job; every user of the cluster can read them."""
_JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray sets this variable in the driver of a job, to the job's runtime environment."""
DASHBOARD = "http://127.0.0.1:8265"
OBJECT_STORE_BYTES = 512 * 2**20
CONNECT_TIMEOUT_S = 10.0
_DELETE_TIMEOUT_S = 5.0
# Variables of Ray's memory monitor, and the default of the first. It is off if the second is 0.
_MEMORY_THRESHOLD, _MEMORY_MONITOR = "RAY_memory_usage_threshold", "RAY_memory_monitor_refresh_ms"
_DEFAULT_MEMORY_THRESHOLD = 0.95
# Ray gives its workers the niceness 15. On a local cluster the two threads of a step then wait for
# each of Ray's own processes, which costs a small network an eighth of its speed (docs/lab-notes).
_NICENESS = "RAY_worker_niceness"
# Between two workers that Ray ended, less memory is used.
_NEARLY = 0.85
CACHE_VARIABLE = "SEGFLEET_CACHE_DIR"
"""Names the folder of files that are shared between commands, if it is not the temporary one."""
_WORKER_TEMP = "tmp"
_TENSORFLOW_FOLDER = "segfleet-tensorflow-"
NO_RAY_ADDRESS = {"RAY_ADDRESS": None, "RAY_API_SERVER_ADDRESS": None}
"""Ray would prefer these variables to an address that is passed to it."""
# The path of the socket in Ray's session folder is limited to 107 bytes, and TMPDIR is long on some
# machines.
SHORT_FOLDER = "/tmp"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Connection:
    """The Ray cluster this process is connected to."""

    is_local: bool
    """Whether it was started by this process and ends with it."""


@contextmanager
def ray_session(cluster: Cluster) -> Iterator[Connection]:
    """Connect to the configured cluster for the duration of the block.

    The cluster is that of the Ray job in which this process runs, else cluster.address, else
    RAY_ADDRESS, else a local one on this machine that ends with the block. A process that is
    already connected stays connected. The output of workers is shown with --verbose. Raises
    ClusterError if the cluster cannot be reached.
    """
    if ray.is_initialized():
        yield Connection(is_local=False)
        return
    address = (None if _JOB_CONFIG in os.environ else cluster.address) or os.environ.get(
        "RAY_ADDRESS"
    )
    session = _existing_cluster(address) if address else _local_cluster(cluster)
    with session as connection:
        yield connection


@contextmanager
def _local_cluster(cluster: Cluster) -> Iterator[Connection]:
    """A cluster of this process only, which ends with it.

    Ray 2.60 listens on all interfaces, whatever address it is given for its node; requests without
    the token of the cluster are rejected.
    """
    _clean_up_killed_commands()
    _check_free_memory()
    folder = Path(tempfile.mkdtemp(prefix=folder_prefix(), dir=SHORT_FOLDER))
    (folder / _WORKER_TEMP).mkdir()
    ensure_auth_token()
    keep_logs = False
    try:
        _start(cluster, folder)
        yield Connection(is_local=True)
    except Exception as error:
        keep_logs = not isinstance(error, UserError)
        raise
    finally:
        ray.shutdown(wait_for_processes=True)
        if keep_logs:
            log.info("Ray's logs are kept in %s.", folder)
        else:
            _delete(folder)


def _clean_up_killed_commands() -> None:
    """End the processes of local clusters whose command was killed, and delete their folders.

    Some processes of Ray notice the end of their cluster only after a minute.
    """
    for folder in find_abandoned(SHORT_FOLDER):
        subprocess.run(["pkill", "-KILL", "-f", f"{folder}/"], check=False, capture_output=True)
        delete_folder(folder)


def _check_free_memory() -> None:
    """ClusterError if Ray would end every worker, because this machine has too little memory."""
    used, total = machine_memory_gb()
    threshold = _memory_threshold()
    if used >= threshold * total:
        raise ClusterError(
            f"{used:.1f} of the {total:.1f} GB of memory of this machine are used, and Ray ends "
            f"workers above {threshold:.0%}: end other programs, or raise {_MEMORY_THRESHOLD}."
        )


def memory_note() -> str:
    """A sentence if the memory of this machine is nearly used up, which ends workers; else ""."""
    used, total = machine_memory_gb()
    threshold = _memory_threshold()
    if used < _NEARLY * threshold * total:
        return ""
    return (
        f" {used:.1f} of the {total:.1f} GB of memory of this machine are used; Ray ends workers "
        f"above {threshold:.0%}."
    )


def _memory_threshold() -> float:
    """The used fraction of memory above which Ray ends workers; infinite if it never does."""
    if os.environ.get(_MEMORY_MONITOR) == "0":
        return math.inf
    return float(os.environ.get(_MEMORY_THRESHOLD, _DEFAULT_MEMORY_THRESHOLD))


def _delete(folder: Path) -> None:
    """Delete a local cluster's folder, to which Ray's last processes may still write briefly."""
    deadline = time.monotonic() + _DELETE_TIMEOUT_S
    delete_folder(folder)
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
        delete_folder(folder)


def _start(cluster: Cluster, folder: Path) -> None:
    """Start Ray with its files in a folder; ClusterError if it does not start."""
    # The workers inherit the environment of this process. The same variables in a runtime_env make
    # the start of actors 0.7 to 1 s slower on 2 cores, because workers cannot be prestarted.
    with environment_variables(_local_cluster_variables(folder)), _keep_sigterm_handler():
        try:
            ray.init(
                address="local",
                num_cpus=cluster.cpus,
                include_dashboard=False,  # it is not used, and starting it takes time
                object_store_memory=OBJECT_STORE_BYTES,
                logging_level=ray_level(),
                log_to_driver=_verbose(),
                # The default folder can be read by every user of the machine.
                _temp_dir=str(folder / "ray"),
            )
        except Exception as error:  # Ray raises plain Exceptions
            raise ClusterError(
                f"Ray does not start on this machine: {first_line(error)}. Check its load, memory "
                "and disk space and try again, or reduce cluster.cpus."
            ) from error


@contextmanager
def _existing_cluster(address: str) -> Iterator[Connection]:
    """A running cluster, which keeps running when the block ends."""
    check_reachable(address)
    try:
        with _keep_sigterm_handler():
            ray.init(
                address=address,
                logging_level=ray_level(),
                log_to_driver=_verbose(),
                runtime_env=_runtime_env(),
            )
    except (ConnectionError, RuntimeError, ValueError, OSError, RayError) as error:
        raise ClusterError(
            f"cannot connect to the Ray cluster at {address}: {first_line(error)}. Check whether "
            "it requires a token (RAY_AUTH_MODE=token, ~/.ray/auth_token). From a machine that is "
            "not one of its nodes, use `segfleet submit`."
        ) from error
    try:
        yield Connection(is_local=False)
    finally:
        ray.shutdown()


@contextmanager
def _keep_sigterm_handler() -> Iterator[None]:
    """Restore this process's SIGTERM handler, which ray.init replaces.

    Ray's handler kills its processes while threads still talk to them, which then print tracebacks.
    """
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:
        # Ray's handler has received a SIGTERM in the meantime.
        if callable(handler):
            handler(signal.SIGTERM, None)
        raise
    finally:
        # Without a handler of its own, the process would leave Ray's processes running.
        if callable(handler) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def ensure_auth_token() -> None:
    """Create a secret token, so that other users of the machine cannot use the local cluster.

    Ray would write a token to ~/.ray/auth_token, where two clusters that start at the same time
    overwrite each other's. Ray keeps the first token that it reads, so this process keeps it too.
    """
    variables = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    if not any(name in os.environ for name in variables):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _local_cluster_variables(folder: Path) -> Mapping[str, str]:
    """The environment variables of a local cluster's workers, added to those of this process.

    Workers end without running the functions that delete their temporary files (TensorFlow writes
    one for each converted function), so these files are in the folder of the cluster.
    """
    variables = {
        **WORKER_ENV,
        **_forwarded_variables(),
        _NICENESS: os.environ.get(_NICENESS, "0"),
        CACHE_VARIABLE: tempfile.gettempdir(),
        "TMPDIR": str(folder / _WORKER_TEMP),
    }
    code = str(Path(contract.__file__).parents[1])
    if code in site.getsitepackages():
        return variables
    python_path = os.environ.get("PYTHONPATH", "")
    return {**variables, "PYTHONPATH": os.pathsep.join(filter(None, (code, python_path)))}


def cache_folder() -> Path:
    """The folder for files that the processes of this machine share, also between commands."""
    return Path(os.environ.get(CACHE_VARIABLE) or tempfile.gettempdir())


@contextmanager
def process_temp_folder() -> Iterator[None]:
    """Give this process a temporary folder of its own, which is deleted at the end of the block.

    TensorFlow writes a file for each function that it converts, and deletes it when Python ends.
    Workers of Ray end without that, and so does a killed process, whose folder the next call of
    this function on the machine deletes.
    """
    shared, before = cache_folder(), tempfile.tempdir
    for folder in find_abandoned(str(shared)):
        if folder.name.startswith(_TENSORFLOW_FOLDER):
            delete_folder(folder)
    folder = tempfile.TemporaryDirectory(
        prefix=folder_prefix("tensorflow"), ignore_cleanup_errors=True
    )
    with folder as own, environment_variables({CACHE_VARIABLE: str(shared)}):
        tempfile.tempdir = own
        try:
            yield
        finally:
            tempfile.tempdir = before


@contextmanager
def environment_variables(variables: Mapping[str, str | None]) -> Iterator[None]:
    """Set environment variables (None: unset) for the duration of the block."""
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


def _runtime_env() -> dict[str, Any]:
    """The runtime environment of a running cluster's workers: packages and variables, no secrets.

    Inside a Ray job, whose workers get the packages as the job does, these are only the variables
    that the job does not set: Ray does not allow to set one twice.
    """
    if job_config := os.environ.get(_JOB_CONFIG):
        set_by_job = (json.loads(job_config).get("runtime_env") or {}).get("env_vars") or {}
        return {"env_vars": {k: v for k, v in WORKER_ENV.items() if k not in set_by_job}}
    folder = Path(contract.__file__).parents[1]
    return {
        "env_vars": job_variables(),
        "py_modules": [str(folder / name) for name in PACKAGES],
        "excludes": ["__pycache__"],
    }


def job_variables() -> dict[str, str]:
    """The environment variables of a job: those of the workers and FORWARDED_ENV, no secrets."""
    forwarded = _forwarded_variables()
    if "@" in forwarded.get("AWS_ENDPOINT_URL", ""):
        raise ClusterError(
            "AWS_ENDPOINT_URL contains a password, which a job would show to every user of the "
            "cluster: set it in the environment of the nodes, and unset it here."
        )
    return {**WORKER_ENV, **forwarded}


def _forwarded_variables() -> dict[str, str]:
    return {name: os.environ[name] for name in FORWARDED_ENV if name in os.environ}


def has_address(cluster: Cluster) -> bool:
    """Whether a cluster is configured, by the settings or RAY_ADDRESS, so none is started."""
    return bool(cluster.address or os.environ.get("RAY_ADDRESS"))


def jobs_address(cluster: Cluster) -> str:
    """The address of the configured cluster's Jobs API, such as http://127.0.0.1:8265.

    It is cluster.address, else RAY_API_SERVER_ADDRESS, else RAY_ADDRESS, else port 8265 of this
    machine. Raises ClusterError if nothing responds there.
    """
    logging.getLogger("ray").setLevel(ray_level())
    values = (os.environ.get(name) for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"))
    address = cluster.address or next(filter(None, values), DASHBOARD)
    if not address.startswith(("http://", "https://")):
        check_reachable(address)
        address = _find_dashboard(address)
    check_reachable_tcp(address)
    return address.rstrip("/")


def _find_dashboard(address: str) -> str:
    """The address of the Jobs API of a cluster that is named as ray.init takes it."""
    try:
        with environment_variables(NO_RAY_ADDRESS):
            return dashboard_address(address)
    except (ConnectionError, RuntimeError, ValueError, OSError, RayError) as error:
        raise ClusterError(
            f"cannot find the Jobs API of the Ray cluster at {address}: {first_line(error)}. "
            "Set cluster.address to the address of the Jobs API, such as http://127.0.0.1:8265."
        ) from error


def check_reachable(address: str) -> None:
    """ClusterError if nothing responds at the address of a Ray cluster, as ray.init takes it."""
    if address in ("auto", "local"):
        return
    if address.startswith(("http://", "https://")):
        raise ClusterError(
            f"cluster.address = {address!r} is the address of Ray's Jobs API: use "
            "`segfleet submit`, or set it to the host:port of the cluster."
        )
    check_reachable_tcp(address if "://" in address else f"//{address}")
    _check_is_ray(address.removeprefix("ray://"))


def _check_is_ray(address: str) -> None:
    """ClusterError if something else listens there, for which Ray would wait minutes."""
    if "RAY_USE_TLS" in os.environ:
        return
    import grpc  # takes 0.1 s, and local clusters do not need it

    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=CONNECT_TIMEOUT_S)
        except grpc.FutureTimeoutError as error:
            raise ClusterError(
                f"the server at {address} is not a Ray cluster: use its port 6379, or ray:// and "
                "its port 10001, or the ports it was started with."
            ) from error


def check_reachable_tcp(url: str) -> None:
    """ClusterError if nothing accepts a connection within 10 s; Ray would wait for minutes."""
    parts, name = urlsplit(url), url.removeprefix("//")
    try:
        host, port = parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        host, port = None, None
    if not host or not port:
        raise ClusterError(
            f"cluster.address = {name!r} must have the form host:port or ray://host:port."
        )
    try:
        socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise ClusterError(
            f"no Ray cluster responds at {name} ({error}): start it, open the tunnel to it, or "
            "set cluster.address or RAY_ADDRESS to another one."
        ) from error


def ray_level() -> int:
    """The level of Ray's log messages: INFO with --verbose, else ERROR."""
    return logging.INFO if _verbose() else logging.ERROR


def _verbose() -> bool:
    return logging.getLogger().getEffectiveLevel() <= logging.INFO
