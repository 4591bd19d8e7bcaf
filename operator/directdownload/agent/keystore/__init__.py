"""The Java keystore of this host: when it is checked, how it is changed, which entries are ours."""
