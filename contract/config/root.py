"""Every setting of segfleet: its type, default, limits and meaning.

A `Config` is frozen. It is made by `contract.config.loader.load` or by `Config.with_values`,
both of which validate the whole tree, so a function that receives a section may trust it.
docs/settings.md is generated from this file.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from ipaddress import ip_network
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)

from contract.errors import ConfigError, as_sentence

Scalar = bool | int | float | str

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
# Strict, a pair would have to be a tuple, which TOML does not know.
Interval = Annotated[tuple[float, float], Field(strict=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=80)]


class Section(BaseModel):
    """A group of settings: frozen; unknown keys are refused, and so is "3" or true for 3."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_default=True,
        serialize_by_alias=True,
    )


class Run(Section):
    """Which run this is."""

    name: Name = "run"
    """Name of the run; the same name continues the same run."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of everything random: initial weights, sample order, augmentation, splits, trials."""


class Storage(Section):
    """Where runs, prepared datasets, bundles and the registry are kept."""

    root: str = "segfleet-data"
    """A folder, or an object store address such as s3://bucket/prefix."""


class Cloud(Section):
    """The cluster that `python -m cluster up` makes on AWS."""

    name: Name = "main"
    """Name of the cluster: what is made for it is called segfleet-NAME. Two clusters of an AWS
    account need two names."""
    region: Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")] = "us-east-1"
    """AWS region of the nodes, and of the bucket of storage.root where `up` has to make it."""
    head_type: str = "m6i.xlarge"
    """Instance type of the head node, which is never a spot instance."""
    worker_type: str = "g5.xlarge"
    """Instance type of the worker nodes."""
    min_workers: Annotated[int, Field(ge=0, le=100)] = 0
    """Worker nodes that are always kept."""
    max_workers: Annotated[int, Field(ge=1, le=100)] = 2
    """Worker nodes at most; they come and go as the work asks for them."""
    spot: bool = True
    """Take spot instances as workers, and on-demand ones where no spot instance is to be had."""
    idle_minutes: Annotated[int, Field(ge=1)] = 10
    """Minutes without work after which a worker node is given back."""
    disk_gb: Annotated[int, Field(ge=60, le=2000)] = 120
    """Size of a node's disk in GB; images and packages need 60."""
    machine_image: str | None = None
    """AMI of the nodes (ami-…); absent: AWS's newest Deep Learning Base image with GPU driver."""
    image: str = "rayproject/ray:2.60.0-py311-gpu"
    """Container image the nodes work in; its Ray must be the Ray of this machine."""
    ssh_from: str | None = None
    """The only addresses that may reach the head by SSH, as a CIDR block (203.0.113.7/32: your
    own address); needed by `up`."""
    subnet: str | None = None
    """Subnet of the nodes (subnet-…); absent: the default one of the region."""
    private_addresses: bool = False
    """Give the nodes no public address; needs a subnet that you reach by VPN and that reaches the
    internet by NAT."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_workers > self.max_workers:
            raise ValueError("cluster.cloud.min_workers must not be above max_workers")
        if self.private_addresses and self.subnet is None:
            raise ValueError("cluster.cloud.private_addresses needs cluster.cloud.subnet")
        if self.ssh_from is not None:
            _check_closed_block(self.ssh_from)
        return self


class Cluster(Section):
    """The Ray cluster that does the work."""

    address: str | None = None
    """Address of a running cluster: host:port on one of its nodes, ray://host:port, or
    http://host:8265 to send jobs to it; absent: RAY_ADDRESS, else a private cluster on this
    machine for the time of the command."""
    cpus: Annotated[int, Field(ge=1)] | None = None
    """CPUs offered by the private cluster; absent: all of this machine's."""
    start_timeout_s: Annotated[float, Field(gt=0)] = 300.0
    """Seconds the workers may take to be placed and started before the run is given up."""
    cloud: Cloud = Cloud()


