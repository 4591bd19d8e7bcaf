"""Metrics of the peer server."""

import prometheus_client

from directdownload.observe.catalogue import Catalogue

# The start time of each counter, as a series of its own: nobody uses it, and it doubles their number.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call] # theirs
CATALOGUE = Catalogue()
SENT_BYTES = CATALOGUE.counter("peer_sent_bytes_total", "bytes of pieces that other hosts were given")
UPLOADS = CATALOGUE.counter(
    "peer_uploads_total",
    "pieces that were given to other hosts; `result` is `sent`, or `broken` where an upload ended early",
    "result",
)
REFUSALS = CATALOGUE.counter(
    "peer_refusals_total", "connections and requests of other hosts that were refused", "reason"
)
BAD_PIECES = CATALOGUE.counter(
    "peer_bad_pieces_total", "pieces on the disk whose bytes are not what the piece log says; none of them was sent"
)
CONNECTIONS = CATALOGUE.gauge(
    "peer_connections",
    "open connections of other hosts; `kind` is `client`, or `stranger` before it has shown a certificate",
    "kind",
)
STREAMS = CATALOGUE.gauge("peer_streams", "hosts that follow which pieces this one has")
