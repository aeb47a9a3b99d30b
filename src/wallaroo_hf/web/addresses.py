"""Which IP addresses are out in the internet, the same on every Python.

`ipaddress.is_global` follows IANA's special-purpose registries, but differs between Python's releases and calls everything
global that no registry names. Here IPv6 is the other way round: only what is allocated as global unicast counts, and of it
only what the registry does not set apart.
"""

import ipaddress

_V4_SPECIAL = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
        *("203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        "168.63.129.16/32",  # in no registry: where Azure's hosts answer their machines
    )
)
_V4_REACHABLE = tuple(ipaddress.IPv4Network(text) for text in ("192.0.0.9/32", "192.0.0.10/32"))
_V6_GLOBAL = ipaddress.IPv6Network("2000::/3")  # everything else is local, reserved or embeds IPv4
_V6_SPECIAL = tuple(
    ipaddress.IPv6Network(text)
    for text in (
        "2001::/23",  # Teredo, benchmarking, ORCHID
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "3fff::/20",
    )
)
_V6_REACHABLE = tuple(
    ipaddress.IPv6Network(text)
    for text in (
        *("2001:1::1/128", "2001:1::2/128", "2001:1::3/128", "2001:3::/32", "2001:4:112::/48", "2001:20::/28"),
        "2001:30::/28",
    )
)
_V6_OF_V4 = tuple(ipaddress.IPv6Network(text) for text in ("::ffff:0:0/96", "64:ff9b::/96"))  # mapped, NAT64
_ISATAP = (bytes.fromhex("00005efe"), bytes.fromhex("02005efe"))  # before the IPv4 address in the lower half


def is_public(address: str) -> bool:
    """Whether an IP address is out in the internet; an IPv4 address inside an IPv6 one must be, too.

    Raises:
        ValueError: if it is no address.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv4Address):
        return _is_listed(ip, _V4_REACHABLE) or not _is_listed(ip, _V4_SPECIAL)
    inner = ipaddress.IPv4Address(ip.packed[12:])
    if _is_listed(ip, _V6_OF_V4):
        return is_public(str(inner))
    if ip not in _V6_GLOBAL or (_is_listed(ip, _V6_SPECIAL) and not _is_listed(ip, _V6_REACHABLE)):
        return False
    return ip.packed[8:12] not in _ISATAP or is_public(str(inner))


def neighbourhood(address: str) -> str:
    """What one client holds: an IPv4 address, or the /64 of an IPv6 one; other text as it is."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:  # a Unix socket's, or a proxy's word for it
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    return str(ip.ipv4_mapped or ipaddress.IPv6Interface((ip, 64)).network)


def _is_listed(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address,
    networks: tuple[ipaddress.IPv4Network, ...] | tuple[ipaddress.IPv6Network, ...],
) -> bool:
    return any(ip in network for network in networks)
