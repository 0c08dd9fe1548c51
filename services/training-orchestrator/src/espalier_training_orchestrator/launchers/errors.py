"""What can go wrong at a launch."""

from espalier_common.errors import ResourceExhausted, Unavailable


class LaunchFailed(Unavailable):
    """The work could not be started; nothing of it runs."""

    reason = "LAUNCH_FAILED"


class LaunchDiskFull(ResourceExhausted):
    """The files of a launch could not be written: no space is left."""

    reason = "DISK_FULL"
