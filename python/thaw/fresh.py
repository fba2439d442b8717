"""What is renewed after a restore, before any of the author's code runs."""

from __future__ import annotations

import os
import socket
import sys
import time
from typing import Any, Mapping

from . import cpus as cpu_affinity
from . import gpu, randomness


def refresh(generation: str, env: Mapping[str, str | None], hostname: str | None, cpus: list[int] | None, reseed: bool) -> None:
    """Renews randomness (unless reseed is False), environment, host name, CPUs and what libraries remember of all that."""
    if reseed:
        randomness.renew(generation)
    # Caches that are filled from the environment are cleared after it has changed.
    set_environment(env)
    if hostname:
        _host_name(hostname, env)
    _forget_host()
    _forget_credentials()
    cpu_affinity.follow(cpus)


def set_environment(env: Mapping[str, str | None]) -> None:
    """Makes the GPU visible again, and puts the variables of the start over those that are there; None removes one."""
    gpu.reveal()
    overlay(env)
    if "CUDA_VISIBLE_DEVICES" in env:
        gpu.forget()


def overlay(env: Mapping[str, str | None]) -> None:
    """Sets variables; None removes one."""
    for name, value in env.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    if "TZ" in env:
        time.tzset()  # libc has read it already


def _host_name(hostname: str, env: Mapping[str, str | None]) -> None:
    # The name comes back with the frozen namespace. Only the first process of a container can be sure that it names nobody else.
    if os.getpid() == 1 and socket.gethostname() != hostname:
        try:
            socket.sethostname(hostname)
        except OSError as err:
            print(f"thaw: the host name stays {socket.gethostname()}: {err}", file=sys.stderr)
    if "HOSTNAME" not in env and "HOSTNAME" in os.environ:
        os.environ["HOSTNAME"] = hostname


def _forget_host() -> None:
    platform: Any = sys.modules.get("platform")
    if platform is not None:
        platform._uname_cache = None
        getattr(platform, "_platform_cache", {}).clear()
    mail: Any = sys.modules.get("django.core.mail.utils")
    if mail is not None:
        vars(mail.DNS_NAME).pop("_fqdn", None)


def _forget_credentials() -> None:
    boto3: Any = sys.modules.get("boto3")
    if boto3 is not None:
        # The next client that is made without a session of its own reads the environment again.
        boto3.DEFAULT_SESSION = None
