"""What is kept of an object's metadata."""

from directdownload.resources.base import REQUEST_LENGTH, REQUESTED_AT, request_in
from directdownload.resources.template import Template


def test_annotations_of_others_are_not_kept() -> None:
    """Anybody may write 256 KiB of them into each object; the controller holds every object in memory."""
    annotations = {"kubectl.kubernetes.io/last-applied-configuration": "x" * 262144, REQUESTED_AT: "today"}
    body = {
        "metadata": {"name": "t", "annotations": annotations},
        "spec": {"url": "https://a.example/x", "format": "RAW"},
    }
    template = Template.model_validate(body)
    assert template.metadata.annotations == {REQUESTED_AT: "today"}
    assert template.metadata.requested_at == "today"


def test_of_a_request_no_more_is_kept_than_every_copy_can_carry() -> None:
    """Who writes a Template has it handed on to thousands of copies."""
    annotations = {REQUESTED_AT: "x" * 262144}
    spec = {"url": "https://a.example/x", "format": "RAW"}
    template = Template.model_validate({"metadata": {"name": "t", "annotations": annotations}, "spec": spec})
    assert template.metadata.requested_at == "x" * REQUEST_LENGTH
    assert request_in(annotations) == template.metadata.requested_at
