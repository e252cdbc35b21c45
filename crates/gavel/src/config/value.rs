//! How the texts of a configuration become values: one trait, one impl for each kind of value.

use gavel_api::callbacks::Secret;
use gavel_core::callback::IpNet;
use gavel_core::units::{Bytes, parse_duration};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A kind of value. Every value is a text first, whichever of the four sources it comes from.
pub trait Value: Sized {
    const KIND: Kind;
    fn parse(text: &str) -> Result<Self, String>;
}

/// What a value looks like, for documentation and for writing it back as TOML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Address,
    Size,
    Duration,
    Path,
    Text,
    Url,
    Switch,
    Number,
    Factor,
    List,
    Numbers,
    /// A list that is never shown.
    Secrets,
    OneOf(&'static [&'static str]),
}

impl Kind {
    pub fn describe(self) -> String {
        match self {
            Self::Address => "address:port".to_owned(),
            Self::Size => "size, as in \"64m\"".to_owned(),
            Self::Duration => "duration, as in \"30s\"".to_owned(),
            Self::Path => "path".to_owned(),
            Self::Text => "text".to_owned(),
            Self::Url => "URL".to_owned(),
            Self::Switch => "true or false".to_owned(),
            Self::Number => "whole number".to_owned(),
            Self::Factor => "number".to_owned(),
            Self::List => "list of texts".to_owned(),
            Self::Numbers => "list of whole numbers".to_owned(),
            Self::Secrets => "list of texts, kept secret".to_owned(),
            Self::OneOf(choices) => choices.join(", "),
        }
    }

    /// The value as TOML writes it, so that `gavel config` prints a file that can be used.
    pub fn to_toml(self, text: &str) -> String {
        match self {
            Self::Switch | Self::Number | Self::Factor => text.to_owned(),
            Self::Numbers => format!("[{}]", list(text).join(", ")),
            Self::List | Self::Secrets => {
                let items: Vec<String> = list(text).iter().map(|item| quote(item)).collect();
                format!("[{}]", items.join(", "))
            }
            _ => quote(text),
        }
    }
}

fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

/// A number with its range: the range is part of the type, so that no zero slips through.
macro_rules! numbers {
    ($($type:ty),*) => { $(
        impl Value for $type {
            const KIND: Kind = Kind::Number;
            fn parse(text: &str) -> Result<Self, String> {
                text.replace('_', "").parse().map_err(|_| {
                    format!("write a whole number between {} and {}", <$type>::MIN, <$type>::MAX)
                })
            }
        }
    )* };
}
numbers!(u32, u64, usize, std::num::NonZeroU32, std::num::NonZeroU64, std::num::NonZeroUsize);

impl Value for SocketAddr {
    const KIND: Kind = Kind::Address;
    fn parse(text: &str) -> Result<Self, String> {
        // Only literal addresses: a name may resolve to something that is reachable from outside.
        let text = text.strip_prefix("localhost:").map_or(text.to_owned(), |port| format!("127.0.0.1:{port}"));
        text.parse().map_err(|_| "write an IP address and a port, as in \"127.0.0.1:2358\"".to_owned())
    }
}

impl Value for Bytes {
    const KIND: Kind = Kind::Size;
    fn parse(text: &str) -> Result<Self, String> {
        Bytes::parse(text)
    }
}

impl Value for Duration {
    const KIND: Kind = Kind::Duration;
    fn parse(text: &str) -> Result<Self, String> {
        parse_duration(text)
    }
}

impl Value for bool {
    const KIND: Kind = Kind::Switch;
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err("write true or false".to_owned()),
        }
    }
}

impl Value for PathBuf {
    const KIND: Kind = Kind::Path;
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("write a path; it cannot be empty".to_owned()) } else { Ok(Self::from(text)) }
    }
}

impl Value for String {
    const KIND: Kind = Kind::Text;
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
}

impl Value for Vec<String> {
    const KIND: Kind = Kind::List;
    fn parse(text: &str) -> Result<Self, String> {
        Ok(list(text))
    }
}

impl Value for Vec<u16> {
    const KIND: Kind = Kind::Numbers;
    fn parse(text: &str) -> Result<Self, String> {
        let port = |item: &String| item.parse().ok().filter(|port| *port > 0);
        let ports: Option<Self> = list(text).iter().map(port).collect();
        ports.ok_or_else(|| "write ports between 1 and 65535, as in [80, 443]".to_owned())
    }
}

impl Value for Vec<IpNet> {
    const KIND: Kind = Kind::List;
    fn parse(text: &str) -> Result<Self, String> {
        let network = |item: &String| match item.parse::<IpNet>() {
            Ok(network) if network.trunc() == network => Ok(network),
            Ok(network) => Err(format!("{item} has bits beyond its length: write {}", network.trunc())),
            Err(_) => Err(format!("{item:?} is no network: write one as in \"10.0.0.0/8\" or \"fd00::/8\"")),
        };
        list(text).iter().map(network).collect()
    }
}

