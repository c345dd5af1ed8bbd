"""Whether the Python of a checkout can run its scripts: asked of that Python itself, in a process of its own."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import field, frozen

from cinderlora.frozendict import FrozenDict, as_tuple
from cinderlora.problems import Problem, Severity
from cinderlora.sd_scripts.processes import Commands, Outcome

__all__ = ["REQUIRED", "TIMEOUT", "Verification", "findings_in", "same_name", "verified", "verify_environment"]

TIMEOUT = 300.0  # seconds; the first import of PyTorch from a slow disk has been seen to take minutes

REQUIRED = {
    "numpy": "numpy",
    "torch": "torch",
    "torchvision": "torchvision",
    "safetensors": "safetensors",
    "accelerate": "accelerate",
    "transformers": "transformers",
    "diffusers": "diffusers",
    "huggingface_hub": "huggingface-hub",
    "PIL": "pillow",
    "cv2": "opencv-python",
    "einops": "einops",
    "imagesize": "imagesize",
    "toml": "toml",
    "tqdm": "tqdm",
    "packaging": "packaging",
    "voluptuous": "voluptuous",
}
"""What the FLUX, SDXL and SD3 scripts of 48d368fa (v0.10.1), and the modules of their own that they use, import at
their top; each with the package that brings it."""

OPTIONAL = ("bitsandbytes", "prodigyopt")
"""Packages that only some optimizers need; presets use both."""


@frozen(kw_only=True)
class Verification:
    """What the Python of a checkout has, and what is wrong with it.

    `packages` are all that are installed there: their names as on PyPI, in lower case with hyphens, and versions.
    """

    python: Path | None
    python_version: str | None = None
    packages: FrozenDict = field(factory=FrozenDict, converter=FrozenDict)
    torch: str | None = None
    """PyTorch's version, as far as it could be imported, e.g. "2.8.0+cu128"."""
    cuda: str | None = None
    """The CUDA that PyTorch was built for, e.g. "12.8"; None for a build without."""
    gpus: tuple[str, ...] = field(default=(), converter=as_tuple)
    """The GPUs that PyTorch sees, by name."""
    scripts: tuple[str, ...] = field(default=(), converter=as_tuple)
    """The scripts that can be imported, e.g. "flux_train_network.py"."""
    missing: tuple[str, ...] = field(default=(), converter=as_tuple)
    """The packages that the scripts need and do not find, by the name to install them with."""
    problems: tuple[Problem, ...] = field(default=(), converter=as_tuple)

    @property
    def ok(self) -> bool:
        """Whether a script can be run, one of `scripts`; there may still be warnings."""
        return not any(p.severity == "error" for p in self.problems)

    def has_package(self, name: str) -> bool:
        """Whether a package is installed, by its name on PyPI, in any spelling."""
        return same_name(name) in self.packages


def verify_environment(
    python: Path,
    checkout: Path,
    scripts: Iterable[str] = (),
    *,
    imports: bool = True,
    timeout: float = TIMEOUT,
    environ: Mapping[str, str] | None = None,
    commands: Commands | None = None,
) -> Verification:
    """Ask a Python what it has; with `imports`, also whether it can import what the scripts need, and the scripts.

    It is asked with the environment that a training would have, `PYTHONPATH` and the user's own packages included.
    """
    from cinderlora.sd_scripts.checkout import ENVIRONMENT

    scripts = [script for script in scripts if _module(script).isidentifier()]
    names = [*REQUIRED, *map(_module, scripts)] if imports else []
    probe = Path(__file__).with_name("probe.py")
    lines: list[str] = []
    try:
        outcome = (commands or Commands()).run(
            [str(python), str(probe), str(checkout), *names],
            cwd=checkout,
            env={**(os.environ if environ is None else environ), **ENVIRONMENT},
            on_line=lines.append,
            timeout=timeout,
        )
    except OSError as error:
        params = {"python": str(python), "why": error.strerror or str(error)}
        return Verification(python=python, problems=[Problem("trainer_python_unusable", params)])
    return verified(python, findings_in(lines), outcome, scripts if imports else None)


