# SPDX-License-Identifier: Apache-2.0

# What the rotator's identity may do: read provider accounts, and replace
# passwords. It alone can read and write the same credential, so give it to
# 'postern rotator' on a machine of its own where there is one.
#
# "postern" is the KV version 2 mount. For one firm's credentials alone, put
# the firm's id in the place of each first "+".

path "postern/data/firms/+/mailboxes/+" {
  capabilities = ["read", "create", "update"]
}
path "postern/metadata/firms/+/mailboxes/+" {
  capabilities = ["read"]
}
path "postern/subkeys/firms/+/mailboxes/+" {
  capabilities = ["read"]
}
# Versions that were replaced are destroyed after a while.
path "postern/destroy/firms/+/mailboxes/+" {
  capabilities = ["update"]
}

# New passwords, before they are the mailboxes'.
path "postern/data/firms/+/pending/+/+" {
  capabilities = ["read", "create", "update"]
}
path "postern/metadata/firms/+/pending/+/+" {
  capabilities = ["read", "delete"]
}
path "postern/subkeys/firms/+/pending/+/+" {
  capabilities = ["read"]
}

path "postern/data/firms/+/providers/+" {
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
