"""TLS errors of a connection to Redis that no other attempt mends, in words that say what does."""

from __future__ import annotations

#: How OpenSSL names an alert with which the other side refuses our certificate.
_REFUSED = (
    "ALERT_UNKNOWN_CA",
    "ALERT_BAD_CERTIFICATE",
    "ALERT_CERTIFICATE_EXPIRED",
    "ALERT_CERTIFICATE_REVOKED",
    "ALERT_CERTIFICATE_UNKNOWN",
    "ALERT_UNSUPPORTED_CERTIFICATE",
    "ALERT_CERTIFICATE_REQUIRED",
    "ALERT_DECRYPT_ERROR",
)


def certificate_problem(text: str) -> str | None:
    """What is wrong with a certificate, and what to do, from a connection error's text; None if it is none of that."""
    if "CERTIFICATE_VERIFY_FAILED" in text:
        reason = text.partition("certificate verify failed: ")[2].partition(" (_ssl")[0] or "it cannot be verified"
        if "expired" in reason or "not yet valid" in reason:
            return f"Redis's certificate cannot be used ({reason}): renew it, or correct a clock"
        return f"Redis's certificate is not trusted ({reason}): correct ssl_ca_certs in its URL, or that certificate"
    found = next((alert for alert in _REFUSED if alert in text), None)
    if found is not None:
        reason = found.removeprefix("ALERT_").replace("_", " ").lower()
        return f"Redis does not take our certificate ({reason}): renew or correct ssl_certfile in its URL"
    return None
