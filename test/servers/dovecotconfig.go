// SPDX-License-Identifier: Apache-2.0

package servers

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
)

// mailUser owns the mail when the test runs as root. It is in every Debian.
const mailUser = "mail"

// owner returns who owns the mail: mailUser for root, who Dovecot refuses to
// serve mail as, else whoever runs the test.
func (d *Dovecot) owner() (uid, gid int) {
	d.t.Helper()
	if os.Getuid() != 0 {
		return os.Getuid(), os.Getgid()
	}
	u, err := user.Lookup(mailUser)
	if err != nil {
		d.t.Fatalf("no user to own the mail: %v", err)
	}
	if uid, err = strconv.Atoi(u.Uid); err == nil {
		gid, err = strconv.Atoi(u.Gid)
	}
	if err != nil {
		d.t.Fatal(err)
	}
	return uid, gid
}

func (d *Dovecot) prepareFolders() {
	d.t.Helper()
	uid, gid := d.owner()
	mail := filepath.Join(d.dir, "mail")
	if err := os.Mkdir(mail, 0o700); err != nil {
		d.t.Fatal(err)
	}
	if err := os.Chown(mail, uid, gid); err != nil {
		d.t.Fatal(err)
	}
}

func (d *Dovecot) config() string {
	d.t.Helper()
	uid, gid := d.owner()
	var b strings.Builder
	fmt.Fprintf(&b, `
base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = %[1]s/dovecot.log
auth_verbose = yes
protocols = imap lmtp
listen = 127.0.0.1
ssl = yes
ssl_cert = <%[2]s
ssl_key = <%[3]s
disable_plaintext_auth = no
auth_mechanisms = %[4]s
auth_failure_delay = 0
mail_location = %[5]s:~/%[5]s
first_valid_uid = 1
first_valid_gid = 1
mail_fsync = never
mail_max_userip_connections = %[6]d
# Where inotify has no room left (it is limited per user), IDLE polls.
mailbox_idle_check_interval = 1 secs
mail_plugins = quota
recipient_delimiter = +
imap_idle_notify_interval = 29 min
postmaster_address = postmaster@client.example
`, d.dir, d.settings.certificate.CertFile, d.settings.certificate.KeyFile,
		d.mechanisms(), d.settings.mailFormat, d.settings.connections)
	b.WriteString(d.databases(uid, gid))
	b.WriteString(d.services())
	b.WriteString(`
namespace inbox {
  inbox = yes
`)
	for _, folder := range []string{"Sent", "Drafts", "Trash", "Junk", "Archive"} {
		fmt.Fprintf(&b, "  mailbox %s {\n    auto = subscribe\n    special_use = \\%[1]s\n  }\n", folder)
	}
	fmt.Fprintf(&b, `}
protocol imap {
  mail_plugins = quota imap_quota
}
plugin {
  quota = count:User quota
  quota_vsizes = yes
  quota_rule = *:storage=%s
}
`, d.settings.quota)
	b.WriteString(d.settings.extra)
	return b.String()
}

func (d *Dovecot) mechanisms() string {
	if d.settings.introspection == "" {
		return d.settings.mechanisms
	}
	return strings.TrimSpace(d.settings.mechanisms + " xoauth2 oauthbearer")
}

// databases declares where users, passwords and tokens are.
func (d *Dovecot) databases(uid, gid int) string {
	var b strings.Builder
	if d.settings.introspection != "" {
		path := filepath.Join(d.dir, "oauth2.conf")
		writeFile(d.t, path, fmt.Sprintf(`introspection_mode = get
introspection_url = %s
username_attribute = username
active_attribute = active
active_value = true
`, d.settings.introspection), 0o644)
		fmt.Fprintf(&b, "passdb {\n  driver = oauth2\n  mechanisms = xoauth2 oauthbearer\n  args = %s\n}\n", path)
	}
	fmt.Fprintf(&b, `passdb {
  driver = passwd-file
  mechanisms = plain login
  args = %[1]s/users
}
userdb {
  driver = passwd-file
  args = %[1]s/users
  default_fields = uid=%[2]d gid=%[3]d home=%[1]s/mail/%%u
}
`, d.dir, uid, gid)
	b.WriteString(d.elsewhere(uid, gid))
	return b.String()
}

// services sets ports and sockets. Refused logins are not slowed down, and
// for whoever is not root nothing changes its user or root folder.
func (d *Dovecot) services() string {
	s := fmt.Sprintf(`
service imap-login {
  inet_listener imap {
    port = %d
  }
  inet_listener imaps {
    port = %d
    ssl = yes
  }
}
service lmtp {
  inet_listener lmtp {
    address = 127.0.0.1
    port = %d
  }
}
service auth {
  unix_listener %s {
    mode = 0666
  }
}
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service imap {
  process_limit = 6000
}
`, d.IMAPPort, d.IMAPSPort, d.LMTPPort, d.AuthSocket)
	if os.Getuid() == 0 {
		return s
	}
	me, err := user.Current()
	if err != nil {
		d.t.Fatal(err)
	}
	group, err := user.LookupGroupId(me.Gid)
	if err != nil {
		d.t.Fatal(err)
	}
	return fmt.Sprintf("default_internal_user = %[1]s\ndefault_internal_group = %[2]s\ndefault_login_user = %[1]s\n", me.Username, group.Name) +
		s + `
service imap-login {
  chroot =
}
service anvil {
  chroot =
}
service stats {
  chroot =
}
`
}
