"""The training loop: batches in, better weights out; what to do when lives in the objective and the schedule.

Every step's randomness is keyed by (seed, step, rank), so a run continued from a checkpoint needs no generator's state.
"""

from __future__ import annotations

import contextlib
import math
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lambent.draws import Draw
from lambent.errors import InterruptedRunError, NumericsError
from lambent.models import LatentModel
from lambent.objectives import Objective
from lambent.seeds import derive
from lambent.storage import checkpoint
from lambent.trace import Estimate, Trace
from lambent.training import step_metrics as terms
from lambent.training.adam import take_step
from lambent.training.compiled import Compiled
from lambent.training.em.em import em_step, require_closed_form
from lambent.training.ema import MovingAverage
from lambent.training.engine import Engine
from lambent.training.freeze import frozen
from lambent.training.gradients import clipped, finite, gradients, norm_of, outlying, set_gradients
from lambent.training.groups import Groups, active_groups, trained_groups
from lambent.training.learning_rate import learning_rate
from lambent.training.listener import Diagnostics, Listener, TrainingBatches, TrainingState
from lambent.training.optimizer_state import optimizer_tensors, restore_optimizer
from lambent.training.options import TrainOptions
from lambent.training.progress import Progress
from lambent.training.running_bound import RunningBound
from lambent.training.schedule import JointUpdates, UpdateSchedule

STRETCH = 1000
"""Examples at a time where a step takes the whole training set."""
MOST_SKIPPED = 20
"""Steps in a row with a non-finite loss or gradient before training stops."""


class Done(NamedTuple):
    """A step that was done: its sums (`terms.sums`; None where nobody asked), its levels, and the norm."""

    terms: Tensor | None
    estimate: Estimate
    norm: float
    levels: tuple[str, ...] = ()


