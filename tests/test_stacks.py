"""Parameters of one shape in one tensor."""

import torch
from models import batch, lora_bert

from weightlora.adapters import find_adapters
from weightlora.stacks import stacks_of


def test_each_parameter_is_in_one_stack_and_knows_its_adapter():
    adapters = find_adapters(lora_bert())
    stacks = stacks_of(adapters)
    shapes = {parameter.shape for adapter in adapters for parameter in adapter.parameters}
    assert [stack.parameters[0].shape for stack in stacks] == list(dict.fromkeys(shapes)) or len(stacks) == len(shapes)
    for stack in stacks:
        rows = stack.copy(stack.parameters)
        assert rows.shape == (len(stack.parameters), stack.entries)
        for row, parameter in enumerate(stack.parameters):
            owner, place = int(stack.owners[row]), int(stack.places[row])
            assert adapters[owner].parameters[place] is parameter
            assert torch.equal(rows[row], parameter.flatten()) and stack.parts[row] == 1
    assert sum(len(stack.parameters) for stack in stacks) == sum(len(adapter.parameters) for adapter in adapters)


def test_gradients_are_copies_of_those_that_are_there():
    model = lora_bert()
    first, *_ = stacks_of(find_adapters(model))
    assert first.gradients() is None
    model(**batch()).loss.backward()
    first.parameters[1].grad = None
    rows, gradients = first.gradients()
    before = gradients.clone()
    assert rows == [0, *range(2, len(first.parameters))]
    assert torch.equal(gradients[1], first.parameters[2].grad.flatten())
    first.parameters[2].grad.zero_()
    assert torch.equal(gradients, before)
