"""Resources and prices of AWS instance types: a dated table. Look up current prices yourself."""

from importlib.resources import files

from pydantic import BaseModel, ConfigDict

from contract.config import closest_match
from contract.errors import ClusterError


class Instance(BaseModel):
    """One instance type."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpus: int
    usd: float
    """On-demand price of an hour in the region of the table."""
    gpus: int = 0
    gpu: str | None = None


class InstanceTable(BaseModel):
    """All instance types, with the place and date of the prices."""

    model_config = ConfigDict(frozen=True)

    region: str
    date: str
    look_up: str
    types: dict[str, Instance]

    def instance(self, name: str) -> Instance:
        """An instance type; ClusterError if the table does not contain it."""
        if name not in self.types:
            raise ClusterError(
                f"{name!r} is not an instance type in the table cluster/aws/instances.json"
                f"{closest_match(name, self.types)}; add it there with its CPUs, GPUs and price."
            )
        return self.types[name]


def load_table() -> InstanceTable:
    """The table of this version of segfleet."""
    return InstanceTable.model_validate_json(
        files("cluster.aws").joinpath("instances.json").read_text(encoding="utf-8")
    )
