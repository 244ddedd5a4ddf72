"""How long a training step of a UNet takes, and how much memory, from the size of the network.

The time is estimated from the multiply-adds of a training step, three times those of a forward
pass. The speeds are those of docs/lab-notes.md and benchmarks/README.md; a speed that was measured
on the machine replaces them. An estimate may be wrong by a factor of two, or more on a GPU.
"""

from dataclasses import dataclass

from trainer.networks.filter_counts import count_filters

CPU_SPEED = 45e9
"""Multiply-adds of training per second and core: a UNet of 16 to 256 filters at 128 px in float32
with oneDNN on an AMD EPYC with AVX-512 reached 60e9, an Intel Xeon 25e9."""
GPU_SPEED = 2e12
"""The same per GPU with 24 GB; an H200 reached 23e12."""
MAX_CORES = 16
"""Cores of a worker beyond which a step is not expected to become faster."""
MULTI_WORKER_EFFICIENCY = 0.75
"""Speed of a worker among several, relative to one alone (benchmarks/README.md)."""
AUGMENTED_PIXELS = 7e6
"""Pixels per second and core that the input pipeline augments: half of what was measured without
elastic deformation."""
_STEP_OVERHEAD_S = {"cpu": 0.005, "gpu": 0.03}
# 29 GB for a batch of 32 slices of 512 x 512 with 32 filters on the first level.
_BYTES_PER_FEATURE = 110.0


@dataclass(frozen=True)
class NetworkShape:
    """What determines the cost of a UNet: sides of its input in pixels, levels and filters.

    max_filters: None if they have no cap.
    """

    height: int
    width: int
    num_layers: int
    base_filters: int
    max_filters: int | None

    @property
    def filters(self) -> list[int]:
        """The filters of each level, finest first."""
        return [
            count_filters(self.base_filters, self.max_filters, level)
            for level in range(self.num_layers)
        ]

    def multiply_adds(self, channels: int, num_classes: int) -> int:
        """The multiply-adds of a forward pass of one slice.

        Two convolutions of 3 x 3 on each level of encoder and decoder, a transposed one of 2 x 2
        between levels of the decoder, and one of 1 x 1 at the end.
        """
        filters, inputs = self.filters, channels
        outputs = num_classes if num_classes == 1 else num_classes + 1
        total = self.height * self.width * filters[0] * outputs
        for level, count in enumerate(filters):
            pixels = (self.height >> level) * (self.width >> level)
            total += pixels * 9 * count * (inputs + count)
            if level < self.num_layers - 1:
                total += pixels * (filters[level + 1] * count + 9 * count * 3 * count)
            inputs = count
        return total

    @property
    def sample_bytes(self) -> float:
        """The memory of one sample of a training step."""
        return _BYTES_PER_FEATURE * self.height * self.width * self.base_filters


@dataclass(frozen=True)
class Workers:
    """The training workers: their number, and what each of them has."""

    count: int
    cpus: int
    gpus: int
    memory_gb: float
    """Memory of a worker's GPU, or its part of the memory of its node."""
    measured_speed: float | None = None
    """Multiply-adds of training per second of one worker alone, if measured."""

    @property
    def speed(self) -> float:
        """Multiply-adds of training per second of one worker."""
        alone = self.measured_speed
        if alone is None:
            alone = GPU_SPEED if self.gpus else CPU_SPEED * min(self.cpus, MAX_CORES)
        return alone * (MULTI_WORKER_EFFICIENCY if self.count > 1 else 1.0)

    def step_seconds(
        self, shape: NetworkShape, channels: int, num_classes: int, batch_size: int
    ) -> float:
        """The seconds of a training step of a global batch.

        The cores that augment the next batch are those that train, unless GPUs do that.
        """
        samples = batch_size / self.count
        network = samples * 3 * shape.multiply_adds(channels, num_classes) / self.speed
        pixels = samples * shape.height * shape.width * channels
        augmentation = pixels / (AUGMENTED_PIXELS * self.cpus)
        if self.gpus:
            return _STEP_OVERHEAD_S["gpu"] + max(network, augmentation)
        return _STEP_OVERHEAD_S["cpu"] + network + augmentation
