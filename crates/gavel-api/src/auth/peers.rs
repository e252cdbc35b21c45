//! How often each address has shown a wrong token: guessing is slowed down, in bounded memory.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Wrong tokens that one address may show in a window.
pub const ALLOWED: u32 = 20;
pub const WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are kept apart; when there are more, the new ones share one count.
const ADDRESSES: usize = 4096;

#[derive(Debug, Default)]
pub struct Failures {
    by_address: Mutex<HashMap<IpAddr, Count>>,
}

#[derive(Debug, Clone, Copy)]
struct Count {
    since: Instant,
    failures: u32,
}

impl Failures {
    /// Takes note of a wrong token. `Some`: there were too many, and this long they are too many yet.
    pub fn record(&self, peer: Option<IpAddr>, now: Instant) -> Option<Duration> {
        let mut counts = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = network(peer);
        if counts.len() >= ADDRESSES && !counts.contains_key(&key) {
            counts.retain(|_, count| now.saturating_duration_since(count.since) < WINDOW);
            if counts.len() >= ADDRESSES {
                key = SHARED;
            }
        }
        let fresh = Count { since: now, failures: 0 };
        let count = counts.entry(key).or_insert(fresh);
        if now.saturating_duration_since(count.since) >= WINDOW {
            *count = fresh;
        }
        count.failures = count.failures.saturating_add(1);
        left(count, now)
    }

    /// Has this address shown too many wrong tokens? Then for how long yet.
    pub fn too_many(&self, peer: Option<IpAddr>, now: Instant) -> Option<Duration> {
        let counts = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        // One that found no place is counted with the others that found none.
        let count = counts.get(&network(peer)).or_else(|| counts.get(&SHARED))?;
        left(count, now)
    }
}

fn left(count: &Count, now: Instant) -> Option<Duration> {
    let age = now.saturating_duration_since(count.since);
    (count.failures > ALLOWED && age < WINDOW).then(|| WINDOW.saturating_sub(age))
}

/// No client has this address.
const SHARED: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// Whoever has one address of IPv6 has its whole /64.
fn network(peer: Option<IpAddr>) -> IpAddr {
    match peer.map(|peer| peer.to_canonical()) {
        Some(IpAddr::V6(address)) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        Some(address) => address,
        None => SHARED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn v4(n: u32) -> Option<IpAddr> {
        Some(IpAddr::V4(Ipv4Addr::from_bits(n)))
    }

    #[test]
    fn too_many_failures_of_one_address_are_told_until_the_window_ends() {
        let (failures, start) = (Failures::default(), Instant::now());
        for _ in 0..ALLOWED {
            assert_eq!(failures.record(v4(1), start), None);
        }
        assert_eq!(failures.too_many(v4(1), start), None);
        let later = start + Duration::from_secs(10);
        assert_eq!(failures.record(v4(1), later), Some(Duration::from_secs(50)));
        assert_eq!(failures.too_many(v4(1), later), Some(Duration::from_secs(50)));
        assert_eq!(failures.too_many(v4(2), later), None);
        assert_eq!(failures.too_many(v4(1), start + WINDOW), None);
        assert_eq!(failures.record(v4(1), start + WINDOW), None);
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let (failures, now) = (Failures::default(), Instant::now());
        let at = |n: u64| Some(IpAddr::V6(Ipv6Addr::from_bits((0x2001_0db8 << 96) | u128::from(n))));
        for n in 0..=u64::from(ALLOWED) {
            failures.record(at(n), now);
        }
        assert!(failures.too_many(at(999), now).is_some());
        let mapped = Some(IpAddr::V6(Ipv4Addr::from_bits(7).to_ipv6_mapped()));
        assert_eq!(network(mapped), network(v4(7)));
    }

    #[test]
    fn memory_is_bounded_and_who_finds_no_place_is_counted_all_the_same() {
        let (failures, now) = (Failures::default(), Instant::now());
        for n in 0..20_000 {
            failures.record(v4(n), now);
        }
        assert!(failures.by_address.lock().unwrap().len() <= ADDRESSES + 1);
        assert!(failures.too_many(v4(19_999), now).is_some());
        assert_eq!(failures.too_many(v4(5), now), None, "it has a place of its own");
        // A minute later there is room again.
        assert_eq!(failures.record(v4(50_000), now + WINDOW), None);
        assert_eq!(failures.by_address.lock().unwrap().len(), 1);
    }
}
