//! Free loopback ports that stay free while a server is down.

use std::{
    net::{Ipv4Addr, TcpListener},
    ops::Range,
};

use anyhow::{Result, bail};

/// Below the range that Linux (32768 and up) and macOS (49152 and up) give to outgoing
/// connections.
///
/// A client that keeps connecting to a closed loopback port in that range will eventually get the
/// same port as its own and connect to itself. The restarted server then finds its port in use.
const RANGE: Range<u16> = 20_000..32_768;

/// With a range this wide, more failures than this mean that loopback itself does not work.
const ATTEMPTS: usize = 200;

/// `N` different free ports of 127.0.0.1.
///
/// Another process can still take one before it is used, so servers try a second time.
pub(super) fn free<const N: usize>() -> Result<[u16; N]> {
    // Kept open until all are found, so that none is found twice.
    let mut held = Vec::with_capacity(N);
    let mut ports = [0; N];
    for _ in 0..ATTEMPTS {
        if held.len() == N {
            break;
        }
        let port = rand::random_range(RANGE);
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            ports[held.len()] = port;
            held.push(listener);
        }
    }
    if held.len() < N {
        bail!("found no free port on 127.0.0.1 between {} and {}", RANGE.start, RANGE.end - 1);
    }
    Ok(ports)
}

/// Whether the end of a server's log says that its port is in use.
pub(super) fn taken_according_to(log: &str) -> bool {
    log.contains("eaddrinuse")
        || log.contains("address already in use")
        || log.contains("Address already in use")
}
