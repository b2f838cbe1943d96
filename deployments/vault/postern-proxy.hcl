# SPDX-License-Identifier: Apache-2.0

# What the proxy's identity may do: read credentials, one by one. It cannot
# list, write or delete them, and reaches nothing else in the mount.
#
# "postern" is the KV version 2 mount. For one firm's credentials alone, put
# the firm's id in the place of each first "+".

path "postern/data/firms/+/mailboxes/+" {
  capabilities = ["read"]
}

# What a rotation has made and not committed yet: where the upstream refuses the
# credential meanwhile, this may be what it takes.
path "postern/data/firms/+/pending/+/+" {
  capabilities = ["read"]
}

# Its own token: Postern asks whether it is good, renews it, and revokes it
# when it stops. With these the role needs no default policy.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}
path "auth/token/renew-self" {
  capabilities = ["update"]
}
path "auth/token/revoke-self" {
  capabilities = ["update"]
}
