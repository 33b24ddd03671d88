//! Where the receiver is that a command talks to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::ensure;
use reqwest::Url;

/// The receiver's base address: the one told, else that of the receiver that
/// this configuration starts on this machine.
///
/// # Errors
/// It is not one of HTTP, or nobody knows the port.
pub(super) fn base_url(told: Option<&Url>, listen: SocketAddr) -> anyhow::Result<Url> {
    let url = match told {
        Some(url) => url.clone(),
        None => local_url(listen)?,
    };
    ensure!(matches!(url.scheme(), "http" | "https"), "--url must be an http or https address");
    Ok(url)
}

/// The address of something beneath the base.
pub(super) fn append_path(base: &Url, parts: &[&str]) -> Url {
    let mut url = base.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(parts);
    }
    url
}

/// The receiver that this configuration starts on this machine.
fn local_url(listen: SocketAddr) -> anyhow::Result<Url> {
    ensure!(
        listen.port() != 0,
        "receiver.listen takes any free port: tell with --url which one it was"
    );
    let ip = match listen.ip() {
        // Listening everywhere is no address to send to.
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
    fn the_address_is_the_told_one_or_this_machine() {
        let told = Url::parse("https://inbox.example/tallyhook/").unwrap();
        for (told, listen, expected) in [
            (None, "0.0.0.0:8080", "http://127.0.0.1:8080/imports/vendors"),
            (None, "[::]:8080", "http://[::1]:8080/imports/vendors"),
            (None, "10.0.0.7:81", "http://10.0.0.7:81/imports/vendors"),
            (Some(&told), "0.0.0.0:0", "https://inbox.example/tallyhook/imports/vendors"),
        ] {
            let base = base_url(told, listen.parse().unwrap()).unwrap();
            assert_eq!(append_path(&base, &["imports", "vendors"]).as_str(), expected);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        assert!(base_url(None, "127.0.0.1:0".parse().unwrap()).is_err());
        let file = Url::parse("file:///etc/hosts").unwrap();
        assert!(base_url(Some(&file), "127.0.0.1:8080".parse().unwrap()).is_err());
    }
}
