"""Lets accelerate train several processes without a card: what is frozen is not wrapped, as with cards."""

import importlib.util
import sys


class Finder:
    """Changes the one module when it is imported."""

    def find_spec(self, name, path, target=None):
        if name != "accelerate.accelerator":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            prepare = module.Accelerator.prepare_model

            def prepare_model(self, model, device_placement=None, evaluation_mode=False):
                frozen = not any(parameter.requires_grad for parameter in model.parameters())
                return prepare(self, model, device_placement, evaluation_mode or frozen)

            module.Accelerator.prepare_model = prepare_model

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Finder())
