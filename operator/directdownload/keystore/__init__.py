"""Java keystores: the formats, and how a file is changed beside other writers.

Used by the agent and by `directdownload keystore`.
"""
