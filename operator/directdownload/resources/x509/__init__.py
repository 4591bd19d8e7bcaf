"""What Java reads of an X.509 certificate, by its bytes: `java` has the verdict, `accepted` the stricter one."""