class Phantom(Section):
    """The built-in CT phantom: invented patients, for a first try without data."""

    train_patients: Annotated[int, Field(ge=1, le=1000)] = 12
    """Invented patients in the training split."""
    valid_patients: Annotated[int, Field(ge=1, le=1000)] = 4
    """Invented patients in the validation split."""
    test_patients: Annotated[int, Field(ge=1, le=1000)] = 4
    """Invented patients in the test split."""
    slices: Annotated[int, Field(ge=1, le=500)] = 12
    """Slices of each invented patient."""
    size: Annotated[int, Field(ge=64, le=1024)] = 128
    """Height and width of a slice in pixels."""


class Augment(Section):
    """Random changes of training samples.

    Geometry moves image and mask alike; intensity changes the image alone.
    """

    flip_horizontal: Fraction = 0.0
    """Probability of a left-right flip (a CT slice is never mirrored: leave it at 0 there)."""
    flip_vertical: Fraction = 0.0
    """Probability of an up-down flip."""
    geometry: Fraction = 1.0
    """Probability that a sample is rotated, scaled and shifted."""
    rotation: Annotated[float, Field(ge=0.0, le=180.0)] = 20.0
    """Largest rotation in degrees, drawn uniformly on both sides of 0."""
    scale: Annotated[float, Field(ge=1.0, le=3.0)] = 1.35
    """Largest zoom s; the factor is drawn log-uniformly from 1/s to s."""
    shift: Annotated[float, Field(ge=0.0, le=0.5)] = 0.1
    """Largest shift as a fraction of the image's side."""
    gamma: Annotated[float, Field(ge=1.0, le=4.0)] = 1.5
    """Largest exponent g; intensities in 0..1 are raised to a power, drawn log-uniformly from 1/g
    to g."""
    gain: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    """Largest relative change of brightness: a factor from 1-gain to 1+gain."""
    noise: Annotated[float, Field(ge=0.0, le=1.0)] = 0.02
    """Standard deviation of gaussian noise on intensities in 0..1."""


class Data(Section):
    """Slices, masks and how they are split."""

    source: Literal["phantom", "folder"] = "phantom"
    """phantom: the built-in CT phantom; folder: your own slices and masks."""
    root: str | None = None
    """Folder or s3:// address of your slices; for source = "folder", which needs it."""
    layout: Literal["presplit", "unsplit"] = "presplit"
    """presplit: root holds train|valid|test, each with images and masks; unsplit: root holds images
    and masks, and patients are divided by segfleet."""
    patient_id_regex: str = r"^([^-]+)-"
    """Regular expression that finds the patient in a file name; its first group if it has one, else
    all it matches."""
    valid_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.15
    """Share of the patients of a pool that validate."""
    test_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.15
    """Share of the patients of a pool that test."""
    allow_patient_overlap: bool = False
    """Accept a patient who stands in two splits, or whom an evaluated network has learnt from (the
    figures are then not by patient)."""
    mask_threshold: Annotated[int, Field(ge=0, lt=65535)] = 127
    """A mask pixel is foreground where its value is greater than this."""
    intensity_low: Finite = 0.0
    """Raw intensity that becomes 0.0; lower ones are clipped."""
    intensity_high: Finite = 255.0
    """Raw intensity that becomes 1.0; higher ones are clipped."""
    phantom: Phantom = Phantom()
    augment: Augment = Augment()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.source == "folder" and self.root is None:
            raise ValueError('data.source = "folder" needs data.root, the folder of your slices')
        if self.source == "phantom" and self.root is not None:
            raise ValueError(
                f'data.root = "{self.root}" is not read while data.source = "phantom": set '
                'data.source = "folder", or leave data.root out (`data.root=` on the command line)'
            )
        if self.valid_fraction + self.test_fraction >= 1.0:
            raise ValueError(
                "data.valid_fraction and data.test_fraction leave no patient to train on: "
                "their sum must be below 1"
            )
        if self.intensity_low >= self.intensity_high:
            raise ValueError("data.intensity_low must be below data.intensity_high")
        try:
            re.compile(self.patient_id_regex)
        except re.error as error:
            raise ValueError(f"data.patient_id_regex is no regular expression: {error}") from error
        return self


