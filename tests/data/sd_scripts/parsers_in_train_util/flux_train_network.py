import argparse

import train_network
from library import flux_train_utils, train_util


class FluxNetworkTrainer(train_network.NetworkTrainer):
    pass


def setup_parser() -> argparse.ArgumentParser:
    parser = train_network.setup_parser()
    train_util.add_dit_training_arguments(parser)
    flux_train_utils.add_flux_train_arguments(parser)
    parser.add_argument("--only_in_this_version", action="store_true")
    return parser


if __name__ == "__main__":
    parser = setup_parser()
    FluxNetworkTrainer().train(parser.parse_args())
