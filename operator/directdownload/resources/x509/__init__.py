"""Which X.509 certificates Java can read, and which are accepted: decided on the bytes, for `resources.pem`."""
