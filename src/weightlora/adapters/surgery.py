"""What cannot be undone: disconnect adapters for real, and fold gates into the scaling."""

from peft.tuners.lora import LoraLayer
from torch import nn
from torch.optim import Optimizer

from ..optimizers import drop_parameters_
from .handles import LoraAdapter
from .models import base_model_of


def disconnect_(model: nn.Module, adapters: list[LoraAdapter], optimizer: Optimizer | None = None) -> None:
    """Take adapters out of the model, the optimizer and PEFT's records.

    A layer that no other PEFT adapter uses leaves the model, and its base layer takes its place; otherwise the layer
    stays and only loses this adapter. Call `describe_` afterwards.

    Args:
        model: The PEFT model that holds the adapters.
        adapters: What to remove.
        optimizer: Edited in place; None where there is none yet.
    """
    if optimizer is not None:
        drop_parameters_(optimizer, [parameter for adapter in adapters for parameter in adapter.parameters])
    empty: set[nn.Module | LoraLayer] = set()
    for adapter in adapters:
        layer, name = adapter.layer, adapter.adapter_name
        active = layer.active_adapters
        layer._active_adapter = []  # or PEFT would activate another adapter in the deleted one's place
        layer.delete_adapter(name)
        layer._active_adapter = active
        if not layer.scaling:
            empty.add(layer)
    for parent in list(base_model_of(model).modules()):
        for child_name, child in list(parent._modules.items()):
            while child in empty:  # wrappers of several parameters of one module are nested
                _pass_hooks_on_(child, child.base_layer)  # type: ignore[arg-type]
                child = child.base_layer  # type: ignore[assignment]
            if child is not parent._modules[child_name]:
                setattr(parent, child_name, child)


def _pass_hooks_on_(layer: nn.Module, base: nn.Module) -> None:
    """Let what others hooked into a layer's passes act on its base layer.

    Transformers hooks embeddings: reentrant checkpointing needs a gradient there, and NEFTune adds noise. The handles
    of these hooks remove them from the base layer, too, unless it has hooks of its own.
    """
    base._is_full_backward_hook = (base if base._backward_hooks else layer)._is_full_backward_hook  # or none runs
    for name in [name for name in vars(layer) if name.startswith(("_forward_", "_backward_"))]:
        hooks, own = getattr(layer, name), getattr(base, name)
        if own or not name.endswith("_hooks"):  # it says how to call hooks
            own.update(hooks)
        else:
            setattr(base, name, hooks)
    if hasattr(layer, "neftune_noise_alpha"):  # which the hook reads
        base.neftune_noise_alpha = layer.neftune_noise_alpha


def switch_off_(adapters: list[LoraAdapter], optimizer: Optimizer) -> None:
    """What `disconnect_` can do while an engine holds the parameters: scale adapters to 0, and stop their training."""
    drop_parameters_(optimizer, [parameter for adapter in adapters for parameter in adapter.parameters])
    for adapter in adapters:
        adapter.set_scaling_(0.0)


def fold_gate_(adapter: LoraAdapter, omega: float) -> None:
    """Move a fixed gate into the layer's scaling: `s <- omega s`.

    Not into B: Adam's step does not scale with B, so that would change the learning rate by `1 / omega`.
    """
    adapter.set_scaling_(adapter.scaling * omega)


def free_inputs_(model: nn.Module) -> None:
    """Undo `enable_input_require_grads`, which checkpointing asked for, so that backward ends at the lowest adapter.

    Reentrant checkpointing does need a gradient at the embeddings, and keeps it; so does a model that does not
    checkpoint, where somebody else wants it.
    """
    base = base_model_of(model)
    functions = [m._gradient_checkpointing_func for m in base.modules() if vars(m).get("gradient_checkpointing")]
    if not functions or any(getattr(f, "keywords", {}).get("use_reentrant") is not False for f in functions):
        return
    # By name: Transformers, PEFT and TRL may each have asked for it, and only the latest hook is on record.
    for module in base.modules():
        for key, hook in list(module._forward_hooks.items()):
            if getattr(hook, "__name__", "").startswith("make_inputs_require_grad"):
                del module._forward_hooks[key]
