"""What must not be guessed has 256 random bits, and never comes twice."""

import base64
from typing import Any

from espalier.auth.v1 import access_pb2, access_pb2_grpc, registration_pb2, registration_pb2_grpc
from espalier_auth.oidc.login_state import LoginStates


async def test_tokens_keys_and_links_carry_256_random_bits_and_none_comes_twice(start_auth: Any) -> None:
    auth = await start_auth(public_url="https://espalier.example.org", registration="invitation")
    user = await auth.create_user("mia", roles=["viewer"])
    token = (await auth.login()).access_token
    registration = registration_pb2_grpc.RegistrationServiceStub(auth.channel(token))
    keys = access_pb2_grpc.ApiKeyServiceStub(auth.channel(token))
    invitation = registration_pb2.CreateInvitationRequest(invitation=registration_pb2.Invitation(roles=["viewer"]))
    reset = registration_pb2.CreatePasswordResetRequest(user_id=user.id)
    secrets = []
    for number in range(4):
        key = access_pb2.CreateApiKeyRequest(api_key=access_pb2.ApiKey(name=f"key {number}"))
        secrets += [
            (await auth.login()).refresh_token,
            (await keys.CreateApiKey(key)).key.split("_", 2)[2],
            (await registration.CreateInvitation(invitation)).url.rpartition("=")[2],
            (await registration.CreatePasswordReset(reset)).url.rpartition("=")[2],
            LoginStates(b"k" * 32).begin("corporate")[1],
        ]

    assert {len(base64.urlsafe_b64decode(secret + "=")) for secret in secrets} == {32}
    assert len(set(secrets)) == 20
    # No place in them is the same in all: 20 equal letters of 64 come once in 10^34.
    assert all(len(set(letters)) > 1 for letters in zip(*secrets, strict=True))
