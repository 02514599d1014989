"""DistributedDataParallel: its reducer is built anew for the parameters that are left."""

import gc

import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from ..adapters import unwrap_model
from .base import Engine, cannot_rewire


class Ddp(Engine):
    """Serves a model in a process group, whether DDP wraps it or not.

    DDP has no public way to change its parameters. The reducer is built by what DDP calls itself when it is unpickled,
    so no bucket of a dead parameter is left.
    """

    @classmethod
    def holds(cls, model: nn.Module, optimizer: Optimizer) -> bool:
        return dist.is_available() and dist.is_initialized()

    def rewire_(self, model: nn.Module) -> None:
        try:
            for ddp in _wrappers_of(model):
                _rebuild_reducer_(ddp)
        except (AttributeError, TypeError) as error:
            raise cannot_rewire(error) from error


def _rebuild_reducer_(ddp: DistributedDataParallel) -> None:
    ddp.reducer._remove_autograd_hooks()
    parameters, sparse = ddp._build_params_for_reducer()
    names = ddp._build_debug_param_to_name_mapping(parameters)
    ddp._ddp_init_helper(parameters, sparse, names, ddp.static_graph)
    if ddp.static_graph:
        ddp.reducer._set_static_graph()
    for hook, state in ddp._comm_hooks:
        dist._register_comm_hook(ddp.reducer, state, hook)
    ddp._module_parameters = [parameter for _, parameter in ddp.module.named_parameters()]
    ddp._has_rebuilt_buckets = False


def _wrappers_of(model: nn.Module) -> list[DistributedDataParallel]:
    """DDP around the model, or around a module that holds it (Lightning's).

    A Trainer gives its callbacks the model without the wrapper, and nothing leads from a module to what wraps it.
    """
    inner = unwrap_model(model)
    found = (thing for thing in gc.get_objects() if issubclass(type(thing), DistributedDataParallel))
    return [ddp for ddp in found if any(module is inner for module in ddp.modules())]
