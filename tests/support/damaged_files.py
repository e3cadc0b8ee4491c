"""The files that commands read, and the commands that read each, in the folder of `damaged_runs`."""

REPORT = "report run"
EXPORT = "export run --to out"
WATCH = "watch run"
COMPARE = "compare run other --csv table.csv"
CONFIRMED = "export run --confirmed fgsm --to out"
CONFIRM = "confirm run --top 1 --seeds 2 --baselines fgsm --examples 30 --train-images 200 --no-autoattack"
RESUME = "search --space space.yaml --output run --resume --force"
REPLAY = "replay run --grace-period 1 --reduction-factor 2"
RETRAIN = "train --config run/trials.csv --trial 2"
SEARCHES = [REPORT, EXPORT, WATCH, COMPARE, CONFIRMED, CONFIRM, RESUME, REPLAY, RETRAIN]
CONTINUE = "train --output trained --resume --test"
CHECK = "search --check --space space.yaml"
WARM = f"{CHECK} --set search.warm_start="
PICTURES = f'{CHECK} --set data={{"dataset":"image_folder","root":"pictures","validation":2,"image_size":8}}'
LEAGUE = "report league"
LEAGUE_ON = "league --resume league"
METHOD = "league space.yaml --methods mine=mine.yaml fgsm_rs --check"
CHECKPOINT = "run/trials/trial_00002/trainer.pt"
JOB = "run/confirm/fgsm/seed-1"
# Each file with its format, and the commands that read it.
FILES = {
    "run/spec.yaml": ("yaml", SEARCHES),
    "run/journal.jsonl": ("jsonl", [*SEARCHES, f"{WARM}run"]),
    "run/environment.json": ("json", [REPORT, EXPORT, WATCH, COMPARE, CONFIRM, RESUME]),
    "run/best_model.pt": ("pt", [EXPORT]),
    "run/.made.json": ("json", [REPORT]),
    CHECKPOINT: ("pt", [REPORT]),
    "run/trials/trial_00008/trainer.pt": ("pt", [RESUME]),
    "run/trials.csv": ("csv", [RETRAIN, f"{WARM}run/trials.csv"]),
    "run/best_config.csv": ("csv", ["train --config run/best_config.csv", f"{WARM}run/best_config.csv"]),
    "run/best_config.yaml": (
        "yaml",
        [
            "train --config run/best_config.yaml",
            "search --check --space space.yaml --set start_from=[run/best_config.yaml]",
        ],
    ),
    "run/confirm/confirm.csv": ("csv", [COMPARE, REPORT]),
    "run/confirm/confirm.json": ("json", [REPORT]),
    "run/confirm/outcomes.npz": ("npz", [REPORT]),
    "run/confirm/environment.json": ("json", [CONFIRM]),
    f"{JOB}/config.yaml": ("yaml", [CONFIRMED, CONFIRM]),
    f"{JOB}/status.json": ("json", [CONFIRM]),
    f"{JOB}/model.pt": ("pt", [CONFIRMED, CONFIRM]),
    f"{JOB}/linf-0.15-30/outcomes.npz": ("npz", [CONFIRMED, CONFIRM, EXPORT]),
    "warm/prior_trials.json": ("json", ["search --resume warm"]),
    "league/league.yaml": ("yaml", [LEAGUE, LEAGUE_ON]),
    "league/environment.json": ("json", [LEAGUE, LEAGUE_ON]),
    "league/cure/spec.yaml": ("yaml", [LEAGUE, LEAGUE_ON]),
    "league/cure/journal.jsonl": ("jsonl", [LEAGUE, LEAGUE_ON]),
    "league/confirm/confirm.csv": ("csv", [LEAGUE]),
    "league/confirm/cure/seed-1/epochs.csv": ("csv", [LEAGUE, LEAGUE_ON]),
    "mine.yaml": ("yaml", [METHOD]),
    "trained/config.yaml": ("yaml", [CONTINUE]),
    "trained/last.pt": ("pt", [CONTINUE]),
    "trained/environment.json": ("json", [CONTINUE]),
    "trained/test.csv": ("csv", [CONTINUE]),
    "pictures/cat/0.png": ("picture", [PICTURES]),
    "pictures/cat/x.jpg": ("picture", [PICTURES]),
    "pictures/cat/x.tif": ("picture", [PICTURES]),
    "cache/prepared/digits-*.pt": ("pt", [f"{WARM}run", CONTINUE]),
    "study.db": ("db", [f"{WARM}study.db"]),
    "space.yaml": ("yaml", [CHECK, "search --space space.yaml"]),
}
PLOTTED = ("run/spec.yaml", "run/journal.jsonl")  # what plots are made from; of other files they do not depend
