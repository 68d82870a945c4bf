"""A run continued from a checkpoint takes the same steps as one that was never stopped, to the last bit."""

import hashlib

import pytest
import torch
from torch import nn

from lambent.errors import CheckpointError, ConfigError
from lambent.storage.checkpoint import apply, newest, save
from lambent.training import optimizer_state
from lambent.training.optimizer_state import optimizer_tensors, restore_optimizer


def dense():
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 2))


def channels_last():
    net = nn.Sequential(nn.Unflatten(1, (6, 1, 1)), nn.ConvTranspose2d(6, 5, 3), nn.Conv2d(5, 2, 3), nn.Flatten())
    return net.to(memory_format=torch.channels_last)


OPTIMIZERS = {
    "Adam, fused": lambda p: torch.optim.Adam(p, lr=3e-3, fused=True),
    "AdamW, fused": lambda p: torch.optim.AdamW(p, lr=3e-3, weight_decay=0.03, fused=True),
    "AdamW, fused, amsgrad": lambda p: torch.optim.AdamW(p, lr=3e-3, amsgrad=True, fused=True),
    "AdamW, a loop": lambda p: torch.optim.AdamW(p, lr=3e-3, foreach=False),
    "Adam, lr a tensor": lambda p: torch.optim.Adam(p, lr=torch.tensor(3e-3), fused=True),
    "SGD": lambda p: torch.optim.SGD(p, lr=3e-3),
    "SGD, momentum": lambda p: torch.optim.SGD(p, lr=3e-3, momentum=0.9),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=3e-3, centered=True),
}


class Training:
    """A small regression whose learning rate falls each step, as a schedule would have it."""

    def __init__(self, build, optimizer, seed=0):
        torch.manual_seed(seed)
        self.net = build()
        parameters = list(self.net.named_parameters())
        groups = [{"params": [p for n, p in parameters if n.endswith(kind)]} for kind in ("weight", "bias")]
        self.optimizer, self.step = OPTIMIZERS[optimizer](groups), 0

    def run(self, steps):
        for _ in range(steps):
            self.step += 1
            x = torch.randn(8, 6, generator=torch.Generator().manual_seed(self.step))
            loss = (self.net(x) - x[:, :2]).square().mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            for group in self.optimizer.param_groups:
                if isinstance(group["lr"], torch.Tensor):
                    group["lr"].mul_(0.9)
                else:
                    group["lr"] *= 0.9
        return self

    def tensors(self):
        return {
            "model": self.net.state_dict(),
            "optimizer": optimizer_tensors(self.optimizer, self.net.named_parameters()),
        }

    def sha256(self):
        digest = hashlib.sha256()
        for group, members in sorted(self.tensors().items()):
            for name, tensor in sorted(members.items()):
                digest.update(f"{group}/{name}{tensor.dtype}".encode())
                digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def continued(folder, build, optimizer, alter=lambda tensors: tensors):
    """Five steps, a checkpoint, and five more by new objects that began elsewhere."""
    first = Training(build, optimizer).run(5)
    save(folder, first.step, first.tensors(), {})
    found = newest(folder)
    second = Training(build, optimizer, seed=1).run(2)
    apply(second.net, found.tensors["model"])
    restore_optimizer(second.optimizer, second.net.named_parameters(), alter(found.tensors["optimizer"]))
    second.step = found.step
    return second.run(5)


@pytest.mark.parametrize("build", [dense, channels_last])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_five_steps_and_five_after_loading_are_ten_steps_to_the_bit(tmp_path, build, optimizer):
    straight = Training(build, optimizer).run(10)
    assert continued(tmp_path, build, optimizer).sha256() == straight.sha256()


def changed(end, value):
    return lambda tensors: {name: value(t) if name.endswith(end) else t for name, t in tensors.items()}


