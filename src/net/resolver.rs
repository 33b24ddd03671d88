//! Names to addresses, without those that may not be asked.
//!
//! The check stands here and not before the request: between two look-ups a
//! name may change its address, and what is connected to is what was checked.

use std::net::SocketAddr;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::{http_client::UrlPolicyViolation, ssrf_guard::is_public};

/// The system's resolver, with a guard before it.
pub(crate) struct PublicResolver {
    pub(crate) allow_private_addresses: bool,
}

impl Resolve for PublicResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let all = self.allow_private_addresses;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> =
                found.filter(|found| all || is_public(found.ip())).collect();
            if allowed.is_empty() {
                return Err(UrlPolicyViolation::PrivateAddress(name.as_str().to_owned()).into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}
