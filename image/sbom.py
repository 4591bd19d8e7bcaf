"""The bill of materials of an image as CycloneDX: every Debian package, every Python package, the product itself.

`make sbom` runs it. The entries come from the image's own records: dpkg's status and the dist-info directories. The
same image gives the same document, byte for byte: its serial number comes from the image's digest, its time from the
image.
"""

import argparse
import datetime
import email.message
import email.parser
import pathlib
import re
import uuid
from collections.abc import Iterable, Iterator

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, Property, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.contact import OrganizationalEntity
from cyclonedx.model.license import License, LicenseAcknowledgement
from cyclonedx.output.json import JsonV1Dot6
from image import archive
from packageurl import PackageURL

PRODUCT = "direct-download-operator"
_STATUS = "/var/lib/dpkg/status"
_OS_RELEASE = "/usr/lib/os-release"
_COPYRIGHT = re.compile(r"/usr/share/doc/(?P<package>[^/]+)/copyright")
_METADATA = re.compile(r"/opt/directdownload/lib/[^/]+/site-packages/[^/]+\.dist-info/METADATA")
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://directdownload.dev/sbom")
#: Short names of licences in a copyright file (https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/).
_LICENCE = re.compile(r"^License: *(\S.*)$", re.MULTILINE)
_MACHINE_READABLE = "debian.org/doc/packaging-manuals/copyright-format"
_FACTORY = LicenseFactory()


def wanted(path: str) -> bool:
    """Whether a file of an image records its packages."""
    return path in (_STATUS, _OS_RELEASE) or bool(_COPYRIGHT.fullmatch(path) or _METADATA.fullmatch(path))


def document(image: archive.Image) -> str:
    """The bill of materials as JSON text; `image` was read with `wanted`."""
    packages = sorted([*_debian(image), *_python(image)], key=lambda component: str(component.purl))
    product = next(component for component in packages if component.name == PRODUCT)
    bom = Bom(
        components=packages,
        serial_number=uuid.uuid5(_NAMESPACE, image.digest),
    )
    bom.metadata.timestamp = datetime.datetime.fromisoformat(re.sub(r"\.\d+", "", image.created))
    labels = image.config.get("Labels") or {}
    revision = labels.get("org.opencontainers.image.revision", "unknown")
    bom.metadata.component = Component(
        type=ComponentType.CONTAINER,
        name=PRODUCT,
        version=product.version,
        bom_ref=image.digest,
        purl=PackageURL("oci", None, PRODUCT, image.digest, {"arch": image.architecture}),
        licenses=product.licenses,
        description=labels.get("org.opencontainers.image.description"),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=image.digest.removeprefix("sha256:"))],
        properties=[
            Property(name="oci:image:digest", value=image.digest),
            Property(name="org.opencontainers.image.revision", value=revision),
        ],
    )
    bom.register_dependency(bom.metadata.component, packages)
    return JsonV1Dot6(bom).output_as_string(indent=2) + "\n"


def _debian(image: archive.Image) -> Iterator[Component]:
    release = dict(line.split("=", 1) for line in image.text(_OS_RELEASE).splitlines() if "=" in line)
    distribution = "-".join(release[key].strip('"') for key in ("ID", "VERSION_ID"))
    for paragraph in image.text(_STATUS).strip().split("\n\n"):
        fields = email.parser.Parser().parsestr(paragraph)
        name, version = fields["Package"], fields["Version"]
        qualifiers = {"arch": fields["Architecture"], "distro": distribution}
        if fields["Source"]:
            # the name of the package in Debian's security tracker
            qualifiers["upstream"] = fields["Source"].replace(" (", "@").rstrip(")")
        found = image.resolve(f"/usr/share/doc/{name}/copyright")
        purl = PackageURL("deb", "debian", name, version, qualifiers)
        yield Component(
            type=ComponentType.LIBRARY,
            name=name,
            version=version,
            bom_ref=purl.to_string(),
            purl=purl,
            supplier=OrganizationalEntity(name=fields["Maintainer"]) if fields["Maintainer"] else None,
            licenses=_licences(_of_copyright(found.content.decode() if found is not None else "")),
        )


def _python(image: archive.Image) -> Iterator[Component]:
    for path, entry in image.entries.items():
        if not _METADATA.fullmatch(path):
            continue
        fields = email.parser.Parser().parsestr(entry.content.decode())
        name = re.sub(r"[-_.]+", "-", fields["Name"]).lower()
        purl = PackageURL("pypi", None, name, fields["Version"])
        references = []
        if name != PRODUCT:
            address = XsUri(f"https://pypi.org/project/{name}/{fields['Version']}/")
            references.append(ExternalReference(type=ExternalReferenceType.DISTRIBUTION, url=address))
        yield Component(
            type=ComponentType.LIBRARY,
            name=name,
            version=fields["Version"],
            bom_ref=purl.to_string(),
            purl=purl,
            description=fields["Summary"],
            licenses=_licences(_of_metadata(fields)),
            external_references=references,
        )


def _of_copyright(text: str) -> list[str]:
    if _MACHINE_READABLE not in text[:2000]:
        return []
    return sorted({name.strip() for name in _LICENCE.findall(text)})


def _of_metadata(fields: email.message.Message) -> list[str]:
    """The licence expression if there is one, else the short name, else the licences of the classifiers."""
    for text in (fields["License-Expression"], fields["License"]):
        if text and "\n" not in text.strip() and len(text) < 100:
            return [text.strip()]
    classifiers = [str(text) for text in fields.get_all("Classifier") or ()]
    return [text.rpartition(" :: ")[2] for text in classifiers if text.startswith("License :: ")]


def _licences(names: Iterable[str]) -> list[License]:
    """An SPDX expression stands alone; several names are a list."""
    found = list(names)
    if len(found) == 1:
        return [_FACTORY.make_from_string(found[0], license_acknowledgement=LicenseAcknowledgement.DECLARED)]
    return [
        _FACTORY.make_with_name(name, acknowledgement=LicenseAcknowledgement.DECLARED) for name in sorted(set(found))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the bill of materials of an image as CycloneDX.")
    parser.add_argument("archive", type=pathlib.Path, help="OCI archive, for example of `make image`")
    parser.add_argument("-o", "--output", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    text = document(archive.read(arguments.archive, wanted))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(text)


if __name__ == "__main__":
    main()
