# ruff: noqa: PLR0402
import argparse

import library.config_util as config_util
import library.custom_train_functions as custom_train_functions
import library.train_util as train_util
import torch
from library.utils import add_logging_arguments, setup_logging

setup_logging()


class NetworkTrainer:
    def train(self, args):
        return torch.zeros(1)


def setup_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()

    add_logging_arguments(parser)
    train_util.add_sd_models_arguments(parser)
    train_util.add_dataset_arguments(parser, True, True, True)
    train_util.add_training_arguments(parser, True)
    train_util.add_optimizer_arguments(parser)
    config_util.add_config_arguments(parser)
    custom_train_functions.add_custom_train_arguments(parser)

    parser.add_argument("--save_model_as", type=str, default="safetensors", choices=[None, "ckpt", "pt", "safetensors"])
    parser.add_argument("--network_module", type=str, default=None)
    parser.add_argument("--network_dim", type=int, default=None)
    parser.add_argument("--network_alpha", type=float, default=1)
    parser.add_argument("--network_args", type=str, default=None, nargs="*")
    parser.add_argument("--network_train_unet_only", action="store_true")
    parser.add_argument("--text_encoder_lr", type=float, default=None, nargs="*")
    return parser


if __name__ == "__main__":
    parser = setup_parser()
    NetworkTrainer().train(parser.parse_args())
