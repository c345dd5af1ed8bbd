"""The checks for authors: good plugins pass them, and each fault is found by the check that is for it, in words that
say what to change."""

from __future__ import annotations

import itertools
import re
import traceback
import types
from pathlib import Path
from unittest import SkipTest

import attrs
import pytest

import cinderlora_flux
import cinderlora_sd3
import cinderlora_sdxl
from cinderlora import (
    Activations,
    Activity,
    Component,
    Diagnosis,
    Footprint,
    ModelFile,
    ModelType,
    Preset,
    Problem,
    Progress,
    SdScripts,
    hookimpl,
    hookspecs,
)
from cinderlora.checkouts import Checkout
from cinderlora.testing import Check, adapter_checks, make_header, sample_header

BLOCKS = {f"blocks.{i}.attention.weight": (512, 512) for i in range(8)}
MODEL = make_header({"novel.embedder.weight": (512, 64), **BLOCKS})
VAE = make_header({"decoder.novel.weight": (3, 128, 3, 3)}, "models/novel_vae.safetensors")
NOVEL = ModelType(
    name="novel",
    title="Novel 1",
    min_vram_gb=12,
    script="flux_train_network.py",
    network_module="networks.lora_novel",
    components=[Component("model"), Component("ae")],
)


def outcome(check: Check) -> str:
    """ "ok", "skipped", or what the check says is to be changed."""
    try:
        check()
    except AssertionError as error:
        return str(error)
    except SkipTest:
        return "skipped"
    return "ok"


def named(plugin: object, name: str, **capabilities: object) -> Check:
    (found,) = [check for check in adapter_checks(plugin, **capabilities) if str(check) == name]
    return found


# ---- those that do everything right ----------------------------------------------------------------------------------


@pytest.mark.parametrize("plugin", [cinderlora_flux, cinderlora_sdxl, cinderlora_sd3], ids=lambda p: p.__name__)
def test_our_own_adapters(plugin):
    own = {
        "cinderlora_flux": {"model": "flux_dev", "clip_l": "clip_l", "t5xxl": "t5xxl", "ae": "flux_ae"},
        "cinderlora_sdxl": {"model": "sdxl_base", "vae": "sdxl_vae"},
        "cinderlora_sd3": {"model": "sd3_medium", "clip_l": "clip_l", "clip_g": "clip_g", "t5xxl": "t5xxl"},
    }[plugin.__name__]
    headers = {role: sample_header(kind) for role, kind in own.items()}
    logs = [
        Path(__file__).parent / "data/captures" / f"{plugin.__name__.removeprefix('cinderlora_')}-complete/output.log"
    ]
    found = {str(check): outcome(check) for check in adapter_checks(plugin, headers=headers, logs=logs)}
    skipped = {name for name, said in found.items() if said == "skipped"}
    assert {name: said for name, said in found.items() if said not in {"ok", "skipped"}} == {}
    assert skipped == {"parse progress never raises", "diagnose never raises"}  # they have none of their own


class Novel:
    """An adapter that has every hook."""

    @hookimpl
    def model_type(self):
        return NOVEL

    @hookimpl
    def presets(self, model_type):
        if model_type.name == "novel":
            yield Preset(name="16gb", vram_gb=16, resolution=512, network_dim=16, optimizer="Prodigy", steps=1000)
            yield Preset(name="8gb", vram_gb=8, base="16gb", network_dim=8, optimizer="AdamW8bit")

    @hookimpl
    def scan_models(self, files):
        for header in files:
            if header.tensors.shape("novel.embedder.weight") == (512, 64):
                yield ModelFile(path=header.path, role="model", precision=header.precision, size=header.size)
            elif "decoder.novel.weight" in header.tensors:
                yield ModelFile(path=header.path, role="ae", precision=header.precision, size=header.size)

    @hookimpl
    def build_args(self, job):
        return {"timestep_sampling": "sigmoid", "guidance_scale": 0.0, "t5xxl_max_token_length": 512}

    @hookimpl
    def parse_progress(self, line, phase):
        if line.startswith("novel step "):
            return [Progress(step=1, total=8, loss=None)]
        return None

    @hookimpl
    def diagnose(self, failure):
        if any("no licence" in line for line in failure.lines):
            return Diagnosis(code="novel_licence", cause="There is no licence.", fix="Ask for one.")
        return None


