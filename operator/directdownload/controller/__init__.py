"""The controller: watches, plans and writes; leader-elected; talks to the Kubernetes API only."""
