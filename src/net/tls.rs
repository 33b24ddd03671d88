//! TLS of outgoing connections.

/// Installs the process-wide crypto provider of rustls. Calling it again has no effect.
pub fn install_crypto_provider() {
    // An error means that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
