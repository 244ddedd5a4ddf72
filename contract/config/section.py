"""The base class of all sections, and types that several sections use."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# In strict mode a pair would have to be a tuple, which TOML does not have.
IntPair = Annotated[tuple[int, int], Field(strict=False)]
SettingValue = bool | int | float | str | IntPair
"""The value of a setting that can be searched."""

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Interval = Annotated[tuple[float, float], Field(strict=False)]
WHOLE = (0.0, 1.0)
"""A Range of everything."""
Range = Annotated[
    tuple[Fraction, Fraction],
    Field(strict=False, json_schema_extra={"title": "[start, end]"}),
]
Finite = Annotated[float, Field(allow_inf_nan=False)]
# Part of metric names and of file columns.
ClassName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$", max_length=40)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=80)]


class Section(BaseModel):
    """A group of settings: frozen; unknown keys are errors, and so are "3" or true for 3."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_default=True,
        serialize_by_alias=True,
    )
