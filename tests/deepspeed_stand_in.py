"""A stand-in for DeepSpeed on one process, which keeps gradients and float32 weights to itself, and gives them by the
same functions. So the tests of what only calls these run where DeepSpeed is not installed."""

import sys
from types import ModuleType, SimpleNamespace

import torch
from torch import nn


class ZeroOptimizer:
    """A torch optimizer of float32 copies of the parameters."""

    def __init__(self, engine, kind, rate):
        self.engine = engine
        self.copies = {parameter: nn.Parameter(parameter.detach().float().clone()) for parameter in engine.trained}
        self.inner = kind([{"params": list(self.copies.values())}], lr=rate)
        self.loss_scale = 1.0

    @property
    def state(self):
        return self.inner.state

    @property
    def param_groups(self):
        return self.inner.param_groups

    def step(self):
        engine, copies = self.engine, self.copies
        for parameter, copy in copies.items():
            copy.grad = engine.gradients[parameter]
        norm = torch.stack([copy.grad.norm() for copy in copies.values()]).norm()
        engine.norm = float(norm) if norm.isfinite() else -1.0
        if engine.clipping:
            torch.nn.utils.clip_grad_norm_(list(copies.values()), engine.clipping)
        self.inner.step()
        with torch.no_grad():
            for parameter, copy in copies.items():
                parameter.copy_(copy)
        self.zero_grad()

    def zero_grad(self):
        self.engine.gradients.clear()


class DeepSpeedEngine:
    def __init__(self, model, kind=torch.optim.AdamW, rate=1e-2, clipping=0.0, stage=2):
        self.module, self.clipping, self.stage, self.fp16 = model, clipping, stage, False
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        for parameter in self.trained:
            parameter.zero_engine = self
        self.gradients, self.norm, self.boundary = {}, None, True
        self.optimizer = ZeroOptimizer(self, kind, rate)
        self.lr_scheduler = torch.optim.lr_scheduler.LinearLR(self.optimizer.inner, 1.0, 0.1, 8)
        self.global_steps = self.global_samples = self.skipped_steps = 0
        self.destroyed = False

    def backward(self, loss, scale_wrt_gas=True):
        loss.backward()
        for parameter in self.trained:
            if parameter.grad is not None:
                earlier = self.gradients.get(parameter, torch.zeros_like(parameter, dtype=torch.float32))
                self.gradients[parameter], parameter.grad = earlier + parameter.grad.float(), None

    def step(self):
        if self.boundary:
            self.optimizer.step()
            self.lr_scheduler.step()
            self.global_steps += 1

    def save_checkpoint(self, save_dir, tag=None):
        return "saved"

    def load_checkpoint(self, load_dir, tag=None):
        return "loaded"

    def is_gradient_accumulation_boundary(self):
        return self.boundary

    def set_gradient_accumulation_boundary(self, boundary):
        self.boundary = boundary

    def get_global_grad_norm(self):
        return self.norm

    def gradient_clipping(self):
        return self.clipping

    def zero_optimization_stage(self):
        return self.stage

    def fp16_enabled(self):
        return self.fp16

    def destroy(self):
        self.destroyed = True


def _copy(parameter):
    return parameter.zero_engine.optimizer.copies[parameter]


def _moment(parameter, name):
    return parameter.zero_engine.optimizer.state[_copy(parameter)][name]


def install(monkeypatch) -> None:
    """Let `import deepspeed` give this stand-in."""
    utils = SimpleNamespace(
        safe_get_full_grad=lambda parameter: parameter.zero_engine.gradients.get(parameter),
        safe_get_full_fp32_param=lambda parameter: _copy(parameter).detach(),
        safe_set_full_fp32_param=lambda parameter, value: _copy(parameter).data.copy_(value),
        safe_get_full_optimizer_state=lambda parameter, name: _moment(parameter, name),
        safe_set_full_optimizer_state=lambda parameter, value, name: _moment(parameter, name).copy_(value),
        lazy_init_hp_params_optimizer_state=None,
    )
    modules = {"deepspeed": ModuleType("deepspeed"), "deepspeed.utils": ModuleType("deepspeed.utils")}
    vars(modules["deepspeed.utils"]).update(vars(utils))
    modules["deepspeed"].utils = modules["deepspeed.utils"]
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
