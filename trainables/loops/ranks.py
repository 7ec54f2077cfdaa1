"""Trains one trial in several processes, which form a process group of `torch.distributed`.

`Ranks` is a `base.task.Training`, as `Loop` is, so that the engine treats both alike. It directs the processes, each of
which runs the whole function in a `Loop` of its own. It trains nothing itself: if a process dies or raises, the others
may wait for it in a collective operation for ever, and `Ranks` ends all of them.

The processes are actors in the placement group of the trial. They find each other as processes of `torchrun` do: by
the same environment variables, and by a store that the worker holds as torchrun's agent does.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import ray
import torch
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from torch import distributed

from trainables.base import training
from trainables.base.device import Device, ProcessGroup, choose_device
from trainables.base.errors import first_line
from trainables.base.leftovers import Footprint
from trainables.base.task import Params, Splits
from trainables.base.training import Ended
from trainables.loops.errors import TrainingError
from trainables.loops.figures import TestFigures
from trainables.loops.trial import Trial

#: Seconds that a process may be behind rank 0, or behind a process that has ended; as long as NCCL waits by default.
BEHIND = 600.0
#: Seconds to wait, after the first failure, for that of the process at fault: if a process dies, the others may raise
#: an error about their connection before Ray reports the death.
FAULT = 3.0
#: Seconds that the processes have to leave their functions when a trial is over.
LEAVE = 60.0
#: Growth up to this number of open files is no leak: torch keeps the sockets of the last device mesh (15 for two
#: processes) until the next mesh replaces it.
SOCKETS = 100
#: The variable by which CUDA knows the GPUs of a process.
GPUS = "CUDA_VISIBLE_DEVICES"


class RankDied(Exception):
    """A process of the group died; the trial is tried again as after the loss of a worker."""


@dataclass(frozen=True)
class _Start:
    """What a process needs to begin a trial.

    Attributes:
        trial: the attributes that the search sets on the `Trial`.
        state: the checkpoint for this process, as `Loop.load_state_dict` takes it, with packed states in `packed`.
    """

    task: Any
    splits: Splits
    params: Params
    epochs: int
    seed: int
    trial: dict[str, Any]
    group: ProcessGroup
    variables: dict[str, str]
    state: dict[str, Any] | None
    packed: dict[str, Any]


class Rank:
    """An actor: a process that trains one trial after the other, with the same rank."""

    def __init__(self) -> None:
        self._base: Footprint | None = None
        self._variables: dict[str, str | None] = {}
        self._loop: Any = None
        self._state: dict[str, Any] = {}

    def gpus(self) -> str | None:
        """The GPUs that Ray gave to this process: the first process of a machine gets those of all."""
        return os.environ.get(GPUS)

    def begin(self, start: _Start) -> str:
        """Joins the process group and prepares the function; returns the name of the device."""
        self._variables = {name: os.environ.get(name) for name in start.variables}
        os.environ.update(start.variables)
        group, trial = start.group, start.trial
        first = trial["local_rank"] * round(group.gpus)
        device = choose_device(group.cpus, group.gpus, group.precision, first=first)
        cuda = device.torch_device.type == "cuda"
        distributed.init_process_group("nccl" if cuda else "gloo")
        training.seed_everything(start.seed)
        self._loop = start.task.build(start.params, start.splits, start.epochs, device)
        if (folder := trial["folder"]) is not None and not folder.is_dir():
            trial = {**trial, "folder": None}  # this machine does not see the store
        vars(self._loop.trial).update(trial)
        if start.state is not None:
            own = {name: _unpacked(packed) for name, packed in start.packed.items()}
            self._loop.load_state_dict({**start.state, "parts": {**start.state["parts"], **own}})
        self._task = start.task
        return device.name

    def epoch(self) -> tuple[dict[str, float], list[str]] | None:
        """Trains the next epoch; returns its metrics and lines for the user, or None if the function has ended."""
        try:
            metrics = self._task.run_epoch(self._loop, None, None)
        except Ended:
            return None
        messages = list(self._loop.messages)
        self._loop.messages.clear()
        return metrics, messages

    def evaluate(self) -> tuple[dict[str, float], TestFigures | None]:
        """Tests the trained parts; returns the figures and their values by sample."""
        return self._task.evaluate(self._loop, None), self._loop.tested

    def export(self) -> tuple[dict[str, bytes], Any]:
        """Exports the trained parts; returns the files by name, of rank 0 alone, and an example of the inputs."""
        with tempfile.TemporaryDirectory(prefix="model-") as folder:
            example = self._task.export(self._loop, None, Path(folder))
            if self._loop.trial.rank:
                return {}, None
            paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
            return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}, example

    def parameters(self) -> int:
        return self._loop.parameters

    def digests(self) -> dict[str, str]:
        """A hash of each part's state. All ranks call it together, as a part may collect its state from all ranks."""
        self._state = self._loop.state_dict()
        return {name: _digest(part) for name, part in self._state["parts"].items()}

    def state(self, parts: Sequence[str]) -> dict[str, Any]:
        """The state that `digests` hashed, with these parts packed."""
        state, self._state = self._state, {}
        return {**state, "parts": {name: _packed(state["parts"][name]) for name in parts}}

    def end(self) -> list[str]:
        """Ends the trial; returns what it left behind in this process."""
        if self._loop is None:
            return []
        loop, self._loop = self._loop, None
        loop.end()
        if distributed.is_initialized():
            distributed.destroy_process_group()
        for name, value in self._variables.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        footprint = Footprint.now()
        self._base = self._base or footprint
        return footprint.beyond(self._base, SOCKETS)


