"""Random changes of a training sample. Masks of frequency are the paper's (S); the rest are our defaults (D)."""

import torch
from torch import Tensor
from torchaudio.transforms import FrequencyMasking, TimeMasking
from torchvision.transforms import v2

from abaw_expr.settings import AugmentSettings


class Augment:
    """Changes one sample; the same seed gives the same change, in whichever process."""

    def __init__(self, settings: AugmentSettings, size: int) -> None:
        self._frequency = FrequencyMasking(settings.frequency_mask)
        self._time = TimeMasking(settings.time_mask)
        self._picture = v2.Compose(
            [
                v2.RandomHorizontalFlip(0.5 if settings.flip else 0.0),
                v2.RandomResizedCrop(size, (settings.crop, 1.0), (0.9, 1.1), antialias=True),
                v2.ColorJitter(brightness=settings.light, contrast=settings.light),
            ]
        )

    def __call__(
        self, sound_1tm: Tensor | None, pictures_f3hw: Tensor | None, seed: int
    ) -> tuple[Tensor | None, Tensor | None]:
        """The changed sound and pictures of a sample; what is missing stays None.

        In the sound a band of frequencies and a stretch of time become 0, the recording's mean. All pictures of a
        sample are mirrored, cropped and relit alike.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            sound = None if sound_1tm is None else self._time(self._frequency(sound_1tm.mT)).mT
            pictures = None if pictures_f3hw is None else self._picture(pictures_f3hw)
        return sound, pictures
