#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# machine.sh DIR: becomes a systemd that is PID 1 of its own namespaces, on
# this machine's files, but for those that an operator or a service changes:
# they are copies or empty. Nothing of this machine's services is started.
# `unshare --fork --pid --mount --cgroup --ipc --uts` runs it.
set -eu
dir=$1

mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs tmpfs "$dir"
mkdir "$dir/etc" "$dir/units"
cp -a /etc/. "$dir/etc"
rm -rf "$dir/etc/systemd/system" "$dir/etc/sysctl.d" "$dir/etc/fstab"
mkdir "$dir/etc/systemd/system"
# Targets alone: what they would pull in is the machine's own affair.
for unit in basic sysinit multi-user network-online network network-pre sockets timers paths slices shutdown umount final exit; do
	cp "/usr/lib/systemd/system/$unit.target" "$dir/units/"
done
cat >"$dir/units/machine.target" <<EOF
[Unit]
Description=An operator's machine
EOF
mount --bind "$dir/etc" /etc
mount --bind "$dir/units" /usr/lib/systemd/system
for empty in /run /var/lib /var/log /var/backups /usr/local /root /home \
	/usr/lib/systemd/system-generators /usr/lib/sysusers.d /usr/lib/tmpfiles.d; do
	[ -d "$empty" ] && [ ! -L "$empty" ] || continue
	mount -t tmpfs -o mode=0755 tmpfs "$empty"
done
mkdir -p /usr/local/bin
# A control group of its own: the one that it was started in is its root.
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup

container=test exec /lib/systemd/systemd --system --unit=machine.target --log-target=console --show-status=no
