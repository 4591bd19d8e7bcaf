"""The process on every host: publishes what its pools hold and how far its downloads are."""
