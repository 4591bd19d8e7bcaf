"""The chart's denied networks, made from the source policy: `python -m tests.denied_networks PATH [--check]`.

The chart cannot import Python, and a NetworkPolicy has only ranges: each IPv4 range is listed again in its NAT64 form.
IPv4-mapped addresses are missing, as Linux sends IPv4 there. `make docs` runs this, `make lint` checks.
"""

import ipaddress
import pathlib
import sys

import yaml

from directdownload.download.sources import policy
from directdownload.resources import generated

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
FILE = REPOSITORY / "charts" / "direct-download-operator" / "files" / "denied-networks.yaml"
_HEAD = "# Generated from directdownload/download/sources/policy.py by `make docs`. Do not edit.\n"


def networks() -> dict[str, list[str]]:
    """Ranges by the name of the family."""
    found: dict[str, list[str]] = {"ipv4": [], "ipv6": []}
    for _, network in policy.DENIED:
        if isinstance(network, ipaddress.IPv4Network):
            found["ipv4"].append(str(network))
            found["ipv6"].append(str(_by_nat64(network)))
        else:
            found["ipv6"].append(str(network))
    return found


def render() -> str:
    return _HEAD + yaml.safe_dump(networks(), sort_keys=False)


def _by_nat64(network: ipaddress.IPv4Network) -> ipaddress.IPv6Network:
    address = int(policy.NAT64.network_address) + int(network.network_address)
    return ipaddress.IPv6Network((address, policy.NAT64.prefixlen + network.prefixlen))


def files(path: pathlib.Path) -> dict[pathlib.Path, str]:
    return {path: render()}


if __name__ == "__main__":
    sys.exit(generated.main(sys.argv[1:], files, place="files/denied-networks.yaml of the chart", command="make docs"))
