"""Which X.509 certificates Java can read, and which of them are taken: decided on the bytes, for `resources.pem`."""
