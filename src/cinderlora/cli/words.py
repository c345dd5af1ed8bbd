"""What the command line itself says, in English and German. Texts that have a code are in `cinderlora.texts`."""

from __future__ import annotations

WORDS: dict[str, tuple[str, str]] = {
    "error": ("Error", "Fehler"),
    "warning": ("Warning", "Warnung"),
    "unexpected": ("Unexpected error: {error}", "Unerwarteter Fehler: {error}"),
    "debug_hint": (
        "With `cinderlora --debug ...` or CINDERLORA_DEBUG=1 it says where that happened.",
        "Mit `cinderlora --debug ...` oder CINDERLORA_DEBUG=1 sagt es, wo das geschah.",
    ),
    "aborted": ("Aborted.", "Abgebrochen."),
    # phases
    "starting": ("Starting", "Startet"),
    "loading": ("Loading the models", "Modelle laden"),
    "caching_latents": ("Preparing the pictures", "Bilder vorbereiten"),
    "caching_text_encoders": ("Preparing the captions", "Captions vorbereiten"),
    "training": ("Training", "Training"),
    "sampling": ("Drawing samples", "Testbilder zeichnen"),
    "saving": ("Saving", "Speichern"),
    # while it runs
    "rehearsal": (
        "Rehearsal: a miniature training, no {model_type}. The LoRA is for practice only.",
        "Probe: ein Miniatur-Training, kein {model_type}. Das LoRA ist nur zum Üben.",
    ),
    "run_folder": ("Run folder: {folder}", "Lauf-Ordner: {folder}"),
    "numbers": (
        "{images} pictures, {steps_per_epoch} steps per epoch, {steps} steps, epochs: {epochs}",
        "{images} Bilder, {steps_per_epoch} Schritte je Epoche, {steps} Schritte, Epochen: {epochs}",
    ),
    "preset": ("preset {preset}", "Preset {preset}"),
    "ctrl_c_stops": (
        "Ctrl-C stops the training. Closing the terminal does not.",
        "Strg-C stoppt das Training. Das Schließen des Terminals nicht.",
    ),
    "ctrl_c_leaves": (
        "Ctrl-C ends watching, not the training.",
        "Strg-C beendet das Zusehen, nicht das Training.",
    ),
    "stopping": (
        "Stopping the training ... (once more: by force)",
        "Das Training wird gestoppt ... (noch einmal: mit Gewalt)",
    ),
    "resumes_state": (
        "goes on at step {step}/{steps} from the saved state {name}",
        "geht bei Step {step}/{steps} vom Trainingsstand {name} aus weiter",
    ),
    "resumes_weights": (
        "goes on at step {step}/{steps} from the weights of {name} alone",
        "geht bei Step {step}/{steps} allein von den Gewichten in {name} aus weiter",
    ),
    "goes_on": (
        "The training goes on. Watch it: cinderlora watch {run}. Stop it: cinderlora stop {run}",
        "Das Training läuft weiter. Zusehen: cinderlora watch {run}. Stoppen: cinderlora stop {run}",
    ),
    "started": ("Started: {folder}", "Gestartet: {folder}"),
    "watch_it": ("Watch: {command}", "Zusehen: {command}"),
    "stop_it": ("Stop:  {command}", "Stoppen: {command}"),
    "step": ("Step {step}/{total} ({percent}%)", "Step {step}/{total} ({percent}%)"),
    "loss": ("Loss: {loss}", "Loss: {loss}"),
    "eta": ("ETA: {eta}", "ETA: {eta}"),
    "epoch": ("epoch {epoch}/{epochs}", "Epoche {epoch}/{epochs}"),
    "per_step": ("{seconds} s/step", "{seconds} s/Schritt"),
    "sample_saved": ("Sample at step {step}: {path}", "Testbild bei Step {step}: {path}"),
    "checkpoint_saved": ("Checkpoint at step {step}: {path}", "Checkpoint bei Step {step}: {path}"),
    "saved": ("Saved: {path}", "Gespeichert: {path}"),
    "newest_sample": ("Sample: {path}", "Testbild: {path}"),
    # how it ended
    "done": ("Done: {lora}", "Fertig: {lora}"),
    "done_numbers": (
        "{steps} steps in {time}, loss {loss}, samples: {samples}, checkpoints: {checkpoints}",
        "{steps} Schritte in {time}, Loss {loss}, Testbilder: {samples}, Checkpoints: {checkpoints}",
    ),
    "was_rehearsal": (
        "This was a rehearsal: the LoRA is for practice only.",
        "Das war eine Probe: Das LoRA ist nur zum Üben.",
    ),
    "samples_in": ("Samples: {folder}", "Testbilder: {folder}"),
    "failed": ("Training failed", "Training fehlgeschlagen"),
    "try_changes": ("Try: {options}", "Versuch: {options}"),
    "log_is": ("Log: {path}", "Log: {path}"),
    "stopped": ("Stopped by {by}.", "Gestoppt von {by}."),
    "stopped_plain": ("Stopped.", "Gestoppt."),
    # check
    "all_right": ("Nothing speaks against this training.", "Nichts spricht gegen dieses Training."),
    "refused": ("{count} errors: this would not start.", "{count} Fehler: das würde nicht starten."),
    "refused_one": ("1 error: this would not start.", "1 Fehler: das würde nicht starten."),
    "pictures": ("Pictures", "Bilder"),
    "steps_per_epoch": ("Steps per epoch", "Schritte je Epoche"),
    "steps": ("Steps", "Schritte"),
    "epochs": ("Epochs", "Epochen"),
    "checkpoints": ("Checkpoints", "Checkpoints"),
    "samples": ("Samples", "Testbilder"),
    "disk": ("Disk", "Speicherplatz"),
    "vram": ("GPU memory", "GPU-Speicher"),
    "gpu_found": ("{there} GB found", "{there} GB gefunden"),
    "models_looked": (
        "Looked for models in {folder}; what is there for a type: cinderlora models.",
        "Modelle wurden in {folder} gesucht; was dort liegt, zeigt: cinderlora models.",
    ),
    "models_hint": (
        "Say where your models are: --models FOLDER, or once and for all `cinderlora config set comfyui FOLDER`. "
        "To try things out without a model: --rehearsal.",
        "Sagen, wo die Modelle liegen: --models ORDNER, oder ein für alle Mal `cinderlora config set comfyui ORDNER`. "
        "Zum Ausprobieren ohne Modell: --rehearsal.",
    ),
    # tables
    "type": ("Type", "Typ"),
    "name": ("Name", "Name"),
    "for": ("For", "Für"),
    "px": ("px", "px"),
    "batch": ("Batch", "Batch"),
    "dim": ("Dim", "Dim"),
    "optimizer": ("Optimizer", "Optimizer"),
    "presets": ("Presets", "Presets"),
    "provider": ("From", "Aus"),
    "min_vram": ("At least", "Mindestens"),
    "script": ("Script", "Script"),
    "broken": ("Not usable: {name} ({why})", "Nicht verwendbar: {name} ({why})"),
    "no_adapters": (
        "No adapter is installed or all are disabled (CINDERLORA_DISABLE).",
        "Kein Adapter ist installiert, oder alle sind abgeschaltet (CINDERLORA_DISABLE).",
    ),
    "role": ("Role", "Rolle"),
    "file": ("File", "Datei"),
    "variant": ("Variant", "Variante"),
    "precision": ("Precision", "Präzision"),
    "size": ("Size", "Größe"),
    "no_models": ("No model files for {model_type} in {folder}.", "Keine Modell-Dateien für {model_type} in {folder}."),
    "default_mark": ("* used where nothing else is said", "* wird verwendet, wo nichts anderes gesagt ist"),
    "missing_roles": ("Missing for {model_type}: {roles}", "Für {model_type} fehlt: {roles}"),
    "state": ("State", "Stand"),
    "progress": ("Progress", "Fortschritt"),
    "when": ("Started", "Beginn"),
    "run": ("Run", "Lauf"),
    "no_runs": ("No runs in {folder}.", "Keine Läufe in {folder}."),
    "running": ("running", "läuft"),
    "finished": ("finished", "fertig"),
    "state_failed": ("failed", "gescheitert"),
    "state_stopped": ("stopped", "gestoppt"),
    "lost": ("lost", "verloren"),
    # stop
    "stop_done": ("Stopped {run} in {seconds} s.", "{run} gestoppt, in {seconds} s."),
    "stop_over": ("{run} had ended already: {state}.", "{run} war schon zu Ende: {state}."),
    "stop_forced": (
        "By force, as they did not end by themselves: {names}",
        "Mit Gewalt, da von selbst nicht beendet: {names}",
    ),
    "stop_left": ("Could not be ended: {names}", "Nicht zu beenden: {names}"),
    # sd-scripts
    "step_preparing": ("Looking what there is", "Nachsehen, was da ist"),
    "step_cloning": ("Fetching sd-scripts", "sd-scripts holen"),
    "step_environment": ("Making a Python environment", "Python-Umgebung anlegen"),
    "step_torch": ("Installing PyTorch", "PyTorch installieren"),
    "step_requirements": ("Installing what sd-scripts needs", "Installieren, was sd-scripts braucht"),
    "step_verifying": ("Trying whether it works", "Ausprobieren, ob es funktioniert"),
    "cleaning_up": ("Cleaning up ...", "Wird aufgeräumt ..."),
    "installed": ("sd-scripts is installed: {path}", "sd-scripts ist installiert: {path}"),
    "install_was_there": (
        "sd-scripts was there already and is left as it is: {path}",
        "sd-scripts war schon da und bleibt, wie es ist: {path}",
    ),
    "install_remember": ("To have it used from now on: {command}", "Damit es von jetzt an verwendet wird: {command}"),
    "install_remembered": ("It is used from now on.", "Es wird von jetzt an verwendet."),
    "trainer_works": ("It can be used.", "Es kann verwendet werden."),
    "trainer_folder": ("Folder", "Ordner"),
    "trainer_version": ("Version", "Version"),
    "trainer_python": ("Python", "Python"),
    "trainer_torch": ("PyTorch", "PyTorch"),
    "trainer_gpus": ("GPU", "GPU"),
    "trainer_scripts": ("Scripts", "Scripts"),
    # config
    "key": ("Setting", "Einstellung"),
    "value": ("Value", "Wert"),
    "from": ("From", "Aus"),
    "default": ("default", "Vorgabe"),
    "environment": ("environment", "Umgebung"),
    "not_set": ("-", "-"),
    "config_saved": ("{key} = {value} ({path})", "{key} = {value} ({path})"),
    "config_removed": ("{key} is no longer set ({path})", "{key} ist nicht mehr gesetzt ({path})"),
    "config_shadowed": (
        "The environment variable {variable} goes over it.",
        "Die Umgebungsvariable {variable} geht darüber.",
    ),
    "no_such_folder": ("There is no folder {path} yet.", "Einen Ordner {path} gibt es noch nicht."),
    # demo
    "demo_drawn": (
        "Drew {count} pictures of Elena, with captions: {folder}",
        "{count} Bilder von Elena gezeichnet, mit Captions: {folder}",
    ),
    "demo_practice": (
        "Now a rehearsal: a miniature training on these pictures, without GPU or downloads.",
        "Jetzt eine Probe: ein Miniatur-Training mit diesen Bildern, ohne GPU und Downloads.",
    ),
    "demo_where": ("Where everything is", "Wo alles ist"),
    "demo_dataset": ("Data set", "Dataset"),
    "demo_lora": ("LoRA (practice)", "LoRA (zum Üben)"),
    "demo_samples": ("Samples", "Testbilder"),
    "demo_run": ("Run folder", "Lauf-Ordner"),
    "demo_python": ("The same from Python", "Dasselbe in Python"),
    "demo_next": (
        "The real thing, with sd-scripts and your models: cinderlora check --help",
        "In echt, mit sd-scripts und den eigenen Modellen: cinderlora check --help",
    ),
}


def say(key: str, language: str, /, **params: object) -> str:
    """A text in "de", or in English for every other language."""
    return WORDS[key][language == "de"].format(**params)
