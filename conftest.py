"""What is no part of this suite."""

# Packages of their own, with suites of their own: those are run where they are installed.
collect_ignore_glob = ["docs/examples/cinderlora-*"]