class Network(Section):
    """The network that maps a slice to the probability of foreground."""

    name: Literal["unet"] = "unet"
    """Which network; unet is the flexible UNet (Ronneberger 2015)."""
    image_size: Annotated[int, Field(ge=16, le=2048)] = 128
    """Height and width the slices are resized to; divisible by 2^(num_layers-1)."""
    image_channels: Literal[1, 3] = 1
    """1: grey; 3: RGB. Slices of the other kind are converted."""
    base_filters: Annotated[int, Field(ge=1, le=512)] = 16
    """Filters of the first level; they double with each level."""
    max_filters: Annotated[int, Field(ge=1)] | None = None
    """Cap on the filters of a level; absent: none."""
    base_kernels: Annotated[int, Field(ge=1, le=31)] = 3
    """Kernel side of the first level; shrinks by 2 with each level down to 3. Odd."""
    num_layers: Annotated[int, Field(ge=2, le=10)] = 5
    """Levels of the UNet, the deepest included."""
    dilation: Annotated[int, Field(ge=1, le=16)] = 1
    """Dilation of the first level; shrinks by 1 with each level down to 1."""
    dropout_rate: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05
    """Dropout of a level is this times the level's number (0 at the first), at most 0.5."""
    normalization: Literal["none", "batch", "sync_batch", "group"] = "group"
    """batch: each worker's own statistics; sync_batch: over all workers; group: per sample."""
    activation: Literal["relu", "leaky_relu", "elu", "mish", "silu"] = "relu"
    """Activation after each convolution."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        step = 2 ** (self.num_layers - 1)
        if self.image_size % step:
            raise ValueError(
                f"network.image_size = {self.image_size} must be divisible by {step} "
                f"(2^(num_layers-1), num_layers = {self.num_layers})"
            )
        if self.base_kernels % 2 == 0:
            raise ValueError(f"network.base_kernels = {self.base_kernels} must be odd")
        return self


class Train(Section):
    """How the network is trained."""

    num_workers: Annotated[int, Field(ge=1, le=1024)] = 2
    """Training workers; with more than one, gradients are summed by MultiWorkerMirroredStrategy."""
    cpus_per_worker: Annotated[int, Field(ge=1)] = 1
    """CPUs reserved for a worker; also its number of TensorFlow threads."""
    gpus_per_worker: Annotated[int, Field(ge=0, le=1)] = 0
    """GPUs reserved for a worker."""
    epochs: Annotated[int, Field(ge=1)] = 20
    """Epochs at most."""
    steps_per_epoch: Annotated[int, Field(ge=1)] | None = None
    """Steps of an epoch; absent: as many whole batches as the training split fills."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Samples of a step over all workers together; divisible by workers."""
    loss: Literal[
        "binary_crossentropy",
        "dice_loss",
        "bce_dice_loss",
        "iou_loss",
        "bce_iou_loss",
        "basnet_hybrid_loss",
    ] = "bce_dice_loss"
    """Loss, computed in float32 (docs/trainer.md gives the formulas)."""
    optimizer: Literal["adam", "adamw", "sgd"] = "adamw"
    """Optimiser; sgd is with Nesterov momentum 0.99."""
    learning_rate: Annotated[float, Field(gt=0.0, le=10.0)] = 2e-3
    """Highest learning rate."""
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 1e-4
    """Decoupled weight decay of adamw."""
    clip_value: Annotated[float, Field(gt=0.0)] | None = None
    """Clip every element of a gradient to this size; absent: no clipping."""
    clip_norm: Annotated[float, Field(gt=0.0)] | None = None
    """Clip the norm over all gradients to this size; absent: no clipping."""
    lr_schedule: Literal["constant", "plateau", "polynomial", "cosine"] = "polynomial"
    """Learning rate over time: plateau is the learning-rate reducer; polynomial has power 0.9."""
    warmup_epochs: Annotated[float, Field(ge=0.0)] = 0.0
    """Epochs over which the learning rate rises linearly from 0."""
    plateau_factor: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.4
    """schedule = "plateau": what the learning rate is multiplied by."""
    plateau_patience: Annotated[int, Field(ge=1)] = 4
    """schedule = "plateau": epochs without a better score before it is."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Epochs without a better score before training stops early; absent: never."""
    monitor: Literal["val_loss", "val_dice_coef", "val_iou_coef", "val_binary_accuracy"] = (
        "val_dice_coef"
    )
    """The score that decides the best checkpoint, early stopping and the plateau."""
    keep_checkpoints: Annotated[int, Field(ge=1, le=100)] = 2
    """Best checkpoints kept, besides the newest."""
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto"
    """auto: bfloat16 where the hardware gains by it, float16 on older GPUs, else float32."""
    preview_images: Annotated[int, Field(ge=0, le=64)] = 6
    """Validation slices drawn after each epoch."""
    max_failures: Annotated[int, Field(ge=0)] = 3
    """How often the workers may be lost and started again before the run fails."""
    stall_timeout_s: Annotated[float, Field(gt=0.0)] = 900.0
    """Seconds without a finished step after which a worker is taken for stuck and restarted."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.batch_size % self.num_workers:
            raise ValueError(
                f"train.batch_size = {self.batch_size} must be divisible by "
                f"train.num_workers = {self.num_workers}"
            )
        if self.clip_value is not None and self.clip_norm is not None:
            raise ValueError("set train.clip_value or train.clip_norm, not both")
        if self.warmup_epochs >= self.epochs:
            raise ValueError("train.warmup_epochs must be below train.epochs")
        return self


class Predict(Section):
    """How a bundle turns a slice into a mask."""

    threshold: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    """A pixel is foreground where its probability is greater than this; stored in the bundle."""
    sliding_window: bool = False
    """Cut slices larger than network.image_size into overlapping tiles of that size instead of
    resizing them; the slices of the train and valid splits must have exactly that size."""
    overlap: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.5
    """Overlap of neighbouring windows as a fraction of their side: 0.0, 0.5 or 0.75. With
    sliding_window, network.image_size must be divisible by 1 / (1 - overlap)."""
    batch_size: Annotated[int, Field(ge=1, le=1024)] = 8
    """Slices (or tiles) given to the network at once."""

    @field_validator("overlap")
    @classmethod
    def _check_overlap(cls, overlap: float) -> float:
        if overlap not in (0.0, 0.5, 0.75):
            raise ValueError(f"predict.overlap = {overlap} must be 0.0, 0.5 or 0.75")
        return overlap

    @property
    def windows_per_side(self) -> int:
        """How many window strides fit into the side of one window: 1, 2 or 4."""
        return round(1 / (1 - self.overlap))


class ParameterSpec(Section):
    """The values one setting may take in a sweep: exactly one of the four keys."""

    choice: Annotated[tuple[Scalar, ...], Field(strict=False)] | None = None
    """Any of these values."""
    uniform: Interval | None = None
    """Any number from low to high."""
    loguniform: Interval | None = None
    """Any number from low to high, each decade as likely."""
    # Another name in Python, where a field called int would hide the type.
    integer: Annotated[tuple[int, int], Field(strict=False)] | None = Field(
        default=None, alias="int"
    )
    """Any whole number from low to high, both included."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = list(self.model_dump(exclude_none=True))
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
            raise ValueError(f"{given[0]} = [{low}, {high}]: the first must be the lower one")
        if given[0] == "loguniform" and low <= 0:
            raise ValueError("loguniform needs numbers above 0")
        return self

    def examples(self) -> tuple[Scalar, ...]:
        """Values that stand for the whole range when its type and limits are checked."""
        return self.choice or self.uniform or self.loguniform or self.integer or ()


