"""Frames at equal intervals and the stretch of sound and pictures around each: store -> batches.

Neighbouring frames hear almost the same three seconds, so sound travels in chunks that carry the windows of many
frames. Shapes: b samples, k of them with the modality, f pictures a sample, g chunks of sound of t steps and m mel
bands, h x w picture; n frames of an index.
"""

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms.v2.functional import resize

from abaw_expr.data.augment import NOISE, Augment
from abaw_expr.data.logmel import step_at
from abaw_expr.data.store import StoredVideo
from abaw_expr.settings import DataSettings
from abaw_expr.tasks import BRANCHES, CROP_SIDE, MEL_BANDS, SOUND_STRIDE, SOUND_WINDOW

_LEAST_STD = 0.1
"""Least deviation of a mel band that is divided by, so that a silent recording stays finite."""
SEGMENT = 1024
"""Steps (16.4 s) between the chunks that a recording is heard in at prediction."""
CONTEXT = 72
"""Steps beyond its windows that such a chunk goes on for: no further does the sound branch see from a window's end."""
_LEAST_INTERVAL = 0.1
"""Seconds from frame to frame that are reckoned with where every frame is taken."""
_STAMP = 1e-3
"""Seconds to which containers round time stamps at most (Matroska)."""
_BATCH = 64
"""Frames, or a few more, that a batch of prediction holds; without gradients it changes speed only."""


@dataclass(frozen=True)
class Draws:
    """Frames to be read."""

    place: np.ndarray
    """int64 [b], places in the index."""
    noise: np.ndarray | None = None
    """float32 [b, NOISE], uniform in [0, 1): the random numbers of each sample's augmentation (None: none)."""
    group: np.ndarray | None = None
    """int64 [b], ascending: draws that may be heard together (None: all of a video)."""

    def __len__(self) -> int:
        return len(self.place)

    def __getitem__(self, rows: slice) -> "Draws":
        noise, group = (None if x is None else x[rows] for x in (self.noise, self.group))
        return Draws(self.place[rows], noise, group)


@dataclass(frozen=True)
class Chunks:
    """Which chunk of sound each window lies in."""

    first: np.ndarray
    """int64 [g], the step of the recording at which the chunk begins."""
    chunk: np.ndarray
    """int64 [k], the chunk of each window."""
    steps: int
    """Length of every chunk."""


Cut = Callable[[np.ndarray, np.ndarray], Chunks]
"""Lays windows into chunks, by keys [k], one key a chunk, such as their video, and by their first steps [k]."""


@dataclass(frozen=True)
class Batch:
    """Samples of a step."""

    inputs: dict[str, Tensor]
    """audio: float32 [g, 1, t, m], standardised; visual: [k, f, 3, h, w], bytes, on the device float32 in [-1, 1]."""
    rows: dict[str, Tensor]
    """int64 [k] by branch, ascending: the samples that have that modality."""
    windows: dict[str, Tensor]
    """audio: int64 [k, 2], the chunk that a sample's window lies in and the step of the chunk where it begins."""
    present: dict[str, Tensor]
    """bool [b] by branch: the same as `rows`, as a mask."""
    label: Tensor
    """int64 [b], -1 where not annotated."""
    index: Tensor
    """int64 [b], the frame's place in the index."""
    noise: Tensor | None
    """float32 [b, NOISE], the samples' random numbers."""

    def __len__(self) -> int:
        return len(self.label)

    def to(self, device: torch.device, augment: Augment | None = None) -> "Batch":
        """The batch on a device, where pictures become numbers and what is cheaper for many at once is augmented."""
        inputs, rows, windows, present = (
            _moved(x, device) for x in (self.inputs, self.rows, self.windows, self.present)
        )
        label = self.label.to(device, non_blocking=True)
        inputs["visual"] = inputs["visual"].float().div_(127.5).sub_(1)
        if augment is not None and self.noise is not None:
            noise = self.noise.to(device, non_blocking=True)
            chunk = windows["audio"][:, 0]
            # A chunk is masked as its first sample says.
            opens = torch.zeros(len(inputs["audio"]), dtype=torch.int64, device=device)
            opens = opens.scatter_reduce_(0, chunk, rows["audio"], "amin", include_self=False)
            inputs["audio"] = augment.mask(inputs["audio"], noise[opens])
            augment.relight_(inputs["visual"], noise[rows["visual"]])
        return Batch(inputs, rows, windows, present, label, self.index, self.noise)


