// Sends a webhook as a customer of Stripe's own Node.js library would, or has
// the library judge one that another signer made. In and out as send.py;
// `library` is stripe. Runs in the folder that holds node_modules.

import { createRequire } from "node:module";
import { text } from "node:stream/consumers";

// An `import` would look beside this file only.
const Stripe = createRequire(`${process.cwd()}/`)("stripe");
// Webhooks need no key of the API, but the constructor wants one.
const { webhooks } = new Stripe("sk_test_unused");

/** The headers that the library's user would send. */
function sign({ secret, body, at }) {
  // The id is in the body.
  const header = webhooks.generateTestHeaderString({ payload: body, secret, timestamp: at });
  // The library itself takes it, whatever its age.
  webhooks.constructEvent(body, header, secret, Infinity);
  return { "Stripe-Signature": header };
}

/** Throws what the library throws if it does not accept the message. */
function verify({ secret, headers, body }) {
  webhooks.constructEvent(body, headers["stripe-signature"], secret);
}

async function post(url, headers, body) {
  const answer = await fetch(url, {
    method: "POST",
    headers: { "Content-Type": "application/json", ...headers },
    body,
    signal: AbortSignal.timeout(20_000),
  });
  const receipt = answer.headers.get("X-Tallyhook-Receipt");
  return { status: answer.status, receipt, body: await answer.text() };
}

async function main(verb) {
  const message = JSON.parse(await text(process.stdin));
  if (verb === "send") {
    return post(message.url, sign(message), message.body);
  }
  try {
    verify(message);
  } catch (refusal) {
    if (refusal instanceof Stripe.errors.StripeSignatureVerificationError) {
      return { accepted: false, why: refusal.message };
    }
    throw refusal;
  }
  return { accepted: true };
}

console.log(JSON.stringify(await main(process.argv[2])));
