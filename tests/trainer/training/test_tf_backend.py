"""TensorFlow reads from TF_CONFIG what the backend sets in every worker."""

import socket

import pytest
import tensorflow as tf

from trainer.training import tf_backend
from trainer.training.tf_backend import find_free_address, set_tf_config


@pytest.mark.parametrize("rank", [0, 1])
def test_tensorflow_knows_the_workers_and_its_own_rank(
    rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Registered first, so that the variable is removed after the test.
    monkeypatch.setenv("TF_CONFIG", "")
    addresses = ["10.0.0.7:40001", "[fd00::7]:40002"]
    set_tf_config(addresses, rank)
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    assert resolver.cluster_spec().as_dict() == {"worker": addresses}
    assert (resolver.task_type, resolver.task_id) == ("worker", rank)


@pytest.mark.parametrize(
    ("node", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)]
)
def test_an_address_has_a_port_that_a_worker_can_listen_on(
    node: str, family: socket.AddressFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    if family is socket.AF_INET6 and not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    monkeypatch.setattr(tf_backend.ray.util, "get_node_ip_address", lambda: node)
    host, _, port = find_free_address().rpartition(":")
    assert host == (f"[{node}]" if family is socket.AF_INET6 else node)
    with socket.socket(family) as listener:
        listener.bind((node, int(port)))
