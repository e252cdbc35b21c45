//! Where a job's end may be told: which URLs a client may name, and which addresses they may lead to.
//!
//! A callback makes the server itself send a request, and so reaches what only the server can reach. A URL is
//! checked when it is submitted ([`CallbackRules::check`]); the addresses that its name leads to are checked
//! each time before one of them is connected to ([`CallbackRules::refuses`]).

pub use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use url::{Host, Url};

/// The longest URL that is taken.
const MAX_URL: usize = 2048;

/// What the operator allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallbackRules {
    pub ports: Vec<u16>,
    /// Networks that are reached although they are not public.
    pub networks: Vec<IpNet>,
}

impl Default for CallbackRules {
    fn default() -> Self {
        Self { ports: vec![80, 443], networks: Vec::new() }
    }
}

/// Addresses that nobody on the internet has, or that lead somewhere else than they say.
const REFUSED: &[(&str, &str)] = &[
    ("0.0.0.0/8", "an unspecified address"),
    ("10.0.0.0/8", "a private address"),
    ("100.64.0.0/10", "a shared address of a provider"),
    ("127.0.0.0/8", "a loopback address"),
    ("169.254.0.0/16", "a link-local address"),
    ("172.16.0.0/12", "a private address"),
    ("192.0.0.0/24", "a reserved address"),
    ("192.0.2.0/24", "an address of documentation"),
    ("192.88.99.0/24", "a relay to IPv6"),
    ("192.168.0.0/16", "a private address"),
    ("198.18.0.0/15", "an address of benchmarks"),
    ("198.51.100.0/24", "an address of documentation"),
    ("203.0.113.0/24", "an address of documentation"),
    ("224.0.0.0/4", "a multicast address"),
    ("240.0.0.0/4", "a reserved address"),
    ("::/128", "an unspecified address"),
    ("::1/128", "a loopback address"),
    ("64:ff9b::/96", "a translation to IPv4"),
    ("64:ff9b:1::/48", "a translation to IPv4"),
    ("100::/64", "a discarding address"),
    // Teredo, ORCHID and documentation are in here.
    ("2001::/23", "a reserved address"),
    ("2001:db8::/32", "an address of documentation"),
    ("2002::/16", "a tunnel to IPv4"),
    ("3fff::/20", "an address of documentation"),
    ("5f00::/16", "a segment routing address"),
    ("fc00::/7", "a private address"),
    ("fe80::/10", "a link-local address"),
    ("fec0::/10", "a private address"),
    ("ff00::/8", "a multicast address"),
];

impl CallbackRules {
    /// Reads a URL, or says what is wrong with it.
    pub fn check(&self, text: &str) -> Result<Url, String> {
        if text.len() > MAX_URL {
            return Err(format!("is longer than {MAX_URL} bytes"));
        }
        // The parser would leave some of these out silently.
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err("contains white space or a control character: percent-encode it".to_owned());
        }
        let url = Url::parse(text).map_err(|error| format!("is no URL ({error}): write one as in {EXAMPLE}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("must begin with http:// or https://, as in {EXAMPLE}"));
        }
        let host = url.host().ok_or_else(|| format!("names no host: write one as in {EXAMPLE}"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("carries a user name or a password: put a secret into its path or query instead".to_owned());
        }
        if url.fragment().is_some() {
            return Err("has a fragment (#…), which is never sent: leave it out".to_owned());
        }
        // Both schemes have a port that is known.
        let port = url.port_or_known_default().unwrap_or(0);
        if !self.ports.contains(&port) {
            let ports: Vec<String> = self.ports.iter().map(u16::to_string).collect();
            return Err(format!("has port {port}; this server calls port {} only", ports.join(" or ")));
        }
        let address = match host {
            Host::Domain(_) => None,
            Host::Ipv4(address) => Some(IpAddr::V4(address)),
            Host::Ipv6(address) => Some(IpAddr::V6(address)),
        };
        match address.and_then(|address| self.refuses(address)) {
            None => Ok(url),
            Some(kind) => Err(format!("leads to {kind}, which this server does not call: name a public one")),
        }
    }

    /// What kind of address this is, if it must not be connected to.
    pub fn refuses(&self, address: IpAddr) -> Option<&'static str> {
        let allowed = |address: &IpAddr| self.networks.iter().any(|network| network.contains(address));
        if allowed(&address) {
            // Who allows the translation of a network without IPv4 does not allow what lies behind it.
            let behind = translated(address).map(IpAddr::V4).filter(|behind| !allowed(behind));
            return behind.and_then(refused);
        }
        let judged = embedded(address).map_or(address, IpAddr::V4);
        if judged != address {
            // An IPv4 address in other clothes is judged by what it is, and its clothes do not hide it from
            // the list of the operator either.
            return if allowed(&judged) { None } else { refused(judged) };
        }
        refused(address)
    }
}

