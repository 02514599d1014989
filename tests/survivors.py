"""Models that keep some of their adapters, for the tests of surgery."""

from weightlora.adapters import find_adapters
from weightlora.adapters.outcome import describe_
from weightlora.adapters.surgery import disconnect_


def remove(model, keep: list[int], optimizer=None, adapter_name=None) -> list[str]:
    """Disconnect all adapters but those at these places; returns the names of those that stay."""
    adapters = find_adapters(model, adapter_name)
    disconnect_(model, [adapter for i, adapter in enumerate(adapters) if i not in keep], optimizer)
    describe_(model, adapters[0].adapter_name)
    return [adapters[i].name for i in keep]


def injected(model, adapter_name: str = "default") -> list[str]:
    """Names of the adapters on the model."""
    return [adapter.name for adapter in find_adapters(model, adapter_name, check=False)]
