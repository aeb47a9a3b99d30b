"""Which addresses are public: the registries' answer, on every Python."""

from __future__ import annotations

import ipaddress
import sys

import pytest

from wallaroo_hf.web import addresses
from wallaroo_hf.web.addresses import is_public, neighbourhood

PRIVATE_V4 = (
    *("0.0.0.0", "0.1.2.3", "10.1.2.3", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.254"),
    *("169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.170", "192.0.0.171", "192.0.2.1"),
    *("192.88.99.1", "192.168.1.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1"),
    *("239.255.255.255", "240.0.0.1", "255.255.255.255", "168.63.129.16"),
)
PUBLIC_V4 = ("1.1.1.1", "8.8.8.8", "93.184.215.14", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1")
PRIVATE_V6 = (
    *("::", "::1", "::2", "::8.8.8.8", "fe80::1", "fe80::1%eth0", "fec0::1", "feff::1", "fc00::1", "fd00:ec2::254"),
    *("ff02::1", "ff0e::1", "100::1", "100:0:0:1::1", "64:ff9b:1::1", "64:ff9b:1:ffff::8.8.8.8", "64:ff9a::1"),
    *("2001::1", "2001:2::1", "2001:10::1", "2001:db8::1", "3fff::1", "3fff:fff::1", "5f00::1", "4000::1", "1::1"),
    *("2002:808:808::1", "::ffff:0:8.8.8.8", "200::1", "e000::1"),
)
PUBLIC_V6 = ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", "2001:4860:4860::8888", "2a00:1450::1", "2001:200::1")
EMBEDDINGS = {
    "mapped": lambda ip: f"::ffff:{ip}",
    "NAT64": lambda ip: f"64:ff9b::{ip}",
    "ISATAP": lambda ip: f"2606:2800::5efe:{ip}",
    "ISATAP of a unique address": lambda ip: f"2606:2800::200:5efe:{ip}",
}
NEVER = {  # forms that are no way to a host today, whatever is inside
    "translated": lambda ip: f"::ffff:0:{ip}",
    "compatible": lambda ip: f"::{ip}",
    "local NAT64": lambda ip: f"64:ff9b:1::{ip}",
    "6to4": lambda ip: f"2002:{ip.packed.hex()[:4]}:{ip.packed.hex()[4:]}::1",
    "Teredo": lambda ip: str(ipaddress.IPv6Address((0x20010000 << 96) | (int(ip) ^ 0xFFFFFFFF))),
}


@pytest.mark.parametrize("address", [*PRIVATE_V4, *PRIVATE_V6])
def test_private(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", [*PUBLIC_V4, *PUBLIC_V6])
def test_public(address):
    assert is_public(address)


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_embedded_addresses_count(name):
    assert [is_public(EMBEDDINGS[name](ip)) for ip in PRIVATE_V4] == [False] * len(PRIVATE_V4)
    assert [is_public(EMBEDDINGS[name](ip)) for ip in PUBLIC_V4] == [True] * len(PUBLIC_V4)


@pytest.mark.parametrize("name", NEVER)
def test_forms_that_lead_nowhere(name):
    for address in (*PRIVATE_V4, *PUBLIC_V4):
        assert not is_public(NEVER[name](ipaddress.IPv4Address(address)))


@pytest.mark.skipif(sys.version_info < (3, 13), reason="older lists of ipaddress differ")
def test_nothing_is_public_that_pythons_newest_list_calls_private():
    """At both ends of every network that either list names, and next to them."""
    networks = [
        *(addresses._V4_SPECIAL + addresses._V4_REACHABLE),
        *(addresses._V6_SPECIAL + addresses._V6_REACHABLE + addresses._V6_OF_V4),
        *(ipaddress.IPv4Network("0.0.0.0/0")._constants._private_networks),
        *(ipaddress.IPv6Network("::/0")._constants._private_networks),
    ]
    for network in networks:
        kind, last = type(network.network_address), 2**network.max_prefixlen - 1
        first, end = int(network.network_address), int(network.broadcast_address)
        for number in (first - 1, first, first + 1, end - 1, end, end + 1):
            ip = kind(min(max(number, 0), last))
            newer = str(ip) == "2001:1::3" or getattr(ip, "ipv4_mapped", None)  # in the registry since, or unwrapped
            assert not is_public(str(ip)) or ip.is_global or newer, ip
            if ip.version == 4 and str(ip) != "168.63.129.16" and ip not in ipaddress.ip_network("192.88.99.0/24"):
                assert is_public(str(ip)) == (ip.is_global and not ip.is_multicast), ip


def test_what_one_client_holds():
    assert (
        neighbourhood("2606:2800:1:2:3:4:5:6")
        == neighbourhood("2606:2800:1:2::9")
        != neighbourhood("2606:2800:1:3::9")
    )
    assert neighbourhood("::ffff:8.8.8.8") == neighbourhood("8.8.8.8") != neighbourhood("8.8.8.9")
    assert neighbourhood("fe80::1%eth0") == neighbourhood("fe80::2")
    assert neighbourhood("") == "" and neighbourhood("\xff") == "\xff"
