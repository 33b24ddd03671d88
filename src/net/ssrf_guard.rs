//! Keeps outgoing requests out of private networks (server-side request forgery).
//!
//! URLs contain values of events. Requests go to configured hosts only, and a host name that
//! resolves to a private address is refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};

use super::http_client::MAX_REDIRECTS;

/// Why a URL is not requested.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlPolicyViolation {
    /// The scheme is not HTTPS.
    #[error("only https is allowed")]
    Scheme,
    /// The host is not configured.
    #[error("the host {0} is not one of the allowed hosts")]
    HostNotAllowed(String),
    /// The host has no public address.
    #[error("{0} is at a private address, which is not allowed")]
    PrivateAddress(String),
    /// A redirect leads to another scheme, host or port.
    #[error("the response redirects to another origin, {0}")]
    CrossOriginRedirect(String),
    /// There are too many redirects.
    #[error("there are more than {MAX_REDIRECTS} redirects")]
    TooManyRedirects,
}

/// Checks a URL before its host is resolved.
pub(super) fn check_url(
    url: &Url,
    allowed_hosts: &[String],
    allow_private_addresses: bool,
) -> Result<(), UrlPolicyViolation> {
    let host = url.host_str().unwrap_or_default();
    let literal = literal_address(url);
    let is_allowed_loopback =
        allow_private_addresses && literal.is_some_and(|address| address.is_loopback());
    match url.scheme() {
        "https" => {}
        // For tests and development.
        "http" if is_allowed_loopback => {}
        _ => return Err(UrlPolicyViolation::Scheme),
    }
    if !allowed_hosts.iter().any(|allowed| allowed == host) {
        return Err(UrlPolicyViolation::HostNotAllowed(host.to_owned()));
    }
    if !allow_private_addresses && literal.is_some_and(|address| !is_public(address)) {
        return Err(UrlPolicyViolation::PrivateAddress(host.to_owned()));
    }
    Ok(())
}

/// The system's resolver without private addresses.
///
/// The check is part of the resolver because a name may resolve to another address the next time:
/// the client connects to the addresses that were checked.
pub(super) struct PublicResolver {
    pub(super) allow_private_addresses: bool,
}

impl Resolve for PublicResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private_addresses = self.allow_private_addresses;
        Box::pin(async move {
            let addresses: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0))
                .await?
                .filter(|address| allow_private_addresses || is_public(address.ip()))
                .collect();
            if addresses.is_empty() {
                return Err(UrlPolicyViolation::PrivateAddress(name.as_str().to_owned()).into());
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// The address in a URL whose host is not a name. The URL parser has normalized it: `127.1` is
/// `127.0.0.1`.
fn literal_address(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Whether an address belongs to the public internet.
///
/// The IANA special-purpose registries (RFC 6890) list the others, except where they lead to the
/// public internet. An IPv6 address that embeds an IPv4 address is as public as that one.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !match a {
        // This network, private, loopback, multicast, reserved, broadcast.
        0 | 10 | 127 | 224.. => true,
        // Shared by carriers (RFC 6598).
        100 => (64..=127).contains(&b),
        // Link-local.
        169 => b == 254,
        // Private.
        172 => (16..=31).contains(&b),
        // Private, protocol assignments, documentation, 6to4 relays.
        192 => matches!((b, c), (168, _) | (0, 0 | 2) | (88, 99)),
        // Benchmarks (RFC 2544), documentation.
        198 => matches!((b, c), (18 | 19, _) | (51, 100)),
        203 => (b, c) == (0, 113),
        _ => false,
    }
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        // An IPv4 address behind a translator (RFC 6052).
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            let [[a, b], [c, d]] = [high.to_be_bytes(), low.to_be_bytes()];
            is_public_v4(Ipv4Addr::new(a, b, c, d))
        }
        // Protocol assignments with Teredo, documentation, 6to4.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x2002, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // Global unicast. The rest is loopback, unspecified, mapped IPv4, unique local,
        // link-local, multicast, or unassigned.
        [0x2000..=0x3fff, ..] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
