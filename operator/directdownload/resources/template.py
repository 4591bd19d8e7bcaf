"""Template: an image that can be fetched onto hosts, by URL and checksum; namespaced, written by tenants."""

from typing import ClassVar, Literal

import pydantic

from directdownload.resources import naming
from directdownload.resources.base import (
    Connections,
    LabelSelector,
    Model,
    ObjectName,
    Resource,
    Status,
    Time,
    Words,
    defaults,
    rules,
)
from directdownload.resources.checksum import ALGORITHMS, EXAMPLE, Algorithm
from directdownload.resources.definition import AGE, Column, Definition, Rule, condition_column
from directdownload.resources.reasons import Word
from directdownload.resources.templateplacement import BytesFrom

_URL_EXAMPLE = "https://images.example.org/debian-13.qcow2"
#: `{ALG}hex`, `alg:hex`, or 32 bare hex digits for MD5: CloudStack's notations, in any case.
_CHECKSUM = "|".join(
    f"([{{](?i:{name})[}}]|(?i:{name}):)[0-9a-fA-F]{{{algorithm.hex_length}}}"
    for algorithm in Algorithm
    for name in (algorithm.value.replace("sha", "sha-?"),)
)
#: Such a URL only the rule about it may refuse: the refusal of a field's rule repeats the value.
_USER_INFO = "^[^/?#]*//[^/?#]*@"
#: Of a host name, in any script: all but the other ASCII.
_OF_NAME = "[:cntrl:][:space:]!-,/:-@[-^`{-~"
_AUTHORITY = f"[^/?#]*@|([[][0-9A-Fa-f:.]+[]]|[^-.{_OF_NAME}][^{_OF_NAME}]*)(:[0-9]{{0,5}})?([/?#]|$)"
_NO_FILE = "[^/?#@]*($|[?#]|/(.*([?#;|`]|[$][(]|%2[fF])|(.*/)?(([.]|%2[eE]){1,2}(/|$)|$)))"
#: The part of `urls.Url.parse` that refuses the plainest mistakes at once; the rest makes a Template not Ready.
_URL_CHECKS = (
    (
        f"self.matches('^(?i:https?|nfs)://({_AUTHORITY})')",
        f"expected an http, https or nfs URL with the name or address of a host, for example {_URL_EXAMPLE}",
    ),
    (
        f"self.matches('{_USER_INFO}') || !self.matches(r'[[:cntrl:][:space:]\\\\]')",
        f"expected a URL without spaces, control characters and backslashes, for example {_URL_EXAMPLE}",
    ),
    (
        f"!self.matches('^(?i:nfs)://{_NO_FILE}')",
        "expected an nfs URL that names a file, without . and .. in its path and without query, for example "
        "nfs://nas.example.org/export/debian-13.qcow2",
    ),
)
_NO_PASSWORD = (
    f"!self.matches('{_USER_INFO}')",
    "expected a URL without user name and password: put them into a Secret and name it in headersSecretRef, "
    f"for example {_URL_EXAMPLE}",
)


class SecretReference(Model):
    """A Secret whose keys are HTTP headers. They are sent only to the origin of `url`."""

    name: ObjectName = pydantic.Field(
        description="A Secret of type `directdownload.dev/headers` in the Template's namespace.",
        json_schema_extra=rules(expected="the name of a Secret", example="token"),
    )


class TemplateSpec(Model):
    RULES: ClassVar[tuple[Rule, ...]] = (
        # A rule of the object, not of the field: the refusal of a field's rule repeats the value, here a password.
        Rule(f"!has(self.url) || {_NO_PASSWORD[0].replace('self', 'self.url')}", _NO_PASSWORD[1], ".url"),
    )

    display_text: str = pydantic.Field("", description="Description for people.", max_length=4096)
    url: str = pydantic.Field(
        description="Where the image is served: http, https or nfs. If it is a metalink, by its path (`.metalink`, "
        "`.meta4`), its media type or its content, it names the sources. It must not contain a user name or password.",
        json_schema_extra=rules(
            *_URL_CHECKS, expected="where the image is served", example=_URL_EXAMPLE, immutable=True, maxLength=2048
        ),
    )
    mirrors: tuple[str, ...] = pydantic.Field(
        (),
        description="Further URLs of the same bytes, in the same notations. They are tried in this order if `url` "
        "fails; at most 16.",
        max_length=16,
        json_schema_extra=rules(
            *(
                (f"self.all(u, {check.replace('self', 'u')})", message)
                for check, message in (*_URL_CHECKS, _NO_PASSWORD)
            )
        ),
    )
    checksum: str | None = pydantic.Field(
        None,
        description="Checksum of the file as served, before it is unpacked: `sha256:<hex>`, `{SHA-256}<hex>`, or 32 "
        "hexadecimal digits for MD5; also MD5, SHA-1, SHA-224, SHA-384, SHA-512; in any case. Without it the first "
        "copy decides.",
        json_schema_extra=rules(
            (
                f"self.matches('^({_CHECKSUM}|[0-9a-fA-F]{{32}})$')",
                f"expected an algorithm ({ALGORITHMS}) with exactly its number of hex digits, for example {EXAMPLE}",
            ),
            immutable=True,
            maxLength=160,
        ),
    )
    connections_per_source: Connections = pydantic.Field(
        0,
        description="Most connections of one download to each of these URLs, at most 8; the lower one of this and of "
        "the Zone's `downloads.connectionsPerSource` counts. 0: as the Zone says.",
    )
    format: Literal["QCOW2", "RAW", "ISO", "VMDK", "VHD", "VHDX", "OVA", "TAR"] = pydantic.Field(
        description="Format of the image; if it is served in an archive (gz, bz2, xz, zst, zip), format of the file "
        "in the archive. A file is published only if it has this format and is safe to open. ISO files get the suffix "
        "`.iso`.",
        json_schema_extra=rules(expected="the format of the image", example="QCOW2", immutable=True),
    )
    hypervisor: Literal["KVM"] = pydantic.Field(
        "KVM", description="The only hypervisor.", json_schema_extra=rules(immutable=True)
    )
    architecture: Literal["x86_64", "aarch64", "s390x", "ppc64le", "riscv64"] = pydantic.Field(
        "x86_64",
        description="Processor architecture of the machine in the image. New copies go only to hosts of it, and to "
        "those whose architecture is not known. A change removes no copy.",
    )
    type: Literal["USER", "ROUTING", "SYSTEM"] = pydantic.Field(
        "USER",
        description="USER or ROUTING at creation. A user with the verb `set-system` on templates may set SYSTEM later.",
    )
    zones: tuple[ObjectName, ...] = pydantic.Field(
        (), description="Zones where it may be deployed; empty: all zones.", max_length=256
    )
    allowed_namespaces: LabelSelector | None = pydantic.Field(
        None, description="Other namespaces that may deploy it; absent: only its own; `{}`: every namespace."
    )
    headers_secret_ref: SecretReference | None = pydantic.Field(
        None, description="A Secret whose keys are HTTP headers, such as a token, for the origin of `url`."
    )
    details: dict[str, str] = pydantic.Field(
        {},
        description="Free to use: at most 64 entries, with names of at most 253 characters.",
        max_length=64,
        json_schema_extra=rules(
            ("self.all(k, size(k) <= 253)", "expected names of at most 253 characters, for example {os: debian}")
        ),
    )


