"""The sections [data], [data.augment] and [data.phantom]."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from contract.config.section import WHOLE, ClassName, Finite, Fraction, Range, Section
from contract.errors import ConfigError
from contract.imaging.segmentation_class import (
    BACKGROUND_COLOR,
    Color,
    SegmentationClass,
    create_classes,
    single_foreground,
)
from contract.patterns import compile_pattern

MAX_FOLDS = 20
"""The largest data.folds."""
_MIN_CROP = 0.05

DirName = Annotated[str, Field(pattern=r"^[^/\\.][^\\]*$")]
"""A folder below another one."""


def _parse_mask_value(value: Any) -> int | Color:
    """A grey value or a color from TOML; ValueError if it is neither."""
    if type(value) is int and 1 <= value <= 65535:
        return value
    if isinstance(value, str) and re.fullmatch("#[0-9a-fA-F]{6}", value):
        value = bytes.fromhex(value[1:])
    if isinstance(value, list | tuple | bytes) and len(value) == 3:
        red, green, blue = value
        if all(type(channel) is int and 0 <= channel <= 255 for channel in value):
            return red, green, blue
    raise ValueError(
        f'{value!r} is not a grey value from 1 to 65535, nor a color such as "#ff8000" or '
        "[255, 128, 0]"
    )


def _parse_color(value: Any) -> Color | None:
    """A color from TOML, other than that of the background; ValueError if it is another value."""
    if value is None:
        return None
    message = f'{value!r} is not a color such as "#ff8000" or [255, 128, 0]'
    try:
        color = _parse_mask_value(value)
    except ValueError as error:
        raise ValueError(message) from error
    if isinstance(color, int):
        raise ValueError(message)
    if color == BACKGROUND_COLOR:
        raise ValueError("black is the color of the background")
    return color


MaskValue = Annotated[int | Color, BeforeValidator(_parse_mask_value)]
"""What marks a class in masks: a grey value or palette index, or a color."""


def _check_class_values(classes: Mapping[str, int | Color]) -> None:
    """ValueError for values that cannot be told apart, or a name that means something else."""
    for name in ("background", "mean"):
        if name in classes:
            raise ValueError(f"data.classes.{name}: no class can have this name")
    values = list(classes.values())
    if len({isinstance(value, int) for value in values}) > 1:
        raise ValueError(
            "data.classes must name grey values for all classes, or colors for all of them"
        )
    for name, value in classes.items():
        if values.count(value) > 1 or value == BACKGROUND_COLOR:
            owner = "background" if value == BACKGROUND_COLOR else "two classes"
            raise ValueError(f"data.classes.{name} = {value} is the value of {owner}")


class Phantom(Section):
    """The built-in CT phantom: synthetic patients, so that every command runs without data."""

    train_patients: Annotated[int, Field(ge=1, le=1000)] = 12
    """Synthetic patients in the training split."""
    valid_patients: Annotated[int, Field(ge=1, le=1000)] = 4
    """Synthetic patients in the validation split."""
    test_patients: Annotated[int, Field(ge=1, le=1000)] = 4
    """Synthetic patients in the test split."""
    slices: Annotated[int, Field(ge=1, le=500)] = 12
    """Slices of each synthetic patient."""
    size: Annotated[int, Field(ge=64, le=1024)] = 128
    """Height and width of a slice in pixels."""


class Augment(Section):
    """Random augmentation of training samples.

    Every augmentation applies to a sample with its probability. Geometric transformations move
    image and mask alike; intensity changes apply to the image only.
    """

    flip_horizontal: Fraction = 0.0
    """Probability of a left-right flip (a CT slice is never mirrored: leave it at 0 there)."""
    flip_vertical: Fraction = 0.0
    """Probability of an up-down flip."""
    right_angles: Fraction = 0.0
    """Probability of a rotation by 90, 180 or 270 degrees."""
    rotation_probability: Fraction = 1.0
    """Probability of a rotation about the center."""
    rotation: Annotated[float, Field(ge=0.0, le=180.0)] = 20.0
    """Largest rotation in degrees, drawn uniformly from -rotation to rotation."""
    scale_probability: Fraction = 1.0
    """Probability of a zoom about the center."""
    scale: Annotated[float, Field(ge=1.0, le=3.0)] = 1.35
    """Largest zoom s; the factor is drawn log-uniformly from 1/s to s."""
    shear_probability: Fraction = 0.0
    """Probability of a shear along both axes."""
    shear: Annotated[float, Field(ge=0.0, le=45.0)] = 10.0
    """Largest shear angle in degrees."""
    shift_probability: Fraction = 1.0
    """Probability of a shift along both axes."""
    shift: Annotated[float, Field(ge=0.0, le=0.5)] = 0.1
    """Largest shift as a fraction of the height and of the width."""
    elastic_probability: Fraction = 0.0
    """Probability of an elastic deformation: normal displacements of a grid of points, 6 along the
    shorter side, with bicubic interpolation between them."""
    elastic: Annotated[float, Field(ge=0.0, le=0.2)] = 0.03
    """Standard deviation of the displacements as a fraction of the shorter side."""
    grid_distortion_probability: Fraction = 0.0
    """Probability of a grid distortion: the rows and columns of a grid of 5 x 5 cells get random
    heights and widths."""
    grid_distortion: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.3
    """Largest relative change of the size of a cell."""
    barrel_probability: Fraction = 0.0
    """Probability of a barrel distortion."""
    barrel: Annotated[float, Field(ge=0.0, le=1.0)] = 0.2
    """Largest barrel distortion: how much farther from the center a corner shows, relative to its
    distance."""
    pincushion_probability: Fraction = 0.0
    """Probability of a pincushion distortion."""
    pincushion: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    """Largest pincushion distortion: how much closer to the center a corner shows."""
    gamma_probability: Fraction = 1.0
    """Probability of a gamma change."""
    gamma: Annotated[float, Field(ge=1.0, le=4.0)] = 1.5
    """Largest exponent g; intensities in 0..1 are raised to a power, drawn log-uniformly from 1/g
    to g."""
    brightness_probability: Fraction = 1.0
    """Probability of a brightness change."""
    brightness: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    """Largest relative change of brightness b: a factor from 1-b to 1+b."""
    contrast_probability: Fraction = 0.0
    """Probability of a contrast change."""
    contrast: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.25
    """Largest relative change of contrast c: a factor from 1-c to 1+c on the differences from the
    mean of the image."""
    noise_probability: Fraction = 1.0
    """Probability of noise."""
    noise: Annotated[float, Field(ge=0.0, le=1.0)] = 0.02
    """Standard deviation of Gaussian noise on intensities in 0..1."""
    blur_probability: Fraction = 0.0
    """Probability of a Gaussian blur."""
    blur: Annotated[float, Field(gt=0.0, le=5.0)] = 1.5
    """Largest standard deviation of the blur in pixels."""
    low_resolution_probability: Fraction = 0.0
    """Probability that a sample is shown at a lower resolution."""
    low_resolution: Annotated[float, Field(ge=1.0, le=8.0)] = 2.0
    """Largest factor by which the resolution is lower."""
    sharpen_probability: Fraction = 0.0
    """Probability of sharpening (unsharp masking)."""
    sharpen: Annotated[float, Field(ge=0.0, le=5.0)] = 1.0
    """Largest amount of sharpening."""
    cutout_probability: Fraction = 0.0
    """Probability that a rectangle of the image is set to 0."""
    cutout: Annotated[float, Field(ge=0.0, le=1.0)] = 0.25
    """Largest height and width of the rectangle as a fraction of those of the image."""


class Data(Section):
    """Slices, masks and splits."""

    source: Literal["phantom", "folder"] = "phantom"
    """phantom: the built-in CT phantom; folder: your own slices and masks."""
    root: str | None = None
    """Folder or s3:// address of your slices; for source = "folder", which requires it."""
    layout: Literal["presplit", "unsplit"] = "presplit"
    """presplit: root holds train|valid|test, each with images and masks; unsplit: root holds images
    and masks, and segfleet splits the patients."""
    train_dir: DirName = "train"
    """Folder of the training slices below root, if the layout is presplit."""
    valid_dir: DirName = "valid"
    """Folder of the validation slices below root, if the layout is presplit."""
    test_dir: DirName = "test"
    """Folder of the test slices below root, if the layout is presplit; it may be missing."""
    images_dir: DirName = "images"
    """Folder of the images, in root or in the folder of a split."""
    masks_dir: DirName = "masks"
    """Folder of the masks, in root or in the folder of a split."""
    mask_pattern: Annotated[str, Field(pattern=r"^[^/{}]*\{name\}[^/{}]*$")] = "{name}"
    """Name of the mask of an image, without suffix, where {name} is the name of the image:
    {name}_mask pairs 001.jpg with 001_mask.png."""
    patient_id_regex: str = r"^([^-]+)-"
    """Regular expression that finds the patient in a file name: its first group if it has one, else
    the complete match."""
    valid_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.15
    """Fraction of the patients for validation, if the layout is unsplit."""
    test_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.15
    """Fraction of the patients for testing, if the layout is unsplit; 0 for no test split."""
    folds: Annotated[int, Field(ge=0, le=MAX_FOLDS)] = 0
    """Folds for cross-validation, drawn from the patients of train and valid together so that each
    has small and large organs, whatever data.valid_fraction is; 0: the splits as they are. The test
    split is not changed."""
    fold: Annotated[int, Field(ge=1)] = 1
    """With folds, the fold that is the valid split; the others are the train split."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """Seed of the splits, the folds and the phantom that segfleet draws; absent: run.seed. If it is
    set, runs with another run.seed have the same patients in each split."""
    allow_patient_overlap: bool = False
    """Accept a patient that is in two splits, or that an evaluated network was trained on (the
    metrics are then not by patient)."""
    mask_threshold: Annotated[int, Field(ge=0, lt=65535)] | None = None
    """A mask pixel is foreground where its value is greater than this; absent: decided from the
    values of the masks."""
    classes: Annotated[Mapping[ClassName, MaskValue], Field(max_length=100)] = {}
    """The classes by name, each with its grey value, palette index or color ("#ff8000") in the
    masks, where 0 or black is background; empty: one class, foreground above mask_threshold."""
    foreground_color: Annotated[
        Annotated[Color, Field(json_schema_extra={"title": '"#rrggbb" or [red, green, blue]'})]
        | None,
        BeforeValidator(_parse_color),
    ] = None
    """The color of the foreground on the page of the service, and in overlays and masks of segfleet
    predict; absent: orange. data.classes have colors of their own."""
    class_tolerance: Annotated[int, Field(ge=0, le=127)] | None = None
    """Largest difference of a mask pixel from the value of its class, in each channel; absent: 0,
    and 32 in JPEG and lossy WebP files."""
    other_values_are_background: bool = False
    """Treat mask pixels with the value of no class as background; otherwise they are an error."""
    normalize: Literal["window", "foreground"] = "window"
    """window: intensities from intensity_low to intensity_high become 0..1; foreground: clipped to
    the percentiles 0.5 and 99.5 of the training foreground, then z-score by its mean and standard
    deviation (nnU-Net, Isensee 2021)."""
    intensity_low: Finite = 0.0
    """Raw intensity that becomes 0.0; lower ones are clipped. Only for normalize = "window"."""
    intensity_high: Finite = 255.0
    """Raw intensity that becomes 1.0; higher ones are clipped. Only for normalize = "window"."""
    color_space: Literal["rgb", "hsv", "lab", "xyz", "ycrcb"] = "rgb"
    """Color space that RGB slices of 8 bits are converted to, with channels of 0..255, after gamma
    and sharpening."""
    gamma: Annotated[float, Field(gt=0.0, le=10.0)] = 1.0
    """Exponent of the intensities of every slice, as fractions of the window; 1: unchanged."""
    sharpening: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    """Sharpening of every slice: k of the 3 x 3 kernel with 1 + 8 k in its center and -k around it;
    0: none."""
    neighbours: Annotated[int, Field(ge=0, le=7)] = 0
    """How many slices on each side of a slice are further channels of the network's input (2.5D);
    they are found by the last number in the names of the files."""
    crop_rows: Range = WHOLE
    """The part of each slice that the network is given: its first and last row, as fractions of the
    height. What lies outside is background in every predicted mask. network.image_size is the size
    of the part."""
    crop_columns: Range = WHOLE
    """The same for the columns, as fractions of the width."""
    phantom: Phantom = Phantom()
    augment: Augment = Augment()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.source == "folder" and self.root is None:
            raise ValueError('data.source = "folder" requires data.root, the folder of your slices')
        if self.source == "phantom" and self.root is not None:
            raise ValueError(
                f'data.root = "{self.root}" is not read while data.source = "phantom": set '
                'data.source = "folder", or remove data.root'
            )
        directories = (self.train_dir, self.valid_dir, self.test_dir)
        if len(set(directories)) < len(directories) or self.images_dir == self.masks_dir:
            raise ValueError(
                "data.train_dir, data.valid_dir and data.test_dir must differ, and so must "
                "data.images_dir and data.masks_dir"
            )
        if self.valid_fraction + self.test_fraction >= 1.0:
            raise ValueError(
                "data.valid_fraction and data.test_fraction leave no patient to train on: "
                "their sum must be below 1"
            )
        self._check_folds()
        self._check_classes()
        self._check_crop()
        if self.adjusts_slices and self.normalize != "window":
            raise ValueError(
                "data.color_space, data.gamma and data.sharpening need data.normalize = "
                '"window": the foreground is counted in unchanged slices'
            )
        if self.intensity_low >= self.intensity_high:
            raise ValueError("data.intensity_low must be below data.intensity_high")
        try:
            compile_pattern("data.patient_id_regex =", self.patient_id_regex)
        except ConfigError as error:
            # pydantic collects these.
            raise ValueError(str(error).removesuffix(".")) from error
        return self

    def _check_folds(self) -> None:
        if self.folds == 1:
            raise ValueError("data.folds = 1 leaves no patient to train on: set 2 or more, or 0")
        if self.fold > max(1, self.folds):
            raise ValueError(
                f"data.fold = {self.fold} is not one of the data.folds = {self.folds} folds: set 1 "
                "to the number of folds, or data.folds"
            )

    def _check_crop(self) -> None:
        for name in ("crop_rows", "crop_columns"):
            start, end = getattr(self, name)
            if end - start < _MIN_CROP:
                raise ValueError(
                    f"data.{name} = [{start:g}, {end:g}] is less than {_MIN_CROP:g} of a slice: "
                    "name where the part starts and where it ends, such as [0.2, 0.8]"
                )

    def _check_classes(self) -> None:
        if self.classes and self.source == "phantom":
            raise ValueError(
                'data.classes has no effect while data.source = "phantom", whose masks have one '
                'class: set data.source = "folder", or remove data.classes'
            )
        if self.classes and self.mask_threshold is not None:
            raise ValueError("set data.classes or data.mask_threshold, not both")
        if self.classes and self.foreground_color is not None:
            raise ValueError("data.foreground_color has no effect with data.classes: remove it")
        for name in ("class_tolerance", "other_values_are_background"):
            if not self.classes and getattr(self, name):
                raise ValueError(f"data.{name} has no effect without data.classes: remove it")
        _check_class_values(self.classes)

    @property
    def is_cropped(self) -> bool:
        """Whether the network is given a part of each slice."""
        return (self.crop_rows, self.crop_columns) != (WHOLE, WHOLE)

    @property
    def adjusts_slices(self) -> bool:
        """Whether color_space, gamma or sharpening changes slices."""
        return (self.color_space, self.gamma, self.sharpening) != ("rgb", 1.0, 0.0)

    @property
    def stack_size(self) -> int:
        """The slices that the network is given for one mask: the slice and its neighbours."""
        return 2 * self.neighbours + 1

    @property
    def segmentation_classes(self) -> tuple[SegmentationClass, ...]:
        """The classes in the order of their indices from 1."""
        if self.classes:
            return create_classes(self.classes)
        return single_foreground(self.foreground_color)
