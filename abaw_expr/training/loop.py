"""Training: a visible loop.

Everything random in a step (which frames, their order and augmentation, dropout) is drawn from the seed and the numbers
of epoch, step and process, so a run that is resumed after any step ends as the undisturbed run does.
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from abaw_expr.data.batches.augment import Augment, check_masks
from abaw_expr.data.batches.chunks import cut_for_training
from abaw_expr.data.batches.loading import Plan, build_loader
from abaw_expr.data.batches.sampling import draw_epoch, flatten, split_steps, usable_frames
from abaw_expr.data.batches.windows import Batch, Windows
from abaw_expr.data.store.store import Store
from abaw_expr.errors import RunError, StoppedError, shorten
from abaw_expr.files import locked
from abaw_expr.models.encoders.mcnn import AUDIO_WINDOW
from abaw_expr.models.losses import ANY, CoarseFineLoss, counts_of, weighed_shares
from abaw_expr.models.network import build_network
from abaw_expr.models.norm import share_batch_norm
from abaw_expr.outputs.fusion import fuse
from abaw_expr.settings import Settings
from abaw_expr.tasks.classes import confusion, f1_by_class, macro_f1
from abaw_expr.tasks.names import frame_name
from abaw_expr.tasks.task import Task
from abaw_expr.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, save_tensors
from abaw_expr.training.evaluation import branch_probabilities, build_fabric, check_accelerator, native_precision
from abaw_expr.training.initial_weights import keep_start, take_start
from abaw_expr.training.launch import is_first
from abaw_expr.training.optimiser import Average, build_optimiser, set_learning_rates
from abaw_expr.training.parallel import add_up
from abaw_expr.training.run import Epoch, RunFolder, best_epoch
from abaw_expr.training.stopping import StopRequest, stop_on_signals
from abaw_expr.training.watching import Watch, draw_curves
from abaw_expr.version import VERSION


@dataclass
class Position:
    """How far an epoch is."""

    step: int = 0
    """Steps done."""
    loss: float = 0.0
    """Sum of their losses, over samples."""
    waiting: float = 0.0
    """Seconds spent waiting for data."""
    seconds: float = 0.0
    """Seconds in all, as of the last checkpoint."""


class Pending(NamedTuple):
    """A step that is under way on the device, its loss not looked at yet: that would be to wait for it."""

    step: int
    samples: int
    parts: list[Batch]
    loss: Tensor


def train(
    store: Store,
    run: RunFolder,
    settings: Settings,
    task: Task,
    resume: bool,
    on_epoch: Callable[[Epoch], None],
    progress: Callable[[int, int], None],
    start: Sequence[Path] = (),
) -> list[Epoch]:
    """Trains into a run folder and returns its epochs; a complete run is returned as it is.

    `progress(steps done, steps in all)` is told after every step. `start` are checkpoints whose weights the networks
    begin with. Raises RunError where the folder holds another run, another process trains into it, the start does not
    fit the networks or the loss stops being a number, StoreError where the store has nothing to train or validate on,
    StoppedError when a signal ended the run, which can then be resumed.
    """
    check_accelerator(settings)
    check_masks(settings.augment, AUDIO_WINDOW.steps)
    settings = replace(settings, precision=native_precision(settings))
    with locked(run.root, RunError) if is_first() else nullcontext(), stop_on_signals() as stop:
        if is_first():
            run.start(settings, store.digest, resume)
            if start:
                keep_start(run, start, settings.model, task)
        training = Training(store, run, settings, task, stop, progress)
        if not run.complete:
            training.run_to_end(on_epoch)
    return training.history


class Training:
    """A run between two steps: its networks, how far it is, and the loop that moves it on."""

    def __init__(
        self,
        store: Store,
        run: RunFolder,
        settings: Settings,
        task: Task,
        stop: StopRequest,
        progress: Callable[[int, int], None],
    ) -> None:
        self._run, self._settings, self._task, self._stop, self._progress = run, settings, task, stop, progress
        self._store = store
        self._fabric = build_fabric(settings)  # all processes meet here, so what the first wrote is there
        self._identity = run.identity(settings, store.digest)
        torch.manual_seed(settings.seed)
        self._network = build_network(settings.model, task.n_columns)
        if run.begun_with.exists() and not run.last.exists():
            take_start(self._network, run.begun_with)
        if self._fabric.world_size > 1:
            share_batch_norm(self._network, self._fabric.device)
        if settings.compute.compile:
            self._network.compile_encoders()
        optimiser = build_optimiser(self._network, settings.optimiser)
        self._module, self._optimiser = self._fabric.setup(self._network, optimiser)
        decay = settings.optimiser.average
        self._average = Average(self._network, decay) if decay else None
        self._judged = self._network if self._average is None else self._average.network
        self._training, self._validation = (usable_frames(store, name, settings) for name in ("train", "val"))
        shares = self._training.class_shares(settings.data, task)
        self._prior = weighed_shares(shares, settings.loss.class_weight)
        self._criterion = CoarseFineLoss(settings.loss, shares).to(self._fabric.device)
        self._augment = Augment(settings.augment)
        self.history: list[Epoch] = []
        self._now = Position()
        if run.last.exists():
            self._restore()
        self._fabric.barrier()  # the first process must not write before all have read

    def run_to_end(self, on_epoch: Callable[[Epoch], None]) -> None:
        """Trains the epochs that are left."""
        data = self._settings.data
        self._watch = Watch(self._run.events, self._steps) if is_first() else None
        windows = Windows(
            self._training.index,
            data,
            cut_for_training(data, AUDIO_WINDOW),
            self._augment,
            self._settings.model.branches,
        )
        self._plan = Plan()
        self._loader = build_loader(windows, self._plan, self._settings.compute.workers)
        while len(self.history) < self._settings.optimiser.epochs:
            self._train_epoch()
            self._end_epoch()
            on_epoch(self.history[-1])
        if self._watch is not None:
            self._watch.close()
            draw_curves(self.history, self._task, self._run.curves)
            self._run.finish(self._summary())

    @property
    def _steps(self) -> int:
        """Steps done in all."""
        return sum(epoch.steps for epoch in self.history) + self._now.step

    def _train_epoch(self) -> None:
        """One pass over the drawn frames, from the step it stands at."""
        settings, fabric, now = self._settings.optimiser, self._fabric, self._now
        number = len(self.history) + 1
        draws = draw_epoch(self._training, self._settings, number)
        steps = split_steps(draws, self._settings, fabric.global_rank, fabric.world_size)
        self._plan.batches = flatten(steps[now.step :])
        stream, pending = iter(self._loader), None
        self._module.train()  # validation left it otherwise
        began = time.perf_counter() - now.seconds
        saved = time.perf_counter()
        for step in range(now.step, len(steps)):
            asked = time.perf_counter()
            parts = [next(stream) for _ in steps[step]]
            now.waiting += time.perf_counter() - asked
            counts, stopping = self._settle(pending, parts)
            if stopping or time.perf_counter() - saved >= self._settings.compute.save_every:
                saved = time.perf_counter()
                now.seconds = saved - began
                self._save_last()
            if stopping:
                raise StoppedError(self._run.root, self._stop.signal)
            torch.manual_seed(_seed(self._settings.seed, number, step, fabric.global_rank))
            set_learning_rates(self._optimiser, settings, (number - 1 + step / len(steps)) / settings.epochs)
            samples = min(settings.batch_size, len(draws) - step * settings.batch_size)
            pending = Pending(step, samples, parts, self._step(parts, counts))
            self._progress((number - 1) * len(steps) + step + 1, settings.epochs * len(steps))
        self._settle(pending, [])
        now.loss /= len(draws)
        now.seconds = time.perf_counter() - began

    def _step(self, parts: list[Batch], counts: dict[str, Tensor]) -> Tensor:
        """Moves the weights by a batch and returns this process's share of its loss."""
        total = torch.zeros((), device=self._fabric.device)
        self._optimiser.zero_grad(set_to_none=True)
        try:
            for place, part in enumerate(parts):
                batch = part.to(self._fabric.device, self._augment)
                with self._fabric.no_backward_sync(self._module, enabled=place < len(parts) - 1):
                    log_p = self._module(batch.inputs, batch.rows, batch.windows, len(batch))
                    loss = self._criterion(log_p, batch.present, batch.label, counts)
                    self._fabric.backward(loss * self._fabric.world_size)  # gradients are averaged over processes
                total += loss.detach()
        except torch.OutOfMemoryError as error:
            held = max(len(part) for part in parts)
            remedy = f"Lower --compute.part: {held} samples at a time were too many, or end what else runs there."
            raise RunError("the device is out of memory", remedy=remedy) from error
        self._optimiser.step()
        if self._average is not None:
            self._average.update(self._network, self._steps + 1)
        return total

    def _settle(self, pending: Pending | None, parts: list[Batch]) -> tuple[dict[str, Tensor], bool]:
        """Counts the samples of the next step over all processes, and books the loss of the step before.

        All that processes tell each other goes here, once a step. Returns the counts, and whether any was asked to
        stop. Raises RunError where the loss is no number.
        """
        names = [*self._settings.model.branches, ANY]
        counted = [counts_of(part.present) for part in parts]
        mine = [sum(int(counts[name]) for counts in counted) for name in names]
        local = float(pending.loss) if pending is not None else 0.0
        *counts, loss, stopping = add_up(self._fabric, [*mine, local, float(self._stop.signal > 0)])
        if pending is not None:
            if not math.isfinite(loss):
                raise self._broken(pending, loss, mine=not math.isfinite(local))
            self._now.loss += loss * pending.samples
            self._now.step = pending.step + 1
            if self._watch is not None:
                self._watch.step(self._steps - 1, loss)
        tensors = torch.tensor(counts, dtype=torch.float32, device=self._fabric.device)
        return dict(zip(names, tensors, strict=True)), stopping > 0

    def _broken(self, pending: Pending, loss: float, mine: bool) -> RunError:
        """The error of a step whose loss is no number; its batch is saved for a look, if it is this process's."""
        index = self._training.index
        places = torch.cat([part.index for part in pending.parts]).numpy()
        frames = [frame_name(index.videos[index.video[p]].name, int(index.row[p]) + 1) for p in places]
        number = len(self.history) + 1
        if mine:
            parts = [vars(part) for part in pending.parts]
            save_tensors(self._run.bad_batch, {"epoch": number, "step": pending.step, "frames": frames, "parts": parts})
        return RunError(
            f"the loss of step {pending.step + 1} of epoch {number} is {loss}",
            path=self._run.bad_batch,
            found=f"a batch of {shorten(frames, 2)}",
            remedy="Look at that batch; lower the learning rate, or use 32-true.",
        )

    def _end_epoch(self) -> None:
        """Validates, and writes down what the epoch gave."""
        began, now = time.perf_counter(), self._now
        loss, audio, visual, fused, classes = self._validate()
        if not math.isfinite(loss):  # the last step may be the one that broke the weights
            remedy = "Lower the learning rate, or use 32-true."
            raise RunError(f"the validation loss of epoch {len(self.history) + 1} is {loss}", remedy=remedy)
        rate = self._optimiser.param_groups[0]["lr"]
        seconds, waiting = now.seconds + time.perf_counter() - began, now.waiting / now.seconds
        number = len(self.history) + 1
        self.history.append(
            Epoch(number, now.step, rate, now.loss, loss, audio, visual, fused, classes, waiting, seconds)
        )
        self._now = Position()
        if self._watch is None:
            return
        # The best before the last, so that a kill between them costs some steps and loses nothing.
        if best_epoch(self.history) is self.history[-1]:
            weights = self._judged.state_dict()
            save_checkpoint(self._run.best, replace(self._checkpoint(), network=weights, average={}, optimiser={}))
        self._run.write_metrics(self.history, self._task)
        self._watch.epoch(self.history[-1], self._task, self._steps - 1)
        self._save_last()

    def _validate(self) -> tuple[float, float | None, float | None, float, list[float]]:
        """Loss, macro F1 of audio, visual and fused, and F1 of each class fused, on the validation frames."""
        settings, index, n_classes = self._settings, self._validation.index, self._task.n_columns
        places = index.at_intervals(self._validation.usable, settings.data.val_interval)
        p, loss = branch_probabilities(self._fabric, self._judged, index, places, settings, self._criterion)
        truth = index.label[places]
        missing = np.full((len(places), n_classes), np.nan, np.float32)
        audio, visual = p.get("audio", missing), p.get("visual", missing)
        fused = confusion(truth, fuse([audio, visual], [settings.loss.m, settings.loss.n]).argmax(axis=1), n_classes)
        return (
            loss,
            _f1(audio, truth) if "audio" in p else None,
            _f1(visual, truth) if "visual" in p else None,
            float(macro_f1(fused)),
            f1_by_class(fused).tolist(),
        )

    def _checkpoint(self) -> Checkpoint:
        return Checkpoint(
            signature=self._identity,
            prior=self._prior,
            history=[asdict(epoch) for epoch in self.history],
            **vars(self._now),
            network=self._network.state_dict(),
            average={} if self._average is None else self._average.network.state_dict(),
            optimiser=self._optimiser.state_dict(),
            data=self._store.digest,
            videos=tuple(video.name for video in self._training.index.videos),
        )

    def _save_last(self) -> None:
        if self._watch is not None:
            self._watch.flush()  # what is told before a checkpoint is not told again after it
            if not all(bool(weight.isfinite().all()) for weight in self._network.state_dict().values()):
                found = f"infinite or no numbers after step {self._steps}"
                remedy = "The last checkpoint is as it was. Lower the learning rate, or use 32-true, in a new run."
                raise RunError("the weights cannot be saved", path=self._run.root, found=found, remedy=remedy)
            save_checkpoint(self._run.last, self._checkpoint())

    def _restore(self) -> None:
        """Puts the last checkpoint back."""
        checkpoint = load_checkpoint(self._run.last)
        if checkpoint.signature != self._identity:
            raise RunError("is of another run or another store", path=self._run.last, remedy="Name another run folder.")
        self._network.load_state_dict(checkpoint.network)
        if self._average is not None:
            self._average.network.load_state_dict(checkpoint.average)
        self._optimiser.load_state_dict(checkpoint.optimiser)
        self.history = [Epoch(**row) for row in checkpoint.history]
        self._now = Position(checkpoint.step, checkpoint.loss, checkpoint.waiting, checkpoint.seconds)

    def _summary(self) -> dict[str, object]:
        return {
            "version": VERSION,
            "task": self._task.name,
            "signature": self._identity,
            "store": self._store.digest,
            "extras": [{"store": extra.store.digest, "share": extra.share} for extra in self._store.extras],
            "epochs": len(self.history),
            "best": asdict(best_epoch(self.history)),
            "seconds": sum(epoch.seconds for epoch in self.history),
        }


def _f1(p: np.ndarray, truth: np.ndarray) -> float:
    """Macro F1 on the frames that have the modality."""
    has = ~np.isnan(p[:, 0])
    return float(macro_f1(confusion(truth[has], p[has].argmax(axis=1), p.shape[1])))


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