class PlacementCounts(Model):
    """Number of copies in each phase; they add up to `total` or `desired`."""

    total: int | None = pydantic.Field(None, description="In a Template: all copies.")
    desired: int | None = pydantic.Field(None, description="In a TemplateDeployment: all copies that it wants.")
    skipped: int | None = pydantic.Field(
        None,
        description="In a TemplateDeployment: copies that it selects and that are not made, as their hosts are of "
        "another architecture than the Template; absent: none.",
    )
    ready: int = pydantic.Field(0, description="Copies that are complete, verified and in place.")
    downloading: int = pydantic.Field(0, description="Copies that a job is fetching.")
    pending: int = pydantic.Field(
        0,
        description="Copies that wait: for their first attempt, between two, or in a download for a host that is Down.",
    )
    failed: int = pydantic.Field(0, description="Copies that failed for good.")


class TemplateProbe(Model):
    """The probes behind the condition SourceReachable. They decide when the source is asked again."""

    attempts: int = pydantic.Field(
        0, description="Number of probes so far.", json_schema_extra=rules(maximum=naming.ATTEMPT_LIMIT)
    )
    recent_failures: int | None = pydantic.Field(
        None,
        description="Failed probes in a row; they decide the pause.",
        json_schema_extra=rules(maximum=naming.ATTEMPT_LIMIT),
    )
    next_attempt_time: Time | None = pydantic.Field(
        None, description="Time of the next probe after a transient failure."
    )
    last_handled_request: str | None = pydantic.Field(
        None, description="The `directdownload.dev/requested-at` that the last probe served."
    )
    observed_inputs: str | None = pydantic.Field(
        None, description="Hash of the inputs of the last probe. A failed probe is repeated when they change."
    )


class SourceProtocol(Word):
    HTTP = "HTTP"
    HTTPS = "HTTPS"
    NFS = "NFS"
    UNKNOWN = "Unknown"


class TemplateStatus(Status):
    protocol: SourceProtocol | None = pydantic.Field(None, description="Protocol of the URL.")
    size_bytes: int | None = pydantic.Field(
        None, description="Size of the file as served: from the answer to the probe, then from the first verified copy."
    )
    size: Words | None = pydantic.Field(None, description="`sizeBytes` for people, such as `312.0 MiB`.")
    virtual_size_bytes: int | None = pydantic.Field(
        None, description="Virtual size of the image, if its header has it; learnt in the same way."
    )
    virtual_size: Words | None = pydantic.Field(None, description="`virtualSizeBytes` for people.")
    etag: str | None = pydantic.Field(None, description="ETag in the answer to the last probe.")
    digest: str | None = pydantic.Field(
        None,
        description="`sha256:<hex>` of the file as served. The first job that fetched it computed it, and every later "
        "copy must match it. It is withdrawn if another job finds another digest (condition DigestDisputed).",
    )
    placements: PlacementCounts | None = None
    bytes_from: BytesFrom | None = pydantic.Field(
        None, description="Sum of `file.bytesFrom` of the copies, where hosts read from each other."
    )
    probe: TemplateProbe | None = None


class Template(Resource):
    DEFINITION: ClassVar[Definition] = Definition(
        kind="Template",
        plural="templates",
        short_name="ddtemplate",
        namespaced=True,
        columns=(
            Column("Format", ".spec.format"),
            Column("Type", ".spec.type"),
            Column("Size", ".status.size"),
            Column("Copies", ".status.placements.ready", "integer"),
            condition_column("Ready", "Ready"),
            condition_column("Reason", "Ready", field="reason", wide=True),
            Column("URL", ".spec.url", wide=True),
            Column("Bytes", ".status.sizeBytes", "integer", wide=True),
            AGE,
        ),
    )

    spec: TemplateSpec
    status: TemplateStatus = defaults(TemplateStatus)
