#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs the servers and mail clients that the tests run, on Debian. None of
# them is started as a service.
set -eu

packages="dovecot-core dovecot-imapd dovecot-submissiond dovecot-lmtpd postfix
cyrus-common nginx libnginx-mod-mail isync neomutt curl msmtp swaks libnet-ssleay-perl fetchmail rsyslog rsyslog-gnutls tmux swtpm systemd prometheus postgresql slapd dovecot-pgsql dovecot-ldap dovecot-sieve chromium-headless-shell fonts-dejavu-core gcc libc6-dev ca-certificates openssl"

# Debian lets only one IMAP daemon be installed: Cyrus' is unpacked beside
# Dovecot's, from the package of the same version as cyrus-common.
cyrus=/usr/local/lib/postern-test/cyrus
cyrus_unpacked() {
	version=$(dpkg-query -W -f '${Version}' cyrus-common 2>/dev/null) || return 1
	[ "$(cat "$cyrus/version" 2>/dev/null)" = "$version" ]
}

missing=
for package in $packages; do
	dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok' || missing="$missing $package"
done
if [ -z "$missing" ] && cyrus_unpacked; then
	exit 0
fi
echo "installing:$missing, and cyrus-imapd into $cyrus"
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
if [ -n "$missing" ]; then
	# shellcheck disable=SC2086
	apt-get install -yq --no-install-recommends $missing
fi
if ! cyrus_unpacked; then
	unpacking=$(mktemp -d)
	chown _apt "$unpacking" # apt downloads as this user
	(cd "$unpacking" && apt-get download -q "cyrus-imapd=$version" && dpkg-deb -x cyrus-imapd_*.deb .)
	mkdir -p "$cyrus"
	cp "$unpacking/usr/lib/cyrus/bin/"* "$cyrus/"
	echo "$version" >"$cyrus/version"
	rm -r "$unpacking"
fi