PLANTED = {
    "step forgotten": changed("/step", torch.zeros_like),
    "moments halved in precision": changed("/exp_avg", lambda t: t.half().float()),
    "second moment forgotten": changed("/exp_avg_sq", torch.zeros_like),
    "lr of the start": changed("/lr", lambda t: torch.full_like(t, 3e-3)),
    "lr in float32": changed("/lr", lambda t: t.float().double()),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_the_same_check_catches_a_state_that_is_not_exact(tmp_path, fault):
    straight = Training(dense, "AdamW, fused").run(10)
    assert continued(tmp_path, dense, "AdamW, fused", PLANTED[fault]).sha256() != straight.sha256()


def test_restored_moments_have_the_strides_of_their_parameter():
    one, two = Training(channels_last, "Adam, fused").run(1), Training(channels_last, "Adam, fused", seed=1)
    restore_optimizer(two.optimizer, two.net.named_parameters(), one.tensors()["optimizer"])
    weight = two.net[1].weight
    assert not weight.is_contiguous()
    assert two.optimizer.state[weight]["exp_avg"].stride() == weight.stride()


def test_the_same_check_catches_moments_restored_with_other_strides(tmp_path, monkeypatch):
    straight = Training(channels_last, "Adam, fused").run(10)
    monkeypatch.setattr(optimizer_state, "_placed", lambda stored, name, param, group: stored.clone())
    assert continued(tmp_path, channels_last, "Adam, fused").sha256() != straight.sha256()


def test_names_and_hyperparameters_are_plain_to_read():
    training = Training(dense, "AdamW, fused").run(3)
    tensors = training.tensors()["optimizer"]
    options = {"lr", "betas", "eps", "weight_decay"}
    states = {f"{g}/{i}.{kind}/{key}" for g, kind in enumerate(("weight", "bias")) for i in (0, 2) for key in KEYS}
    assert tensors.keys() == states | {f"{g}/{option}" for g in (0, 1) for option in options}
    assert tensors["0/betas"].tolist() == [0.9, 0.999]
    assert tensors["1/lr"].item() == training.optimizer.param_groups[1]["lr"]
    assert tensors["0/2.weight/step"].item() == 3


KEYS = ("step", "exp_avg", "exp_avg_sq")


def test_a_parameter_that_never_had_a_gradient_has_no_state(tmp_path):
    net = dense()
    net[0].weight.requires_grad_(False)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 6)).sum().backward()
    optimizer.step()
    tensors = optimizer_tensors(optimizer, net.named_parameters())
    assert not [name for name in tensors if name.startswith("0/0.weight/")]
    new = torch.optim.Adam(net.parameters())
    restore_optimizer(new, net.named_parameters(), tensors)
    assert net[0].weight not in new.state
    assert len(new.state) == 3


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (lambda t: t | {"0/9.weight/exp_avg": torch.ones(1)}, "extra 0/9.weight/exp_avg"),
        (lambda t: t | {"2/lr": torch.ones(1)}, "extra 2/lr"),
        (lambda t: {k: v for k, v in t.items() if k != "1/lr"}, "missing 1/lr"),
        (lambda t: t | {"0/betas": torch.ones(3)}, r"0/betas has shape \[3\], expected as many as"),
        (
            lambda t: t | {"0/0.weight/exp_avg": torch.ones(2, 2)},
            r"0/0.weight/exp_avg has shape \[2, 2\], expected \[16, 6\]",
        ),
    ],
)
def test_a_state_of_another_model_is_refused_and_nothing_changed(alter, message):
    training = Training(dense, "AdamW, fused").run(2)
    before = training.sha256()
    with pytest.raises(CheckpointError, match=message) as caught:
        restore_optimizer(training.optimizer, training.net.named_parameters(), alter(training.tensors()["optimizer"]))
    assert caught.value.exit_code == 4
    assert training.sha256() == before


def test_what_cannot_be_named_or_stored_is_refused_when_saving():
    training = Training(dense, "Adam, fused").run(1)
    with pytest.raises(ConfigError, match=r"a parameter of shape \[16, 6\] has no name"):
        optimizer_tensors(training.optimizer, [])
    net = dense()
    optimizer = torch.optim.LBFGS(net.parameters())

    def closure():
        loss = net(torch.ones(2, 6)).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    with pytest.raises(ConfigError, match="expected a scalar tensor or one shaped"):
        optimizer_tensors(optimizer, net.named_parameters())