def _digest(part: Any) -> str:
    file = _Hashed()
    torch.save(part, cast(IO[bytes], file))
    return file.sum.hexdigest()


class _Hashed(io.RawIOBase):
    """A file that keeps the hash of its content alone."""

    def __init__(self) -> None:
        self.sum = hashlib.blake2b(digest_size=16)

    def write(self, content: Any) -> int:
        self.sum.update(content)
        return memoryview(content).nbytes


def _packed(part: Any) -> np.ndarray:
    """A state as bytes, which a process without the process group can pass on."""
    file = io.BytesIO()
    torch.save(part, file)
    return np.frombuffer(file.getbuffer(), np.uint8)


def _unpacked(packed: Any) -> Any:
    return torch.load(io.BytesIO(np.asarray(packed).tobytes()), map_location="cpu", weights_only=True)


class _Actors:
    """The processes of a group. Any failure ends all of them."""

    def __init__(self, group: ProcessGroup, placed: PlacementGroup | None) -> None:
        self.group, self.placed = group, placed
        self.ranks = [self._start(rank) for rank in range(group.size)]
        gpus = ray.get([rank.gpus.remote() for rank in self.ranks])
        #: The GPUs of all processes of a machine, for each process: as under torchrun, a process sees those of its
        #: neighbours too.
        self.gpus = [gpus[rank - rank % group.local_size] for rank in range(group.size)]

    def _start(self, rank: int) -> Any:
        """Starts a process; the first of each machine takes the resources for all of that machine."""
        group, options = self.group, dict[str, Any]()
        node, local = divmod(rank, group.local_size)
        count = 0 if local else group.local_size
        if self.placed is not None:
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(self.placed, node)
        actor = ray.remote(Rank).options(num_cpus=count * group.cpus, num_gpus=count * group.gpus, **options)
        return actor.remote()

    def call(self, method: str, arguments: Sequence[tuple[Any, ...]] = (), epoch: int | None = None) -> list[Any]:
        """Calls a method of every process at the same time; returns the results by rank.

        Args:
            arguments: the arguments for each rank; by default none.
            epoch: the number of the epoch that the method trains, which can end with None.

        Raises:
            RankDied: a process died.
            TrainingError: a process is far behind the others.
            ray.exceptions.RayTaskError: a process raised an error.
        """
        given = arguments or [()] * len(self.ranks)
        calls = [getattr(rank, method).remote(*own) for rank, own in zip(self.ranks, given, strict=True)]
        try:
            return self._results(calls, epoch)
        except BaseException:
            self.kill()
            raise

    def _results(self, calls: list[Any], epoch: int | None) -> list[Any]:
        results: dict[Any, Any] = {}
        while pending := [call for call in calls if call not in results]:
            # Rank 0 may validate alone while the others wait; nothing else may keep them apart for long.
            leads = epoch is not None and (calls[0] in results or None in results.values())
            ready, _ = ray.wait(pending, timeout=BEHIND if leads else None)
            if not ready:
                behind, others = calls.index(pending[0]), "rank 0" if calls[0] in results else "another rank"
                raise TrainingError(
                    f"rank {behind} did not come to the end of epoch {epoch} within {BEHIND:g} s after {others}: every "
                    "rank yields in each epoch, and all of them end after the same epoch"
                )
            try:
                results[ready[0]] = ray.get(ready[0])
            except ray.exceptions.RayError as error:
                raise self._fault(calls, ready[0], error) from None
        return [results[call] for call in calls]

    @staticmethod
    def _fault(calls: list[Any], failed: Any, error: Exception) -> Exception:
        """The error of the process at fault, after the first error: a death before an exception."""
        errors = {failed: error}
        others, _ = ray.wait([call for call in calls if call is not failed], num_returns=len(calls) - 1, timeout=FAULT)
        for call in others:
            try:
                ray.get(call)
            except ray.exceptions.RayError as another:
                errors[call] = another
        for call, found in errors.items():
            if isinstance(found, ray.exceptions.RayActorError):
                return RankDied(f"rank {calls.index(call)} died: {found}")
        return error

    def leave(self) -> str:
        """Ends the trial of all processes; returns why they cannot train another, or an empty text."""
        calls = [rank.end.remote() for rank in self.ranks]
        ready, _ = ray.wait(calls, num_returns=len(calls), timeout=LEAVE)
        if len(ready) < len(calls):
            return f"did not leave the function within {LEAVE:g} s after the trial was over"
        try:
            left = {line for lines in ray.get(calls) for line in lines}
        except ray.exceptions.RayError as error:
            return f"raised an error as it left the function: {first_line(error)}"
        return f"left behind: {', '.join(sorted(left))}" if left else ""

    def kill(self) -> None:
        """Ends all processes."""
        global _actors
        _actors = None
        for rank in self.ranks:
            ray.kill(rank)


