//! Limits for one client: how many of its requests may wait for an instance, and how many wakes it
//! may cause.
//!
//! A client is an IPv4 address, or the first half of an IPv6 address. It never limits requests to an
//! awake instance, and it drops a client when nothing of it is counted.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipnet::IpNet;

use crate::domain::admission;
use crate::domain::time::Timestamp;

/// With more clients than this, those of whom nothing is counted are dropped.
const MANY: usize = 1024;

/// The address by which a client is known: a client with one IPv6 address has the 2^64 around it.
#[must_use]
pub fn known_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// The client that limits apply to; `None`: many clients share this address. Addresses of this host
/// (a proxy, a test, the operator) are shared, and those in `shared`.
#[must_use]
pub fn limited(address: IpAddr, shared: &[IpNet]) -> Option<IpAddr> {
    let address = address.to_canonical();
    let many = address.is_loopback() || shared.iter().any(|net| net.contains(&address));
    (!many).then(|| known_as(address))
}

/// The places in which requests wait for one instance.
#[derive(Debug, Default)]
pub(in crate::service) struct Places(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by: HashMap<IpAddr, usize>,
}

impl Places {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many wait.
    pub(in crate::service) fn count(&self) -> usize {
        self.taken().all
    }

    /// Takes one of `max`; `false`: there is none for this client.
    pub(in crate::service) fn take(&self, max: usize, client: Option<IpAddr>) -> bool {
        let mut taken = self.taken();
        let mine = client
            .and_then(|client| taken.by.get(&known_as(client)).copied())
            .unwrap_or(0);
        if !admission::may_wait(taken.all, mine, max) {
            return false;
        }
        taken.all += 1;
        if let Some(client) = client {
            *taken.by.entry(known_as(client)).or_default() += 1;
        }
        true
    }

    /// Gives one back that this client had.
    pub(in crate::service) fn give_back(&self, client: Option<IpAddr>) {
        let mut taken = self.taken();
        taken.all = taken.all.saturating_sub(1);
        let Some(client) = client.map(known_as) else {
            return;
        };
        if let Some(count) = taken.by.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                taken.by.remove(&client);
            }
        }
    }
}

/// The wakes that each client has asked for, of all instances together.
#[derive(Debug, Default)]
pub(in crate::service) struct Wakes(Mutex<HashMap<IpAddr, Timestamp>>);

impl Wakes {
    /// Counts one of `per_minute`; an error: how long until the next. `client`: one that is
    /// [`limited`].
    pub(in crate::service) fn count(
        &self,
        client: Option<IpAddr>,
        per_minute: Option<u32>,
        now: Timestamp,
    ) -> Result<(), Duration> {
        let (Some(client), Some(per_minute)) = (client, per_minute) else {
            return Ok(());
        };
        let mut paid = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = paid.get(&client).copied().unwrap_or(now);
        let until = admission::may_wake(before, now, per_minute)?;
        if paid.len() >= MANY && paid.len().is_power_of_two() {
            paid.retain(|_, until| *until > now);
        }
        paid.insert(client, until);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn one_client_cannot_take_the_last_quarter_and_others_can() {
        let places = Places::default();
        let one = (0..2000)
            .filter(|_| places.take(1000, ip("10.0.0.1")))
            .count();
        assert_eq!(one, 750);
        assert!(!places.take(1000, ip("10.0.0.1")));
        let other = (0..2000)
            .filter(|_| places.take(1000, ip("10.0.0.2")))
            .count();
        assert_eq!((other, places.count()), (250, 1000));
        for _ in 0..750 {
            places.give_back(ip("10.0.0.1"));
        }
        assert_eq!(places.count(), 250);
        assert!(!places.taken().by.contains_key(&ip("10.0.0.1").unwrap()));
        // Of a client that is not known nothing is held back but the end.
        assert_eq!((0..2000).filter(|_| places.take(1000, None)).count(), 750);
    }

    #[test]
    fn one_half_of_an_ipv6_address_is_one_client() {
        let places = Places::default();
        let got = (0..2000)
            .filter(|n| places.take(100, ip(&format!("2001:db8:0:1::{n:x}"))))
            .count();
        assert_eq!(got, 75);
        assert!(places.take(100, ip("2001:db8:0:2::1")));
    }

    #[test]
    fn an_address_that_many_share_is_no_client() {
        let shared = [
            "10.0.0.0/8".parse().unwrap(),
            "2001:db8:7::/48".parse().unwrap(),
        ];
        let limited = |text: &str| super::limited(text.parse().unwrap(), &shared);
        for many in [
            "127.0.0.9",
            "::1",
            "::ffff:127.0.0.1",
            "10.1.2.3",
            "::ffff:10.1.2.3",
            "2001:db8:7:1::5",
        ] {
            assert_eq!(limited(many), None, "{many}");
        }
        assert_eq!(limited("11.0.0.1"), ip("11.0.0.1"));
        assert_eq!(limited("2001:db8:8:1::5"), ip("2001:db8:8:1::"));
        assert_eq!(limited("::2"), ip("::"));
    }

    #[test]
    fn a_few_places_are_all_for_one_client() {
        for max in [1, 2, 3] {
            let places = Places::default();
            assert_eq!(
                (0..9).filter(|_| places.take(max, ip("10.0.0.1"))).count(),
                max
            );
        }
    }

    #[test]
    fn wakes_are_counted_by_client_and_minute() {
        let wakes = Wakes::default();
        let at = |s: u64| Timestamp(1_000_000 + s * 1000);
        let granted = |client: Option<IpAddr>, now| {
            (0..100)
                .filter(|_| wakes.count(client, Some(30), now).is_ok())
                .count()
        };
        assert_eq!(granted(ip("10.0.0.1"), at(0)), 30);
        assert_eq!(
            wakes.count(ip("10.0.0.1"), Some(30), at(0)),
            Err(Duration::from_secs(2))
        );
        assert_eq!(granted(ip("10.0.0.2"), at(0)), 30);
        assert_eq!(granted(ip("10.0.0.1"), at(10)), 5);
        assert_eq!(granted(ip("10.0.0.1"), at(600)), 30);
        assert_eq!(granted(None, at(600)), 100);
        assert!((0..100).all(|_| wakes.count(ip("10.0.0.3"), None, at(0)).is_ok()));
        for n in 0..5000_u32 {
            wakes
                .count(
                    Some(IpAddr::V4((n << 8).into())),
                    Some(30),
                    at(1000 + u64::from(n) * 10),
                )
                .unwrap();
        }
        assert!(wakes.0.lock().unwrap().len() < 2 * MANY);
    }
}
