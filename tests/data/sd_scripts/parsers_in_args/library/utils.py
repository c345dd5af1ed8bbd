import argparse


def setup_logging(args=None):
    pass


def add_logging_arguments(parser: argparse.ArgumentParser):
    levels = ["DEBUG", "INFO", "WARNING"]
    parser.add_argument("--console_log_level", type=str, default=None, choices=levels)
    parser.add_argument("--console_log_simple", action="store_true")
