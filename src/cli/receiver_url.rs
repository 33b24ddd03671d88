//! The address of the receiver that a command uses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::ensure;
use reqwest::Url;

/// The receiver's base address: `--url`, or the address where this configuration
/// listens on this machine.
///
/// # Errors
/// The address is not HTTP, or the port is unknown.
pub(super) fn base_url(explicit: Option<&Url>, listen: SocketAddr) -> anyhow::Result<Url> {
    let url = match explicit {
        Some(url) => url.clone(),
        None => local_url(listen)?,
    };
    ensure!(matches!(url.scheme(), "http" | "https"), "--url must be an http or https address");
    Ok(url)
}

/// The base address with these path segments appended.
pub(super) fn append_path(base: &Url, parts: &[&str]) -> Url {
    let mut url = base.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(parts);
    }
    url
}

/// The address where this configuration listens on this machine.
fn local_url(listen: SocketAddr) -> anyhow::Result<Url> {
    ensure!(listen.port() != 0, "receiver.listen uses any free port: give the address with --url");
    let ip = match listen.ip() {
        // An unspecified address cannot be connected to.
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    Ok(Url::parse(&format!("http://{}", SocketAddr::new(ip, listen.port())))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_url_is_explicit_or_local() {
        let explicit = Url::parse("https://inbox.example/tallyhook/").unwrap();
        for (explicit, listen, expected) in [
            (None, "0.0.0.0:8080", "http://127.0.0.1:8080/imports/vendors"),
            (None, "[::]:8080", "http://[::1]:8080/imports/vendors"),
            (None, "10.0.0.7:81", "http://10.0.0.7:81/imports/vendors"),
            (Some(&explicit), "0.0.0.0:0", "https://inbox.example/tallyhook/imports/vendors"),
        ] {
            let base = base_url(explicit, listen.parse().unwrap()).unwrap();
            assert_eq!(append_path(&base, &["imports", "vendors"]).as_str(), expected);
        }
    }

    #[test]
    fn base_url_unusable_address_fails() {
        assert!(base_url(None, "127.0.0.1:0".parse().unwrap()).is_err());
        let file = Url::parse("file:///etc/hosts").unwrap();
        assert!(base_url(Some(&file), "127.0.0.1:8080".parse().unwrap()).is_err());
    }
}
