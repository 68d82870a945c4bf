"""Distances of samples from data, against the closed form for Normal distributions and a naive count."""

import math

import pytest
import torch

from lambent.errors import ConfigError, ShapeError
from lambent.evaluation.sample_quality import Principal, frechet_distance, precision_recall


def exactly(mean, scales, n=64, turn=None):
    """Vectors whose mean is ``mean`` and whose sample covariance is exactly diag(scales^2), turned."""
    noise = torch.randn(n, len(mean), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    noise = torch.linalg.qr(noise - noise.mean(0)).Q * math.sqrt(n - 1)
    rows = noise * torch.tensor(scales, dtype=torch.float64)
    rows = rows if turn is None else rows @ turn.T
    return rows + torch.tensor(mean, dtype=torch.float64)


def rotation(angle):
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s], [s, c]], dtype=torch.float64)


def test_along_the_same_axes_it_is_the_distance_of_means_and_of_standard_deviations():
    a, b = exactly([1.0, -2.0, 0.5], [1.0, 3.0, 0.0]), exactly([0.0, 2.0, 0.5], [2.0, 0.5, 4.0])
    assert frechet_distance(a, b) == pytest.approx(1 + 16 + 1 + 6.25 + 16, abs=1e-9)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b), abs=1e-9)


def test_of_turned_normals():
    """tr (C^1/2 C' C^1/2)^1/2 of 2 x 2 matrices is sqrt(tr C C' + 2 sqrt(det C C'))."""
    a, b = exactly([0.0, 0.0], [1.0, 3.0]), exactly([0.0, 0.0], [2.0, 0.5], turn=rotation(0.6))
    c, d = a.T.cov(), b.T.cov()
    cross = math.sqrt((c @ d).trace() + 2 * math.sqrt(torch.linalg.det(c @ d)))
    expected = (c + d).trace().item() - 2 * cross
    assert frechet_distance(a, b) == pytest.approx(expected, abs=1e-9)
    unturned = 1 + 6.25
    assert abs(expected - unturned) > 0.5  # covariances that don't commute tell more than their diagonals


def test_samples_of_the_same_normal_are_near_and_nearer_the_more_there_are():
    noise = torch.Generator().manual_seed(2)
    found = [
        frechet_distance(torch.randn(n, 5, generator=noise), torch.randn(n, 5, generator=noise)) for n in (99, 9999)
    ]
    assert 0 < found[1] < 0.01 < found[0] < 1


def test_principal_components_are_those_of_the_data():
    x = exactly([3.0, -1.0], [2.0, 0.1], turn=rotation(0.3)).view(-1, 1, 2)
    features = Principal.of(x, 2)(x)
    torch.testing.assert_close(features.T.cov(), torch.diag(torch.tensor([4.0, 0.01], dtype=torch.float64)))
    assert features.mean(0).abs().max() < 1e-12
    torch.testing.assert_close(torch.cdist(features, features), torch.cdist(x[:, 0], x[:, 0]))
    assert Principal.of(x, 1)(x[:3]).shape == (3, 1)
    with pytest.raises(ConfigError, match="give 1 to 2"):
        Principal.of(x, 3)


def naive(points, members, k):
    inside = 0
    for p in points:
        for i, m in enumerate(members):
            others = sorted((m - other).norm().item() for j, other in enumerate(members) if j != i)
            if (p - m).norm().item() <= others[k - 1]:
                inside += 1
                break
    return inside / len(points)


@pytest.mark.parametrize("k", [1, 3])
def test_precision_and_recall_against_a_naive_count(k):
    noise = torch.Generator().manual_seed(3)
    real, made = torch.randn(30, 2, generator=noise), 0.5 * torch.randn(20, 2, generator=noise) + 0.7
    found = precision_recall(real, made, neighbours=k)
    assert found == pytest.approx((naive(made, real, k), naive(real, made, k)))
    assert 0.2 < found[1] < found[0] <= 1


def test_few_modes_lose_recall_and_blur_loses_precision():
    noise = torch.Generator().manual_seed(4)
    modes = 10 * torch.arange(4).repeat_interleave(50)[:, None].float()
    real, same = (modes + torch.randn(200, 1, generator=noise) @ torch.ones(1, 2) for _ in range(2))
    precision, recall = precision_recall(real, same)
    assert min(precision, recall) > 0.8
    assert precision_recall(real, same[:50])[1] < 0.4
    assert precision_recall(real, same + 4)[0] < 0.5


def test_what_can_not_be_compared_is_refused():
    with pytest.raises(ShapeError, match="flatten"):
        frechet_distance(torch.zeros(5, 2), torch.zeros(5, 3))
    with pytest.raises(ShapeError, match="at least 4"):
        precision_recall(torch.zeros(5, 2), torch.zeros(3, 2))
