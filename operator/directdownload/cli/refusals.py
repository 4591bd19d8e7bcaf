"""Errors of the API server, in words that say what to do.

`session` turns every `ApiError` of a command into a `Failure` with this. Pure: an error in, text out.
"""

import difflib
import re
from collections.abc import Iterable

import directdownload
from directdownload.cli import exit_status as outcome
from directdownload.cluster import errors

CHART_HINT = (
    "the custom resources of directdownload.dev are not installed in this cluster. Install the chart: "
    "helm install direct-download-operator charts/direct-download-operator "
    "--namespace direct-download-system --create-namespace"
)
VERSION_HINT = (
    f"Compare the version of this command line ({directdownload.__version__}) with the chart's: "
    "helm list --all-namespaces"
)
#: The given value, or the name of its type if the rule covers more than a scalar.
_VALUE = re.compile(r'(?P<value>"(?:[^"\\]|\\.)*"|[-\w.]+|\{[^}]*\}|\[[^\]]*\]): (?P<message>.*)', re.S)
_TYPES = frozenset({'"object"', '"array"', '"string"', '"integer"', '"number"', '"boolean"', "object", "array"})
_FORBIDDEN = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\w+) resource "(?P<resource>[^"]*)" in API group "(?P<group>[^"]*)"'
    r'(?: in the namespace "(?P<namespace>[^"]*)")?'
)
_POLICY = re.compile(r"ValidatingAdmissionPolicy '(?P<policy>[^']*)'.* denied request: (?P<message>.*)", re.S)
_CONNECT_FAILED = re.compile(r"Cannot connect to host (?P<address>\S+) .*\[(?P<cause>.*)\]")
_SINGULAR = {
    "zones": "zone",
    "hosts": "host",
    "storagepools": "storage pool",
    "templates": "template",
    "templatedeployments": "deployment",
    "templateplacements": "placement",
    "directdownloadcertificates": "certificate",
}
_STRICT = re.compile(r"strict decoding error: (?P<what>.*)", re.S)
#: Kinds of tenants; the others are for administrators of the hosts.
_OF_TEAMS = frozenset({"templates", "templatedeployments"})
_READING = frozenset({"get", "list", "watch"})
#: Number of names listed if none is similar to the given one.
_NAMES_TOLD = 8


def failure(error: errors.ApiError, known: Iterable[str] | None = None) -> outcome.Failure:
    """The failure in a user's words; its exit status says whether another attempt may help.

    `known`: the existing names, if the requested one is not among them.
    """
    if isinstance(error, errors.Unreachable | errors.TooManyRequests):
        return outcome.Failure(_unreachable(error), outcome.TRANSIENT)
    if isinstance(error, errors.NotFound):
        return outcome.Failure(_not_found(error, known))
    if isinstance(error, errors.Forbidden):
        return outcome.Failure(_forbidden(error))
    if isinstance(error, errors.AlreadyExists):
        return outcome.Failure(_exists(error))
    if isinstance(error, errors.Conflict):
        return outcome.Failure(f"the object was changed at the same time, try again: {_bare(error)}", outcome.TRANSIENT)
    if isinstance(error, errors.Invalid):
        return outcome.Failure(_invalid(error))
    if isinstance(error, errors.ConfigurationError):
        told = "KUBECONFIG" in error.message
        hint = "" if told else "\nName the cluster with --kubeconfig, --context or $KUBECONFIG."
        return outcome.Failure(error.message + hint)
    return outcome.Failure(_bare(error))


def _causes(error: errors.ApiError) -> list[str]:
    """A line for each refused field, sorted, because the server's order varies."""
    found = [(each.get("field", ""), each.get("message", "")) for each in error.details.get("causes") or ()]
    # `<nil>: … some validation rules were not checked` says nothing about a field
    return sorted(_cause(field, message) for field, message in found if field != "<nil>")


def _cause(field: str, message: str) -> str:
    """The API server puts the kind of the refusal and the given value before the rule's own words."""
    kind, _, rest = message.partition(": ")
    given = _VALUE.fullmatch(rest)
    value, words = (given["value"], given["message"]) if given else ("", rest)
    if kind == "Required value":
        words = rest or "is missing"
    elif kind == "Unsupported value":
        words = "expected one of " + words.removeprefix("supported values: ").replace('"', "")
    elif kind != "Invalid value":
        words = f"{kind[:1].lower()}{kind[1:]}" + (f": {words}" if words else "")
    return ": ".join(filter(None, (field, words))) + (f" (given: {value})" if value and value not in _TYPES else "")


def _unreachable(error: errors.ApiError) -> str:
    if isinstance(error, errors.TooManyRequests):
        return "the API server is too busy to answer, try again in a moment"
    if error.status:
        return f"the API server failed ({error.status}), try again in a moment: {_bare(error)}"
    match = _CONNECT_FAILED.search(error.message)
    where = f" at {match['address']}" if match else ""
    if error.reason == "Timeout":
        cause = "it did not answer in time"
    else:
        cause = match["cause"] if match else _bare(error)
        if "Connect call failed" in cause:
            cause = "connection refused"
    return (
        f"cannot reach the API server{where}: {cause}\n"
        "Check that the cluster is up, and the right one (--kubeconfig, --context, $KUBECONFIG)."
    )


def missing(error: errors.ApiError) -> tuple[str, str] | None:
    """Plural and namespace (empty: none) of the missing object; None if it is not one of the product's kinds."""
    plural = error.details.get("kind")
    return (plural, _namespace(error)) if isinstance(error, errors.NotFound) and plural in _SINGULAR else None


def suggestion(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'zone-1'?)` if known names are similar to `name`; else empty."""
    close = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.6)
    return f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""


def role(verb: str, plural: str) -> str:
    """The suffix of the chart's ClusterRole that grants the right; the release is the prefix."""
    reading = verb in _READING
    if plural in _OF_TEAMS:
        return "view" if reading else "edit"
    if plural == "directdownloadcertificates" and not reading:
        return "certificate-admin"
    return "infrastructure-view" if reading else "infrastructure-admin"


def _not_found(error: errors.ApiError, known: Iterable[str] | None) -> str:
    what, name = _object(error)
    if what:
        return f"there is no {what} {name!r}{_where(error)}{_known(name, what, known)}"
    # An answer that names no object is about the whole kind.
    if not name and "/apis/directdownload.dev/" in error.message:
        return CHART_HINT
    return _bare(error)


def _object(error: errors.ApiError) -> tuple[str, str]:
    """The kind of the object in words, and its name. The kind is empty if it is not one of the product's."""
    return _SINGULAR.get(error.details.get("kind", ""), ""), error.details.get("name", "")


def _known(name: str, what: str, known: Iterable[str] | None) -> str:
    if known is None:
        return ""
    names = sorted(known)
    if alike := suggestion(name, names):
        return alike
    told = ", ".join(names[:_NAMES_TOLD]) + (
        f" and {len(names) - _NAMES_TOLD} more" if len(names) > _NAMES_TOLD else ""
    )
    return f"; existing {what}s: {told or 'none yet'}"


def _forbidden(error: errors.ApiError) -> str:
    if error.status == 401:
        return "the API server does not accept these credentials (401): log in again, or choose another --context"
    policy = _POLICY.search(error.message)
    if policy:
        return f"refused by the policy {policy['policy']!r}: {policy['message'].strip()}"
    match = _FORBIDDEN.search(error.message)
    if match:
        where = f" in namespace {match['namespace']!r}" if match["namespace"] else " (cluster-wide)"
        group = f".{match['group']}" if match["group"] else ""
        text = (
            f"{match['user']!r} may not {match['verb']} {match['resource']}{group}{where}. Ask an administrator for a "
            f"role with the verb {match['verb']!r} on {match['resource']}{group}"
        )
        if match["resource"] in _SINGULAR:
            bound = "a RoleBinding" if match["namespace"] else "a ClusterRoleBinding"
            text += (
                f": the chart's ClusterRole <release>-{role(match['verb'], match['resource'])} has it; "
                f"bind it with {bound}"
            )
        return text
    return _bare(error)


def _exists(error: errors.ApiError) -> str:
    what, name = _object(error)
    if not what:
        return _bare(error)
    return f"{what} {name!r} already exists{_where(error)}: choose another name, or delete it first"


def _invalid(error: errors.ApiError) -> str:
    policy = _POLICY.search(error.message)
    if policy:
        return f"refused by the policy {policy['policy']!r}: {policy['message'].strip()}"
    strict = _STRICT.search(error.message)
    if strict:
        return f"refused: {strict['what'].strip()}. {VERSION_HINT}"
    lines = _causes(error)
    if not lines:
        return f"refused: {_bare(error)}"
    return "refused, nothing was created or changed:\n" + "\n".join(f"  {line}" for line in lines)


def _where(error: errors.ApiError) -> str:
    namespace = _namespace(error)
    return f" in namespace {namespace!r}" if namespace else ""


def _namespace(error: errors.ApiError) -> str:
    """The namespace in the path of the call: the details do not have it."""
    match = re.search(r"/namespaces/([^/\s]+)/", error.message)
    return match[1] if match else ""


def _bare(error: errors.ApiError) -> str:
    """The message without the leading call."""
    return re.sub(r"^[A-Z]+ /\S+: ", "", error.message)
