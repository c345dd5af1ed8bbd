# ruff: noqa: W605
import argparse
import re

ATTENTION = re.compile(
    """
    \(|\)|\[|\]
    """  # in a plain string, of which newer Pythons warn
)


def add_custom_train_arguments(parser: argparse.ArgumentParser, support_weighted_captions: bool = True):
    parser.add_argument("--min_snr_gamma", type=float, default=None)
    if support_weighted_captions:
        parser.add_argument("--weighted_captions", action="store_true", default=False)
