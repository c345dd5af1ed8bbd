import argparse

import train_network
from library import sdxl_train_util


class SdxlNetworkTrainer(train_network.NetworkTrainer):
    pass


def setup_parser() -> argparse.ArgumentParser:
    parser = train_network.setup_parser()
    sdxl_train_util.add_sdxl_training_arguments(parser)
    return parser


if __name__ == "__main__":
    parser = setup_parser()
    SdxlNetworkTrainer().train(parser.parse_args())
