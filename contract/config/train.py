"""The section [train]."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from contract.config.section import ClassName, Fraction, Section


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
        "dice_loss",
        "bce_dice_loss",
        "iou_loss",
        "bce_iou_loss",
        "basnet_hybrid_loss",
    ] = "bce_dice_loss"
    """Loss, computed in float32 (docs/trainer.md gives the formulas)."""
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
    lr_schedule: Literal["constant", "plateau", "polynomial", "cosine"] = "polynomial"
    """Learning rate schedule; plateau reduces it on a plateau, polynomial has power 0.9."""
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
    def _check(self) -> Self:
        if self.batch_size % self.num_workers:
            raise ValueError(
                f"train.batch_size = {self.batch_size} must be divisible by "
                f"train.num_workers = {self.num_workers}"
            )
        if self.clip_value is not None and self.clip_norm is not None:
            raise ValueError("set train.clip_value or train.clip_norm, not both")
        if self.plateau_min_lr > self.learning_rate:
            raise ValueError(
                f"train.plateau_min_lr = {self.plateau_min_lr} must not be above "
                f"train.learning_rate = {self.learning_rate}"
            )
        if self.preview_windows and self.preview_source is None:
            raise ValueError(
                "train.preview_windows = true needs train.preview_source, a folder with images"
            )
        if self.warmup_epochs >= self.epochs:
            raise ValueError("train.warmup_epochs must be below train.epochs")
        return self

    @property
    def has_encoder_rate(self) -> bool:
        """Whether the learning rate of the encoder differs from that of the other layers."""
        return self.freeze_encoder_epochs > 0 or self.encoder_lr_factor != 1

    def loss_weights(self, classes: Iterable[str]) -> list[float]:
        """The weights of the background and of each class in the loss."""
        return [self.class_weights.get(name, 1.0) for name in ("background", *classes)]
