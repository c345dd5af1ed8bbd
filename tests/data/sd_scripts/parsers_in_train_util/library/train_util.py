"""Everything in one file, as in versions 0.9 and 0.10."""

import argparse
import importlib
import logging
import os

import torch
from accelerate import Accelerator

logger = logging.getLogger(__name__)
HIGH_VRAM = bool(os.environ.get("HIGH_VRAM"))


def add_sd_models_arguments(parser: argparse.ArgumentParser):
    parser.add_argument("--pretrained_model_name_or_path", type=str, default=None, help="the base model / \u57fa\u76e4")
    parser.add_argument("--v2", action="store_true", help="an old model")


def add_optimizer_arguments(parser: argparse.ArgumentParser):
    def int_or_float(value):
        if value.endswith("%"):
            return float(value[:-1]) / 100.0
        return float(value) if float(value) < 1 else int(value)

    parser.add_argument("--optimizer_type", type=str, default="", help="AdamW (default), AdamW8bit, Prodigy")
    parser.add_argument("--optimizer_args", type=str, default=None, nargs="*")
    parser.add_argument("--learning_rate", type=float, default=2.0e-6)
    parser.add_argument("--max_grad_norm", default=1.0, type=float)
    parser.add_argument("--lr_scheduler", type=str, default="constant")
    parser.add_argument("--lr_warmup_steps", type=int_or_float, default=0, help="a count, or a part of all steps")


def add_training_arguments(parser: argparse.ArgumentParser, support_dreambooth: bool):
    parser.add_argument("--output_dir", type=str, default=None)
    parser.add_argument("--output_name", type=str, default=None)
    parser.add_argument("--save_precision", type=str, default=None, choices=[None, "float", "fp16", "bf16"])
    parser.add_argument("--save_every_n_steps", type=int, default=None)
    parser.add_argument("--save_state", action="store_true")
    parser.add_argument("--wandb_api_key", type=str, default=None)
    parser.add_argument("--max_train_steps", type=int, default=1600)
    parser.add_argument("--max_data_loader_n_workers", type=int, default=8)
    parser.add_argument("--persistent_data_loader_workers", action="store_true")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--sdpa", action="store_true")
    parser.add_argument("--gradient_checkpointing", action="store_true")
    parser.add_argument("--gradient_accumulation_steps", type=int, default=1)
    parser.add_argument("--mixed_precision", type=str, default="no", choices=["no", "fp16", "bf16"])
    parser.add_argument("--fp8_base", action="store_true")
    parser.add_argument("--sample_every_n_steps", type=int, default=None)
    parser.add_argument("--sample_at_first", action="store_true")
    parser.add_argument("--sample_prompts", type=str, default=None)
    parser.add_argument("--sample_sampler", type=str, default="ddim", choices=["ddim", "euler", "euler_a"])
    parser.add_argument("--config_file", type=str, default=None)
    if support_dreambooth:
        parser.add_argument("--prior_loss_weight", type=float, default=1.0)


def add_dit_training_arguments(parser: argparse.ArgumentParser):
    parser.add_argument("--cache_text_encoder_outputs", action="store_true")
    parser.add_argument("--cache_text_encoder_outputs_to_disk", action="store_true")
    parser.add_argument("--blocks_to_swap", type=int, default=None)


def add_dataset_arguments(parser: argparse.ArgumentParser, dreambooth: bool, caption: bool, dropout: bool):
    parser.add_argument("--caption_extension", type=str, default=".caption", help="how caption files end")
    parser.add_argument("--cache_latents", action="store_true")
    parser.add_argument("--cache_latents_to_disk", action="store_true")
    parser.add_argument(
        "--resize_interpolation",
        type=str,
        default=None,
        choices=["lanczos", "nearest", "area"],
        help="how pictures are scaled" + " and" + f" {1 + 1} more words",
    )
    if dropout:
        parser.add_argument("--caption_dropout_rate", type=float, default=0.0, help="of whole captions")
    if dreambooth:
        parser.add_argument("--reg_data_dir", type=str, default=None)
    if caption:
        parser.add_argument("--in_json", type=str, default=None)


class Trainer:
    """So that there is more in the file than parsers."""

    def __init__(self, accelerator: Accelerator):
        self.dtype = torch.float32
        self.accelerator = accelerator

    def train(self, args: argparse.Namespace):
        return importlib.import_module(args.network_module)
