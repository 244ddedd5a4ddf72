"""The section [storage]."""

from typing import Annotated

from pydantic import Field

from contract.config.section import Section


class Storage(Section):
    """Where runs, prepared datasets, bundles and the registry are stored."""

    root: str = "segfleet-data"
    """A folder, or an object store address such as s3://bucket/prefix."""
    cache_gb: Annotated[float, Field(gt=0.0)] = 100.0
    """Largest size of each machine's cache of resized slices, in GB; slices that were not used for
    the longest time are deleted first."""
