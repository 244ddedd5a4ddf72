"""A worker group's addresses: what MultiWorkerMirroredStrategy must know of the other workers.

Ray's TensorflowTrainer tells a group the same. Importing it brings all of TensorFlow into the
driver, and after it into Ray Train's controller, which do without: six seconds of every start on
two cores.
"""

import json
import os
import socket
from typing import Any

import ray
from ray.train.backend import Backend, BackendConfig


class MultiWorkerBackend(Backend):
    """Sets TF_CONFIG in every worker before training begins."""

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        """Ask each worker for an address, and tell all of them to each."""
        addresses = worker_group.execute(find_free_address)
        told = [
            worker_group.execute_single_async(rank, set_tf_config, addresses, rank)
            for rank in range(len(addresses))
        ]
        ray.get(told)


class MultiWorkerConfig(BackendConfig):
    """Has Ray Train prepare its workers for MultiWorkerMirroredStrategy."""

    @property
    def backend_cls(self) -> type[Backend]:
        """What prepares them."""
        return MultiWorkerBackend


def find_free_address() -> str:
    """This node's address with a port that nothing listens on: 10.0.0.7:40001, [fd00::7]:40001."""
    host = ray.util.get_node_ip_address()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as door:
        door.bind(("", 0))
        port = door.getsockname()[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def set_tf_config(addresses: list[str], rank: int) -> None:
    """Make this process the worker of a rank, as tf.distribute reads it from TF_CONFIG."""
    task = {"type": "worker", "index": rank}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
