"""The sections [sweep] and [sweep.space]."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from contract.config.section import Interval, Section, SettingValue


class ParameterSpec(Section):
    """The values one setting may take in a sweep: exactly one of the four keys."""

    choice: Annotated[tuple[SettingValue, ...], Field(strict=False)] | None = None
    """Any of these values."""
    uniform: Interval | None = None
    """Any number from low to high."""
    loguniform: Interval | None = None
    """Any number from low to high, uniformly on a logarithmic scale."""
    # Another name in Python, where a field called int would hide the type.
    integer: Annotated[tuple[int, int], Field(strict=False)] | None = Field(
        default=None, alias="int"
    )
    """Any whole number from low to high, both included."""
    networks: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] | None = None
    """For a setting of [network]: the networks that it counts for, in a sweep over network.name;
    absent: all of the sweep."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = list(self.model_dump(exclude_none=True, exclude={"networks"}))
        if len(given) != 1:
            raise ValueError("give exactly one of choice, uniform, loguniform, int")
        if self.choice is not None:
            if not self.choice:
                raise ValueError("choice needs at least one value")
            return self
        limits = self.uniform or self.loguniform or self.integer
        assert limits, "one key is given, and it is not choice"
        low, high = limits
        if low >= high:
            raise ValueError(f"{given[0]} = [{low}, {high}]: the first must be the lower number")
        if given[0] == "loguniform" and low <= 0:
            raise ValueError("loguniform needs numbers above 0")
        return self

    def examples(self) -> tuple[SettingValue, ...]:
        """Values that represent the range when its type and limits are checked."""
        return self.choice or self.uniform or self.loguniform or self.integer or ()


class Sweep(Section):
    """A search over settings with Ray Tune."""

    num_samples: Annotated[int, Field(ge=1, le=10000)] = 8
    """Maximum number of trials."""
    time_budget_s: Annotated[float, Field(gt=0.0)] | None = None
    """Seconds after which no epoch is started; absent: no limit."""
    search_algorithm: Literal["random", "tpe"] = "random"
    """random: independent samples; tpe: Optuna's tree-structured Parzen estimator."""
    max_concurrent_trials: Annotated[int, Field(ge=1)] | None = None
    """Maximum number of concurrent trials, or folds of a cross-validation; absent: as many as the
    cluster can hold."""
    num_workers: Annotated[int, Field(ge=1)] | None = None
    """Training workers of a trial; absent: train.num_workers. With 1, a trial trains in its own
    process, which starts much faster than a worker group."""
    cross_validate: bool = False
    """Train each trial on all data.folds folds, and score it by the mean over the folds; needs one
    worker per trial."""
    early_stopping: bool = True
    """Stop poor trials early by ASHA (asynchronous successive halving)."""
    grace_period: Annotated[int, Field(ge=1)] = 2
    """ASHA: epochs that every trial trains."""
    reduction_factor: Annotated[int, Field(ge=2, le=16)] = 3
    """ASHA: one trial in this many continues at each rung."""
    space: Mapping[str, ParameterSpec] = {}
    """Settings searched, as "section.key" = { choice | uniform | loguniform | int = [...] }."""

    @property
    def networks(self) -> tuple[str, ...]:
        """The networks of the trials, if network.name is searched; else none."""
        names = self.space["network.name"].choice if "network.name" in self.space else None
        return tuple(str(name) for name in names or ())
