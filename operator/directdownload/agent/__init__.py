"""The process on every host: keeps its keystore, publishes what its pools hold and how far its downloads are."""
