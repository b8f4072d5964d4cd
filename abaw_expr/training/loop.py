"""The training loop.

All random numbers of a step (sampling, augmentation, dropout) are derived from the seed and the numbers of epoch, step
and process, so a run that is resumed after any step ends exactly as an uninterrupted run does.

Shapes: B samples of a step, n validation frames, C columns of the task.
"""

import gc
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, distributed

from abaw_expr.data.batches.audio_chunks import cut_for_training
from abaw_expr.data.batches.augment import Augment, check_masks
from abaw_expr.data.batches.loading import BatchSampler, build_loader
from abaw_expr.data.batches.sampling import flatten, sample_epoch, split_steps, usable_frames
from abaw_expr.data.batches.windows import Batch, Windows
from abaw_expr.data.store.folds import split_for_training
from abaw_expr.data.store.store import Store
from abaw_expr.errors import BusyError, DivergedError, RunError, StoppedError
from abaw_expr.files import locked
from abaw_expr.models.batch_norm import share_batch_norm
from abaw_expr.models.network import build_network, outline
from abaw_expr.models.objectives import ANY, build_objective
from abaw_expr.models.texts import load_texts
from abaw_expr.settings import Settings
from abaw_expr.tasks.names import recording_of
from abaw_expr.tasks.registry import metric_of
from abaw_expr.training.bad_batch import Pending, bad_batch
from abaw_expr.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from abaw_expr.training.embeddings import embedding_digests, with_embedding_widths
from abaw_expr.training.evaluation import (
    branch_numbers,
    build_fabric,
    check_accelerator,
    native_precision,
    reader,
    validation_frames,
)
from abaw_expr.training.freezing import check_frozen, set_trained
from abaw_expr.training.initial_weights import (
    keep_initial_weights,
    load_initial_weights,
    load_weights_files,
    pretrained_encoders,
    seen_by_initial_weights,
)
from abaw_expr.training.launch import is_first
from abaw_expr.training.monitoring import EventLog, plot_curves
from abaw_expr.training.optimiser import EMA, build_optimiser, set_learning_rates
from abaw_expr.training.parallel import sum_over_processes
from abaw_expr.training.run import Epoch, RunFolder, RunStart, best_epoch
from abaw_expr.training.scores import check_balance, scores_of
from abaw_expr.training.stopping import StopRequest, stop_on_signals
from abaw_expr.version import VERSION


@dataclass
class EpochProgress:
    """The progress within an epoch."""

    step: int = 0
    """Finished steps."""
    loss: float = 0.0
    """Sum of their losses over samples."""
    waiting: float = 0.0
    """Seconds spent waiting for data."""
    seconds: float = 0.0
    """Total seconds until the last checkpoint."""


def train(
    store: Store,
    run: RunFolder,
    settings: Settings,
    resume: bool,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    initial_weights: Sequence[Path] = (),
    on_start: Callable[[RunStart], None] = lambda start: None,
) -> list[Epoch]:
    """Trains into a run folder and returns its epochs; a complete run is returned as it is.

    `on_start` is called before the first step, `on_epoch` after every epoch, `on_progress(steps done, total steps)`
    after every step. `initial_weights` are runs or checkpoints whose weights initialise the networks.

    Raises RunError where the folder holds another run, another process trains into it, the initial weights do not fit
    the networks or the loss is no longer a finite number; StoreError where the store has no frames to train or
    validate on; StoppedError when a signal ended the run, which can then be resumed.
    """
    check_accelerator(settings)
    check_balance(settings)
    store = split_for_training(store, settings.data)
    settings = with_embedding_widths(settings, store)
    outline(settings)  # before anything is written: an encoder may be unknown
    settings = replace(settings, precision=native_precision(settings))
    with locked(run.root, BusyError) if is_first() else nullcontext(), stop_on_signals() as stop:
        if is_first():
            run.start(settings, store.digest, resume, embedding_digests(settings, store))
            if initial_weights:
                keep_initial_weights(run, initial_weights, settings)
            check_frozen(run, settings)
        training = Training(store, run, settings, stop, on_progress)
        if not run.complete:
            on_start(training.start)
            training.run_to_end(on_epoch)
    return training.history


