"""The rehearsal trainer: a miniature diffusion-LoRA training in NumPy, behind the contract of sd-scripts.

It is started like a script of sd-scripts and reads the same files::

    python -P -m cinderlora.rehearsal flux_train_network.py --config_file elena_kohya_training.toml

and prints the same lines, writes the same files and ends with the same exit codes (sd-scripts v0.10.1). It trains a
very small model on the pictures of the data set, with no GPU and no downloads, so that front ends can be built,
tested and shown. It needs only NumPy and Pillow, and says in its log and in its files that it is a rehearsal.
"""