@dataclass
class Trainer:
    """Trains ``model`` by ``objective`` on ``batches``: one optimiser, and one gradient for each parameter group.

    Args:
        model: The model, on the device of ``engine``.
        objective: What is maximised.
        draw: How latents are drawn.
        batches: The training set.
        options: Section ``train`` of the configuration.
        engine: This process among the others.
        diagnostics: What is measured beside the loss.
        schedule: Which parameter groups are updated at which step.

    Raises:
        ConfigError: nothing is left to train, or steps that can't be compiled.
        CombinationError: a schedule that this model can't be trained by.
    """

    model: LatentModel
    objective: Objective
    draw: Draw
    batches: TrainingBatches
    options: TrainOptions
    engine: Engine
    diagnostics: Diagnostics
    schedule: UpdateSchedule = field(default_factory=JointUpdates)

    def __post_init__(self) -> None:
        self.progress = Progress()
        self.groups = trained_groups(self.model, self.options.freeze, self.schedule)
        self.active = active_groups(self.groups)
        if self.schedule.closed_form:
            require_closed_form(self.model, self.batches.steps_per_epoch, self.engine.world)
        self.optimizer = torch.optim.AdamW(
            self.groups["all"],
            lr=self.options.lr,
            betas=(self.options.beta1, self.options.beta2),
            eps=self.options.eps,
            weight_decay=self.options.weight_decay,
            fused=True,
        )
        self.average = MovingAverage(self.model, self.options.ema) if self.options.ema else None
        wanted = self.options.compile
        self.compiled = Compiled(self.model, list(self.groups["all"]), self.options.precision) if wanted else None
        self._known: float | None = None
        self.bound = RunningBound(self.engine.device)

    @property
    def total(self) -> int:
        """Steps of the whole training."""
        return self.options.total_steps(self.batches.steps_per_epoch)

    @property
    def measured(self) -> LatentModel:
        """The model that validation sees: with averaged weights where an average is kept."""
        return self.model if self.average is None else self.average.model

    def state(self) -> TrainingState:
        """All that a checkpoint holds of this moment."""
        bound_sum, examples = self.engine.sum(self.bound.sums()).tolist()
        tensors = {
            "model": self.model.state_dict(),
            "optimizer": optimizer_tensors(self.optimizer, self.model.named_parameters()),
        }
        if self.average is not None:
            tensors["ema"] = self.average.model.state_dict()
        return TrainingState(replace(self.progress, bound_sum=bound_sum, examples=int(examples)), tensors)

    def load_state(self, state: TrainingState) -> None:
        """Continues from what `state` gave.

        Raises:
            CheckpointError: tensors of another model or optimiser.
        """
        checkpoint.apply(self.model, state.tensors["model"])
        restore_optimizer(self.optimizer, self.model.named_parameters(), state.tensors["optimizer"])
        if self.average is not None:
            checkpoint.apply(self.average.model, state.tensors["ema"])
        self.progress = state.progress
        if self.engine.leader:  # the checkpoint holds the sums over all processes
            self.bound.reset(state.progress.bound_sum, state.progress.examples)

    def run(self, listener: Listener) -> Progress:
        """Trains to the end, or until patience runs out; ``listener`` is given metrics, best weights and checkpoints.

        Raises:
            NumericsError: more than 20 steps in a row had a non-finite loss or gradient.
            InterruptedRunError: a signal asked for a stop; the checkpoint is written.
        """
        self.model.train()
        kept = frozen(self.model, self.options.freeze)
        with kept, torch.random.fork_rng(devices=_cuda_devices(self.engine.device)):
            while self.progress.step < self.total and not self.progress.stopped:
                row = self.step()
                if row is not None:
                    self._record(row, listener)
                self._after_step(listener)
        return self.progress

    def step(self) -> dict[str, Any] | None:
        """Takes one training step; returns a line of metrics where one is due."""
        progress, step = self.progress, self.progress.step
        _seed(self.engine.device, derive(self.options.seed, "training step", step, self.engine.rank))
        rate = learning_rate(self.options, step, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = self.batches.at(step)
        logged = (step + 1) % self.options.log_every == 0
        done = (
            self._maximise(*batch, logged=logged) if self.schedule.closed_form else self._descend(*batch, logged=logged)
        )
        progress.step = step + 1
        return self._row(done, rate) if logged else None

    def _descend(self, x: Tensor, condition: Tensor | None, *, logged: bool) -> Done:
        """A step down the gradient."""
        step = self.progress.step
        with self._precision():
            estimate, trace, x = self._judged(x, condition, logged=logged)
        fraction = self.batches.fraction(step) if self.engine.world > 1 else 1.0
        frozen_group = self.schedule.frozen_group(step, self.progress.phase)
        total = self._differentiate(estimate, fraction, self.active[frozen_group])
        measured = logged or self.options.grad_spike_factor is not None
        norm = float(norm_of(self.groups["all"])) if measured else math.nan
        if not self._finite_and_clipped(total, norm):
            self._skip(estimate)
        elif not self._outlying(norm, frozen_group):
            take_step(self.optimizer)
            if trace is not None:
                self.model.update_buffers(trace, self.engine.sum, leader=self.engine.leader, counted=fraction > 0)
            self._taken(estimate, len(x) if fraction > 0 else 0)
        if trace is None or not logged:
            return Done(None, estimate, norm)
        return Done(terms.sums(trace, x), estimate, norm, terms.levels(trace))

    def _judged(self, x: Tensor, condition: Tensor | None, *, logged: bool) -> tuple[Estimate, Trace | None, Tensor]:
        """The estimate of a step, its trace where one is left (a compiled step leaves none), and the x it is of."""
        step = self.progress.step
        objective, draw = self.objective.at(step), self.draw.at(step)
        if self.compiled is not None and not logged and self._steady(objective, draw):
            return self.compiled(objective, draw, x, condition), None, x
        trace, x = objective.observe(self.model, x, draw, condition)
        return objective(trace, x), trace, x

    def _steady(self, objective: Objective, draw: Draw) -> bool:
        """Whether the next step is one of the same kind, and this one's batch is whole: worth a compilation."""
        following = self.progress.step + 1
        whole = self.batches.global_size(self.progress.step) == self.options.batch_size
        return whole and objective == self.objective.at(following) and draw == self.draw.at(following)

    def _precision(self) -> contextlib.AbstractContextManager[object]:
        """The number type of a step's products, as asked."""
        if self.options.precision == "bfloat16":
            return torch.autocast(self.engine.device.type, torch.bfloat16)
        return contextlib.nullcontext()

    @torch.no_grad()
    def _maximise(self, x: Tensor, condition: Tensor | None, *, logged: bool) -> Done:
        """An EM iteration on the whole training set; rate and distortion, where logged, are of the model before it."""
        logged_sums = self._sums_of(x, condition) if logged else None
        log_p, self.progress.phase = em_step(self.model, x, condition, self.progress.phase)
        estimate = Estimate(log_p, {}, "exact")
        self._taken(estimate, len(x))
        return Done(logged_sums, estimate, math.nan)

    def _sums_of(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """What `terms.sums` gives of the whole training set, in memory that doesn't grow with it."""
        conditions = [None] * len(x) if condition is None else condition.split(STRETCH)
        traces = ((self.model(part, self.draw, c), part) for part, c in zip(x.split(STRETCH), conditions, strict=False))
        return torch.stack([terms.sums(trace, part) for trace, part in traces]).sum(0)

    def _taken(self, estimate: Estimate, examples: int) -> None:
        """What follows a step that was taken."""
        if self.average is not None:
            self.average.update(self.batches.global_size(self.progress.step))
        self.progress.skipped_in_a_row = 0
        if examples:
            self.bound.add(estimate.value)
        self._advance(estimate, examples)

    def _advance(self, estimate: Estimate, examples: int) -> None:
        """Moves the schedule on after a step that was taken."""

        def measured() -> tuple[float, int]:
            total = (
                estimate.value.sum(dtype=torch.float64)
                if examples
                else estimate.value.new_zeros((), dtype=torch.float64)
            )
            sums = self.engine.sum(torch.stack([total, total.new_tensor(float(examples))])).tolist()
            return sums[0], int(sums[1])

        phase = self.schedule.after(self.progress.phase, measured)
        self._known = None
        information = self.diagnostics.information
        if information is not None and self.schedule.due(phase, self.batches.steps_per_epoch):
            self._known = information(self.model)
            phase = self.schedule.with_information(phase, self._known)
        self.progress.phase = phase

    def _differentiate(self, estimate: Estimate, share: float, groups: Groups) -> Tensor:
        """Sets the gradient of every parameter in ``groups`` (over all processes), and no other; sum of the losses."""
        for parameter in self.groups["all"]:  # now, so that the new gradients take the memory of the old ones
            parameter.grad = None
        losses = list(estimate.losses.items())
        for i, (name, loss) in enumerate(losses):
            params = groups.get(name, [])
            if not params:  # all of it frozen
                continue
            kept = i + 1 < len(losses)
            grads = torch.autograd.grad(loss, params, retain_graph=kept, allow_unused=True)
            set_gradients(params, grads)
        total = sum((loss.detach() for _, loss in losses[1:]), losses[0][1].detach().clone())
        if self.engine.world > 1:
            self._sum_over_processes(total, share)
        return total

    def _sum_over_processes(self, total: Tensor, share: float) -> None:
        """Averages gradients over examples, whatever each process's part of the batch; and so what baselines recall."""
        control = self.model.control
        recalled = [] if control is None else [b for b in control.buffers() if b.is_floating_point()]
        parts = [*(p.grad for p in self.groups["all"] if p.grad is not None), *recalled, total]
        flat = self.engine.sum(torch.cat([share * part.flatten() for part in parts]))
        for part, summed in zip(parts, flat.split([part.numel() for part in parts]), strict=True):
            part.copy_(summed.view_as(part))

    def _finite_and_clipped(self, total: Tensor, norm: float) -> bool:
        """Whether the loss and every gradient are finite; clips each group's gradient, if asked to."""
        if self.options.grad_clip is not None:
            return finite([total, *clipped((g for n, g in self.groups.items() if n != "all"), self.options.grad_clip)])
        if self.options.grad_spike_factor is not None:
            return math.isfinite(norm) and finite([total])
        return finite([total, *gradients(self.groups["all"])])

    def _outlying(self, norm: float, frozen_group: str | None) -> bool:
        """Whether the step's gradient is far longer than others where the same side is frozen; counts it if so."""
        if self.options.grad_spike_factor is None:
            return False
        progress = self.progress
        found = outlying(norm, progress.norms.setdefault(frozen_group or "", []), self.options.grad_spike_factor)
        progress.outliers += found
        progress.skipped_in_a_row = 0
        return found

    def _skip(self, estimate: Estimate) -> None:
        progress = self.progress
        progress.skipped += 1
        progress.skipped_in_a_row += 1
        if progress.skipped_in_a_row > MOST_SKIPPED:
            finite = int(torch.isfinite(estimate.value).sum())
            raise NumericsError(
                f"step {progress.step}: the loss or its gradient was not finite {progress.skipped_in_a_row} times in a "
                f"row ({finite} of {len(estimate.value)} examples had a finite bound); lower train.lr, set "
                "train.grad_clip, or check the data's scale"
            )

    def _row(self, done: Done, rate: float) -> dict[str, Any]:
        """The line of metrics of the steps since the last one."""
        progress = self.progress
        assert done.terms is not None
        bound, examples, *found = self.engine.sum(torch.cat([self.bound.sums(), done.terms])).tolist()
        train = {
            "bound": bound / examples if examples else float("nan"),
            "kind": done.estimate.kind,
            **terms.means(found, done.levels),
        }
        row = {"step": progress.step, "epoch": self._epoch(), "train": train, "lr": rate, "grad_norm": done.norm}
        row = {**row, **self.schedule.report(progress.phase)}
        outliers = {} if self.options.grad_spike_factor is None else {"outliers": progress.outliers}
        self.bound.reset()
        return {**row, "skipped": progress.skipped, **outliers}

    def _record(self, row: Mapping[str, Any], listener: Listener) -> None:
        self.progress.offset = listener.record(row)

    def _epoch(self) -> float:
        return self.progress.step / self.batches.steps_per_epoch

    def _after_step(self, listener: Listener) -> None:
        step, last = self.progress.step, self.progress.step == self.total
        validation_due = step % (self.options.validate_every * self.batches.steps_per_epoch) == 0
        if validation_due or last:
            self._validate(listener)
        stop = self._signal(step, listener)
        if validation_due or last or stop or step % self.options.checkpoint_every == 0:
            listener.save(self.state())
        if stop and not last:
            raise InterruptedRunError(f"stopped by signal {stop} at step {step}; continue with --resume", stop)

    def _signal(self, step: int, listener: Listener) -> int:
        """The signal to obey, the same on every process (agreed on every few steps)."""
        if self.engine.world == 1:
            return listener.interrupted()
        if step % 10:
            return 0
        asked = torch.tensor([float(listener.interrupted() > 0)], device=self.engine.device)
        return signal.SIGTERM if self.engine.sum(asked).item() > 0 else 0

    def _validate(self, listener: Listener) -> None:
        progress, monitor = self.progress, self.diagnostics.collapse
        found = self.diagnostics.validate(self.measured)
        early = progress.best is None and progress.step < self.total
        last = self.options.select_checkpoint == "last"
        if last or progress.best is None or found.bound > progress.best:
            progress.best, progress.best_step, progress.since_best = found.bound, progress.step, 0
            listener.improved(progress.step, self.measured)
        else:
            progress.since_best += 1
        known = self._known if self.average is None else None  # it is of the weights themselves
        valid = found.entries() | monitor.entries(self.measured, known)
        valid |= self.model.pop_metrics()
        row = {"step": progress.step, "epoch": self._epoch(), "valid": valid, "best_step": progress.best_step}
        warning = monitor.on_validation(progress, found, early=early)
        self._record(row | monitor.counts(progress), listener)
        if warning:
            listener.warn(warning)
        if self.options.patience is not None and progress.since_best >= self.options.patience:
            progress.stopped = f"no better bound in {progress.since_best} validations"


def _seed(device: torch.device, seed: int) -> None:
    """Seeds only the generators in use: torch.manual_seed formats a stack trace for each absent kind of device."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def _cuda_devices(device: torch.device) -> list[int]:
    return [device.index or 0] if device.type == "cuda" else []
