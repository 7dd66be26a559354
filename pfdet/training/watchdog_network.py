"""Connections of the watchdog: where the first rank can be reached, and lines of JSON."""

import contextlib
import fcntl
import ipaddress
import json
import os
import socket
import struct
import time
from typing import Any

from pfdet.process_stat import stat_fields

# Linux: the IPv4 address of a network interface.
_SIOCGIFADDR = 0x8915
# Bridges of containers and virtual machines, which other nodes do not reach.
_VIRTUAL = 'docker', 'br-', 'virbr', 'veth', 'cni', 'lxc'
_SECONDS_TO_CONNECT = 3.0
# A longer line is not from a rank.
_LONGEST_LINE = 1 << 16


def node_name() -> str:
    """The name of this node."""
    return socket.gethostname()


def node_identity() -> str:
    """A text that is the same for two processes only if they can send each other signals."""
    with contextlib.suppress(OSError):
        with open('/proc/sys/kernel/random/boot_id') as file:
            # Containers on one machine have different names of processes.
            return f'{file.read().strip()} {os.readlink("/proc/self/ns/pid")}'
    return node_name()


def start_time(pid: int) -> str:
    """The start time of a process, which tells it from a later one with the same id; else ''."""
    fields = stat_fields(pid)
    return fields[19] if fields else ''


def listen() -> socket.socket:
    """A socket that accepts connections on all addresses of this node."""
    if socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):
            return socket.create_server(
                ('', 0), family=socket.AF_INET6, backlog=4096, dualstack_ipv6=True
            )
    return socket.create_server(('', 0), backlog=4096)


def addresses() -> list[str]:
    """Names and addresses of this node, those first by which other nodes probably reach it."""
    names = [node_name(), socket.getfqdn()]
    found = []
    with contextlib.suppress(OSError):
        found += [a[4][0] for a in socket.getaddrinfo(node_name(), None, type=socket.SOCK_STREAM)]
    found += _interface_addresses()
    usable = [a for a in found if not _is_local(a)]
    return list(dict.fromkeys([*names, *usable]))


def _interface_addresses() -> list[str]:
    found: list[tuple[bool, str]] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):
                request = struct.pack('256s', name.encode()[:15])
                address = socket.inet_ntoa(fcntl.ioctl(s.fileno(), _SIOCGIFADDR, request)[20:24])
                found.append((name.startswith(_VIRTUAL), address))
    return [address for _, address in sorted(found)]


def _is_local(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address.partition('%')[0])
    except ValueError:
        return False
    return parsed.is_loopback or parsed.is_link_local or parsed.is_unspecified


class Connection:
    """A connection over which messages are sent as lines of JSON.

    Nothing here blocks for long. A message that the other side does not take is dropped.

    Args:
        sock (socket.socket): The connected socket.
    """

    def __init__(self, sock: socket.socket):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        self.socket = sock
        self._received = b''
        # The rest of a message that was sent in part.
        self._rest = b''

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, message: dict[str, Any]) -> None:
        """Send a message.

        Raises:
            OSError: The connection has ended.
        """
        # Nothing new until the rest of the last message has been taken.
        data = self._rest or json.dumps(message).encode() + b'\n'
        try:
            n = self.socket.send(data)
        except BlockingIOError:
            n = 0
        self._rest = data[n:] if n or self._rest else b''

    def receive(self) -> list[dict[str, Any]]:
        """The messages that have arrived.

        Raises:
            OSError: The connection has ended, or the other side is no rank.
        """
        while True:
            try:
                data = self.socket.recv(1 << 16)
            except BlockingIOError:
                break
            if not data:
                # What was sent before the end still counts.
                if b'\n' not in self._received:
                    raise ConnectionResetError('closed by the other side')
                break
            self._received += data
        *lines, self._received = self._received.split(b'\n')
        if len(self._received) > _LONGEST_LINE:
            raise ConnectionResetError('a line without end')
        try:
            messages = [json.loads(line) for line in lines]
        except ValueError as e:
            raise ConnectionResetError('not a line of JSON') from e
        if not all(isinstance(message, dict) for message in messages):
            raise ConnectionResetError('not an object')
        return messages

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.close()


def connect(hosts: list[str], port: int, hello: dict[str, Any]) -> Connection | None:
    """Connect to the first rank by the first of its addresses that works.

    Args:
        hosts (list of str): Names and addresses.
        port (int): The port.
        hello (dict): The message that this rank introduces itself by; the first rank repeats its
            ``'token'``.

    Returns:
        Connection: :obj:`None` if the first rank cannot be reached.
    """
    for host in hosts:
        sock = None
        try:
            sock = socket.create_connection((host, port), _SECONDS_TO_CONNECT)
            connection = Connection(sock)
            connection.send(hello)
            deadline = time.monotonic() + _SECONDS_TO_CONNECT
            while time.monotonic() < deadline:
                if any(m.get('token') == hello['token'] for m in connection.receive()):
                    return connection
                time.sleep(0.01)
        except OSError:
            pass
        # The address is that of another machine, in a private network for example.
        if sock is not None:
            sock.close()
    return None
