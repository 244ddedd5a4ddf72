"""What AWS's instance types hold and cost: a dated table, to be looked up before relied on."""

from importlib.resources import files

from pydantic import BaseModel, ConfigDict

from contract.config import closest_match
from contract.errors import ClusterError


class Instance(BaseModel):
    """One instance type."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpus: int
    usd: float
    """Price of an hour on demand, in the table's region."""
    gpus: int = 0
    gpu: str | None = None


class Table(BaseModel):
    """The whole table, with where and when its prices held."""

    model_config = ConfigDict(frozen=True)

    region: str
    date: str
    look_up: str
    types: dict[str, Instance]

    def instance(self, name: str) -> Instance:
        """An instance type; ClusterError where the table has none of this name."""
        if name not in self.types:
            raise ClusterError(
                f"{name!r} is no instance type of the table cluster/aws/instances.json"
                f"{closest_match(name, self.types)}; add it there with its CPUs, GPUs and price."
            )
        return self.types[name]


def table() -> Table:
    """The table of this version of segfleet."""
    return Table.model_validate_json(
        files("cluster.aws").joinpath("instances.json").read_text(encoding="utf-8")
    )
