"""The process on every host: maintains its keystore, and reports its pools and the progress of its downloads."""