impl Value for Vec<Secret> {
    const KIND: Kind = Kind::Secrets;
    fn parse(text: &str) -> Result<Self, String> {
        list(text).iter().map(|item| Secret::parse(item)).collect()
    }
}

/// An empty text is the same as leaving the key out.
impl<T: Value> Value for Option<T> {
    const KIND: Kind = T::KIND;
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(None) } else { T::parse(text).map(Some) }
    }
}

/// A URL as far as the configuration needs it: kept as text, printed without its password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url(pub String);

impl Value for Url {
    const KIND: Kind = Kind::Url;
    fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some((scheme, rest)) if !scheme.is_empty() && !rest.is_empty() => Ok(Self(text.to_owned())),
            _ => Err("write a URL with its scheme, as in \"sqlite:gavel.db\"".to_owned()),
        }
    }
}

/// Hides the user and password part of every URL in a text.
pub fn without_secrets(text: &str) -> String {
    let hide = |url: &str| match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}://****{}", &url[..scheme], &url[at..]),
        _ => url.to_owned(),
    };
    text.split(',').map(hide).collect::<Vec<_>>().join(",")
}

/// What may be shown of a value: nothing of a secret, and no password.
pub fn shown(kind: Kind, text: &str) -> String {
    match kind {
        Kind::Secrets if !text.is_empty() => "****".to_owned(),
        _ => without_secrets(text),
    }
}

/// A number of CPUs; fractions are allowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cpus(pub f64);

impl Value for Cpus {
    const KIND: Kind = Kind::Factor;
    fn parse(text: &str) -> Result<Self, String> {
        match text.parse::<f64>() {
            Ok(n) if n.is_finite() && n > 0.0 && n <= 1024.0 => Ok(Self(n)),
            _ => Err("write a number of CPUs above 0, as in 1 or 0.5".to_owned()),
        }
    }
}

/// A closed list of words that is a type of its own.
macro_rules! words {
    ($(#[$doc:meta])* $type:ident { $($variant:ident = $word:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $type { $($variant),* }

        impl Value for $type {
            const KIND: Kind = Kind::OneOf(&[$($word),*]);
            fn parse(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)*
                    _ => Err(format!("use one of {}", [$($word),*].join(", "))),
                }
            }
        }
    };
}

words! {
    /// Which isolation runs the jobs.
    BackendChoice { Auto = "auto", Native = "native", Docker = "docker" }
}

/// Secrets of clients: long enough that guessing takes for ever.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(pub Vec<String>);

impl Value for Secrets {
    const KIND: Kind = Kind::Secrets;
    fn parse(text: &str) -> Result<Self, String> {
        let secrets = list(text);
        let least = gavel_api::auth::MIN_STATIC;
        let fits = |secret: &String| secret.len() >= least && secret.bytes().all(|byte| byte.is_ascii_graphic());
        match secrets.iter().all(fits) {
            true => Ok(Self(secrets)),
            false => Err(format!("write tokens of {least} visible characters or more, as from `openssl rand -hex 24`")),
        }
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

words! {
    /// When the API asks for tokens.
    TokensRequired { Auto = "auto", Always = "true", Never = "false" }
}

words! {
    /// Who may read the metrics.
    MetricsAccess { Admin = "admin", Open = "open" }
}

words! {
    /// What becomes of a container after a command.
    PoolPolicy { Fresh = "fresh", Reuse = "reuse" }
}

words! {
    /// The version of Judge0's API that clients are told.
    Judge0Version { V1131 = "1.13.1", V1140 = "1.14.0" }
}

words! {
    /// How log lines are written.
    LogFormat { Auto = "auto", Text = "text", Json = "json" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_urls_are_hidden_and_nothing_else() {
        assert_eq!(without_secrets("postgres://u:p@db:5432/gavel"), "postgres://****@db:5432/gavel");
        assert_eq!(without_secrets("nats://a:b@c,nats://d"), "nats://****@c,nats://d");
        assert_eq!(without_secrets("sqlite:gavel.db"), "sqlite:gavel.db");
    }

    #[test]
    fn secrets_are_long_and_never_shown() {
        let secrets = Secrets::parse("0123456789abcdef, fedcba9876543210").unwrap();
        assert_eq!(secrets.0.len(), 2);
        assert_eq!(shown(Kind::Secrets, "0123456789abcdef, fedcba9876543210"), "****");
        assert_eq!(format!("{secrets:?}"), "2 secrets");
        for wrong in ["0123456789abcde", "0123456789abcdef,short", "0123456789 abcdef", "0123456789abcdé\u{fc}ü"] {
            assert!(Secrets::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(shown(Kind::Secrets, ""), "");
    }

    #[test]
    fn numbers_keep_their_range() {
        assert!(std::num::NonZeroU32::parse("0").unwrap_err().contains("between 1"));
        assert_eq!(u64::parse("100_000"), Ok(100_000));
    }
}
