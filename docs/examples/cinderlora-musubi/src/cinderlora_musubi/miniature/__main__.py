"""Entry point of ``python -m cinderlora_musubi.miniature``."""

import os
import sys

# The matrices are tiny: threads of a BLAS cost more than they save, and must be told so before NumPy is imported.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ.setdefault(_variable, "1")

if __name__ == "__main__":
    from cinderlora_musubi.miniature.scripts import main

    sys.exit(main(sys.argv[1:]))
