//! Signatures after the Standard Webhooks specification: HMAC-SHA256 of id, time and body.

use base64::Engine;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;

/// What the specification wants: less could be guessed, and more than a block adds nothing.
const MIN_KEY: usize = 24;
const MAX_KEY: usize = 64;
const PREFIX: &str = "whsec_";

const ANY_PADDING: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A key that callbacks are signed with. It is never shown.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(****)")
    }
}

impl Secret {
    /// Reads `whsec_` and base64.
    pub fn parse(text: &str) -> Result<Self, String> {
        let remedy = "make one with: echo \"whsec_$(head -c 32 /dev/urandom | base64)\"";
        let Some(encoded) = text.strip_prefix(PREFIX) else {
            return Err(format!("a secret begins with {PREFIX}: {remedy}"));
        };
        let key = ANY_PADDING.decode(encoded).map_err(|_| format!("{PREFIX} is followed by base64: {remedy}"))?;
        if (MIN_KEY..=MAX_KEY).contains(&key.len()) {
            Ok(Self(key))
        } else {
            Err(format!("a secret has between {MIN_KEY} and {MAX_KEY} bytes, this one {}: {remedy}", key.len()))
        }
    }

    fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> Option<String> {
        // HMAC takes keys of any length, so there is always one.
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
    }
}

/// The value of `webhook-signature`: one signature for each key, so that a key can be replaced.
pub fn signatures(secrets: &[Secret], id: &str, timestamp: i64, body: &[u8]) -> String {
    let signed: Vec<String> = secrets.iter().filter_map(|secret| secret.sign(id, timestamp, body)).collect();
    signed.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_specification_comes_out() {
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signed = signatures(&[secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn each_key_signs() {
        let keys: Vec<Secret> =
            [1_u8, 2].map(|n| Secret::parse(&format!("whsec_{}", STANDARD.encode([n; 32]))).unwrap()).to_vec();
        let both = signatures(&keys, "id", 5, b"x");
        assert_eq!(
            both.split(' ').collect::<Vec<_>>(),
            [signatures(&keys[..1], "id", 5, b"x"), signatures(&keys[1..], "id", 5, b"x")]
        );
    }

    #[test]
    fn a_secret_that_is_none_is_refused_and_never_shown() {
        let long = format!("whsec_{}", STANDARD.encode([7; 65]));
        let table = [
            ("", "begins with whsec_"),
            ("sekrit", "begins with whsec_"),
            ("whsec_!!!", "followed by base64"),
            ("whsec_c2hvcnQ=", "between 24 and 64 bytes, this one 5"),
            (long.as_str(), "between 24 and 64 bytes, this one 65"),
        ];
        for (text, expected) in table {
            let message = Secret::parse(text).unwrap_err();
            assert!(message.contains(expected) && message.contains("/dev/urandom"), "{text}: {message}");
            assert!(!message.contains("sekrit"));
        }
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(****)");
        assert!(Secret::parse("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").is_ok(), "padding left out");
    }
}