def findings_in(lines: Iterable[str]) -> list[dict[str, Any]]:
    """What the probe told, picked out of everything that was printed."""
    findings = []
    for line in lines:
        for piece in line.split("\x1e")[1:]:
            try:
                finding, _ = json.JSONDecoder().raw_decode(piece)
            except (ValueError, RecursionError):
                continue
            if isinstance(finding, dict):
                findings.append(finding)
    return findings


def verified(
    python: Path, findings: Sequence[Mapping[str, Any]], outcome: Outcome, scripts: Sequence[str] | None
) -> Verification:
    """What the findings come to. Pure. `scripts` is None where nothing was imported, and so no import failed."""
    told = {key: finding for finding in findings for key in ("python", "torch", "done") if key in finding}
    if "python" not in told:
        problem = Problem("trainer_python_unusable", {"python": str(python), "why": _why_it_ended(outcome)})
        return Verification(python=python, problems=[problem])
    packages = {same_name(f["package"]): str(f["version"]) for f in findings if "package" in f}
    failed = {f["failed"]: f for f in findings if "failed" in f}
    tried = [f["importing"] for f in findings if "importing" in f]
    if "done" not in told and tried:
        # It came to its end in the middle of an import: an instruction that the processor lacks, a hanging driver.
        failed.setdefault(tried[-1], {"failed": tried[-1], "why": _why_it_ended(outcome), "missing": None})
    imported = {f["imported"] for f in findings if "imported" in f} - set(failed)
    usable = [script for script in scripts or () if _module(script) in imported]
    # The scripts decide: what they do without is a warning, and so is one among them that is broken. Where a package
    # cannot be imported, the scripts that import it are not told as well.
    culprits = [f for name, f in failed.items() if name in REQUIRED] or list(failed.values())
    severity: Severity = "warning" if usable else "error"
    torch = told.get("torch", {})
    problems = [*_import_problems(python, culprits, severity)]
    if scripts is not None:
        problems += [*_gpu_problems(torch), *_optional_problems(packages)]
    return Verification(
        python=python,
        python_version=told["python"]["python"],
        packages=packages,
        torch=torch.get("torch"),
        cuda=torch.get("cuda"),
        gpus=torch.get("gpus", ()),
        scripts=usable,
        missing=_missing(culprits) if severity == "error" else (),
        problems=problems,
    )


def _missing(failed: Iterable[Mapping[str, Any]]) -> list[str]:
    """The packages that were not found, by imports of the scripts or of what the scripts import."""
    return list(dict.fromkeys(REQUIRED.get(f["missing"], f["missing"]) for f in failed if f["missing"]))


def _import_problems(python: Path, failed: Sequence[Mapping[str, Any]], severity: Severity) -> Iterable[Problem]:
    missing = _missing(failed)
    if missing:
        yield Problem("trainer_package_missing", {"packages": missing, "python": str(python)}, severity=severity)
    modules: dict[str, list[str]] = {}
    for finding in failed:
        if not finding["missing"]:
            modules.setdefault(finding["why"], []).append(finding["failed"])
    for why, names in modules.items():  # all scripts fail for one reason, as a rule
        yield Problem("trainer_import_failed", {"module": ", ".join(names), "why": why}, severity=severity)


def _gpu_problems(torch: Mapping[str, Any]) -> Iterable[Problem]:
    if not torch or torch.get("gpus"):
        return
    version = torch.get("torch")
    if not torch.get("cuda") and not torch.get("hip"):
        yield Problem("trainer_torch_cpu", {"torch": version}, severity="warning")
    else:
        yield Problem("trainer_gpu_unseen", {"torch": version, "why": torch.get("why")}, severity="warning")


def _optional_problems(packages: Mapping[str, str]) -> Iterable[Problem]:
    lacking = [name for name in OPTIONAL if name not in packages]
    if lacking:
        yield Problem("trainer_optimizer_missing", {"packages": lacking}, severity="warning")


def _why_it_ended(outcome: Outcome) -> str:
    said = next((line for line in reversed(outcome.lines) if "\x1e" not in line), "")
    if outcome.timed_out:
        how = "no answer"
    elif outcome.exit_code < 0:
        how = f"signal {-outcome.exit_code}"
    else:
        how = f"exit code {outcome.exit_code}"
    return f"{how}: {said}" if said else how


def _module(script: str) -> str:
    return script.removesuffix(".py")


def same_name(name: str) -> str:
    """A package's name in the one spelling that all its spellings have in common (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
