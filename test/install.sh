#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs the servers and mail clients that the tests run, on Debian. None of
# them is started as a service.
set -eu

packages="dovecot-core dovecot-imapd dovecot-submissiond dovecot-lmtpd postfix
nginx libnginx-mod-mail isync neomutt curl msmtp swaks libnet-ssleay-perl fetchmail tmux gcc libc6-dev ca-certificates"

missing=
for package in $packages; do
	dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
echo "installing:$missing"
if [ "$(id -u)" != 0 ]; then
	echo "run as root, or install them yourself: apt-get install$missing" >&2
	exit 1
fi
# A package that starts its service at installation would take ports.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
	trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
# shellcheck disable=SC2086
apt-get install -yq --no-install-recommends $missing
