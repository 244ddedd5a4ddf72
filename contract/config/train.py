"""The section [train]."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from contract.config.section import ClassName, Fraction, Section

_WITHOUT_CROSS_ENTROPY = {"dice_loss", "iou_loss", "tversky_loss", "lovasz_loss"}
# A region term is Dice, IoU or Tversky.
_WITHOUT_REGION_TERM = {"binary_crossentropy", "focal_loss", "lovasz_loss", "bce_lovasz_loss"}


class Train(Section):
    """How the network is trained."""

    num_workers: Annotated[int, Field(ge=1, le=1024)] = 2
    """Training workers; more than one use MultiWorkerMirroredStrategy."""
    cpus_per_worker: Annotated[int, Field(ge=1)] = 1
    """CPUs reserved for a worker; also its number of TensorFlow threads."""
    gpus_per_worker: Annotated[int, Field(ge=0, le=1)] = 0
    """GPUs reserved for a worker."""
    epochs: Annotated[int, Field(ge=1)] = 20
    """Maximum number of epochs."""
    steps_per_epoch: Annotated[int, Field(ge=1)] | None = None
    """Steps of an epoch; absent: the number of complete batches in the training split."""
    validation_steps: Annotated[int, Field(ge=1)] | None = None
    """Batches of validation slices after each epoch, evenly spaced over the split; absent: all."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Global batch size: samples of a step over all workers; divisible by num_workers."""
    loss: Literal[
        "binary_crossentropy",
        "focal_loss",
        "dice_loss",
        "bce_dice_loss",
        "bce_dice_boundary_loss",
        "iou_loss",
        "bce_iou_loss",
        "tversky_loss",
        "lovasz_loss",
        "bce_lovasz_loss",
        "basnet_hybrid_loss",
    ] = "bce_dice_loss"
    """Loss, computed in float32 (docs/trainer.md gives the formulas)."""
    dice_per_sample: bool = False
    """Compute the Dice, IoU or Tversky term of the loss for each slice and average it, and not from
    the sums over the batch."""
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Fraction of the mask that the cross-entropy spreads evenly over background and classes."""
    focal_gamma: Annotated[float, Field(ge=0.0, le=10.0)] = 2.0
    """loss = "focal_loss": the exponent that reduces the weight of pixels predicted well."""
    tversky_alpha: Annotated[float, Field(ge=0.0, le=10.0)] = 0.3
    """loss = "tversky_loss": the weight of false positives."""
    tversky_beta: Annotated[float, Field(ge=0.0, le=10.0)] = 0.7
    """loss = "tversky_loss": the weight of false negatives."""
    boundary_width: Annotated[int, Field(ge=3, le=65)] = 5
    """loss = "bce_dice_boundary_loss": the side in pixels, odd, of the window within which two
    boundaries agree."""
    class_weights: Mapping[ClassName, Annotated[float, Field(gt=0.0, le=1000.0)]] = {}
    """Weight of a class in the loss, by the names of data.classes, foreground and background;
    absent: 1."""
    oversample_foreground: Fraction = 0.0
    """Fraction of each batch, rounded up, that is drawn from the slices with foreground alone."""
    optimizer: Literal["adam", "adamw", "sgd"] = "adamw"
    """Optimizer; sgd uses Nesterov momentum 0.99."""
    learning_rate: Annotated[float, Field(gt=0.0, le=10.0)] = 2e-3
    """Maximum learning rate."""
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 1e-4
    """Decoupled weight decay of adamw."""
    clip_value: Annotated[float, Field(gt=0.0)] | None = None
    """Clip every element of a gradient to this absolute value; absent: no clipping."""
    clip_norm: Annotated[float, Field(gt=0.0)] | None = None
    """Clip the global norm of all gradients to this value; absent: no clipping."""
    start_from: Annotated[str, Field(min_length=1)] | None = None
    """Fine-tuning: the bundle whose weights the training starts from: its folder or s3:// address,
    NAME@STAGE, NAME@VERSION, or the name, folder or address of a run; a folder is written with a
    slash. @sha256:DIGEST after it requires this content. Absent: random weights."""
    freeze_encoder_epochs: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0
    """Epochs, from the first, in which the encoder is frozen: its weights do not change, and its
    batch normalization uses its moving statistics."""
    encoder_lr_factor: Fraction = 1.0
    """Learning rate of the encoder divided by that of the other layers, after
    freeze_encoder_epochs; 0: the encoder stays frozen."""
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Decay of the moving average of the weights, which is validated and exported in their place;
    0: no average. At step t it is at most t / (9 + t)."""
    accumulate: Annotated[int, Field(ge=1, le=1024)] = 1
    """Parts into which a worker divides its samples of a batch; their gradients are added up, so
    that a step needs the memory of one part. The loss and batch normalization are those of a part.
    """
    lr_schedule: Literal["constant", "plateau", "polynomial", "cosine", "one_cycle"] = "polynomial"
    """Learning rate schedule; plateau reduces it on a plateau, polynomial has power 0.9, one_cycle
    increases it over the first 30 % of the epochs."""
    warmup_epochs: Annotated[float, Field(ge=0.0)] = 0.0
    """Epochs in which the learning rate increases linearly from 0."""
    plateau_factor: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.4
    """lr_schedule = "plateau": the factor of each reduction."""
    plateau_patience: Annotated[int, Field(ge=1)] = 4
    """lr_schedule = "plateau": epochs without improvement before a reduction."""
    plateau_min_lr: Annotated[float, Field(ge=0.0)] = 0.0
    """lr_schedule = "plateau": the learning rate that is not reduced further."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Epochs without improvement before training stops early; absent: never."""
    monitor: Literal["val_loss", "val_dice_coef", "val_iou_coef", "val_binary_accuracy"] = (
        "val_dice_coef"
    )
    """The metric that determines the best checkpoint, early stopping and the plateau."""
    keep_checkpoints: Annotated[int, Field(ge=1, le=100)] = 2
    """Number of best checkpoints to keep, in addition to the latest."""
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto"
    """auto: bfloat16 if it is faster on this hardware, float16 on older GPUs, else float32."""
    preview_images: Annotated[int, Field(ge=0, le=64)] = 6
    """Slices drawn after each epoch: of the validation split, or of preview_source."""
    preview_source: str | None = None
    """Folder or s3:// prefix with images to draw after each epoch, instead of validation slices:
    images alone, or the folders images and masks; a mask has the name of its image."""
    preview_windows: bool = False
    """Draw the images of preview_source at their own size, predicted by sliding windows
    (predict.window_size, predict.overlap), and not resized."""
    antillia_weights: Literal["none", "raw", "normalized", "normalized_twice"] = "none"
    """Write best_model.h5 into the run (not into a trial of a sweep), the weights of a unet for the
    scripts of the Antillia projects (docs/from-antillia.md). How often intensities of 0..255 are
    divided by 255 there: raw: never; normalized: once; normalized_twice: twice."""
    antillia_channels: Literal["bgr", "rgb"] = "bgr"
    """The order of the channels of RGB slices in those projects."""
    max_failures: Annotated[int, Field(ge=0)] = 3
    """How often the workers may fail and be restarted before the run fails."""
    stall_timeout_s: Annotated[float, Field(gt=0.0)] = 900.0
    """Seconds without a finished step after which a worker counts as stuck and is restarted."""

    @model_validator(mode="after")
    def _check_batch(self) -> Self:
        if self.batch_size % self.num_workers:
            raise ValueError(
                f"train.batch_size = {self.batch_size} must be divisible by "
                f"train.num_workers = {self.num_workers}"
            )
        if self.batch_size % (self.num_workers * self.accumulate):
            raise ValueError(
                f"train.accumulate = {self.accumulate} must divide the "
                f"{self.batch_size // self.num_workers} samples of a worker, "
                "train.batch_size / train.num_workers"
            )
        return self

    @model_validator(mode="after")
    def _check_loss(self) -> Self:
        if self.boundary_width % 2 == 0:
            raise ValueError(f"train.boundary_width = {self.boundary_width} must be odd")
        if self.tversky_alpha + self.tversky_beta == 0:
            raise ValueError("train.tversky_alpha or train.tversky_beta must be above 0")
        if self.label_smoothing and self.loss in _WITHOUT_CROSS_ENTROPY:
            raise ValueError(
                f"train.label_smoothing = {self.label_smoothing} needs a loss with cross-entropy, "
                f"which {self.loss} is not: set it to 0, or train.loss to bce_dice_loss"
            )
        if self.dice_per_sample and self.loss in _WITHOUT_REGION_TERM:
            raise ValueError(
                "train.dice_per_sample = true needs a loss with Dice, IoU or Tversky, which "
                f"{self.loss} is not: set it to false, or train.loss to bce_dice_loss"
            )
        return self

    @model_validator(mode="after")
    def _check_steps(self) -> Self:
        if self.clip_value is not None and self.clip_norm is not None:
            raise ValueError("set train.clip_value or train.clip_norm, not both")
        if self.plateau_min_lr > self.learning_rate:
            raise ValueError(
                f"train.plateau_min_lr = {self.plateau_min_lr} must not be above "
                f"train.learning_rate = {self.learning_rate}"
            )
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"train.warmup_epochs must be below train.epochs: {self.warmup_epochs:g} is not "
                f"below {self.epochs}"
            )
        if self.freeze_encoder_epochs >= self.epochs:
            raise ValueError(
                f"train.freeze_encoder_epochs must be below train.epochs: "
                f"{self.freeze_encoder_epochs:g} is not below {self.epochs}; to keep the encoder "
                "frozen, set train.encoder_lr_factor = 0"
            )
        if self.warmup_epochs and self.lr_schedule == "one_cycle":
            raise ValueError(
                'train.lr_schedule = "one_cycle" has a warm-up of its own: set '
                "train.warmup_epochs = 0"
            )
        return self

    @model_validator(mode="after")
    def _check_previews(self) -> Self:
        if self.preview_windows and self.preview_source is None:
            raise ValueError(
                "train.preview_windows = true needs train.preview_source, a folder with images"
            )
        return self

    @property
    def has_encoder_rate(self) -> bool:
        """Whether the learning rate of the encoder differs from that of the other layers."""
        return self.freeze_encoder_epochs > 0 or self.encoder_lr_factor != 1

    def loss_weights(self, classes: Iterable[str]) -> list[float]:
        """The weights of the background and of each class in the loss."""
        return [self.class_weights.get(name, 1.0) for name in ("background", *classes)]
