import argparse


def add_sdxl_training_arguments(parser: argparse.ArgumentParser, support_text_encoder_caching: bool = True):
    if support_text_encoder_caching:
        parser.add_argument("--cache_text_encoder_outputs", action="store_true")
        parser.add_argument("--cache_text_encoder_outputs_to_disk", action="store_true")
