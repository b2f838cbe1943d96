// SPDX-License-Identifier: Apache-2.0

package servers

import (
	"fmt"
	"path/filepath"
)

// writeConfig writes what the daemons read, imapd.conf, and what the master
// starts, cyrus.conf: IMAP, LMTP, and the daemon that wakes those who idle.
func (c *Cyrus) writeConfig() {
	c.t.Helper()
	name, _, _ := c.owner()
	conf := filepath.Join(c.dir, "imapd.conf")
	writeFile(c.t, conf, fmt.Sprintf(`cyrus_user: %[2]s
configdirectory: %[1]s/state
defaultpartition: default
partition-default: %[1]s/mail
proc_path: %[1]s/run/proc
mboxname_lockpath: %[1]s/run/lock
idlesocket: %[1]s/run/idle
notifysocket: %[1]s/run/notify
lmtpsocket: %[1]s/run/lmtp
temp_path: %[1]s/run
master_bind_errors_fatal: yes
servername: imap.client.example
sasl_mech_list: PLAIN LOGIN
sasl_pwcheck_method: saslauthd
sasl_saslauthd_path: %[1]s/passwords
allowplaintext: yes
failedloginpause: 0
virtdomains: userid
altnamespace: yes
unixhierarchysep: yes
autocreate_quota: 1048576
autocreate_inbox_folders: Sent|Drafts|Trash|Junk|Archive
autocreate_subscribe_folders: Sent|Drafts|Trash|Junk|Archive
xlist-sent: Sent
xlist-drafts: Drafts
xlist-trash: Trash
xlist-junk: Junk
xlist-archive: Archive
conversations: yes
imapidlepoll: 1
tls_server_cert: %[1]s/cert.pem
tls_server_key: %[1]s/key.pem
tls_session_timeout: 0
skiplist_unsafe: yes
%[3]s`, c.dir, name, c.settings.extra), 0o644)
	writeFile(c.t, filepath.Join(c.dir, "cyrus.conf"), fmt.Sprintf(`START {
  recover cmd="ctl_cyrusdb -C %[1]s -r"
}
SERVICES {
  imap cmd="%[2]s -C %[1]s" listen="127.0.0.1:%[4]d"
  imaps cmd="%[2]s -C %[1]s -s" listen="127.0.0.1:%[5]d"
  lmtp cmd="lmtpd -C %[1]s -a" listen="127.0.0.1:%[6]d"
}
EVENTS {
}
DAEMON {
  idled cmd="%[3]s -C %[1]s"
}
`, conf, cyrusDaemon, cyrusIdled, c.IMAPPort, c.IMAPSPort, c.LMTPPort), 0o644)
}
