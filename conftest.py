"""What is no part of this suite."""

from importlib.util import find_spec

# Packages of their own, with suites of their own: those are run where they are installed.
collect_ignore_glob = ["docs/examples/cinderlora-*"]

# pytest imports a package with its tests, and this one needs cinderlora[ui].
if find_spec("gradio") is None:
    collect_ignore_glob.append("docs/examples/lora_tab/tests")