class FrameIndex:
    """Every frame of some videos in columns: where it is, when, its label and what it has."""

    def __init__(self, videos: Sequence[StoredVideo]) -> None:
        self.videos = tuple(videos)
        self.video = np.concatenate([np.full(len(v.frames), i, np.int32) for i, v in enumerate(videos)])
        self.row = np.concatenate([np.arange(len(v.frames), dtype=np.int32) for v in videos])
        self.time = np.concatenate([v.frames.time for v in videos])
        self.label = np.concatenate([v.frames.label for v in videos])
        self.has = {
            "audio": np.concatenate([_has_sound(v) for v in videos]),
            "visual": np.concatenate([v.frames.has_crop for v in videos]),
        }

    def __len__(self) -> int:
        return len(self.video)

    def present(self, branches: Sequence[str]) -> np.ndarray:
        """bool [n]: frames that have at least one of these modalities."""
        return np.any([self.has[name] for name in branches], axis=0)

    def at_intervals(self, usable: np.ndarray, seconds: float, phase: float = 0.0) -> np.ndarray:
        """Places of usable frames, one every so many seconds of each video; 0 takes all.

        `phase` in [0, 1) moves the grid by that share of the interval, so that epochs see different frames.
        """
        places = np.flatnonzero(usable)
        if seconds == 0:
            return places
        video, cell = self.video[places], np.floor(self._intervals(places, seconds) + phase)
        first = np.ones(len(places), bool)  # of its interval: time never goes back in a video
        first[1:] = (video[1:] != video[:-1]) | (cell[1:] != cell[:-1])
        return places[first]

    def frequency(self, usable: np.ndarray, seconds: float) -> np.ndarray:
        """float64 [n]: how often `at_intervals` takes each frame, as a mean over phases; 0 where it is not usable.

        It is the first of its interval where a border lies between it and the usable frame before it.
        """
        places = np.flatnonzero(usable)
        often = usable.astype(np.float64)
        if seconds:
            apart = np.diff(self._intervals(places, seconds)).clip(0, 1)
            often[places[1:]] = np.where(self.video[places[1:]] == self.video[places[:-1]], apart, 1.0)
        return often

    def _intervals(self, places: np.ndarray, seconds: float) -> np.ndarray:
        """Times in intervals. One at a border is on it, whatever its last bits, or milliseconds in Matroska, are."""
        time = self.time[places]
        intervals = np.round(time / seconds, 6)
        border = np.round(intervals)
        return np.where(np.abs(time - border * seconds) <= _STAMP / 2 + 1e-9, border, intervals)

    def window_start(self, places: np.ndarray) -> np.ndarray:
        """int64: the step at which the window of sound around each frame begins; below 0 early in a recording."""
        return step_at(self.time[places]) - SOUND_WINDOW // 2


def cut_for_training(data: DataSettings) -> Cut:
    """Chunks of an epoch: neighbours share one, with the sound around it; alone, a frame hears its window only (S)."""
    if data.neighbours == 1:
        return merged(0.0)
    longer = 1.2 * (data.neighbours - 1) * max(data.interval, _LEAST_INTERVAL)  # frames are only about as far apart
    return merged(longer, CONTEXT)


def cut_for_prediction(data: DataSettings) -> Cut:
    """Chunks that sound to the network as those of its training do: windows alone, or recordings in one pass."""
    return merged(0.0) if data.neighbours == 1 else segments


def merged(seconds: float, context: int = 0) -> Cut:
    """Windows of a video share a chunk where they are not more than `seconds` apart.

    Every chunk goes on for `context` steps before the first and after the last window that it has room for.
    """
    longest = _whole(SOUND_WINDOW + int(step_at(seconds)))

    def cut(video: np.ndarray, start: np.ndarray) -> Chunks:
        first: list[int] = []
        chunk = np.empty(len(start), np.int64)
        opened = None
        for place in np.lexsort((start, video)):
            if opened is None or video[place] != video[opened] or start[place] + SOUND_WINDOW > first[-1] + longest:
                opened = place
                first.append(int(start[place]))
            chunk[place] = len(first) - 1
        return Chunks(np.array(first, np.int64) - context, chunk, longest + 2 * context)

    return cut


