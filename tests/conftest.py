"""Settings of every test; its place puts this folder on the path, for the tables that several folders share."""

import torch

torch.set_num_threads(1)