class Sweep(Section):
    """A search over settings with Ray Tune."""

    num_samples: Annotated[int, Field(ge=1, le=10000)] = 8
    """Trials at most."""
    time_budget_s: Annotated[float, Field(gt=0.0)] | None = None
    """Seconds after which no more epochs are started; absent: no limit."""
    search_algorithm: Literal["random", "tpe"] = "random"
    """random: independent draws; tpe: Optuna's tree-structured Parzen estimator."""
    max_concurrent_trials: Annotated[int, Field(ge=1)] | None = None
    """Trials at once at most; absent: as many as the cluster holds."""
    num_workers: Annotated[int, Field(ge=1)] | None = None
    """Training workers of a trial; absent: train.num_workers. With 1, a trial trains in its own
    process, which starts far sooner than a worker group."""
    early_stopping: bool = True
    """Stop poor trials early by ASHA (asynchronous successive halving)."""
    grace_period: Annotated[int, Field(ge=1)] = 2
    """ASHA: epochs every trial is given."""
    reduction_factor: Annotated[int, Field(ge=2, le=16)] = 3
    """ASHA: one trial in this many goes on at each rung."""
    space: Mapping[str, ParameterSpec] = {}
    """Settings searched, as "section.key" = { choice | uniform | loguniform | int = [...] }."""