def segments(video: np.ndarray, start: np.ndarray) -> Chunks:
    """Chunks of a fixed grid over each recording, so that what else is asked for does not change what a frame gets."""
    keys, chunk = np.unique(np.stack([video, start // SEGMENT]), axis=1, return_inverse=True)
    return Chunks(keys[1] * SEGMENT - CONTEXT, chunk.ravel(), SEGMENT + SOUND_WINDOW + 2 * CONTEXT)


class Windows(Dataset):
    """Batches of the samples around frames of an index, by `Draws`."""

    def __init__(
        self,
        index: FrameIndex,
        data: DataSettings,
        cut: Cut,
        augment: Augment | None = None,
        branches: Sequence[str] = BRANCHES,
    ) -> None:
        self._index, self._cut, self._augment = index, cut, augment
        none = np.zeros(len(index), bool)  # what no branch asks for is not read
        self._has = {name: has if name in branches else none for name, has in index.has.items()}
        self._offsets = (np.arange(data.pictures) - (data.pictures - 1) / 2) * data.spacing

    def __getitem__(self, draws: Draws) -> Batch:
        noise = None if draws.noise is None else torch.from_numpy(draws.noise)
        sound, heard, windows = self._sound(draws)
        pictures, seen = self._pictures(draws.place, noise)
        rows = {"audio": torch.from_numpy(heard), "visual": torch.tensor(seen, dtype=torch.int64)}
        present = {name: torch.zeros(len(draws), dtype=torch.bool).index_fill_(0, k, True) for name, k in rows.items()}
        label = torch.from_numpy(self._index.label[draws.place]).long()
        inputs = {"audio": sound, "visual": pictures}
        return Batch(inputs, rows, {"audio": windows}, present, label, torch.from_numpy(draws.place), noise)

    def _sound(self, draws: Draws) -> tuple[Tensor, np.ndarray, Tensor]:
        """Chunks [g, 1, t, m], the samples [k] that have sound, and their windows [k, 2]."""
        index = self._index
        heard = np.flatnonzero(self._has["audio"][draws.place])
        places = draws.place[heard]
        video, start = index.video[places], index.window_start(places)
        cut = self._cut(video if draws.group is None else draws.group[heard], start)
        of = np.empty(len(cut.first), np.int64)
        of[cut.chunk] = video
        sound = torch.zeros(len(of), 1, cut.steps, MEL_BANDS)
        for chunk, i, first in zip(sound.numpy()[:, 0], of, cut.first, strict=True):
            read_sound(index.videos[i], int(first), chunk)
        return sound, heard, torch.from_numpy(np.stack([cut.chunk, start - cut.first[cut.chunk]], axis=1))

    def _pictures(self, places: np.ndarray, noise: Tensor | None) -> tuple[Tensor, list[int]]:
        """Pictures uint8 [k, f, 3, h, w], and the samples that have them."""
        rows = np.flatnonzero(self._has["visual"][places]).tolist()
        # Channels last in memory: as the decoder gives pictures, and as the networks want them.
        pictures = torch.empty(len(rows), len(self._offsets), CROP_SIDE, CROP_SIDE, 3, dtype=torch.uint8).movedim(4, 2)
        seen: list[int] = []
        for row in rows:
            shown = self._shown(int(places[row]))
            if shown is None:
                continue
            if self._augment is not None and noise is not None:
                shown = self._augment.crop(shown, noise[row])
            pictures[len(seen)] = shown
            seen.append(row)
        return pictures[: len(seen)], seen

    def _shown(self, place: int) -> Tensor | None:
        """uint8 [f, 3, h, w]: for each offset the picture nearest in time; None where all of them are broken."""
        video, row = self._index.videos[self._index.video[place]], int(self._index.row[place])
        if len(self._offsets) == 1:
            own = decode_crop(video, row)
            return None if own is None else own[None]
        frames = video.frames
        crops = np.flatnonzero(frames.has_crop)
        wanted = frames.time[row] + self._offsets
        rows = crops[np.abs(frames.time[crops][None] - wanted[:, None]).argmin(axis=1)]
        pictures = [decode_crop(video, int(near)) for near in rows]
        whole = [picture for picture in pictures if picture is not None]
        return torch.stack([whole[0] if p is None else p for p in pictures]) if whole else None


def read_sound(video: StoredVideo, first: int, out: np.ndarray) -> None:
    """Fills `out`, float32 [t, m] of zeros, with the recording's sound from a step on, standardised a band over it.

    Beyond the recording's ends it stays 0, the recording's mean.
    """
    assert video.sound is not None
    assert video.sound_mean is not None
    assert video.sound_std is not None
    start, stop = max(first, 0), min(first + len(out), len(video.sound))
    if start < stop:
        standard = (video.sound[start:stop] - video.sound_mean) / np.maximum(video.sound_std, _LEAST_STD)
        out[start - first : stop - first] = standard


class Plan(Sampler[Draws]):
    """What a loader reads next; a new list for every epoch, so that its worker processes can stay."""

    def __init__(self) -> None:
        self.batches: Sequence[Draws] = ()

    def __iter__(self) -> Iterator[Draws]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def build_loader(windows: Windows, plan: Plan, workers: int) -> DataLoader:
    """Batches of a plan, in order, read and augmented by worker processes (0: by this one)."""
    return DataLoader(
        windows,
        batch_size=None,  # a batch is read as one
        sampler=plan,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_ignore_signals,
    )


def load(windows: Windows, batches: Sequence[Draws], workers: int) -> DataLoader:
    """The loader of one list of batches."""
    plan = Plan()
    plan.batches = batches
    return build_loader(windows, plan, workers)


def split_batches(draws: Draws, size: int) -> list[Draws]:
    """Draws in batches of `size`; the last may be smaller."""
    return [draws[start : start + size] for start in range(0, len(draws), size)]


def split_segments(index: FrameIndex, places: np.ndarray) -> list[Draws]:
    """Ascending places in batches of about `_BATCH` that never cut a segment of sound, so that none is heard twice."""
    segment = index.window_start(places) // SEGMENT
    video = index.video[places]
    edges = 1 + np.flatnonzero((segment[1:] != segment[:-1]) | (video[1:] != video[:-1]))
    batches, start = [], 0
    for edge in [*edges.tolist(), len(places)]:
        if edge - start >= _BATCH or edge == len(places):
            batches.append(Draws(places[start:edge]))
            start = edge
    return [batch for batch in batches if len(batch)]


def draw_noise(rng: np.random.Generator, count: int) -> np.ndarray:
    """The random numbers of that many samples' augmentation."""
    return rng.random((count, NOISE), np.float32)


def _ignore_signals(worker: int) -> None:
    """Who stops a run stops its first process, which saves and then ends its workers."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _moved(tensors: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: x.to(device, non_blocking=True) for name, x in tensors.items()}


def _whole(steps: int) -> int:
    """Steps made up to a multiple of what one row of the sound branch's map covers."""
    return -(-steps // SOUND_STRIDE) * SOUND_STRIDE


def _has_sound(video: StoredVideo) -> np.ndarray:
    """bool [frames]: whether the recording's sound has not ended by the frame's time."""
    steps = 0 if video.sound is None else len(video.sound)
    return step_at(video.frames.time) < steps


def decode_crop(video: StoredVideo, row: int) -> Tensor | None:
    """A frame's crop, uint8 [3, h, w]; None where it cannot be decoded."""
    data = video.jpeg(row)
    if not data:
        return None
    try:
        picture = decode_jpeg(torch.frombuffer(data, dtype=torch.uint8), ImageReadMode.RGB)
    except RuntimeError:
        return None
    same = picture.shape[-2:] == (CROP_SIDE, CROP_SIDE)
    return picture if same else resize(picture, [CROP_SIDE, CROP_SIDE], antialias=True)
