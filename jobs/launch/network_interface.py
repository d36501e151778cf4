"""The network interface on which the processes of a group listen for each other."""

import os

import psutil


def use_interface(address: str) -> None:
    """Let gloo, and NCCL on the loopback address, listen on the interface that has this address of the machine.

    By itself gloo takes the one that the host name resolves to, which need not be the one that the machines share. The
    user's own choice stays.
    """
    names = [name for name, found in psutil.net_if_addrs().items() if any(one.address == address for one in found)]
    if names:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", names[0])
        if names[0].startswith("lo"):
            os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={names[0]}")
