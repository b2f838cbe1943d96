#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Prepares HashiCorp Vault or OpenBao for Postern, a step at a time. A step can
# be repeated: it finds what it made, and sets it to what this file says.
#
#   setup.sh engine                 the KV version 2 engine for credentials
#   setup.sh policies               what Postern's identities may do
#   setup.sh approle                their AppRole roles
#   setup.sh audit FILE             an audit device, if there is none: FILE is
#                                   on Vault's own machine
#   setup.sh role-id ROLE           prints a role's id, for postern.yaml
#   setup.sh secret-id ROLE         prints a wrapped secret-id of a role
#   setup.sh kubernetes API NAMESPACE ACCOUNT
#                                   instead of approle: logs Postern in by its
#                                   service account; API is the cluster's URL
#
# ROLE is postern-proxy (reads credentials) or postern-writer (stores them).
# The environment is that of Vault's own command line: VAULT_ADDR, VAULT_TOKEN
# and, where needed, VAULT_CACERT and VAULT_NAMESPACE. Further:
#
#   POSTERN_MOUNT         where the engine is mounted          (postern)
#   POSTERN_NETWORKS      networks that Postern logs in from, with commas
#                                                              (any)
#   POSTERN_SECRET_ID_TTL how long a secret-id is good         (2160h)
#   POSTERN_WRAP_TTL      how long a wrapping token is good    (10m)
#   POSTERN_AUDIENCE      the service account token's audience (vault)
#   KUBERNETES_CA         PEM file of the cluster's CA; unset: Vault's own pod's
#
# It needs curl and base64, and puts no token on a command line.
set -eu

mount=${POSTERN_MOUNT:-postern}
here=$(cd "$(dirname "$0")" && pwd)

# Tokens live an hour and are renewed; after a day Postern logs in anew, so
# that a role that was closed stays open no longer.
token='"token_ttl":"1h","token_max_ttl":"24h","token_no_default_policy":true'

# call METHOD PATH [JSON] [HEADER] prints the answer; an error ends the script.
call() {
	{
		printf 'url = "%s/v1/%s"\n' "${VAULT_ADDR:?is not set}" "$2"
		printf 'header = "X-Vault-Token: %s"\n' "${VAULT_TOKEN:?is not set}"
		[ -z "${VAULT_NAMESPACE:-}" ] || printf 'header = "X-Vault-Namespace: %s"\n' "$VAULT_NAMESPACE"
		[ -z "${VAULT_CACERT:-}" ] || printf 'cacert = "%s"\n' "$VAULT_CACERT"
		[ -z "${4:-}" ] || printf 'header = "%s"\n' "$4"
		# Only what is quoted needs escapes, and only these two.
		[ -z "${3:-}" ] || printf 'data = "%s"\n' "$(printf %s "$3" | sed 's/[\\"]/\\&/g')"
	} | curl --silent --show-error --fail-with-body --max-time 30 --request "$1" --config -
}

# there PATH reports whether something is mounted.
there() { call GET "$1" >/dev/null 2>&1; }

# field NAME prints one member of an answer; ids and tokens hold no escapes.
field() { sed -n 's/.*"'"$1"'":"\([^"]*\)".*/\1/p'; }

known() {
	case $1 in
	postern-proxy | postern-writer) ;;
	*) echo "setup.sh: no such role: $1" >&2 && exit 2 ;;
	esac
}

engine() {
	there "sys/mounts/$mount" ||
		call POST "sys/mounts/$mount" '{"type":"kv","options":{"version":"2"},"description":"mailbox credentials"}'
	call GET "sys/mounts/$mount" | grep -q '"version":"2"' || {
		echo "setup.sh: $mount is not a KV version 2 engine" >&2
		exit 1
	}
	# A new engine is being set up for a moment.
	tries=0
	until there "$mount/config"; do
		tries=$((tries + 1))
		[ "$tries" -lt 30 ] || { call GET "$mount/config"; exit 1; }
		sleep 1
	done
	# Of the old passwords few are kept.
	call POST "$mount/config" '{"max_versions":3}'
}

policies() {
	for name in postern-proxy postern-writer postern-delivery; do
		# The mount's name is the only thing in them that may differ. Vault
		# takes a policy in base64.
		policy=$(sed "s|^path \"postern/|path \"$mount/|" "$here/$name.hcl" | base64 | tr -d '\n')
		call PUT "sys/policies/acl/$name" "{\"policy\":\"$policy\"}"
	done
}

approle() {
	there sys/auth/approle || call POST sys/auth/approle '{"type":"approle"}'
	networks=
	if [ -n "${POSTERN_NETWORKS:-}" ]; then
		networks=",\"secret_id_bound_cidrs\":\"$POSTERN_NETWORKS\",\"token_bound_cidrs\":\"$POSTERN_NETWORKS\""
	fi
	for role in postern-proxy postern-writer; do
		call POST "auth/approle/role/$role" \
			"{\"token_policies\":\"$role\",$token,\"secret_id_ttl\":\"${POSTERN_SECRET_ID_TTL:-2160h}\"$networks}"
	done
}

kubernetes() {
	there sys/auth/kubernetes || call POST sys/auth/kubernetes '{"type":"kubernetes"}'
	ca=
	if [ -n "${KUBERNETES_CA:-}" ]; then
		ca=",\"kubernetes_ca_cert\":\"$(awk '{printf "%s\\n", $0}' "$KUBERNETES_CA")\",\"disable_local_ca_jwt\":true"
	fi
	call POST auth/kubernetes/config "{\"kubernetes_host\":\"$1\"$ca}"
	for role in postern-proxy postern-writer; do
		call POST "auth/kubernetes/role/$role" \
			"{\"bound_service_account_namespaces\":\"$2\",\"bound_service_account_names\":\"$3\",\"audience\":\"${POSTERN_AUDIENCE:-vault}\",\"token_policies\":\"$role\",$token}"
	done
}

audit() {
	call GET sys/audit | grep -q '"type":"file"' ||
		call PUT sys/audit/file "{\"type\":\"file\",\"options\":{\"file_path\":\"$1\",\"mode\":\"0600\"}}"
}

step=${1:-}
[ $# -eq 0 ] || shift
case $step:$# in
engine:0 | policies:0 | approle:0 | audit:1 | kubernetes:3) "$step" "$@" ;;
role-id:1)
	known "$1"
	call GET "auth/approle/role/$1/role-id" | field role_id
	;;
secret-id:1)
	known "$1"
	# The first "token" of the answer is the wrapping one.
	call POST "auth/approle/role/$1/secret-id" '{}' "X-Vault-Wrap-TTL: ${POSTERN_WRAP_TTL:-10m}" | field token
	;;
*)
	sed -n '3,/^set /{s/^# \{0,1\}//;/^set /d;p;}' "$0" >&2
	exit 2
	;;
esac
