"""What is left of it, with the parsers under their old names."""

import argparse
import importlib
import logging
import os

import torch
from accelerate import Accelerator

logger = logging.getLogger(__name__)
HIGH_VRAM = bool(os.environ.get("HIGH_VRAM"))

from library.args import (  # noqa: E402, F401
    add_dataset_arguments,
    add_dit_training_arguments,
    add_optimizer_arguments,
    add_sd_models_arguments,
    add_training_arguments,
)


class Trainer:
    """So that there is more in the file than parsers."""

    def __init__(self, accelerator: Accelerator):
        self.dtype = torch.float32
        self.accelerator = accelerator

    def train(self, args: argparse.Namespace):
        return importlib.import_module(args.network_module)
