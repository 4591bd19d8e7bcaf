"""DirectDownloadCertificate: a certificate that the Java keystore of every host of a zone must hold; cluster-scoped."""

from typing import ClassVar, Literal

import pydantic

from directdownload.resources import pem
from directdownload.resources.base import Duration, Model, ObjectName, Resource, Status, Time, defaults, duration, rules
from directdownload.resources.definition import AGE, Column, Definition, Rule, condition_column
from directdownload.resources.reasons import Reason

#: Appended to the alias for the previous certificate, while it is kept; reserved.
PREVIOUS_SUFFIX = "-previous"


def of_cloudstack(alias: str) -> bool:
    """Whether CloudStack keeps its own key or authorities under `alias`, lower-cased; the CRD has the same rule."""
    return alias == "cloud" or alias.startswith("cloudca")


class CertificateReference(Model):
    """The Secret or ConfigMap with the certificate. The operator follows its changes."""

    kind: Literal["Secret", "ConfigMap"] = pydantic.Field(
        description="Kind of the object, in the operator's namespace.",
        json_schema_extra=rules(expected="Secret or ConfigMap", example="Secret"),
    )
    name: ObjectName = pydantic.Field(
        description="Name of the object.", json_schema_extra=rules(expected="its name", example="images-ca")
    )
    key: str = pydantic.Field(
        description="The key that holds the PEM.",
        json_schema_extra=rules(expected="the key that holds the PEM", example="ca.crt", maxLength=253),
    )


class DirectDownloadCertificateSpec(Model):
    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.certificate) != has(self.certificateRef)",
            "expected exactly one of certificate and certificateRef, for example "
            "certificateRef: {kind: Secret, name: images-ca, key: ca.crt}",
        ),
        # A rule of the object, not of the field: the refusal of a field's rule repeats the value, here the key itself.
        Rule(
            "!has(self.certificate) || !self.certificate.contains('PRIVATE KEY')",
            "expected a certificate, never a private key; for example -----BEGIN CERTIFICATE-----…",
            ".certificate",
        ),
    )

    zone: ObjectName = pydantic.Field(
        description="The Zone whose hosts must trust the certificate.",
        json_schema_extra=rules(expected="the name of a Zone", example="zone-1"),
    )
    alias: str = pydantic.Field(
        description="Alias in the keystore; Java stores it in lower case. `cloud`, `cloudca…` and `…-previous` are "
        "refused in any case.",
        json_schema_extra=rules(
            (
                "self.matches('^[A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?$')",
                "expected letters, digits, '-', '.' and '_', for example my-ca",
            ),
            (
                "!self.matches('^(?i:cloud|cloudca.*|.*-previous)$')",
                "cloud, cloudca… and …-previous are reserved in any case; expected another alias, for example my-ca",
            ),
            expected="the keystore alias",
            example="my-ca",
            immutable=True,
            maxLength=128,
        ),
    )
    hypervisor: Literal["KVM"] = pydantic.Field("KVM", description="The only hypervisor.")
    certificate: str | None = pydantic.Field(
        None,
        description="The certificate as PEM: wrapped, on one line, with CRLF, or bare base64; never a private key. "
        "Exactly one of `certificate` and `certificateRef` must be given.",
        json_schema_extra=rules(maxLength=pem.TEXT_LIMIT),
    )
    certificate_ref: CertificateReference | None = pydantic.Field(
        None,
        description="Instead of `certificate`: a Secret or ConfigMap in the operator's namespace; its changes are "
        "followed.",
    )
    revoked: bool = pydantic.Field(False, description="true: the certificate is removed from every host.")
    revoked_hosts: tuple[ObjectName, ...] = pydantic.Field(
        (),
        description="Hosts that it is removed from. If a name leaves the list, that host gets the certificate again.",
        max_length=5000,
    )
    keep_previous: Duration = duration(
        "24h", description="How long hosts trust the previous certificate after a change; 0: not at all."
    )

    @property
    def keystore_alias(self) -> str:
        """As Java has it: keystores of both types lower-case every alias."""
        return self.alias.lower()


