use super::*;

#[test]
fn ssrf_guard_addresses_match_iana_registries() {
    for (address, public) in [
        ("8.8.8.8", true),
        ("1.1.1.1", true),
        ("100.63.255.255", true),
        ("100.128.0.1", true),
        ("172.15.0.1", true),
        ("172.32.0.1", true),
        ("192.0.1.1", true),
        ("198.20.0.1", true),
        ("223.255.255.255", true),
        ("0.0.0.0", false),
        ("0.1.2.3", false),
        ("10.0.0.1", false),
        ("100.64.0.1", false),
        ("100.127.255.255", false),
        ("127.0.0.1", false),
        ("127.255.255.255", false),
        ("169.254.169.254", false),
        ("172.16.0.1", false),
        ("172.31.255.255", false),
        ("192.0.0.1", false),
        ("192.0.2.1", false),
        ("192.88.99.1", false),
        ("192.168.1.1", false),
        ("198.18.0.1", false),
        ("198.19.255.255", false),
        ("198.51.100.1", false),
        ("203.0.113.1", false),
        ("224.0.0.1", false),
        ("239.1.1.1", false),
        ("240.0.0.1", false),
        ("255.255.255.255", false),
        ("2606:4700:4700::1111", true),
        ("2a00:1450:4001:80b::200e", true),
        ("64:ff9b::808:808", true),
        ("::", false),
        ("::1", false),
        ("::ffff:8.8.8.8", false),
        ("::ffff:10.0.0.1", false),
        ("::127.0.0.1", false),
        ("64:ff9b::a00:1", false),
        ("64:ff9b:1::1", false),
        ("100::1", false),
        ("2001::1", false),
        ("2001:1ff::1", false),
        ("2001:200::1", true),
        ("2001:db8::1", false),
        ("2002:7f00:1::1", false),
        ("3fff:1::1", false),
        ("fc00::1", false),
        ("fd12:3456::1", false),
        ("fe80::1", false),
        ("fec0::1", false),
        ("ff02::1", false),
    ] {
        assert_eq!(is_public(address.parse().unwrap()), public, "{address}");
    }
}

#[test]
fn addresses_are_known_however_they_are_written() {
    for (url, address) in [
        ("https://127.0.0.1/", Some("127.0.0.1")),
        ("https://127.1/", Some("127.0.0.1")),
        ("https://0x7f000001/", Some("127.0.0.1")),
        ("https://2130706433/", Some("127.0.0.1")),
        ("https://0177.0.0.1/", Some("127.0.0.1")),
        ("https://[::1]:8443/", Some("::1")),
        ("https://[::ffff:10.0.0.1]/", Some("::ffff:10.0.0.1")),
        ("https://localhost/", None),
        ("https://127.0.0.1.example.com/", None),
    ] {
        let expected = address.map(|address| address.parse().unwrap());
        assert_eq!(literal_address(&url.parse().unwrap()), expected, "{url}");
    }
}
