"""Single sign-on with OpenID Connect: authorization code with PKCE, users made at their first sign-in."""
