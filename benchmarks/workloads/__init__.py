"""The benchmark's workloads: each is a model, a data set, and the `Work` that a family of `weightlora.train` makes."""

from .catalogue import WORKLOADS, job_for, settings_of
from .workload import Workload

__all__ = ["WORKLOADS", "Workload", "job_for", "settings_of"]
