"""What is in the stores of trackers, read back by the packages themselves."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tune_cure.search import run_files

BLOCK, HEADER = 32768, 7  # bytes of LevelDB's log format, which W&B's files have
WAIT_SECONDS = 30.0


@dataclass
class Tracked:
    """A run as a tracker has it.

    Attributes:
        settings: Its configuration: hyperparameters and more.
        status: How it ended, in this project's words.
        reason: Why.
        epochs: PGD accuracy by epoch.
        artifacts: The names of its files.
        exit_code: That of the run, where the tracker has one.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    status: str = ""
    reason: str = ""
    epochs: dict[int, float] = field(default_factory=dict)
    artifacts: set[str] = field(default_factory=set)
    exit_code: int | None = None


def read_trackio(project: str, folder: Path) -> dict[str, Tracked]:
    """Return the runs of the search in a folder; each trial's by its number, the search's own as `search`."""
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    search = json.loads((folder / run_files.TRACKIO_RUN).read_text())["id"]
    found = {}
    for run in trackio.Api().runs(project):
        config = run.config
        if config["_Group"] != f"{project} {search}":
            continue
        rows = SQLiteStorage.get_logs(project, run.name, run_id=run.id)
        epochs = [row for row in rows if "pgd_accuracy" in row]
        assert len({row["step"] for row in epochs}) == len(epochs)
        tracked = Tracked(config, config["status"], config.get("reason", ""))
        tracked.epochs = {row["step"]: row["pgd_accuracy"] for row in epochs}
        name = str(config["trial"]) if "trial" in config else "search"
        assert name not in found
        found[name] = tracked
    files = SQLiteStorage.get_artifact_manifest(project, f"search-{search}", None)
    found["search"].artifacts = {entry["path"] for entry in files["manifest"]}
    return found


def read_wandb(folder: Path) -> dict[str, Tracked]:
    """Return the offline runs of the search in a folder; each trial's by its number, the search's own as `search`."""
    search = json.loads((folder / run_files.WANDB_RUNS).read_text())["id"]
    found: dict[str, Tracked] = {}
    for file in (folder.absolute().parent / "wandb").glob(f"offline-run-*-{search}-*/*.wandb"):
        begin, _, name = file.stem.removeprefix("run-").partition("-")
        assert begin == search
        assert name not in found
        found[name] = _read_wandb_run(file)
    return found


def _read_wandb_run(file: Path) -> Tracked:
    from wandb.proto import wandb_internal_pb2 as protocol

    tracked, give_up = Tracked(), time.monotonic() + WAIT_SECONDS
    while tracked.exit_code is None:  # W&B's own process may write the file after the run has been finished
        assert time.monotonic() < give_up, f"{file} has no end"
        tracked = _read_once(file, protocol)
    return tracked


def _read_once(file: Path, protocol: Any) -> Tracked:
    tracked = Tracked()
    for content in _read_records(file.read_bytes()):
        record = protocol.Record()
        record.ParseFromString(content)
        for item in (*record.run.config.update, *record.config.update):
            tracked.settings[item.key] = json.loads(item.value_json)
        for item in record.summary.update:
            value = json.loads(item.value_json)
            name = item.key or item.nested_key[0]
            if name in ("status", "reason"):
                setattr(tracked, name, value)
            tracked.settings[f"summary.{name}"] = value
        row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        if "pgd_accuracy" in row:
            epoch = int(row["epoch"])
            assert epoch not in tracked.epochs
            tracked.epochs[epoch] = row["pgd_accuracy"]
        tracked.artifacts |= {entry.path for entry in record.request.log_artifact.artifact.manifest.contents}
        tracked.artifacts |= {entry.path for entry in record.artifact.manifest.contents}
        if record.WhichOneof("record_type") == "exit":
            tracked.exit_code = record.exit.exit_code
    return tracked


def _read_records(content: bytes) -> list[bytes]:
    """Return the records of a file in LevelDB's log format, whose first block begins with W&B's own header."""
    position, records, parts = HEADER, [], b""
    while position + HEADER <= len(content):
        if BLOCK - position % BLOCK < HEADER:  # the rest of a block in which no header fits
            position += BLOCK - position % BLOCK
            continue
        size, kind = int.from_bytes(content[position + 4 : position + 6], "little"), content[position + 6]
        position += HEADER
        if position + size > len(content):  # it is being written
            break
        parts += content[position : position + size]
        position += size
        if kind in (1, 4):  # whole, or the last part
            records.append(parts)
            parts = b""
    return records
