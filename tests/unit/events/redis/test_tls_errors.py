"""What TLS errors are told as. The texts are OpenSSL's, through redis-py."""

from __future__ import annotations

import pytest

from events.redis.tls_errors import certificate_problem


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "Error 1 connecting to a:1. [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has"
            " expired (_ssl.c:1006)",
            "Redis's certificate cannot be used (certificate has expired): renew it, or correct a clock",
        ),
        (
            "Error 1 connecting to a:1. [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed"
            " certificate in certificate chain (_ssl.c:1006)",
            "Redis's certificate is not trusted (self-signed certificate in certificate chain): correct ssl_ca_certs"
            " in its URL, or that certificate",
        ),
        ("[SSL: CERTIFICATE_VERIFY_FAILED]", "Redis's certificate is not trusted (it cannot be verified)"),
        (
            "Error while reading from a:1 : (1, '[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate')",
            "Redis does not take our certificate (certificate required): renew or correct ssl_certfile in its URL",
        ),
        ("Error 111 connecting to a:1. Connection refused.", None),
    ],
)
def test_what_is_told(text: str, told: str | None) -> None:
    """Which certificate, why, and what mends it."""
    found = certificate_problem(text)
    assert (found is None) == (told is None)
    assert (found or "").startswith(told or "")
