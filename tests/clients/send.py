"""Sends a webhook as a customer of a platform's own Python library would, or
has the library judge one that another signer made.

    send.py send    <<< '{"library": ..., "url": ..., "secret": ..., "id": ..., "at": ..., "body": ...}'
    send.py verify  <<< '{"library": ..., "secret": ..., "headers": {...}, "body": ...}'

`library` is standardwebhooks, svix or stripe; `at` is the signed time in
seconds since 1970. Standard output gets {"status": ..., "receipt": ..., "body": ...},
or {"accepted": true}, or {"accepted": false, "why": ...}.
"""

import json
import sys
import urllib.error
import urllib.request
from datetime import datetime, timezone

import standardwebhooks
import stripe
import svix


def standard(webhook, family, message):
    """The headers of Standard Webhooks, under the family's names."""
    at = datetime.fromtimestamp(message["at"], tz=timezone.utc)
    return {
        f"{family}-id": message["id"],
        f"{family}-timestamp": str(message["at"]),
        f"{family}-signature": webhook.sign(message["id"], at, message["body"]),
    }


def sign(message):
    """The headers that the library's user would send."""
    secret, body = message["secret"], message["body"]
    match message["library"]:
        case "standardwebhooks":
            return standard(standardwebhooks.Webhook(secret), "webhook", message)
        case "svix":
            return standard(svix.webhooks.Webhook(secret), "svix", message)
        case "stripe":
            # The id is in the body.
            header = stripe.WebhookSignature.generate_signature_header(
                body, secret, message["at"]
            )
            # The library itself takes it, whatever its age.
            stripe.Webhook.construct_event(body, header, secret, tolerance=None)
            return {"Stripe-Signature": header}


def verify(message):
    """Raises what the library raises if it does not accept the message."""
    secret, headers, body = message["secret"], message["headers"], message["body"]
    match message["library"]:
        case "standardwebhooks":
            standardwebhooks.Webhook(secret).verify(body, headers)
        case "svix":
            svix.webhooks.Webhook(secret).verify(body, headers)
        case "stripe":
            stripe.Webhook.construct_event(body, headers["stripe-signature"], secret)


def post(url, headers, body):
    request = urllib.request.Request(
        url, body.encode(), {"Content-Type": "application/json", **headers}, method="POST"
    )
    # No proxy, whatever the environment says: the receiver is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        answer = opener.open(request, timeout=20)
    except urllib.error.HTTPError as refusal:
        answer = refusal
    with answer:
        return {
            "status": answer.status,
            "receipt": answer.headers.get("X-Tallyhook-Receipt"),
            "body": answer.read().decode(),
        }


REFUSALS = (
    standardwebhooks.webhooks.WebhookVerificationError,
    stripe.SignatureVerificationError,
)


def main(verb):
    message = json.load(sys.stdin)
    if verb == "send":
        return post(message["url"], sign(message), message["body"])
    try:
        verify(message)
    except REFUSALS as refusal:
        return {"accepted": False, "why": str(refusal)}
    return {"accepted": True}


print(json.dumps(main(sys.argv[1])))