class CertificateHosts(Model):
    """Number of hosts of the zone. A Down host counts as `down`, any other as uploaded, revoked, failed or pending."""

    desired: int = pydantic.Field(0, description="Hosts that should have the certificate, Down ones included.")
    uploaded: int = pydantic.Field(
        0, description="Hosts that have read this very fingerprint back from their keystore."
    )
    revoked: int = pydantic.Field(0, description="Hosts that have seen that the alias is gone.")
    failed: int = pydantic.Field(0, description="Hosts that failed and keep trying.")
    pending: int = pydantic.Field(0, description="Hosts that have not reported it yet.")
    down: int = pydantic.Field(0, description="Hosts that are Down, whatever they reported before.")


class PreviousCertificate(Model):
    """The certificate before the last change. Hosts keep it under `<alias>-previous`."""

    certificate: str = pydantic.Field(
        description="Its normalised PEM.", json_schema_extra=rules(maxLength=pem.TEXT_LIMIT)
    )
    fingerprint_sha256: str = pydantic.Field(alias="fingerprintSHA256", description="Its SHA-256 fingerprint.")
    until: Time = pydantic.Field(
        description="When hosts remove it: `keepPrevious` after the change, or at its notAfter."
    )


class CertificateFailure(Model):
    host: str = pydantic.Field(description="The Host.")
    reason: Reason = pydantic.Field(description="Reason of the failure.")
    message: str = pydantic.Field("", description="The reason in words.")


class DirectDownloadCertificateStatus(Status):
    certificate: str | None = pydantic.Field(
        None,
        description="The published certificate as normalised PEM; hosts use only this.",
        json_schema_extra=rules(maxLength=pem.TEXT_LIMIT),
    )
    subject: str | None = pydantic.Field(
        None, description="Subject of the published certificate; cut at 512 characters."
    )
    issuer: str | None = pydantic.Field(None, description="Issuer of the published certificate; cut at 512 characters.")
    serial_number: str | None = pydantic.Field(None, description="Serial number as `keytool -printcert` shows it.")
    fingerprint_sha256: str | None = pydantic.Field(
        None, alias="fingerprintSHA256", description="SHA-256 fingerprint as `keytool -printcert` shows it."
    )
    not_before: Time | None = pydantic.Field(None, description="When its validity begins.")
    not_after: Time | None = pydantic.Field(None, description="When its validity ends.")
    previous: PreviousCertificate | None = None
    revoked: bool = pydantic.Field(
        False,
        description="true: the published certificate was revoked at the last look. A change then does not keep it as "
        "`previous`.",
    )
    hosts: CertificateHosts | None = None
    failures: tuple[CertificateFailure, ...] = pydantic.Field(
        (), max_length=10, description="Up to 10 hosts that failed, in the order of their names."
    )


class DirectDownloadCertificate(Resource):
    DEFINITION: ClassVar[Definition] = Definition(
        kind="DirectDownloadCertificate",
        plural="directdownloadcertificates",
        short_name="ddcert",
        namespaced=False,
        columns=(
            Column("Zone", ".spec.zone"),
            Column("Alias", ".spec.alias"),
            Column("Hosts", ".status.hosts.desired", "integer"),
            Column("Uploaded", ".status.hosts.uploaded", "integer"),
            # A string: kubectl shows a date as an age, and one in the future as <invalid>.
            Column("Expires", ".status.notAfter"),
            condition_column("Ready", "Ready"),
            condition_column("Reason", "Ready", field="reason", wide=True),
            AGE,
        ),
        selectable_fields=(".spec.zone",),
    )

    spec: DirectDownloadCertificateSpec
    status: DirectDownloadCertificateStatus = defaults(DirectDownloadCertificateStatus)