class Serve(Section):
    """The service that turns slices into masks over HTTP."""

    model: str = "demo@production"
    """Which registered model is hosted: NAME@STAGE or NAME@VERSION."""
    host: str = "127.0.0.1"
    """Address the service listens on."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """Port the service listens on."""
    num_replicas: Annotated[int, Field(ge=1, le=1000)] = 1
    """Replicas of the model."""
    cpus_per_replica: Annotated[float, Field(gt=0.0)] = 1.0
    """CPUs reserved for a replica."""
    gpus_per_replica: Annotated[float, Field(ge=0.0)] = 0.0
    """GPUs reserved for a replica."""
    max_batch_size: Annotated[int, Field(ge=1, le=256)] = 8
    """Requests answered by one call of the network at most."""
    batch_wait_timeout_s: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Seconds a request may wait for others to join its batch."""
    max_queued_requests: Annotated[int, Field(ge=1)] = 64
    """Requests of at most max_bytes each that may wait in a replica before new ones are turned away
    with 503."""
    max_bytes: Annotated[int, Field(ge=1024)] = 20_000_000
    """Largest request body in bytes."""
    max_pixels: Annotated[int, Field(ge=1024)] = 16_777_216
    """Largest image in pixels, read from its header before decoding."""
    api_key: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")] | None = None
    """Name of the environment variable that holds the key clients must send as "Authorization:
    Bearer KEY"; absent: no key is asked for."""
    request_timeout_s: Annotated[float, Field(gt=0.0)] = 60.0
    """Seconds after which a request that is not answered yet is given up (408)."""
    registry_poll_interval_s: Annotated[float, Field(gt=0.0)] = 5.0
    """Seconds between two looks at the registry for a new promotion."""


