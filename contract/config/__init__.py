"""Every setting, and how a TOML file becomes one validated Config.

One file per section. May import contract.errors, and the values segmentation_class and
post_processing of contract.imaging.
"""

from contract.config.cluster import Cloud, Cluster, Kubernetes
from contract.config.data import Augment, Data, Phantom
from contract.config.network import NETWORKS, Network, UNet, encoder_weights, network_name
from contract.config.predict import Predict
from contract.config.root import (
    Config,
    check_searched_networks,
    closest_match,
    describe_error,
    sections,
    set_value,
    setting_types,
    validate,
)
from contract.config.run import Run
from contract.config.section import Section, SettingValue
from contract.config.serve import Serve
from contract.config.storage import Storage
from contract.config.sweep import ParameterSpec, Sweep
from contract.config.train import Train

__all__ = [
    "NETWORKS",
    "Augment",
    "Cloud",
    "Cluster",
    "Config",
    "Data",
    "Kubernetes",
    "Network",
    "ParameterSpec",
    "Phantom",
    "Predict",
    "Run",
    "Section",
    "Serve",
    "SettingValue",
    "Storage",
    "Sweep",
    "Train",
    "UNet",
    "check_searched_networks",
    "closest_match",
    "describe_error",
    "encoder_weights",
    "network_name",
    "sections",
    "set_value",
    "setting_types",
    "validate",
]
