# SPDX-License-Identifier: Apache-2.0

# What the identity may do that has the transparency logs signed: sign with the one
# key, and read its public half. It exports, rotates and deletes no key, and signs
# with no other.
#
# "postern-transit" is the Transit engine's mount.

path "postern-transit/sign/postern-log" {
  capabilities = ["update"]
  allowed_parameters = {
    "input"       = []
    "key_version" = []
  }
}

path "postern-transit/keys/postern-log" {
  capabilities = ["read"]
}

path "auth/token/lookup-self" {
  capabilities = ["read"]
}
path "auth/token/renew-self" {
  capabilities = ["update"]
}
path "auth/token/revoke-self" {
  capabilities = ["update"]
}
