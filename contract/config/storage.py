"""The section [storage]."""

from contract.config.section import Section


class Storage(Section):
    """Where runs, prepared datasets, bundles and the registry are stored."""

    root: str = "segfleet-data"
    """A folder, or an object store address such as s3://bucket/prefix."""
