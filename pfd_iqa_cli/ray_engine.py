"""`pfd-iqa score --engine ray`: join a cluster, or start Ray here, and score on its workers."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import secrets
import socket
import sys
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pfd_iqa_cli.messages import interrupts_raise, say
from pfd_iqa_cli.model_options import dtype_name, loading_errors_told
from pfd_iqa_cli.onnx_backend import check_views
from pfd_iqa_cli.score_engine import EngineOptions, run_facts_of
from pfd_iqa_cli.score_options import Backend

if TYPE_CHECKING:
    from pfd_iqa_hf.scoring.bulk import ScoredPicture
    from pfd_iqa_hf.scoring.find import FoundPicture
    from pfd_iqa_hf.scoring.ray_workers import RayWorkers

__all__ = ["check_ray_options", "connect", "load_ray_engine"]

_CLUSTER_FAILED = 69
# More would decode faster than any accelerator scores.
_MOST_DECODERS = 8
# Ray gives its own processes 15 s to start, which a busy machine may not have for them.
_STARTS = 2
_REACHABLE_SECONDS = 20.0


def check_ray_options(
    backend: Backend, device: str | None, views: str | None, map: Path | None
) -> None:
    """Refuse what only one machine can do, before anything is loaded.

    Raises:
        typer.BadParameter: names the option.
    """
    if backend is not Backend.torch:
        raise typer.BadParameter(
            "--engine ray runs checkpoints with PyTorch; for a model file leave --engine out",
            param_hint="--backend",
        )
    if map is not None:
        raise typer.BadParameter(
            "--engine ray saves no heat maps; leave --engine out for the pictures that need one",
            param_hint="--map",
        )
    if device not in (None, "cpu", "cuda"):
        raise typer.BadParameter(
            f"--engine ray takes cpu or cuda, not {device}: Ray chooses which of its accelerators",
            param_hint="--device",
        )
    check_views(views)
    if importlib.util.find_spec("ray") is None:
        raise typer.BadParameter(
            'ray is not installed: pip install "pfd-iqa-hf[ray]"', param_hint="--engine"
        )


class _RayEngine:
    """Workers of a cluster, and the connection to it where this process made it."""

    def __init__(self, workers: RayWorkers, options: EngineOptions, connected: bool) -> None:
        self._workers = workers
        self._connected = connected
        self.facts = run_facts_of(workers.facts, options)

    def score(self, pictures: Iterable[FoundPicture]) -> Generator[ScoredPicture, None, None]:
        from pfd_iqa_cli.light_scoring import RayScoringError

        try:
            with contextlib.closing(self._workers.score(pictures)) as results:
                yield from results
        except RayScoringError as error:
            say(f"Ray cannot go on: {error}")
            raise typer.Exit(_CLUSTER_FAILED) from error
        finally:
            self._workers.close()
            if self._connected:
                import ray

                ray.shutdown()


def load_ray_engine(options: EngineOptions, address: str | None) -> _RayEngine:
    """Connect, start workers, and wait until the first one has the model.

    Args:
        options: `workers` is the number of Ray's workers; None takes all cores or accelerators.
        address: Of the cluster; None takes RAY_ADDRESS, or starts Ray on this machine alone.

    Raises:
        typer.BadParameter: there is no such cluster, or an option cannot be used on it.
        typer.Exit: the cluster failed.
    """
    interrupts_raise()  # Ray's processes must be ended
    connected = connect(address or os.environ.get("RAY_ADDRESS") or "local", options.workers)
    import ray

    from pfd_iqa_cli.light_scoring import RayScoringError, RayWorkers, WorkerSettings

    resources = ray.cluster_resources()
    cores, accelerators = int(resources.get("CPU", 1)), int(resources.get("GPU", 0))
    on_accelerators = options.device != "cpu" and (accelerators > 0 or options.device == "cuda")
    count = options.workers or (accelerators if on_accelerators else max(cores, 1))
    if not count:
        raise typer.BadParameter(
            "the cluster has no accelerator; give --workers if it will have some, or --device cpu",
            param_hint="--device",
        )
    decoders = _decoders_beside_an_accelerator(ray.nodes()) if on_accelerators else 1
    # Workers run in folders of their own.
    here = options.model is not None and Path(options.model).is_dir()
    model = os.path.abspath(str(options.model)) if here else options.model
    settings = WorkerSettings(
        model=model,
        device="cuda" if on_accelerators else "cpu",
        dtype=dtype_name(options.dtype),
        batch_size=options.batch_size,
        view_strategy=options.views,
        max_pixels=options.max_pixels,
        decoders=decoders,
        seconds=options.time_limit,
        with_views=options.with_views,
        explain=options.explain,
    )
    try:
        with loading_errors_told(options.model):
            try:
                workers = RayWorkers(settings, count, on_accelerators, _say_waiting)
            except RayScoringError as error:
                raise _NotStartedError(str(error)) from error
    except _NotStartedError as error:
        say(f"Ray cannot start: {error}")
        raise typer.Exit(_CLUSTER_FAILED) from error
    if options.model is not None:
        workers.facts["model"] = options.model  # as the local engine tells it
    machines = sum(1 for node in ray.nodes() if node["Alive"])
    say(f"scoring on up to {count} Ray workers, {machines} machines")
    return _RayEngine(workers, options, connected)


class _NotStartedError(Exception):
    """No fault of the checkpoint, and so no error of those that loading it may raise."""


def _decoders_beside_an_accelerator(nodes: list[dict[str, Any]]) -> int:
    """Decoding processes of a worker that fit on every machine with accelerators."""
    found = [node["Resources"] for node in nodes if node["Alive"]]
    each = [r.get("CPU", 1) / r["GPU"] / 2 for r in found if r.get("GPU", 0) > 0]
    return max(1, min(_MOST_DECODERS, int(min(each, default=1))))


def _say_waiting() -> None:
    say("waiting for the first Ray worker: the cluster is busy, or the model is still loading")


def connect(address: str, workers: int | None) -> bool:
    """Join or start Ray, without telemetry and without a word on the standard output.

    Args:
        address: Of a cluster, or `local` to start Ray on this machine.
        workers: How many should have room when it is started here.

    Returns:
        Whether this process was not connected before.

    Raises:
        typer.BadParameter: there is no such cluster, or Ray does not start.
    """
    # What a user set stands.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    local = address == "local"
    # Ray reads this when it is imported, and never again.
    if local and "RAY_AUTH_MODE" not in os.environ and "ray" not in sys.modules:
        # Its ports are open on all interfaces: without a token whoever reaches them runs code.
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    import ray

    if ray.is_initialized():
        return False
    _check_reachable(address)
    how: dict[str, Any] = {}
    if local:
        from pfd_iqa_cli.light_scoring import usable_cores

        how = {"num_cpus": max(usable_cores(), workers or 0), "include_dashboard": False}
    for left in reversed(range(_STARTS if local else 1)):
        try:
            ray.init(address, logging_level=logging.ERROR, log_to_driver=False, **how)
            _keep_stdout_clean()
            return True
        except Exception as error:  # Ray raises plain ones, too
            ray.shutdown()
            if not left:
                reason = " ".join(str(error).split())
                what = "Ray does not start" if local else f"no cluster at {address}"
                hint = "--engine" if local else "--ray-address"
                raise typer.BadParameter(f"{what}: {reason}", param_hint=hint) from error
    raise AssertionError("the last failure was raised")


def _keep_stdout_clean() -> None:
    """Ray tells of workers that died where records are written, and has no option against it."""
    import ray._private.worker

    ray._private.worker._worker_logs_enabled = False


def _check_reachable(address: str) -> None:
    """Ray itself would try for minutes, and tell of every try."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # a word such as auto
    try:
        socket.create_connection((host.strip("[]"), int(port)), _REACHABLE_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise typer.BadParameter(
            f"no cluster at {address}: {error}; check host, port and firewall",
            param_hint="--ray-address",
        ) from error
