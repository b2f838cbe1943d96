#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Prepares HashiCorp Vault or OpenBao for Postern, a step at a time. A step can
# be repeated: it finds what it made, and sets it to what this file says.
#
#   setup.sh engine                 the KV version 2 engine for credentials
#   setup.sh policies               what Postern's identities may do
#   setup.sh approle                their AppRole roles
#   setup.sh pki                    the PKI engine that signs workstations'
#                                   certificates, with a CA if it has none
#   setup.sh pki-ca                 prints the certificate of that CA
#   setup.sh transit                the Transit engine with the key that signs the
#                                   transparency logs
#   setup.sh audit FILE             an audit device, if there is none: FILE is
#                                   on Vault's own machine
#   setup.sh role-id ROLE           prints a role's id, for postern.yaml
#   setup.sh secret-id ROLE         prints a wrapped secret-id of a role
#   setup.sh kubernetes API NAMESPACE ACCOUNT
#                                   instead of approle: logs Postern in by its
#                                   service account; API is the cluster's URL
#
# ROLE is postern-proxy (reads credentials), postern-writer (stores them),
# postern-pki (has workstations' certificates signed), postern-transit (has the
# transparency logs signed), or postern-rotator (replaces passwords).
# The environment is that of Vault's own command line: VAULT_ADDR, VAULT_TOKEN
# and, where needed, VAULT_CACERT and VAULT_NAMESPACE. Further:
#
#   POSTERN_MOUNT         where the engine is mounted          (postern)
#   POSTERN_PKI_MOUNT     where the PKI engine is mounted      (postern-pki)
#   POSTERN_TRANSIT_MOUNT where the Transit engine is mounted  (postern-transit)
#   POSTERN_PKI_TTL       how long its CA lives, if it is made (87600h)
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
pki=${POSTERN_PKI_MOUNT:-postern-pki}
transit=${POSTERN_TRANSIT_MOUNT:-postern-transit}
roles="postern-proxy postern-writer postern-pki postern-transit postern-rotator"
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

# quiet is call for an answer that nobody needs.
quiet() { answer=$(call "$@") || { printf '%s\n' "$answer" >&2 && return 1; }; }

# there PATH reports whether something is mounted.
there() { call GET "$1" >/dev/null 2>&1; }

# field NAME prints one member of an answer; ids and tokens hold no escapes.
field() { sed -n 's/.*"'"$1"'":"\([^"]*\)".*/\1/p'; }

known() {
	case $1 in
	postern-proxy | postern-writer | postern-pki | postern-transit | postern-rotator) ;;
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

pki() {
	there "sys/mounts/$pki" ||
		call POST "sys/mounts/$pki" "{\"type\":\"pki\",\"description\":\"workstations of Postern\",\"config\":{\"max_lease_ttl\":\"${POSTERN_PKI_TTL:-87600h}\"}}"
	call GET "sys/mounts/$pki" | grep -q '"type":"pki"' || {
		echo "setup.sh: $pki is not a PKI engine" >&2
		exit 1
	}
	# Its key never leaves Vault.
	pki_ca >/dev/null 2>&1 ||
		quiet POST "$pki/root/generate/internal" "{\"common_name\":\"Postern workstation CA\",\"key_type\":\"ec\",\"key_bits\":256,\"ttl\":\"${POSTERN_PKI_TTL:-87600h}\"}"
	# TLS clients and nothing else, whatever a request asks for. Names are
	# Postern's own and need not be host names.
	quiet POST "$pki/roles/workstation" '{"allow_any_name":true,"enforce_hostnames":false,"cn_validations":["disabled"],"use_csr_common_name":false,"use_csr_sans":false,"allow_ip_sans":false,"allow_localhost":false,"allowed_uri_sans":["urn:uuid:*"],"key_type":"any","key_usage":["DigitalSignature"],"server_flag":false,"client_flag":true,"code_signing_flag":false,"email_protection_flag":false,"basic_constraints_valid_for_non_ca":true,"not_before_duration":"5m","ttl":"2160h","max_ttl":"17520h"}'
	# Certificates that are long over are forgotten.
	quiet POST "$pki/config/auto-tidy" '{"enabled":true,"interval_duration":"24h","tidy_cert_store":true,"tidy_revoked_certs":true,"safety_buffer":"72h"}'
}

pki_ca() {
	# Nothing at all, while there is none.
	ca=$(call GET "$pki/ca/pem") && case $ca in
	*"BEGIN CERTIFICATE"*) printf '%s\n' "$ca" ;;
	*) echo "setup.sh: $pki has no CA" >&2 && return 1 ;;
	esac
}

transit() {
	there "sys/mounts/$transit" ||
		call POST "sys/mounts/$transit" '{"type":"transit","description":"signs the transparency logs of Postern"}'
	call GET "sys/mounts/$transit" | grep -q '"type":"transit"' || {
		echo "setup.sh: $transit is not a Transit engine" >&2
		exit 1
	}
	# It is neither exported nor deleted: Vault's defaults for a key.
	there "$transit/keys/postern-log" ||
		quiet POST "$transit/keys/postern-log" '{"type":"ed25519"}'
}

policies() {
	for name in $roles postern-delivery; do
		# The mounts' names are the only thing in them that may differ. Vault
		# takes a policy in base64.
		policy=$(sed -e "s|^path \"postern/|path \"$mount/|" -e "s|^path \"postern-pki/|path \"$pki/|" \
			-e "s|^path \"postern-transit/|path \"$transit/|" "$here/$name.hcl" |
			base64 | tr -d '\n')
		call PUT "sys/policies/acl/$name" "{\"policy\":\"$policy\"}"
	done
}

approle() {
	there sys/auth/approle || call POST sys/auth/approle '{"type":"approle"}'
	networks=
	if [ -n "${POSTERN_NETWORKS:-}" ]; then
		networks=",\"secret_id_bound_cidrs\":\"$POSTERN_NETWORKS\",\"token_bound_cidrs\":\"$POSTERN_NETWORKS\""
	fi
	for role in $roles; do
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
	for role in $roles; do
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
engine:0 | pki:0 | transit:0 | policies:0 | approle:0 | audit:1 | kubernetes:3) "$step" "$@" ;;
pki-ca:0) pki_ca ;;
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
