"""Line that names the folder of Ray's logs, for the commands that start Ray."""

from collections.abc import Callable


def say_where_logs_are(say: Callable[[str], None]) -> None:
    """Say where Ray's logs are, if something has failed. Otherwise they are removed with Ray's other files."""
    from tune_cure.ray_backend import session  # has been imported where Ray was used

    if logs := session.kept_logs():
        say(f"Ray's logs of what failed: {logs}")
