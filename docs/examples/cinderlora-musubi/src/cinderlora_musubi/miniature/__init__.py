"""The rehearsal of musubi-tuner: cinderlora's miniature training, behind musubi-tuner's scripts.

It is started like them and reads and writes what they do::

    python -P -m cinderlora_musubi.miniature zimage_cache_latents.py --dataset_config elena_dataset.toml --vae FILE
    python -P -m cinderlora_musubi.miniature zimage_train_network.py --config_file elena_musubi_training.toml

The caches hold the miniature's own latents and words; without them the training finds nothing, as the real one.
"""
