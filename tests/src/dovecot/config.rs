//! The text of a private Dovecot's configuration.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::Result;

use super::{API_KEY, Format, Options, Ports, is_root};
use crate::front_door::filled;

pub(super) fn text(options: &Options, dir: &Path, address: Ipv4Addr, ports: Ports) -> Result<String> {
    let dir = dir.display();
    let location = match options.format {
        Format::Mdbox => "mdbox:~/mdbox",
        Format::Sdbox => "sdbox:~/sdbox",
        Format::Maildir => "maildir:~/Maildir",
    };
    let mut plugins = options.mail_plugins.clone();
    if options.read_only_master {
        plugins.push("acl".to_owned());
    }
    let Ports { imap, imaps, lmtp, doveadm } = ports;
    let mut text = format!(
        "base_dir = {dir}/run
state_dir = {dir}/state
instance_name = {name}
log_path = {dir}/dovecot.log
protocols = imap lmtp
listen = {address}
disable_plaintext_auth = no
auth_mechanisms = plain login
auth_master_user_separator = *
auth_failure_delay = 0
mail_location = {location}
mail_fsync = {fsync}
mail_plugins = {plugins}
mail_max_userip_connections = 0
default_process_limit = 3000
default_client_limit = 10000
doveadm_api_key = {API_KEY}
namespace inbox {{
  inbox = yes
  separator = /
  mailbox Drafts {{
    special_use = \\Drafts
  }}
  mailbox Sent {{
    special_use = \\Sent
  }}
  mailbox Trash {{
    special_use = \\Trash
  }}
  mailbox Junk {{
    special_use = \\Junk
  }}
  mailbox Archive {{
    special_use = \\Archive
  }}
}}
passdb {{
  driver = passwd-file
  args = {dir}/masters
  master = yes
  result_success = continue
}}
{user_passdb}
userdb {{
  driver = passwd-file
  args = {dir}/users
}}
service imap-login {{
  service_count = 0
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = {imaps}
    ssl = yes
  }}
}}
service imap {{
  process_limit = 3000
  client_limit = {client_limit}
  service_count = {service_count}
}}
service lmtp {{
  inet_listener lmtp {{
    port = {lmtp}
  }}
}}
service doveadm {{
  service_count = {doveadm_uses}
  process_min_avail = {warm_doveadm}
  inet_listener http {{
    port = {doveadm}
  }}
}}
protocol imap {{
  mail_plugins = $mail_plugins {imap_plugins}
}}
",
        name = options.name,
        user_passdb = user_passdb(options, &dir.to_string())?,
        fsync = options.mail_fsync,
        plugins = plugins.join(" "),
        imap_plugins = options.imap_plugins.join(" "),
        // Kept alive for the management interface; Dovecot's replicator wants a process for each call.
        doveadm_uses = u8::from(!options.managed),
        warm_doveadm = u8::from(options.managed),
        client_limit = options.imap_client_limit,
        service_count = options.imap_service_count,
    );
    if options.tls {
        text += &format!("ssl = yes\nssl_cert = <{dir}/tls/server.pem\nssl_key = <{dir}/tls/server.key\n");
    } else {
        text += "ssl = no\n";
    }
    if options.read_only_master {
        text += &format!("plugin {{\n  acl = vfile:{dir}/acl\n}}\n");
    }
    if let Some(capability) = &options.capability {
        text += &format!("imap_capability = {capability}\n");
    }
    if !is_root() {
        text += &as_ordinary_user();
    }
    Ok(text + &options.extra)
}

/// Who may log in, and from where. A master's log-in was taken before; it only needs the user to be there.
fn user_passdb(options: &Options, dir: &str) -> Result<String> {
    let lease = match options.lease {
        None => String::new(),
        Some(_) => filled("primary-lease.conf", &[("CONFIG_DIR", dir.to_owned())])?,
    };
    let users = match options.users_only_from {
        None => format!("passdb {{\n  driver = passwd-file\n  args = {dir}/users\n}}"),
        Some(address) => filled(
            "primary-users.conf",
            &[
                ("DRIVER", "passwd-file".to_owned()),
                ("ARGS", format!("{dir}/users")),
                ("FRONT_DOORS", format!("{address}/32")),
            ],
        )?,
    };
    Ok(lease + &users)
}

/// Without root there is one user for everything, and no chroot.
pub(super) fn as_ordinary_user() -> String {
    let id = |flag| {
        let output = std::process::Command::new("id").arg(flag).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    };
    let (user, group) = (id("-un"), id("-gn"));
    let mut text =
        format!("default_internal_user = {user}\ndefault_internal_group = {group}\ndefault_login_user = {user}\n");
    for service in ["anvil", "imap-login", "imap-urlauth-login", "submission-login", "stats"] {
        text += &format!("service {service} {{\n  chroot =\n}}\n");
    }
    text
}