class Training:
    """A run: its networks, its progress, and the loop."""

    def __init__(
        self,
        store: Store,
        run: RunFolder,
        settings: Settings,
        stop: StopRequest,
        on_progress: Callable[[int, int], None],
    ) -> None:
        self._store, self._run, self._settings = store, run, settings
        self._stop, self._on_progress = stop, on_progress
        self._fabric = build_fabric(settings)  # all processes meet here, so the files of the first one exist
        self._identity, self._seen = run.identity(settings, store.digest), seen_by_initial_weights(run)
        self._build_network()
        self._training, self._validation = (
            usable_frames(store, name, settings.task_of, self._network.reads) for name in ("train", "val")
        )
        self._validated = validation_frames(store, self._validation, settings)
        self._criterion = build_objective(settings, self._training.mean_label(settings)).to(self._fabric.device)
        self._augment, self._sampler = Augment(settings.augment), BatchSampler()
        self._read = self._windows()
        self._loader = build_loader(self._read, self._sampler, settings.compute.workers)
        self.history: list[Epoch] = []
        self._now = EpochProgress()
        if run.last.exists():
            self._restore()
        self._fabric.barrier()  # the first process must not write before all processes have read
        self._log = EventLog(run.events, self._steps) if is_first() and not run.complete else None

    def _build_network(self) -> None:
        """Builds network, optimiser and EMA, with the initial weights of the run."""
        settings, run = self._settings, self._run
        torch.manual_seed(settings.seed)
        self._network = build_network(settings)
        if not run.last.exists():
            load_weights_files(self._network, settings)
            load_texts(self._network, settings)
        if run.initial_weights.exists() and not run.last.exists():
            load_initial_weights(self._network, run.initial_weights)
        if self._fabric.world_size > 1:
            share_batch_norm(self._network, self._fabric.device)
        if settings.compute.compile:
            self._network.compile_encoders()
        set_trained(self._network, settings, epoch=1)
        optimiser = build_optimiser(self._network, settings.optimiser, pretrained_encoders(self._network, settings))
        self._module, self._optimiser = self._fabric.setup(self._network, optimiser)
        decay = settings.optimiser.ema_decay
        self._ema = EMA(self._network, decay) if decay else None
        self._evaluated = self._network if self._ema is None else self._ema.network

    def _windows(self) -> Windows:
        """The training samples."""
        settings, network = self._settings, self._network
        if "audio" in network.windows:
            check_masks(settings.augment, network.windows["audio"].steps)
        return reader(network, self._training.frame_index, settings.data, cut_for_training, self._augment)

    @property
    def start(self) -> RunStart:
        """The facts of the run that are shown before the first step."""
        samples = len(sample_epoch(self._training, self._settings, 1))
        return RunStart(
            device=self._device_name(),
            processes=self._fabric.world_size,
            precision=self._settings.precision,
            train_videos=len(self._training.frame_index.videos),
            train_samples=samples,
            steps=-(-samples // self._settings.optimiser.batch_size),
            val_videos=len(self._validation.frame_index.videos),
            val_samples=len(self._validated),
            epochs=self._settings.optimiser.epochs,
            epochs_done=len(self.history),
            steps_done=self._now.step,
            seen=self._held_out_and_seen(),
        )

    def _device_name(self) -> str:
        device = self._fabric.device
        return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)

    def _held_out_and_seen(self) -> tuple[str, ...]:
        """The recordings that the task holds out and that the initial weights were trained on, for any task."""
        held_out = {recording_of(video.name) for video in self._store.videos if video.split != "train"}
        return tuple(sorted(held_out & {recording_of(name) for name in self._seen}))

    def run_to_end(self, on_epoch: Callable[[Epoch], None]) -> None:
        """Trains the remaining epochs."""
        while len(self.history) < self._settings.optimiser.epochs:
            self._train_epoch()
            self._end_epoch()
            on_epoch(self.history[-1])
        if self._log is not None:
            self._log.close()
            self._run.finish(self._summary())

    @property
    def _steps(self) -> int:
        """Finished steps of all epochs."""
        return sum(epoch.steps for epoch in self.history) + self._now.step

    def _freeze(self, epoch: int) -> None:
        """Freezes and releases encoders as an epoch has them; the processes then share the gradients of others."""
        if set_trained(self._network, self._settings, epoch):
            del self._module
            gc.collect()  # it is in circles, and its hooks would go on sharing
            self._module = self._fabric.setup_module(self._network)

    def _train_epoch(self) -> None:
        """One pass over the sampled frames, from the current step."""
        settings, fabric, now = self._settings.optimiser, self._fabric, self._now
        number = len(self.history) + 1
        draws = sample_epoch(self._training, self._settings, number)
        steps = split_steps(draws, self._settings, fabric.global_rank, fabric.world_size)
        self._sampler.batches = flatten(steps[now.step :])
        stream, pending = iter(self._loader), None
        scores = [epoch.score for epoch in self.history]
        self._module.train()  # validation left it in eval mode
        self._freeze(number)
        began = time.perf_counter() - now.seconds
        saved = time.perf_counter()
        for step in range(now.step, len(steps)):
            asked = time.perf_counter()
            micro_batches = [next(stream) for _ in steps[step]]
            now.waiting += time.perf_counter() - asked
            counts, stopping = self._synchronise(pending, micro_batches)
            if stopping or time.perf_counter() - saved >= self._settings.compute.save_every:
                saved = time.perf_counter()
                now.seconds = saved - began
                self._save_last()
            if stopping:
                raise StoppedError(self._run.root, self._stop.signal)
            torch.manual_seed(_seed(self._settings.seed, number, step, fabric.global_rank))
            set_learning_rates(self._optimiser, settings, number - 1 + step / len(steps), scores)
            samples = min(settings.batch_size, len(draws) - step * settings.batch_size)
            pending = Pending(step, samples, micro_batches, self._step(micro_batches, counts, samples))
            self._on_progress((number - 1) * len(steps) + step + 1, settings.epochs * len(steps))
        self._synchronise(pending, [])
        now.loss /= len(draws)
        now.seconds = time.perf_counter() - began

    def _step(self, micro_batches: list[Batch], counts: dict[str, Tensor], samples: int) -> Tensor:
        """Updates the weights with a batch and returns this process's part of its loss, a scalar tensor [].

        `samples` are those of all parts of the batch; an encoder's own loss weighs in each part by its samples.
        """
        total = torch.zeros((), device=self._fabric.device)
        self._optimiser.zero_grad(set_to_none=True)
        try:
            sums = None if self._criterion.additive else self._sums_of_batch(micro_batches)
            for number, micro_batch in enumerate(micro_batches, start=1):
                batch = self._read.on(self._fabric.device, micro_batch)
                with self._fabric.no_backward_sync(self._module, enabled=number < len(micro_batches)):
                    votes = self._module(**batch.given)
                    loss = self._criterion(votes, batch.target, counts, sums)
                    penalty = self._network.penalty()
                    if penalty is not None:
                        loss = loss + self._settings.loss.diversity * penalty * len(micro_batch) / samples
                    self._fabric.backward(loss * self._fabric.world_size)  # gradients are averaged over processes
                total += loss.detach()
        except torch.OutOfMemoryError as error:
            size = max(len(micro_batch) for micro_batch in micro_batches)
            remedy = (
                f"Lower --compute.micro-batch ({size} samples at a time are too many), or free memory on the device."
            )
            raise RunError("the device is out of memory", remedy=remedy) from error
        self._optimiser.step()
        if self._ema is not None:
            self._ema.update(self._network, self._steps + 1)
        return total

    @torch.no_grad()
    def _sums_of_batch(self, micro_batches: list[Batch]) -> Tensor | None:
        """The objective's sums over all parts of a batch, from one more pass; None where the part is the batch.

        Nothing of the pass stays: BN's statistics and the random numbers are put back.
        """
        if len(micro_batches) == self._fabric.world_size == 1:
            return None
        buffers = [(buffer, buffer.clone()) for buffer in self._network.buffers()]
        own: Tensor | float = 0.0
        with torch.random.fork_rng([self._fabric.device] if self._fabric.device.type == "cuda" else []):
            for micro_batch in micro_batches:
                batch = self._read.on(self._fabric.device, micro_batch)
                votes = self._module(**batch.given)
                own = own + self._criterion.sums(votes, batch.target)
        for buffer, before in buffers:
            buffer.copy_(before)
        assert isinstance(own, Tensor)
        if self._fabric.world_size > 1:
            distributed.all_reduce(own)
        return own

    def _synchronise(self, pending: Pending | None, micro_batches: list[Batch]) -> tuple[dict[str, Tensor], bool]:
        """Counts the samples of the next step over all processes, and adds the loss of the step before.

        Processes communicate only here, once per step. Returns the counts by branch, scalar tensors [], and whether any
        process got a request to stop. Raises RunError where the loss is not finite.
        """
        read, names = self._network.modalities(), [*self._settings.branches, ANY]
        counted = [
            self._criterion.counts({name: one.present(own) for name, own in read.items()}, one.target)
            for one in micro_batches
        ]
        own = [sum(int(counts[name]) for counts in counted) for name in names]
        local = float(pending.loss) if pending is not None else 0.0
        *counts, loss, stopping = sum_over_processes(self._fabric, [*own, local, float(self._stop.signal > 0)])
        if pending is not None:
            if not math.isfinite(loss):
                epoch, frames = len(self.history) + 1, self._training.frame_index
                raise bad_batch(self._run, frames, pending, epoch, loss, own=not math.isfinite(local))
            self._now.loss += loss * pending.samples
            self._now.step = pending.step + 1
            if self._log is not None:
                self._log.step(self._steps - 1, loss)
        tensors = torch.tensor(counts, dtype=torch.float32, device=self._fabric.device)
        return dict(zip(names, tensors, strict=True)), stopping > 0

    def _end_epoch(self) -> None:
        """Validates, and writes metrics and checkpoints."""
        began, now, number = time.perf_counter(), self._now, len(self.history) + 1
        loss, scores, columns = self._validate()
        if not math.isfinite(loss):  # the last step may have made the weights infinite
            remedy = "Lower the learning rate, or use 32-true."
            raise DivergedError(f"the validation loss of epoch {number} is {loss}", remedy=remedy)
        self.history.append(
            Epoch(
                epoch=number,
                steps=now.step,
                learning_rate=self._optimiser.param_groups[0]["lr"],
                train_loss=now.loss,
                val_loss=loss,
                metric=metric_of(self._settings.task_of).short,
                scores=scores,
                columns=columns,
                waiting=now.waiting / now.seconds,
                seconds=now.seconds + time.perf_counter() - began,
            )
        )
        self._now = EpochProgress()
        if self._log is not None:
            self._write_epoch(self._log)

    def _write_epoch(self, log: EventLog) -> None:
        # best.pt before last.pt: if the process is killed between them, the epoch is repeated and nothing is lost.
        if best_epoch(self.history) is self.history[-1]:
            weights = self._evaluated.state_dict()
            save_checkpoint(self._run.best, replace(self._checkpoint(), network=weights, ema={}, optimiser={}))
        self._run.write_metrics(self.history)
        plot_curves(self.history, self._settings.task_of, self._run.curves)
        log.epoch(self.history[-1], self._steps - 1)
        self._save_last()

    def _validate(self) -> tuple[float, dict[str, float], dict[str, float]]:
        """The loss on the validation frames, the score of each branch and of their fusion, and that of each column."""
        index, indices, task = self._validation.frame_index, self._validated, self._settings.task_of
        criterion = self._criterion.of_any_samples
        p, loss = branch_numbers(self._fabric, self._evaluated, index, indices, self._settings, criterion)
        return loss, *scores_of(task, self._settings.weights, p, index.label[indices])

    def _checkpoint(self) -> Checkpoint:
        videos = self._training.frame_index.videos
        own = [*(video.name for video in videos), *sorted(name for video in videos for name in video.generated_from)]
        return Checkpoint(
            signature=self._identity,
            prior=self._criterion.prior,
            history=[asdict(epoch) for epoch in self.history],
            **vars(self._now),
            network=self._network.state_dict(),
            ema={} if self._ema is None else self._ema.network.state_dict(),
            optimiser=self._optimiser.state_dict(),
            data=self._store.digest,
            videos=tuple(dict.fromkeys([*own, *self._seen])),
        )

    def _save_last(self) -> None:
        if self._log is None:
            return
        self._log.flush()  # a resumed run does not write the events before its checkpoint again
        if not all(bool(weight.isfinite().all()) for weight in self._network.state_dict().values()):
            found = f"infinite weights or NaN after step {self._steps}"
            remedy = "The last checkpoint is unchanged. Lower the learning rate, or use 32-true, in a new run."
            raise DivergedError("the weights cannot be saved", path=self._run.root, found=found, remedy=remedy)
        save_checkpoint(self._run.last, self._checkpoint())

    def _restore(self) -> None:
        """Loads the last checkpoint."""
        checkpoint = load_checkpoint(self._run.last)
        if checkpoint.signature != self._identity:
            raise RunError("is of another run or another store", path=self._run.last, remedy="Name another run folder.")
        self._network.load_state_dict(checkpoint.network)
        if self._ema is not None:
            self._ema.network.load_state_dict(checkpoint.ema)
        self._optimiser.load_state_dict(checkpoint.optimiser)
        self.history = [Epoch(**row) for row in checkpoint.history]
        self._now = EpochProgress(checkpoint.step, checkpoint.loss, checkpoint.waiting, checkpoint.seconds)

    def _summary(self) -> dict[str, object]:
        return {
            "version": VERSION,
            "task": self._settings.task,
            "signature": self._identity,
            "store": self._store.digest,
            "extras": [{"store": extra.store.digest, "share": extra.fraction} for extra in self._store.extras],
            "epochs": len(self.history),
            "best": asdict(best_epoch(self.history)),
            "seconds": sum(epoch.seconds for epoch in self.history),
            "device": self._device_name(),
        }


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
