"""A compiled model: gates break no graph, and the disconnect costs one compilation, the same as for any new model."""

import pytest
import torch
from models import adamw, batch, lora_bert, lora_zoo
from packaging.version import Version
from peft import LoraConfig, get_peft_model
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch._dynamo.utils import counters

from weightlora import WeightLora, WeightLoraConfig
from weightlora.adapters import find_adapters

# PEFT's LoRA on an embedding breaks the graph in older PyTorch (2.8 to 2.10 were tried), with and without us.
OLD = pytest.mark.skipif(Version(torch.__version__) < Version("2.13"), reason="needs PyTorch 2.13")
MAKERS = {"bert": lambda: lora_bert(layers=1, task_type=None), "embedding, linear, convolutions": lora_zoo}
STEPS, CHOICE = 6, 4


def compilations(make, config: WeightLoraConfig | None) -> list[int]:
    """Graphs compiled up to each step."""
    torch._dynamo.reset()
    counters.clear()
    counter = CompileCounter()
    model = make().train()
    compiled = torch.compile(model, backend=counter)
    optimizer = adamw(model)
    selector = None if config is None else WeightLora(compiled, optimizer, config)
    ids = torch.randint(0, 20, (4, 8))
    graphs = []
    for _ in range(STEPS):
        output = compiled(ids)
        (output if isinstance(output, torch.Tensor) else output.logits).square().mean().backward()
        optimizer.step()
        if selector is not None:
            selector.step()
        optimizer.zero_grad()
        graphs.append(counter.frame_count)
    assert not counters["graph_break"]
    assert selector is None or len(find_adapters(model)) == 2
    return graphs


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", ["bert", pytest.param("embedding, linear, convolutions", marks=OLD)])
def test_gates_break_no_graph_and_the_disconnect_compiles_once(make):
    plain = compilations(MAKERS[make], None)
    for settings in ({"selection": "credit", "expand": "qr"}, {"selection": "stoiht"}):
        graphs = compilations(MAKERS[make], WeightLoraConfig(keep=2, select_steps=CHOICE, **settings))
        assert graphs[:CHOICE] == plain[:CHOICE], settings
        assert graphs[CHOICE:] == [n + 1 for n in plain[CHOICE:]], settings


def test_a_probe_compiles_nothing_and_chooses_as_without_compilation():
    config = WeightLoraConfig(keep=3, probe_batches=2)
    kept, counter = [], CompileCounter()
    for compiles in (False, True):
        torch._dynamo.reset()
        model = lora_bert()
        whole = torch.compile(model, backend=counter) if compiles else model
        selector = WeightLora(whole, adamw(model), config)
        selector.probe([batch(0), batch(1)])
        kept.append((selector.kept, selector.scores))
        assert counter.frame_count == 0
    assert kept[0] == kept[1]
    whole(**batch()).loss.backward()
    assert counter.frame_count == 1, "training is compiled as ever"


def scores_of_gates(compiles: str | None) -> list[float]:
    """After a step, on a model that ran before it had gates."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1))
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["0", "1", "2"], init_lora_weights=False))
    if compiles == "one block":
        base[1].compile(backend="eager")
    whole = torch.compile(model, backend="eager") if compiles == "the whole model" else model
    whole(torch.ones(8, 4)).sum()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    config = WeightLoraConfig(keep=1, selection="stoiht", select_steps=3, warmup_steps=2, omega_lr=0.01)
    selector = WeightLora(whole, optimizer, config)
    whole(torch.ones(8, 4)).sum().backward()
    optimizer.step()
    selector.step()
    return list(selector.scores.values())


@pytest.mark.filterwarnings("ignore:the adapters are chosen after only")
@pytest.mark.parametrize("compiles", ["the whole model", "one block"])
def test_gates_act_in_code_that_was_compiled_before_them(compiles):
    """Torch does not look for new hooks. In a block, the gates alone would not move, so its adapter would lose."""
    expected = scores_of_gates(None)
    assert 1.0 not in expected
    assert scores_of_gates(compiles) == pytest.approx(expected)
