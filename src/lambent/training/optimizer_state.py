"""An optimiser's state as flat named tensors, exactly: a continued run takes the same steps to the last bit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lambent.errors import CheckpointError, ConfigError


def optimizer_tensors(optimizer: Optimizer, named_params: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """The state as ``group/parameter/key`` (exp_avg, exp_avg_sq, step, ...) and ``group/option`` (lr, betas, ...).

    Options that are numbers are kept as float64, which holds them exactly.

    Args:
        optimizer: any of torch.optim whose state is, for each parameter, tensors of its shape and scalars.
        named_params: ``module.named_parameters()`` or the like; names every parameter of the optimiser.

    Raises:
        ConfigError: a parameter without a name, or a state of another kind.
    """
    names = {id(param): name for name, param in named_params}
    tensors = {}
    for index, group in enumerate(optimizer.param_groups):
        tensors.update({f"{index}/{key}": _number(value) for key, value in _numbers(group)})
        for param in group["params"]:
            prefix = f"{index}/{_name(names, param)}"
            state = optimizer.state.get(param, {})
            tensors.update({f"{prefix}/{key}": _checked(v, param, f"{prefix}/{key}") for key, v in _present(state)})
    return tensors


def _name(names: Mapping[int, str], param: Tensor) -> str:
    if id(param) not in names:
        raise ConfigError(f"optimiser: a parameter of shape {list(param.shape)} has no name; pass all named parameters")
    return names[id(param)]


def _numbers(group: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in group.items():
        items = value if isinstance(value, tuple) else (value,)
        if key != "params" and items and all(_is_number(item) for item in items):
            yield key, value


def _is_number(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, int | float) and not isinstance(value, bool))


def _number(value: Any) -> Tensor:
    return value.detach().clone() if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)


def _present(state: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((key, value) for key, value in state.items() if value is not None)


def _checked(value: Any, param: Tensor, where: str) -> Tensor:
    if not isinstance(value, Tensor) or (value.dim() > 0 and value.shape != param.shape):
        raise ConfigError(f"optimiser state {where}: expected a scalar tensor or one shaped {list(param.shape)}")
    return value.detach()


def restore_optimizer(
    optimizer: Optimizer, named_params: Iterable[tuple[str, Tensor]], tensors: Mapping[str, Tensor]
) -> None:
    """Put the state of `optimizer_tensors` into a new ``optimizer`` of the same parameters; its own state is dropped.

    Raises:
        CheckpointError: tensors that belong to no parameter or option of this optimiser, or of another shape.
    """
    names = {id(param): name for name, param in named_params}
    left = dict(tensors)
    options, states = [], []
    for index, group in enumerate(optimizer.param_groups):
        options.append({key: _take_option(left, f"{index}/{key}", value) for key, value in _numbers(group)})
        for param in group["params"]:
            states.append((param, _take_state(left, f"{index}/{_name(names, param)}/", param, group)))
    if left:
        raise CheckpointError(f"optimiser state: extra {', '.join(left)}; use the recipe that wrote it")
    for group, values in zip(optimizer.param_groups, options, strict=True):
        _set_options(group, values)
    optimizer.state.clear()
    optimizer.state.update({param: state for param, state in states if state})


def _set_options(group: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, Tensor):
            group[key].copy_(value)  # in place: groups, and a captured graph, may share the tensor
        else:
            group[key] = value


def _take_option(left: dict[str, Tensor], name: str, current: Any) -> Any:
    stored = left.pop(name, None)
    if stored is None:
        raise CheckpointError(f"optimiser state: missing {name}; use the recipe that wrote it")
    if stored.numel() != (len(current) if isinstance(current, tuple) else 1):
        raise CheckpointError(f"optimiser state: {name} has shape {list(stored.shape)}, expected as many as {current}")
    if isinstance(current, Tensor):
        return stored.to(current)
    if isinstance(current, tuple):
        return tuple(stored.tolist())
    return type(current)(stored.item())


def _take_state(left: dict[str, Tensor], prefix: str, param: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
    keys = [name for name in left if name.startswith(prefix) and "/" not in name.removeprefix(prefix)]
    return {name.removeprefix(prefix): _placed(left.pop(name), name, param, group) for name in keys}


def _placed(stored: Tensor, name: str, param: Tensor, group: Mapping[str, Any]) -> Tensor:
    if stored.dim() == 0:
        # torch keeps `step` beside the parameter only for the fused and capturable kinds
        beside = group.get("fused") or group.get("capturable") or not name.endswith("/step")
        return stored.clone().to(param.device if beside else "cpu")
    if stored.shape != param.shape:
        raise CheckpointError(f"optimiser state: {name} has shape {list(stored.shape)}, expected {list(param.shape)}")
    # the strides must be the parameter's (channels_last): the fused kernel walks both memories side by side
    return torch.empty_like(param, dtype=stored.dtype, requires_grad=False).copy_(stored)
