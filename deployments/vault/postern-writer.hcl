# SPDX-License-Identifier: Apache-2.0

# What the writer's identity may do: store and delete credentials. It cannot
# read one back. It is also what stores a refresh token that an issuer gave in
# exchange for another (kind oauth2-refresh): by check-and-set, over the version
# that the proxy's identity read.
#
# "postern" is the KV version 2 mount. For one firm's credentials alone, put
# the firm's id in the place of each first "+".

path "postern/data/firms/+/mailboxes/+" {
  capabilities = ["create", "update"]
}

# Versions, for check-and-set; deleting the metadata removes every version.
path "postern/metadata/firms/+/mailboxes/+" {
  capabilities = ["read", "delete"]
}

# The names of the stored fields without their values: Postern finds a write
# whose answer was lost by the name that it gave it.
path "postern/subkeys/firms/+/mailboxes/+" {
  capabilities = ["read"]
}

# Passwords that a person has changed and enters, for a rotation to verify; and
# provider accounts.
path "postern/data/firms/+/pending/+/+" {
  capabilities = ["create", "update"]
}
path "postern/metadata/firms/+/pending/+/+" {
  capabilities = ["read", "delete"]
}
path "postern/subkeys/firms/+/pending/+/+" {
  capabilities = ["read"]
}
path "postern/data/firms/+/providers/+" {
  capabilities = ["create", "update"]
}
path "postern/metadata/firms/+/providers/+" {
  capabilities = ["read", "delete"]
}
path "postern/subkeys/firms/+/providers/+" {
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
