"""The training of a generator.

All random numbers of a step (faces, codes, augmentation) are derived from the seed and the step, so a training that is
resumed after any step ends exactly as an uninterrupted one does.

Shapes: B faces of S x S pixels, C classes, Z the length of an identity.
"""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot, relu
from torch.optim import Adam, AdamW, Optimizer
from torch.utils.data import DataLoader

from abaw_expr.data.datasets.provenance import Provenance
from abaw_expr.data.store.store import Store
from abaw_expr.errors import BusyError, DivergedError, RunError, StoppedError
from abaw_expr.files import atomic, locked, write_json
from abaw_expr.generate.augment import augment, move
from abaw_expr.generate.faces import Batches, Faces, as_float, faces_of
from abaw_expr.generate.folder import GeneratorFolder
from abaw_expr.generate.networks import Discriminator, Generator, Recogniser
from abaw_expr.generate.sampling import sheet_codes, write_sheet
from abaw_expr.generate.settings import GeneratorSettings
from abaw_expr.tasks.task import EXPR
from abaw_expr.training.checkpoint import load_tensors, save_tensors
from abaw_expr.training.optimiser import EMA
from abaw_expr.training.stopping import StopRequest, stop_on_signals
from abaw_expr.version import VERSION

_BETAS = (0.0, 0.99)
"""Of Adam: without momentum, as the two networks' losses move with each other."""
_RECOGNISER_RATE = 1e-3
_LOGGED = 100
"""Steps of a row of metrics.csv."""


