"""Ray Train's backend for MultiWorkerMirroredStrategy: sets TF_CONFIG in every worker.

Ray's TensorflowTrainer does the same. Importing it imports TensorFlow in the driver and then in
Ray Train's controller, which do not need it: six seconds of every start on two cores
(docs/decisions/0009).
"""

import json
import os
import socket
from typing import Any

import ray
from ray.train.backend import Backend, BackendConfig


class MultiWorkerBackend(Backend):
    """Sets TF_CONFIG in every worker before training starts."""

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        """Collect an address from each worker, and send the list to all of them."""
        addresses = worker_group.execute(find_free_address)
        pending = [
            worker_group.execute_single_async(rank, set_tf_config, addresses, rank)
            for rank in range(len(addresses))
        ]
        ray.get(pending)


class MultiWorkerConfig(BackendConfig):
    """Makes Ray Train prepare its workers for MultiWorkerMirroredStrategy."""

    @property
    def backend_cls(self) -> type[Backend]:
        """The backend that prepares them."""
        return MultiWorkerBackend


def find_free_address() -> str:
    """This node's address with a free port: 10.0.0.7:40001, or [fd00::7]:40001."""
    host = ray.util.get_node_ip_address()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.bind(("", 0))
        port = listener.getsockname()[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def set_tf_config(addresses: list[str], rank: int) -> None:
    """Make this process the worker of a rank, as tf.distribute reads it from TF_CONFIG."""
    task = {"type": "worker", "index": rank}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
