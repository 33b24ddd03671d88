//! TLS for whoever speaks HTTP as a client.

/// TLS needs a provider for the whole process; whoever comes first installs it.
pub fn install_crypto_provider() {
    // Err: it is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
