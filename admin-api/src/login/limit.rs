//! How often somebody may try: so many times a minute, and no lock-out that outlasts it.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

const WINDOW: Duration = Duration::from_secs(60);
/// Log-ins to one account from one address.
pub(crate) const TRIES: usize = 10;
/// Log-ins from one address, whatever the account.
const TRIES_OF_ADDRESS: usize = 60;
/// Accounts and addresses remembered; beyond, those that tried longest ago go first.
const REMEMBERED: usize = 20_000;

/// When who tried.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    tries: HashMap<Key, VecDeque<Instant>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Address(String),
    Account(String, String),
    /// Wrong second factors: whoever comes so far knows the password.
    Code(i64),
}

impl Limits {
    /// Counts a log-in, or says how long to wait.
    pub(crate) fn log_in(&mut self, account: &str, address: Option<IpAddr>) -> Result<(), Duration> {
        let address = address.map(network).unwrap_or_default();
        self.take(Key::Address(address.clone()), TRIES_OF_ADDRESS)?;
        self.take(Key::Account(account.to_lowercase(), address), TRIES)
    }

    /// Counts a second factor, or says how long to wait.
    pub(crate) fn code(&mut self, account_id: i64) -> Result<(), Duration> {
        self.take(Key::Code(account_id), TRIES)
    }

    fn take(&mut self, key: Key, most: usize) -> Result<(), Duration> {
        let now = Instant::now();
        if self.tries.len() >= REMEMBERED {
            self.tries.retain(|_, tries| tries.back().is_some_and(|last| now.duration_since(*last) < WINDOW));
        }
        if self.tries.len() >= REMEMBERED {
            self.tries.clear();
        }
        let tries = self.tries.entry(key).or_default();
        while tries.front().is_some_and(|first| now.duration_since(*first) >= WINDOW) {
            tries.pop_front();
        }
        if tries.len() >= most {
            let first = tries.front().map_or(Duration::ZERO, |first| now.duration_since(*first));
            return Err(WINDOW.saturating_sub(first));
        }
        tries.push_back(now);
        Ok(())
    }
}

/// One customer's line has many IPv6 addresses; they count as one.
fn network(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_tried_ten_times_a_minute_from_one_address() {
        let mut limits = Limits::default();
        let (here, there) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        for _ in 0..TRIES {
            limits.log_in("ann", Some(here)).unwrap();
        }
        assert!(limits.log_in("Ann", Some(here)).unwrap_err() <= WINDOW);
        limits.log_in("ann", Some(there)).unwrap();
        limits.log_in("ben", Some(here)).unwrap();
    }

    #[test]
    fn one_address_cannot_try_many_accounts_nor_many_addresses_of_one_line() {
        let mut limits = Limits::default();
        let refused = (0..TRIES_OF_ADDRESS * 2)
            .filter(|n| {
                let segments = [0x2001, 0xdb8, 0, 1, 0, 0, 0, u16::try_from(*n).unwrap()];
                limits.log_in(&n.to_string(), Some(IpAddr::from(segments))).is_err()
            })
            .count();
        assert_eq!(refused, TRIES_OF_ADDRESS);
    }
}
