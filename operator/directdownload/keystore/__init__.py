"""Java keystores: the formats, and safe changes of a file beside other writers.

Used by the agent and by `directdownload keystore`.
"""