OWN = {"model": MODEL, "ae": VAE}
LOG = b"novel step 1\n" * 3


def test_a_good_adapter_passes_all_of_them():
    checks = adapter_checks(Novel(), headers=OWN, logs=[LOG])
    found = {str(check): outcome(check) for check in checks}
    assert len(found) == len(checks) >= 18
    found.pop("importing it is light")  # whether another program could import this file depends on how pytest did
    assert {name: said for name, said in found.items() if said != "ok"} == {"the presets fit their memory": "skipped"}


def test_a_preset_pack_is_tried_with_what_is_installed():
    class Studio:
        @hookimpl
        def presets(self, model_type):
            if model_type.name == "flux":
                yield Preset(name="studio", base="16gb", steps=800)

        @hookimpl(wrapper=True)
        def build_args(self, job):
            args = yield
            return {**args, "max_grad_norm": 0.5}

    found = {str(check): outcome(check) for check in adapter_checks(Studio(), import_seconds=60)}
    assert not [name for name in found if "model type" in name or "headers" in name]
    assert {name: said for name, said in found.items() if said not in {"ok", "skipped"}} == {}
    assert found["the presets are valid"] == found["arguments are known to the script"] == "ok"


def test_a_trainer_of_ones_own_passes_with_a_model_type_or_alone():
    class TinyTuner(Checkout):
        kind = "tiny-tuner"
        sign = "train_tiny.py"

        def problems(self, model_type, job, args):
            return ()

        def plan(self, model_type, job, dataset, args, resumption=None):
            raise NotImplementedError

    class Tiny:
        @hookimpl
        def trainer(self):
            return TinyTuner

    assert outcome(named(Tiny(), TRAINER)) == "ok"
    assert TRAINER not in map(str, adapter_checks(Novel()))