class Config(Section):
    """The whole of the settings, one section a table of the TOML file."""

    run: Run = Run()
    storage: Storage = Storage()
    cluster: Cluster = Cluster()
    data: Data = Data()
    network: Network = Network()
    train: Train = Train()
    predict: Predict = Predict()
    sweep: Sweep = Sweep()
    serve: Serve = Serve()

    @field_validator("sweep")
    @classmethod
    def _space_names_settings(cls, sweep: Sweep) -> Sweep:
        known = setting_types()
        for key in sweep.space:
            if key not in known:
                raise ValueError(
                    f"sweep.space names {key!r}, which is no setting{closest_match(key, known)}"
                )
            if key.startswith(("run.", "storage.", "cluster.", "sweep.", "serve.")):
                raise ValueError(
                    f"sweep.space: {key} does not change a trial and cannot be searched"
                )
        return sweep

    @model_validator(mode="after")
    def _space_has_the_right_types(self) -> Self:
        for key, values in self.sweep.space.items():
            section, _, rest = key.partition(".")
            for value in values.examples():
                _check_value(getattr(self, section), rest.split("."), key, value)
        return self

    @model_validator(mode="after")
    def _tiles_fit_their_steps(self) -> Self:
        if self.predict.sliding_window and self.network.image_size % self.predict.windows_per_side:
            raise ValueError(
                f"network.image_size = {self.network.image_size} must be divisible by "
                f"{self.predict.windows_per_side} where predict.sliding_window = true and "
                f"predict.overlap = {self.predict.overlap}"
            )
        return self

    def with_values(self, values: Mapping[str, Any]) -> "Config":
        """A copy with some settings changed, validated as a whole.

        values: {"train.learning_rate": 1e-3, …}. Raises ConfigError for an unknown key or a
        value that does not fit.
        """
        tree = self.model_dump(mode="json")
        for key, value in values.items():
            set_value(tree, key, value)
        return validate(tree, origin="settings")

    def training_settings(self) -> dict[str, Any]:
        """The settings that decide a trained network, as plain values.

        Where data and runs lie, and how the work is spread over machines, does not count: the
        samples of a step are the same on one worker and on eight, and so is their gradient but
        with network.normalization = "batch", whose statistics are each worker's own.
        """
        tree = self.model_dump(mode="json", include={"data", "network", "train", "predict"})
        tree["data"].pop("root")
        tree["train"] = {key: v for key, v in tree["train"].items() if key not in _RUNTIME_KEYS}
        return {"run": {"seed": self.run.seed}, **tree}

    def fingerprint(self) -> str:
        """Twelve hex digits that name the deciding settings."""
        text = json.dumps(self.training_settings(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


# Settings of [train] that say where and how safely training runs, not what comes out of it.
_RUNTIME_KEYS = {
    "num_workers",
    "cpus_per_worker",
    "gpus_per_worker",
    "preview_images",
    "max_failures",
    "stall_timeout_s",
}


def _check_closed_block(block: str) -> None:
    """Refuse a CIDR block that is none, or that would open a port to more than 65,536 addresses."""
    try:
        network = ip_network(block)
    except ValueError as error:
        raise ValueError(f"cluster.cloud.ssh_from = {block!r} is no CIDR block: {error}") from error
    if network.num_addresses > 2**16:
        raise ValueError(
            f"cluster.cloud.ssh_from = {block!r} opens SSH to {network.num_addresses} addresses: "
            "name your own, such as 203.0.113.7/32"
        )


def _check_value(section: Section, path: list[str], key: str, value: Scalar) -> None:
    """Refuse a searched value of the wrong type.

    One that is only at odds with another setting is a failed trial, not a fault of the file.
    """
    for part in path[:-1]:
        section = getattr(section, part)
    field = type(section).model_fields[path[-1]]
    annotation: Any = field.annotation
    alone = create_model("Setting", __base__=Section, value=(annotation, field))
    try:
        alone.model_validate({"value": value})
    except ValidationError as error:
        reason = error.errors()[0]["msg"].lower()
        raise ValueError(f"sweep.space: {key} cannot be {value!r}: {reason}") from error


def sections(
    model: type[Section] = Config, prefix: str = ""
) -> Iterator[tuple[str, type[Section]]]:
    """Every section as ("data.augment", Augment), in the order of the file."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            yield prefix + name, inner
            yield from sections(inner, f"{prefix}{name}.")


def setting_types() -> dict[str, Any]:
    """Every setting as {"train.epochs": its annotation}, sections themselves left out."""
    return {
        f"{place}.{name}": field.annotation
        for place, section in sections()
        for name, field in section.model_fields.items()
        if not (isinstance(field.annotation, type) and issubclass(field.annotation, Section))
    }


def closest_match(word: str, known: Iterable[str]) -> str:
    """'; did you mean X?' for the known word most like this one, or nothing."""
    found = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {found[0]}?" if found else ""


def set_value(tree: dict[str, Any], key: str, value: Any) -> None:
    """Put a value at "section.key" of a nested dict; ConfigError where there is no such setting."""
    known = setting_types()
    searched = key.removeprefix("sweep.space.")
    if key not in known and searched == key:
        raise ConfigError(as_sentence(f"there is no setting {key!r}{closest_match(key, known)}"))
    *path, last = key.split(".") if searched == key else ["sweep", "space", searched]
    for part in path:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"{part} is a section of settings, not a value.")
    tree[last] = value


def validate(tree: Mapping[str, Any], origin: str) -> Config:
    """A Config from nested values, or one ConfigError that names every fault.

    origin: what the values came from, for the message ("configs/demo.toml").
    """
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        faults = "; ".join(describe_error(fault) for fault in error.errors())
        raise ConfigError(as_sentence(f"{origin}: {faults}")) from error


def describe_error(fault: Any) -> str:
    """One clause for one of pydantic's errors: the key, the value, what was expected."""
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        known = [*setting_types(), *(name for name, _ in sections())]
        return f"there is no setting {key}{closest_match(key, known)}"
    if fault["type"] == "value_error":
        text = str(fault["ctx"]["error"])
        return text if not key or key.split(".")[0] in text else f"{key}: {text}"
    return f"{key} = {fault['input']!r}: {fault['msg'].lower()}"
