"""The command line: `directdownload`, and the same program as `kubectl directdownload`."""
