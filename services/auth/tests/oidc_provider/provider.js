// A real OpenID Connect provider (oidc-provider) on loopback, with accounts that the test chooses.
//
//   node provider.js '{"port": 0, "redirect_uri": "…", "client_secret": "…", "accounts": {"ada": {"email": "…"}}}'
//
// Prints one line of JSON with its issuer once it listens. PUT /accounts/<id> changes the claims of an account; DELETE
// /keys gives it new signing keys, as a provider that rotates them has. Signing in takes any password of a known account.
import { createServer } from "node:http";
import { generateKeyPair } from "node:crypto";
import { promisify } from "node:util";
import { Provider } from "oidc-provider";

const given = JSON.parse(process.argv[2]);
const accounts = new Map(Object.entries(given.accounts));
let serving;

async function signingKey(kid) {
  const { privateKey } = await promisify(generateKeyPair)("rsa", { modulusLength: 2048 });
  return { ...privateKey.export({ format: "jwk" }), kid, use: "sig", alg: "RS256" };
}

async function makeProvider(issuer, kid) {
  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: "espalier",
        ...(given.client?.client_secret === null ? {} : { client_secret: given.client_secret }),
        redirect_uris: [given.redirect_uri],
        ...(given.backchannel_logout_uri && {
          backchannel_logout_uri: given.backchannel_logout_uri,
          backchannel_logout_session_required: true,
        }),
        ...(given.client && { token_endpoint_auth_method: given.client.token_endpoint_auth_method }),
      },
    ],
    jwks: { keys: [await signingKey(kid)] },
    cookies: { keys: ["only for tests"] },
    features: { backchannelLogout: { enabled: true } },
    // As it is, but for its refusal of loopback.
    fetch: (url, options) => fetch(url, { ...options, dispatcher: undefined }),
    acrValues: ["urn:example:password", "urn:example:two-factors"],
    pkce: { required: () => true },
    claims: {
      openid: ["sub"],
      profile: ["name", "preferred_username", "groups"],
      email: ["email", "email_verified"],
    },
    findAccount: (_ctx, id) =>
      accounts.has(id) ? { accountId: id, claims: async () => ({ sub: id, ...accounts.get(id) }) } : undefined,
  });
  // An account says how it signs in: `acr`.
  const finish = provider.interactionFinished.bind(provider);
  provider.interactionFinished = (request, response, result, options) => {
    const acr = accounts.get(result.login?.accountId)?.acr;
    return finish(request, response, acr ? { ...result, login: { ...result.login, acr } } : result, options);
  };
  // Its own development pages sign in whoever is named; here only those whom the test named.
  return provider.callback();
}

const server = createServer(async (request, response) => {
  const path = decodeURIComponent(new URL(request.url, "http://x").pathname);
  if (request.method === "PUT" && path.startsWith("/accounts/")) {
    let body = "";
    for await (const piece of request) body += piece;
    accounts.set(path.slice("/accounts/".length), JSON.parse(body));
    response.writeHead(204).end();
  } else if (request.method === "DELETE" && path === "/keys") {
    serving = await makeProvider(issuer, `key-${Date.now()}`);
    response.writeHead(204).end();
  } else {
    serving(request, response);
  }
});

let issuer;
server.listen(given.port, "127.0.0.1", async () => {
  issuer = `http://127.0.0.1:${server.address().port}`;
  serving = await makeProvider(issuer, "key-1");
  process.stdout.write(`${JSON.stringify({ issuer })}\n`);
});
