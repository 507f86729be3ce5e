"""How busy processor, memory, disk, network and accelerator are while a run is open, by MLflow's own monitor."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor


def watch_machine(store: str, run_id: str, *, resumed: bool) -> SystemMetricsMonitor:
    """A thread that logs a value of each every 10 s (MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL), under "system/".

    resumed: the run has some already. It is to be ended with `finish()`.
    """
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor = SystemMetricsMonitor(run_id, resume_logging=resumed, tracking_uri=store)
    monitor.start()
    return monitor
