"""The window of Gaussian filters against loops over pixels, written from the paper's equations."""

import math

import pytest
import torch

from lambent.errors import ConfigError
from lambent.networks.recurrent.draw import CanvasDecoder, ReaderEncoder
from lambent.networks.recurrent.gaussian_window import Window


def bounded(raw):
    return 12 / (1 + math.exp(-(12 / 35 * raw + math.log(7 / 5)))) - 7


def filters_by_loops(numbers, size, n):
    """F_Y, F_X and g of Gregor et al. 2015, eq. 19 to 26."""
    x, y, log_variance, log_stride, log_strength = numbers
    height, width = size
    stride = (max(size) - 1) / max(1, n - 1) * math.exp(bounded(log_stride))
    variance = math.exp(bounded(log_variance))
    found = []
    for centre, pixels in (((height + 1) / 2 * (y + 1), height), ((width + 1) / 2 * (x + 1), width)):
        rows = []
        for i in range(1, n + 1):
            mean = centre + (i - n / 2 - 0.5) * stride
            weights = [math.exp(-((b - mean) ** 2) / (2 * variance)) for b in range(1, pixels + 1)]
            rows.append([w / sum(weights) for w in weights])
        found.append(rows)
    return *found, math.exp(bounded(log_strength))


def read_by_loops(numbers, image, n):
    rows, columns, g = filters_by_loops(numbers, image.shape[1:], n)
    found = torch.zeros(len(image), n, n).double()
    for c, i, j in ((c, i, j) for c in range(len(image)) for i in range(n) for j in range(n)):
        for b, a in ((b, a) for b in range(image.shape[1]) for a in range(image.shape[2])):
            found[c, i, j] += g * rows[i][b] * columns[j][a] * image[c, b, a]
    return found


def write_by_loops(numbers, patch, size):
    n = patch.shape[1]
    rows, columns, g = filters_by_loops(numbers, size, n)
    found = torch.zeros(len(patch), *size).double()
    for c, i, j in ((c, i, j) for c in range(len(patch)) for i in range(n) for j in range(n)):
        for b, a in ((b, a) for b in range(size[0]) for a in range(size[1])):
            found[c, b, a] += rows[i][b] * columns[j][a] * patch[c, i, j] / g
    return found


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def as_loops(size, n):
    """Raises AssertionError unless reads and writes are those of the loops."""
    window = Window(5, size, n).double()
    with torch.no_grad():
        window.place.weight.copy_(torch.eye(5))
        window.place.bias.zero_()
    h, images, patches = 0.6 * random(4, 5), random(4, 2, *size, seed=1), random(4, 2, n, n, seed=2)
    for k in range(4):
        read, written = window.read(h, images)[k], window.write(h, patches)[k]
        assert (read - read_by_loops(h[k].tolist(), images[k], n)).abs().max() < 1e-12
        assert (written - write_by_loops(h[k].tolist(), patches[k], size)).abs().max() < 1e-12


@pytest.mark.parametrize(("size", "n"), [((6, 6), 3), ((5, 7), 2), ((7, 4), 1), ((3, 3), 5)])
def test_reads_and_writes_are_those_of_loops_over_pixels(size, n):
    as_loops(size, n)


def test_faults_in_the_filters_are_caught(monkeypatch):
    real, filters = Window._filter, Window.filters
    faults = {
        "_filter": [
            lambda self, centre, stride, variance, pixels: real(self, centre, stride, variance**2, pixels),
            lambda self, centre, stride, variance, pixels: real(
                self, centre + 2 / (pixels + 1), stride, variance, pixels
            ),
            lambda self, centre, stride, variance, pixels: real(self, centre, 2 / 3 * stride, variance, pixels),
        ],
        "filters": [
            lambda self, h: (filters(self, h)[1], filters(self, h)[0], filters(self, h)[2]),
            lambda self, h: (*filters(self, h)[:2], 1 / filters(self, h)[2]),
        ],
    }
    for name, plants in faults.items():
        for plant in plants:
            with monkeypatch.context() as patch:
                patch.setattr(Window, name, plant)
                with pytest.raises(AssertionError):
                    as_loops((6, 6), 3)


def test_a_window_of_the_images_size_with_narrow_filters_is_the_image_itself():
    window = Window(5, (6, 6), 6).double()
    with torch.no_grad():
        window.place.weight.copy_(torch.eye(5))
        window.place.bias.copy_(torch.tensor([0.0, 0.0, -1e3, 0.0, 0.0]))
    image, h = random(2, 3, 6, 6), torch.zeros(2, 5).double()
    assert (window.read(h, image) - image).abs().max() < 1e-12
    assert (window.write(h, image) - image).abs().max() < 1e-12


def test_a_window_far_outside_the_image_still_has_filters():
    window = Window(5, (6, 6), 3)
    rows, columns, strength = window.filters(1e3 * torch.randn(50, 5, generator=torch.Generator().manual_seed(0)))
    for filters in (rows, columns):
        assert torch.allclose(filters.sum(-1), torch.ones(50, 1, 3), atol=1e-6)
    assert bool((strength > 0).all())
    assert bool(torch.isfinite(strength).all())


def test_a_window_on_what_is_no_image_is_refused_with_what_would_do():
    with pytest.raises(ConfigError, match=r"encoder\.patch=0"):
        ReaderEncoder().build_reader((4,), 3)
    with pytest.raises(ConfigError, match=r"decoder\.patch=0"):
        CanvasDecoder().build_writer(2, (1, 4))
