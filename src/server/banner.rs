//! What is printed once the server listens: where, how much, and how to try it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Running;
use crate::options::table::BUILT_IN_SECRET;
use crate::options::{AppOptions, Options};
use crate::ring::probe::Limits;

pub fn banner(running: &Running, limits: &Limits) -> String {
    let options = running.options();
    let app = options.apps.iter().find(|app| app.enabled);
    let here = reachable(running.address());
    let kernel = rustix::system::uname();
    let limit = |limit: Option<u64>| limit.map_or("unlimited".to_string(), |n| n.to_string());
    let mut text = format!(
        "outpour listens on {address}\n{plan}\nLinux {kernel}; open files {files}, locked bytes \
         {locked}, listen backlog {backlog}\n",
        address = running.address(),
        plan = running.plan(),
        kernel = kernel.release().to_string_lossy(),
        files = limit(limits.open_files_soft),
        locked = limit(limits.locked_bytes_soft),
        backlog = limit(limits.listen_backlog_max),
    );
    if let Some(app) = app {
        let snippet = snippet(options, app, here);
        let command = command(options, app, here);
        text += &format!("\nSubscribe, in a page:\n\n{snippet}\nPublish, in bash:\n\n{command}\n");
    }
    text
}

/// An address that a client on this machine can connect to.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

fn snippet(options: &Options, app: &AppOptions, here: SocketAddr) -> String {
    let host = match here.ip() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    let path = match options.path_prefix.as_str() {
        "" => String::new(),
        prefix => format!("wsPath: '{prefix}', "),
    };
    format!(
        "<script src=\"https://js.pusher.com/8.2.0/pusher.min.js\"></script>\n\
         <script>\n  \
           const pusher = new Pusher('{key}', {{ wsHost: '{host}', wsPort: {port}, {path}\
         forceTLS: false, enabledTransports: ['ws'], cluster: '' }});\n  \
           pusher.subscribe('room').bind('greeting', data => console.log(data));\n\
         </script>\n",
        key = app.key,
        port = here.port(),
    )
}

/// Signs with openssl. Ids and keys are made of characters that URLs leave alone.
fn command(options: &Options, app: &AppOptions, here: SocketAddr) -> String {
    let secret = match app.secret.as_bytes() == BUILT_IN_SECRET.as_bytes() {
        true => BUILT_IN_SECRET,
        false => "$OUTPOUR_APP_SECRET",
    };
    let AppOptions { id, key, .. } = app;
    let prefix = &options.path_prefix;
    format!(
        r#"body='{{"name":"greeting","channel":"room","data":"hello"}}'
query="auth_key={key}&auth_timestamp=$(date +%s)&auth_version=1.0&body_md5=$(printf %s "$body" | openssl dgst -md5 -r | cut -d' ' -f1)"
signature=$(printf 'POST\n/apps/{id}/events\n%s' "$query" | openssl dgst -sha256 -hmac "{secret}" -r | cut -d' ' -f1)
curl -H 'Content-Type: application/json' -d "$body" "http://{here}{prefix}/apps/{id}/events?$query&auth_signature=$signature"
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::signature::Signer;
    use std::process::Command;

    /// With a `curl` that prints its last argument.
    #[test]
    fn the_command_signs_as_the_server_checks() {
        let options = Options::default();
        let pasted = command(&options, &options.apps[0], options.address);
        let script = format!("curl() {{ printf %s \"${{@: -1}}\"; }}\n{pasted}");
        let output = Command::new("bash").args(["-c", &script]).output();
        let url = String::from_utf8(output.expect("bash runs").stdout).expect("a URL is text");
        let (url, signature) = url.split_once("&auth_signature=").expect("it is signed");
        let (path, query) = url.split_once('?').expect("it has a query");
        assert_eq!(path, "http://127.0.0.1:6001/apps/1001/events");
        let signer = Signer::new(BUILT_IN_SECRET.as_bytes());
        let parts: [&[u8]; 2] = [b"POST\n/apps/1001/events\n", query.as_bytes()];
        assert!(signer.verify_hex(&parts, signature.as_bytes()), "{query}");
        let body = r#"{"name":"greeting","channel":"room","data":"hello"}"#;
        let digest = <md5::Md5 as md5::Digest>::digest(body);
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(query.ends_with(&format!("body_md5={hex}")));
    }
}
