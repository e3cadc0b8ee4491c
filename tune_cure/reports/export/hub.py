"""Sending an exported folder to a repository of the Hugging Face Hub."""

from pathlib import Path

from tune_cure.reports.export.measurements import ExportError
from tune_cure.utils.errors import first_line


def check_repository(name: str) -> None:
    """Refuse a name that no repository can have.

    Args:
        name: OWNER/NAME, or NAME for one of the user who is logged in.

    Raises:
        ExportError: It is no such name.
    """
    from huggingface_hub import utils
    from huggingface_hub.errors import HFValidationError

    try:
        utils.validate_repo_id(name)  # type: ignore[attr-defined]  # public, but not listed
    except HFValidationError as error:
        raise ExportError(f"--push-to-hub {name}: {first_line(error)}") from error


def push(folder: Path, name: str) -> str:
    """Send every file of a folder to a model repository as one commit, and return the repository's address.

    A repository that does not exist yet is made, private: its owner decides when it becomes public.

    Args:
        folder: The folder.
        name: The repository; see `check_repository`.

    Raises:
        ExportError: The Hub was not reached, or it refused.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        address = api.create_repo(name, private=True, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message=f"Add {folder.name}")
    except Exception as error:  # which ones differs between versions of huggingface_hub
        raise ExportError(f"--push-to-hub {name}: {first_line(error)}; {folder} is complete") from error
    return str(address)
