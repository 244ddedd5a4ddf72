"""The section [run]."""

from typing import Annotated

from pydantic import Field

from contract.config.section import Name, Section


class Run(Section):
    """The identity of the run."""

    name: Name = "run"
    """Name of the run; the same name resumes the same run."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of all random numbers: initial weights, sample order, augmentation, splits (unless
    data.seed is set), trials."""