const EXAMPLE: &str = "https://example.org/hook";

fn refused(address: IpAddr) -> Option<&'static str> {
    let known = REFUSED.iter().find(|(network, _)| {
        // The table is checked by a test; what cannot be read refuses.
        network.parse::<IpNet>().map_or(true, |network| network.contains(&address))
    });
    match (known, address) {
        (Some((_, kind)), _) => Some(kind),
        // Only this part of IPv6 has been given out.
        (None, IpAddr::V6(address)) if address.segments()[0] & 0xe000 != 0x2000 => Some("a reserved address"),
        (None, _) => None,
    }
}

/// The IPv4 address in an IPv6 one that is mapped (`::ffff:a.b.c.d`), translated (`::ffff:0:a.b.c.d`) or
/// compatible (`::a.b.c.d`).
fn embedded(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return None };
    if address == Ipv6Addr::LOCALHOST || address == Ipv6Addr::UNSPECIFIED {
        return None;
    }
    let [a, b, c, d, e, f, g, h] = address.segments();
    let prefix = matches!((a, b, c, d, e, f), (0, 0, 0, 0, 0, 0 | 0xffff) | (0, 0, 0, 0, 0xffff, 0));
    let ([g1, g2], [h1, h2]) = (g.to_be_bytes(), h.to_be_bytes());
    prefix.then(|| Ipv4Addr::new(g1, g2, h1, h2))
}

/// The IPv4 address that NAT64 makes of an IPv6 one (`64:ff9b::a.b.c.d`).
fn translated(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return None };
    let [a, b, c, d, e, f, g, h] = address.segments();
    let ([g1, g2], [h1, h2]) = (g.to_be_bytes(), h.to_be_bytes());
    matches!((a, b, c, d, e, f), (0x64, 0xff9b, 0, 0, 0, 0)).then(|| Ipv4Addr::new(g1, g2, h1, h2))
}