#: The processes that this worker directs. They train one trial after the other, as each takes seconds to import torch.
_actors: _Actors | None = None


def _free_actors(group: ProcessGroup) -> tuple[_Actors, list[str]]:
    """The processes of the last trial, or new ones if they did not come out of it clean; and lines for the user."""
    global _actors
    why, placed = "", ray.util.get_current_placement_group()
    if _actors is not None and ((_actors.group, _actors.placed) != (group, placed) or (why := _actors.leave())):
        _actors.kill()
    if _actors is None:
        _actors = _Actors(group, placed)
    return _actors, [f"new processes, as those of the last trial {why}"] if why else []


class Ranks:
    """The training of one trial by a group of processes: a `base.task.Training`.

    A checkpoint has the form of a `Loop`'s checkpoint. A part whose state is the same in every process is in `parts`.
    The other parts, and the generators of each process, are in `ranks`.
    """

    def __init__(self, task: Any, params: Params, splits: Splits, epochs: int, device: Device) -> None:
        assert device.group is not None
        self._task, self._splits, self._epochs, self._group = task, splits, epochs, device.group
        self.device, self.params = device, params
        self.trial = Trial(params, torch.initial_seed(), epochs, device.torch_device, splits.train.report_every)
        self.trial.objective, self.trial.final, self.code = task.metric, splits.train.final, splits.train
        #: The test figures, once the training is finished and tested.
        self.tested: TestFigures | None = None
        self.epoch, self.micro_batches, self.notes = 0, 1, dict[str, Any]()
        self._actors: _Actors | None = None
        self._checkpoint: dict[str, Any] | None = None
        self._store: Any = None

    @property
    def messages(self) -> list[str]:
        """Lines for the user about this trial. The code that shows them empties the list."""
        return self.trial.messages

    def advance(self) -> dict[str, float]:
        """Trains the next epoch in every process; returns the metrics of rank 0.

        Each process waits at its report until all have reported and this method is called again. So a decision of the
        search reaches every process before its next step.

        Raises:
            Ended: the function ended in rank 0.
            TrainingError: the processes do not train the same epochs.
        """
        actors = self._actors or self._begin()
        self.epoch += 1
        first, *others = actors.call("epoch", epoch=self.epoch)
        if first is None:
            self.epoch -= 1
            raise Ended
        if None in others:
            rank = others.index(None) + 1
            actors.kill()
            raise TrainingError(
                f"rank {rank} ended before epoch {self.epoch}, and rank 0 did not: all ranks end after the same epoch"
            )
        metrics, messages = first
        self.trial.messages += messages
        measured = [metrics, *(own for own, _ in others)]
        metrics["peak_memory_mib"] = max(own["peak_memory_mib"] for own in measured)
        if all("energy_joules" in own for own in measured):
            metrics["energy_joules"] = sum(own["energy_joules"] for own in measured)
        return metrics

    def evaluate(self) -> dict[str, float]:
        """The test figures of rank 0; the other processes take part, as a module may need all of them."""
        (means, self.tested), *_ = (self._actors or self._begin()).call("evaluate")
        return means

    def export(self, folder: Path) -> Any:
        """Writes the model of rank 0 into `folder`; the other processes take part. Returns an example of the inputs."""
        (files, example), *_ = (self._actors or self._begin()).call("export")
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return example

    def end(self) -> None:
        """Ends the function at its last report, in every process."""
        actors, self._actors = self._actors, None
        if actors is not None and actors.leave():
            actors.kill()

    @property
    def parameters(self) -> int:
        """The number of parameters of the modules among the parts of rank 0."""
        return (self._actors or self._begin()).call("parameters")[0]

    def _begin(self) -> _Actors:
        group, (actors, lines) = self._group, _free_actors(self._group)
        self.trial.messages += lines
        address = "127.0.0.1" if group.nodes == 1 else ray.util.get_node_ip_address()
        self._store = distributed.TCPStore(address, 0, is_master=True, wait_for_workers=False)
        checkpoint, self._checkpoint = self._checkpoint, None
        starts = []
        for rank in range(group.size):
            node, local = divmod(rank, group.local_size)
            variables = {
                "RANK": rank, "LOCAL_RANK": local, "GROUP_RANK": node, "WORLD_SIZE": group.size,
                "LOCAL_WORLD_SIZE": group.local_size, "MASTER_ADDR": address, "MASTER_PORT": self._store.port,
                "TORCHELASTIC_RUN_ID": f"trial-{self.trial.number}", "TORCHELASTIC_USE_AGENT_STORE": True,
                "TORCHELASTIC_RESTART_COUNT": 0, "TORCHELASTIC_MAX_RESTARTS": 0,
            }  # fmt: skip
            if (gpus := actors.gpus[rank]) is not None:
                variables[GPUS] = gpus
            public = {name: value for name, value in vars(self.trial).items() if not name.startswith("_")}
            public |= {"rank": rank, "world_size": group.size, "local_rank": local, "messages": []}
            del public["device"]
            state, packed = None, dict[str, Any]()
            if checkpoint is not None:
                own = checkpoint["ranks"][rank]
                packed = own["parts"]
                kept = ("parts", "epoch", "notes", "fork")
                state = {key: value for key, value in checkpoint.items() if key in kept}
                state["rng"] = own["rng"]
            starts.append(_Start(
                self._task, self._splits, self.params, self._epochs, self.trial.seed, public, group,
                {name: str(value) for name, value in variables.items()}, state, packed,
            ))  # fmt: skip
        names = actors.call("begin", [(start,) for start in starts])
        self.device = replace(self.device, known_as=names[0])
        self._actors = actors
        return actors

    def state_dict(self) -> dict[str, Any]:
        """Everything that a checkpoint holds; raises TrainingError if the state of a part cannot be saved."""
        actors = self._actors or self._begin()
        digests = actors.call("digests")
        shared = [name for name, sum_ in digests[0].items() if all(own.get(name) == sum_ for own in digests)]
        own = [[name for name in digest if name not in shared] for digest in digests]
        asked = [([*shared, *own[0]],), *((names,) for names in own[1:])]
        states = actors.call("state", asked)
        first = states[0]
        ranks = [
            {"rng": state["rng"], "parts": {name: torch.from_numpy(state["parts"][name].copy()) for name in names}}
            for state, names in zip(states, own, strict=True)
        ]
        parts = {name: _unpacked(first["parts"][name]) for name in shared}
        return {"parts": parts, "epoch": self.epoch, "notes": self.notes, "rng": first["rng"], "ranks": ranks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned, when the processes begin."""
        if (saved := len(state.get("ranks", [None]))) != self._group.size:
            raise TrainingError(f"the checkpoint is of {saved} processes, and the trial has {self._group.size}")
        self.epoch, self.notes = state["epoch"], state["notes"]
        self._checkpoint = state
