"""The process that handles foreign bytes, and everything that it cannot do."""
