# SPDX-License-Identifier: Apache-2.0

# What delivers secret-ids to Postern's machines may do: make wrapped ones for
# its roles. It never sees a secret-id, reads no credential, and logs in
# as nobody.

path "auth/approle/role/postern-proxy/role-id" {
  capabilities = ["read"]
}
path "auth/approle/role/postern-writer/role-id" {
  capabilities = ["read"]
}
path "auth/approle/role/postern-pki/role-id" {
  capabilities = ["read"]
}
path "auth/approle/role/postern-transit/role-id" {
  capabilities = ["read"]
}
path "auth/approle/role/postern-rotator/role-id" {
  capabilities = ["read"]
}

# A request that asks for no wrapping is refused.
path "auth/approle/role/postern-proxy/secret-id" {
  capabilities     = ["update"]
  min_wrapping_ttl = "1s"
  max_wrapping_ttl = "1h"
}
path "auth/approle/role/postern-writer/secret-id" {
  capabilities     = ["update"]
  min_wrapping_ttl = "1s"
  max_wrapping_ttl = "1h"
}
path "auth/approle/role/postern-pki/secret-id" {
  capabilities     = ["update"]
  min_wrapping_ttl = "1s"
  max_wrapping_ttl = "1h"
}
path "auth/approle/role/postern-transit/secret-id" {
  capabilities     = ["update"]
  min_wrapping_ttl = "1s"
  max_wrapping_ttl = "1h"
}
path "auth/approle/role/postern-rotator/secret-id" {
  capabilities     = ["update"]
  min_wrapping_ttl = "1s"
  max_wrapping_ttl = "1h"
}