def train_generator(
    stores: Sequence[Store],
    root: Path,
    settings: GeneratorSettings,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Provenance:
    """Trains a generator on the training faces of stores, or goes on with the one in the folder.

    `on_progress(steps done, total steps)`. Raises RunError where the folder has another generator or another process
    trains it; StoreError where a store has no face to train on; DivergedError where a loss is no longer a finite
    number, and the last checkpoint stays; StoppedError when a signal ended it.
    """
    folder, faces = GeneratorFolder(root), faces_of(stores, "train")
    with locked(root, BusyError), stop_on_signals() as stop:
        provenance = folder.start(settings, stores)
        training = Training(faces, folder, settings, provenance, stop)
        if training.step < settings.steps or not folder.manifest.exists():
            folder.manifest.unlink(missing_ok=True)
            training.run_to_end(on_progress)
        return provenance


class Training:
    """The networks, their progress, and the loop."""

    def __init__(
        self,
        faces: Faces,
        folder: GeneratorFolder,
        settings: GeneratorSettings,
        provenance: Provenance,
        stop: StopRequest,
    ) -> None:
        self._faces, self._folder, self._settings = faces, folder, settings
        self._provenance, self._stop = provenance, stop
        self._fabric = Fabric(accelerator=settings.accelerator, devices=1, precision="32-true")
        torch.manual_seed(settings.seed)
        count, rate = len(EXPR.columns), settings.learning_rate
        generator = Generator(settings.side, count, settings.identity, settings.width)
        discriminator = Discriminator(settings.side, count, settings.width)
        self._ema = EMA(generator, settings.ema_decay)
        self._generator, self._of_generator = self._fabric.setup(
            generator, Adam(generator.parameters(), rate / 2, _BETAS)
        )
        self._discriminator, self._of_discriminator = self._fabric.setup(
            discriminator, Adam(discriminator.parameters(), rate, _BETAS)
        )
        recogniser = Recogniser(settings.side, count)
        self._recogniser, self._of_recogniser = self._fabric.setup(
            recogniser, AdamW(recogniser.parameters(), _RECOGNISER_RATE)
        )
        self._ema.network.to(self._fabric.device)
        self._present = torch.tensor(faces.classes, device=self._fabric.device)
        self.step, self._rows = 0, list[dict[str, float]]()
        self._sums = dict[str, float]()
        if folder.last.exists():
            self._restore()

    def run_to_end(self, on_progress: Callable[[int, int], None]) -> None:
        """Trains the remaining steps."""
        settings = self._settings
        batches = Batches(self._faces, settings.side, settings.batch_size, settings.seed)
        loader = DataLoader(
            batches, batch_size=None, sampler=range(self.step, settings.steps), num_workers=settings.workers
        )
        saved = time.perf_counter()
        for real, label in loader:
            if self._stop.signal:
                self._save()
                raise StoppedError(self._folder.root, self._stop.signal, "Run the command again to continue.")
            self._train_step(real.to(self._fabric.device), label.to(self._fabric.device))
            on_progress(self.step, settings.steps)
            if self.step % settings.sheet_every == 0 or self.step == settings.steps:
                self._write_sheet()
            if time.perf_counter() - saved >= settings.save_every:
                self._save()
                saved = time.perf_counter()
        self._save()
        summary = {"version": VERSION, "generator": self._provenance.generator, "steps": self.step}
        write_json(self._folder.manifest, summary | {"classes": [EXPR.columns[one] for one in self._faces.classes]})

    def _train_step(self, real: Tensor, label: Tensor) -> None:
        """Updates the discriminator, then the generator, by the hinge losses (Lim and Ye 2017)."""
        torch.manual_seed(int(np.random.SeedSequence([self._settings.seed, self.step]).generate_state(1)[0]))
        x = as_float(real).contiguous(memory_format=torch.channels_last)
        losses = {
            "discriminator": self._update_discriminator(x, label),
            "recogniser": self._update_recogniser(x, label),
            "generator": self._update_generator(len(label)),
        }
        self.step += 1
        if not all(map(math.isfinite, losses.values())):
            remedy = "The last checkpoint is unchanged. Lower --learning-rate, in a new folder."
            found = ", ".join(f"{name} {loss}" for name, loss in losses.items())
            raise DivergedError(
                f"a loss of step {self.step} is not finite", path=self._folder.root, found=found, remedy=remedy
            )
        for name, loss in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + loss
        if self.step % _LOGGED == 0:
            self._rows.append({"step": self.step} | {name: total / _LOGGED for name, total in self._sums.items()})
            self._sums = {}

    def _update_discriminator(self, real: Tensor, label: Tensor) -> float:
        identity, drawn = self._draw(len(label))
        with torch.no_grad():
            generated = self._generator(identity, self._code(drawn))
        both, classes = torch.cat([augment(real), augment(generated)]), torch.cat([label, drawn])
        of_real, of_generated = self._discriminator(both, self._code(classes)).chunk(2)
        loss = relu(1 - of_real).mean() + relu(1 + of_generated).mean()
        return self._learn(self._discriminator, self._of_discriminator, loss)

    def _update_recogniser(self, real: Tensor, label: Tensor) -> float:
        loss = cross_entropy(self._recogniser(move(real)), label)
        return self._learn(self._recogniser, self._of_recogniser, loss)

    def _update_generator(self, count: int) -> float:
        identity, drawn = self._draw(count)
        code = self._code(drawn)
        generated = self._generator(identity, code)
        named = cross_entropy(self._recogniser(move(generated)), drawn)
        loss = self._settings.class_weight * named - self._discriminator(augment(generated), code).mean()
        value = self._learn(self._generator, self._of_generator, loss)
        self._ema.update(self._generator.module, self.step + 1)
        return value

    def _learn(self, network: nn.Module, optimiser: Optimizer, loss: Tensor) -> float:
        """Moves one network; gradients of the others that the loss went through are not computed."""
        optimiser.zero_grad(set_to_none=True)
        self._fabric.backward(loss, inputs=[*network.parameters()])
        optimiser.step()
        return loss.item()

    def _draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Identities [B, Z] and classes [B] of generated faces."""
        device = self._fabric.device
        drawn = self._present[torch.randint(len(self._present), (count,), device=device)]
        return torch.randn(count, self._settings.identity, device=device), drawn

    def _code(self, label: Tensor) -> Tensor:
        return one_hot(label, len(EXPR.columns)).float()

    def _write_sheet(self) -> None:
        identities, codes = sheet_codes(self._faces.classes, self._settings.identity)
        device = self._fabric.device
        with torch.inference_mode():
            faces = self._ema.network(identities.to(device), codes.to(device))
        write_sheet(faces.cpu(), len(self._faces.classes), self._folder.sheet(self.step))

    def _save(self) -> None:
        state: dict[str, Any] = {
            "generator": self._generator.state_dict(),
            "discriminator": self._discriminator.state_dict(),
            "recogniser": self._recogniser.state_dict(),
            "ema": self._ema.network.state_dict(),
        }
        if not all(bool(x.isfinite().all()) for part in state.values() for x in part.values()):
            remedy = "The last checkpoint is unchanged. Lower --learning-rate, in a new folder."
            raise DivergedError("the weights are not finite", path=self._folder.root, remedy=remedy)
        optimisers = {
            "of_generator": self._of_generator.state_dict(),
            "of_discriminator": self._of_discriminator.state_dict(),
            "of_recogniser": self._of_recogniser.state_dict(),
        }
        progress = {"step": self.step, "rows": self._rows, "sums": self._sums, "classes": list(self._faces.classes)}
        save_tensors(self._folder.last, {**state, **optimisers, **progress, "identity": self._provenance.generator})
        if self._rows:
            with atomic(self._folder.metrics) as temporary:
                pd.DataFrame(self._rows).to_csv(temporary, index=False)

    def _restore(self) -> None:
        state = load_tensors(self._folder.last, self._fabric.device)
        if state.get("identity") != self._provenance.generator:
            raise RunError("is of another generator", path=self._folder.last, remedy="Name another --out.")
        self._generator.load_state_dict(state["generator"])
        self._discriminator.load_state_dict(state["discriminator"])
        self._recogniser.load_state_dict(state["recogniser"])
        self._ema.network.load_state_dict(state["ema"])
        self._of_generator.load_state_dict(state["of_generator"])
        self._of_discriminator.load_state_dict(state["of_discriminator"])
        self._of_recogniser.load_state_dict(state["of_recogniser"])
        self.step, self._rows, self._sums = state["step"], state["rows"], state["sums"]
