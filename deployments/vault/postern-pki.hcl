# SPDX-License-Identifier: Apache-2.0

# What the identity may do that has workstations' certificates signed: ask for
# client certificates under the one role, with these parameters alone, and
# revoke by serial number. It reads no key, issues none, signs nothing else
# (sign-verbatim, sign-intermediate), and changes no role.
#
# "postern-pki" is the PKI engine's mount, which is for workstations alone:
# revoking is not bound to a role.

path "postern-pki/sign/workstation" {
  capabilities = ["update"]
  allowed_parameters = {
    "csr"                  = []
    "common_name"          = []
    "uri_sans"             = []
    "exclude_cn_from_sans" = []
    "format"               = ["pem"]
    "ttl"                  = []
  }
}

path "postern-pki/revoke" {
  capabilities = ["update"]
  allowed_parameters = {
    "serial_number" = []
  }
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