/// What of a URL is called: calls of the same are counted together. A URL that cannot be read is its own.
pub fn called(url: &str) -> String {
    let Ok(parsed) = Url::parse(url) else { return url.to_owned() };
    match (parsed.host_str(), parsed.port_or_known_default()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(networks: &[&str]) -> CallbackRules {
        let networks = networks.iter().map(|network| network.parse().unwrap()).collect();
        CallbackRules { networks, ..CallbackRules::default() }
    }

    #[test]
    fn every_network_of_the_table_can_be_read() {
        for (network, kind) in REFUSED {
            let parsed: IpNet = network.parse().unwrap();
            assert_eq!(parsed.trunc(), parsed, "{network}: {kind}");
        }
    }

    #[test]
    fn only_public_addresses_are_called() {
        let rules = rules(&[]);
        let public = [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.1",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450::1",
            "2400::1",
            "::ffff:8.8.8.8",
            "::ffff:0:8.8.8.8",
        ];
        for address in public {
            assert_eq!(rules.refuses(address.parse().unwrap()), None, "{address}");
        }
        let refused = [
            ("0.0.0.0", "unspecified"),
            ("0.1.2.3", "unspecified"),
            ("10.0.0.1", "private"),
            ("10.255.255.255", "private"),
            ("100.64.0.0", "shared"),
            ("100.127.255.255", "shared"),
            ("127.0.0.1", "loopback"),
            ("127.255.255.254", "loopback"),
            ("169.254.169.254", "link-local"),
            ("172.16.0.1", "private"),
            ("172.31.255.255", "private"),
            ("192.0.0.1", "reserved"),
            ("192.0.0.170", "reserved"),
            ("192.0.2.1", "documentation"),
            ("192.168.1.1", "private"),
            ("198.18.0.1", "benchmarks"),
            ("198.19.255.255", "benchmarks"),
            ("198.51.100.1", "documentation"),
            ("203.0.113.9", "documentation"),
            ("224.0.0.1", "multicast"),
            ("239.255.255.255", "multicast"),
            ("240.0.0.1", "reserved"),
            ("255.255.255.255", "reserved"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("::127.0.0.1", "loopback"),
            ("::ffff:127.0.0.1", "loopback"),
            ("::ffff:169.254.169.254", "link-local"),
            ("::ffff:10.0.0.1", "private"),
            ("::ffff:0:10.0.0.1", "private"),
            ("::a9fe:a9fe", "link-local"),
            ("64:ff9b::8.8.8.8", "translation"),
            ("64:ff9b::169.254.169.254", "translation"),
            ("64:ff9b:1::1", "translation"),
            ("100::1", "discarding"),
            ("2001::1", "reserved"),
            ("2001:db8::1", "documentation"),
            ("2002:7f00:1::", "tunnel"),
            ("3fff::1", "documentation"),
            ("4000::1", "reserved"),
            ("5f00::1", "segment"),
            ("fc00::1", "private"),
            ("fd00:ec2::254", "private"),
            ("fe80::1", "link-local"),
            ("febf::1", "link-local"),
            ("fec0::1", "private"),
            ("ff02::1", "multicast"),
        ];
        for (address, kind) in refused {
            let judged = rules.refuses(address.parse().unwrap());
            assert!(judged.is_some_and(|judged| judged.contains(kind)), "{address}: {judged:?}");
        }
    }

    #[test]
    fn the_operator_may_allow_networks() {
        let rules = rules(&["127.0.0.0/8", "fd00::/8"]);
        for address in ["127.0.0.1", "::ffff:127.0.0.1", "fd00::1"] {
            assert_eq!(rules.refuses(address.parse().unwrap()), None, "{address}");
        }
        for address in ["10.0.0.1", "::ffff:10.0.0.1", "fc00::1", "::1"] {
            assert!(rules.refuses(address.parse().unwrap()).is_some(), "{address}");
        }
    }

    #[test]
    fn an_allowed_translation_leads_to_public_addresses_only() {
        let rules = rules(&["64:ff9b::/96", "10.1.0.0/16"]);
        for (address, allowed) in [("8.8.8.8", true), ("10.1.2.3", true), ("10.2.0.1", false), ("127.0.0.1", false)] {
            let translated = format!("64:ff9b::{address}").parse().unwrap();
            assert_eq!(rules.refuses(translated).is_none(), allowed, "{address}");
        }
    }

    #[test]
    fn each_mistake_in_a_url_is_named() {
        let long = format!("https://example.org/{}", "x".repeat(MAX_URL));
        let table = [
            ("", "is no URL"),
            ("example.org/hook", "is no URL"),
            ("ftp://example.org/", "must begin with http"),
            ("file:///etc/passwd", "must begin with http"),
            ("https://", "is no URL"),
            ("https://u@example.org/", "carries a user name"),
            ("https://u:p@example.org/", "carries a user name"),
            ("https://example.org/#x", "has a fragment"),
            ("https://example.org:22/", "has port 22; this server calls port 80 or 443 only"),
            ("https://exam\nple.org/", "contains white space"),
            ("https://example.org/a b", "contains white space"),
            ("http://127.0.0.1/", "leads to a loopback address"),
            ("http://0x7f.1/", "leads to a loopback address"),
            ("http://2130706433/", "leads to a loopback address"),
            ("http://[::1]/", "leads to a loopback address"),
            ("http://[::ffff:10.1.2.3]/", "leads to a private address"),
            ("http://169.254.169.254/latest", "leads to a link-local address"),
            (long.as_str(), "is longer than 2048 bytes"),
        ];
        for (url, expected) in table {
            let message = rules(&[]).check(url).unwrap_err();
            assert!(message.starts_with(expected), "{url}: {message}");
        }
        for url in ["https://example.org", "http://example.org:80/a?b=c", "https://ü.example/%22", "http://8.8.8.8/"] {
            assert!(rules(&[]).check(url).is_ok(), "{url}");
        }
    }

    #[test]
    fn what_is_called_is_host_and_port() {
        assert_eq!(called("https://Example.org/a"), "example.org:443");
        assert_eq!(called("http://[::1]:8080/"), "[::1]:8080");
        assert_eq!(called("nonsense"), "nonsense");
    }
}