def test_an_outdated_argument_is_named(monkeypatch):
    outdated = {"job": DeprecationWarning("take `request` instead, from version 0.3 on.")}
    monkeypatch.setitem(hookspecs.build_args.cinderlora_spec, "warn_on_impl_args", outdated)
    with pytest.raises(AssertionError, match="build_args takes 'job', which is outdated: take `request` instead"):
        named(Novel(), SPELLING)()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("import numpy\n", "imports numpy.*inside the function that needs it"),
        (
            "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n",
            "takes 0.[0-9]+ s, more",
        ),
        (
            "import nothing_of_that_name\n",
            "cannot be imported in a new process: ModuleNotFoundError.*nothing_of_that_name",
        ),
    ],
)
def test_importing_is_to_be_light(tmp_path, monkeypatch, body, said):
    (tmp_path / "cinderlora_heavy.py").write_text(body, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    plugin = types.ModuleType("cinderlora_heavy")
    with pytest.raises(AssertionError, match=f"(?s){said}"):
        named(plugin, "importing it is light", import_seconds=0.2)()


@pytest.mark.parametrize(
    "fault",
    [
        "a misspelt hook",
        "hooks without their mark",
        "a misspelt field of the type",
        "memory as text",
        "a preset's memory as text",
        "presets that raise",
        "a setting that is none",
    ],
)
def test_a_fault_is_told_once(fault):
    plugin, check, _ = FAULTS[fault]
    found = {str(each): outcome(each) for each in adapter_checks(plugin, import_seconds=60)}
    assert {name for name, said in found.items() if said not in {"ok", "skipped"}} == {check}


def test_what_raises_is_told_with_its_line_and_the_nearest_name():
    said = outcome(named(preset(stpes=100), PRESETS))
    assert f"({Path(__file__).name}, line " in said and "Did you mean steps?" in said
    said = outcome(named(preset(quite_something_else=100), PRESETS))
    assert "Preset has: " in said and "network_dim" in said


def test_what_fails_leads_back_to_the_author_and_not_through_the_checks():
    check = named(preset(stpes=1), PRESETS)
    assert repr(check) == "Check(name='the presets are valid')"
    with pytest.raises(AssertionError) as failed:
        check()
    assert [entry.name for entry in failed.traceback] == [
        "test_what_fails_leads_back_to_the_author_and_not_through_the_checks",
        "__call__",
    ]
    assert failed.traceback[1].ishidden(failed)
    assert traceback.extract_tb(failed.value.__cause__.__traceback__)[-1].name == "presets"


def test_what_a_failed_rehearsal_went_through_is_not_shown():
    with pytest.raises(AssertionError) as failed:
        named(*FAULTS["arguments that break the training"][:2])()
    assert failed.value.__suppress_context__ and failed.value.__cause__ is None


def test_a_sample_that_is_not_there_is_answered_with_those_that_are():
    with pytest.raises(KeyError, match=r"no sample header 'flux.ae'; there are .*flux_ae"):
        sample_header("flux.ae")


def test_nothing_is_looked_at_before_a_check_is_called():
    assert list(adapter_checks(object()))
    assert "no hook" in outcome(named(object(), "hooks are spelt and called right"))


# ---- each fault is found ---------------------------------------------------------------------------------------------


def novel(**changes):
    """The good adapter with some of its members replaced; functions become hooks."""
    hooks = {
        name: hookimpl(value)
        if isinstance(value, types.FunctionType) and not hasattr(value, "cinderlora_impl")
        else value
        for name, value in changes.items()
    }
    return type("Changed", (Novel,), hooks)()


def typed(**changes):
    return novel(model_type=lambda self: attrs.evolve(NOVEL, **changes))


def preset(**values):
    def presets(self, model_type):
        if model_type.name == "novel":
            yield Preset(**{"name": "x", "vram_gb": 16} | values)

    return novel(presets=presets)


def args(**values):
    return novel(build_args=lambda self, job: values)


def claiming(test):
    def scan_models(self, files):
        return [ModelFile(path=h.path, role="model", precision=h.precision, size=h.size) for h in files if test(h)]

    return novel(scan_models=scan_models)


def parsing(function):
    return novel(parse_progress=lambda self, line, phase: function(line))


def diagnosing(function):
    return novel(diagnose=lambda self, failure: function(failure))


def counter():
    count = itertools.count(1)
    return parsing(lambda line: [Progress(step=next(count), total=10**6)])


class Unmarked:
    """An adapter whose author forgot the decorator."""

    def model_type(self):
        return NOVEL

    def build_args(self, job):
        return {}


NOVEL_BLOCK = "packing block "
NOVEL_STEP = re.compile(r"novel: (\w+) of")


class Async:
    async def scan_models(self, files): ...


class Optional:
    def build_args(self, job=None): ...


class Greedy:
    def build_args(self, **everything): ...


SPELLING = "hooks are spelt and called right"
TYPE = "the model type is complete"
TRAINER = "its trainer is complete"
PRESETS = "the presets are valid"
INHERIT = "the presets inherit well"
MEMORY = "the presets fit their memory"
KNOWN = "arguments are known to the script"
TOML = "arguments survive being read as toml"
CLAIMED = "headers of its own are claimed"
OTHERS = "headers of others are left alone"
DAMAGED = "damaged headers are survived"
PARSER = "parse progress never raises"
SPLIT = "progress does not depend on how lines are split"
LOGS = "its log is understood"
DIAGNOSE = "diagnose never raises"
PLAN = "a plan is deterministic and inert"
REHEARSAL = "a rehearsal runs from job to lora"

SMALL = Activations(picture=1e6, pixel=100)
FOOTPRINT = Footprint(
    parameters={"model": 12_000_000_000, "t5xxl": 4_762_310_656, "ae": 83_819_683},
    encoders=("t5xxl",),
    as_stored=("t5xxl",),
    vae="ae",
    lora_parameters=4_000_000,
    latent_channels=16,
    caption_bytes=1000,
    checkpointed=SMALL,
    plain=SMALL,
    denoising=SMALL,
    encoding=SMALL,
    decoding=SMALL,
    captioning=1e6,
)


def sized(model, **values):
    plugin = preset(**{"resolution": 512, "network_dim": 8, "optimizer": "AdamW8bit", "steps": 100} | values)
    footprint = attrs.evolve(FOOTPRINT, parameters={**FOOTPRINT.parameters, "model": model})
    type(plugin).model_type = hookimpl(lambda self: attrs.evolve(NOVEL, footprints={"": footprint}))
    return plugin


def one_that_reads_the_clock():
    count = itertools.count()
    return novel(build_args=lambda self, job: {"seed": next(count)})


def another_type_each_time():
    count = itertools.count()
    return novel(model_type=lambda self: attrs.evolve(NOVEL, title=f"Novel {next(count)}"))


def one_that_writes():
    def build_args(self, job):
        (Path(job.output).parent / "notes.txt").write_text("x", encoding="utf-8")
        return {}

    return novel(build_args=build_args)


FAULTS = {
    "a misspelt hook": (
        novel(build_argz=lambda self, job: {}),
        SPELLING,
        "There is no hook 'build_argz'. Call it 'build_args'",
    ),
    "a misspelt argument": (
        novel(scan_models=lambda self, file: []),
        SPELLING,
        "takes 'file', which does not exist. Take 'files'",
    ),
    "an argument too many": (
        novel(diagnose=lambda self, failure, run: None),
        SPELLING,
        "takes 'run'.*It can take: failure",
    ),
    "an optional argument": (
        novel(build_args=Optional.build_args),
        SPELLING,
        "takes 'job' as an option, so it is never passed",
    ),
    "any arguments": (novel(build_args=Greedy.build_args), SPELLING, "nothing is ever passed there"),
    "an async hook": (novel(scan_models=Async.scan_models), SPELLING, "async.*plain function"),
    "an unmarked hook": (
        type("Unmarked", (Novel,), {"presets": lambda self, model_type: []})(),
        SPELLING,
        "put @cinderlora.hookimpl before it",
    ),
    "hooks without their mark": (Unmarked(), SPELLING, "put @cinderlora.hookimpl before it"),
    "a misspelt field of the type": (
        novel(model_type=lambda self: ModelType(name="novel", min_vram=12)),
        SPELLING,
        r"model_type raised TypeError \(test_testing.py, line \d+\): .*'min_vram'. Did you mean min_vram_gb\?",
    ),
    "memory as text": (typed(min_vram_gb="12"), SPELLING, "ModelType.min_vram_gb is '12'; it takes int or float"),
    "a component that is a text": (typed(components=["model"]), SPELLING, "components.*'model'.*it takes Component"),
    "a module in a hook's place": (
        novel(presets=types.ModuleType("presets")),
        SPELLING,
        "is a module of the package.*Rename the module",
    ),
    "a wrapper where none can be": (
        novel(presets=hookimpl(wrapper=True)(lambda self, model_type: (yield))),
        SPELLING,
        "cannot be a wrapper",
    ),
    "no model": (typed(components=[Component("ae")]), TYPE, r"there must be the model itself: Component\('model'\)"),
    "a role twice": (
        typed(components=[Component("model"), Component("ae"), Component("ae", "ae2")]),
        TYPE,
        "Two components have the role ae",
    ),
    "a key twice": (
        typed(components=[Component("model"), Component("ae"), Component("vae", "ae")]),
        TYPE,
        "Two components have the key ae",
    ),
    "a key that is none": (
        typed(components=[Component("model"), Component("t5", "t5xl")]),
        TYPE,
        "no argument 't5xl'.*'t5xxl'",
    ),
    "a name that is none": (typed(name="Novel 1"), TYPE, "lower-case identifier"),
    "no title": (typed(title=" "), TYPE, "what people read"),
    "a script that is none": (typed(script="flux"), TYPE, "Python script"),
    "no network module": (typed(network_module=""), TYPE, "network_module"),
    "memory of millions": (typed(min_vram_gb=12_000), TYPE, "GB of GPU memory"),
    "another trainer": (typed(trainer="sd-script"), TYPE, "sd-scripts"),
    "a trainer that is none": (
        novel(trainer=lambda self: None),
        TRAINER,
        "trainer.. gave None: return a class.*find.*rehearsal",
    ),
    "a trainer without a plan": (
        novel(trainer=lambda self: type("Tiny", (Checkout,), {"kind": "tiny", "sign": "x.py"})),
        TRAINER,
        "Tiny has no problems of its own: write it",
    ),
    "a trainer that is there already": (novel(trainer=lambda self: SdScripts), TRAINER, "sd-scripts.*cinderlora"),
    "a trainer that raises": (novel(trainer=lambda self: 1 / 0), TRAINER, "trainer raised ZeroDivisionError"),
    "another type each time": (another_type_each_time(), TYPE, "another ModelType each time"),
    "a preset's memory as text": (preset(vram_gb="12"), PRESETS, "vram_gb is '12'; it takes a value of type float"),
    "a base that is not there": (preset(base="16bg"), PRESETS, "16bg"),
    "a value out of range": (preset(network_dim=-4), PRESETS, "network_dim"),
    "no preset at all": (
        novel(presets=lambda self, model_type: ["16gb"] if model_type.name == "novel" else []),
        PRESETS,
        r"yield cinderlora.Preset\(...\)",
    ),
    "presets that raise": (novel(presets=lambda self, model_type: 1 / 0), PRESETS, "presets raised ZeroDivisionError"),
    "presets for all types": (
        novel(presets=lambda self, model_type: [Preset(name="x", vram_gb=8)]),
        PRESETS,
        "every model type.*if model_type.name == 'novel'",
    ),
    "no memory said": (preset(vram_gb=None), PRESETS, "has no vram_gb"),
    "a setting of another script": (preset(extra={"training_shift": 1.0}), PRESETS, "training_shift"),
    "an alpha that follows": (
        preset(network_dim=16, network_alpha=8),
        INHERIT,
        "sets network_alpha to 8.*follows from its network_dim",
    ),
    "a rate that follows": (
        preset(optimizer="Prodigy", learning_rate=1.0),
        INHERIT,
        "learning_rate.*follows from its optimizer",
    ),
    "a module that follows": (
        preset(network_module="networks.lora_novel"),
        INHERIT,
        "repeats the model type's network_module",
    ),
    "more than it says": (sized(12 * 10**9, vram_gb=8), MEMORY, "is for 8 GB and takes .* GB.*Lower resolution"),
    "more than it says in 16 bits": (
        sized(10**9, vram_gb=8, fp8_base=True),
        MEMORY,
        "in FP8, and .* in 16 bits. Say so in its title",
    ),
    "a misspelt key": (args(guidance_skale=1.0), KNOWN, "guidance_skale.*guidance_scale"),
    "a wrong type": (args(guidance_scale="3.5"), KNOWN, "guidance_scale"),
    "a wrong choice": (args(timestep_sampling="sigmoit"), KNOWN, "timestep_sampling"),
    "a key of the core": (args(output_dir="/tmp"), KNOWN, "output_dir, which is the core's.*leave it out"),
    "a secret": (args(wandb_api_key="x"), KNOWN, "WANDB_API_KEY"),
    "no mapping": (novel(build_args=lambda self, job: ["x"]), KNOWN, "build_args"),
    "arguments that raise": (novel(build_args=lambda self, job: job.models["clip_g"]), KNOWN, "clip_g"),
    "a setting that is none": (
        novel(build_args=lambda self, job: {"guidance_scale": job.settings.network_dims}),
        KNOWN,
        r"build_args raised AttributeError.*\(test_testing.py, line \d+\).*Did you mean network_dim\?",
    ),
    "a setting that is looked for in the job": (
        novel(build_args=lambda self, job: {"guidance_scale": job.network_dim}),
        KNOWN,
        r"Did you mean job.settings.network_dim\?",
    ),
    "other arguments each time": (one_that_reads_the_clock(), KNOWN, "something else each time"),
    "what TOML cannot say": (args(network_args={1, 2}), TOML, "TOML cannot say"),
    "mixed lists": (args(optimizer_args=["a=1", 2]), TOML, "the trainer's reader"),
    "text that is misread": (args(training_comment='""x'), TOML, "training_comment.*in another way"),
    "a table": (args(custom_attributes={"a": "it's"}), TOML, "custom_attributes"),
    "none of its own claimed": (claiming(lambda h: False), CLAIMED, "does not claim model.safetensors.*role='model'"),
    "claimed by its name": (claiming(lambda h: "model" in h.path.name), CLAIMED, "novel_vae.safetensors"),
    "claimed as unusable": (
        novel(
            scan_models=lambda self, files: [
                ModelFile(
                    path=h.path,
                    role="model",
                    size=h.size,
                    precision="bf16",
                    problems=[Problem("novel_old", message="Too old.")],
                )
                for h in files
            ]
        ),
        CLAIMED,
        "says it cannot be used: Too old",
    ),
    "another size": (
        novel(
            scan_models=lambda self, files: [ModelFile(path=h.path, role="model", precision=h.precision) for h in files]
        ),
        CLAIMED,
        "the size of model.safetensors is None",
    ),
    "everything claimed": (
        claiming(lambda h: True),
        OTHERS,
        "takes FLUX.1, Chroma, .* for its own model.*sample_header",
    ),
    "a text encoder claimed": (claiming(lambda h: "shared.weight" in h.tensors), OTHERS, "takes a t5xxl for a model"),
    "another file's path": (
        novel(scan_models=lambda self, files: [ModelFile(path="x.safetensors", role="model") for _ in files]),
        OTHERS,
        "which it was not asked about",
    ),
    "no files": (novel(scan_models=lambda self, files: ["model"]), OTHERS, "yield cinderlora.ModelFile"),
    "a problem without words": (
        novel(scan_models=lambda self, files: [ModelFile(path=h.path, problems=[Problem("novel_old")]) for h in files]),
        OTHERS,
        "'novel_old' has no words",
    ),
    "an index of a shape": (
        claiming(lambda h: any(t.shape[0] == -1 for t in h.tensors.values())),
        DAMAGED,
        "scan_models raised IndexError",
    ),
    "a number in a name": (
        claiming(lambda h: max((int(n.split(".")[1]) for n in h.tensors if n.startswith("blocks.")), default=0) < 0),
        DAMAGED,
        "scan_models raised ValueError",
    ),
    "empty files claimed": (
        claiming(lambda h: not h.tensors and h.path.name == "nothing.safetensors" and h.size),
        DAMAGED,
        "nothing of a model in it",
    ),
    "a parser that raises": (
        parsing(lambda line: [Progress(step=int(line.split("/")[0][-1]), total=1)] if "/" in line else None),
        PARSER,
        "parse_progress raised .* for the line",
    ),
    "a parser that reads what its own line may lack": (
        parsing(
            lambda line: [Activity(label="x", done=int(line.split()[2]))] if line.startswith(NOVEL_BLOCK) else None
        ),
        PARSER,
        "parse_progress raised (IndexError|ValueError).*'packing block ",
    ),
    "a parser by a pattern that promises too much": (
        parsing(lambda line: [Progress(step=int(m[1]), total=8)] if (m := NOVEL_STEP.match(line)) else None),
        PARSER,
        "parse_progress raised ValueError.*'novel: ",
    ),
    "a parser of long lines": (parsing(lambda line: line[5000]), PARSER, "parse_progress raised IndexError"),
    "a parser that gives texts": (parsing(lambda line: line or None), PARSER, "return a list of events"),
    "a parser that counts": (counter(), PARSER, "keep no state"),
    "a parser that raises within a log": (parsing(lambda line: line[len(line)]), SPLIT, "left out for the rest"),
    "a log that says nothing": (parsing(lambda line: None), LOGS, "no Progress"),
    "a step beyond the total": (parsing(lambda line: [Progress(step=9, total=8)]), LOGS, "beyond its total"),
    "a diagnosis that raises": (diagnosing(lambda failure: failure.lines[-1]), DIAGNOSE, "diagnose raised IndexError"),
    "a diagnosis that reads on": (
        diagnosing(
            lambda failure: next(
                (failure.lines[i + 1] and None for i, n in enumerate(failure.lines) if "no novel at" in n), None
            )
        ),
        DIAGNOSE,
        "diagnose raised IndexError",
    ),
    "a diagnosis that is text": (diagnosing(lambda failure: "broken"), DIAGNOSE, "return a cinderlora.Diagnosis"),
    "a diagnosis without words": (diagnosing(lambda failure: Diagnosis("novel_x")), DIAGNOSE, "has no words"),
    "a plan that writes": (one_that_writes(), PLAN, "opens .*notes.txt.* for writing"),
    "bars that are swallowed": (
        parsing(lambda line: [] if "steps:" in line else None),
        REHEARSAL,
        "Progress tells of 0",
    ),
    "arguments that break the training": (args(learning_rate="much"), REHEARSAL, "learning_rate"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault):
    plugin, check, said = FAULTS[fault]
    with pytest.raises(AssertionError, match=f"(?s){said}"):
        named(plugin, check, headers=OWN, logs=[LOG])()
